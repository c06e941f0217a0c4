"""A Kalman filter on the rotation group: a head that turns evenly is followed without lag, unsure frames count less.

The state is a rotation and an angular velocity, both in the camera frame, and the covariance of their errors (an
error-state filter; Sola 2017). There are two such states, and how likely each is: of a head that rests, and of one
that turns (interacting multiple models; Blom & Bar-Shalom 1988). The answer is their mean, so that a head at rest is
held more firmly than one filter could that must also follow it when it turns. Between frames a head at rest creeps a
little, a head that turns turns on, and its velocity changes at random.

A pose is a measurement whose noise is a share of its own covariance: most of a pose's error is the same from frame to
frame, and only what changes is noise. How large that share is depends on head, camera and light, and is measured: of
poses that follow each other evenly the second differences are noise alone (difference-based estimation of variance;
Gasser, Sroka & Jennen-Steinmetz 1986), and their median over a second passes over the moments in which the head speeds
up. Where a measurement lies further off than the noise allows a head that turns, it has begun to turn otherwise: that
state then trusts it more, by letting the velocity change as much as it takes.

For display only: figures of accuracy are never smoothed.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.rotation import inverse_3x3, rotation_from_vector, vector_from_rotation

ACCELERATION = 0.01
"""Spectral density of a calm head's angular acceleration, in rad^2 / s^3."""
NOISE_SHARE = 0.25
"""What a pose's standard deviations are multiplied by to be those of the noise between frames, until it is measured."""
_SHARES = (0.1, 1.0)
_REMEMBERED, _ENOUGH = 25, 8
"""Second differences whose median is the measured share, and how many there must be."""
_MEDIAN_CHI2_3 = 2.366
_EVEN = 1.5
"""Longest of two times between three frames, over the shorter one, whose second difference counts."""
_SURPRISE, _AGILITY = 1.5, 30.0
"""Squared innovation, over its expectation, beyond which the density grows, and how much by each unit of it."""
_UNKNOWN_DEG = 4.0
"""Standard deviation of a pose that has no error bars."""
_LEAST_DEG = 0.01
"""Added to what a pose says of its own error: with one that is known for sure no equation could be solved."""
_FIRST_SPEED = 0.2
"""Standard deviation of a new head's angular velocity, in rad / s."""
_CREEP_DEG, _REST_SPEED = 0.3, 0.02
"""Of a head at rest: degrees by which it creeps in a second, and standard deviation of its velocity, in rad / s."""
_STAY_SECONDS = 1.0
"""How long a head rests, or turns, on average."""
_LEAST_CHANCE = 1e-12
"""Of either state, so that none is lost for good."""
_REST, _TURN = 0, 1
FORGOTTEN_SECONDS = 0.5
"""After so long without a pose a filter starts anew."""
Floats = NDArray[np.float64]


@dataclass
class KalmanFilter:
    """The filter of one head.

    Parameters
    ----------
    acceleration : float
        See ``ACCELERATION``.
    noise_share : float
        See ``NOISE_SHARE``; measured as soon as the head has been seen in ten frames.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
    >>> smooth = KalmanFilter()
    >>> for frame in range(50):  # 20 degrees a second
    ...     turned = rotation_from_angles(Angles.from_columns((frame * 0.8, 0, 0)))
    ...     found = smooth(turned, frame / 25, np.radians(2.0) ** 2 * np.eye(3))
    >>> bool(abs(angles_from_rotation(found).yaw - 49 * 0.8) < 0.5)
    True
    """

    acceleration: float = ACCELERATION
    noise_share: float = NOISE_SHARE
    _rotation: Floats | None = None
    _states: Floats = field(default_factory=lambda: np.zeros((2, 6)))
    """At rest and turning: rotation vector from ``_rotation`` on, in radians, and angular velocity."""
    _covariances: Floats = field(default_factory=lambda: np.zeros((2, 6, 6)))
    _chances: Floats = field(default_factory=lambda: np.full(2, 0.5))
    _time: float = field(default=-math.inf)
    _raw: Floats | None = None
    _step: tuple[Floats, float] | None = None
    """From the pose before the last one to the last, as a rotation vector, and the seconds between."""
    _differences: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def __call__(self, rotation: Floats, time: float, covariance: Floats | None = None) -> Floats:
        """The smoothed rotation of a frame.

        Parameters
        ----------
        rotation : float array (3, 3)
            The pose of this frame, head to camera.
        time : float
            In seconds; one that does not advance changes nothing.
        covariance : float array (3, 3), optional
            Of the pose's error, in square radians, as ``HeadPose.covariance``; zero of a pose that is known.

        Returns
        -------
        float array (3, 3)
            Head to camera.

        Raises
        ------
        ValueError
            For a rotation or a covariance of another shape or of numbers that are not finite, and for a covariance that
            is none (a negative variance); the filter is as it was.
        """
        spread = _spread(rotation, covariance)
        rotation = np.array(rotation, dtype=np.float64)  # a copy: the caller may write the next one into the same array
        seconds = time - self._time
        if seconds > 0:
            self._measure_noise(rotation, spread, seconds)
        noise = self.noise_share**2 * spread
        if self._rotation is None or seconds > FORGOTTEN_SECONDS:
            self._begin(rotation, noise)
        elif seconds > 0:
            self._mix(seconds)
            self._predict(seconds)
            self._correct(rotation, noise, seconds)
        self._time = max(self._time, time)
        assert self._rotation is not None  # the first call has a rotation from _begin
        return self._rotation.copy()

    def _measure_noise(self, rotation: Floats, spread: Floats, seconds: float) -> None:
        """Compare how much the raw poses jump with how unsure they say they are."""
        step = None if self._raw is None else (vector_from_rotation(rotation @ self._raw.T), seconds)
        if step and self._step and max(seconds, self._step[1]) < _EVEN * min(seconds, self._step[1]):
            jump = step[0] - self._step[0]
            # The second difference of values of one variance has six of it.
            self._differences.append(float(jump @ np.linalg.solve(spread, jump)) / 6)
            if len(self._differences) >= _ENOUGH:
                measured = math.sqrt(statistics.median(self._differences) / _MEDIAN_CHI2_3)
                self.noise_share = min(max(measured, _SHARES[0]), _SHARES[1])
        self._raw, self._step = rotation, step

    def _begin(self, rotation: Floats, noise: Floats) -> None:
        """A new head, of which it is not known whether it rests."""
        self._rotation, self._states, self._chances = rotation, np.zeros((2, 6)), np.full(2, 0.5)
        self._covariances = np.zeros((2, 6, 6))
        self._covariances[:, :3, :3] = noise
        for state, speed in ((_REST, _REST_SPEED), (_TURN, _FIRST_SPEED)):
            self._covariances[state, 3:, 3:] = speed**2 * np.eye(3)

    def _mix(self, seconds: float) -> None:
        """A head may have begun to turn, or come to rest: each state becomes a mixture of both."""
        leave = min(seconds / _STAY_SECONDS, 0.5)
        both = self._chances[:, None] * np.array([[1 - leave, leave], [leave, 1 - leave]])
        self._chances = both.sum(axis=0)
        weights = both / self._chances  # from, to
        states = weights.T @ self._states
        apart = self._states[:, None] - states
        around = np.einsum("ij,ija,ijb->jab", weights, apart, apart)
        self._covariances = np.einsum("ij,iab->jab", weights, self._covariances) + around
        self._states = states

    def _predict(self, seconds: float) -> None:
        """A head at rest stays, but for its creeping; one that turns turns on by its velocity."""
        creep = np.radians(_CREEP_DEG) ** 2 * seconds * np.eye(3)
        self._states[_REST, 3:] = 0.0
        held = np.zeros((6, 6))
        held[:3, :3], held[3:, 3:] = self._covariances[_REST, :3, :3] + creep, _REST_SPEED**2 * np.eye(3)
        onward = np.eye(6)
        onward[:3, 3:] = seconds * np.eye(3)
        self._states[_TURN] = onward @ self._states[_TURN]
        turned = onward @ self._covariances[_TURN] @ onward.T + self.acceleration * _process(seconds)
        self._covariances = np.stack([held, turned])

    def _correct(self, rotation: Floats, noise: Floats, seconds: float) -> None:
        """A pose of this frame draws both states towards it, and tells which is the likelier one."""
        assert self._rotation is not None
        innovation = vector_from_rotation(rotation @ self._rotation.T) - self._states[:, :3]
        turning = innovation[_TURN]
        surprise = float(turning @ np.linalg.solve(self._covariances[_TURN, :3, :3] + noise, turning)) / 3
        if surprise > _SURPRISE:
            growth = self.acceleration * _AGILITY * (surprise / _SURPRISE - 1)
            self._covariances[_TURN] += growth * _process(seconds)
        expected = self._covariances[:, :3, :3] + noise
        certain = inverse_3x3(expected)
        squared = np.einsum("na,nab,nb->n", innovation, certain, innovation)
        likely = -0.5 * (squared + np.linalg.slogdet(expected)[1])
        chances = self._chances * np.exp(likely - likely.max())
        self._chances = np.maximum(chances / chances.sum(), _LEAST_CHANCE)
        gain = self._covariances[:, :, :3] @ certain
        self._states = self._states + (gain @ innovation[..., None])[..., 0]
        kept = self._covariances - gain @ self._covariances[:, :3]
        self._covariances = (kept + np.swapaxes(kept, -1, -2)) / 2
        step = self._chances @ self._states[:, :3] / self._chances.sum()
        self._rotation = rotation_from_vector(step) @ self._rotation
        self._states[:, :3] -= step


def require_3x3(name: str, values: Floats) -> None:
    """Raise ``ValueError`` unless these are (3, 3) finite numbers: one NaN, and a filter would give nothing else."""
    if np.shape(values) != (3, 3) or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected (3, 3) finite numbers; received {np.asarray(values).tolist()}")


def _spread(rotation: Floats, covariance: Floats | None) -> Floats:
    """Covariance of a pose's error as the filter takes it: never singular."""
    given = np.radians(_UNKNOWN_DEG) ** 2 * np.eye(3) if covariance is None else np.asarray(covariance)
    require_3x3("rotation", rotation)
    require_3x3("covariance", given)
    spread = given + np.radians(_LEAST_DEG) ** 2 * np.eye(3)
    if np.linalg.eigvalsh(spread)[0] <= 0:
        raise ValueError(f"covariance: expected one without negative variances; received {given.tolist()}")
    return np.asarray(spread, dtype=np.float64)


def _process(seconds: float) -> Floats:
    """Covariance (6, 6) that an acceleration of unit density adds in so many seconds."""
    blocks = [[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]]
    return np.kron(np.array(blocks), np.eye(3))
