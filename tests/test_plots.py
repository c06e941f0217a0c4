"""Plots of few and of many numbers: nothing that is measured is invisible, and no text lies over another."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from nlml_hpe.manifold.cosines import fit_axes
from nlml_hpe.manifold.tucker import decompose
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES
from nlml_hpe.training_run import History
from nlml_hpe.view import comparison, doubt_plots, error_plots, manifold_plots, training_plots

MODULES = (comparison, doubt_plots, error_plots, manifold_plots, training_plots)
ROUTES = ("network", "exact", "refined", "image", "fused")
ONE_EPOCH = History([0.5], [0.6], 0, [1e-3], {"yaw": [9.0], "pitch": [8.0]})
NOWHERE = Path("nowhere.png")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is drawn, as it is saved."""
    drawn: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        drawn.append(figure)
        return path

    for module in MODULES:
        monkeypatch.setattr(module, "save_figure", keep)
    return drawn


def texts_over_others(figure: Figure) -> list[tuple[str, str]]:
    """Titles, names of axes and numbers at ticks, but for ticks that are out of view."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    shown: list[Text] = [*(panel.title for panel in figure.axes), *(axis.label for axis in axes)]
    for axis in axes:
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        shown += [label for tick in ticks if low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)]
    if figure.get_suptitle():
        shown.append(figure.texts[0])
    texts = [(text.get_text(), text.get_window_extent()) for text in shown if text.get_visible() and text.get_text()]
    over = [(a, b) for (a, here), (b, there) in itertools.combinations(texts, 2) if here.padded(-1).overlaps(there)]
    panels = [panel.get_window_extent().padded(-1) for panel in figure.axes]
    return over + [(text, "a panel") for text, box in texts for panel in panels if panel.overlaps(box.padded(-1))]


def intervals() -> None:
    rows = [{"from": low, "to": low + 10.0, "n": 20000 - 100 * low, "mae": 2.0} for low in range(-90, 90, 10)]
    error_plots.plot_intervals(dict.fromkeys(ROUTES, dict.fromkeys(AXES, rows)), NOWHERE)


def losses() -> None:
    history = History([1.0, 0.05], [1.1, 0.2], 1, [1e-3, 1e-3])
    training_plots.plot_history(dict.fromkeys(AXES, history), NOWHERE)


def manifold() -> None:
    grid = PoseGrid(tuple(range(-50, 51, 10)), tuple(range(-40, 41, 10)), tuple(range(-30, 31, 10)))
    tensor = np.random.default_rng(0).normal(size=(3, *grid.shape, 9)).astype(np.float32)
    model = decompose(tensor, (2, 3, 3, 3), grid)
    manifold_plots.plot_factors(model, fit_axes(grid, model.factors[1:]), grid, NOWHERE)
    manifold_plots.plot_energy(model, NOWHERE)
    manifold_plots.plot_misses(tensor[..., 0] > 0, grid, NOWHERE, "train: 1040 of 2079 grid faces not found (50.0%)")


def one_pose() -> None:
    grid = PoseGrid((-10.0, 0.0), (-5.0, 5.0), (0.0,))
    manifold_plots.plot_misses(np.zeros((1, *grid.shape), dtype=bool), grid, NOWHERE, "validation: 4 of 4 not found")


def compared(ms: dict[str, float | None]) -> None:
    row = {
        "n": 9,
        "coverage": 1.0,
        "mae": {"mean": 2.0},
        "mae_interval": {"mean": (1.8, 2.2)},
        "mae_all": {"mean": 2.3},
    }
    comparison.plot_comparison({"range": {"routes": dict.fromkeys(ms, row)}}, ms, NOWHERE)


def two_decades() -> None:
    compared({name: 1.5 * 3**number for number, name in enumerate(ROUTES)})


@pytest.mark.parametrize("plot", [intervals, losses, manifold, one_pose, two_decades])
def test_no_text_lies_over_another_or_over_a_panel(plot: Callable[[], None], figures: list[Figure]) -> None:
    plot()
    assert figures
    assert [texts_over_others(figure) for figure in figures] == [[]] * len(figures)


def test_a_training_of_one_epoch_is_seen(figures: list[Figure]) -> None:
    """A line through one point is no line: the panels were empty, and epochs were 0.96 to 1.04."""
    training_plots.plot_measures(ONE_EPOCH, NOWHERE)
    training_plots.plot_history({"encoder": ONE_EPOCH}, NOWHERE)
    for panel in itertools.chain(*(figure.axes for figure in figures)):
        *curves, kept = panel.lines
        assert curves
        assert all(curve.get_marker() == "o" for curve in curves)
        assert kept.get_marker() == "None"
        assert [tick for tick in panel.get_xticks() if 0.9 < tick < 1.1] == [1.0]


def test_of_few_faces_no_half_ones_are_counted(figures: list[Figure]) -> None:
    rows = [{"from": 0.0, "to": 10.0, "n": 1, "mae": 2.0}, {"from": 10.0, "to": 20.0, "n": 3, "mae": 2.5}]
    error_plots.plot_intervals({"refined": dict.fromkeys(AXES, rows)}, NOWHERE)
    counts = [panel.get_yticks() for panel in figures[0].axes if panel.get_ylabel() == "faces"]
    assert len(counts) == 3
    assert all((ticks == ticks.round()).all() for ticks in counts)


@pytest.mark.parametrize(("errors", "shares"), [([3.0], [0, 1, 1]), ([30.0, 40.0], [0, 0]), ([1, 30], [0, 0.5, 0.5])])
def test_errors_of_few_faces_or_beyond_the_axis_are_seen(
    errors: list[float], shares: list[float], figures: list[Figure]
) -> None:
    """Of one face there was no line at all, nor of faces whose errors are all beyond 15 degrees."""
    error_plots.plot_error_cdf({"refined": np.array(errors)}, NOWHERE)
    (line,) = figures[0].axes[0].lines
    np.testing.assert_allclose(np.asarray(line.get_ydata()), shares)
    assert np.asarray(line.get_xdata())[[0, -1]].tolist() == [0, 15]
    assert line.get_drawstyle() == "steps-post"


def test_faces_without_an_answer_and_models_without_a_time_are_said(figures: list[Figure]) -> None:
    """They had an empty panel with an empty legend, and a warning of matplotlib's on stderr."""
    row: dict[str, Any] = {"faces": "range", "eye": "landmarks", "n": 0, "held": {}, "risk": {}}
    doubt_plots.plot_held([row], NOWHERE)
    doubt_plots.plot_risk([row], NOWHERE)
    compared({"mine": None})
    assert [figure.axes[-1].get_title() for figure in figures] == ["range: no answer"] * 2 + ["no time was measured"]
    assert not any(figure.axes[-1].get_legend() for figure in figures)


def test_plots_leave_the_callers_matplotlib_as_it_is(tmp_path: Path) -> None:
    """Importing them set the backend of the whole process: a notebook's own plots were no longer shown."""
    code = (
        "import sys; from pathlib import Path; import matplotlib; matplotlib.use('svg')\n"
        "from matplotlib import pyplot; pyplot.figure()\n"
        "from nlml_hpe.training_run import History; from nlml_hpe.view.training_plots import plot_measures\n"
        "plot_measures(History([0.5], [0.6], 0, [1e-3]), Path(sys.argv[1]))\n"
        "print(matplotlib.get_backend(), pyplot.get_fignums())"
    )
    path = tmp_path / "losses.png"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "svg [1]\n"
    assert path.read_bytes().startswith(b"\x89PNG")
