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

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.regions import Floats, distinct, in_image, letterbox, overlaps, regions_around, warped
from nlml_hpe.detection.weights import DETECTION, LANDMARKS, read_weights
from nlml_hpe.files.images import RgbImage
from nlml_hpe.sessions import CPU, open_session, resolve_providers
from nlml_hpe.threads import Item, Result, begin, idle_threads, thread_count

DETECTION_PX, LANDMARKS_PX = 128, 192
_SAME_FACE = 0.3
"""Candidates that overlap the surest one by more (intersection over union) are merged with it."""
_BATCH = 4
"""Images that go through a network at once on the CPU: those of 32 leave its cache, and take half as long again."""
_BATCH_ELSEWHERE = 32


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
        faces = merged(*candidates(self.raw, self.logits.astype(np.float64), confidence))
        return distinct(regions_of(faces[:max_faces], self.shape))


class FaceMeshNetworks:
    """Both networks, run by onnxruntime.

    Parameters
    ----------
    folder
        Where the ONNX files lie; by default ``weights.default_folder()``.
    threads
        How many batches are worked on at the same time, each on one thread of the CPU; by default
        ``threads.thread_count()``. A network's own layers are not shared out: they are so small that a second thread
        makes a face slower where the cores have other work.
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
        self._threads = (threads or thread_count()) if on_cpu else 1

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
        sure: list[list[Floats]] = [[] for _ in images]
        for (index, _), (points, presence) in zip(wanted, answers, strict=True):
            if presence > confidence:
                sure[index].append(points)
        return sure

    def _landmarks(self, parts: Sequence[tuple[RgbImage, Floats]]) -> list[tuple[Floats, float]]:
        """Landmarks (468, 3) in pixels of each image's region, and how sure it is that there is a face."""
        crops = np.stack([warped(image, region, LANDMARKS_PX, cv2.BORDER_REPLICATE) for image, region in parts])
        return [
            (in_image(points.astype(np.float64), region, LANDMARKS_PX), _sigmoid(float(logit)))
            for (_, region), points, logit in zip(parts, *self._run(LANDMARKS, crops), strict=True)
        ]

    def _in_batches(self, work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """What ``work`` gives for batches of the items, in their order; several at the same time."""
        # Two batches a thread or more, so that one who has other work, too, leaves some to the next. Where no other
        # thread waits for work two go together, which is quicker than one after the other (docs/speed.md).
        least = 1 if min(self._threads, idle_threads()) > 1 else 2
        size = max(least, min(self._batch, len(items) // (2 * self._threads) if self._threads > 1 else len(items)))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        begun = begin(work, parts, self._threads if len(parts) > 1 else 1)
        return list(chain.from_iterable(begun.results()))

    def _run(self, name: str, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if name not in self._sessions:
            raise ValueError("this detector was closed; open another one")
        first, second = self._sessions[name].run(None, {"image": images})
        return first, second

    def close(self) -> None:
        """Give the networks' memory back."""
        self._sessions.clear()


def anchors() -> Floats:
    """Centres (896, 2) of the candidates in 0..1: two for each cell of 8 pixels, six for each of 16."""
    parts = []
    for cells, each in ((DETECTION_PX // 8, 2), (DETECTION_PX // 16, 6)):
        middle = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(middle, middle, indexing="ij")
        parts.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0))
    return np.concatenate(parts)


_ANCHORS = anchors()


def candidates(raw: NDArray[np.floating[Any]], logits: Floats, confidence: float) -> tuple[Floats, Floats]:
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
    values = raw[sure].astype(np.float64) / DETECTION_PX
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


def regions_of(faces: Floats, shape: Sequence[int]) -> Floats:
    """Regions (n, 4) of faces (n, 16) found in the letterbox of an image of this shape."""
    height, width = shape[:2]
    side = max(height, width)
    points = faces.reshape(-1, 8, 2) * side + [(width - side) / 2, (height - side) / 2]
    return regions_around(points[:, 0], points[:, 1], points[:, 2], points[:, 3])


def _sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))
