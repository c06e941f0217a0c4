"""``HeadPoseEstimator``: what users import. An RGB image in, one ``HeadPose`` per face out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nlml_hpe.images import RgbImage, read_image
from nlml_hpe.landmarks import FaceLandmarks, MediaPipeFaceMesh, normalize_landmarks
from nlml_hpe.model_folder import HeadPoseModel, load_model
from nlml_hpe.powell import infer_powell
from nlml_hpe.rotations import Angles, rotation_from_angles

Method = Literal["network", "exact", "refined", "powell"]
MAX_FACES = 16


@dataclass(frozen=True)
class HeadPose:
    """Pose of one face: angles in degrees, ``rotation`` (3, 3) head to camera, and where it was seen.

    ``sigma`` holds the angles' standard deviations in degrees (yaw, pitch, roll), None for the bare
    network; ``in_range`` says whether all angles lie inside the range the model was trained on.
    """

    yaw: float
    pitch: float
    roll: float
    rotation: NDArray[np.float64]
    sigma: tuple[float, float, float] | None
    in_range: bool
    landmarks: NDArray[np.float64]
    box: tuple[float, float, float, float]

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
        }


class HeadPoseEstimator:
    """Head pose from images with a model folder. Use as a context manager, or ``close`` when done."""

    def __init__(self, model: HeadPoseModel, max_faces: int = MAX_FACES) -> None:
        self.model = model
        self._detector = MediaPipeFaceMesh(max_faces, model.min_confidence)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> HeadPoseEstimator:
        """An estimator of a model folder. Raises ``ArtifactError`` where the folder does not read."""
        return cls(load_model(folder))

    def predict(self, image: RgbImage | str | Path, method: Method = "network") -> list[HeadPose]:
        """Poses of all faces in an RGB uint8 image (H, W, 3) or an image file, largest face first.

        No face is an empty list. ``method``: the network, the exact inverse of the manifold, the
        exact inverse started from the network (refined), or the slow reference (powell). Raises
        ``ImageReadError`` for a file that is no readable image and ``ValueError`` for an array that
        is no RGB uint8 image.
        """
        faces = self.detect(read_image(image) if isinstance(image, (str, Path)) else image)
        return self.poses(faces, method) if faces else []

    def detect(self, image: RgbImage) -> list[FaceLandmarks]:
        """Faces in an RGB uint8 image (H, W, 3), largest first."""
        return self._detector.detect(image)

    def poses(self, faces: list[FaceLandmarks], method: Method = "network") -> list[HeadPose]:
        """Poses of faces whose landmarks are known."""
        features = normalize_landmarks(
            np.stack([face.points for face in faces]), self.model.point_set, self.model.normalization
        )
        angles, sigma = self.angles(features, method)
        rotations = rotation_from_angles(angles)
        return [
            _head_pose(
                face,
                Angles(*(a[i] for a in angles)),
                rotations[i],
                None if sigma is None else sigma[i],
                self._in_range(angles, i),
            )
            for i, face in enumerate(faces)
        ]

    def angles(self, features: NDArray[np.float32], method: Method) -> tuple[Angles, NDArray[np.float64] | None]:
        """Angles (N,) in degrees of features (N, F), and their standard deviations (N, 3) where known."""
        if method == "exact":
            found = self.model.manifold.infer(features)
            return found.angles, found.sigma
        if method == "powell":
            slow = [infer_powell(self.model.manifold, feature) for feature in features]
            return Angles.from_columns(np.reshape([(f.yaw, f.pitch, f.roll) for f in slow], (-1, 3))), None
        if self.model.network is None:
            raise ValueError(f"this model has no network, which method {method!r} needs; use 'exact' or 'powell'")
        with torch.inference_mode():
            columns = self.model.network(torch.from_numpy(np.asarray(features, dtype=np.float32))).double().numpy()
        angles = Angles.from_columns(columns)
        if method == "network":
            return angles, None
        found = self.model.manifold.infer(features, seeds=angles)
        return found.angles, found.sigma

    def _in_range(self, angles: Angles, index: int) -> bool:
        axes = self.model.manifold.grid.axes
        return all(axis[0] <= values[index] <= axis[-1] for axis, values in zip(axes, angles, strict=True))

    def close(self) -> None:
        """Release the detector."""
        self._detector.close()

    def __enter__(self) -> HeadPoseEstimator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _head_pose(
    face: FaceLandmarks,
    angles: Angles,
    rotation: NDArray[np.float64],
    sigma: NDArray[np.float64] | None,
    in_range: bool,
) -> HeadPose:
    deviations = None if sigma is None else (float(sigma[0]), float(sigma[1]), float(sigma[2]))
    return HeadPose(
        float(angles.yaw),
        float(angles.pitch),
        float(angles.roll),
        rotation,
        deviations,
        in_range,
        face.points,
        face.box,
    )
