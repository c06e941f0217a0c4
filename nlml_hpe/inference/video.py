"""Pose in a video or from a camera, frame by frame: angles with their times, and a copy with axes drawn."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nlml_hpe.face import HeadPose
from nlml_hpe.files.images import RgbImage, user_path
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fixed_lag import SMOOTHER_NAMES, FixedLagSmoother, SmootherName, UndelayedSmoother
from nlml_hpe.inference.following import BoxSource, HeadFollower
from nlml_hpe.inference.fusion import Eye
from nlml_hpe.inference.smoothing import PoseSmoother
from nlml_hpe.inference.video_files import LONGEST_GAP_SECONDS, Frame, VideoSource, VideoWriter, require_video_size
from nlml_hpe.view.draw import draw_poses, draw_text
from nlml_hpe.words import counted

_TIMED_FRAMES = 100_000
"""An hour of a camera, which may run for months."""
_Smoothing = UndelayedSmoother["FrameResult"] | FixedLagSmoother["FrameResult"]


@dataclass
class FrameResult:
    """The poses of a frame's heads, with the numbers of their tracks, and how long they took: detection included, and
    smoothing not."""

    frame: Frame
    poses: list[HeadPose]
    milliseconds: float


@dataclass
class Summary:
    """What is to be said of a whole video.

    Attributes
    ----------
    expected : int
        Frames that the file's header announces; 0 where that is not known.
    with_face : int
        Frames with a pose.
    milliseconds : deque of float
        How long each frame took; of the last hundred thousand alone.
    stopped : bool
        Whether the user ended the work before the end.
    seconds_cut : float
        Seconds by which the copy is shorter than the video; see ``LONGEST_GAP_SECONDS``.
    heads : int
        How many heads were told apart.
    is_camera : bool
        Whether the frames came from a camera, which ends only where the user ends it.
    dropped : int
        Frames that the header announces and the file has no picture of; see ``VideoSource``.
    frames : int
        How many frames were read.

    Examples
    --------
    >>> Summary(expected=3, frames=1, with_face=1, heads=1, milliseconds=deque([10.0])).text()
    '1 frame, 1 with a face; 1 head; 10.0 ms a frame (95%: 10.0 ms), 100 frames a second; \
the video ends early or is damaged: its header announces 3 frames'
    """

    expected: int = 0
    with_face: int = 0
    milliseconds: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMED_FRAMES))
    stopped: bool = False
    seconds_cut: float = 0.0
    heads: int = 0
    is_camera: bool = False
    dropped: int = 0
    frames: int = 0

    @property
    def ends_early(self) -> bool:
        """Whether a file gave fewer frames than its header announces, or the camera ended by itself."""
        return (self.is_camera or self.expected > self.frames + self.dropped) and not self.stopped

    def text(self) -> str:
        """The summary in words."""
        if not self.frames:
            return "stopped before the first frame" if self.stopped else "no frame was read"
        median = statistics.median(self.milliseconds)
        late = float(np.quantile(self.milliseconds, 0.95))
        speed = f"{median:.1f} ms a frame (95%: {late:.1f} ms), {1000 / median:.0f} frames a second"
        seen = f"{counted(self.frames, 'frame')}, {self.with_face} with a face"
        lines = [seen, counted(self.heads, "head"), speed]
        if self.stopped:
            of = f" of {self.expected}" if self.expected else ""
            lines.append(f"stopped after {self.frames}{of}; what was done until then is kept")
        if self.ends_early and self.is_camera:
            lines.append("the camera gives no more frames; is it still plugged in?")
        elif self.ends_early:
            announced = counted(self.expected, "frame")
            lines.append(f"the video ends early or is damaged: its header announces {announced}")
        if self.seconds_cut:
            lines.append(
                f"the copy is {self.seconds_cut:.0f} s shorter: times between two frames beyond "
                f"{LONGEST_GAP_SECONDS:.0f} s were shortened to that"
            )
        return "; ".join(lines)


def process(
    source: VideoSource,
    estimator: HeadPoseEstimator,
    output: str | Path | None = None,
    smooth: bool = False,
    refine: bool = True,
    show: Callable[[FrameResult, RgbImage], bool] | None = None,
    eye: Eye | None = None,
    smoother: SmootherName | None = None,
    looks: int | None = None,
    boxes: BoxSource | None = None,
    cone: bool = False,
) -> Iterator[FrameResult | Summary]:
    """Poses of all frames of a video, one after the other; Ctrl-C ends the work and keeps what was done.

    Parameters
    ----------
    source : VideoSource
        The frames.
    estimator : HeadPoseEstimator
        Best one with ``tracking``.
    output : str or pathlib.Path, optional
        A copy with axes drawn.
    smooth : bool
        Smooth every head's rotation over time; never use it to measure.
    smoother : "one_euro", "kalman" or "fixed_lag", optional
        By which filter, see ``smoothing`` and ``kalman``; or by the frames before and after, which is better and gives
        each frame 0.36 s later, see ``fixed_lag``; of five frames a second and fewer it changes none. By default that
        of a file, and the Kalman filter of a camera.
    refine, eye
        As of ``HeadPoseEstimator.predict``.
    show : callable, optional
        Called with every result and its drawn frame, on which rate and latency stand, too; false ends the work.
    looks : int, optional
        As of ``HeadPoseEstimator.predict``.
    boxes : callable, optional
        Finds heads whose faces are not seen; see ``following.HeadFollower``, which follows the heads.
    cone : bool
        As of ``draw.draw_pose``.

    Yields
    ------
    FrameResult or Summary
        A result for every frame, in their order, and a ``Summary`` last.

    Raises
    ------
    VideoError
        Where the copy cannot be written, and where the source's frames were given before.
    ValueError
        For ``boxes`` of a model without an image eye, or with ``eye="landmarks"``, and for another smoother's name.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, HeadPoseEstimator(tracking=True) as estimator:
    ...     path = Path(folder) / "black.mp4"
    ...     with VideoWriter(path, 25.0) as writer:
    ...         for number in range(3):
    ...             writer.put(np.zeros((64, 64, 3), dtype=np.uint8), number / 25)
    ...     with VideoSource(path) as source:
    ...         for result in process(source, estimator):  # a list of the results would hold every frame's picture
    ...             if isinstance(result, FrameResult):
    ...                 print(result.frame.number, len(result.poses))
    0 0
    1 0
    2 0
    >>> result.frames, result.with_face  # the last one is the summary
    (3, 0)
    """
    copy = None if output is None else user_path(output)
    if copy is not None and all(source.size):  # of a source that knows its size
        require_video_size(copy, source.size)
    follow = HeadFollower(estimator, refine, eye, looks, boxes)
    summary, smoothing = Summary(source.expected, is_camera=source.is_camera), _smoothing(source, smooth, smoother)
    writing: AbstractContextManager[VideoWriter | None] = (
        nullcontext() if copy is None else VideoWriter(copy, source.fps)
    )
    with writing as writer:
        for result in _results(source, follow, smoothing, summary):
            # What still waits when the work is ended is given, and not shown.
            window = None if source.stopped else show
            yield result
            try:
                if not _shown(result, writer, window, cone):
                    source.stop()
            except KeyboardInterrupt:
                source.stop()
        summary.stopped, summary.dropped = source.stopped, source.dropped
        summary.seconds_cut = writer.seconds_cut if writer else 0.0
    yield summary


def _results(
    source: VideoSource, follow: HeadFollower, smoothing: _Smoothing, summary: Summary
) -> Iterator[FrameResult]:
    """A result for every frame that could be answered, in their order; ``summary`` counts them."""
    try:
        for frame in source:
            start = time.perf_counter()
            poses = follow(frame.image, frame.seconds)
            result = FrameResult(frame, poses, (time.perf_counter() - start) * 1e3)
            summary.frames += 1
            summary.milliseconds.append(result.milliseconds)
            summary.with_face += bool(poses)
            summary.heads = follow.count
            yield from _with_poses(smoothing.put(result, poses, frame.seconds))
    except KeyboardInterrupt:
        source.stop()
    except Exception:
        yield from _with_poses(smoothing.rest())  # what was answered before the error
        raise
    yield from _with_poses(smoothing.rest())


def _with_poses(done: Iterator[tuple[FrameResult, list[HeadPose]]]) -> Iterator[FrameResult]:
    """Results with the poses that come with them."""
    for result, poses in done:
        result.poses = poses
        yield result


def _smoothing(source: VideoSource, smooth: bool, smoother: SmootherName | None) -> _Smoothing:
    """What gives results with smoothed poses, by a name that is checked even where nothing is to be smoothed."""
    name = ("kalman" if source.is_camera else "fixed_lag") if smoother is None else smoother
    if name not in SMOOTHER_NAMES:
        raise ValueError(f"smoother: expected one of {list(SMOOTHER_NAMES)}; received {smoother!r}")
    if not smooth:
        return UndelayedSmoother(None)
    return FixedLagSmoother() if name == "fixed_lag" else UndelayedSmoother(PoseSmoother(name))


def _shown(
    result: FrameResult, writer: VideoWriter | None, show: Callable[[FrameResult, RgbImage], bool] | None, cone: bool
) -> bool:
    """Draw a frame where that is wanted; whether to go on."""
    if writer is None and show is None:
        return True
    drawn = draw_poses(result.frame.image, result.poses, cone)
    if writer is not None:
        writer.put(drawn, result.frame.seconds)
    # Not in the copy: that of the same video would be another one at every run.
    return show is None or show(result, _timed(drawn, result.milliseconds))


def _timed(image: RgbImage, milliseconds: float) -> RgbImage:
    """With how long the frame took."""
    return draw_text(image, f"{1000 / max(milliseconds, 1e-3):.0f} fps, {milliseconds:.1f} ms", (8, 22))
