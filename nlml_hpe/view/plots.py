"""Plots that the stages save: factors over their cosines, energies, misses, losses, errors, sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.atomic import atomic_path
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import AXES

if TYPE_CHECKING:  # who evaluates photographs needs neither tensorly nor a configuration
    from nlml_hpe.manifold.cosines import Cosines
    from nlml_hpe.manifold.tucker import TuckerModel
    from nlml_hpe.pose_grid import PoseGrid
    from nlml_hpe.training_run import History

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically, and close it; returns ``path``."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)
    return path


def plot_factors(model: TuckerModel, cosines: Sequence[Cosines], grid: PoseGrid, path: Path) -> Path:
    """Draw every factor column (dots) over its fitted cosine (line), one panel per axis.

    Parameters
    ----------
    model : TuckerModel
        The decomposition; its factors of yaw, pitch and roll are drawn.
    cosines : sequence of Cosines
        The fits of the three axes.
    grid : PoseGrid
        Where the dots lie, in degrees.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nlml_hpe.manifold.cosines import fit_axes
    >>> from nlml_hpe.manifold.tucker import decompose
    >>> from nlml_hpe.pose_grid import PoseGrid
    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (-5.0, 5.0), (-5.0, 5.0))
    >>> tensor = np.random.default_rng(0).normal(size=(3, *grid.shape, 6)).astype(np.float32)
    >>> model = decompose(tensor, (2, 2, 1, 1), grid)
    >>> with TemporaryDirectory() as folder:
    ...     plot_factors(model, fit_axes(grid, model.factors[1:]), grid, Path(folder) / "factors.png").name
    'factors.png'
    """
    figure, panels = plt.subplots(1, 3, figsize=(13, 3.6))
    for panel, name, axis, factor, fit in zip(panels, AXES, grid.axes, model.factors[1:], cosines, strict=True):
        dense = np.linspace(axis[0], axis[-1], 200)
        curves = fit(dense)
        for column in range(factor.shape[1]):
            color = f"C{column}"
            panel.plot(dense, curves[:, column], color=color, lw=1.4)
            panel.plot(
                axis, factor[:, column], "o", color=color, ms=4, label=f"{column + 1}: rms {fit.rms[column]:.4f}"
            )
        panel.set(title=f"U_{name}", xlabel=f"{name} (degrees)")
        panel.legend(fontsize=7)
    figure.suptitle("Factor columns (dots) over a cos(b w + c) + d (lines)")
    return save_figure(figure, path)


def plot_energy(model: TuckerModel, path: Path) -> Path:
    """Draw the share of each mode's energy by component, on a logarithmic axis; those that are kept are filled.

    Parameters
    ----------
    model : TuckerModel
        The decomposition.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nlml_hpe.manifold.tucker import decompose
    >>> from nlml_hpe.pose_grid import PoseGrid
    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (-5.0, 5.0), (-5.0, 5.0))
    >>> tensor = np.random.default_rng(0).normal(size=(3, *grid.shape, 6)).astype(np.float32)
    >>> model = decompose(tensor, (2, 2, 1, 1), grid)
    >>> with TemporaryDirectory() as folder:
    ...     plot_energy(model, Path(folder) / "energy.png").name
    'energy.png'
    """
    figure, panels = plt.subplots(1, 4, figsize=(14, 3.2))
    for panel, name, shares, factor in zip(panels, ("identity", *AXES), model.energy, model.factors, strict=True):
        shown = np.maximum(shares[:15], 1e-12)
        kept = np.arange(len(shown)) < factor.shape[1]
        panel.bar(np.arange(1, len(shown) + 1), shown, color=np.where(kept, "C0", "lightgrey"))
        panel.set(title=f"{name}: {shares[: factor.shape[1]].sum():.4%} kept", yscale="log", xlabel="component")
        panel.set_xticks(np.arange(1, len(shown) + 1, 2))
    return save_figure(figure, path)


def plot_misses(detected: NDArray[np.bool_], grid: PoseGrid, path: Path, title: str) -> Path:
    """Draw the share of people whose face was not found at every pose: one panel per roll, pitch over yaw.

    Parameters
    ----------
    detected : ndarray
        (people, yaw, pitch, roll), whether the face was found.
    grid : PoseGrid
        The poses.
    path : Path
        The PNG file to write.
    title : str
        Above the panels.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nlml_hpe.pose_grid import PoseGrid
    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (-5.0, 5.0), (0.0,))
    >>> with TemporaryDirectory() as folder:
    ...     plot_misses(np.ones((4, *grid.shape), dtype=bool), grid, Path(folder) / "misses.png", "none missed").name
    'misses.png'
    """
    missed = 1 - detected.mean(axis=0)
    figure, panels = plt.subplots(1, len(grid.roll), figsize=(2.2 * len(grid.roll) + 1, 2.6), squeeze=False)
    for index, (panel, roll) in enumerate(zip(panels[0], grid.roll, strict=True)):
        picture = panel.imshow(missed[:, :, index].T, origin="lower", vmin=0, vmax=1, cmap="magma_r", aspect="auto")
        panel.set(title=f"roll {roll:g}", xlabel="yaw")
        panel.set_xticks([0, len(grid.yaw) - 1], [f"{grid.yaw[0]:g}", f"{grid.yaw[-1]:g}"])
        panel.set_yticks(
            [0, len(grid.pitch) - 1], [f"{p:g}" for p in (grid.pitch[0], grid.pitch[-1])] if not index else []
        )
    panels[0, 0].set_ylabel("pitch")
    figure.colorbar(picture, ax=panels.ravel().tolist(), label="share missed")
    figure.suptitle(title, y=1.08)
    return save_figure(figure, path)


def plot_history(histories: Mapping[str, History], path: Path) -> Path:
    """Draw loss curves of one or several trainings; the epoch that was kept is marked.

    Parameters
    ----------
    histories : mapping of str to History
        Losses by the training's name, one panel for each.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nlml_hpe.training_run import History
    >>> history = History([0.9, 0.5], [0.8, 0.6], best_epoch=1, learning_rate=[1e-3, 1e-3])
    >>> with TemporaryDirectory() as folder:
    ...     plot_history({"encoder": history}, Path(folder) / "losses.png").name
    'losses.png'
    """
    figure, panels = plt.subplots(1, len(histories), figsize=(4.5 * len(histories), 3.2), squeeze=False)
    for panel, (name, history) in zip(panels[0], histories.items(), strict=True):
        panel.plot(history.train, label="train")
        panel.plot(history.validation, label="validation")
        panel.axvline(history.best_epoch, color="grey", ls=":", label=f"kept: epoch {history.best_epoch + 1}")
        panel.set(title=name, xlabel="epoch", ylabel="loss", yscale="log")
        panel.legend(fontsize=8)
    return save_figure(figure, path)


def plot_measures(history: History, path: Path) -> Path:
    """Draw loss, every metric and the learning rate of one training by epoch; the kept epoch is marked.

    Parameters
    ----------
    history : History
        Of one epoch or more.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nlml_hpe.training_run import History
    >>> history = History([0.9, 0.5], [0.8, 0.6], 1, [1e-3, 1e-3], {"yaw": [9.0, 5.0]})
    >>> with TemporaryDirectory() as folder:
    ...     plot_measures(history, Path(folder) / "measures.png").name
    'measures.png'
    """
    curves = {"loss": {"train": history.train, "validation": history.validation}}
    if history.metrics:
        curves["validation, degrees"] = history.metrics
    curves["learning rate"] = {"": history.learning_rate}
    size = (4.5 * len(curves), 3.2)
    figure, panels = plt.subplots(1, len(curves), figsize=size, squeeze=False, layout="constrained")
    for panel, (title, lines) in zip(panels[0], curves.items(), strict=True):
        for name, values in lines.items():
            panel.plot(range(1, len(values) + 1), values, label=name)
        panel.axvline(history.best_epoch + 1, color="grey", ls=":", label=f"kept: epoch {history.best_epoch + 1}")
        panel.set(title=title, xlabel="epoch")
        panel.legend(fontsize=8)
    return save_figure(figure, path)


def plot_intervals(tables: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], path: Path) -> Path:
    """Draw the MAE over the true angle, one panel per angle, one line per route.

    Parameters
    ----------
    tables : mapping
        Route -> what ``metrics.per_interval`` gives.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> rows = [{"from": -10.0, "to": 0.0, "n": 5, "mae": 2.0}, {"from": 0.0, "to": 10.0, "n": 7, "mae": 1.5}]
    >>> with TemporaryDirectory() as folder:
    ...     plot_intervals({"refined": dict.fromkeys(AXES, rows)}, Path(folder) / "intervals.png").name
    'intervals.png'
    """
    figure, panels = plt.subplots(1, 3, figsize=(13, 3.4), sharey=True)
    for panel, name in zip(panels, AXES, strict=True):
        for route, table in tables.items():
            middle = [(row["from"] + row["to"]) / 2 for row in table[name]]
            panel.plot(middle, [row["mae"] for row in table[name]], "o-", ms=3, label=route)
        panel.set(xlabel=f"true {name} (degrees)", title=name)
    panels[0].set_ylim(bottom=0)  # shared, so after all panels have scaled it
    panels[0].set_ylabel("MAE (degrees)")
    panels[0].legend(fontsize=8)
    return save_figure(figure, path)


def plot_error_cdf(errors: Mapping[str, NDArray[np.float64]], path: Path, limit: float = 15.0) -> Path:
    """Draw the share of faces whose error is at most so many degrees, one line per route.

    Parameters
    ----------
    errors : mapping of str to ndarray
        Route -> (n,) mean error of the three angles, in degrees.
    path : Path
        The PNG file to write.
    limit : float
        Where the axis of errors ends, in degrees.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     plot_error_cdf({"refined": np.array([1.0, 2.0, 4.0])}, Path(folder) / "cdf.png").name
    'cdf.png'
    """
    figure, panel = plt.subplots(figsize=(5.5, 3.6))
    for route, values in errors.items():
        panel.plot(np.sort(values), (np.arange(len(values)) + 1) / len(values), label=route)
    panel.set(
        xlim=(0, limit),
        ylim=(0, 1),
        xlabel="mean error of the three angles (degrees)",
        ylabel="share of detected faces",
    )
    panel.legend(fontsize=8)
    return save_figure(figure, path)


def tiled(rows: Sequence[Sequence[RgbImage]], side: int) -> RgbImage:
    """Put images side by side.

    Parameters
    ----------
    rows : sequence of sequence of ndarray
        RGB uint8 images (H, W, 3) of any size, the same number in every row.
    side : int
        Width and height in pixels to which each is resized.

    Returns
    -------
    ndarray
        One RGB uint8 image.

    Examples
    --------
    >>> tiled([[np.zeros((5, 7, 3), dtype=np.uint8)] * 3] * 2, side=10).shape
    (20, 30, 3)
    """
    cells = [[np.asarray(cv2.resize(im, (side, side), interpolation=cv2.INTER_AREA)) for im in row] for row in rows]
    return np.vstack([np.hstack(row) for row in cells]).astype(np.uint8)


def save_image(image: RgbImage, path: Path) -> Path:
    """Write an RGB image, in the format that the path's suffix names, atomically.

    Parameters
    ----------
    image : ndarray
        RGB uint8 (H, W, 3).
    path : Path
        The file to write.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OSError
        Where it cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_image(np.zeros((4, 6, 3), dtype=np.uint8), Path(folder) / "black.png").name
    'black.png'
    """
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), image[..., ::-1]):
            raise OSError(f"{path}: the image could not be written")
    return path
