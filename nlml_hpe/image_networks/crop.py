"""THE crop of a head: a square around the box of the 68 contour-and-feature points, a share larger.

Rendering, training and inference all cut with the functions of this file, so a network meets the same
framing everywhere. Pixel (row, column) has its centre at (column + 0.5, row + 0.5), as in the renderer.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.pixels import warp

FloatArray = NDArray[np.float64]

SHARE = 1.5
"""Side of the crop over the longer side of the box: brows to chin, and a quarter of that on every side of it."""
STORED_SHARE = 2.0
"""The same of crops on disk: what training needs around a crop to turn, shift and scale it."""
_MAX_FINER = 16
"""So many pixels on a side of a finer crop become one, at most."""
_MOST_APART = 1.75
"""Image pixels from one pixel of a finer crop to the next, at most. Each is read between four of the image's, so that
an upright crop skips none of these, and one that is turned by 12 degrees two of a thousand. At every pixel it takes up
to three times as long and changes mean absolute errors on photographs by 0.01 degrees at most."""
_STRIPE_PX = 1 << 16
"""Finer pixels that are cut at once. Of half as many again OpenCV wakes its own threads, and waits for them in a loop:
beside other threads that costs more than it brings."""


def square_around(box: ArrayLike, share: float = SHARE) -> FloatArray:
    """The square that a crop shows.

    Parameters
    ----------
    box : (..., 4) array
        Left, top, right, bottom of the 68 points, in pixels.
    share : float
        Side of the square over the longer side of the box.

    Returns
    -------
    (..., 3) array
        Middle x, middle y and side of the square, in pixels.

    Raises
    ------
    ValueError
        Where a box is not finite or has no size.

    Examples
    --------
    >>> square_around((10, 20, 50, 40), share=1.5)
    array([30., 30., 60.])
    """
    corners = np.asarray(box, dtype=np.float64)
    if corners.shape[-1:] != (4,):
        raise ValueError(f"expected boxes (..., 4): left, top, right, bottom; received shape {corners.shape}")
    size = corners[..., 2:] - corners[..., :2]
    if not (np.isfinite(corners).all() and (size > 0).all()):
        raise ValueError("expected boxes with left < right and top < bottom, in pixels; received one without a size")
    middle = (corners[..., 2:] + corners[..., :2]) / 2
    return np.concatenate([middle, share * size.max(axis=-1, keepdims=True)], axis=-1)


def image_from_crop(square: ArrayLike, size: int, turn_deg: ArrayLike = 0.0) -> FloatArray:
    """The affine map from a crop's pixels to the image's.

    Parameters
    ----------
    square : (..., 3) array
        Middle x, middle y and side of the square in the image, as ``square_around`` gives them.
    size : int
        Pixels on a side of the crop.
    turn_deg : (...) array
        The turn of the head in the crop against the image, from the image's right towards its top. The
        head's rotation is multiplied from the left by that about the camera's z axis; see ``turned``.

    Returns
    -------
    (..., 2, 3) array
        ``A`` with ``image = A[:, :2] @ crop + A[:, 2]`` for positions (x, y).

    Examples
    --------
    >>> image_from_crop([30.0, 30.0, 60.0], size=30) @ [15.0, 15.0, 1.0]
    array([30., 30.])
    """
    x, y, side = np.moveaxis(np.asarray(square, dtype=np.float64), -1, 0)
    angle = np.radians(np.asarray(turn_deg, dtype=np.float64))
    cos, sin = side / size * np.cos(angle), side / size * np.sin(angle)
    # The image has y down, so a turn that is seen anticlockwise has its sign turned here.
    rows = (cos, -sin, x - (cos - sin) * (size / 2)), (sin, cos, y - (sin + cos) * (size / 2))
    matrix = np.empty((*cos.shape, 2, 3))
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            matrix[..., row, column] = value
    return matrix


def sampling(square: ArrayLike, size: int, turn_deg: float = 0.0) -> tuple[FloatArray, int]:
    """Where a crop's pixels are read: so that hardly any is skipped, a finer crop is read, and its pixels are averaged.

    Parameters
    ----------
    square : (3,) array
        Middle x, middle y and side of the square in the image, as ``square_around`` gives them.
    size : int
        Pixels on a side of the crop.
    turn_deg : float
        As of ``image_from_crop``.

    Returns
    -------
    matrix : (2, 3) array
        From column and row of the finer crop to those of the image, both counted from the middle of the first pixel.
    finer : int
        Pixels on a side of the finer crop that become one.

    Examples
    --------
    >>> matrix, finer = sampling([30.0, 30.0, 60.0], size=30)
    >>> finer, (matrix @ [59.0, 59.0, 1.0]).tolist()
    (2, [59.0, 59.0])
    """
    flat = np.asarray(square, dtype=np.float64)
    finer = min(max(1, math.ceil(flat[2] / (size * _MOST_APART))), _MAX_FINER)
    matrix = image_from_crop(flat, size * finer, turn_deg)
    # OpenCV counts from pixel centres.
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    return matrix, finer


def crop(
    image: NDArray[np.uint8], box: ArrayLike, size: int, share: float = SHARE, turn_deg: float = 0.0
) -> NDArray[np.uint8]:
    """Cut one head out of an image; beyond the image its border is repeated.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
        The image.
    box : (4,) array
        Left, top, right, bottom of the 68 points, in pixels.
    size : int
        Pixels on a side of the crop.
    share, turn_deg : float
        See ``square_around`` and ``image_from_crop``.

    Returns
    -------
    (size, size, 3) uint8 array
        The crop. Where it is much smaller than what it shows, pixels are averaged, not skipped.

    Examples
    --------
    >>> crop(np.full((40, 60, 3), 7, np.uint8), (20, 10, 40, 30), size=16).shape
    (16, 16, 3)
    """
    matrix, finer = sampling(square_around(box, share), size, turn_deg)
    made = np.empty((size, size, *image.shape[2:]), dtype=np.uint8)
    rows = max(1, min(size, _STRIPE_PX // (size * finer * finer)))
    wide = np.empty((rows * finer, size * finer, *image.shape[2:]), dtype=np.uint8)
    for first in range(0, size, rows):
        part = made[first : first + rows]
        below = matrix.copy()
        below[:, 2] += first * finer * matrix[:, 1]
        _cut(image, below, finer, part, wide[: len(part) * finer])
    return made


def _cut(
    image: NDArray[np.uint8], matrix: FloatArray, finer: int, part: NDArray[np.uint8], wide: NDArray[np.uint8]
) -> None:
    """Fill a crop's ``part``, by way of its finer pixels, whose place is ``wide``."""
    target = part if finer == 1 else wide
    warp(image, matrix, (target.shape[1], target.shape[0]), cv2.BORDER_REPLICATE, made=target)
    if finer > 1:
        cv2.resize(wide, part.shape[1::-1], part, interpolation=cv2.INTER_AREA)


def stored_crop(image: NDArray[np.uint8], box: ArrayLike, size: int) -> tuple[NDArray[np.uint8], FloatArray]:
    """A head cut as crops are stored: ``STORED_SHARE`` times the box, and where the box lies in that.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
        The image.
    box : (4,) array
        Left, top, right, bottom of the 68 points, in pixels.
    size : int
        Pixels on a side.

    Returns
    -------
    cut : (size, size, 3) uint8 array
        The crop.
    inside : (4,) array
        The box in pixels of the crop.

    Examples
    --------
    >>> stored_crop(np.zeros((80, 80, 3), np.uint8), (20, 20, 60, 60), size=40)[1]
    array([10., 10., 30., 30.])
    """
    x, y, side = square_around(box, STORED_SHARE)
    corner = np.array([x - side / 2, y - side / 2])
    inside = (np.asarray(box, dtype=np.float64) - np.tile(corner, 2)) * (size / side)
    return crop(image, box, size, STORED_SHARE), inside


def turned(rotation: ArrayLike, turn_deg: ArrayLike) -> FloatArray:
    """Rotations (..., 3, 3), head to camera, of heads whose image is turned by (...) degrees.

    The turn goes from the image's right towards its top, as in ``image_from_crop``.

    Examples
    --------
    >>> turned(np.eye(3), 90.0).round() @ [1.0, 0.0, 0.0]
    array([0., 1., 0.])
    """
    angle = np.radians(np.asarray(turn_deg, dtype=np.float64))
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rows = ((cos, -sin, zero), (sin, cos, zero), (zero, zero, zero + 1))
    about_z = np.stack([np.stack(row, -1) for row in rows], -2)
    return about_z @ np.asarray(rotation, dtype=np.float64)
