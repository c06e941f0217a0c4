"""Figures as files, without a window: pyplot is left alone, whose backend and open figures are those of the caller."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from nlml_hpe.files.atomic import atomic_path


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, atomically; returns ``path``."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    return Path(path)
