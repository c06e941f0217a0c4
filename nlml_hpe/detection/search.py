"""The search that all detectors share: the whole image, its mirror image, then wider, closer, and in tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import Self

import cv2
import numpy as np

from nlml_hpe.detection.landmarks import MIN_CONFIDENCE, PointSet, mirrored_points
from nlml_hpe.detection.places import (
    MAX_DETECTION_SIDE,
    Points,
    best_in,
    centre_within,
    crop_around,
    reduced_copy,
    tile_starts,
    without_repeats,
)
from nlml_hpe.detection.regions import in_image, letterbox, mirror_image, warped
from nlml_hpe.face import Box, Face, has_size
from nlml_hpe.files.images import RgbImage, require_rgb

_BORDER = 0.3
_TILE_SHARES = (0.5, 0.25)
"""Sides of the tiles in which small faces are looked for, in the image's longer sides: faces below about 12% of a
side are seldom found in it."""
_MIN_TILE = 192
"""A tile of fewer pixels would show the landmark network no more than the whole image does."""
GIVEN_BOX_CONFIDENCE = 0.1
"""Threshold in a crop around a face that is known to be there."""
TRACKING_CONFIDENCE = 0.5
"""Threshold, at least, of a face that is followed through a video."""
_SQUARES, _TURNS, _SQUARE_PX = (1.6, 2.0, 2.5, 3.0), (0.0, -15.0, 15.0), 384
"""Sides, in the box's longer sides, turns in degrees and pixels of the squares that are tried last around a box."""
_WHOLE_TURNS = (30.0, -30.0, 60.0, -60.0)
"""Degrees by which the whole image is turned where nothing else shows a face."""


class DetectorError(RuntimeError):
    """A detector cannot be loaded; the message says what is missing and how to get it."""


class CascadeDetector(ABC):
    """What all detectors share: the order of the search. Use as a context manager, or ``close`` when done.

    Each image is detected afresh, so results do not depend on their order. Where the whole image shows no face, its
    mirror image and a copy with a wider border are tried: of off-grid rendered poses in the default range that takes
    FaceMesh's coverage from 95.9% to 97.8%. Last come overlapping tiles, which show small faces.
    With ``tracking`` images are the frames of one video: nothing but the whole image is tried, and a detector that
    can follows faces from frame to frame. Raises ``ValueError`` for ``max_faces`` below 1 and for a ``min_confidence``
    beyond 0..1, with which no face would be found.
    """

    point_set: PointSet
    package: str = "nlml-hpe"
    """The distribution whose version decides what is found."""
    options: tuple[str, ...] = ()
    """Which of ``detectors.open_detector``'s ``bundle`` and ``providers`` this kind takes."""

    def __init__(self, max_faces: int = 1, min_confidence: float = MIN_CONFIDENCE, tracking: bool = False) -> None:
        require_count(max_faces)
        if not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence: expected a threshold in 0..1; received {min_confidence!r}")
        self._max_faces, self._min_confidence, self._tracking = max_faces, min_confidence, tracking

    @property
    def is_tracking(self) -> bool:
        """Whether images are the frames of one video."""
        return self._tracking

    @property
    def max_faces(self) -> int:
        """At most so many faces are found in an image."""
        return self._max_faces

    @abstractmethod
    def _find(self, image: RgbImage, max_faces: int, confidence: float) -> Points:
        """Landmarks (N, 3) in pixels of up to so many faces."""

    @abstractmethod
    def close(self) -> None:
        """Release what the detector holds."""

    def _find_each(self, images: Sequence[RgbImage], max_faces: int, confidence: float) -> list[Points]:
        """``_find`` for each image; a detector that is faster with several at once does it otherwise."""
        return [self._find(image, max_faces, confidence) for image in images]

    def detect(self, image: RgbImage) -> list[Face]:
        """Faces in an RGB uint8 image ``(H, W, 3)``, largest first. Raises ``ValueError`` for other arrays."""
        return self.detect_batch([image])[0]

    def detect_batch(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """What ``detect`` gives for each of the images; each step of the search looks at all that need it at once.

        Raises ``ValueError`` as ``detect`` does.
        """
        reduced = reduced_copies(images)
        return self._completed(images, reduced, self._shown(images, reduced))

    def _shown(self, images: Sequence[RgbImage], reduced: Sequence[tuple[RgbImage, float]]) -> list[list[Face]]:
        """The faces that the whole images show, by copies of them."""
        whole = self._whole([copy for copy, _ in reduced])
        return [
            faces_of(points, "whole", image, factor)
            for points, image, (_, factor) in zip(whole, images, reduced, strict=True)
        ]

    def _completed(
        self, images: Sequence[RgbImage], reduced: Sequence[tuple[RgbImage, float]], shown: Sequence[list[Face]]
    ) -> list[list[Face]]:
        """The faces that the whole images show, and those of the search's further steps where they show none."""
        found = list(shown)
        steps = {"mirrored": self._mirrored, "bordered": self._bordered, "crop": self._in_tiles}
        for step, search in ({} if self._tracking else steps).items():
            pending = [index for index, faces in enumerate(found) if not faces]
            for index, points in zip(pending, search([reduced[index][0] for index in pending]), strict=True):
                found[index] = faces_of(points, step, images[index], reduced[index][1])
        return found

    def detect_turned(self, image: RgbImage) -> list[Face]:
        """Faces in the image turned by 30 and 60 degrees, for one in which ``detect`` finds none; largest first.

        Raises ``ValueError`` for other arrays than RGB uint8 ``(H, W, 3)``.
        """
        require_rgb(image)
        x, y, side, _ = letterbox(image)
        size = round(min(side, MAX_DETECTION_SIDE))
        for turn in np.radians(_WHOLE_TURNS):
            square = np.array([x, y, side, turn])
            some = self._find(warped(image, square, size, cv2.BORDER_REPLICATE), self._max_faces, self._min_confidence)
            if some:
                return faces_of([in_image(points, square, size) for points in some], "turned", image)
        return []

    def detect_in_box(self, image: RgbImage, box: Box) -> Face | None:
        """The face whose centre lies in ``box``, that of best overlap where there are several.

        The whole image and its mirror image are tried, then, with a lower threshold, a loose crop around the box, and
        last squares of several sides around it, turned and mirrored; what all of these show becomes the face's looks.
        Raises ``ValueError`` for other arrays and for a box that is empty or not finite.
        """
        return self.detect_in_boxes([image], [box])[0] or self._in_squares(image, box)

    def detect_in_boxes(self, images: Sequence[RgbImage], boxes: Sequence[Box]) -> list[Face | None]:
        """As ``detect_in_box`` for each image and its box, but without the last step, the squares.

        These show steep faces, whose points are rough, and are 24 more images to look at: an answer where there would
        be none, but nothing that a model is to learn from. Raises ``ValueError`` as ``detect_in_box`` does.
        """
        for _, box in zip(images, boxes, strict=True):
            _require_box(box)
        reduced = reduced_copies(images)
        found = [best_in(some, box) for some, box in zip(self._shown(images, reduced), boxes, strict=True)]
        pending = [index for index, face in enumerate(found) if face is None]
        for index, some in zip(pending, self._mirrored([reduced[index][0] for index in pending]), strict=True):
            found[index] = best_in(faces_of(some, "mirrored", images[index], reduced[index][1]), boxes[index])
        for index, face in enumerate(found):
            if face is None:
                found[index] = self._in_crop(images[index], boxes[index])
        return found

    def _in_crop(self, image: RgbImage, box: Box) -> Face | None:
        """The face of a box in a loose crop around it, with a lower threshold."""
        crop, (left, top) = crop_around(image, box)
        reduced, factor = reduced_copy(crop)
        # The surest candidate alone: at this threshold the others are seldom faces.
        some = self._find(reduced, 1, min(self._min_confidence, GIVEN_BOX_CONFIDENCE))
        return best_in([Face.from_points(points / factor + [left, top, 0], "crop", image) for points in some], box)

    def _in_squares(self, image: RgbImage, box: Box) -> Face | None:
        """The face of a box in squares around it, each shown upright, turned and mirrored, with a lower threshold.

        Of the faces found the one that overlaps the box most; the landmarks of the others are further looks at it.
        """
        left, top, right, bottom = box
        x, y, longest = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)
        squares = [np.array([x, y, side * longest, turn]) for side in _SQUARES for turn in np.radians(_TURNS)]
        shown = [warped(image, square, _SQUARE_PX, cv2.BORDER_REPLICATE) for square in squares]
        mirrored = [mirror_image(square) for square in shown]
        found = self._find_each([*shown, *mirrored], 1, min(self._min_confidence, GIVEN_BOX_CONFIDENCE))
        upright = found[: len(squares)] + [
            [mirrored_points(points, _SQUARE_PX, self.point_set) for points in some] for some in found[len(squares) :]
        ]
        faces = [
            Face.from_points(in_image(points, square, _SQUARE_PX), "crop", image)
            for square, some in zip(squares * 2, upright, strict=True)
            for points in some
        ]
        best = best_in(faces, box)
        others = [face.landmarks for face in faces if face is not best and centre_within(face.box, box)]
        return replace(best, looks=np.stack(others)) if best and others else best

    def _whole(self, images: Sequence[RgbImage]) -> list[Points]:
        contiguous = [np.ascontiguousarray(image) for image in images]
        return self._find_each(contiguous, self._max_faces, self._min_confidence)

    def _mirrored(self, images: Sequence[RgbImage]) -> list[Points]:
        """Landmarks found in the mirror images, as those of the images themselves."""
        found = self._whole([mirror_image(image) for image in images])
        return [
            [mirrored_points(points, image.shape[1], self.point_set) for points in some]
            for image, some in zip(images, found, strict=True)
        ]

    def _bordered(self, images: Sequence[RgbImage]) -> list[Points]:
        """Landmarks found in copies with a wider border, as those of the images themselves."""
        borders = [round(_BORDER * max(image.shape[:2])) for image in images]
        wide = [
            np.asarray(cv2.copyMakeBorder(image, width, width, width, width, cv2.BORDER_REPLICATE), dtype=np.uint8)
            for image, width in zip(images, borders, strict=True)
        ]
        return [
            [points - [width, width, 0] for points in some]
            for width, some in zip(borders, self._whole(wide), strict=True)
        ]

    def _in_tiles(self, images: Sequence[RgbImage]) -> list[Points]:
        """Landmarks of small faces, which the whole images do not show."""
        return [self._in_tiles_of(image) for image in images]

    def _in_tiles_of(self, image: RgbImage) -> Points:
        """Landmarks of small faces in overlapping squares of one image; largest first."""
        for share in _TILE_SHARES:
            side = round(share * max(image.shape[:2]))
            if side < _MIN_TILE:
                break
            corners = [
                (top, left) for top in tile_starts(image.shape[0], side) for left in tile_starts(image.shape[1], side)
            ]
            tiles = self._whole([image[top : top + side, left : left + side] for top, left in corners])
            found = [
                points + np.array([left, top, 0])
                for (top, left), some in zip(corners, tiles, strict=True)
                for points in some
            ]
            if found:
                return without_repeats(found)[: self._max_faces]
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def faces_of(found: Points, step: str, image: RgbImage, factor: float = 1.0) -> list[Face]:
    """Faces of the landmarks that one step of the search found.

    Parameters
    ----------
    found : list of float arrays (N, 3)
        In pixels of a copy of the image.
    step : str
        Becomes ``found_by``.
    image : RGB uint8 array (H, W, 3)
        The image.
    factor : float
        Pixels of the copy in one of the image.

    Returns
    -------
    list of Face
        Largest first, in pixels of the image.
    """
    faces = [Face.from_points(points / factor, step, image) for points in found]
    return sorted(faces, key=lambda face: -face.area)


def reduced_copies(images: Sequence[RgbImage]) -> list[tuple[RgbImage, float]]:
    """``reduced_copy`` of each. Raises ``ValueError`` for other arrays than RGB uint8 ``(H, W, 3)``."""
    for image in images:
        require_rgb(image)
    return [reduced_copy(image) for image in images]


def require_count(max_faces: int) -> None:
    """Raise ``ValueError`` for a number of faces that is none, or below one."""
    if isinstance(max_faces, bool) or not isinstance(max_faces, Integral) or max_faces < 1:
        raise ValueError(f"max_faces: expected a whole number, 1 or more; received {max_faces!r}")


def _require_box(box: Box) -> None:
    if not has_size(box):
        raise ValueError(f"expected a box (left, top, right, bottom) in pixels that is not empty; received {box}")
