"""Plots that the stages save: factors over their cosines, energies, misses, losses, errors, sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.atomic import atomic_path
from nlml_hpe.files.images import RgbImage
from nlml_hpe.manifold.cosines import Cosines
from nlml_hpe.manifold.tucker import TuckerModel
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES
from nlml_hpe.training import History

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)
    return path


def plot_factors(model: TuckerModel, cosines: Sequence[Cosines], grid: PoseGrid, path: Path) -> Path:
    """Every factor column (dots) over its fitted cosine (line), one panel per axis."""
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
    return _save(figure, path)


def plot_energy(model: TuckerModel, path: Path) -> Path:
    """Share of each mode's energy by component, on a logarithmic axis, kept ones filled."""
    figure, panels = plt.subplots(1, 4, figsize=(14, 3.2))
    for panel, name, shares, factor in zip(panels, ("identity", *AXES), model.energy, model.factors, strict=True):
        shown = np.maximum(shares[:15], 1e-12)
        kept = np.arange(len(shown)) < factor.shape[1]
        panel.bar(np.arange(1, len(shown) + 1), shown, color=np.where(kept, "C0", "lightgrey"))
        panel.set(title=f"{name}: {shares[: factor.shape[1]].sum():.4%} kept", yscale="log", xlabel="component")
        panel.set_xticks(np.arange(1, len(shown) + 1, 2))
    return _save(figure, path)


def plot_misses(detected: NDArray[np.bool_], grid: PoseGrid, path: Path, title: str) -> Path:
    """Share of people missed at every pose: one panel per roll, pitch over yaw."""
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
    return _save(figure, path)


def plot_history(histories: Mapping[str, History], path: Path) -> Path:
    """Loss curves of one or several trainings; the kept epoch is marked."""
    figure, panels = plt.subplots(1, len(histories), figsize=(4.5 * len(histories), 3.2), squeeze=False)
    for panel, (name, history) in zip(panels[0], histories.items(), strict=True):
        panel.plot(history.train, label="train")
        panel.plot(history.validation, label="validation")
        panel.axvline(history.best_epoch, color="grey", ls=":", label=f"kept: epoch {history.best_epoch + 1}")
        panel.set(title=name, xlabel="epoch", ylabel="loss", yscale="log")
        panel.legend(fontsize=8)
    return _save(figure, path)


def plot_intervals(tables: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], path: Path) -> Path:
    """MAE per interval of the true angle, one panel per angle, one line per route."""
    figure, panels = plt.subplots(1, 3, figsize=(13, 3.4), sharey=True)
    for panel, name in zip(panels, AXES, strict=True):
        for route, table in tables.items():
            middle = [(row["from"] + row["to"]) / 2 for row in table[name]]
            panel.plot(middle, [row["mae"] for row in table[name]], "o-", ms=3, label=route)
        panel.set(xlabel=f"true {name} (degrees)", title=name)
    panels[0].set_ylim(bottom=0)  # shared, so after all panels have scaled it
    panels[0].set_ylabel("MAE (degrees)")
    panels[0].legend(fontsize=8)
    return _save(figure, path)


def plot_error_cdf(errors: Mapping[str, NDArray[np.float64]], path: Path, limit: float = 15.0) -> Path:
    """Share of faces (n,) whose error is at most so many degrees, one line per route."""
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
    return _save(figure, path)


def tiled(rows: Sequence[Sequence[RgbImage]], side: int) -> RgbImage:
    """Images in rows, each resized to ``side`` px, as one image."""
    cells = [[np.asarray(cv2.resize(im, (side, side), interpolation=cv2.INTER_AREA)) for im in row] for row in rows]
    return np.vstack([np.hstack(row) for row in cells]).astype(np.uint8)


def save_image(image: RgbImage, path: Path) -> Path:
    """Write an RGB image, in the format that the path's suffix names, atomically."""
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), image[..., ::-1]):
            raise OSError(f"{path}: the image could not be written")
    return path
