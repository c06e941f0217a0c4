"""Poses of a video smoothed by the frames before and after each."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nlml_hpe.cli import main
from nlml_hpe.face import Box, HeadPose
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fixed_lag import LAG_SECONDS, MOST_HELD, FixedLagSmoother
from nlml_hpe.inference.kalman import KalmanFilter
from nlml_hpe.inference.video import FrameResult, Summary, process
from nlml_hpe.inference.video_files import Frame, VideoSource, VideoWriter
from nlml_hpe.rotation import angles_from_rotation, geodesic_degrees, sigma_from_covariance

FPS = 25


def pose(rotation: NDArray[np.float64], track: int | None = 1, sigma_deg: float | None = 2.0) -> HeadPose:
    """A pose of which rotation, track and error bars count."""
    covariance = None if sigma_deg is None else np.radians(sigma_deg) ** 2 * np.eye(3)
    sigma = None if covariance is None else (sigma_deg or 0.0,) * 3
    nowhere = np.empty((0, 3))
    return HeadPose(
        0.0, 0.0, 0.0, rotation, sigma, False, nowhere, (0.0, 0.0, 9.0, 9.0), 0.5, "image", track, covariance
    )


def smoothed(frames: list[list[HeadPose]], fps: float = FPS) -> list[list[HeadPose]]:
    """The poses of all frames; every frame comes once, in its turn."""
    smoother = FixedLagSmoother[int]()
    done = [pair for number, poses in enumerate(frames) for pair in smoother.put(number, poses, number / fps)]
    done += smoother.rest()
    assert [number for number, _ in done] == list(range(len(frames)))
    assert list(smoother.rest()) == []
    return [poses for _, poses in done]


def rotations(frames: list[list[HeadPose]]) -> NDArray[np.float64]:
    """Of the first head of every frame."""
    return np.array([poses[0].rotation for poses in frames])


def turning(noise_deg: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True and seen rotations of a head at rest that then looks back and forth."""
    times = np.arange(250) / FPS
    yaw = 30 - 30 * np.cos(np.maximum(times - 4, 0) * 2)
    true = Rotation.from_euler("yx", np.stack([yaw, yaw / 3], axis=1), degrees=True)
    noise = np.random.default_rng(seed).normal(0, np.radians(noise_deg), (len(times), 3))
    return true.as_matrix(), (Rotation.from_rotvec(noise) * true).as_matrix()


def jitter(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Root mean square change of the error from frame to frame, in degrees."""
    error = Rotation.from_matrix(found @ np.swapaxes(true, 1, 2)).as_rotvec(degrees=True)
    return float(np.sqrt((np.diff(error, axis=0) ** 2).sum(axis=1).mean()))


def test_a_head_that_turns_is_stiller_and_nearer_than_by_a_filter_and_does_not_lag() -> None:
    true, seen = turning(1.0)
    found = rotations(smoothed([[pose(rotation)] for rotation in seen]))
    kalman = KalmanFilter()
    filtered = np.array(
        [kalman(rotation, n / FPS, np.radians(2.0) ** 2 * np.eye(3)) for n, rotation in enumerate(seen)]
    )
    assert jitter(found, true) < 0.15 * jitter(seen, true)
    assert jitter(found, true) < 0.45 * jitter(filtered, true)
    raw, error = (geodesic_degrees(some, true).mean() for some in (seen, found))
    assert error < 0.5 * raw
    # Without noise it is where the head is, also where it turns back.
    exact = rotations(smoothed([[pose(rotation)] for rotation in true]))
    assert geodesic_degrees(exact, true)[10:-10].max() < 0.15  # a mean over nine frames: 0.7


def test_poses_that_are_unsure_count_less() -> None:
    """Every tenth frame is off by 30 degrees, and says so."""
    true, seen = turning(0.0)
    off = Rotation.from_euler("x", 30, degrees=True).as_matrix()
    frames = [[pose(off @ r, sigma_deg=30.0) if n % 10 == 5 else pose(r)] for n, r in enumerate(seen)]
    assert geodesic_degrees(rotations(smoothed(frames)), true)[10:-10].max() < 1.0
    unknown = [[replace(one, covariance=np.full((3, 3), np.nan)) for one in poses] for poses in frames]
    bare = [[replace(one, covariance=None, sigma=None) for one in poses] for poses in frames]
    np.testing.assert_array_equal(rotations(smoothed(unknown)), rotations(smoothed(bare)))
    assert all(poses[0].sigma is None for poses in smoothed(bare))


def test_a_pose_the_wrong_way_round_that_says_so_is_put_right() -> None:
    """From it the others lay half a turn away, this way round or that: the answer was up to 179 degrees off."""
    true, seen = turning(1.0)
    back = Rotation.from_euler("y", 179, degrees=True).as_matrix()
    frames = [[pose(back @ r, sigma_deg=20.0) if n % 20 == 10 else pose(r)] for n, r in enumerate(seen)]
    assert geodesic_degrees(rotations(smoothed(frames)), true)[10:-10].max() < 4


def test_each_head_is_smoothed_by_its_own_poses_and_one_without_a_number_not_at_all() -> None:
    _, seen = turning(1.0)
    _, other = turning(1.0, seed=1)
    alone = rotations(smoothed([[pose(rotation)] for rotation in seen]))
    nobody = pose(np.eye(3), track=None)
    pairs = zip(seen, other, strict=True)
    frames = [[pose(b, track=2), nobody, pose(a)][:: 1 if n % 2 else -1] for n, (a, b) in enumerate(pairs)]
    found = smoothed(frames)
    assert all(any(one is nobody for one in poses) for poses in found)
    own = np.array([next(one.rotation for one in poses if one.track == 1) for poses in found])
    np.testing.assert_array_equal(own, alone)


def test_angles_and_error_bars_are_those_of_the_smoothed_rotation() -> None:
    _, seen = turning(1.0)
    for one in (poses[0] for poses in smoothed([[pose(rotation)] for rotation in seen[:120]])):
        np.testing.assert_allclose((one.yaw, one.pitch, one.roll), angles_from_rotation(one.rotation).columns())
        assert one.covariance is not None
        np.testing.assert_allclose(one.sigma, sigma_from_covariance(one.rotation, one.covariance))


def test_what_lies_before_a_gap_has_no_say() -> None:
    _, seen = turning(1.0)
    smoother = FixedLagSmoother[int]()
    times = [n / FPS for n in range(20)] + [1.5 + n / FPS for n in range(20)]
    done = [pair for n, time in enumerate(times) for pair in smoother.put(n, [pose(seen[n])], time)]
    assert len(done) == 20 + 11  # after the gap all before it are done, and so many of those behind it
    found = rotations([poses for _, poses in [*done, *smoother.rest()]])
    np.testing.assert_allclose(found[20:], rotations(smoothed([[pose(r)] for r in seen[20:40]])), atol=1e-9)


@pytest.mark.parametrize(("fps", "held"), [(10.0, 4), (25.0, 9), (30.0, 11), (240.0, MOST_HELD)])
def test_so_many_frames_wait_and_no_picture_is_kept_longer(fps: float, held: int) -> None:
    smoother = FixedLagSmoother[Picture]()
    kept: list[weakref.ref[Picture]] = []
    for number in range(100):
        picture = Picture()
        kept.append(weakref.ref(picture))
        list(smoother.put(picture, [pose(np.eye(3))], number / fps))
        del picture
        assert sum(one() is not None for one in kept) <= held
    assert len(list(smoother.rest())) == held
    assert held <= np.ceil(LAG_SECONDS * fps)


class Picture:
    """What is large."""


def test_time_that_stands_still_fills_no_memory() -> None:
    """Frames no longer waited for were all kept, and each of them was gone through for every further one."""
    smoother = FixedLagSmoother[int]()
    true, seen = turning(1.0)
    done, kept = [], []
    for n in range(100):
        one = pose(seen[n])
        kept.append(weakref.ref(one))
        done += smoother.put(n, [one], 1.0)
    del one
    assert sum(each() is not None for each in kept) == 2 * MOST_HELD + 1
    assert len(done) == 100 - MOST_HELD
    assert geodesic_degrees(rotations([poses for _, poses in done]), true[:68]).max() < 5


def test_a_video_of_many_frames_a_second_does_not_lag_either() -> None:
    """Fewer frames after than before each, and it followed by as much as is shown here: 1.3 degrees off."""
    times = np.arange(480) / 240
    true = Rotation.from_euler("y", 30 * np.sin(2 * np.pi * times)[:, None], degrees=True).as_matrix()
    found = rotations(smoothed([[pose(rotation)] for rotation in true], 240.0))
    assert geodesic_degrees(found, true)[40:-40].max() < 0.2


@pytest.mark.parametrize(("nods", "left"), [(1, 0.97), (2, 0.72), (3, 0.29)])
def test_of_quick_nods_so_much_is_left(nods: int, left: float) -> None:
    """As the module says."""
    times = np.arange(4 * FPS) / FPS
    frames = [[pose(Rotation.from_rotvec([a, 0, 0]).as_matrix())] for a in 0.2 * np.sin(2 * np.pi * nods * times)]
    pairs = zip(rotations(smoothed(frames)), rotations(frames), strict=True)
    found, given = np.array([Rotation.from_matrix(np.stack(pair)).as_rotvec()[:, 0] for pair in pairs])[20:-20].T
    assert found @ given / (given @ given) == pytest.approx(left, abs=0.01)


@pytest.mark.parametrize("fps", [1.0, 5.0])
def test_a_slow_video_is_left_as_it_is(fps: float) -> None:
    _, seen = turning(1.0)
    frames = [[pose(rotation)] for rotation in seen[::5]]
    np.testing.assert_allclose(rotations(smoothed(frames, fps)), seen[::5], atol=1e-12)


def test_a_pose_that_is_given_for_two_frames_is_one_of_each() -> None:
    """As of a caller who asks for poses in every other frame; it was taken for that of the first, at the wrong time."""
    _, seen = turning(1.0)
    twice = [[one] for rotation in seen[100:130] for one in 2 * [pose(rotation)]]
    copies = [[replace(one) for one in poses] for poses in twice]
    np.testing.assert_array_equal(rotations(smoothed(twice)), rotations(smoothed(copies)))


@pytest.fixture(scope="module")
def estimator() -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator(max_faces=1, tracking=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, photo: RgbImage) -> Path:
    """A photograph that leans to and fro, 30 frames."""
    path = tmp_path_factory.mktemp("lag") / "photo.mp4"
    with VideoWriter(path, FPS) as writer:
        for number in range(30):
            writer.put(np.roll(photo, number % 5, axis=1), number / FPS)
    return path


def test_a_video_has_every_frame_once_in_order_with_its_own_picture(
    estimator: HeadPoseEstimator, video: Path, tmp_path: Path
) -> None:
    with VideoSource(video) as source:
        plain = [one for one in process(source, estimator) if isinstance(one, FrameResult)]
    with VideoSource(video) as source:
        results = list(process(source, estimator, tmp_path / "copy.mp4", smooth=True, smoother="fixed_lag"))
    *found, summary = results
    assert isinstance(summary, Summary)
    assert (summary.frames, summary.with_face, summary.ends_early) == (30, 30, False)
    expected = smoothed([one.poses for one in plain])
    for one, raw, poses in zip(found, plain, expected, strict=True):
        assert isinstance(one, FrameResult)
        assert one.frame.number == raw.frame.number
        np.testing.assert_array_equal(one.frame.image, raw.frame.image)
        np.testing.assert_allclose(one.poses[0].rotation, poses[0].rotation, atol=1e-9)
    with VideoSource(tmp_path / "copy.mp4") as copy:
        assert copy.expected == 30
    with VideoSource(video) as source, pytest.raises(ValueError, match=r"one of \['one_euro', 'kalman', 'fixed_lag'\]"):
        list(process(source, estimator, smoother="median"))  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [3, 25])  # in the middle, and while the last frames wait
@pytest.mark.parametrize("way", ["stop", "show", "interrupt"])
def test_frames_that_wait_are_given_where_the_work_ends_early(
    way: str, at: int, estimator: HeadPoseEstimator, video: Path, tmp_path: Path
) -> None:
    shown: list[int] = []

    def show(result: FrameResult, _: RgbImage) -> bool:
        shown.append(result.frame.number)
        if way == "interrupt" and len(shown) == at:
            raise KeyboardInterrupt
        return way != "show" or len(shown) < at

    found = []
    with VideoSource(video) as source:
        for result in process(source, estimator, tmp_path / "copy.mp4", True, show=show, smoother="fixed_lag"):
            found.append(result)
            if way == "stop" and len(found) == at:
                source.stop()
    *results, summary = found
    numbers = [result.frame.number for result in results if isinstance(result, FrameResult)]
    assert numbers == list(range(len(numbers)))
    assert isinstance(summary, Summary)
    assert summary.stopped
    assert len(numbers) == summary.frames == min(at + 9, 30)  # nine wait
    assert shown == list(range(at))
    with VideoSource(tmp_path / "copy.mp4") as copy:
        assert copy.expected == len(numbers)


def test_no_more_is_shown_of_several_frames_that_are_done_at_once(
    estimator: HeadPoseEstimator, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a gap all that waited are: the window that was closed was shown eight more."""
    read = VideoSource._frames

    def with_gap(source: VideoSource) -> Iterator[Frame]:
        return (frame._replace(seconds=frame.seconds + (frame.number >= 9)) for frame in read(source))

    monkeypatch.setattr(VideoSource, "_frames", with_gap)
    shown: list[int] = []

    def show(result: FrameResult, _: RgbImage) -> bool:
        shown.append(result.frame.number)
        return False

    with VideoSource(video) as source:
        results = list(process(source, estimator, smooth=True, show=show, smoother="fixed_lag"))
    assert [one.frame.number for one in results if isinstance(one, FrameResult)] == list(range(10))
    assert shown == [0]


def test_frames_that_wait_are_given_before_an_error(estimator: HeadPoseEstimator, video: Path) -> None:
    """A table has the rows of all frames that were answered, as without smoothing."""
    searched: list[int] = []

    def boxes(_: RgbImage) -> list[Box]:
        searched.append(1)
        if len(searched) == 2:
            raise RuntimeError("out of memory")
        return []

    def numbers(smooth: bool) -> Iterator[int]:
        with VideoSource(video) as source, pytest.raises(RuntimeError, match="out of memory"):
            yield from (
                result.frame.number
                for result in process(source, estimator, smooth=smooth, boxes=boxes)
                if isinstance(result, FrameResult)
            )

    for smooth in (False, True):
        searched.clear()
        assert list(numbers(smooth)) == list(range(25))


def test_the_command_smooths_so(video: Path, tmp_path: Path) -> None:
    tables = []
    for name, asked in (("default", []), ("one_euro", ["--smoother", "one_euro"]), ("raw", None)):
        table = tmp_path / f"{name}.csv"
        options = [] if asked is None else ["--smooth", *asked]
        assert main(["video", str(video), "--csv", str(table), *options]) == 0
        tables.append(table.read_text(encoding="utf-8").splitlines())
    assert [row.split(",")[:3] for row in tables[0]] == [row.split(",")[:3] for row in tables[1]]
    assert len(tables[0]) == 31
    assert tables[0] != tables[1] != tables[2] != tables[0]
