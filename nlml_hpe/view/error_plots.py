"""Plots of errors: over the true angle, and the share of faces below each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nlml_hpe.rotation import AXES
from nlml_hpe.view.figures import save_figure

_COLUMNS = 5
"""Names of routes on a line of the legend."""


def plot_intervals(tables: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], path: str | Path) -> Path:
    """Draw the MAE over the true angle, one panel per angle, one line per route; bars say how many faces it is of.

    Parameters
    ----------
    tables : mapping
        Route -> what ``metrics.per_interval`` gives.
    path : str or Path
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
    figure = Figure(figsize=(13, 3.7), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, name in zip(panels, AXES, strict=True):
        _draw_counts(panel, next(iter(tables.values()))[name])
        for route, table in tables.items():
            middle = [(row["from"] + row["to"]) / 2 for row in table[name]]
            panel.plot(middle, [row["mae"] for row in table[name]], "o-", ms=3, label=route)
        panel.set(xlabel=f"true {name} (degrees)", title=name)
    panels[0].set_ylim(bottom=0)  # shared, so after all panels have scaled it
    panels[0].set_ylabel("MAE (degrees)")
    # Below the panels: in one of them there is no place that lines of many routes leave free.
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=_COLUMNS, fontsize=8)
    return save_figure(figure, path)


def _draw_counts(panel: Axes, table: Sequence[Mapping[str, float]]) -> None:
    """Bars behind the lines, on a scale of their own: an MAE of three faces says less than one of three hundred."""
    counts = panel.twinx()
    middle, width = ([(row["from"] + row["to"]) / 2 for row in table], [row["to"] - row["from"] for row in table])
    counts.bar(middle, [row["n"] for row in table], [0.9 * each for each in width], color="0.9")
    counts.set_ylabel("faces", color="0.6")
    counts.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    counts.tick_params(labelcolor="0.6")
    panel.set_zorder(counts.get_zorder() + 1)
    panel.set_frame_on(False)


def plot_error_cdf(errors: Mapping[str, NDArray[np.float64]], path: str | Path, limit: float = 15.0) -> Path:
    """Draw the share of faces whose error is at most so many degrees, one line per route.

    Parameters
    ----------
    errors : mapping of str to ndarray
        Route -> (n,) mean error of the three angles, in degrees.
    path : str or Path
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
    figure = Figure(figsize=(5.5, 3.6))
    panel = figure.subplots()
    for route, values in errors.items():
        # A step at each error, from none to the end of the axis: one face, or all beyond it, are seen so, too.
        below = np.sort(values[values <= limit])
        share = np.arange(len(below) + 1) / len(values)
        steps = (np.concatenate([[0.0], below, [limit]]), np.append(share, share[-1]))
        panel.plot(*steps, drawstyle="steps-post", clip_on=False, zorder=3, label=route)  # above the frame
    panel.set(
        xlim=(0, limit),
        ylim=(0, 1),
        xlabel="mean error of the three angles (degrees)",
        ylabel="share of detected faces",
    )
    panel.legend(fontsize=8)
    return save_figure(figure, path)
