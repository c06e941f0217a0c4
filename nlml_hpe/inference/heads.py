"""Heads that show no face: found by the head detector, looked at closely by its second stage, which says better where
their 68 points are, and confirmed by the image eye, which was never shown anything but heads and doubts its answer to
anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nlml_hpe.detection.heads import MIN_SCORE, Floats, Head, HeadDetector, longest_side, suppressed, uncovered
from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import beside, overlap
from nlml_hpe.face import Box, Face, area_of
from nlml_hpe.files.images import RgbImage
from nlml_hpe.head_network.proposals import REFINEMENT_FILE
from nlml_hpe.inference.image_engine import ImageEngine
from nlml_hpe.inference.refinement import HeadRefiner, PlacesAhead
from nlml_hpe.sessions import CPU

LEAST_CONFIRMED = 0.29
"""Score, by the detector and the image eye, of a head that is reported; ``benchmarks/heads.py``."""
_SECONDS_PART = 0.25
"""Weight of the second stage's score in the geometric mean with the first's: it is of the box of the 68 points, which
is hard to tell of a head from behind, but it seldom takes other things for heads.
"""
_EYES_PART = 0.25
"""Power of the image eye's score: it says little of where the head is, which the detector's does."""
_UNTOLD = (LEAST_CONFIRMED / MIN_SCORE) ** (1 / _EYES_PART)
"""In place of the score of an eye that tells no doubt, as MobileNetV2's: then the search's own score of ``MIN_SCORE``
or more is enough for a head, and a known face stays.
"""
_LOST, _SURE, _OWN_AREA = 0.5, 0.6, 0.25
"""Landmarks are lost where their box of the 68 points and the one that the second stage sees overlap by less than the
first. A known face is where its head's box of the 68 points is, if both boxes overlap by less than the first and both
stages are this sure of the head: its landmarks are lost. A head of less than the last of the face's area is another's.
``benchmarks/heads.py``.
"""
_KNOWN, _SAME_PLACE, _LARGE = 0.03, 0.2, 0.5
"""A known face is left out where the image eye's score is less than the first, if no head's box of the 68 points
overlaps its own by the second. A face of this share of the image's longer side is kept: of a head that the image cuts
off neither knows much. ``benchmarks/heads.py``.
"""


class HeadSearch:
    """Both stages of the head detector. It may be shared by threads.

    Parameters
    ----------
    path : str or Path, optional
        The first stage's file, as of ``HeadDetector``. The second stage's is ``refinement.onnx`` beside it, where there
        is one, otherwise the shipped one.
    providers
        As of ``HeadDetector``.

    Raises
    ------
    ArtifactError, ProviderError
        As of ``HeadDetector``.

    Examples
    --------
    >>> import numpy as np
    >>> HeadSearch().find(np.zeros((120, 160, 3), dtype=np.uint8))
    []
    """

    def __init__(self, path: str | Path | None = None, providers: Sequence[str] | str = CPU) -> None:
        self.detector = HeadDetector(path, providers)
        beside = Path(path).with_name(REFINEMENT_FILE) if path is not None else None
        self.refiner = HeadRefiner(beside if beside is not None and beside.is_file() else None, providers)

    def find(self, image: RgbImage, least: float = MIN_SCORE) -> list[Head]:
        """Heads in an image, surest first.

        ``face_box`` is that of the second stage, ``score`` the geometric mean of the first stage's, to three parts, and
        the second's.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            The image.
        least : float
            Least score, in 0..1.

        Returns
        -------
        list of Head
            In pixels of the image, ``LEAST_PX`` or more on the longer side of the head.

        Raises
        ------
        ValueError
            For an array that is no such image.
        """
        # No score is above one: what the first stage is less sure of than this cannot be reported.
        proposed = self.detector.find(image, least ** (1 / (1 - _SECONDS_PART)))
        closer = self.refiner.refine(image, proposed)
        heads = [
            near._replace(score=head.score ** (1 - _SECONDS_PART) * near.score**_SECONDS_PART)
            for head, near in zip(proposed, closer, strict=True)
        ]
        # A box that has moved may be a surer head's: that of an ear or a cap moves to the face beside it.
        sure = [head for head in heads if head.score >= least]
        face_boxes = np.array([head.face_box for head in sure]).reshape(-1, 4)
        return [sure[row] for row in suppressed(face_boxes, np.array([head.score for head in sure]))]

    def boxes(self, image: RgbImage, eye: ImageEngine | None = None) -> list[Box]:
        """The boxes of the 68 points of heads: what follows heads through a video asks for them.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            As of ``find``.
        eye : ImageEngine, optional
            Confirms them, as ``predict`` has them confirmed; without one they are those of ``find``.

        Returns
        -------
        list of Box
            Left, top, right, bottom in pixels, surest first.

        Raises
        ------
        ValueError
            For other arrays.
        """
        heads = self.find(image) if eye is None else confirmed_heads(self, eye, image)
        return [head.face_box for head in heads]


def confirmed_heads(
    search: HeadSearch, eye: ImageEngine, image: RgbImage, least: float = LEAST_CONFIRMED
) -> list[Head]:
    """Heads in an image that the image eye confirms, surest first.

    ``score`` is that of ``HeadSearch.find`` times the fourth root of the image eye's.

    Parameters
    ----------
    search : HeadSearch
        Finds heads.
    eye : ImageEngine
        Looks at each of them.
    image : RGB uint8 array (H, W, 3)
        The image.
    least : float
        Least such score, in 0..1.

    Returns
    -------
    list of Head
        Boxes in pixels of the image.

    Raises
    ------
    ValueError
        For an array that is no such image.
    """
    # No score is above one: what the search is less sure of than ``least`` cannot be reported.
    return _confirmed(eye, image, search.find(image, least), least)


def _confirmed(eye: ImageEngine, image: RgbImage, found: Sequence[Head], least: float) -> list[Head]:
    """Those heads of an image that the image eye confirms, surest first."""
    said = zip(found, _scores(eye, image, [head.face_box for head in found]), strict=True)
    heads = [head._replace(score=head.score * float(score) ** _EYES_PART) for head, score in said]
    return sorted((head for head in heads if head.score >= least), key=lambda head: -head.score)


def with_heads(
    search: HeadSearch, eye: ImageEngine, images: Sequence[RgbImage], faces: Sequence[Sequence[Face]], max_faces: int
) -> list[list[Face]]:
    """The faces of each image, and heads beside them.

    A face whose landmarks lie elsewhere than its head is where the head is, without landmarks. A face is left out where
    the head detector sees none and the image eye does not know it either.

    Parameters
    ----------
    search, eye
        As of ``confirmed_heads``.
    images : sequence of RGB uint8 arrays (H, W, 3)
        The images.
    faces : sequence of sequences of Face
        Which are known in each of them.
    max_faces : int
        Heads are added up to so many in all.

    Returns
    -------
    list of lists of Face
        Of each image, largest first; ``found_by`` of a head is "head", its box that of the 68 points, and it has no
        landmarks.
    """
    found = []
    for image, known in zip(images, faces, strict=True):
        seen = search.find(image, LEAST_CONFIRMED)
        kept = _believed(eye, image, _placed(known, seen), seen)
        heads = _confirmed(eye, image, uncovered(seen, kept), LEAST_CONFIRMED)[: max(0, max_faces - len(kept))]
        others = [Face(image, head.face_box, None, "head") for head in heads]
        found.append(sorted([*kept, *others], key=lambda face: -face.area))
    return found


def where_seen(eye: ImageEngine, faces: Sequence[Face], ahead: PlacesAhead | None = None) -> list[Face]:
    """Faces of one image, each where the second stage sees it.

    Parameters
    ----------
    eye : ImageEngine
        Whose refiner looks (``ImageEngine.placed``).
    faces : sequence of Face
        As the search finds them. Heads that the head detector has found were looked at so.
    ahead : PlacesAhead, optional
        As of ``ImageEngine.placed``.

    Returns
    -------
    list of Face
        Largest first. A face whose landmarks lie elsewhere is where it is seen, without landmarks; one that, without
        landmarks, is where another one is is left out.
    """
    kept, without = [face for face in faces if face.found_by == "head"], []
    for face in eye.placed([face for face in faces if face.found_by != "head"], ahead):
        place = face.given_box
        if face.points is None or place is None:
            without.append(face)
        elif overlap(box_of_68(replace(face, given_box=None)), place) < _LOST:
            without.append(Face(face.image, place, None, "box", given_box=place))
        else:
            kept.append(face)
    for face in without:
        kept += [face] if beside([face.box], kept) else []
    return sorted(kept, key=lambda face: -face.area)


def _believed(eye: ImageEngine, image: RgbImage, faces: Sequence[Face], heads: Sequence[Head]) -> list[Face]:
    """Those faces of an image that lie where a head is seen, that are large, or that the image eye knows."""
    boxes, large = [box_of_68(face) for face in faces], _LARGE * max(image.shape[:2])
    sure = [
        longest_side(box) >= large or any(overlap(head.face_box, box) >= _SAME_PLACE for head in heads) for box in boxes
    ]
    scores = iter(_scores(eye, image, [box for box, known in zip(boxes, sure, strict=True) if not known]))
    return [face for face, known in zip(faces, sure, strict=True) if known or next(scores) >= _KNOWN]


def _scores(eye: ImageEngine, image: RgbImage, boxes: Sequence[Box]) -> Floats:
    """The image eye's scores (n,) of what boxes show; NaN of what it cannot answer."""
    # By few crops, with which the scores above were chosen; all of them take twice as long.
    said = eye.estimate([Face(image, box) for box in boxes], few=True)
    is_answer = np.isfinite(said.rotation).all(axis=(-2, -1))
    return np.where(is_answer & np.isnan(said.score), _UNTOLD, said.score)


def _placed(faces: Sequence[Face], heads: Sequence[Head]) -> list[Face]:
    """The faces, each whose landmarks are lost where its head is, without landmarks, if the head is nobody else's."""
    boxes = [box_of_68(face) for face in faces]
    sure = [head for head in heads if head.score >= _SURE]
    free = [head for head in sure if all(overlap(head.face_box, box) < _LOST for box in boxes)]
    placed = []
    for face, box in zip(faces, boxes, strict=True):
        is_lost = all(overlap(head.face_box, box) < _LOST for head in sure)
        least = _OWN_AREA * area_of(box)
        own = [head for head in free if is_lost and area_of(head.face_box) >= least and not uncovered([head], [face])]
        nearest = max(own, key=lambda head: overlap(head.face_box, box), default=None)
        if nearest is None:
            placed.append(face)
            continue
        free.remove(nearest)
        placed.append(Face(face.image, nearest.face_box, None, "head"))
    return placed
