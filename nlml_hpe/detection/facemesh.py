"""FaceMesh without mediapipe: face detection, region, landmarks, in batches over images and faces.

The steps are those of MediaPipe's own graph (``face_landmark_front_cpu``), with the same two networks, so that a model
trained on its points sees the same ones:

1. The image in a square of 128 pixels, black beside it; the detection network gives 896 candidates.
2. Candidates that overlap are merged, weighted by their scores.
3. A square region, 1.5 times the face's box, turned so that the eyes lie level; faces of the same region count once.
4. The region in 192 pixels; the landmark network gives 468 points and whether there is a face.
5. Points back in the image's pixels; z in the same unit as x.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.detection.weights import DETECTION, LANDMARKS, read_weights
from nlml_hpe.face import Box
from nlml_hpe.files.images import RgbImage
from nlml_hpe.sessions import CPU, open_session, resolve_providers

DETECTION_PX, LANDMARKS_PX = 128, 192
REGION = 1.5
"""Side of a region in the longer sides of the face's box."""
_SMALLER, _LOWER = 0.965, 0.055
"""Side of the box of the 68 points, and how far below the detection network's its middle lies, in that one's sides."""
_SAME_FACE = 0.3
"""Candidates that overlap the surest one by more (intersection over union) are merged with it."""
_SAME_REGION = 0.5
_BATCH = 4
"""Images that go through a network at once on the CPU: those of 32 leave its cache, and take half as long again."""
_BATCH_ELSEWHERE = 32
Floats = NDArray[np.float64]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Detection(NamedTuple):
    """What the detection network says of one image, before any threshold.

    Parameters
    ----------
    raw : float32 array (896, 16)
        The network's numbers for each candidate; ``candidates`` reads them.
    logits : float32 array (896,)
        How sure it is of each.
    shape : sequence of int
        Of the image.
    """

    raw: NDArray[np.float32]
    logits: NDArray[np.float32]
    shape: Sequence[int]

    def regions(self, max_faces: int, confidence: float) -> Floats:
        """Regions (n, 4) of the faces, surest first: centre x, y, side in pixels, turn in radians."""
        faces = merged(*candidates(self.raw.astype(np.float64), self.logits.astype(np.float64), confidence))
        return distinct(regions_of(faces[:max_faces], self.shape))


class FaceMeshNetworks:
    """Both networks, run by onnxruntime.

    Parameters
    ----------
    folder
        Where the ONNX files lie; by default ``weights.default_folder()``.
    threads
        How many batches are worked on at the same time, each on one thread of the CPU; by default as many as OpenCV may
        use here, which is one in worker processes. A network's own layers are not shared out: they are so small that
        a second thread makes a face slower where the cores have other work.
    providers
        What computes, as for ``sessions.resolve_providers``.

    Raises
    ------
    ArtifactError
        As ``weights.read_weights``.
    ProviderError
        Where a provider is not there.
    """

    def __init__(
        self, folder: Path | None = None, threads: int | None = None, providers: Sequence[str] | str = CPU
    ) -> None:
        contents = read_weights(folder)
        self._sessions = {name: open_session(content, providers, threads=1) for name, content in contents.items()}
        on_cpu = resolve_providers(providers) == resolve_providers(CPU)
        self._batch = _BATCH if on_cpu else _BATCH_ELSEWHERE
        # Where OpenCV leaves its threads to the system, it names a number beyond all processors.
        own = max(1, min(cv2.getNumThreads(), os.cpu_count() or 1))
        self._threads = (threads or own) if on_cpu else 1
        self._pool: ThreadPoolExecutor | None = None

    def find(self, images: Sequence[RgbImage], max_faces: int, confidence: float) -> list[list[Floats]]:
        """Landmarks of faces in images.

        Parameters
        ----------
        images : sequence of RGB uint8 arrays (H, W, 3)
            Of any sizes.
        max_faces : int
            At most so many of each image.
        confidence : float
            In 0..1, the threshold of both networks.

        Returns
        -------
        list of lists of float arrays (468, 3)
            Of each image, in pixels and image axes.
        """
        regions = [detection.regions(max_faces, confidence) for detection in self.detections(images)]
        return self.landmarks(images, regions, confidence)

    def detections(self, images: Sequence[RgbImage]) -> list[Detection]:
        """What the detection network says of each RGB uint8 image (H, W, 3)."""
        return self._in_batches(self._detections, images)

    def _detections(self, images: Sequence[RgbImage]) -> list[Detection]:
        squares = np.stack([warped(image, letterbox(image), DETECTION_PX, cv2.BORDER_CONSTANT) for image in images])
        answers = zip(images, *self._run(DETECTION, squares), strict=True)
        return [Detection(raw, logits, image.shape) for image, raw, logits in answers]

    def landmarks(self, images: Sequence[RgbImage], regions: Sequence[Floats], confidence: float) -> list[list[Floats]]:
        """Landmarks in regions of images.

        Parameters
        ----------
        images : sequence of RGB uint8 arrays (H, W, 3)
            Of any sizes.
        regions : sequence of float arrays (n, 4)
            Of each image, as ``Detection.regions`` has them.
        confidence : float
            How sure the landmark network must be of a face, in 0..1.

        Returns
        -------
        list of lists of float arrays (468, 3)
            Of those regions of each image that show a face, in pixels of the image.
        """
        wanted = [(index, region) for index, some in enumerate(regions) for region in some]
        answers = self._in_batches(self._landmarks, [(images[index], region) for index, region in wanted])
        found: list[list[Floats]] = [[] for _ in images]
        for (index, _), (points, presence) in zip(wanted, answers, strict=True):
            if presence > confidence:
                found[index].append(points)
        return found

    def _landmarks(self, parts: Sequence[tuple[RgbImage, Floats]]) -> list[tuple[Floats, float]]:
        """Landmarks (468, 3) in pixels of each image's region, and how sure it is that there is a face."""
        crops = np.stack([warped(image, region, LANDMARKS_PX, cv2.BORDER_REPLICATE) for image, region in parts])
        return [
            (in_image(points.astype(np.float64), region), _sigmoid(float(logit)))
            for (_, region), points, logit in zip(parts, *self._run(LANDMARKS, crops), strict=True)
        ]

    def _in_batches(self, work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """What ``work`` gives for batches of the items, in their order; several at the same time."""
        size = max(1, min(self._batch, -(-len(items) // self._threads)))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        if len(parts) < 2 or self._threads == 1:
            done: Iterable[list[Result]] = map(work, parts)
        else:
            self._pool = self._pool or ThreadPoolExecutor(self._threads, "facemesh")
            done = self._pool.map(work, parts)
        return list(chain.from_iterable(done))

    def _run(self, name: str, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if name not in self._sessions:
            raise ValueError("this detector was closed; open another one")
        first, second = self._sessions[name].run(None, {"image": images})
        return first, second

    def close(self) -> None:
        """Give the networks' memory and threads back."""
        self._sessions.clear()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


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
    corners = cv2.boxPoints(((x, y), (side, side), float(np.degrees(turn))))
    target = np.array([[0, size], [0, 0], [size, 0], [size, size]], dtype=np.float32)
    projection = cv2.getPerspectiveTransform(corners, target)
    made = cv2.warpPerspective(image, projection, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(made, dtype=np.uint8)


def anchors() -> Floats:
    """Centres (896, 2) of the candidates in 0..1: two for each cell of 8 pixels, six for each of 16."""
    parts = []
    for cells, each in ((DETECTION_PX // 8, 2), (DETECTION_PX // 16, 6)):
        middle = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(middle, middle, indexing="ij")
        parts.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0))
    return np.concatenate(parts)


_ANCHORS = anchors()


def candidates(raw: Floats, logits: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Candidates above the threshold, of what the detection network gives.

    Parameters
    ----------
    raw : float array (cells, 16)
        Middle and sides of boxes, then keypoints, in pixels of the square; places from each cell's middle.
    logits : float array (cells,)
        Of the scores.
    confidence : float
        Least score, in 0..1.

    Returns
    -------
    corners and keypoints : float array (n, 16)
        In shares of the square: left, top, right, bottom, then x and y of six keypoints; the first two are the eyes.
    scores : float array (n,)
        In 0..1.
    """
    # MediaPipe clips at 100, where float32 has long been one.
    scores = _sigmoid(np.clip(logits, -100, 100))
    sure = scores >= confidence
    values = raw[sure] / DETECTION_PX
    centre = values[:, :2] + _ANCHORS[sure]
    half = values[:, 2:4] / 2
    keypoints = values[:, 4:].reshape(-1, 6, 2) + _ANCHORS[sure][:, None]
    return np.concatenate([centre - half, centre + half, keypoints.reshape(-1, 12)], axis=1), scores[sure]


def merged(values: Floats, scores: Floats) -> Floats:
    """Weighted non-maximum suppression: one row of ``candidates`` for each face, surest first."""
    order = np.argsort(-scores, kind="stable")
    values, scores = values[order], scores[order]
    found = []
    while len(values):
        same = overlaps(values[:, :4], values[0, :4]) > _SAME_FACE
        # A box without area overlaps nothing, not even itself; it is no face.
        if not same[0]:
            values, scores = values[1:], scores[1:]
            continue
        found.append((values[same] * scores[same, None]).sum(axis=0) / scores[same].sum())
        values, scores = values[~same], scores[~same]
    return np.array(found).reshape(-1, 16)


def overlaps(boxes: Floats, box: Floats) -> Floats:
    """Intersection over union (n,) of boxes (n, 4) with one (4,)."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    union = areas + np.prod(np.maximum(box[2:] - box[:2], 0)) - shared
    return np.asarray(shared / np.maximum(union, 1e-12))


def regions_of(faces: Floats, shape: Sequence[int]) -> Floats:
    """Regions (n, 4) of faces (n, 16) found in the letterbox of an image of this shape."""
    height, width = shape[:2]
    side = max(height, width)
    points = faces.reshape(-1, 8, 2) * side + [(width - side) / 2, (height - side) / 2]
    return _regions(points[:, 0], points[:, 1], points[:, 2], points[:, 3])


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


def regions_from_landmarks(points: Floats) -> Floats:
    """Regions (n, 4) in the next frame of faces whose landmarks (n, 468, 3) in this one are known."""
    low, high = points[..., :2].min(axis=1), points[..., :2].max(axis=1)
    first, second = FACEMESH.eye_corners
    return _regions(low, high, points[:, first, :2], points[:, second, :2])


def _regions(low: Floats, high: Floats, first_eye: Floats, second_eye: Floats) -> Floats:
    across = second_eye - first_eye
    side = REGION * (high - low).max(axis=1, initial=0.0)
    turn = np.arctan2(across[:, 1], across[:, 0])
    return np.concatenate([(low + high) / 2, side[:, None], turn[:, None]], axis=1)


def distinct(regions: Floats) -> Floats:
    """Of regions of the same place the last one."""
    kept: list[Floats] = []
    for region in regions:
        kept = [other for other in kept if overlaps(_upright(other)[None], _upright(region))[0] <= _SAME_REGION]
        kept.append(region)
    return np.array(kept).reshape(-1, 4)


def _upright(region: Floats) -> Floats:
    return np.concatenate([region[:2] - region[2] / 2, region[:2] + region[2] / 2])


def in_image(points: Floats, region: Floats, size: int = LANDMARKS_PX) -> Floats:
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
    x, y, side, turn = region
    shares = points / size
    right, down = (shares[:, :2] - 0.5).T
    cos, sin = np.cos(turn), np.sin(turn)
    placed = np.stack([cos * right - sin * down, sin * right + cos * down, shares[:, 2]], axis=1)
    return np.asarray(placed * side + [x, y, 0.0])


def _sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))
