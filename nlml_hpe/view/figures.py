"""Figures as files, without a window."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from nlml_hpe.files.atomic import atomic_path

matplotlib.use("Agg")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically, and close it; returns ``path``."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)
    return path
