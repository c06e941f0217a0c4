"""Plots of stated doubt against errors: how often intervals hold, and the error of those that are surest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlml_hpe.rotation import AXES
from nlml_hpe.view.figures import save_figure

_LEAST_SHARE = 0.4
"""Where the axes of shares begin: no interval is of less. Those that hold less often are shown all the same."""


def plot_held(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw how often intervals hold against how often they should, a panel for each set of faces.

    Parameters
    ----------
    rows : sequence of mapping
        As ``evaluation.doubt.doubt_rows`` gives them.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.
    """
    figure, panels = _panels(rows)
    for panel, answered in panels:
        lowest = _LEAST_SHARE
        panel.plot([0, 1], [0, 1], color="0.7", lw=1)
        for color, row in enumerate(answered):
            nominal = [float(share) for share in row["held"]]
            for axis, line in zip(AXES, ("-", "--", ":"), strict=True):
                held = [shares[axis] for shares in row["held"].values()]
                lowest = min(lowest, *held)
                name = f"{row['eye']}, {axis}"
                (drawn,) = panel.plot(nominal, held, line, marker="o", ms=3.5, color=f"C{color}", label=name)
                drawn.set(clip_on=False, zorder=3)  # above the frame, on which lines at 0 and at 1 lie
        panel.set(xlabel="share that should hold", ylabel="share that holds", xlim=(_LEAST_SHARE, 1), ylim=(lowest, 1))
        panel.legend(fontsize=7, handlelength=4.5)  # so long that dashes and dots are seen beside the marker
    return save_figure(figure, path)


def plot_risk(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the MAE of the surest faces against their share, a panel for each set of faces.

    Parameters
    ----------
    rows : sequence of mapping
        As ``evaluation.doubt.doubt_rows`` gives them.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.
    """
    figure, panels = _panels(rows)
    for panel, answered in panels:
        for row in answered:
            shares = [100 * float(share) for share in row["risk"]]
            panel.plot(shares, list(row["risk"].values()), marker="o", ms=3.5, label=row["eye"])
        panel.set(xlabel="surest faces (%)", ylabel="MAE (degrees)")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=8)
    return save_figure(figure, path)


def _panels(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, list[tuple[Axes, list[Mapping[str, Any]]]]]:
    """A figure with a panel for each set of faces, and the rows of the eyes that answer some of them, if any does."""
    sets = list(dict.fromkeys(row["faces"] for row in rows))
    figure = Figure(figsize=(4.6 * len(sets), 4.2), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)
    shown = []
    for panel, faces in zip(panels[0], sets, strict=True):
        if answered := [row for row in rows if row["faces"] == faces and row["n"]]:
            panel.set_title(faces)
            shown.append((panel, answered))
        else:
            panel.set_title(f"{faces}: no answer")
            panel.set_axis_off()
    return figure, shown
