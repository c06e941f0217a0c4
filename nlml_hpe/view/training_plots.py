"""Plots of trainings: losses, metrics and the learning rate by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nlml_hpe.view.figures import save_figure

if TYPE_CHECKING:  # a plot needs no torch
    from nlml_hpe.training_run import History


def plot_history(histories: Mapping[str, History], path: str | Path) -> Path:
    """Draw loss curves of one or several trainings; the epoch that was kept is marked.

    Parameters
    ----------
    histories : mapping of str to History
        Losses by the training's name, one panel for each.
    path : str or Path
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
    size = (4.5 * len(histories), 3.2)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(histories), squeeze=False)
    for panel, (name, history) in zip(panels[0], histories.items(), strict=True):
        _draw_curves(panel, {"train": history.train, "validation": history.validation}, history.best_epoch)
        panel.set(title=name, ylabel="loss", yscale="log")
    return save_figure(figure, path)


def _draw_curves(panel: Axes, curves: Mapping[str, Sequence[float]], best_epoch: int) -> None:
    """Lines over the epochs; of a single epoch a line would show nothing, so it is a dot."""
    for name, values in curves.items():
        panel.plot(range(1, len(values) + 1), values, marker="o" if len(values) == 1 else "", label=name)
    panel.axvline(best_epoch + 1, color="grey", ls=":", zorder=1, label=f"kept: epoch {best_epoch + 1}")
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.legend(fontsize=8)


def plot_measures(history: History, path: str | Path) -> Path:
    """Draw loss, every metric and the learning rate of one training by epoch; the kept epoch is marked.

    Parameters
    ----------
    history : History
        Of one epoch or more.
    path : str or Path
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
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)
    for panel, (title, lines) in zip(panels[0], curves.items(), strict=True):
        _draw_curves(panel, lines, history.best_epoch)
        panel.set_title(title)
    return save_figure(figure, path)
