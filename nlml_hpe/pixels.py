"""Pixels of an image read at other places, alike by OpenCV 4 and 5.

``cv2.warpAffine`` and ``cv2.warpPerspective`` of OpenCV 4 read at positions rounded to a 32nd of a pixel. OpenCV 5 does
not round, so that every tenth value is another by one, which turns the pose of a face that is hardly found by degrees.
Positions that are rounded here, and read by ``cv2.remap``, give what OpenCV 4 gives, byte for byte.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_ROUNDS = int(cv2.__version__.split(".")[0]) < 5
"""Whether OpenCV rounds positions of itself: there an answer takes a twentieth longer by positions made here."""
STEPS = 32
"""Of a pixel: positions are whole numbers of these (OpenCV's ``INTER_TAB_SIZE``)."""
_FINE = 1024
"""Of a pixel: what column and row give to an affine position are whole numbers of these (OpenCV's ``AB_BITS``)."""
_TO_STEPS = 1.5 * 2**52 / STEPS
"""Added to a double and taken away again, it leaves the nearest whole number of steps: its last bit is one step."""

Matrix = NDArray[np.float64]
Positions = NDArray[np.float32]


def warp(
    image: NDArray[np.uint8],
    matrix: Matrix,
    size: tuple[int, int],
    border: int,
    once: bool = False,
    made: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """An image in other pixels, interpolated linearly.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) uint8 array
        The image.
    matrix : (2, 3) float64 array
        From column and row of the result to those of the image, both counted from the centre of the first pixel.
    size : tuple of int
        Width and height of the result.
    border : int
        OpenCV's border mode beyond the image.
    once : bool
        Whether positions are rounded but once, as ``cv2.warpPerspective`` has them; otherwise what column and row give
        to them is rounded before, as ``cv2.warpAffine`` has it.
    made : (height, width) or (height, width, 3) uint8 array, optional
        Where the result goes.

    Returns
    -------
    (height, width) or (height, width, 3) uint8 array
        The result; ``made``, where it is given.

    Examples
    --------
    >>> image = np.arange(9, dtype=np.uint8).reshape(3, 3)
    >>> warp(image, np.array([[1.0, 0, 0.5], [0, 1, 0]]), (2, 2), cv2.BORDER_REPLICATE).tolist()
    [[1, 2], [4, 5]]
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if not _ROUNDS:
        x, y = positions(matrix, *size, once)
        read = cv2.remap(image, *cv2.convertMaps(x, y, cv2.CV_16SC2), cv2.INTER_LINEAR, made, border)
    elif once:
        read = cv2.warpPerspective(image, np.vstack([matrix, [0.0, 0.0, 1.0]]), size, made, flags, border)
    else:
        read = cv2.warpAffine(image, matrix, size, made, flags, border)
    return np.asarray(read, dtype=np.uint8)


def positions(matrix: Matrix, width: int, height: int, once: bool = False) -> tuple[Positions, Positions]:
    """Where ``warp`` reads.

    Parameters
    ----------
    matrix, once
        As of ``warp``.
    width, height : int
        Of the result.

    Returns
    -------
    x, y : (height, width) float32 arrays
        In pixels from the centre of the first one; whole numbers of ``STEPS``.

    Examples
    --------
    >>> x, y = positions(np.array([[2.0, 0, 1], [0, 2.0, 0]]), 2, 2)
    >>> x.tolist(), y.tolist()
    ([[1.0, 3.0], [1.0, 3.0]], [[0.0, 0.0], [2.0, 2.0]])
    """
    along, down = matrix[:, :1] * np.arange(width), matrix[:, 1:2] * np.arange(height) + matrix[:, 2:]
    if not once:
        # A quarter more: halves of a step go upwards, not to even numbers.
        along, down = np.rint(_FINE * along) / _FINE, (np.rint(_FINE * down) + 0.25) / _FINE
    x, y = (_in_steps(*parts) for parts in zip(along, down, strict=True))
    return x, y


def _in_steps(along: NDArray[np.float64], down: NDArray[np.float64]) -> Positions:
    position = along + down[:, None]
    position += _TO_STEPS
    position -= _TO_STEPS
    return position.astype(np.float32)
