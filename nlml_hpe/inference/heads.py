"""Heads that show no face: proposed by the head detector, looked at closely by its second stage, confirmed by the image
eye, which was never shown anything but heads and doubts its answer to anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlml_hpe.detection.heads import LEAST_PX, MIN_SCORE, Head, HeadDetector, as_box, mean_box, suppressed, uncovered
from nlml_hpe.face import Box, Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.head_network.proposals import REFINEMENT_FILE
from nlml_hpe.inference.image_engine import ImageEngine
from nlml_hpe.inference.refinement import HeadRefiner
from nlml_hpe.sessions import CPU

LEAST_PROPOSED = 0.1
"""The first stage's score of a box that is looked at closely."""
LEAST_CONFIRMED = 0.28
"""Score, by both stages and the image eye, of a head that is reported; ``benchmarks/heads.py``."""
_EYES_PART = 0.25
"""Power of the image eye's score: it says little of where the box is, which the detector's does."""


class HeadSearch:
    """Both stages of the head detector. It may be shared by threads.

    Parameters
    ----------
    path : Path, optional
        The first stage's ONNX file, which HeadTrainer writes; by default the shipped one. The second stage is the file
        ``refinement.onnx`` beside it, where there is one, otherwise the shipped one.
    providers : sequence of str, or str
        What computes, as for ``sessions.resolve_providers``.

    Raises
    ------
    ArtifactError
        For a file that is missing, damaged or of another kind.
    ProviderError
        Where a provider is not there.

    Examples
    --------
    >>> HeadSearch().find(np.zeros((120, 160, 3), dtype=np.uint8))
    []
    """

    def __init__(self, path: Path | None = None, providers: Sequence[str] | str = CPU) -> None:
        self.detector = HeadDetector(path, providers)
        beside = path.with_name(REFINEMENT_FILE) if path is not None else None
        self.refiner = HeadRefiner(beside if beside is not None and beside.is_file() else None, providers)

    def find(self, image: RgbImage, faces: Sequence[Face] = (), least: float = MIN_SCORE) -> list[Head]:
        """Heads in an image that are none of the faces, surest first.

        ``score`` is the geometric mean of both stages'. Boxes of one head by several proposals are averaged.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            The image.
        faces : sequence of Face
            Which are known there.
        least : float
            Least score, in 0..1.

        Returns
        -------
        list of Head
            Boxes in pixels of the image, ``LEAST_PX`` or more on their longer side.

        Raises
        ------
        ValueError
            For an array that is no such image.
        """
        proposed = uncovered(self.detector.find(image, LEAST_PROPOSED), faces)
        refined = self.refiner.refine(image, proposed)
        boxes = np.array([head.box for head in refined]).reshape(-1, 4)
        scores = np.array([math.sqrt(said.score * head.score) for said, head in zip(proposed, refined, strict=True)])
        chosen = [row for row in suppressed(boxes, scores) if scores[row] >= least]
        heads = [Head(as_box(mean_box(boxes, scores, row)), float(scores[row])) for row in chosen]
        # A box that has moved may be a face's.
        return [head for head in uncovered(heads, faces) if _longest(head.box) >= LEAST_PX]

    def boxes(self, image: RgbImage) -> list[Box]:
        """The boxes of ``find``: what follows heads through a video asks for them.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            As of ``find``.

        Returns
        -------
        list of Box
            Left, top, right, bottom in pixels, surest first.

        Raises
        ------
        ValueError
            For other arrays.
        """
        return [head.box for head in self.find(image)]


def confirmed_heads(
    search: HeadSearch, eye: ImageEngine, image: RgbImage, faces: Sequence[Face] = (), least: float = LEAST_CONFIRMED
) -> list[Head]:
    """Heads in an image that are none of the faces, surest first.

    ``score`` is that of ``HeadSearch.find`` times the fourth root of the image eye's.

    Parameters
    ----------
    search : HeadSearch
        Finds heads.
    eye : ImageEngine
        Looks at each of them.
    image : RGB uint8 array (H, W, 3)
        The image.
    faces : sequence of Face
        Which are known there.
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
    found = search.find(image, faces, least)
    scores = eye.estimate([Face(image, head.box) for head in found]).score
    heads = [Head(head.box, head.score * float(score) ** _EYES_PART) for head, score in zip(found, scores, strict=True)]
    return sorted((head for head in heads if head.score >= least), key=lambda head: -head.score)


def with_heads(
    search: HeadSearch, eye: ImageEngine, images: Sequence[RgbImage], faces: Sequence[Sequence[Face]], max_faces: int
) -> list[list[Face]]:
    """The faces of each image, and heads beside them.

    Parameters
    ----------
    search, eye
        As of ``confirmed_heads``.
    images : sequence of RGB uint8 arrays (H, W, 3)
        The images.
    faces : sequence of sequences of Face
        Which are known in each of them; all are kept.
    max_faces : int
        Heads are added up to so many in all.

    Returns
    -------
    list of lists of Face
        Of each image, largest first; ``found_by`` of a head is "head", and it has no landmarks.
    """
    found = []
    for image, known in zip(images, faces, strict=True):
        room = max(0, max_faces - len(known))
        heads = confirmed_heads(search, eye, image, known)[:room] if room else []
        others = [Face(image, head.box, None, "head") for head in heads]
        found.append(sorted([*known, *others], key=lambda face: -face.area))
    return found


def _longest(box: Box) -> float:
    return max(box[2] - box[0], box[3] - box[1])
