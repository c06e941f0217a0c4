"""Heads in an image, whichever way they are turned: boxes from a small network of our own, by onnxruntime and numpy.

FaceMesh's detector sees faces. This one was trained on rendered heads all the way round, masked and hidden in part, and
so it finds those, too, that show no face. A box is everywhere that of the 68 contour-and-feature points, of a head
seen from behind the one that they would have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import resized
from nlml_hpe.detection.regions import overlaps
from nlml_hpe.face import Box, Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage, require_rgb
from nlml_hpe.sessions import CPU, open_session

if TYPE_CHECKING:  # loaded with the first session
    from onnxruntime import InferenceSession

HEADS_FORMAT = "nlml-hpe heads onnx 1"
HEADS_INPUT, HEADS_OUTPUTS = "images", ("scores", "boxes")
"""Input and outputs of the head detector's ONNX file, in order."""
HEADS_FILE = "heads.onnx"
MIN_SCORE = 0.5
"""Of a head that is reported."""
LEAST_PX = 20
"""Longer side of the smallest box that is reported: of a smaller head no pose can be told."""
VIEW_SIDES = (80, 160, 320, 640, 1280)
"""Longer sides of the copies of an image that are looked at: the first three always, the fourth where none of them
shows a head, and each where the one before shows something small."""
_ALWAYS, _FOR_NOTHING = 3, 4
_SMALL_PX = 20
_HINT = 0.15
"""Score of something small that makes a closer look worth its time."""
_LARGEST_PX = 100
"""Of a copy that is not the smallest: greater heads are those that the smaller copy shows."""
_SAME_HEAD = 0.4
"""Boxes of one kind that overlap by more (intersection over union) are one head's."""
_ALIKE = 0.5
"""Boxes that overlap by more have a part in where the surest of them says that the head is."""
_COVERED, _WITHIN = 0.25, 0.6
"""A box is a known face's where they overlap by more, or where more of the smaller one lies in the other."""
_LOWEST = 0.03
"""Score of a cell that is looked at any further."""
_MULTIPLE = 16
_METADATA = "nlml_hpe"
_INSIDE = Path(__file__).parents[1] / "checkpoint_heads"
PLACE = _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[2] / "checkpoints" / "head_detector"
"""Where the shipped file lies: in the wheel, or beside the package in a checkout."""
Floats = NDArray[np.float64]


class Head(NamedTuple):
    """A head's ``box`` of the 68 points, in pixels of the image, and its ``score`` in 0..1."""

    box: Box
    score: float


class HeadDetector:
    """The head detector's network, run by onnxruntime. It may be shared by threads.

    Parameters
    ----------
    path : Path, optional
        The ONNX file that the stage HeadTrainer writes; by default the shipped one.
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
    >>> HeadDetector().find(np.zeros((120, 160, 3), dtype=np.uint8))
    []
    """

    def __init__(self, path: Path | None = None, providers: Sequence[str] | str = CPU) -> None:
        self._session = open_stage(path or PLACE / HEADS_FILE, HEADS_FORMAT, "HeadTrainer", providers)

    def find(self, image: RgbImage, min_score: float = MIN_SCORE, max_heads: int | None = None) -> list[Head]:
        """Heads in an image, surest first.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            Looked at in copies of 80, 160 and 320 pixels, and where these show small heads or none, in one of 640, then
            of 1280.
        min_score : float
            In 0..1.
        max_heads : int, optional
            At most so many, by default all.

        Returns
        -------
        list of Head
            Boxes in pixels of the image, ``LEAST_PX`` or more on their longer side, each with its score.

        Raises
        ------
        ValueError
            For other arrays.
        """
        require_rgb(image)
        boxes, scores, hinted = np.empty((0, 4)), np.empty(0), False
        for view, side in enumerate(VIEW_SIDES):
            nothing = not (scores >= max(min_score, MIN_SCORE)).any()
            if view >= _ALWAYS and not hinted and not (nothing and view < _FOR_NOTHING):
                break
            factor = min(1.0, side / max(image.shape[:2]))
            seen, sure = self._look(image, factor)
            longest = (seen[:, 2:] - seen[:, :2]).max(axis=1, initial=0)
            hinted = bool(((longest < _SMALL_PX) & (sure >= _HINT)).any())
            kept = (longest < _LARGEST_PX) | (view == 0)
            boxes, scores = np.concatenate([boxes, seen[kept] / factor]), np.concatenate([scores, sure[kept]])
            if factor == 1.0:
                break
        chosen = [row for row in suppressed(boxes, scores) if scores[row] >= min_score]
        heads = [Head(as_box(mean_box(boxes, scores, row)), float(scores[row])) for row in chosen]
        return [head for head in heads if max(_sides(head.box)) >= LEAST_PX][:max_heads]

    def _look(self, image: RgbImage, factor: float) -> tuple[Floats, Floats]:
        """Boxes (n, 4), in pixels of the copy, and scores (n,) of all cells that have more than their neighbours."""
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        rows, columns = (-(-length // _MULTIPLE) * _MULTIPLE for length in (height, width))
        padded = np.zeros((rows, columns, 3), dtype=np.uint8)
        padded[:height, :width] = resized(image, factor)
        scores, boxes = self._session.run(None, {HEADS_INPUT: padded[None]})
        some = scores[0] > _LOWEST
        return boxes[0][some].astype(np.float64), scores[0][some].astype(np.float64)


def open_stage(
    file: Path, form: str, trainer: str, providers: Sequence[str] | str = CPU, threads: int = 0
) -> InferenceSession:
    """A session of one of the head detector's two files.

    Parameters
    ----------
    file : Path
        The ONNX file.
    form : str
        The format that its metadata is to name.
    trainer : str
        The stage that writes such files.
    providers, threads
        As for ``sessions.open_session``.

    Returns
    -------
    InferenceSession

    Raises
    ------
    ArtifactError
        For a file that is missing, damaged or of another kind.
    ProviderError
        Where a provider is not there.
    """
    if not file.is_file():
        raise ArtifactError(f"{file} is missing; name an ONNX file that the stage {trainer} wrote")
    session = open_session(file, providers, threads)
    about = session.get_modelmeta().custom_metadata_map.get(_METADATA, "{}")
    try:
        found = dict(json.loads(about)).get("format")
    except (TypeError, ValueError):
        found = None
    if found != form:
        raise ArtifactError(f"{file}: expected {form!r}, found {found!r}; run {trainer} again")
    return session


def mean_box(boxes: Floats, scores: Floats, row: int) -> Floats:
    """The mean, by their scores, of a box and all those that overlap it well: others that are about the same head say
    where it is, too, and together they know better than one.

    Parameters
    ----------
    boxes : float array (n, 4)
        Left, top, right, bottom.
    scores : float array (n,)
        How sure each is.
    row : int
        Which box.

    Returns
    -------
    float array (4,)
        Left, top, right, bottom.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [2, 0, 12, 10], [20, 0, 30, 10]])
    >>> mean_box(boxes, np.array([0.5, 0.5, 0.9]), 0).tolist()
    [1.0, 0.0, 11.0, 10.0]
    """
    alike = overlaps(boxes, boxes[row]) > _ALIKE
    return np.asarray(np.average(boxes[alike], axis=0, weights=scores[alike]))


def _sides(box: Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def as_box(corners: NDArray[np.floating]) -> Box:
    """Four numbers as a box.

    Parameters
    ----------
    corners : float array (4,)
        Left, top, right, bottom.

    Returns
    -------
    Box

    Examples
    --------
    >>> as_box(np.arange(4.0))
    (0.0, 1.0, 2.0, 3.0)
    """
    left, top, right, bottom = (float(value) for value in corners)
    return left, top, right, bottom


def suppressed(boxes: Floats, scores: Floats, most: float = _SAME_HEAD) -> list[int]:
    """One box of each head, where several were found of it.

    Parameters
    ----------
    boxes : float array (n, 4)
        Left, top, right, bottom.
    scores : float array (n,)
        How sure each is.
    most : float
        Intersection over union beyond which two boxes are one head's.

    Returns
    -------
    list of int
        Rows of boxes of which no two overlap by more, surest first.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
    >>> suppressed(boxes, np.array([0.6, 0.9, 0.7]))
    [1, 2]
    """
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if not kept or overlaps(boxes[kept], boxes[row]).max() <= most:
            kept.append(int(row))
    return kept


def uncovered(heads: Sequence[Head], faces: Sequence[Face]) -> list[Head]:
    """Those of the heads that are none of these faces, by their boxes of the 68 points.

    Examples
    --------
    >>> uncovered([Head((0, 0, 10, 10), 0.9), Head((20, 0, 30, 10), 0.8)], [Face(None, (1, 1, 12, 12))])
    [Head(box=(20, 0, 30, 10), score=0.8)]
    """
    known = np.array([box_of_68(face) for face in faces]).reshape(-1, 4)
    return [head for head in heads if not _is_known(np.array(head.box), known)]


def _is_known(box: Floats, known: Floats) -> bool:
    sides = np.minimum(known[:, 2:], box[2:]) - np.maximum(known[:, :2], box[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    least = np.minimum(np.prod(known[:, 2:] - known[:, :2], axis=1), np.prod(box[2:] - box[:2]))
    return bool(((overlaps(known, box) > _COVERED) | (shared > _WITHIN * least)).any())
