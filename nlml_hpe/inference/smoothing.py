"""One-Euro smoothing of a pose over time (Casiez, Roussel & Vogel 2012): still when the head is, quick when it turns.

For display only: figures of accuracy are never smoothed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import HeadPose
from nlml_hpe.rotation import angles_from_rotation, rotation_from_vector, vector_from_rotation

MIN_CUTOFF_HZ = 1.0
BETA = 0.6
"""Hz of cutoff for every radian per second: a head that turns by 90 degrees a second is followed within 0.1 s."""
_SPEED_CUTOFF_HZ = 1.0
_FORGOTTEN_SECONDS = 0.5


@dataclass
class RotationFilter:
    """The filter on rotations: the speed is that of the geodesic, the mean is taken along it.

    ``seconds`` between two calls may vary. After half a second without a call it starts anew.
    """

    min_cutoff: float = MIN_CUTOFF_HZ
    beta: float = BETA
    _state: NDArray[np.float64] | None = None
    _raw: NDArray[np.float64] | None = None
    _speed: float = 0.0
    _time: float = field(default=-math.inf)

    def __call__(self, rotation: NDArray[np.float64], time: float) -> NDArray[np.float64]:
        """The smoothed rotation (3, 3) at ``time`` in seconds. A time that does not advance changes nothing."""
        seconds = time - self._time
        if self._state is None or self._raw is None or seconds > _FORGOTTEN_SECONDS:
            self._state, self._speed = rotation, 0.0
        elif seconds > 0:
            speed = float(np.linalg.norm(vector_from_rotation(self._raw.T @ rotation))) / seconds
            self._speed += _weight(_SPEED_CUTOFF_HZ, seconds) * (speed - self._speed)
            share = _weight(self.min_cutoff + self.beta * self._speed, seconds)
            to_new = vector_from_rotation(self._state.T @ rotation)
            self._state = self._state @ rotation_from_vector(share * to_new)
        self._raw, self._time = rotation, time
        return self._state.copy()


def _weight(cutoff: float, seconds: float) -> float:
    """Share of the new value in an exponential mean with this cutoff frequency (eq. 3)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))


class PoseSmoother:
    """One filter for each face; a face is the one before whose box's middle is nearest, within half its size."""

    def __init__(self) -> None:
        self._faces: list[tuple[tuple[float, float], RotationFilter]] = []

    def __call__(self, poses: list[HeadPose], time: float) -> list[HeadPose]:
        """The same poses with smoothed angles and rotations."""
        before, self._faces, smoothed = self._faces, [], []
        for pose in poses:
            left, top, right, bottom = pose.box
            middle, reach = ((left + right) / 2, (top + bottom) / 2), max(right - left, bottom - top) / 2
            near = [face for face in before if math.dist(face[0], middle) < reach]
            found = min(near, key=lambda face: math.dist(face[0], middle), default=(middle, RotationFilter()))
            before = [face for face in before if face is not found]
            self._faces.append((middle, found[1]))
            rotation = found[1](pose.rotation, time)
            yaw, pitch, roll = (float(angle) for angle in angles_from_rotation(rotation))
            smoothed.append(replace(pose, yaw=yaw, pitch=pitch, roll=roll, rotation=rotation))
        return smoothed
