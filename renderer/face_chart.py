"""What is drawn on a face: brows, lips, lids and folds on a frontal chart, a picture of the face seen along z.

Points and places are in millimetres of the neutral ICT head; `seen_from_front` carries the chart to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import splev, splprep

from renderer.compiled import compiled
from renderer.looks import Looks, Rgb

FloatArray = NDArray[np.float32]

# The frontal chart: 4 px a millimetre, x to the image's right, y up from the kit's own origin.
_PX_PER_MM = 4
_LEFT_MM, _TOP_MM = -80.0, 115.0
_CHART = (680, 640)
_REACH = 4
"""How far OpenCV's blur of single precision reaches, in standard deviations."""
_BLOCK = 16
_SHIFT = 4  # fractional bits of cv2's drawing coordinates


def frontal_chart(marks: FloatArray, looks: Looks, rng: np.random.Generator) -> FloatArray:
    """What is drawn on the face, seen from the front.

    Parameters
    ----------
    marks : float array (68, 3)
        The 68 landmarks, in millimetres of the neutral ICT head.
    looks : Looks
        The person's.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    float array (H, W, 4)
        Colour times coverage, and coverage in 0..1.
    """
    chart = np.zeros((*_CHART, 4), dtype=np.float32)

    def lay(tint: Rgb | NDArray[np.floating], strength: float, drawn: _Drawn) -> None:
        ink = np.append(np.asarray(tint), 1.0).astype(np.float32)
        _lay(chart[drawn.where], strength * drawn.coverage, ink)

    _draw_folds(lay, looks)
    _draw_lids(lay, marks, looks)
    _draw_lips(lay, marks, looks)
    _draw_brows(lay, marks, looks, rng)
    return chart


class _Drawn(NamedTuple):
    """What is drawn on a chart: the part of it that is not empty, and the coverage there in 0..1."""

    where: tuple[slice, slice]
    coverage: FloatArray


@compiled()
def _lay(chart, coverage, ink):  # type: ignore[no-untyped-def]
    """Ink (4,) over a part of the chart (H, W, 4), as far as it is covered (H, W)."""
    for row in range(chart.shape[0]):
        for column in range(chart.shape[1]):
            for channel in range(4):
                under = chart[row, column, channel]
                chart[row, column, channel] = under + coverage[row, column] * (ink[channel] - under)


_Lay = Callable[[Rgb | NDArray[np.floating], float, _Drawn], None]


def _draw_folds(lay: _Lay, looks: Looks) -> None:
    """Nasolabial folds and lines of the forehead, deeper with age."""
    dark = np.array(looks.skin) * 0.62
    for side in (-1, 1):
        fold = np.array([(side * 17, -4), (side * 25, -14), (side * 31, -28), (side * 33, -40)])
        lay(dark, 0.45 * looks.age, _line(fold, 2.0, blur=1.5))
        lay(dark, 0.35 * looks.age, _line(np.array([(side * 20, 24), (side * 28, 20), (side * 36, 22)]), 2.0, blur=1.5))
    for height in (80, 90, 100) if looks.age > 0.4 else ():
        line = np.array([(-35, height - 3), (-15, height + 1), (15, height + 1), (35, height - 3)])
        lay(dark, 0.35 * (looks.age - 0.4), _line(line, 1.2, blur=1.0))


def _draw_lids(lay: _Lay, marks: FloatArray, looks: Looks) -> None:
    """The crease, the lash line, and makeup."""
    shade = np.array(looks.skin) * 0.55
    for corners, brow in ((marks[36:42], marks[17:22]), (marks[42:48], marks[22:27])):
        outline = _closed(corners[:, :2])
        upper = outline[outline[:, 1] >= np.interp(outline[:, 0], *_ordered(corners[[0, 3], :2]))]
        upper = upper[np.argsort(upper[:, 0])]
        between = brow[:, :2].mean(axis=0) - corners[:, :2].mean(axis=0)
        lay(shade, 0.5, _line(upper + 0.2 * between, 1.2, blur=0.7))
        if looks.eye_makeup:
            lay((60, 40, 60), 0.4 * looks.eye_makeup, _line(upper + 0.15 * between, 7.0, blur=2.5))
        lay((34, 24, 22), 0.45, _line(outline, 1.0, blur=0.4))
        lay((20, 14, 14), 0.75 + 0.2 * looks.eye_makeup, _line(upper, 1.6 + 1.2 * looks.eye_makeup, blur=0.4))


def _draw_lips(lay: _Lay, marks: FloatArray, looks: Looks) -> None:
    lips = np.zeros(_CHART, dtype=np.uint8)
    cv2.fillPoly(lips, [_chart_points(_closed(marks[48:60, :2]))], [255], cv2.LINE_AA, _SHIFT)
    lay(looks.lip_color, 0.85, _blurred(lips, 0.6))
    parting = np.concatenate([marks[[60]], (marks[61:64] + marks[[67, 66, 65]]) / 2, marks[[64]]])[:, :2]
    lay(np.array(looks.lip_color) * 0.35, 0.7, _line(parting, 1.0, blur=0.5))


def _draw_brows(lay: _Lay, marks: FloatArray, looks: Looks, rng: np.random.Generator) -> None:
    """Single hairs along both brows, over a soft base."""
    for brow in (marks[17:22], marks[22:27][::-1]):
        outer_to_inner, _ = splprep(brow[:, :2].T, s=0, k=3)
        path = np.stack(splev(np.linspace(0, 1, 40), outer_to_inner), axis=1)
        taper = np.interp(np.linspace(0, 1, 40), [0, 0.35, 0.9, 1], [0.25, 0.85, 1.0, 0.8])
        lay(looks.brow_color, 0.55 * looks.brow_density, _line(path[4:], looks.brow_mm * 0.75, blur=1.6))
        hairs = np.zeros(_CHART, dtype=np.uint8)
        across = np.gradient(path, axis=0)
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        lines = np.empty((int(150 * looks.brow_density), 2, 2))
        for line in lines:
            index = rng.integers(1, 39)
            line[0] = path[index] + [0, rng.uniform(-0.5, 0.5) * looks.brow_mm * taper[index]]
            line[1] = line[0] + (-across[index] * rng.uniform(2, 5) + [0, rng.uniform(0.3, 2.2)])
        cv2.polylines(hairs, list(_chart_points(lines)), False, [255], 2, cv2.LINE_AA, _SHIFT)
        lay(looks.brow_color, 0.8, _blurred(hairs, 0.3))


def _closed(points: FloatArray) -> NDArray[np.float64]:
    """A smooth closed curve through points (n, 2)."""
    curve, _ = splprep(np.concatenate([points, points[:1]]).T, s=0, per=True)
    return np.stack(splev(np.linspace(0, 1, 80), curve), axis=1)


def _ordered(corners: FloatArray) -> tuple[FloatArray, FloatArray]:
    order = np.argsort(corners[:, 0])
    return corners[order, 0], corners[order, 1]


def _chart_points(points: NDArray[np.floating]) -> NDArray[np.int32]:
    pixels = (points - [_LEFT_MM, _TOP_MM]) * [_PX_PER_MM, -_PX_PER_MM] - 0.5
    return np.round(pixels * 2**_SHIFT).astype(np.int32)


def _line(points: NDArray[np.floating], width_mm: float, blur: float) -> _Drawn:
    drawn = np.zeros(_CHART, dtype=np.uint8)
    cv2.polylines(
        drawn, [_chart_points(points)], False, [255], max(1, round(width_mm * _PX_PER_MM)), cv2.LINE_AA, _SHIFT
    )
    return _blurred(drawn, blur)


def _blurred(drawn: NDArray[np.uint8], sigma_mm: float) -> _Drawn:
    sigma = sigma_mm * _PX_PER_MM
    left, top, width, height = cv2.boundingRect(drawn)
    reach = math.ceil(_REACH * sigma) + 2
    # Whole blocks of columns, as the processor takes them: the same sums as of the whole chart.
    first, last = (left - reach) // _BLOCK * _BLOCK, -(-(left + width + reach) // _BLOCK) * _BLOCK
    where = slice(max(0, top - reach), top + height + reach), slice(max(0, first), last)
    blurred = cv2.GaussianBlur(drawn[where].astype(np.float32) / 255, (0, 0), sigma)
    return _Drawn(where, np.asarray(blurred, dtype=np.float32))


def inside(points: FloatArray, place: FloatArray, soft_mm: float) -> FloatArray:
    """What lies inside a closed curve, seen from the front.

    Parameters
    ----------
    points : float array (n, 3)
        Through which the curve goes, in millimetres of the neutral ICT head.
    place : float array (..., 3)
        Where it is asked for, likewise.
    soft_mm : float
        Standard deviation of the blur at its edge, in millimetres.

    Returns
    -------
    float array (...)
        1 inside, 0 outside.
    """
    drawn = np.zeros(_CHART, dtype=np.uint8)
    cv2.fillPoly(drawn, [_chart_points(_closed(points[:, :2]))], [255], cv2.LINE_AA, _SHIFT)
    soft, chart = _blurred(drawn, soft_mm), np.zeros(_CHART, dtype=np.float32)
    chart[soft.where] = soft.coverage
    return seen_from_front(chart, place)


def seen_from_front(chart: FloatArray, place: FloatArray) -> FloatArray:
    """What a chart, (H, W) or (H, W, C), shows at places (..., 3) on the head in mm."""
    x = (place[..., 0] - _LEFT_MM) * _PX_PER_MM - 0.5
    y = (_TOP_MM - place[..., 1]) * _PX_PER_MM - 0.5
    return np.asarray(cv2.remap(chart, x, y, cv2.INTER_LINEAR), dtype=np.float32)
