"""Smoothing that waits: each pose by those shortly before and after it, for files and for whoever can spare a third of
a second.

What a filter of a live video must guess a file tells: how the head goes on. So each pose is the value, at its own time,
of the parabola that fits the poses around it best, those near in time and those that are sure counting most (local
quadratic regression; Savitzky & Golay 1964, Fan & Gijbels 1996). A parabola follows a head that speeds up and turns
back, and being fitted on both sides it does not lag. What is too quick for a parabola it cuts off: of nods of
one, two and three a second it leaves 0.97, 0.72 and 0.29 of their size. Rotations are fitted as rotation vectors from
their mean on, in the camera frame.

For display only: figures of accuracy are never smoothed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import HeadPose
from nlml_hpe.inference.smoothing import SMOOTHERS, FilterName, PoseSmoother, with_rotation
from nlml_hpe.rotation import mean_rotation, rotation_from_vector, vector_from_rotation

BANDWIDTH_SECONDS = 0.12
"""Standard deviation of the normal curve by which poses count less the further off they are in time. Chosen on the
rendered heads of ``benchmarks/smoothing.py`` and three others, on which jitter hardly differs from 0.10 to 0.14."""
LAG_SECONDS = 3 * BANDWIDTH_SECONDS
"""How far it looks ahead and back, 0.36 s: so long a camera's picture comes late. A file's does not. Of five
frames a second and fewer it sees no more than three at a time, and leaves them as they are; the filters made errors
change more from one to the next there, not less."""
SmootherName = FilterName | Literal["fixed_lag"]
SMOOTHER_NAMES: tuple[SmootherName, ...] = (*SMOOTHERS, "fixed_lag")
"""The filters, and what waits."""
MOST_HELD = 32
"""So many frames wait at most, of a video of many frames a second: their pictures are in memory. As many before a frame
count, so that there, too, it does not lag."""
_ROUNDING = 1e-6
"""Seconds: the times of frames are sums and quotients."""
_UNKNOWN_VARIANCE = np.radians(4.0) ** 2
"""About each axis, of a pose that has no error bars."""
_LEAST_VARIANCE = np.radians(0.01) ** 2
Floats = NDArray[np.float64]
T = TypeVar("T")


def local_quadratic(rotation: Floats, variance: Floats, seconds: Floats, index: int) -> Floats:
    """One of T rotations, smoothed by the others.

    Parameters
    ----------
    rotation : float array (T, 3, 3)
        Poses of one head, head to camera.
    variance : float array (T,)
        Of their errors about any axis, above nought.
    seconds : float array (T,)
        Their times.
    index : int
        Which one.

    Returns
    -------
    float array (3, 3)
        Of three poses and fewer the one that came in, for a parabola meets them all.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
    >>> seconds = np.arange(9) / 25
    >>> yaw = 100 * seconds**2 + np.where(np.arange(9) == 4, 3.0, 0.0)  # it speeds up, and one answer is wrong
    >>> turned = rotation_from_angles(Angles.from_columns(np.stack([yaw, 0 * yaw, 0 * yaw], axis=1)))
    >>> found = local_quadratic(turned, np.where(np.arange(9) == 4, 100.0, 1.0), seconds, 4)
    >>> round(float(angles_from_rotation(found).yaw), 1), 100 * 0.16**2
    (2.6, 2.56)
    """
    time = (seconds - seconds[index]) / BANDWIDTH_SECONDS
    weight = np.exp(-0.25 * time**2) / np.sqrt(variance)  # the root of what each squared residual counts
    # From the pose in question on, which may be a wrong one, others could lie half a turn away: this way round or that.
    middle = mean_rotation(rotation, weight**2)
    away = vector_from_rotation(rotation @ middle.T)
    powers = time[:, None] ** np.arange(min(3, len(time)))
    fitted = np.linalg.lstsq(powers * weight[:, None], away * weight[:, None], rcond=None)[0]
    return rotation_from_vector(fitted[0]) @ middle


class _Seen(NamedTuple, Generic[T]):
    """A frame's time in seconds, its poses, and what is to be given back with them, until it is: pictures are large."""

    time: float
    poses: list[HeadPose]
    items: list[T]


class FixedLagSmoother(Generic[T]):
    """The poses of a video's heads, smoothed head by head, by the numbers of their tracks, some frames later.

    Examples
    --------
    >>> smoother = FixedLagSmoother[str]()
    >>> frames = [list(smoother.put(f"frame {number}", [], number / 25)) for number in range(11)]  # of nobody
    >>> frames[8:]  # nine frames of 40 ms are 0.36 s
    [[], [('frame 0', [])], [('frame 1', [])]]
    >>> [item for item, _ in smoother.rest()][:2]
    ['frame 2', 'frame 3']
    """

    def __init__(self) -> None:
        self._seen: deque[_Seen[T]] = deque()
        """All frames that may count, of which ``_waiting`` are the last."""
        self._waiting = 0

    def put(self, item: T, poses: list[HeadPose], time: float) -> Iterator[tuple[T, list[HeadPose]]]:
        """Take the next frame, and give those that are done.

        Parameters
        ----------
        item : object
            What is to be given back with the smoothed poses, as the frame's picture.
        poses : list of HeadPose
            Of the frame; those without a track stay as they are.
        time : float
            Of the frame, in seconds.

        Yields
        ------
        (object, list of HeadPose)
            Earlier frames in their order, none, one or several: the ``item``, and the poses as ``PoseSmoother`` gives
            them.
        """
        self._seen.append(_Seen(time, poses, [item]))
        self._waiting += 1
        while self._waiting and (
            self._waiting > MOST_HELD or time - self._seen[-self._waiting].time > LAG_SECONDS - _ROUNDING
        ):
            yield self._next()

    def rest(self) -> Iterator[tuple[T, list[HeadPose]]]:
        """The frames that still wait, at the end of a video."""
        while self._waiting:
            yield self._next()

    def _next(self) -> tuple[T, list[HeadPose]]:
        """The first frame that waits."""
        at = len(self._seen) - self._waiting
        frame = self._seen[at]
        while at > MOST_HELD or frame.time - self._seen[0].time > LAG_SECONDS + _ROUNDING:
            self._seen.popleft()
            at -= 1
        near: dict[int | None, list[tuple[_Seen[T], HeadPose]]] = {}
        for other in self._seen:
            if abs(other.time - frame.time) < LAG_SECONDS + _ROUNDING:
                for pose in other.poses:
                    near.setdefault(pose.track, []).append((other, pose))
        poses = [pose if pose.track is None else _smoothed(pose, frame, near[pose.track]) for pose in frame.poses]
        self._waiting -= 1
        return frame.items.pop(), poses


def _smoothed(pose: HeadPose, frame: _Seen[T], near: Sequence[tuple[_Seen[T], HeadPose]]) -> HeadPose:
    """A pose of a frame, by those of the same head in frames near it, of which it is one."""
    poses = [each for _, each in near]
    index = next(number for number, (other, _) in enumerate(near) if other is frame)
    rotations, times = np.stack([each.rotation for each in poses]), np.array([other.time for other, _ in near])
    return with_rotation(pose, local_quadratic(rotations, _variances(poses), times, index))


class UndelayedSmoother(Generic[T]):
    """What gives each frame at once, as ``FixedLagSmoother`` some frames later: by a filter, or as it came."""

    def __init__(self, smooth: PoseSmoother | None) -> None:
        self._smooth = smooth

    def put(self, item: T, poses: list[HeadPose], time: float) -> Iterator[tuple[T, list[HeadPose]]]:
        """Take the next frame, and give it.

        Parameters
        ----------
        item, poses, time
            As of ``FixedLagSmoother.put``.

        Yields
        ------
        (object, list of HeadPose)
            The ``item``, and the poses as the filter gives them.
        """
        yield item, poses if self._smooth is None else self._smooth(poses, time)

    def rest(self) -> Iterator[tuple[T, list[HeadPose]]]:
        """Nothing waits."""
        yield from ()


def _variances(poses: Sequence[HeadPose]) -> Floats:
    """Mean variance of each pose about all axes."""
    own = np.array([np.nan if pose.covariance is None else np.trace(pose.covariance) / 3 for pose in poses])
    return np.where(np.isfinite(own), np.maximum(own, _LEAST_VARIANCE), _UNKNOWN_VARIANCE)
