"""Pose in a video or from a camera, frame by frame: angles with their times, and a copy with axes drawn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np

from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPose, HeadPoseEstimator
from nlml_hpe.inference.smoothing import PoseSmoother
from nlml_hpe.view.draw import draw_pose, draw_text

_USUAL_FPS = 30.0
_FPS_LIMITS = (1.0, 240.0)
_MOST_REPEATS = 10


class VideoError(ValueError):
    """A video cannot be read or written, or a camera is not there; the message says which."""


class Frame(NamedTuple):
    """One image of a video, RGB uint8 (H, W, 3), with its number from 0 and its time in seconds."""

    image: RgbImage
    number: int
    seconds: float


@dataclass
class FrameResult:
    """What was found in a frame, and the milliseconds that it took, detection included."""

    frame: Frame
    poses: list[HeadPose]
    milliseconds: float


@dataclass
class Summary:
    """Of a whole video: frames read, those that its header ``expected`` (0 where unknown), with a face, and times."""

    expected: int = 0
    with_face: int = 0
    milliseconds: list[float] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """How many frames were read."""
        return len(self.milliseconds)

    def text(self) -> str:
        """The summary in words."""
        if not self.frames:
            return "no frame was read"
        median = statistics.median(self.milliseconds)
        late = float(np.quantile(self.milliseconds, 0.95))
        speed = f"{median:.1f} ms a frame (95%: {late:.1f} ms), {1000 / median:.0f} frames a second"
        lines = [f"{self.frames} frames, {self.with_face} with a face; {speed}"]
        if self.expected > self.frames:
            lines.append(f"the video ends early: {self.expected} frames were announced")
        return "; ".join(lines)


class VideoSource:
    """Frames of a file, or of a camera by its number. Raises ``VideoError`` where there is nothing to read."""

    def __init__(self, source: Path | int) -> None:
        self.is_camera = isinstance(source, int)
        name = f"camera {source}" if self.is_camera else str(source)
        if isinstance(source, Path) and not source.is_file():
            raise VideoError(f"{name}: no such video file")
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            self._capture.release()
            hint = "is it there, and free?" if self.is_camera else "not a video in a format that is known here"
            raise VideoError(f"{name} cannot be opened: {hint}")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if _FPS_LIMITS[0] <= fps <= _FPS_LIMITS[1] else _USUAL_FPS
        self.expected = 0 if self.is_camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Frame]:
        start, last, number = time.monotonic(), -1.0, 0
        while True:
            there, image = self._capture.read()
            if not there:
                return
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = time.monotonic() - start if self.is_camera else stamp
            # Some containers have no times, or times that stand still: then the rate tells.
            if seconds <= last:
                seconds = last + 1 / self.fps
            yield Frame(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8), number, seconds)
            last, number = seconds, number + 1

    def close(self) -> None:
        """Release the file or camera."""
        self._capture.release()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoWriter:
    """Writes RGB frames as MPEG-4 at a constant rate; frames are repeated or left out so that times stay true.

    The file appears under its name when it is complete.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in (".mp4", ".mov", ".m4v"):
            raise VideoError(f"{path}: expected a name that ends in .mp4, .mov or .m4v")
        self.path, self.fps = path, fps
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._written, self._first = 0, 0.0

    def put(self, image: RgbImage, seconds: float) -> None:
        """Write a frame. Raises ``VideoError`` where the file cannot be made."""
        height, width = image.shape[:2]
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer, self._first = cv2.VideoWriter(str(self._partial), code, self.fps, (width, height)), seconds
            if not self._writer.isOpened():
                raise VideoError(f"{self.path}: the video cannot be written")
        due = round((seconds - self._first) * self.fps) + 1
        for _ in range(min(max(due - self._written, 0), _MOST_REPEATS)):
            self._writer.write(np.ascontiguousarray(image[..., ::-1]))
        self._written = max(due, self._written)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
            # A copy that its user broke off is worth keeping, a half-written file after an error is not.
            if kind is None or issubclass(kind, (KeyboardInterrupt, GeneratorExit)):
                self._partial.replace(self.path)
            else:
                self._partial.unlink(missing_ok=True)


def process(
    source: VideoSource,
    estimator: HeadPoseEstimator,
    output: Path | None = None,
    smooth: bool = False,
    refine: bool = True,
    show: Callable[[FrameResult, RgbImage], bool] | None = None,
) -> Iterator[FrameResult | Summary]:
    """A result for every frame, and a ``Summary`` last; ``output`` is a copy with axes, rate and latency drawn.

    ``show`` is called with every result and its drawn frame; false ends the work, and so does Ctrl-C.
    """
    smoother, summary = PoseSmoother(), Summary(source.expected)
    writing: AbstractContextManager[VideoWriter | None] = (
        nullcontext() if output is None else VideoWriter(output, source.fps)
    )
    with writing as writer, suppress(KeyboardInterrupt):
        for frame in source:
            start = time.perf_counter()
            poses = estimator.predict(frame.image, refine)
            poses = smoother(poses, frame.seconds) if smooth else poses
            result = FrameResult(frame, poses, (time.perf_counter() - start) * 1e3)
            summary.milliseconds.append(result.milliseconds)
            summary.with_face += bool(poses)
            yield result
            if writer or show:
                drawn = drawn_frame(result)
                if writer:
                    writer.put(drawn, frame.seconds)
                if show and not show(result, drawn):
                    break
    yield summary


def drawn_frame(result: FrameResult) -> RgbImage:
    """The frame with every face's axes and angles, and how long it took."""
    image = result.frame.image
    for pose in result.poses:
        image = draw_pose(image, pose)
    rate = 1000 / max(result.milliseconds, 1e-3)
    return draw_text(image, f"{rate:.0f} fps, {result.milliseconds:.1f} ms", (8, 22))
