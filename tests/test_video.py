"""Videos: whole, broken, of uneven rate; smoothing that is still when the head is and quick when it turns."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import struct
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

import nlml_hpe.inference.video
from nlml_hpe.cli import main
from nlml_hpe.face import HeadPose
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference import video_files
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fixed_lag import SmootherName
from nlml_hpe.inference.kalman import KalmanFilter
from nlml_hpe.inference.smoothing import SMOOTHERS, FilterName, PoseSmoother, RotationFilter
from nlml_hpe.inference.video import FrameResult, Summary, process
from nlml_hpe.inference.video_files import LONGEST_GAP_SECONDS, Frame, VideoError, VideoSource, VideoWriter
from nlml_hpe.rotation import Angles, geodesic_degrees, rotation_from_angles, sigma_from_covariance

FPS = 25
COUNT = 12
_VIDEO_CAPTURE = cv2.VideoCapture


@pytest.fixture(scope="module")
def estimator() -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator(max_faces=1, tracking=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, photo: RgbImage) -> Path:
    """The photograph, slowly moving to the right; the face leaves for two frames."""
    path = tmp_path_factory.mktemp("video") / "photo.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (400, 320))
    for number in range(COUNT):
        image = np.full((320, 400, 3), 100, dtype=np.uint8)
        if number not in (5, 6):
            image[:, number * 4 : number * 4 + 300] = cv2.resize(photo[:400, :375], (300, 320))[..., ::-1]
        writer.write(image)
    writer.release()
    return path


def played(path: Path, estimator: HeadPoseEstimator, output: Path | None = None) -> Summary:
    with VideoSource(path) as source:
        *_, summary = process(source, estimator, output)
    assert isinstance(summary, Summary)
    return summary


def test_every_frame_has_its_time_and_faces(estimator: HeadPoseEstimator, video: Path, tmp_path: Path) -> None:
    output = tmp_path / "drawn.mp4"
    with VideoSource(video) as source:
        *results, summary = process(source, estimator, output)
    assert isinstance(summary, Summary)
    assert (summary.frames, summary.expected, summary.with_face) == (COUNT, COUNT, COUNT - 2)
    frames = [result for result in results if isinstance(result, FrameResult)]
    np.testing.assert_allclose([r.frame.seconds for r in frames], np.arange(COUNT) / FPS, atol=2e-3)
    assert [bool(r.poses) for r in frames] == [number not in (5, 6) for number in range(COUNT)]
    with VideoSource(output) as copy:
        drawn = list(copy)
    assert len(drawn) == COUNT
    assert drawn[0].image.shape == (320, 400, 3)
    # Axes were drawn: strong colours that the photograph does not have there.
    assert np.abs(drawn[0].image.astype(int) - frames[0].frame.image).max() > 100
    assert not list(tmp_path.glob(".*"))


def test_a_camera_that_runs_for_months_does_not_fill_the_memory(
    estimator: HeadPoseEstimator, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame's time was kept: 80 MB a day."""
    monkeypatch.setattr(nlml_hpe.inference.video, "_TIMED_FRAMES", 3)
    summary = played(video, estimator)
    assert (summary.frames, len(summary.milliseconds)) == (COUNT, 3)
    assert f"{COUNT} frames" in summary.text()


def test_tracking_gives_what_detection_gives(photo: RgbImage) -> None:
    with HeadPoseEstimator.from_pretrained() as fresh:
        (expected,) = fresh.predict(photo)
    with HeadPoseEstimator(max_faces=1, tracking=True) as following:
        for _ in range(3):
            (tracked,) = following.predict(photo)
    # The region of interest comes from the landmarks before and not from the detector: a degree or so.
    assert geodesic_degrees(tracked.rotation, expected.rotation) < 3


@pytest.mark.parametrize("damage", ["missing", "empty", "text"])
def test_what_is_no_video_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "talk.mp4"
    if damage != "missing":
        path.write_text("" if damage == "empty" else "no video")
    with pytest.raises(VideoError, match=r"talk\.mp4"):
        VideoSource(path)


def test_a_file_that_lost_its_header_with_its_end_is_said_to_be_cut_short(video: Path, tmp_path: Path) -> None:
    content = video.read_bytes()
    path = tmp_path / "talk.mp4"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match=r"talk\.mp4 cannot be opened: .*cut short"):
        VideoSource(path)


@pytest.mark.parametrize("before", [b"", b"ID3\4\0\0\0\0\0\n" + bytes(10)])
@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile a.mp4\n"]
)
def test_a_playlist_does_not_show_other_files(video: Path, tmp_path: Path, before: bytes, text: str) -> None:
    """FFmpeg goes by the contents and not by the name: what was uploaded as a video could show any on the machine."""
    (tmp_path / "a.mp4").write_bytes(video.read_bytes())
    path = tmp_path / "talk.mp4"
    path.write_bytes(before + text.format(video).encode())
    with pytest.raises(VideoError, match=r"talk\.mp4: a playlist"):
        VideoSource(path)


def test_an_image_does_not_show_those_of_the_next_numbers(tmp_path: Path) -> None:
    """What FFmpeg does not read OpenCV takes for the first of numbered images, whatever the suffix."""
    for number in (1, 2):
        (tmp_path / f"talk{number}.mp4").write_bytes(
            b"P7\nWIDTH 8\nHEIGHT 8\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(192)
        )
    assert cv2.VideoCapture(str(tmp_path / "talk1.mp4")).getBackendName() == "CV_IMAGES"
    with pytest.raises(VideoError, match=r"talk1\.mp4 cannot be opened"):
        VideoSource(tmp_path / "talk1.mp4")


def test_frames_that_fill_the_memory_are_refused(tmp_path: Path) -> None:
    Image.new("1", (9500, 9500)).save(tmp_path / "talk.mp4", "PNG")  # of 25 kB
    with pytest.raises(VideoError, match=r"talk\.mp4: frames of at most .* these have 9500 x 9500"):
        VideoSource(tmp_path / "talk.mp4")


def turn_stored(path: Path, image: RgbImage, is_turned: bool = True) -> None:
    """A video as a telephone that is held upright makes it: frames lie on their side, the header turns them back."""
    stored = np.ascontiguousarray((np.rot90(image) if is_turned else image)[..., ::-1])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, stored.shape[1::-1])
    for _ in range(3):
        writer.write(stored)
    writer.release()
    if not is_turned:
        return
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track's header: nine numbers, of which the third column has 30 bits
    one = 1 << 16
    struct.pack_into(">9i", data, matrix, 0, one, 0, -one, 0, 0, image.shape[0] << 16, 0, 1 << 30)
    path.write_bytes(data)


def test_a_video_is_as_upright_as_its_header_says(
    estimator: HeadPoseEstimator, tmp_path: Path, photo: RgbImage
) -> None:
    """OpenCV 4 leaves it lying on its side, where it is not told otherwise, and OpenCV 5 does not."""
    image = np.ascontiguousarray(photo[:320, :256])
    turn_stored(tmp_path / "phone.mp4", image)
    with VideoSource(tmp_path / "phone.mp4") as source:
        assert source.size == (256, 320)
        frame = next(iter(source)).image
    assert frame.shape == image.shape
    assert np.abs(frame.astype(int) - image).mean() < 8
    assert played(tmp_path / "phone.mp4", estimator, tmp_path / "copy.mp4").frames == 3
    with VideoSource(tmp_path / "copy.mp4") as copy:
        assert next(iter(copy)).image.shape == image.shape


def say_shape(path: Path, shape: float) -> None:
    """That a video's pixels are so much wider than they are high: its header shows the frames so wide."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 80
    (width,) = struct.unpack_from(">I", data, place)
    struct.pack_into(">I", data, place, round(width * shape))
    path.write_bytes(data)


@pytest.mark.parametrize(("shape", "wide"), [(4 / 3, 4 / 3), (0.9, 0.9), (1.005, 1.0), (7.0, 1.0)])
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_video_is_shown_by_square_pixels(
    shape: float, wide: float, is_turned: bool, estimator: HeadPoseEstimator, tmp_path: Path, photo: RgbImage
) -> None:
    """A face of 1440 x 1080 pixels that are 4:3 was answered as narrow as it is stored, some 4 degrees off."""
    path, upright = tmp_path / "tape.mp4", np.ascontiguousarray(photo[:320, :320])
    stored = (320, round(320 / wide)) if is_turned else (round(320 / wide), 320)
    turn_stored(path, np.asarray(cv2.resize(upright, stored), dtype=np.uint8), is_turned)
    say_shape(path, shape)
    with VideoSource(path) as source:
        width, height = source.size
        image = next(iter(source)).image
    assert image.shape[:2] == (height, width)
    # Lying on its side the frame is as wide as the stored one's height, and shown by the same shape of its pixels.
    assert width / height == pytest.approx(1.0, abs=0.01)
    expected = cv2.resize(upright, (width, height)).astype(int)
    assert np.abs(expected - image).mean() < 8
    played(path, estimator, tmp_path / "copy.mp4")
    with VideoSource(tmp_path / "copy.mp4") as copy:
        assert copy.size == (width // 2 * 2, height // 2 * 2)


def test_a_file_without_times_begins_at_nought(tmp_path: Path, photo: RgbImage) -> None:
    """JPEG after JPEG, and nothing else; the first frame was at -0.96 s."""
    (tmp_path / "raw.mjpeg").write_bytes(cv2.imencode(".jpg", photo[:64, :64, ::-1])[1].tobytes() * 5)
    with VideoSource(tmp_path / "raw.mjpeg") as source:
        seconds = [frame.seconds for frame in source]
        np.testing.assert_allclose(seconds, np.arange(5) / source.fps, atol=1e-9)


def test_the_copy_of_a_video_is_the_same_at_every_run_and_the_window_says_how_long_a_frame_took(
    estimator: HeadPoseEstimator, video: Path, tmp_path: Path
) -> None:
    """The time stood in the copy, too."""
    shown: list[RgbImage] = []

    def show(_: FrameResult, image: RgbImage) -> bool:
        shown.append(image)
        return True

    for name in ("one.mp4", "other.mp4"):
        with VideoSource(video) as source:
            list(process(source, estimator, tmp_path / name, show=show))
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()
    with VideoSource(tmp_path / "one.mp4") as copy:
        written = next(iter(copy)).image
    assert np.abs(shown[0].astype(int) - written)[:24].max() > 150


def test_a_video_is_answered_smoothed_and_drawn_as_it_is_asked_for(estimator: HeadPoseEstimator, video: Path) -> None:
    """Each way says something else of the first frames, and the same one the same."""

    def processed(**asked: Any) -> tuple[np.ndarray, np.ndarray]:
        shown: list[RgbImage] = []

        def show(result: FrameResult, image: RgbImage) -> bool:
            shown.append(image[30:])  # below the time
            return result.frame.number < 3

        with VideoSource(video) as source:
            *results, _ = process(source, estimator, show=show, **asked)
        poses = [result.poses[0].rotation for result in results if isinstance(result, FrameResult)]
        return np.array(poses), np.array(shown)

    smoothed: list[dict[str, Any]] = [{"smooth": True, "smoother": name} for name in SMOOTHERS]
    ways = [{}, {"refine": False}, {"eye": "image"}, {"eye": "landmarks"}, {"looks": 3}, *smoothed]
    (plain, drawn), *others = (processed(**asked) for asked in ways)
    assert plain.shape == (4, 3, 3)
    found = [plain, *(poses for poses, _ in others)]
    for row, one in enumerate(found):
        assert all(np.abs(one - other).max() > 1e-5 for other in found[:row]), ways[row]
    searched: list[int] = []
    poses, with_cones = processed(cone=True, boxes=lambda image: searched.append(len(image)) or [])
    np.testing.assert_allclose(poses, plain, atol=1e-9)
    assert searched
    assert (with_cones != drawn).any()


def test_paths_may_be_text(estimator: HeadPoseEstimator, video: Path, tmp_path: Path) -> None:
    with VideoSource(str(video)) as source:
        assert source.expected == COUNT
        source_results = process(source, estimator, str(tmp_path / "copy.mp4"))
        assert isinstance(next(source_results), FrameResult)
        source.stop()
        assert isinstance(next(source_results), Summary)
    assert len(written(tmp_path / "copy.mp4")[0]) == 1
    with pytest.raises(VideoError, match=r"nowhere\.mp4: no such video file"):
        VideoSource(str(tmp_path / "nowhere.mp4"))


def test_frames_are_given_once_and_a_second_loop_says_so(estimator: HeadPoseEstimator, video: Path) -> None:
    with VideoSource(video) as source:
        assert len(list(source)) == COUNT
        with pytest.raises(VideoError, match=r"photo\.mp4: its frames were given before"):
            list(source)
        with pytest.raises(VideoError, match="given before"):
            list(process(source, estimator))


class Camera:
    """A camera, which no test has: a video that takes a second until its first frame, and is then unplugged."""

    path: Path

    def __init__(self, number: int) -> None:
        self._video, self._is_warm = _VIDEO_CAPTURE(str(self.path)), False

    def read(self) -> tuple[bool, NDArray[np.generic]]:
        time.sleep(0.0 if self._is_warm else 1.0)
        self._is_warm = True
        return self._video.read()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video, name)


def test_a_camera_that_is_unplugged_is_said_and_its_time_begins_with_its_first_frame(
    estimator: HeadPoseEstimator, video: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Camera, "path", video, raising=False)
    monkeypatch.setattr(video_files, "_SILENT_SECONDS", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "VideoCapture", Camera)
        source = VideoSource(0)
    with source:
        *results, summary = process(source, estimator)
    assert isinstance(summary, Summary)
    assert isinstance(results[0], FrameResult)
    assert results[0].frame.seconds < 0.1
    assert summary.ends_early
    assert "the camera gives no more frames" in summary.text()
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    assert main(["video", "--webcam", "0"]) == 1
    assert "the camera gives no more frames" in capfd.readouterr().err


def test_a_camera_is_smoothed_by_the_kalman_filter_and_a_file_by_the_frames_around(video: Path) -> None:
    """Where nobody says by what: One-Euro lags, and a picture of a camera is not to come late."""
    turned = noisy(30.0, 12, 2.0, 60.0)
    pose = HeadPose(0.0, 0.0, 0.0, np.eye(3), None, False, np.empty((0, 3)), (0.0, 0.0, 9.0, 9.0), 0.5, "image", 1)
    frames = [[dataclasses.replace(pose, rotation=rotation, covariance=spread(2.0))] for rotation in turned]

    def smoothed(camera: bool, smoother: SmootherName | None) -> tuple[list[int], NDArray[np.float64]]:
        """How many frames are done after each, and their poses."""
        with VideoSource(video) as source:
            source.is_camera = camera
            smoothing = nlml_hpe.inference.video._smoothing(source, True, smoother)
        done = [list(smoothing.put(None, poses, number / FPS)) for number, poses in enumerate(frames)]
        every = [*itertools.chain(*done), *smoothing.rest()]
        return [len(some) for some in done], np.array([poses[0].rotation for _, poses in every])

    for camera, name in ((True, "kalman"), (False, "fixed_lag")):
        (at_once, found), (expected_at_once, expected) = smoothed(camera, None), smoothed(camera, name)
        assert at_once == expected_at_once
        np.testing.assert_array_equal(found, expected)
        assert at_once[0] == camera


@pytest.mark.parametrize("silent", [1, 3])
def test_a_camera_that_gives_nothing_for_a_moment_goes_on(
    silent: int, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it wakes up, or amid its frames: one read without a frame was taken for its end."""
    read, reads = Camera.read, 0

    def now_and_then(camera: Camera) -> tuple[bool, NDArray[np.generic]]:
        nonlocal reads
        reads += 1
        return (False, np.empty(0)) if reads == silent else read(camera)

    monkeypatch.setattr(Camera, "path", video, raising=False)
    monkeypatch.setattr(Camera, "read", now_and_then)
    monkeypatch.setattr(video_files, "_SILENT_SECONDS", 0.5)
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "VideoCapture", Camera)
        source = VideoSource(0)
    with VideoSource(video) as file, source:
        assert len(list(source)) == len(list(file))


@pytest.mark.skipif(os.name == "nt", reason="names have no colon there")
def test_a_name_with_a_colon_is_a_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg took what stands before it for a protocol: the file was no video, and of http: it asked the network."""
    monkeypatch.chdir(tmp_path)
    for name in ("part:2.mp4", "http:clip.mp4", "day:1/clip.mp4"):
        with VideoWriter(name, FPS) as writer:
            writer.put(np.zeros((64, 64, 3), dtype=np.uint8), 0.0)
        with VideoSource(name) as source:
            assert len(list(source)) == 1


def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(VideoError, match="camera 97 cannot be opened"):
        VideoSource(97)


@pytest.mark.parametrize("number", [-1, 2**31])
def test_what_is_no_camera_s_number_is_refused(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    """At -1 OpenCV 5 ended the program by a segmentation fault, at 2**31 the command by a traceback."""
    assert main(["video", "--webcam", str(number)]) == 1
    assert capfd.readouterr().err == f"error: camera {number}: expected the number of a camera, from 0 on\n"


def test_a_video_that_breaks_off_is_used_as_far_as_it_goes(
    estimator: HeadPoseEstimator, tmp_path: Path, photo: RgbImage
) -> None:
    """An AVI's header promises frames that its tail no longer holds."""
    path = tmp_path / "broken.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (300, 320))
    for _ in range(COUNT):
        writer.write(cv2.resize(photo[:400, :375], (300, 320))[..., ::-1])
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoSource(path) as source:
        *results, summary = process(source, estimator)
    assert isinstance(summary, Summary)
    assert 0 < summary.frames < COUNT
    assert len(results) == summary.frames
    assert summary.expected == COUNT
    assert "ends early" in summary.text()
    assert main(["video", str(path), str(tmp_path / "out.mp4")]) == 1
    assert len(written(tmp_path / "out.mp4")[0]) >= summary.frames


def with_empty_frames(path: Path, numbers: tuple[int, ...]) -> None:
    """An AVI whose frames of these numbers are empty, as of those that a recorder has dropped."""
    data = path.read_bytes()
    begin = data.index(b"movi") - 8
    movie, index, place = b"movi", b"", begin + 12
    for number in range(COUNT):
        kind, size = struct.unpack_from("<4sI", data, place)
        kept = b"" if number in numbers else data[place + 8 : place + 8 + size + size % 2]
        size, place = min(size, len(kept)), place + 8 + size + size % 2
        index += kind + struct.pack("<III", 16, len(movie), size)
        movie += kind + struct.pack("<I", size) + kept
    body = data[8:begin] + b"LIST" + struct.pack("<I", len(movie)) + movie
    body += b"idx1" + struct.pack("<I", len(index)) + index
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_damaged_frame_is_passed_over(suffix: str, tmp_path: Path) -> None:
    """A recording was read as far as its first damaged frame: OpenCV says there what it says at the end."""
    path = tmp_path / f"damaged{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 64))
    for number in range(COUNT):
        writer.write(grey(20 * number))
    writer.release()
    begin, end = b"\xff\xd8\xff", b"\xff\xd9"  # of a JPEG
    *before, damaged, after = path.read_bytes().split(begin, 6)
    picture, rest = damaged.rsplit(end, 1)
    path.write_bytes(begin.join([*before, bytes(len(picture)) + end + rest, after]))
    with VideoSource(path) as source:
        times = [frame.seconds for frame in source]
    np.testing.assert_allclose(times, [number / FPS for number in range(COUNT) if number != 4], atol=1e-6)


def test_an_avi_with_dropped_frames_is_whole(estimator: HeadPoseEstimator, tmp_path: Path) -> None:
    """Its header counts them, and OpenCV passes over them: it was said to end early, with exit code 1."""
    path = tmp_path / "dropped.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 64))
    for number in range(COUNT):
        writer.write(grey(20 * number))
    writer.release()
    with_empty_frames(path, (2, 6, 7))
    summary = played(path, estimator)
    assert (summary.frames, summary.expected, summary.ends_early) == (COUNT - 3, COUNT, False)
    assert summary.dropped == 3
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    summary = played(path, estimator)
    assert summary.ends_early


def test_a_container_that_counts_no_frames_does_not_end_early(estimator: HeadPoseEstimator, tmp_path: Path) -> None:
    """Of Matroska OpenCV reckons frames by the duration, which sound may make longer than the pictures."""
    path = tmp_path / "whole.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 64))
    for _ in range(COUNT):
        writer.write(grey(90))
    writer.release()
    data = bytearray(path.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3  # the element Duration, a double of milliseconds
    (milliseconds,) = struct.unpack_from(">d", data, place)
    struct.pack_into(">d", data, place, 2 * milliseconds)
    path.write_bytes(data)
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == pytest.approx(2 * COUNT, abs=1)
    capture.release()
    summary = played(path, estimator)
    assert (summary.frames, summary.ends_early) == (COUNT, False)


def cut_stored(path: Path, begin: float, seconds: float) -> None:
    """The clip cut to a part as telephones and ``ffmpeg -c copy`` do: all is there, an edit list shows the part."""
    data = bytearray(path.read_bytes())
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    place = data.index(b"elst") + 12  # after version and number: the first edit's length, in ms here, and its beginning
    struct.pack_into(">II", data, place, round(1000 * seconds), round(scale * begin))
    path.write_bytes(data)


def test_a_clip_that_was_cut_is_whole(estimator: HeadPoseEstimator, video: Path, tmp_path: Path) -> None:
    """Its header counts the frames that it hides, too: it was said to end early, with exit code 1."""
    path = tmp_path / "cut.mp4"
    path.write_bytes(video.read_bytes())
    cut_stored(path, begin=2 / FPS, seconds=6 / FPS)
    summary = played(path, estimator)
    assert (0 < summary.frames < COUNT, summary.expected, summary.ends_early) == (True, 0, False)
    assert main(["video", str(path), str(tmp_path / "copy.mp4")]) == 0
    # Edits of the whole clip, one tick short as it is rounded, and of no length, which stands for all, hide nothing.
    for seconds in (COUNT / FPS, COUNT / FPS - 1e-3, 0.0):
        cut_stored(path, begin=0.0, seconds=seconds)
        with VideoSource(path) as source:
            assert source.expected == COUNT


def box(kind: bytes, *numbers: int, contents: bytes = b"") -> bytes:
    """A box of a header: four bytes a number, then other boxes."""
    return struct.pack(f">I4s{len(numbers)}I", 8 + 4 * len(numbers) + len(contents), kind, *numbers) + contents


def add_fragment(path: Path, times: int) -> None:
    """As recorders go on that write in fragments: the first frame so many times again, which the header knows not."""
    data = path.read_bytes()
    size = struct.unpack_from(">I", data, data.index(b"stsz") + 16)[0]
    length = struct.unpack_from(">I", data, data.index(b"stts") + 16)[0]
    first = struct.unpack_from(">I", data, data.index(b"stco") + 12)[0]
    place = data.index(b"moov") - 4
    movie = bytearray(data[place:] + box(b"mvex", contents=box(b"trex", 0, 1, 1, length, size, 0)))
    struct.pack_into(">I", movie, 0, len(movie))  # the header is the last box of the file
    track = box(b"tfhd", 0x020000, 1), box(b"trun", 1, times, 76)  # the frames begin 8 bytes after the fragment
    fragment = box(b"moof", contents=box(b"mfhd", 0, 1) + box(b"traf", contents=b"".join(track)))
    assert len(fragment) == 76 - 8
    path.write_bytes(data[:place] + movie + fragment + box(b"mdat", contents=data[first : first + size] * times))


def test_a_file_in_fragments_is_whole(estimator: HeadPoseEstimator, video: Path, tmp_path: Path) -> None:
    """Its header announces the frames of the first fragment, and by the sound's length OpenCV reckons too many."""
    path = tmp_path / "recorded.mp4"
    path.write_bytes(video.read_bytes())
    add_fragment(path, times=5)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == COUNT
    summary = played(path, estimator)
    assert (summary.frames, summary.expected, summary.ends_early) == (COUNT + 5, 0, False)


@pytest.mark.parametrize("length", [0, 1, 9, 24, 1 << 31])
def test_a_damaged_edit_list_hides_nothing(length: int, video: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    data = bytearray(video.read_bytes())
    struct.pack_into(">I", data, data.index(b"elst") - 4, length)
    path.write_bytes(data)
    with VideoSource(path) as source:
        assert source.expected == COUNT


def test_a_copy_has_frames_of_one_size(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10.0) as writer:
        writer.put(grey(10), 0.0)
        with pytest.raises(VideoError, match="frames of one size"):
            writer.put(grey(10)[:32], 0.1)


def grey(level: int) -> RgbImage:
    return np.full((64, 64, 3), level, dtype=np.uint8)


def written(path: Path) -> tuple[list[int], float]:
    """Mean level of every frame of a copy, and its length in seconds."""
    with VideoSource(path) as source:
        levels = [int(frame.image.mean()) for frame in source]
        return levels, len(levels) / source.fps


def test_uneven_times_keep_their_length(tmp_path: Path) -> None:
    """Frames at 0, 0.1 and 0.5 s make a constant 10 frames a second; each is shown until the next one's time."""
    path = tmp_path / "even.mp4"
    with VideoWriter(path, 10.0) as writer:
        for level, seconds in ((20, 0.0), (120, 0.1), (220, 0.5)):
            writer.put(grey(level), seconds)
    # The codec changes grey levels by a few.
    np.testing.assert_allclose(written(path)[0], [20, 120, 120, 120, 120, 220], atol=8)


def test_the_copy_of_a_slow_clip_is_as_long(estimator: HeadPoseEstimator, tmp_path: Path) -> None:
    """Half a frame a second for ten seconds: its copy was 1.4 s long."""
    clip = cv2.VideoWriter(str(tmp_path / "slow.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 0.5, (64, 64))
    for level in (20, 70, 120, 170, 220):
        clip.write(grey(level))
    clip.release()
    assert played(tmp_path / "slow.mp4", estimator, tmp_path / "copy.mp4").frames == 5
    assert written(tmp_path / "copy.mp4")[1] == pytest.approx(10, abs=0.1)


def test_the_copy_of_slow_motion_has_all_frames(tmp_path: Path) -> None:
    """Its header's mean rate, a little above 240, was not believed: the copy had an eighth of the frames."""
    clip = cv2.VideoWriter(str(tmp_path / "slow.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 240.1, (64, 64))
    for level in range(100, 124):
        clip.write(grey(level))
    clip.release()
    with VideoSource(tmp_path / "slow.mp4") as source, VideoWriter(tmp_path / "copy.mp4", source.fps) as copy:
        for frame in source:
            copy.put(frame.image, frame.seconds)
    assert len(written(tmp_path / "copy.mp4")[0]) == 24


def test_a_gap_of_two_seconds_stays_one(estimator: HeadPoseEstimator, tmp_path: Path) -> None:
    """A clip of uneven times: its copy's gap of 2 s was half a second."""
    first, *rest = (Image.fromarray(grey(level)) for level in (20, 70, 120, 170, 220))
    times = [100, 100, 2000, 100, 100]
    first.save(tmp_path / "gap.gif", save_all=True, append_images=rest, duration=times)
    with VideoSource(tmp_path / "gap.gif") as source:
        np.testing.assert_allclose([frame.seconds for frame in source], [0, 0.1, 0.2, 2.2, 2.3], atol=1e-3)
    played(tmp_path / "gap.gif", estimator, tmp_path / "copy.mp4")
    levels, seconds = written(tmp_path / "copy.mp4")
    third = sum(95 < level < 150 for level in levels)
    assert third / len(levels) * seconds == pytest.approx(2, abs=0.15)
    # The last frame is shown for as long as the mean frame, 0.48 s, where the file says 0.1.
    assert seconds == pytest.approx(2.4 + 0.4, abs=0.3)


class Dropping(VideoSource):
    """A source that drops frames, as a camera does whose frames are not fetched in time."""

    kept = (0, 1, 5, 6, 11)

    def __iter__(self) -> Iterator[Frame]:
        return (frame for frame in super().__iter__() if frame.number in self.kept)


def test_dropped_frames_do_not_shorten_the_copy(estimator: HeadPoseEstimator, video: Path, tmp_path: Path) -> None:
    with Dropping(video) as source:
        *results, summary = process(source, estimator, tmp_path / "copy.mp4")
    assert isinstance(summary, Summary)
    assert (len(results), summary.frames) == (len(Dropping.kept), len(Dropping.kept))
    levels, seconds = written(tmp_path / "copy.mp4")
    assert len(levels) == COUNT
    assert seconds == pytest.approx(COUNT / FPS)
    # What was dropped is the frame before, shown on: 5 and 6 are grey, and so is all until 11.
    assert len(set(levels[5:11])) == 1
    assert levels[5] != levels[11]


def test_a_damaged_time_does_not_fill_the_disk_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "jump.mp4"
    with VideoWriter(path, 10.0) as writer:
        for level, seconds in ((20, 0.0), (120, LONGEST_GAP_SECONDS + 5000.0), (220, LONGEST_GAP_SECONDS + 5000.1)):
            writer.put(grey(level), seconds)
    levels, seconds = written(path)
    assert seconds == pytest.approx(LONGEST_GAP_SECONDS + 0.2, abs=0.01)
    assert levels[-3:] == sorted(levels[-3:])
    text = Summary(3, frames=3, milliseconds=deque([1.0] * 3), seconds_cut=writer.seconds_cut).text()
    assert "the copy is 5000 s shorter" in text


def test_a_copy_that_cannot_be_written_is_known_before_the_first_frame(
    estimator: HeadPoseEstimator, video: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with VideoSource(video) as source:
        with pytest.raises(OSError, match=r"copy\.mp4"):
            next(process(source, estimator, tmp_path / "file" / "copy.mp4"))
        assert next(iter(source)).number == 0
    assert (tmp_path / "file").read_text() == "no folder"


def test_frames_that_no_copy_can_have_are_known_before_the_first_one(
    estimator: HeadPoseEstimator, tmp_path: Path
) -> None:
    """OpenCV's AVI writer takes frames of one pixel, MPEG-4 does not."""
    path = tmp_path / "thin.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (1, 64))
    for _ in range(2):
        writer.write(np.zeros((64, 1, 3), dtype=np.uint8))
    writer.release()
    with VideoSource(path) as source:
        with pytest.raises(VideoError, match=r"copy\.mp4: .* 2 to 8191 pixels on a side, and these frames have 1 x 64"):
            next(process(source, estimator, tmp_path / "copy.mp4"))
        assert len(list(process(source, estimator))) == 3
    with pytest.raises(VideoError, match="8192 x 4"), VideoWriter(tmp_path / "wide.mp4", 25.0) as copy:
        copy.put(np.zeros((4, 8192, 3), dtype=np.uint8), 0.0)
    assert [each.name for each in tmp_path.iterdir()] == ["thin.avi"]


def test_a_stopped_source_ends_the_work_and_keeps_the_copy(
    estimator: HeadPoseEstimator, video: Path, tmp_path: Path
) -> None:
    with VideoSource(video) as source:
        for result in process(source, estimator, tmp_path / "copy.mp4"):
            if isinstance(result, FrameResult) and result.frame.number == 3:
                source.stop()
    assert isinstance(result, Summary)
    assert (result.frames, result.stopped, result.ends_early) == (4, True, False)
    assert f"stopped after 4 of {COUNT}; what was done until then is kept" in result.text()
    assert len(written(tmp_path / "copy.mp4")[0]) == 4


def test_a_name_that_opencv_cannot_open_is_named(tmp_path: Path) -> None:
    odd = tmp_path / "caf\udce9.mp4"
    try:
        odd.touch()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes names in UTF-8 alone")
    for attempt in (VideoSource, lambda path: VideoWriter(path, 25.0)):
        with pytest.raises(VideoError, match="UTF-8 alone"):
            attempt(odd)


def test_a_copy_that_is_broken_off_is_kept_and_one_that_failed_is_not(tmp_path: Path) -> None:

    def break_off(path: Path, error: type[BaseException]) -> None:
        with VideoWriter(path, 10.0) as writer:
            writer.put(np.zeros((64, 64, 3), dtype=np.uint8), 0.0)
            raise error

    for error, kept in ((KeyboardInterrupt, True), (GeneratorExit, True), (RuntimeError, False)):
        path = tmp_path / f"{error.__name__}.mp4"
        with pytest.raises(error):
            break_off(path, error)
        assert [p.name for p in tmp_path.glob(f"*{error.__name__}*")] == ([path.name] if kept else [])


def test_ctrl_c_while_a_frame_is_written_keeps_the_copy(tmp_path: Path) -> None:
    """The frame was there, but not counted, for which a full disk was blamed and the copy thrown away."""

    class Interrupted:
        def __init__(self, writer: cv2.VideoWriter) -> None:
            self.release, self._write = writer.release, writer.write

        def write(self, frame: RgbImage) -> None:
            self._write(frame)
            if count == 3:
                raise KeyboardInterrupt

    with VideoWriter(tmp_path / "copy.mp4", 25.0) as writer:
        for count in range(6):
            with contextlib.suppress(KeyboardInterrupt):
                writer.put(np.full((64, 64, 3), 20 * count, dtype=np.uint8), count / 25)
            if count == 0:
                assert writer._writer is not None
                writer._writer = Interrupted(writer._writer)  # type: ignore[assignment]
    with VideoSource(tmp_path / "copy.mp4") as copy:
        assert copy.expected == 7  # the frame that it was is shown twice


def test_a_name_that_no_container_fits_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"\.mp4"):
        VideoWriter(tmp_path / "out.txt", 25.0)


def test_a_still_head_is_still_and_a_turning_one_is_followed() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(0, 4, 1 / 30)
    degrees = np.clip((times - 2) * 90, 0, 60)
    true = Rotation.from_euler("y", degrees[:, None], degrees=True)
    seen = true * Rotation.from_rotvec(rng.normal(0, np.radians(1.0), (len(times), 3)))
    smooth = RotationFilter()
    found = np.array([smooth(matrix, time) for matrix, time in zip(seen.as_matrix(), times, strict=True)])
    error, raw = (geodesic_degrees(given, true.as_matrix()) for given in (found, seen.as_matrix()))
    still = (times > 1) & (times < 2)
    assert error[still].mean() < 0.55 * raw[still].mean()
    # It lags by at most a tenth of a second at 90 degrees a second.
    assert error.max() < 9 + 3


@pytest.mark.parametrize("smoother", list(SMOOTHERS))
def test_time_that_stands_still_or_jumps_does_no_harm(smoother: FilterName) -> None:
    smooth, other = SMOOTHERS[smoother](), SMOOTHERS[smoother]()
    first, second = Rotation.identity().as_matrix(), Rotation.from_euler("y", 40, degrees=True).as_matrix()
    smooth(first, 0.0)
    np.testing.assert_allclose(smooth(second, 0.0), first, atol=1e-12)
    np.testing.assert_allclose(smooth(second, 10.0), second, atol=1e-12)
    # A time that goes back is no step, and the next step is not longer for it.
    other(second, 10.0)
    smooth(second, 9.0)
    np.testing.assert_allclose(smooth(first, 10.02), other(first, 10.02), atol=1e-12)


def spread(degrees: float) -> NDArray[np.float64]:
    """Covariance of an error of so many degrees about each axis."""
    return np.radians(degrees) ** 2 * np.eye(3)


def test_the_kalman_filter_is_as_still_as_one_euro_and_follows_sooner() -> None:
    """A head at rest, then one that turns by 60 degrees a second, with a degree of noise in every frame."""
    times = np.arange(200) / 25
    degrees = np.maximum(times - 4, 0) * 60
    rng = np.random.default_rng(0)
    true = Rotation.from_euler("y", degrees[:, None], degrees=True)
    seen = (Rotation.from_rotvec(rng.normal(0, np.radians(1.0), (len(times), 3))) * true).as_matrix()
    jitter, behind = {}, {}
    for name, smooth in (("one_euro", RotationFilter()), ("kalman", KalmanFilter())):
        found = np.array([smooth(matrix, time, spread(2.5)) for matrix, time in zip(seen, times, strict=True)])
        error = geodesic_degrees(found, true.as_matrix())
        jitter[name] = float(np.sqrt((geodesic_degrees(found[26:99], found[25:98]) ** 2).mean()))
        behind[name] = float(error[125:].mean())
    raw = float(np.sqrt((geodesic_degrees(seen[26:99], seen[25:98]) ** 2).mean()))
    assert jitter["kalman"] < raw / 3
    # One-Euro's mean lags behind a steady turn by a share of its speed; a velocity does not.
    assert behind["kalman"] < behind["one_euro"] / 2


def test_the_kalman_filter_holds_a_head_at_rest_and_lets_it_go_at_once() -> None:
    """Jitter far below that of a filter which only knows heads that turn, and no more lag when the head turns."""
    times = np.arange(250) / 25
    degrees = np.clip(times - 6, 0, 2) * 60
    noise = np.random.default_rng(2).normal(0, np.radians(0.5), (len(times), 3))
    true = Rotation.from_euler("y", degrees[:, None], degrees=True)
    seen = (Rotation.from_rotvec(noise) * true).as_matrix()
    smooth = KalmanFilter()
    found = np.array([smooth(matrix, time, spread(2.5)) for matrix, time in zip(seen, times, strict=True)])
    raw, jitter = (geodesic_degrees(some[51:149], some[50:148]).mean() for some in (seen, found))
    assert jitter < raw / 6  # a third without the state of rest
    error = geodesic_degrees(found, true.as_matrix())
    assert error[50:149].mean() < 0.3
    assert error[155:200].mean() < 1.0  # 60 degrees a second: a lag of one frame would be 2.4
    assert error[205:].mean() < 0.7


def test_the_kalman_filter_follows_a_head_that_begins_to_turn_and_stops_after_long() -> None:
    """However sure it was of the one state: by twice as much it was off where neither could become the other."""
    times = np.arange(600) / 25
    noise = np.random.default_rng(0).normal(0, np.radians(0.5), (len(times), 3))
    true = Rotation.from_euler("y", np.clip(times - 10, 0, 10)[:, None] * 60, degrees=True)
    smooth, seen = KalmanFilter(), (Rotation.from_rotvec(noise) * true).as_matrix()
    found = np.array([smooth(matrix, time, spread(2.5)) for matrix, time in zip(seen, times, strict=True)])
    error = geodesic_degrees(found, true.as_matrix())
    assert error[250:260].max() < 1.5  # 3 without growing agile
    assert error[500:510].max() < 1.0


@pytest.mark.parametrize("smoother", list(SMOOTHERS))
def test_a_filter_keeps_its_state_to_itself(smoother: FilterName) -> None:
    smooth, given = SMOOTHERS[smoother](), np.eye(3)
    first = smooth(given, 0.0)
    first[:] = given[:] = 0.0
    np.testing.assert_allclose(smooth(np.eye(3), 0.04), np.eye(3), atol=1e-12)


@pytest.mark.parametrize("smoother", list(SMOOTHERS))
@pytest.mark.parametrize("given", [np.eye(3).tolist(), np.eye(3, dtype=np.int64), np.eye(3, dtype=np.float32)])
def test_smoothed_rotations_are_floats_whatever_was_given(smoother: FilterName, given: Any) -> None:
    """The first answer was of the type that came: whole numbers, or a list, which stopped at the second frame."""
    smooth = SMOOTHERS[smoother]()
    for answer in (smooth(given, 0.0), smooth(given, 0.04)):
        assert answer.dtype == np.float64
        np.testing.assert_allclose(answer, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("smoother", ["one_euro", "kalman"])
def test_rotations_may_come_in_one_array_after_another_or_in_the_same(smoother: FilterName) -> None:
    """A filter kept the caller's array, into which the next rotation was written: answers were off by degrees."""
    one, other, place = SMOOTHERS[smoother](), SMOOTHERS[smoother](), np.empty((3, 3))
    for frame, rotation in enumerate(noisy(30.0, 30, 2.0, 60.0)):
        place[:] = rotation
        np.testing.assert_array_equal(one(place, frame / 25, spread(2.0)), other(rotation, frame / 25, spread(2.0)))


@pytest.mark.parametrize("smoother", list(SMOOTHERS))
def test_after_a_gap_nothing_is_left_of_what_the_head_did(smoother: FilterName) -> None:
    turning, resting = noisy(30.0, 40, 0.5, 60.0), noisy(0.0, 3, 2.0)
    smooth = SMOOTHERS[smoother]()
    for frame, rotation in enumerate(turning):
        smooth(rotation, frame / 25, spread(2.0))
    anew = KalmanFilter(noise_share=smooth.noise_share) if isinstance(smooth, KalmanFilter) else RotationFilter()
    for frame, rotation in enumerate(resting[:2]):
        found, expected = (each(rotation, 10 + frame / 25, spread(2.0)) for each in (smooth, anew))
        np.testing.assert_allclose(found, expected, atol=1e-12)


def noisy(degrees: float, count: int, noise_deg: float, speed: float = 0.0) -> NDArray[np.float64]:
    """Rotations (count, 3, 3) at 25 frames a second, the last one turned by ``degrees``, with noise in all but that."""
    rng = np.random.default_rng(1)
    yaw = np.append(np.arange(count - 1) * speed / 25, degrees)
    noise = rng.normal(0, np.radians(noise_deg), (count, 3)) * (np.arange(count) < count - 1)[:, None]
    return (Rotation.from_rotvec(noise) * Rotation.from_euler("y", yaw[:, None], degrees=True)).as_matrix()


def test_the_kalman_filter_refuses_what_is_no_covariance_and_goes_on() -> None:
    smooth = KalmanFilter()
    for frame in range(12):  # poses that are known for sure, until its share of the noise is measured, too
        found = smooth(np.eye(3), frame / 25, np.zeros((3, 3)))
    np.testing.assert_allclose(found, np.eye(3), atol=1e-9)
    for odd in (np.full((3, 3), np.nan), np.diag([1.0, 1.0, np.nan]), -np.eye(3), np.diag([1.0, 1.0, -1.0]), np.eye(2)):
        with pytest.raises(ValueError, match="covariance: expected"):
            smooth(np.eye(3), 1.0, odd)
    for each in (smooth, RotationFilter()):
        with pytest.raises(ValueError, match="rotation: expected"):
            each(np.diag([1.0, np.nan, 1.0]), 1.0)
    np.testing.assert_allclose(smooth(np.eye(3), 0.5), np.eye(3), atol=1e-9)


def test_an_unsure_frame_moves_the_kalman_filter_less() -> None:
    moved = []
    for degrees in (1.0, 8.0):
        smooth = KalmanFilter()
        *before, last = noisy(2.0, 30, 0.5)
        for frame, rotation in enumerate(before):
            kept = smooth(rotation, frame / 25, spread(2.0))
        moved.append(geodesic_degrees(smooth(last, 29 / 25, spread(degrees)), kept))
    assert moved[1] < moved[0] / 3


@pytest.mark.parametrize("noise_deg", [0.3, 1.0])
@pytest.mark.parametrize("speed", [0.0, 60.0])
def test_the_kalman_filter_measures_the_noise_of_its_head(noise_deg: float, speed: float) -> None:
    """Whatever error bars say, and however the head turns: two degrees here, of which only a part is noise."""
    smooth = KalmanFilter()
    for frame, rotation in enumerate(noisy(0.0, 40, noise_deg, speed)[:-1]):
        smooth(rotation, frame / 25, spread(2.0))
    # The median of 25 has a standard deviation of a sixth here.
    assert smooth.noise_share * 2.0 == pytest.approx(noise_deg, rel=0.4)


def test_the_kalman_filter_measures_noise_anew_where_it_changes() -> None:
    """Somebody switches the light off."""
    smooth, shares = KalmanFilter(), []
    for frame, rotation in enumerate([*noisy(0.0, 40, 0.3)[:-1], *noisy(0.0, 60, 1.0)[:-1]]):
        smooth(rotation, frame / 25, spread(2.0))
        shares.append(smooth.noise_share)
    assert shares[-1] > 2 * shares[38]


@pytest.mark.parametrize("smoother", ["one_euro", "kalman"])
def test_another_camera_or_head_frame_turns_what_is_smoothed_alike(smoother: FilterName) -> None:
    """By errors that differ from axis to axis, of a head that turns about another axis than its frames do."""
    camera, head = Rotation.random(2, random_state=0).as_matrix()
    given, turned = SMOOTHERS[smoother](), SMOOTHERS[smoother]()
    covariance = np.diag(np.radians([1.0, 3.0, 6.0])) ** 2
    for frame, rotation in enumerate(noisy(30.0, 40, 2.0, 60.0)):
        found = given(rotation, frame / 25, covariance)
        other = turned(camera @ rotation @ head, frame / 25, camera @ covariance @ camera.T)
        np.testing.assert_allclose(other, camera @ found @ head, atol=1e-9)


def test_faces_keep_their_own_filter(photo: RgbImage) -> None:
    with HeadPoseEstimator.from_pretrained() as fresh:
        (pose,) = fresh.predict(photo)
    left, right = dataclasses.replace(pose, track=1), dataclasses.replace(pose, track=2, rotation=np.eye(3))
    smoother = PoseSmoother()
    smoother([left, right], 0.0)
    swapped = smoother([right, left], 0.04)
    np.testing.assert_allclose(swapped[0].rotation, right.rotation, atol=1e-9)
    np.testing.assert_allclose(swapped[1].rotation, left.rotation, atol=1e-9)
    new = dataclasses.replace(pose, rotation=np.diag([-1.0, 1.0, -1.0]))
    assert smoother([new], 0.08) == [new]


@pytest.mark.parametrize("smoother", ["one_euro", "kalman"])
def test_error_bars_are_those_of_the_smoothed_angles(smoother: FilterName) -> None:
    """Beside yaw 90 they were those of other angles: pitch unknown by 104 degrees at a yaw where it is known to 11."""
    smooth, covariance = PoseSmoother(smoother), np.radians(2.0) ** 2 * np.eye(3)
    for frame, yaw in enumerate((80.0, 80.0, 90.0)):
        rotation = rotation_from_angles(Angles.from_columns((yaw, 0.0, 0.0)))
        sigma = tuple(sigma_from_covariance(rotation, covariance).tolist())
        raw = HeadPose(
            yaw, 0.0, 0.0, rotation, sigma, False, np.empty((0, 3)), (0.0, 0.0, 9.0, 9.0), 0.5, "image", 1, covariance
        )
        (found,) = smooth([raw], frame / FPS)
    assert raw.sigma[1] > 100
    assert 80 < found.yaw < 89.5
    np.testing.assert_allclose(found.sigma, sigma_from_covariance(found.rotation, covariance))
    (bare,) = smooth([dataclasses.replace(raw, sigma=None, covariance=None)], 3 / FPS)
    assert bare.sigma is None


@pytest.mark.parametrize("smoother", ["one_euro", "kalman"])
def test_filters_are_as_many_as_heads_of_the_last_seconds(smoother: FilterName, photo: RgbImage) -> None:
    """A camera's heads are many: each left a filter behind for good."""
    with HeadPoseEstimator.from_pretrained() as fresh:
        (pose,) = fresh.predict(photo)
    smooth = PoseSmoother(smoother)
    for number in range(1, 101):
        smooth([dataclasses.replace(pose, track=number)], 1.0 * number)
    assert list(smooth._filters) == list(smooth._last) == list(range(90, 101))


@pytest.mark.parametrize("smoother", list(SMOOTHERS))
def test_a_head_that_is_seen_for_long_is_smoothed_all_the_time_as_its_filter_does(smoother: FilterName) -> None:
    """Its angles are those of its rotation, and its error bars are the filter's."""
    smooth, alone = PoseSmoother(smoother), SMOOTHERS[smoother]()
    for frame, rotation in enumerate(noisy(0.0, 60, 3.0)):
        time, covariance = frame / 5, spread(1.0 + frame % 3)
        pose = HeadPose(
            0.0, 0.0, 0.0, rotation, None, False, np.empty((0, 3)), (0.0, 0.0, 9.0, 9.0), 0.5, "image", 1, covariance
        )
        (found,) = smooth([pose], time)
        np.testing.assert_array_equal(found.rotation, alone(rotation, time, covariance))
        angles = Angles.from_columns((found.yaw, found.pitch, found.roll))
        np.testing.assert_allclose(rotation_from_angles(angles), found.rotation, atol=1e-9)


def test_a_smoother_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match=r"smoother: expected one of \['one_euro', 'kalman'\]; received 'euro'"):
        PoseSmoother("euro")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "frame", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3))]
)
def test_a_frame_that_is_no_rgb_image_is_refused(tmp_path: Path, frame: np.ndarray) -> None:
    """Of a grey one it was asked whether the disk is full."""
    with pytest.raises(ValueError, match="expected an RGB uint8 image"), VideoWriter(tmp_path / "a.mp4", 25.0) as copy:
        copy.put(frame, 0.0)
    assert not list(tmp_path.iterdir())
