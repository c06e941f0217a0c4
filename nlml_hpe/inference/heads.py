"""Heads that show no face, found by the head detector and confirmed by the image eye.

The image eye, which was never shown anything but heads, doubts its answer to anything else. On photographs wrong
boxes go at a lower loss of heads than by the detector's score alone; on rendered scenes the two are about equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from nlml_hpe.detection.heads import Head, HeadDetector, uncovered
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.image_engine import ImageEngine

LEAST_PROPOSED = 0.15
"""The detector's score of a box that the image eye is asked about."""
LEAST_CONFIRMED = 0.25
"""Score, by both, of a head that is reported; ``benchmarks/heads.py``."""
_EYES_PART = 0.25
"""Power of the image eye's score: it says little of where the box is, which the detector's does."""


def confirmed_heads(
    detector: HeadDetector,
    eye: ImageEngine,
    image: RgbImage,
    faces: Sequence[Face] = (),
    least: float = LEAST_CONFIRMED,
) -> list[Head]:
    """Heads in an image that are none of the faces, surest first.

    ``score`` is the detector's score times the fourth root of the image eye's.

    Parameters
    ----------
    detector : HeadDetector
        Proposes boxes.
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
    # Neither score is above one: what the detector is less sure of than ``least`` cannot be reported.
    proposed = uncovered(detector.find(image, max(least, LEAST_PROPOSED)), faces)
    scores = eye.estimate([Face(image, head.box) for head in proposed]).score
    heads = [
        Head(head.box, head.score * float(score) ** _EYES_PART) for head, score in zip(proposed, scores, strict=True)
    ]
    return sorted((head for head in heads if head.score >= least), key=lambda head: -head.score)


def with_heads(
    detector: HeadDetector,
    eye: ImageEngine,
    images: Sequence[RgbImage],
    faces: Sequence[Sequence[Face]],
    max_faces: int,
) -> list[list[Face]]:
    """The faces of each image, and heads beside them.

    Parameters
    ----------
    detector, eye
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
        heads = confirmed_heads(detector, eye, image, known)[:room] if room else []
        others = [Face(image, head.box, None, "head") for head in heads]
        found.append(sorted([*known, *others], key=lambda face: -face.area))
    return found
