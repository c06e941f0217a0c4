"""MediaPipe's own detectors: FaceMesh, and Tasks' FaceLandmarker; both need mediapipe itself."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import FACEMESH, MIN_CONFIDENCE
from nlml_hpe.detection.places import Points
from nlml_hpe.detection.search import TRACKING_CONFIDENCE, CascadeDetector, DetectorError
from nlml_hpe.extras import how_to_install
from nlml_hpe.files.images import RgbImage

_MAX_BUNDLE_BYTES = 64 * 1024 * 1024
TASKS_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
TASKS_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)


class MediaPipeFaceMesh(CascadeDetector):
    """FaceMesh by MediaPipe itself, up to 0.10.21: what ``FaceMeshOnnx`` is compared with.

    Raises ``DetectorError`` where mediapipe is not installed, or is one that no longer carries FaceMesh.
    """

    point_set, package = FACEMESH, "mediapipe"

    def __init__(self, max_faces: int = 1, min_confidence: float = MIN_CONFIDENCE, tracking: bool = False) -> None:
        super().__init__(max_faces, min_confidence, tracking)
        self._meshes: dict[tuple[int, float], Any] = {}
        self._mesh(max_faces, min_confidence)

    def _mesh(self, max_faces: int, confidence: float) -> Any:
        """The graph for one number of faces and threshold, made when it is first needed."""
        try:
            from mediapipe.python.solutions.face_mesh import FaceMesh
        except ImportError as error:
            raise DetectorError(
                f"the detector 'mediapipe_facemesh' needs mediapipe up to 0.10.21 ({error}): use 'facemesh_onnx', "
                f"which gives the same points without it, or {how_to_install('mediapipe')} (Python 3.11 or 3.12)"
            ) from error
        if (max_faces, confidence) not in self._meshes:
            self._meshes[max_faces, confidence] = FaceMesh(
                static_image_mode=not self._tracking,
                max_num_faces=max_faces,
                min_detection_confidence=confidence,
                # Despite its name also the threshold on "this is a face" of the landmark network itself. While
                # faces are followed it is what ends a track that has slipped off its face, at a cut for instance.
                min_tracking_confidence=max(confidence, TRACKING_CONFIDENCE) if self._tracking else confidence,
            )
        return self._meshes[max_faces, confidence]

    def _find(self, image: RgbImage, max_faces: int, confidence: float) -> Points:
        result = self._mesh(max_faces, confidence).process(image)
        return [_pixels(face.landmark, image) for face in result.multi_face_landmarks or []]

    def close(self) -> None:
        """Release the detector's graphs."""
        while self._meshes:
            self._meshes.popitem()[1].close()


class MediaPipeTasks(CascadeDetector):
    """MediaPipe's FaceLandmarker from a ``.task`` bundle, which newer wheels need; its first 468 points.

    ``bundle`` is by default the one in the user's cache. Raises ``DetectorError`` where it is missing or is not the
    file that it should be, by its SHA-256, and where mediapipe is not installed.
    """

    point_set, package, options = FACEMESH, "mediapipe", ("bundle",)

    def __init__(
        self,
        max_faces: int = 1,
        min_confidence: float = MIN_CONFIDENCE,
        tracking: bool = False,
        bundle: Path | None = None,
    ) -> None:
        super().__init__(max_faces, min_confidence, tracking)
        self._bundle = _checked(bundle or _cached_bundle())
        if importlib.util.find_spec("mediapipe") is None:
            raise DetectorError(f"the detector 'mediapipe_tasks' needs mediapipe: {how_to_install('mediapipe')}")
        self._landmarkers: dict[tuple[int, float], Any] = {}

    def _landmarker(self, max_faces: int, confidence: float) -> Any:
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions

        if (max_faces, confidence) not in self._landmarkers:
            options = FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=self._bundle),
                num_faces=max_faces,
                min_face_detection_confidence=confidence,
                min_face_presence_confidence=confidence,
            )
            self._landmarkers[max_faces, confidence] = FaceLandmarker.create_from_options(options)
        return self._landmarkers[max_faces, confidence]

    def _find(self, image: RgbImage, max_faces: int, confidence: float) -> Points:
        from mediapipe import Image, ImageFormat

        found = self._landmarker(max_faces, confidence).detect(Image(image_format=ImageFormat.SRGB, data=image))
        return [_pixels(face[: FACEMESH.n_points], image) for face in found.face_landmarks]

    def close(self) -> None:
        """Release the landmarkers."""
        while self._landmarkers:
            self._landmarkers.popitem()[1].close()


def _pixels(marks: Any, image: RgbImage) -> NDArray[np.float64]:
    """MediaPipe's landmarks in pixels; z shares the scale of x (MediaPipe's definition), hence the width twice."""
    height, width = image.shape[:2]
    return np.array([(p.x, p.y, p.z) for p in marks], dtype=np.float64) * [width, height, width]


def _cached_bundle() -> Path:
    """Where a bundle lies that nobody names; asked for when it is needed, as not every user has a home folder."""
    from platformdirs import user_cache_path

    return user_cache_path("nlml_hpe") / "face_landmarker.task"


def _checked(bundle: Path) -> bytes:
    if not bundle.is_file():
        raise DetectorError(f"{bundle} is missing; get it from {TASKS_URL}")
    content = bundle.read_bytes() if bundle.stat().st_size < _MAX_BUNDLE_BYTES else b""
    if hashlib.sha256(content).hexdigest() != TASKS_SHA256:
        raise DetectorError(f"{bundle} is not the bundle that is known here (SHA-256 differs); get it from {TASKS_URL}")
    return content
