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
from nlml_hpe.metrics import turned
from nlml_hpe.model_folder import SHIPPED, HeadPoseModel, load_model
from nlml_hpe.powell import infer_powell
from nlml_hpe.rotations import Angles, rotation_from_angles

Method = Literal["network", "exact", "refined", "powell"]
DEFAULT_METHOD: Method = "refined"
MAX_FACES = 16
REFINE_MARGIN_DEG = 5.0
"""Beyond the grid by more than this the refined route keeps the network's answer, which has seen wider poses."""


@dataclass(frozen=True)
class HeadPose:
    """Pose of one face: angles in degrees, ``rotation`` (3, 3) head to camera, and where it was seen.

    ``sigma`` holds the angles' standard deviations in degrees (yaw, pitch, roll), None where the answer
    is the network's; ``in_range`` says whether all angles lie inside the range the model was trained on.
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
        self.detector = MediaPipeFaceMesh(max_faces, model.min_confidence)

    @classmethod
    def from_pretrained(cls, folder: str | Path = SHIPPED) -> HeadPoseEstimator:
        """An estimator of a model folder, by default the shipped one.

        Raises ``ArtifactError`` where the folder does not read.
        """
        return cls(load_model(folder))

    def predict(self, image: RgbImage | str | Path, method: Method = DEFAULT_METHOD) -> list[HeadPose]:
        """Poses of all faces in an RGB uint8 image (H, W, 3) or an image file, largest face first.

        No face is an empty list. ``method``: the network, the exact inverse of the manifold, the
        exact inverse started from the network (refined; far beyond the grid the network's answer stands),
        or the slow reference (powell). Angles are in the model's named head frame. Raises
        ``ImageReadError`` for a file that is no readable image and ``ValueError`` for an array that
        is no RGB uint8 image.
        """
        faces = self.detect(read_image(image) if isinstance(image, (str, Path)) else image)
        return self.poses(faces, method) if faces else []

    def detect(self, image: RgbImage) -> list[FaceLandmarks]:
        """Faces in an RGB uint8 image (H, W, 3), largest first."""
        return self.detector.detect(image)

    def poses(self, faces: list[FaceLandmarks], method: Method = DEFAULT_METHOD) -> list[HeadPose]:
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

    def angles(
        self, features: NDArray[np.float32], method: Method, own_frame: bool = False
    ) -> tuple[Angles, NDArray[np.float64] | None]:
        """Angles (N,) in degrees of features (N, F), and their standard deviations (N, 3) where known.

        In the model's named head frame, or its ``own_frame``. A row of deviations is NaN where the
        refined route kept the network's answer.
        """
        angles, sigma = self._own_angles(features, method)
        frame = self.model.frame
        return (angles if own_frame or frame.name == "own" else turned(angles, frame.rotation)), sigma

    def _own_angles(self, features: NDArray[np.float32], method: Method) -> tuple[Angles, NDArray[np.float64] | None]:
        manifold = self.model.manifold
        if method == "exact":
            found = manifold.infer(features)
            return found.angles, found.sigma
        if method == "powell":
            slow = [infer_powell(manifold, feature) for feature in features]
            return Angles.from_columns(np.reshape([(f.yaw, f.pitch, f.roll) for f in slow], (-1, 3))), None
        if self.model.network is None:
            raise ValueError(f"this model has no network, which method {method!r} needs; use 'exact' or 'powell'")
        with torch.inference_mode():
            columns = self.model.network(torch.from_numpy(np.asarray(features, dtype=np.float32))).double().numpy()
        angles = Angles.from_columns(columns)
        if method == "network":
            return angles, None
        return self._refined(features, angles)

    def _refined(self, features: NDArray[np.float32], start: Angles) -> tuple[Angles, NDArray[np.float64]]:
        """The exact inverse started from the network's answer, where that lies within the manifold's reach."""
        columns, sigma = start.columns(), np.full((len(features), 3), np.nan)
        low, high = (np.array([axis[end] for axis in self.model.manifold.grid.axes]) for end in (0, -1))
        near = ((columns >= low - REFINE_MARGIN_DEG) & (columns <= high + REFINE_MARGIN_DEG)).all(axis=1)
        if near.any():
            found = self.model.manifold.infer(features[near], seeds=Angles.from_columns(columns[near]))
            columns[near], sigma[near] = found.angles.columns(), found.sigma
        return Angles.from_columns(columns), sigma

    def _in_range(self, angles: Angles, index: int) -> bool:
        axes = self.model.manifold.grid.axes
        return all(axis[0] <= values[index] <= axis[-1] for axis, values in zip(axes, angles, strict=True))

    def close(self) -> None:
        """Release the detector."""
        self.detector.close()

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
    known = sigma is not None and bool(np.isfinite(sigma).all())
    deviations = (float(sigma[0]), float(sigma[1]), float(sigma[2])) if sigma is not None and known else None
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
