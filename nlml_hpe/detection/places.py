"""Where in an image the search looks, and which of the boxes that it finds are of one face."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import Box, Face, area_of, box_of
from nlml_hpe.files.images import RgbImage

Points = list[NDArray[np.float64]]
"""Landmarks (N, 3) in pixels of each face of one image."""
MAX_DETECTION_SIDE = 2048
"""Longer images are detected on a reduced copy; FaceMesh's own inputs are 128 and 192 pixels wide."""
_SAME_FACE = 0.3
"""Faces of two tiles whose boxes overlap by more (intersection over union) are one."""
_CROP = 2.5
"""Side of the crop around a face that is known to be there, in the box's longer sides. Of 364 faces of aflw2000_dev in
the paper's range the whole image shows 359, its mirror image one more, and of crops of 1.25 to 3 sides this one finds
most of the rest (3 of 4)."""


def reduced_copy(image: RgbImage) -> tuple[RgbImage, float]:
    """The image, made smaller where it is too long, and the factor by which it was."""
    factor = reduction(image)
    return resized(image, factor), factor


def reduction(image: RgbImage) -> float:
    """The factor by which an image is made smaller before it is searched."""
    return min(1.0, MAX_DETECTION_SIDE / max(image.shape[:2]))


def resized(image: RgbImage, factor: float) -> RgbImage:
    """The image ``factor`` times as large, 1 or less."""
    if factor == 1.0:
        return image
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def crop_around(image: RgbImage, box: Box) -> tuple[RgbImage, tuple[int, int]]:
    """A square around the box of ``_CROP`` times its longer side, edges repeated; and its left top corner."""
    left, top, right, bottom = box
    # A box much greater than the image would ask for a crop without bounds.
    longest = 2 * max(image.shape[:2])
    length = int(np.clip(round(_CROP * max(right - left, bottom - top)), 2, longest))
    x, y = round((left + right - length) / 2), round((top + bottom - length) / 2)
    columns = np.clip(np.arange(x, x + length), 0, image.shape[1] - 1)
    rows = np.clip(np.arange(y, y + length), 0, image.shape[0] - 1)
    return np.ascontiguousarray(image[rows[:, None], columns]), (x, y)


def tile_starts(length: int, side: int) -> list[int]:
    """Starts of tiles of this side that cover the length and overlap by half or more."""
    count = 1 + max(0, -(-2 * (length - side) // side))
    return [round(start) for start in np.linspace(0, max(0, length - side), count)]


def shared_area(first: Box, second: Box) -> float:
    """Area that two boxes have in common, in square pixels."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    shared = shared_area(first, second)
    return shared / (area_of(first) + area_of(second) - shared)


def centre_within(inner: Box, outer: Box) -> bool:
    """Whether the middle of one box lies in another."""
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def best_in(faces: list[Face], box: Box) -> Face | None:
    """Of the faces whose centre lies in the box the one that overlaps it most."""
    inside = [face for face in faces if centre_within(face.box, box)]
    return max(inside, key=lambda face: overlap(face.box, box), default=None)


def beside(boxes: Sequence[Box], faces: Sequence[Face]) -> list[Box]:
    """Those of the boxes that show none of these faces: neither's middle lies in the other.

    Examples
    --------
    >>> beside([(0, 0, 10, 10), (20, 0, 30, 10)], [Face(None, (1, 1, 12, 12))])
    [(20, 0, 30, 10)]
    """
    return [
        box for box in boxes if not any(centre_within(box, face.box) or centre_within(face.box, box) for face in faces)
    ]


def without_repeats(faces: Points) -> Points:
    """Largest first; of faces of the same place, which several tiles show, the largest."""
    kept: Points = []
    for points in sorted(faces, key=lambda points: -float(np.prod(np.ptp(points[:, :2], axis=0)))):
        if all(overlap(box_of(points), box_of(other)) < _SAME_FACE for other in kept):
            kept.append(points)
    return kept
