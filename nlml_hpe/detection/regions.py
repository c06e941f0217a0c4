"""Regions of images: turned squares, in which a network is shown a face, and the way back from there.

A region is (x, y, side, turn): its middle and its side in pixels of the image, and its turn in radians, clockwise in
the image. That of a face is turned so that its eyes lie level.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.face import Box
from nlml_hpe.files.images import RgbImage
from nlml_hpe.pixels import warp

REGION = 1.5
"""Side of a region in the longer sides of the face's box."""
_SMALLER, _LOWER = 0.965, 0.055
"""Side of the box of the 68 points, and how far below the detection network's its middle lies, in that one's sides."""
_SAME_REGION = 0.5
"""Regions that overlap by more (intersection over union) are of one face."""
STILL = 0.12
"""Most that the region of a face that rests drifts: of 90 photographs of aflw2000_dev, from that of the detection
network to that of the landmarks, 0.117."""
Floats = NDArray[np.float64]


def letterbox(image: RgbImage) -> Floats:
    """The smallest upright square around the whole image, as a region."""
    height, width = image.shape[:2]
    return np.array([width / 2, height / 2, max(height, width), 0.0])


def warped(image: RgbImage, region: Floats, size: int, border: int) -> RgbImage:
    """A region of an image in other pixels: linear interpolation, as MediaPipe's own way by OpenCV.

    Parameters
    ----------
    image : RGB uint8 array (H, W, 3)
        The image.
    region : float array (4,)
        Middle x and y and side in pixels, and turn in radians, clockwise in the image.
    size : int
        Pixels on a side of the result.
    border : int
        OpenCV's border mode beyond the image.

    Returns
    -------
    RGB uint8 array (size, size, 3)
        The region, upright.
    """
    x, y, side, turn = (float(value) for value in region)
    cos, sin = side / size * np.cos(turn), side / size * np.sin(turn)
    # In double precision, as the one ONNX file has it: MediaPipe's corners are of single precision, which moves one
    # pixel in a thousand by one step of 256.
    matrix = np.array([[cos, -sin, x - (cos - sin) * size / 2], [sin, cos, y - (sin + cos) * size / 2]])
    return warp(image, matrix, (size, size), border, once=True)


def mirror_image(image: RgbImage) -> RgbImage:
    """The mirror image, as an array of its own: by OpenCV, in a tenth of the time of a copy of ``image[:, ::-1]``."""
    return np.asarray(cv2.flip(image, 1), dtype=np.uint8)


def in_image(points: Floats, region: Floats, size: int) -> Floats:
    """Points that were found in a region, in pixels of the image.

    Parameters
    ----------
    points : float array (N, 3)
        In pixels of the region as it was shown.
    region : float array (4,)
        As of ``warped``.
    size : int
        Pixels on a side of the region as it was shown.

    Returns
    -------
    float array (N, 3)
        x, y and z in pixels of the image.

    Examples
    --------
    >>> in_image(np.array([[96.0, 0.0, 0.0]]), np.array([50.0, 60.0, 20.0, 0.0]), 192).tolist()
    [[50.0, 50.0, 0.0]]
    """
    x, y, side, turn = (float(value) for value in region)
    cos, sin = side * math.cos(turn), side * math.sin(turn)
    turned = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, side]]) / size
    return np.asarray(points @ turned + [x - (cos - sin) / 2, y - (sin + cos) / 2, 0.0])


def regions_from_landmarks(points: Floats) -> Floats:
    """Regions (n, 4) in the next frame of faces whose landmarks (n, 468, 3) in this one are known."""
    # All of x side by side, and all of y: numpy takes six times as long where they take turns.
    places = np.ascontiguousarray(np.swapaxes(points[..., :2], 1, 2))
    low, high = places.min(axis=2), places.max(axis=2)
    first, second = FACEMESH.eye_corners
    return regions_around(low, high, points[:, first, :2], points[:, second, :2])


def regions_around(low: Floats, high: Floats, first_eye: Floats, second_eye: Floats) -> Floats:
    """Regions of faces.

    Parameters
    ----------
    low, high : float arrays (n, 2)
        Corners of their boxes, left top and right bottom, in pixels.
    first_eye, second_eye : float arrays (n, 2)
        Places of the eyes, the left one in the image first, in pixels.

    Returns
    -------
    float array (n, 4)
        One for each face.

    Examples
    --------
    >>> low, high, left_eye, right_eye = (np.array([place]) for place in ((0, 0), (8, 6), (2, 2), (6, 2)))
    >>> regions_around(low, high, left_eye, right_eye).tolist()
    [[4.0, 3.0, 12.0, 0.0]]
    """
    across = second_eye - first_eye
    side = REGION * (high - low).max(axis=1, initial=0.0)
    turn = np.arctan2(across[:, 1], across[:, 0])
    return np.concatenate([(low + high) / 2, side[:, None], turn[:, None]], axis=1)


def box_of_region(region: Floats) -> Box:
    """The box of the 68 contour-and-feature points of a face found in a region (4,), in pixels; a square.

    Side and place are the median of 490 faces of aflw2000_dev; the side varies by a tenth from face to face.

    Examples
    --------
    >>> left, top, right, bottom = box_of_region(np.array([100.0, 100.0, 150.0, 0.0]))
    >>> round(right - left, 1), round((top + bottom) / 2, 1)
    (96.5, 105.5)
    """
    x, y, side, turn = (float(value) for value in region)
    longest = side / REGION
    # Down the face, which is down the image where the face is upright.
    x, y = x - _LOWER * longest * np.sin(turn), y + _LOWER * longest * np.cos(turn)
    half = _SMALLER * longest / 2
    return (float(x - half), float(y - half), float(x + half), float(y + half))


def region_around_box(box: Box) -> Floats:
    """The region (4,) of an upright face by the box of its 68 points: ``box_of_region`` the other way.

    Examples
    --------
    >>> region_around_box(box_of_region(np.array([100.0, 100.0, 150.0, 0.0]))).round(6).tolist()
    [100.0, 100.0, 150.0, 0.0]
    """
    left, top, right, bottom = box
    longest = max(right - left, bottom - top) / _SMALLER
    return np.array([(left + right) / 2, (top + bottom) / 2 - _LOWER * longest, REGION * longest, 0.0])


def distinct(regions: Floats) -> Floats:
    """Of regions of the same place the last one."""
    kept: list[Floats] = []
    for region in regions:
        kept = [other for other in kept if overlaps(_upright(other)[None], _upright(region))[0] <= _SAME_REGION]
        kept.append(region)
    return np.array(kept).reshape(-1, 4)


def away_from(regions: Floats, others: Floats) -> NDArray[np.bool_]:
    """Which regions (n, 4) lie at none of the others (m, 4), as one of a face that has moved quickly does.

    Examples
    --------
    >>> regions = np.array([[50.0, 50.0, 60.0, 0.0], [300.0, 50.0, 60.0, 0.0]])
    >>> away_from(regions + [[15, 0, 0, 0], [2, 0, 0, 0]], regions).tolist()
    [True, False]
    """
    return np.asarray((drift(regions[:, None], others[None]) > STILL).all(axis=1))


def drift(before: Floats, after: Floats) -> Floats:
    """How far the middles (...) of regions (..., 4) moved, in sides of the region before."""
    return np.asarray(np.linalg.norm(after[..., :2] - before[..., :2], axis=-1) / before[..., 2])


def _upright(region: Floats) -> Floats:
    return np.concatenate([region[:2] - region[2] / 2, region[:2] + region[2] / 2])


def overlaps(boxes: Floats, box: Floats) -> Floats:
    """Intersection over union (n,) of boxes (n, 4) with one (4,)."""
    shared = shared_areas(boxes, box)
    union = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
    return np.asarray(shared / np.maximum(union, 1e-12))


def shared_areas(boxes: Floats, box: Floats) -> Floats:
    """Areas (n,) that boxes (n, 4) have in common with one box (4,)."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    return np.asarray(np.prod(np.maximum(sides, 0), axis=1))
