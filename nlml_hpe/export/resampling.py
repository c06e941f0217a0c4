"""Squares of pictures in other pixels, within a graph: what OpenCV's ``warpAffine`` and ``warpPerspective`` do.

Values are interpolated linearly between four pixels, at positions rounded to a 32nd of a pixel, and are rounded to
whole numbers, as OpenCV's own arithmetic has it; beyond the picture its edge is repeated. ``GridSample`` knows no such
rounding: here the four neighbours of every pixel lie side by side, so that each position is one look-up.
"""

from __future__ import annotations

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Var

from nlml_hpe.model.onnx_math import reduced, scaled, shaped
from nlml_hpe.pixels import STEPS

_SUM = np.tile(np.eye(3, dtype=np.float32), (4, 1))
"""Sums the four weighted neighbours (12,) of a colour (3,)."""


def neighbours(pictures: Var, size: int) -> Var:
    """Of pictures (N, 3, size, size): each pixel, those to its right, below and both, (N, size * size, 12)."""
    picture = op.transpose(pictures, perm=[0, 2, 3, 1])
    wide = op.pad(picture, op.const(np.array([0, 0, 0, 0, 0, 1, 1, 0])), mode="edge")
    shifted = [
        op.slice(wide, op.const([down, right]), op.const([down + size, right + size]), op.const([1, 2]))
        for down in (0, 1)
        for right in (0, 1)
    ]
    return shaped(op.concat(shifted, axis=3), (0, -1, 12))


def sampled(pixels: Var, x: Var, y: Var, size: int) -> Var:
    """Colours at positions of each picture's own.

    Parameters
    ----------
    pixels : Var (N, size * size, 12)
        As of ``neighbours``.
    x, y : Var (N, K)
        In pixels, from the centre of the first one.
    size : int
        Pixels on a side of the pictures.

    Returns
    -------
    Var (N, K, 3)
        Whole numbers.
    """
    index, weights = _taps(_steps(x, size), _steps(y, size), size)
    four = op.gather_nd(pixels, op.unsqueeze(index, op.const([2])), batch_dims=1)
    return _rounded(op.matmul(op.mul(four, weights), op.const(_SUM)))


def sampled_alike(pixels: Var, steps: NDArray[np.int64], size: int) -> Var:
    """Colours at constant positions, in every picture alike.

    Parameters
    ----------
    pixels : Var (N, size * size, 12)
        As of ``neighbours``.
    steps : int array (K, 2)
        x and y in 32nds of a pixel, ``pixels.STEPS`` times what ``pixels.positions`` gives.
    size : int
        Pixels on a side of the pictures.

    Returns
    -------
    Var (N, K, 3)
        Whole numbers.
    """
    # Steps take two bytes each in the file; what follows of constants alone is computed once, when it is loaded.
    short = np.clip(steps, 0, (size - 1) * STEPS).astype(np.uint16)
    x, y = (op.cast(op.const(axis[None]), to=np.float32) for axis in short.T)
    index, weights = _taps(x, y, size)
    return _rounded(op.matmul(op.mul(op.gather(pixels, shaped(index, (-1,)), axis=1), weights), op.const(_SUM)))


def averaged(colours: Var, count: int, means: int) -> Var:
    """Means of colours, in whole numbers.

    Parameters
    ----------
    colours : Var (N, count * K, 3)
        Those that are the first of their means come first; N may be nought.
    count : int
        How many there are of each mean.
    means : int
        K.

    Returns
    -------
    Var (N, K, 3)
    """
    if count == 1:
        return colours
    mean = reduced(op.reduce_mean, shaped(colours, (-1, count, means, 3)), 1, keep=False)
    # OpenCV rounds halves to even numbers, but of four pixels, which it averages by another way, upwards.
    return _rounded(mean) if count == 4 else op.round(mean)


def _steps(positions: Var, size: int) -> Var:
    """Positions in whole steps, float32, none beyond the picture."""
    bounded = op.clip(scaled(positions, STEPS), op.const(0.0), op.const(np.float64((size - 1) * STEPS)))
    return op.cast(op.round(bounded), to=np.float32)


def _taps(x: Var, y: Var, size: int) -> tuple[Var, Var]:
    """Index (N, K) of the first neighbour, and weights (N, K, 12) of all four, at positions (N, K) in steps."""
    (left, right), (top, down) = (_parts(axis) for axis in (x, y))
    index = op.cast(op.add(op.mul(top, op.const(np.float32(size))), left), to=np.int64)
    both = op.mul(right, down)
    only_right, only_down = op.sub(right, both), op.sub(down, both)
    neither = op.sub(op.sub(op.const(np.float32(1)), right), only_down)
    four = op.concat([op.unsqueeze(w, op.const([2])) for w in (neither, only_right, only_down, both)], axis=2)
    return index, op.matmul(four, op.const(np.repeat(np.eye(4, dtype=np.float32), 3, axis=1)))


def _parts(steps: Var) -> tuple[Var, Var]:
    """Whole pixels, and what is left."""
    positions = op.mul(steps, op.const(np.float32(1 / STEPS)))
    whole = op.floor(positions)
    return whole, op.sub(positions, whole)


def _rounded(values: Var) -> Var:
    """Whole numbers, halves upwards."""
    return op.floor(op.add(values, op.const(np.float32(0.5))))
