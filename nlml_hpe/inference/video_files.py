"""Video files and cameras: frames with their times in, and copies that are as long as the video out."""

from __future__ import annotations

import math
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np

from nlml_hpe.files.atomic import atomic_path
from nlml_hpe.files.images import MAX_PIXELS, RgbImage, require_rgb, user_path, with_swapped_colors
from nlml_hpe.threads import submitted
from nlml_hpe.words import why_no_file

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v")
"""What a copy's name may end in."""
LONGEST_GAP_SECONDS = 600.0
"""A longer time between two frames is shortened to this in a copy, and said: it would be minutes of still picture,
and is more often a damaged time than a true one."""
_LAST_CAMERA = 2**31 - 1
"""OpenCV has 32 bits for a camera's number; of a negative one OpenCV 5 ends the whole program."""
_SIDES = (2, 8191)
"""Pixels on a side that MPEG-4 can hold."""
_USUAL_FPS = 30.0
_COUNTED_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".avi"})
"""Of containers whose header says how many frames there are."""
_MOST_HEADER_BYTES = 1 << 26
"""Of a box of a header that is read: an hour of video has a few megabytes."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<", b"ID3")
"""How files begin that FFmpeg takes for lists of videos, whatever their name, and that have it read other files of this
machine: HLS, its own lists, and DASH in XML. A tag of sound (ID3), which it passes over, may stand before them."""
_BEFORE_XML = b"\xef\xbb\xbf \t\r\n"
_HEAD_BYTES = 64
_FPS_LIMITS = (0.01, 250.0)
"""Of a header that can be believed: that of slow motion, whose mean rate may lie above its 240, can, while that of a
file which has no rate often says a thousand."""
_MOST_DAMAGED = 250
"""Frames in a row that cannot be read, after which a file is taken to have ended: at a damaged one OpenCV says the same
as at the end, and goes on when it is asked again."""
_SILENT_SECONDS, _ASKED_AGAIN_SECONDS = 2.0, 0.02
"""So long a camera may give nothing, as one that wakes up, before it is taken to have ended; and when it is asked
again."""
_PIXEL_SHAPES, _SQUARE_WITHIN = (0.25, 4.0), 0.01
"""Width of a pixel over its height, in a header that can be believed, and how near to 1 is square: a video that was
made smaller often has 1.002, for the whole pixels on its sides."""
_LEAST_COPY_FPS = 10.0
"""A slower video's copy has a multiple of its rate: where times are uneven the rate in the header is their mean, at
which frames that follow each other quickly would be left out."""


class VideoError(ValueError):
    """A video cannot be read or written, or a camera is not there; the message says which."""


class Frame(NamedTuple):
    """One image of a video.

    Attributes
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3).
    number : int
        From 0.
    seconds : float
        Time since the first frame of a camera, or since the beginning of a file.
    """

    image: RgbImage
    number: int
    seconds: float


class VideoSource:
    """Frames of a file, or of a camera by its number; a context manager.

    Parameters
    ----------
    source : str, pathlib.Path or int
        A video file, shown upright where it says which way up it is, and by square pixels where it says that its own
        are not (as of television and tape), or the number of a camera, from 0 on.

    Attributes
    ----------
    fps : float
        Frames a second.
    size : (int, int)
        Width and height of the frames in pixels; 0 where that is not known.
    expected : int
        Frames that a file's header announces; 0 where that is not known, as of a clip whose header hides some, and of
        an MP4 in fragments.
    dropped : int
        How many of them, so far, an AVI has no picture of; OpenCV passes over these.

    Raises
    ------
    VideoError
        Where there is nothing to read, as of a playlist, which names other files, for frames of more than
        ``files.images.MAX_PIXELS``, and where a file's frames are asked for a second time.

    Examples
    --------
    >>> VideoSource(Path("nowhere.mp4"))
    Traceback (most recent call last):
        ...
    nlml_hpe.inference.video_files.VideoError: nowhere.mp4: no such video file
    """

    def __init__(self, source: str | Path | int) -> None:
        place = source if isinstance(source, int) else user_path(source)
        self.is_camera, self._stopped, self._is_begun = isinstance(place, int), False, False
        self._reading, self.dropped = threading.Lock(), 0
        self._name = f"camera {place}" if self.is_camera else str(place)
        if isinstance(place, Path):
            _require_video_file(place)
        elif not 0 <= place <= _LAST_CAMERA:
            raise VideoError(f"{self._name}: expected the number of a camera, from 0 on")
        self._capture = cv2.VideoCapture(place if isinstance(place, int) else _file_name(place))
        # What no other reader knows OpenCV takes for the first of numbered images, and goes on with those beside it.
        if not self._capture.isOpened() or (not self.is_camera and self._capture.getBackendName() == "CV_IMAGES"):
            self._capture.release()
            unread = "not a video in a format that is known here, or cut short: an MP4's header often lies at its end"
            hint = "is it there, and free?" if self.is_camera else unread
            raise VideoError(f"{self._name} cannot be opened: {hint}")
        if not self.is_camera:
            # Telephones store frames as the sensor has them, and how they are to be turned. OpenCV 5 turns them by
            # itself, OpenCV 4 where it is told to.
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if _FPS_LIMITS[0] <= fps <= _FPS_LIMITS[1] else _USUAL_FPS
        width, height = (self._capture.get(each) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self._pixel_shape = 1.0 if self.is_camera else _pixel_shape(self._capture)
        self.size = round(width * self._pixel_shape), int(height)
        if self.size[0] * self.size[1] > MAX_PIXELS:  # a few kilobytes of which can fill the memory
            self._capture.release()
            raise VideoError(
                f"{self._name}: frames of at most {MAX_PIXELS} pixels are read, and these have {self.size[0]} x "
                f"{self.size[1]}; make the video smaller"
            )
        # Of other containers OpenCV's number is their duration times the rate, and sound may outlast the pictures.
        is_counted = isinstance(place, Path) and place.suffix.lower() in _COUNTED_SUFFIXES and not _is_miscounted(place)
        # Every frame of an AVI has its place in time, one that was dropped when it was recorded, too.
        self._is_even = isinstance(place, Path) and place.suffix.lower() == ".avi"
        self.expected = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))) if is_counted else 0

    def __iter__(self) -> Iterator[Frame]:
        if self._is_begun and not self.is_camera:  # which goes on
            raise VideoError(f"{self._name}: its frames were given before, and they are given once; open it again")
        self._is_begun = True
        frames = self._frames()
        if self.is_camera:  # whose frames should be as fresh as they can be
            yield from frames
            return
        # A file's next frame is read while this one is worked on.
        with ThreadPoolExecutor(1, "video") as reader:
            read = partial(next, frames, None)
            following = submitted(reader, read)
            while (frame := following.result() if following else read()) is not None and not self._stopped:
                following = submitted(reader, read)
                yield frame

    def _frames(self) -> Iterator[Frame]:
        # The first frame of a file that has no times is at 0.
        start, last, number, missed = 0.0, -1 / self.fps, 0, 0
        silent_since = 0.0
        while not self._stopped:
            with self._reading:
                asked = time.monotonic()
                there, image = self._capture.read()
                stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not there:
                silent_since = silent_since if missed else asked
                missed += 1
                if self.is_camera:
                    if time.monotonic() - silent_since > _SILENT_SECONDS:
                        return
                    time.sleep(_ASKED_AGAIN_SECONDS)
                elif missed > _MOST_DAMAGED:
                    return
                continue
            missed = 0
            if self.is_camera:
                start = start if number else time.monotonic()
                stamp = time.monotonic() - start
            seconds = stamp
            # Some containers have no times, or times that stand still: then the rate tells.
            if seconds <= last:
                seconds = last + 1 / self.fps
            if self._is_even:
                self.dropped += max(round((seconds - last) * self.fps) - 1, 0)
            shown = _by_square_pixels(np.asarray(image, dtype=np.uint8), self._pixel_shape)
            yield Frame(with_swapped_colors(shown), number, seconds)
            last, number = seconds, number + 1

    def stop(self) -> None:
        """Give no further frame: a loop over this source ends as it does at the end of the video."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    def close(self) -> None:
        """Release the file or camera."""
        with self._reading:
            self._capture.release()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _require_video_file(path: Path) -> None:
    """Raise ``VideoError`` unless this is a file, by a name that OpenCV can be given."""
    if not path.is_file():
        raise VideoError(f"{path}: {why_no_file(path, 'video file')}")
    if not _is_utf8(str(path)):
        raise VideoError(f"{str(path)!a}: OpenCV opens names in UTF-8 alone; rename the file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise VideoError(f"{path} cannot be opened: {error.strerror}") from error
    if head.lstrip(_BEFORE_XML).startswith(_PLAYLISTS):
        raise VideoError(f"{path}: a playlist or sound, where a video file is wanted; name the video itself")


def _is_utf8(name: str) -> bool:
    """Whether OpenCV can be given a file's name: bytes that are not UTF-8 are lone surrogates in Python."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _file_name(path: Path) -> str:
    """The name by which OpenCV opens a file: ``part:2.mp4`` would be an address of a protocol ``part`` to FFmpeg."""
    return os.path.join(os.curdir, path)


def _pixel_shape(capture: cv2.VideoCapture) -> float:
    """Width of a pixel over its height, in the frames that are read; 1 where the header says nothing to be believed."""
    over, under, turn = (
        capture.get(each) for each in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN, cv2.CAP_PROP_ORIENTATION_META)
    )
    shape = over / under if over > 0 and under > 0 else 1.0
    if abs(shape - 1) < _SQUARE_WITHIN or not _PIXEL_SHAPES[0] <= shape <= _PIXEL_SHAPES[1]:
        return 1.0
    # The header has that of the frames as they are stored, and they are turned as they are read.
    return 1 / shape if round(turn) % 180 == 90 else shape


def _by_square_pixels(image: RgbImage, pixel_shape: float) -> RgbImage:
    """A frame as wide as it is shown: a face that is too narrow has another pose."""
    if pixel_shape == 1.0:
        return image
    height, width = image.shape[:2]
    return np.asarray(cv2.resize(image, (max(1, round(width * pixel_shape)), height)), dtype=np.uint8)


def _is_miscounted(path: Path) -> bool:
    """Whether OpenCV's number of an MP4's or MOV's frames is not that of the frames it gives.

    Of a clip that was cut without being encoded again it counts hidden frames, too: the edit list of its header shows a
    part of what it holds. The header of one in fragments, as browsers and recorders write them, is there before the
    frames are: it announces those of the first fragment, or none, for which OpenCV takes the rate times a duration that
    sound may make longer.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return any(_first(movie, b"mvex") != b"" or _hides_frames(movie) for movie in _boxes(data, b"moov"))
        except struct.error:  # a box is missing or too short
            return False


def _hides_frames(movie: bytes) -> bool:
    """Whether the edit list of a track of pictures is shorter than the track; that of a track of sound often is."""
    movie_scale, _ = _scale_and_duration(_first(movie, b"mvhd"))
    for track in _boxes(movie, b"trak"):
        media = _first(track, b"mdia")
        scale, held = _scale_and_duration(_first(media, b"mdhd"))
        shown = sum(_shown_times(_first(_first(track, b"edts"), b"elst")))
        is_video = _first(media, b"hdlr")[8:12] == b"vide"
        # Without edits, or by one of no length, all is shown. Edits are rounded to the ticks of the whole film.
        if is_video and shown > 0 and (shown + 1) * scale < held * movie_scale:
            return True
    return False


def _first(data: bytes, kind: bytes) -> bytes:
    """Contents of the first box of a kind; empty where there is none."""
    return next(_boxes(data, kind), b"")


def _boxes(data: bytes | mmap.mmap, kind: bytes) -> Iterator[bytes]:
    """Contents of the boxes of a kind among those that ``data`` is a row of (ISO 14496-12, 4.2)."""
    place = 0
    while place + 8 <= len(data):
        size, found = struct.unpack_from(">I4s", data, place)
        begin = place + 8
        if size == 1:  # a long box
            (size,), begin = struct.unpack_from(">Q", data, begin), begin + 8
        end = place + size if size else len(data)
        if end < begin:
            return
        if found == kind and size <= _MOST_HEADER_BYTES:
            yield data[begin:end]
        place = end


def _scale_and_duration(header: bytes) -> tuple[int, int]:
    """Ticks a second, and how many there are, of a box ``mvhd`` or ``mdhd``."""
    is_long = header[:1] == b"\1"
    scale, duration = struct.unpack_from(">IQ" if is_long else ">II", header, 20 if is_long else 12)
    return scale, duration


def _shown_times(edits: bytes) -> Iterator[int]:
    """How long each edit of a box ``elst`` shows the track, in the film's ticks; empty ones show nothing."""
    entry = ">Qq4x" if edits[:1] == b"\1" else ">Ii4x"
    for duration, begin in struct.iter_unpack(entry, edits[8:]):
        if begin >= 0:
            yield duration


def require_video_name(path: Path) -> None:
    """Raise ``VideoError`` unless a copy can be written under this name."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise VideoError(f"{path}: expected a name that ends in {', '.join(VIDEO_SUFFIXES)}")
    if not _is_utf8(str(path)):
        raise VideoError(f"{str(path)!a}: OpenCV writes names in UTF-8 alone; choose another name")


def require_video_size(path: Path, size: tuple[int, int]) -> None:
    """Raise ``VideoError`` unless a copy can have frames of this width and height, in pixels."""
    least, most = _SIDES
    if not all(least <= side <= most for side in size):
        raise VideoError(
            f"{path}: a copy in MPEG-4 has {least} to {most} pixels on a side, and these frames have {size[0]} x "
            f"{size[1]}; leave the copy out"
        )


class VideoWriter:
    """Writes RGB frames as MPEG-4 at a constant rate; a context manager.

    Frames are repeated or left out so that times stay true. The file appears under its name when it is complete, or
    when its user breaks the work off; after an error there is none.

    Parameters
    ----------
    path : str or pathlib.Path
        The copy; see ``VIDEO_SUFFIXES``.
    fps : float
        Frames a second of the video; the copy has so many, or a multiple.

    Raises
    ------
    VideoError
        Where the name or the frames' size does not fit, or, at the end, where the file is not whole.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with VideoWriter(Path(folder) / "copy.mp4", 25.0) as writer:
    ...         for number in range(3):
    ...             writer.put(np.zeros((64, 64, 3), dtype=np.uint8), number / 25)
    ...     with VideoSource(Path(folder) / "copy.mp4") as copy:
    ...         print(len(list(copy)))
    3
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = user_path(path)
        require_video_name(self.path)
        self._multiple = max(math.ceil(_LEAST_COPY_FPS / fps), 1)
        self.fps, self.seconds_cut = fps * self._multiple, 0.0
        self._writer: cv2.VideoWriter | None = None
        self._written, self._start, self._last = 0, 0.0, 0.0
        self._frame: RgbImage | None = None
        self._stack = ExitStack()

    def put(self, image: RgbImage, seconds: float) -> None:
        """Write a frame of a time in seconds.

        Raises ``VideoError`` where the file cannot be made, and ``ValueError`` for an array that is no RGB image.
        """
        require_rgb(image)
        if self._writer is None:
            self._writer, self._start, self._last = self._open(image), seconds, seconds
        if self._frame is not None and image.shape != self._frame.shape:
            raise VideoError(
                f"{self.path}: a copy has frames of one size; expected {self._frame.shape}, received {image.shape}"
            )
        excess = max(seconds - self._last - LONGEST_GAP_SECONDS, 0.0)
        self._last, self._start, self.seconds_cut = seconds, self._start + excess, self.seconds_cut + excess
        due = round((seconds - self._start) * self.fps)
        # The frame before is shown until this one's time, which is the last that is known of it.
        self._repeat(due)
        self._frame = with_swapped_colors(image)

    def _repeat(self, until: int) -> None:
        """Write the last frame until the copy has so many."""
        while self._frame is not None and self._writer is not None and self._written < until:
            self._writer.write(self._frame)
            self._written += 1

    def _open(self, image: RgbImage) -> cv2.VideoWriter:
        height, width = image.shape[:2]
        require_video_size(self.path, (width, height))
        writer = cv2.VideoWriter(_file_name(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, (width, height))
        if not writer.isOpened():
            raise VideoError(f"{self.path}: OpenCV opens no video of {width} x {height} pixels to write there")
        return writer

    def _check(self) -> None:
        """OpenCV does not say when a disk is full: what was written is compared with what can be read."""
        try:
            with VideoSource(self._partial) as copy:
                readable = copy.expected
        except VideoError:  # of a file without its end nothing is readable
            readable = 0
        # Ctrl-C comes when a frame is written, and not yet counted.
        if readable < self._written:
            raise VideoError(f"{self.path}: {readable} of {self._written} frames were written; is the disk full?")

    def __enter__(self) -> VideoWriter:
        self._partial = self._stack.enter_context(atomic_path(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A copy that its user broke off is worth keeping, a half-written file after an error is not.
        keep = self._writer is not None and (kind is None or issubclass(kind, (KeyboardInterrupt, GeneratorExit)))
        if self._writer is not None:
            if keep:
                # How long the last frame is shown no file says: as long as the mean frame.
                self._repeat(round((self._last - self._start) * self.fps) + self._multiple)
            self._writer.release()
        if not keep:
            self._stack.__exit__(kind or VideoError, error or VideoError("no frame"), trace)
            return
        with self._stack:
            self._check()
