"""Heads in an image, whichever way they are turned: boxes from a small network of our own, by onnxruntime and numpy.

FaceMesh's detector sees faces. This one was trained on rendered heads all the way round, masked and hidden in part, and
so it finds those, too, that show no face. A head's box goes from crown to chin, ears included, hair left out, so that
it hardly depends on where the head looks; beside it stands the box of the 68 contour-and-feature points, of a head seen
from behind the one that they would have, which the image eye's crop is cut by.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import resized
from nlml_hpe.detection.regions import overlaps, shared_areas
from nlml_hpe.face import Box, Face, box_of
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage, require_rgb
from nlml_hpe.sessions import CPU, open_session
from nlml_hpe.threads import thread_count

if TYPE_CHECKING:  # loaded with the first session
    from onnxruntime import InferenceSession

HEADS_FORMAT = "nlml-hpe heads onnx 2"
HEADS_INPUT, HEADS_OUTPUTS = "images", ("scores", "boxes", "face_boxes")
"""Input and outputs of the head detector's ONNX file, in order."""
HEADS_FILE = "heads.onnx"
MIN_SCORE = 0.5
"""Of a head that is reported."""
LEAST_PX = 20
"""Longer side of the smallest head that is reported: of a smaller one no pose can be told."""
VIEW_SIDES = (64, 192, 640, 1280)
"""Longer sides of the copies of an image that are looked at: the first three always, which takes a tenth more time than
the third alone; the fourth where the third shows something small."""
_ALWAYS = 3
_SMALL_PX = 28
_HINT = 0.15
"""Score of something small that makes a closer look worth its time."""
_LARGEST_PX = 120
"""Of a copy that is not the smallest: greater heads are those that the smaller copy shows."""
_SAME_HEAD = 0.45
"""Boxes of one kind that overlap by more (intersection over union) are one head's."""
_ALIKE = 0.6
"""Boxes that overlap by more have a part in where the surest of them says that the head is."""
_COVERED, _WITHIN = 0.25, 0.6
"""A head is a known face's where the boxes of their 68 points overlap by more, or where more of the smaller one lies in
the other; and where more than the latter share of the face's lies in the box of the head, if it is no tiny part of it.
"""
_TINY = 0.1
_LOWEST = 0.03
"""Score of a cell that is looked at any further."""
_MULTIPLE = 32
_METADATA = "nlml_hpe"
_INSIDE = Path(__file__).parents[1] / "checkpoint_heads"
PLACE = _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[2] / "checkpoints" / "head_detector"
"""Where the shipped file lies: in the wheel, or beside the package in a checkout."""
Floats = NDArray[np.float64]


class Head(NamedTuple):
    """A head in an image.

    Parameters
    ----------
    box : Box
        Of the whole head, from crown to chin with its ears, without hair, whether it is seen or hidden; left, top,
        right, bottom in pixels.
    face_box : Box
        Of its 68 contour-and-feature points, as of ``Face.given_box``: what the image eye's crop is cut around.
    score : float
        How sure it is, in 0..1.
    """

    box: Box
    face_box: Box
    score: float


class _Seen(NamedTuple):
    """What cells say: ``boxes`` and ``face_boxes`` (n, 4), in pixels, and ``scores`` (n,)."""

    boxes: Floats
    face_boxes: Floats
    scores: Floats


class HeadDetector:
    """The head detector's network, run by onnxruntime on as many threads as OpenCV may use.

    It may be shared by threads.

    Parameters
    ----------
    path : str or Path, optional
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

    def __init__(self, path: str | Path | None = None, providers: Sequence[str] | str = CPU) -> None:
        file = Path(path or PLACE / HEADS_FILE)
        # Its layers are large enough to be shared out, and a session keeps the number of threads that it began with.
        self._open = cache(partial(open_stage, file, HEADS_FORMAT, "HeadTrainer", providers))
        self._open(thread_count())

    def find(self, image: RgbImage, min_score: float = MIN_SCORE) -> list[Head]:
        """Heads in an image, surest first.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            Looked at in copies of 64, 192 and 640 pixels on the longer side, and where the last shows something small,
            in one of 1280.
        min_score : float
            In 0..1.

        Returns
        -------
        list of Head
            In pixels of the image, ``LEAST_PX`` or more on the longer side of the head.

        Raises
        ------
        ValueError
            For other arrays.
        """
        require_rgb(image)
        looks, hinted = [], False
        for view, side in enumerate(VIEW_SIDES):
            if view >= _ALWAYS and not hinted:
                break
            factor = min(1.0, side / max(image.shape[:2]))
            seen = self._look(image, factor)
            longest = (seen.boxes[:, 2:] - seen.boxes[:, :2]).max(axis=1, initial=0)
            hinted = bool(((longest < _SMALL_PX) & (seen.scores >= _HINT)).any())
            kept = (longest < _LARGEST_PX) | (view == 0)
            looks.append(_Seen(seen.boxes[kept] / factor, seen.face_boxes[kept] / factor, seen.scores[kept]))
            if factor == 1.0:
                break
        boxes, face_boxes, scores = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        sure, heads = np.flatnonzero(scores >= min_score), []
        for row in sure[suppressed(boxes[sure], scores[sure])]:
            heads.append(Head(*mean_boxes(boxes, face_boxes, scores, row), float(scores[row])))
        return [head for head in heads if longest_side(head.box) >= LEAST_PX]

    def _look(self, image: RgbImage, factor: float) -> _Seen:
        """What all cells say, in pixels of the copy, that have more than their neighbours."""
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        rows, columns = (-(-length // _MULTIPLE) * _MULTIPLE for length in (height, width))
        padded = np.zeros((rows, columns, 3), dtype=np.uint8)
        padded[:height, :width] = resized(image, factor)
        scores, *boxes = self._open(thread_count()).run(None, {HEADS_INPUT: padded[None]})
        some = scores[0] > _LOWEST
        return _Seen(*(each[0][some].astype(np.float64) for each in (*boxes, scores)))


def open_stage(
    file: Path, form: str, trainer: str, providers: Sequence[str] | str = CPU, threads: int = 1
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
        wrong = "is a folder" if file.is_dir() else "is missing"
        raise ArtifactError(f"{file} {wrong}; name an ONNX file that the stage {trainer} wrote")
    session = open_session(file, providers, threads)
    about = session.get_modelmeta().custom_metadata_map.get(_METADATA, "{}")
    try:
        found = dict(json.loads(about)).get("format")
    except (TypeError, ValueError, RecursionError):
        found = None
    if found != form:
        raise ArtifactError(f"{file}: expected {form!r}, found {found!r}; run {trainer} again")
    return session


def mean_boxes(boxes: Floats, face_boxes: Floats, scores: Floats, row: int) -> tuple[Box, Box]:
    """The means, by their scores, of a head's boxes and those of all that overlap it well: others that are about the
    same head say where it is, too, and together they know better than one.

    Parameters
    ----------
    boxes, face_boxes : float arrays (n, 4)
        Left, top, right, bottom of heads and of their 68 points.
    scores : float array (n,)
        How sure each is.
    row : int
        Which of them.

    Returns
    -------
    Box, Box
        Of the head and of its 68 points.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [2, 0, 12, 10], [20, 0, 30, 10]])
    >>> mean_boxes(boxes, boxes + 1, np.array([0.5, 0.5, 0.9]), 0)
    ((1.0, 0.0, 11.0, 10.0), (2.0, 1.0, 12.0, 11.0))
    """
    alike = overlaps(boxes, boxes[row]) > _ALIKE
    head, face = (np.average(each[alike], axis=0, weights=scores[alike]) for each in (boxes, face_boxes))
    return box_of(head.reshape(2, 2)), box_of(face.reshape(2, 2))


def longest_side(box: Box) -> float:
    """The longer side of a box, in pixels.

    Examples
    --------
    >>> longest_side((0.0, 0.0, 3.0, 5.0))
    5.0
    """
    return max(box[2] - box[0], box[3] - box[1])


def suppressed(boxes: Floats, scores: Floats) -> list[int]:
    """One box of each head, where several were found of it.

    Parameters
    ----------
    boxes : float array (n, 4)
        Left, top, right, bottom.
    scores : float array (n,)
        How sure each is.

    Returns
    -------
    list of int
        Rows of boxes of which no two overlap by more than one head's do, surest first.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
    >>> suppressed(boxes, np.array([0.6, 0.9, 0.7]))
    [1, 2]
    """
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if not kept or overlaps(boxes[kept], boxes[row]).max() <= _SAME_HEAD:
            kept.append(int(row))
    return kept


def uncovered(heads: Sequence[Head], faces: Sequence[Face]) -> list[Head]:
    """Those of the heads that are none of these faces.

    Parameters
    ----------
    heads : sequence of Head
        That were found in an image.
    faces : sequence of Face
        That are known there.

    Returns
    -------
    list of Head
        A head is left out where its box of the 68 points and a face's are of one place, and where a face lies in the
        box of the head.

    Examples
    --------
    >>> one, other = Head((0, 0, 12, 15), (1, 5, 10, 15), 0.9), Head((20, 0, 32, 15), (21, 5, 30, 15), 0.8)
    >>> uncovered([one, other], [Face(None, (1, 6, 12, 16))]) == [other]
    True
    """
    known = np.array([box_of_68(face) for face in faces]).reshape(-1, 4)
    return [head for head in heads if not _is_known(head, known)]


def _is_known(head: Head, known: Floats) -> bool:
    face, whole = np.array(head.face_box), np.array(head.box)
    areas = np.prod(known[:, 2:] - known[:, :2], axis=1)
    least = np.minimum(areas, np.prod(face[2:] - face[:2]))
    same = (overlaps(known, face) > _COVERED) | (shared_areas(known, face) > _WITHIN * least)
    inside = (shared_areas(known, whole) > _WITHIN * areas) & (areas > _TINY * np.prod(whole[2:] - whole[:2]))
    return bool((same | inside).any())
