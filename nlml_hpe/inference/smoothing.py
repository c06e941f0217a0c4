"""Smoothing of poses over time, head by head: One-Euro (Casiez, Roussel & Vogel 2012), or a Kalman filter (``kalman``).

For display only: figures of accuracy are never smoothed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import HeadPose
from nlml_hpe.inference.kalman import FORGOTTEN_SECONDS, KalmanFilter, require_3x3
from nlml_hpe.inference.tracks import LONGEST_UNSEEN_SECONDS
from nlml_hpe.rotation import (
    angles_from_rotation,
    rotation_from_vector,
    sigma_from_covariance,
    vector_from_rotation,
)

MIN_CUTOFF_HZ = 1.0
BETA = 0.6
"""Hz of cutoff for every radian per second: a head that turns by 90 degrees a second is followed within 0.1 s."""
_SPEED_CUTOFF_HZ = 1.0


@dataclass
class RotationFilter:
    """One-Euro on rotations: still when the head is, quick when it turns.

    The speed is that of the geodesic, and the mean is taken along it.

    The time between two calls may vary. After half a second without a call it starts anew.
    """

    min_cutoff: float = MIN_CUTOFF_HZ
    beta: float = BETA
    _state: NDArray[np.float64] | None = None
    _raw: NDArray[np.float64] | None = None
    _speed: float = 0.0
    _time: float = field(default=-math.inf)

    def __call__(
        self, rotation: NDArray[np.float64], time: float, covariance: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """The smoothed rotation of a frame.

        Parameters
        ----------
        rotation : float array (3, 3)
            The pose of this frame, head to camera.
        time : float
            In seconds; at one that does not advance the answer is the last one.
        covariance : float array (3, 3), optional
            Of the pose's error; it has no say here.

        Returns
        -------
        float array (3, 3)
            Head to camera.

        Raises
        ------
        ValueError
            For a rotation of another shape or of numbers that are not finite; the filter is as it was.
        """
        require_3x3("rotation", rotation)
        rotation = np.array(rotation, dtype=np.float64)  # a copy: the caller may write the next one into the same array
        seconds = time - self._time
        if self._state is None or self._raw is None or seconds > FORGOTTEN_SECONDS:
            self._state, self._speed = rotation, 0.0
        elif seconds > 0:
            speed = float(np.linalg.norm(vector_from_rotation(self._raw.T @ rotation))) / seconds
            self._speed += _weight(_SPEED_CUTOFF_HZ, seconds) * (speed - self._speed)
            share = _weight(self.min_cutoff + self.beta * self._speed, seconds)
            to_new = vector_from_rotation(self._state.T @ rotation)
            self._state = self._state @ rotation_from_vector(share * to_new)
        self._raw, self._time = rotation, max(self._time, time)
        return self._state.copy()


def _weight(cutoff: float, seconds: float) -> float:
    """Share of the new value in an exponential mean with this cutoff frequency (eq. 3)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))


PoseFilter = RotationFilter | KalmanFilter
FilterName = Literal["one_euro", "kalman"]
SMOOTHERS: dict[FilterName, type[RotationFilter] | type[KalmanFilter]] = {
    "one_euro": RotationFilter,
    "kalman": KalmanFilter,
}


class PoseSmoother:
    """One filter for each head of a video, by the numbers of their tracks; a pose without a number stays as it is.

    Parameters
    ----------
    smoother : "one_euro" or "kalman"
        Names the filter.

    Raises
    ------
    ValueError
        For another name.
    """

    def __init__(self, smoother: FilterName = "one_euro") -> None:
        if smoother not in SMOOTHERS:
            raise ValueError(f"smoother: expected one of {list(SMOOTHERS)}; received {smoother!r}")
        self._new_filter = SMOOTHERS[smoother]
        self._filters: dict[int, PoseFilter] = {}
        self._last: dict[int, float] = {}
        """When each head's pose was smoothed last, in seconds."""

    def __call__(self, poses: list[HeadPose], time: float) -> list[HeadPose]:
        """The same poses with smoothed angles and rotations.

        Their error bars are those of the poses that came in: ``covariance`` as it was, and ``sigma`` what it leaves of
        the smoothed angles. They do not know how far a filter lags: while a head turns, One-Euro's errors are larger.

        Parameters
        ----------
        poses : list of HeadPose
            Of a frame; those without a track stay as they are.
        time : float
            Of the frame, in seconds.

        Returns
        -------
        list of HeadPose
            In the same order.
        """
        # A number does not come back later than this. Until then what a filter has learned of its head is of use.
        for track in [track for track, last in self._last.items() if time - last > LONGEST_UNSEEN_SECONDS]:
            del self._filters[track], self._last[track]
        return [pose if pose.track is None else self._smoothed(pose, pose.track, time) for pose in poses]

    def _smoothed(self, pose: HeadPose, track: int, time: float) -> HeadPose:
        if track not in self._filters:
            self._filters[track] = self._new_filter()
        self._last[track] = time
        return with_rotation(pose, self._filters[track](pose.rotation, time, pose.covariance))


def with_rotation(pose: HeadPose, rotation: NDArray[np.float64]) -> HeadPose:
    """A pose with another rotation (3, 3): its angles follow, and ``sigma`` is what its covariance leaves of them."""
    yaw, pitch, roll = (float(angle) for angle in angles_from_rotation(rotation))
    sigma = pose.sigma
    if pose.covariance is not None:
        first, second, third = map(float, sigma_from_covariance(rotation, pose.covariance))
        sigma = first, second, third
    return replace(pose, yaw=yaw, pitch=pitch, roll=roll, rotation=rotation, sigma=sigma)
