"""Landmark detectors by name: FaceMesh by onnxruntime or by MediaPipe, MediaPipe Tasks, face-alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.facemesh import Detection, FaceMeshNetworks
from nlml_hpe.detection.landmarks import FACEMESH, IBUG68, MIN_CONFIDENCE, PointSet, box_of_68
from nlml_hpe.detection.looks import Look, TellPlaces, look_again
from nlml_hpe.detection.mediapipe_detectors import MediaPipeFaceMesh, MediaPipeTasks
from nlml_hpe.detection.places import Points, beside, overlap
from nlml_hpe.detection.regions import STILL, Floats, away_from, box_of_region, distinct, drift, regions_from_landmarks
from nlml_hpe.detection.search import (
    GIVEN_BOX_CONFIDENCE,
    TRACKING_CONFIDENCE,
    CascadeDetector,
    DetectorError,
    faces_of,
    reduced_copies,
)
from nlml_hpe.extras import how_to_install
from nlml_hpe.face import Box, Face, box_of
from nlml_hpe.files.images import RgbImage
from nlml_hpe.sessions import CPU, ProviderError, resolve_providers

DetectorName = Literal["facemesh_onnx", "mediapipe_facemesh", "mediapipe_tasks", "face_alignment"]
DEFAULT_DETECTOR: DetectorName = "facemesh_onnx"
MAX_FACES = 100
"""In one image, where nobody says otherwise: more than a photograph of a group shows."""
_CALM_FRAMES, _SEARCH_EVERY = 25, 5
"""In a video: after so many frames with the same faces only each of so many is searched for further ones; none where
there is no room for them, unless a face came or moved quickly in the frame before."""
_BOX_CONFIDENCE = 0.5
"""Of a face of which no landmarks are needed; 485 of the 492 faces of aflw2000_dev within 99 degrees have so much."""

_SAME_PLACE = 0.4
"""Boxes that overlap by as much (intersection over union) are of one face: so do those of all 464 faces that whole
images of aflw2000_dev show."""


class FaceMeshOnnx(CascadeDetector):
    """FaceMesh by onnxruntime alone: MediaPipe's two networks and steps without mediapipe, on every Python.

    It finds the faces that MediaPipe finds, at the same points to a share of a pixel: ``docs/inference.md`` has how
    far they are apart, ``benchmarks/facemesh.py`` measures it.
    ``folder`` holds the two ONNX files; by default ``weights.default_folder()``. ``providers`` says what computes, as
    for ``sessions.resolve_providers``. Raises ``ArtifactError`` where the files are missing or damaged, with the
    command that makes them, and ``ProviderError`` where a provider is not there.
    """

    point_set, options = FACEMESH, ("providers",)

    def __init__(
        self,
        max_faces: int = 1,
        min_confidence: float = MIN_CONFIDENCE,
        tracking: bool = False,
        folder: Path | None = None,
        providers: Sequence[str] | str = CPU,
    ) -> None:
        super().__init__(max_faces, min_confidence, tracking)
        self._networks = FaceMeshNetworks(folder, providers=providers)
        self.forget()

    def forget(self) -> None:
        """With ``tracking``: the next image begins another video or scene."""
        self._followed = np.empty((0, 4))
        """Regions (n, 4) in which the last frame's faces are looked for."""
        self._calm = 0
        """Frames of a video since the last one in which faces came, went or moved quickly, or one had no landmarks."""

    def _find(self, image: RgbImage, max_faces: int, confidence: float) -> Points:
        return self._find_each([image], max_faces, confidence)[0]

    def _find_each(self, images: Sequence[RgbImage], max_faces: int, confidence: float) -> list[Points]:
        return self._networks.find(images, max_faces, confidence)

    def _next_regions(self, image: RgbImage) -> tuple[Floats, Detection | None]:
        """Where a video's next frame is looked at, and what the detection network says of it, where it is asked."""
        regions, detection = self._followed, None
        # Without room, too, after a face moved quickly: it leaves its region, and is found anew where it is now.
        is_searched = len(regions) < self._max_faces or self._calm == 0
        if is_searched and (self._calm < _CALM_FRAMES or self._calm % _SEARCH_EVERY == 0):
            (detection,) = self._networks.detections([image])
            # Where a face is followed and found anew the last region counts: the one that is followed.
            fresh = detection.regions(self._max_faces + len(self._followed), self._min_confidence)
            self._followed = distinct(self._followed)
            # More than there is room for, surest last: followed faces that moved quickly may be among them.
            regions = np.concatenate([fresh[away_from(fresh, self._followed)][::-1], self._followed])
        return regions, detection

    def _followed_in(self, image: RgbImage, regions: Floats) -> Points:
        """Landmarks in those regions of a video's next frame that show a face, which are followed from now on."""
        confidence = max(self._min_confidence, TRACKING_CONFIDENCE)
        # One after the other, so that it is known which region shows which face; those that are followed come last.
        shown = self._networks.landmarks([image] * len(regions), list(regions[:, None]), confidence)
        seen = [row for row, some in enumerate(shown) if some]
        found = [shown[row][0] for row in seen]
        onward = regions_from_landmarks(np.array(found).reshape(-1, FACEMESH.n_points, 3))
        is_new = np.array(seen, dtype=np.intp) < len(regions) - len(self._followed)
        drifts = drift(regions[seen], onward)
        kept = _one_of_each([box_of(points) for points in found], is_new, drifts)[-self._max_faces :]
        is_calm = len(kept) == len(self._followed) > 0 and not (is_new[kept] | (drifts[kept] > STILL)).any()
        self._calm = self._calm + 1 if is_calm else 0
        self._followed = onward[kept]
        return [found[row] for row in kept]

    def detect_and_place(
        self, images: Sequence[RgbImage], tell: TellPlaces | None = None
    ) -> tuple[list[list[Face]], list[list[Box]]]:
        """What ``detect_batch`` gives, and where else the detection network alone places faces.

        So faces are known, too, whose landmarks the other network does not see.

        Parameters
        ----------
        images : sequence of RGB uint8 arrays (H, W, 3)
            With ``tracking`` a video's next frames.
        tell : callable, optional
            Told where faces are, before their landmarks are looked for.

        Returns
        -------
        faces : list of list of Face
            Of each image, largest first; with the box that was told of them.
        boxes : list of list of Box
            Of each image that shows fewer faces than ``max_faces``, surest first: boxes of the 68 contour-and-feature
            points, those of ``faces`` among them. With ``tracking`` of those frames alone that are searched for
            further faces.

        Raises
        ------
        ValueError
            As ``detect`` does.
        """
        reduced = reduced_copies(images)
        shown, detections = self._seen(images, reduced, tell)
        faces = self._completed(images, reduced, shown)
        boxes: list[list[Box]] = [[] for _ in images]
        for index in (index for index, known in enumerate(faces) if len(known) < self._max_faces):
            if detections[index] is None and self._calm:
                continue  # the same faces as in the frame before, which was not searched for further ones
            detection = detections[index] or self._networks.detections([np.ascontiguousarray(reduced[index][0])])[0]
            boxes[index] = _boxes_of(detection.regions(self._max_faces, _BOX_CONFIDENCE), reduced[index][1])
            if beside(boxes[index], faces[index]):
                self._calm = 0
        return faces, boxes

    def _shown(self, images: Sequence[RgbImage], reduced: Sequence[tuple[RgbImage, float]]) -> list[list[Face]]:
        return self._seen(images, reduced, None)[0]

    def _seen(
        self, images: Sequence[RgbImage], reduced: Sequence[tuple[RgbImage, float]], tell: TellPlaces | None
    ) -> tuple[list[list[Face]], Sequence[Detection | None]]:
        """Faces of whole images, by copies of them, and what the detection network says of each, where it is asked."""
        copies = [np.ascontiguousarray(copy) for copy, _ in reduced]
        boxes: list[list[Box]] = []

        def told(index: int, regions: Floats) -> Floats:
            boxes.append(_boxes_of(regions, reduced[index][1]))
            if tell is not None:
                tell(images[index], boxes[index])
            return regions

        points: list[Points] = []
        detections: list[Detection | None] = []
        if self._tracking:
            for index, copy in enumerate(copies):
                regions, detection = self._next_regions(copy)
                points.append(self._followed_in(copy, told(index, regions)))
                detections.append(detection)
        else:
            said = self._networks.detections(copies)
            found = [detection.regions(self._max_faces, self._min_confidence) for detection in said]
            each = [told(index, regions) for index, regions in enumerate(found)]
            points, detections = self._networks.landmarks(copies, each, self._min_confidence), [*said]
        return [
            [_placed(face, some) for face in faces_of(marks, "whole", image, factor)]
            for image, (_, factor), marks, some in zip(images, reduced, points, boxes, strict=True)
        ], detections

    def look_again(self, faces: Sequence[Face], looks: Sequence[Look]) -> list[Face]:
        """The faces with the landmarks of further looks at them; see ``looks.look_again``."""
        if not looks or not faces:
            return list(faces)
        # That there is a face is known, as in an annotated box.
        return look_again(self._networks, faces, looks, GIVEN_BOX_CONFIDENCE)

    def close(self) -> None:
        """Give the networks' memory back."""
        self._networks.close()


def _one_of_each(boxes: Sequence[Box], is_new: NDArray[np.bool_], drifts: Floats) -> list[int]:
    """Rows of a video's faces, one of each that was both followed and found anew: the one whose region drifted less.

    Those that are new come first; one that was followed stays in its place, whichever of its rows that is.
    A face that moves quickly leaves the region in which it is followed, and its landmarks lie astray there.
    """
    kept = list(range(len(boxes)))
    for new in np.flatnonzero(is_new):
        for known in np.flatnonzero(~is_new):
            if new in kept and known in kept and overlap(boxes[new], boxes[known]) >= _SAME_PLACE:
                kept.remove(new)
                if drifts[new] < drifts[known]:
                    kept[kept.index(known)] = new
    return kept


def _boxes_of(regions: Floats, factor: float) -> list[Box]:
    """Boxes of the 68 points, in pixels of an image, of regions (n, 4) of a copy that is ``factor`` times as large."""
    return [box_of_region(region) for region in regions / [factor, factor, factor, 1.0]]


def _placed(face: Face, boxes: Sequence[Box]) -> Face:
    """The face with the box that was told of it: the one that it overlaps most, if it is of the same face."""
    own = box_of_68(face)
    box = max(boxes, key=partial(overlap, own), default=None)
    return face if box is None or overlap(own, box) < _SAME_PLACE else replace(face, placed_box=box)


class FaceAlignment(CascadeDetector):
    """The 68 3D points of face-alignment (Bulat & Tzimiropoulos 2017); its weights are fetched by that package.

    A model of its own must be trained on these points (``landmarks: {detector: face_alignment}``). Needs the train
    extra and ``pip install --no-deps face-alignment`` (its OpenCV would overwrite ours). Raises ``DetectorError``
    where it, or what it needs, is not installed.
    """

    point_set, package = IBUG68, "face-alignment"

    def __init__(self, max_faces: int = 1, min_confidence: float = MIN_CONFIDENCE, tracking: bool = False) -> None:
        super().__init__(max_faces, min_confidence, tracking)
        try:
            import face_alignment
        except ImportError as error:
            raise DetectorError(
                f"the detector 'face_alignment' is not installed ({error}): pip install --no-deps face-alignment, and "
                f"for what that needs {how_to_install('train')}"
            ) from error
        # Its detector's own threshold is the lowest that is asked for here; ours is applied to its scores.
        settings = {"filter_threshold": GIVEN_BOX_CONFIDENCE}
        kind = face_alignment.LandmarksType.THREE_D
        self._network = face_alignment.FaceAlignment(kind, device="cpu", compile=False, face_detector_kwargs=settings)

    def _find(self, image: RgbImage, max_faces: int, confidence: float) -> Points:
        boxes = self._network.face_detector.detect_from_image(image.copy())
        sure = sorted((box for box in boxes if box[-1] >= confidence), key=lambda box: -box[-1])[:max_faces]
        found = self._network.get_landmarks_from_image(image, sure) if sure else []
        return [np.asarray(points, dtype=np.float64) for points in found]

    def close(self) -> None:
        """There is nothing to release."""


DETECTORS: dict[DetectorName, type[CascadeDetector]] = {
    "facemesh_onnx": FaceMeshOnnx,
    "mediapipe_facemesh": MediaPipeFaceMesh,
    "mediapipe_tasks": MediaPipeTasks,
    "face_alignment": FaceAlignment,
}


def open_detector(
    name: DetectorName,
    max_faces: int = 1,
    min_confidence: float = MIN_CONFIDENCE,
    tracking: bool = False,
    bundle: Path | None = None,
    providers: Sequence[str] | str = CPU,
) -> CascadeDetector:
    """The detector of this name. Use it as a context manager, or call ``close`` when done.

    Parameters
    ----------
    name : str
        "facemesh_onnx", "mediapipe_facemesh", "mediapipe_tasks" or "face_alignment".
    max_faces : int
        At most so many faces are found in an image; 1 or more.
    min_confidence : float
        How sure the detector must be of a face, in 0..1.
    tracking : bool
        Images are the frames of one video, in order.
    bundle : Path, optional
        MediaPipe's ``.task`` file; for "mediapipe_tasks" alone.
    providers : sequence of str, or str
        What computes, as for ``sessions.resolve_providers``; for "facemesh_onnx" alone.

    Returns
    -------
    CascadeDetector
        Finds the landmarks of its ``point_set``.

    Raises
    ------
    DetectorError
        For another name, where the detector's own package is not installed, and where the ``bundle`` is missing or not
        the one that is known here.
    ArtifactError
        Where its files are missing or damaged.
    ProviderError
        Where a provider is not there, or is asked of a detector that has no choice.
    ValueError
        For a ``max_faces`` below 1, and for a ``min_confidence`` beyond 0..1.

    Examples
    --------
    >>> with open_detector("facemesh_onnx") as detector:
    ...     detector.point_set.name, detector.detect(np.zeros((64, 64, 3), dtype=np.uint8))
    ('facemesh468', [])
    """
    if name not in DETECTORS:
        raise DetectorError(f"unknown detector {name!r}; expected one of {sorted(DETECTORS)}")
    kind, options = DETECTORS[name], {"bundle": bundle, "providers": providers}
    if "providers" not in kind.options and resolve_providers(providers) != resolve_providers(CPU):
        raise ProviderError(f"the detector {name!r} has no choice of providers; use 'facemesh_onnx'")
    return kind(max_faces, min_confidence, tracking, **{option: options[option] for option in kind.options})


def open_detector_for(
    points: PointSet,
    min_confidence: float = MIN_CONFIDENCE,
    max_faces: int = MAX_FACES,
    tracking: bool = False,
    providers: Sequence[str] | str = CPU,
) -> CascadeDetector:
    """The detector by default of a model that was trained on these points.

    Parameters
    ----------
    points : PointSet
        What the model's features are made of.
    min_confidence, max_faces, tracking, providers
        As of ``open_detector``.

    Returns
    -------
    CascadeDetector
        Finds these points.

    Raises
    ------
    DetectorError, ArtifactError, ProviderError
        As ``open_detector`` does.

    Examples
    --------
    >>> with open_detector_for(FACEMESH) as detector:
    ...     detector.point_set.name
    'facemesh468'
    """
    name: DetectorName = "face_alignment" if points == IBUG68 else DEFAULT_DETECTOR
    return open_detector(name, max_faces, min_confidence, tracking, providers=providers)
