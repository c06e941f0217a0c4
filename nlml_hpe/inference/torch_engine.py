"""Pose by the model itself: every route, in either head frame."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import PointSet, mirrored_features, normalize_landmarks
from nlml_hpe.face import Face
from nlml_hpe.inference.engines import Estimates, Interval, Route, by_looks, n_looks, points_of
from nlml_hpe.manifold.powell import infer_powell
from nlml_hpe.model.folder import HeadPoseModel
from nlml_hpe.model.format import REFINE_MARGIN_DEG
from nlml_hpe.rotation import Angles, midpoint, mirrored, rotation_from_angles

Features = NDArray[np.float32]


class TorchEngine:
    """All routes of a ``HeadPoseModel``: network, exact inverse, the exact inverse from the network, Powell.

    But for Powell, the paper's own, an answer is the mean, on the rotation group, of those for the face and for its
    mirror image, where the model was trained on both sides alike: a picture and its mirror image then have mirrored
    poses.

    Parameters
    ----------
    model : HeadPoseModel
        As ``model.folder.load_model`` reads it; its network stays where it is.
    device : torch.device, optional
        Where the network and the exact inverse are computed; by default the CPU, which for few faces is the fastest.

    Examples
    --------
    >>> from nlml_hpe.model.folder import load_model
    >>> from nlml_hpe.model.format import SHIPPED
    >>> engine = TorchEngine(load_model(SHIPPED))
    >>> engine.estimate([], "exact").rotation.shape
    (0, 3, 3)
    """

    def __init__(self, model: HeadPoseModel, device: torch.device | None = None) -> None:
        self.model, self.device = model, device or torch.device("cpu")
        self._network = model.network
        if model.network is not None and self.device.type != "cpu":
            self._network = copy.deepcopy(model.network).to(self.device)
        self._routes: dict[Route, Callable[[Features], Estimates]] = {
            "network": self._by_network,
            "exact": self._exact,
            "refined": self._refined,
            "powell": self._powell,
        }

    @property
    def point_set(self) -> PointSet:
        """The landmarks that the model was trained on."""
        return self.model.point_set

    @property
    def min_confidence(self) -> float:
        """The detector's threshold in training."""
        return self.model.min_confidence

    @property
    def range(self) -> tuple[Interval, Interval, Interval]:
        """First and last angle of each axis of the training grid, in degrees, in the model's own head frame."""
        yaw, pitch, roll = ((axis[0], axis[-1]) for axis in self.model.manifold.grid.axes)
        return yaw, pitch, roll

    @property
    def frame(self) -> str:
        """Name of the head frame of the answers."""
        return self.model.frame.name

    @property
    def named_from_own(self) -> NDArray[np.float64]:
        """C (3, 3) with ``R(named) = R(own) C``."""
        return self.model.frame.named_from_own

    def estimate(self, faces: Sequence[Face], route: Route) -> Estimates:
        """As ``Engine.estimate``; ``sigma`` of one look alone is known where the exact step was taken."""
        return by_looks(points_of(faces, self.point_set), n_looks(faces), route, self._answers)

    def _answers(self, points: NDArray[np.float64], route: Route) -> Estimates:
        """Poses of landmarks (M, P, 3), in the named head frame."""
        features = normalize_landmarks(points, self.point_set, self.model.normalization)
        return self.own_estimates(features, route).in_named_frame(self.named_from_own)

    def own_estimates(self, features: Features, route: Route) -> Estimates:
        """Poses of features (N, F), in the model's own head frame: that of the heads it was trained on.

        Raises ``ValueError`` for a route that does not exist, or that needs a network where the model has none.
        """
        if route not in self._routes:
            raise ValueError(f"unknown route {route!r}; expected one of {list(self._routes)}")
        if not len(features):
            return Estimates.of_rotations(np.empty((0, 3, 3)))
        one_sided = self._routes[route]
        if route == "powell" or not self.model.is_symmetric:
            return one_sided(features)
        both = one_sided(np.concatenate([features, mirrored_features(features, self.point_set)]))
        first, second = np.split(both.rotation, 2)
        # Both answers err together, so the mean of them is no surer.
        sigma = np.mean(np.split(both.sigma, 2), axis=0)
        return Estimates.of_angles(midpoint(first, mirrored(second)), sigma)

    def _network_columns(self, features: Features) -> NDArray[np.float64]:
        """Yaw, pitch and roll (N, 3) in degrees."""
        if self._network is None:
            raise ValueError("this model has no network; use the route 'exact' or 'powell'")
        with torch.inference_mode():
            found = self._network(torch.from_numpy(np.asarray(features, dtype=np.float32)).to(self.device))
        return np.asarray(found.cpu().double().numpy())

    def _by_network(self, features: Features) -> Estimates:
        return Estimates.of_rotations(rotation_from_angles(Angles.from_columns(self._network_columns(features))))

    def _exact(self, features: Features) -> Estimates:
        found = self.model.manifold.infer(features, device=self.device)
        return Estimates.of_angles(rotation_from_angles(found.angles), found.sigma)

    def _powell(self, features: Features) -> Estimates:
        slow = [infer_powell(self.model.manifold, feature) for feature in features]
        columns = np.array([(found.yaw, found.pitch, found.roll) for found in slow])
        return Estimates.of_rotations(rotation_from_angles(Angles.from_columns(columns)))

    def _refined(self, features: Features) -> Estimates:
        """The exact inverse started from the network's answer, where that lies within the manifold's reach."""
        columns = self._network_columns(features)
        sigma = np.full((len(features), 3), np.nan)
        low, high = np.array(self.range).T
        near = ((columns >= low - REFINE_MARGIN_DEG) & (columns <= high + REFINE_MARGIN_DEG)).all(axis=1)
        if near.any():
            seeds = Angles.from_columns(columns[near])
            found = self.model.manifold.infer(features[near], seeds=seeds, device=self.device)
            columns[near], sigma[near] = found.angles.columns(), found.sigma
        return Estimates.of_angles(rotation_from_angles(Angles.from_columns(columns)), sigma)
