"""What a comparison of models is shown as: errors as bars beside what an answer costs, and poses on photographs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nlml_hpe.face import Box
from nlml_hpe.files.images import RgbImage
from nlml_hpe.view.draw import draw_axes, draw_cube, draw_text
from nlml_hpe.view.figures import save_figure

Draw = Callable[[RgbImage, NDArray[np.float64]], RgbImage]
"""A picture (S, S, 3) and a rotation (3, 3) to a picture in which it is drawn."""
SIDE = 200
"""Pixels on a side of a picture on the sheets."""
_SHOWN = 2.2
"""What a picture shows, over the longer side of the face's box."""
_AXIS, _CUBE = 0.32, 0.42
"""Length of an axis and of a cube's side, over the picture's side."""
_HEADER, _GREY = 46, 70
_MARKS = "os^Dv"
_DECADE = 10
_BARS = "MAE (degrees); line: 95% interval, mark: misses charged"


def plot_comparison(reports: Mapping[str, Mapping[str, Any]], ms: Mapping[str, float | None], path: Path) -> Path:
    """Draw the MAE of every route, raw and with misses charged, and over the milliseconds that an answer takes.

    Parameters
    ----------
    reports : mapping
        Name of the faces -> ``Evaluation.report``; a row of panels for each.
    ms : mapping
        Route -> milliseconds a face, detection included; None where it was not measured.
    path : Path
        The PNG file to write.

    Returns
    -------
    Path
        ``path``.
    """
    count = len(next(iter(reports.values()))["routes"])
    size = (12, len(reports) * max(2.2, 1.4 + 0.36 * count))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(reports), 2, squeeze=False)
    for (bars, points), (faces, report) in zip(panels, reports.items(), strict=True):
        routes = {name: row for name, row in report["routes"].items() if row["n"]}
        if not routes:
            bars.set(title=f"{faces}: no answer")
            bars.set_axis_off()
            points.set_axis_off()
            continue
        place = np.arange(len(routes))
        mean = [row["mae"]["mean"] for row in routes.values()]
        low, high = zip(*(row["mae_interval"]["mean"] for row in routes.values()), strict=True)
        charged = [row["mae_all"]["mean"] for row in routes.values()]
        # Of twice the same colour the marks differ.
        colors, marks = zip(*((f"C{number % 10}", _MARKS[number // 10 % len(_MARKS)]) for number in place), strict=True)
        bars.barh(place, mean, color=colors, height=0.6)
        bars.hlines(place, low, high, color="black", lw=1.4)
        bars.plot(charged, place, "k|", ms=14, mew=2)
        found = [f"{name}  ({row['coverage']:.0%})" for name, row in routes.items()]
        bars.set(yticks=place, yticklabels=found, xlabel=_BARS, title=faces)
        bars.invert_yaxis()
        for name, error, color, mark in zip(routes, charged, colors, marks, strict=True):
            if ms.get(name):
                points.plot(ms[name], error, mark, color=color, label=name)
        _label_costs(points)
    return save_figure(figure, path)


def _label_costs(points: Axes) -> None:
    """Axes of errors over milliseconds; nothing where no time was measured."""
    if not points.lines:
        points.set(title="no time was measured")
        points.set_axis_off()
        return
    points.set(xscale="log", xlabel="ms a face, detection included", ylabel="MAE, misses charged\n(degrees)")
    low, high = points.get_xlim()
    # Over more than a decade the labels of all digits would lie over one another.
    labelled = "25" if high > _DECADE * low else "23456789"
    points.xaxis.set_major_formatter("{x:g}")
    points.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in labelled else "")
    points.legend(fontsize=7)


def pose_sheet(
    pictures: Sequence[tuple[str, RgbImage, Box]],
    columns: Mapping[str, NDArray[np.float64]],
    draw: Draw,
) -> RgbImage:
    """Poses on photographs: a row for each face, a column for each way in which it was answered.

    Parameters
    ----------
    pictures : sequence of (name, image, box)
        The faces; images are RGB uint8, boxes pixels.
    columns : mapping
        Title -> rotations (n, 3, 3), NaN where there is no answer.
    draw : callable
        ``with_axes`` or ``with_cube``.

    Returns
    -------
    ndarray
        One RGB uint8 image.

    Examples
    --------
    >>> grey = np.full((40, 60, 3), 128, dtype=np.uint8)
    >>> columns = {"label": np.eye(3)[None], "mine": np.eye(3)[None]}
    >>> pose_sheet([("a", grey, (20, 10, 40, 30))], columns, with_cube).shape
    (246, 400, 3)
    """
    header = np.full((_HEADER, SIDE * len(columns), 3), _GREY, dtype=np.uint8)
    for number, title in enumerate(columns):
        for line, text in enumerate(title.rsplit("/", 1)):
            header = draw_text(header, text[-22:], (SIDE * number + 4, 18 + 20 * line))
    rows = [header]
    for index, (name, image, box) in enumerate(pictures):
        small = _around(image, box)
        cells = [_drawn(small, rotations[index], draw) for rotations in columns.values()]
        cells[0] = draw_text(cells[0], name[-22:], (4, SIDE - 8))
        rows.append(np.hstack(cells))
    return np.vstack(rows)


def with_axes(image: RgbImage, rotation: NDArray[np.float64]) -> RgbImage:
    """A copy of a picture (S, S, 3) with the axes of a head in its middle."""
    side = image.shape[0]
    return draw_axes(image, rotation, (side / 2, side / 2), _AXIS * side)


def with_cube(image: RgbImage, rotation: NDArray[np.float64]) -> RgbImage:
    """A copy of a picture (S, S, 3) with a cube about a head in its middle."""
    side = image.shape[0]
    return draw_cube(image, rotation, (side / 2, side / 2), _CUBE * side)


def _drawn(image: RgbImage, rotation: NDArray[np.float64], draw: Draw) -> RgbImage:
    return draw(image, rotation) if np.isfinite(rotation).all() else draw_text(image, "no answer", (4, 20))


def _around(image: RgbImage, box: Box) -> RgbImage:
    """A square about a box, at ``SIDE`` pixels; beyond the image it is grey."""
    left, top, right, bottom = box
    side = _SHOWN * max(right - left, bottom - top)
    scale = SIDE / side
    corner = ((left + right - side) / 2, (top + bottom - side) / 2)
    matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
    seen = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderValue=(_GREY, _GREY, _GREY))
    return np.asarray(seen, dtype=np.uint8)
