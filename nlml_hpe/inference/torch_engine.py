"""Pose by the model itself: every route, in either head frame."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import PointSet, mirrored_features, normalize_landmarks
from nlml_hpe.evaluation.metrics import turned
from nlml_hpe.inference.engines import MIRRORED_SIGNS, REFINE_MARGIN_DEG, Estimates, Interval, Method
from nlml_hpe.manifold.powell import infer_powell
from nlml_hpe.model.folder import HeadPoseModel
from nlml_hpe.rotation import Angles


class TorchEngine:
    """All routes of a ``HeadPoseModel``: network, exact inverse, the exact inverse from the network, Powell.

    But for Powell, the paper's own, an answer is the mean of those for the face and for its mirror image, where the
    model was trained on both sides alike: a picture and its mirror image then have mirrored poses.
    """

    def __init__(self, model: HeadPoseModel) -> None:
        self.model = model

    @property
    def point_set(self) -> PointSet:
        """The points that the model was trained on."""
        return self.model.point_set

    @property
    def min_confidence(self) -> float:
        """The detector's threshold in training."""
        return self.model.min_confidence

    @property
    def range(self) -> tuple[Interval, Interval, Interval]:
        """First and last angle of each axis of the training grid, in degrees."""
        yaw, pitch, roll = ((axis[0], axis[-1]) for axis in self.model.manifold.grid.axes)
        return yaw, pitch, roll

    def estimate(self, points: NDArray[np.float64], method: Method) -> Estimates:
        """As ``Engine.estimate``; ``score`` is known where the exact step was taken."""
        features = normalize_landmarks(points, self.point_set, self.model.normalization)
        found = self._own(features, method)
        return found._replace(angles=self.in_named_frame(found.angles))

    def own_angles(self, features: NDArray[np.float32], method: Method) -> tuple[Angles, NDArray[np.float64]]:
        """Angles (N,) in degrees, in the model's own head frame, of features (N, F); and their standard deviations
        (N, 3), NaN where not known."""
        found = self._own(features, method)
        return found.angles, found.sigma

    def in_named_frame(self, own: Angles) -> Angles:
        """Angles of the model's own head frame in its named one."""
        return own if self.model.frame.name == "own" else turned(own, self.model.frame.rotation)

    def _own(self, features: NDArray[np.float32], method: Method) -> Estimates:
        if method == "powell" or not self.model.is_symmetric:
            return self._one_sided(features, method)
        both = np.concatenate([features, mirrored_features(features, self.point_set)])
        found = self._one_sided(both, method)
        first, second = np.split(found.angles.columns(), 2)
        angles = Angles.from_columns((first + second * MIRRORED_SIGNS) / 2)
        # Both answers err together, so the mean of them is no surer.
        sigma, score = (np.mean(np.split(values, 2), axis=0) for values in (found.sigma, found.score))
        return Estimates(angles, sigma, score)

    def _one_sided(self, features: NDArray[np.float32], method: Method) -> Estimates:
        manifold, unknown = self.model.manifold, np.full((len(features), 3), np.nan)
        if method == "exact":
            found = manifold.infer(features)
            return Estimates(found.angles, found.sigma, found.score)
        if method == "powell":
            slow = [infer_powell(manifold, feature) for feature in features]
            angles = Angles.from_columns(np.reshape([(f.yaw, f.pitch, f.roll) for f in slow], (-1, 3)))
            return Estimates(angles, unknown, unknown[:, 0])
        if self.model.network is None:
            raise ValueError(f"this model has no network, which method {method!r} needs; use 'exact' or 'powell'")
        with torch.inference_mode():
            columns = self.model.network(torch.from_numpy(np.asarray(features, dtype=np.float32))).double().numpy()
        if method == "network":
            return Estimates(Angles.from_columns(columns), unknown, unknown[:, 0])
        return self._refined(features, columns)

    def _refined(self, features: NDArray[np.float32], columns: NDArray[np.float64]) -> Estimates:
        """The exact inverse started from the network's answer, where that lies within the manifold's reach."""
        sigma, score = np.full((len(features), 3), np.nan), np.full(len(features), np.nan)
        low, high = np.array(self.range).T
        near = ((columns >= low - REFINE_MARGIN_DEG) & (columns <= high + REFINE_MARGIN_DEG)).all(axis=1)
        if near.any():
            found = self.model.manifold.infer(features[near], seeds=Angles.from_columns(columns[near]))
            columns[near], sigma[near], score[near] = found.angles.columns(), found.sigma, found.score
        return Estimates(Angles.from_columns(columns), sigma, score)
