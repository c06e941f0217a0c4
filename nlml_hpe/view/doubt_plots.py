"""Plots of stated doubt against errors: how often intervals hold, and the error of those that are surest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlml_hpe.rotation import AXES
from nlml_hpe.view.figures import save_figure


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
        panel.plot([0, 1], [0, 1], color="0.7", lw=1)
        for color, row in enumerate(answered):
            nominal = [float(share) for share in row["held"]]
            for axis, line in zip(AXES, ("-", "--", ":"), strict=True):
                held = [shares[axis] for shares in row["held"].values()]
                panel.plot(nominal, held, line, marker="o", ms=3.5, color=f"C{color}", label=f"{row['eye']}, {axis}")
        panel.set(xlabel="share that should hold", ylabel="share that holds", xlim=(0.4, 1), ylim=(0.4, 1))
        panel.legend(fontsize=7)
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
    """A figure with a panel for each set of faces, and the rows of the eyes that answer some of them."""
    sets = list(dict.fromkeys(row["faces"] for row in rows))
    figure, panels = plt.subplots(1, len(sets), figsize=(4.6 * len(sets), 4.2), squeeze=False)
    for panel, faces in zip(panels[0], sets, strict=True):
        panel.set_title(faces)
    answered = [[row for row in rows if row["faces"] == faces and row["n"]] for faces in sets]
    return figure, list(zip(panels[0], answered, strict=True))
