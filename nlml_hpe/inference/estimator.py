"""``HeadPoseEstimator``: what users import. An image in, one ``HeadPose`` per face out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.detectors import MAX_FACES, detector_for, open_detector
from nlml_hpe.detection.landmarks import FaceLandmarks, LandmarkDetector
from nlml_hpe.files.images import ImageLike, RgbImage, as_rgb
from nlml_hpe.inference.engines import DEFAULT_METHOD, ONNX_FILE, SHIPPED, Engine, Estimates, Method, OnnxEngine
from nlml_hpe.rotation import rotation_from_angles

if TYPE_CHECKING:  # torch is not needed to predict
    from nlml_hpe.model.folder import HeadPoseModel

Backend = Literal["onnx", "torch"]


@dataclass(frozen=True)
class HeadPose:
    """Pose of one face: angles in degrees, ``rotation`` (3, 3) head to camera, and where it was seen.

    ``sigma`` holds the angles' standard deviations in degrees (yaw, pitch, roll) and ``score`` how well the face
    fits the manifold, in (0, 1], a half for an average unseen face in training; both are None where the answer is
    the network's. ``in_range`` says whether all angles lie inside the range the model was trained on.
    ``landmarks`` (N, 3) and ``box`` (left, top, right, bottom) are in pixels.
    """

    yaw: float
    pitch: float
    roll: float
    rotation: NDArray[np.float64]
    sigma: tuple[float, float, float] | None
    in_range: bool
    landmarks: NDArray[np.float64]
    box: tuple[float, float, float, float]
    score: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, without the landmarks."""
        return {
            "yaw": self.yaw,
            "pitch": self.pitch,
            "roll": self.roll,
            "rotation": self.rotation.tolist(),
            "sigma": None if self.sigma is None else list(self.sigma),
            "in_range": self.in_range,
            "box": list(self.box),
            "score": self.score,
        }


class HeadPoseEstimator:
    """Head pose from images. Use as a context manager, or ``close`` when done.

    ``model`` is a model folder, by default the shipped one, or an ``.onnx`` file. ``backend`` "onnx" needs
    onnxruntime alone; "torch" also has the exact inverse without a network, and takes a ``HeadPoseModel``.
    ``detector`` replaces the one that belongs to the model's points (MediaPipe FaceMesh, or face-alignment). With
    ``tracking`` images are the frames of one video. Raises ``ArtifactError`` where the model does not read.
    """

    engine: Engine

    def __init__(
        self,
        model: HeadPoseModel | str | Path = SHIPPED,
        backend: Backend = "onnx",
        detector: LandmarkDetector | None = None,
        max_faces: int = MAX_FACES,
        tracking: bool = False,
    ) -> None:
        self.engine = open_engine(model, backend)
        self.detector = detector or open_detector(
            detector_for(self.engine.point_set), max_faces, self.engine.min_confidence, tracking
        )
        if self.detector.point_set != self.engine.point_set:
            raise ValueError(
                f"the model needs points {self.engine.point_set.name!r}; the detector gives "
                f"{self.detector.point_set.name!r}"
            )

    @classmethod
    def from_pretrained(
        cls, folder: str | Path = SHIPPED, backend: Backend = "onnx", max_faces: int = MAX_FACES
    ) -> HeadPoseEstimator:
        """An estimator of a model folder, by default the shipped one."""
        return cls(folder, backend, max_faces=max_faces)

    def predict(self, image: ImageLike, refine: bool = True) -> list[HeadPose]:
        """Poses of all faces in an image, largest face first; no face is an empty list.

        ``image``: a file, an RGB array (H, W, 3), a PIL image or a torch tensor (3, H, W); see ``images.as_rgb``.
        ``refine`` adds the exact step to the network's answer, and with it error bars; far beyond the range of
        training the network's answer stands. Angles are in the model's named head frame. Raises
        ``ImageReadError`` for a file that is no readable image and ``ValueError`` for an array that is none.
        """
        return self.predict_batch([image], refine)[0]

    def predict_batch(self, images: Iterable[ImageLike], refine: bool = True) -> list[list[HeadPose]]:
        """As ``predict`` for several images; their faces go through the model together."""
        faces = [self.detect(as_rgb(image)) for image in images]
        poses = iter(self.poses([face for found in faces for face in found], "refined" if refine else "network"))
        return [[next(poses) for _ in found] for found in faces]

    def detect(self, image: RgbImage) -> list[FaceLandmarks]:
        """Faces in an RGB uint8 image (H, W, 3), largest first."""
        return self.detector.detect(image)

    def poses(self, faces: list[FaceLandmarks], method: Method = DEFAULT_METHOD) -> list[HeadPose]:
        """Poses of faces whose landmarks are known."""
        if not faces:
            return []
        found = self.engine.estimate(np.stack([face.points for face in faces]), method)
        rotations = rotation_from_angles(found.angles)
        return [self._pose(face, found, rotations[index], index) for index, face in enumerate(faces)]

    def _pose(self, face: FaceLandmarks, found: Estimates, rotation: NDArray[np.float64], index: int) -> HeadPose:
        yaw, pitch, roll = (float(values[index]) for values in found.angles)
        within = zip((yaw, pitch, roll), self.engine.range, strict=True)
        sigma, score = found.sigma[index], float(found.score[index])
        return HeadPose(
            yaw,
            pitch,
            roll,
            rotation,
            (float(sigma[0]), float(sigma[1]), float(sigma[2])) if np.isfinite(sigma).all() else None,
            all(low <= angle <= high for angle, (low, high) in within),
            face.points,
            face.box,
            score if np.isfinite(score) else None,
        )

    def close(self) -> None:
        """Release the detector."""
        self.detector.close()

    def __enter__(self) -> HeadPoseEstimator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_engine(model: HeadPoseModel | str | Path, backend: Backend) -> Engine:
    """The engine of a model, by a backend, which is imported on demand: who runs ONNX needs no torch."""
    if backend not in ("onnx", "torch"):
        raise ValueError(f"unknown backend {backend!r}; expected 'onnx' or 'torch'")
    if isinstance(model, (str, Path)):
        place = Path(model)
        if backend == "onnx":
            return OnnxEngine(place if place.suffix == ".onnx" else place / ONNX_FILE)
    from nlml_hpe.inference.torch_engine import TorchEngine
    from nlml_hpe.model.folder import load_model

    return TorchEngine(load_model(model) if isinstance(model, (str, Path)) else model)
