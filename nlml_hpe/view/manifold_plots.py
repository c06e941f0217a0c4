"""Plots of the manifold and its data: factors over their cosines, energies, faces that were missed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nlml_hpe.rotation import AXES
from nlml_hpe.view.figures import save_figure

if TYPE_CHECKING:  # a plot needs no tensorly
    from nlml_hpe.manifold.cosines import Cosines
    from nlml_hpe.manifold.tucker import TuckerModel
    from nlml_hpe.pose_grid import PoseGrid


def plot_factors(model: TuckerModel, cosines: Sequence[Cosines], grid: PoseGrid, path: str | Path) -> Path:
    """Draw every factor column (dots) over its fitted cosine (line), one panel per axis.

    Parameters
    ----------
    model : TuckerModel
        The decomposition; its factors of yaw, pitch and roll are drawn.
    cosines : sequence of Cosines
        The fits of the three axes.
    grid : PoseGrid
        Where the dots lie, in degrees.
    path : str or Path
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
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
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


def plot_energy(model: TuckerModel, path: str | Path) -> Path:
    """Draw the share of each mode's energy by component, on a logarithmic axis; those that are kept are filled.

    Parameters
    ----------
    model : TuckerModel
        The decomposition.
    path : str or Path
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
    figure = Figure(figsize=(14, 3.2), layout="constrained")
    panels = figure.subplots(1, 4)
    for panel, name, shares, factor in zip(panels, ("identity", *AXES), model.energy, model.factors, strict=True):
        shown = np.maximum(shares[:15], 1e-12)
        kept = np.arange(len(shown)) < factor.shape[1]
        panel.bar(np.arange(1, len(shown) + 1), shown, color=np.where(kept, "C0", "lightgrey"))
        panel.set(title=f"{name}: {shares[: factor.shape[1]].sum():.4%} kept", yscale="log", xlabel="component")
        panel.set_xticks(np.arange(1, len(shown) + 1, 2))
    return save_figure(figure, path)


def plot_misses(detected: NDArray[np.bool_], grid: PoseGrid, path: str | Path, title: str) -> Path:
    """Draw the share of people whose face was not found at every pose: one panel per roll, pitch over yaw.

    Parameters
    ----------
    detected : ndarray
        (people, yaw, pitch, roll), whether the face was found.
    grid : PoseGrid
        The poses.
    path : str or Path
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
    size = (2 * len(grid.roll) + 2, 3)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(grid.roll), squeeze=False)
    for index, (panel, roll) in enumerate(zip(panels[0], grid.roll, strict=True)):
        picture = panel.imshow(missed[:, :, index].T, origin="lower", vmin=0, vmax=1, cmap="magma_r", aspect="auto")
        panel.set(title=f"roll {roll:g}", xlabel="yaw (degrees)")
        panel.set_xticks([0, len(grid.yaw) - 1], [f"{grid.yaw[0]:g}", f"{grid.yaw[-1]:g}"])
        panel.set_yticks(
            [0, len(grid.pitch) - 1], [f"{p:g}" for p in (grid.pitch[0], grid.pitch[-1])] if not index else []
        )
    panels[0, 0].set_ylabel("pitch (degrees)")
    figure.colorbar(picture, ax=panels.ravel().tolist(), label="share missed")
    figure.suptitle(title)
    return save_figure(figure, path)
