"""Jitter and lag of the video filters on rendered videos with known poses: ``python benchmarks/smoothing.py``.

Seeded variations of the embedded photograph's head move along one path: still, slowly, quickly, back and forth. The
shipped model answers every frame as in a video, with tracking; then each filter smooths the same answers. Of the
error's rotation vector, *jitter* is the root mean square of its change from frame to frame, and *lag* the time by which
the smoothed head follows the raw one: the least-squares share of the head's angular velocity in the difference
between the two. To compare filters at equal lag, One-Euro is also run with quicker settings, the last of them that at
which it lags as much as the Kalman filter. Fixed-lag smoothing sees the frames after each, too, and does not lag; a
One-Euro that does not lag gives the raw answers.

With ``--kit FOLDER`` heads of ICT-FaceKit (its FaceXModel) turn to 85 degrees of yaw, where the two eyes now and then
contradict each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common import report
from nlml_hpe.face import HeadPose
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fixed_lag import FixedLagSmoother
from nlml_hpe.inference.kalman import KalmanFilter
from nlml_hpe.inference.smoothing import BETA, RotationFilter
from nlml_hpe.rotation import Angles, rotation_from_angles, vector_from_rotation
from renderer.appearance import draw_scene, expose
from renderer.camera import Camera
from renderer.config import AppearanceConfig, HeadsConfig
from renderer.drawing import HEAD_EXTENT_MM
from renderer.heads import HeadSource, open_heads
from renderer.mesh import vertex_normals
from renderer.rasterizers import get_rasterizer

FPS, SIZE = 25.0, 256
_KNOTS = {0: 0, 2: 0, 4: 1, 5: 1, 5.5: -1, 7: -1, 8: 0.7, 9: -0.7, 10: 0.5, 12: 0.5}
"""Second -> share of the largest angles: still, a slow turn, a quick one, back and forth, still."""
_LARGEST_DEG = np.array([35.0, 15.0, 12.0])
_PROFILE_DEG = np.array([85.0, 15.0, 12.0])
Floats = NDArray[np.float64]
Filter = Callable[[HeadPose, float], Floats]
Video = tuple[Floats, list[HeadPose | None]]
"""True rotations (T, 3, 3), and the answers to the frames."""


def path(person: int, largest: Floats) -> Floats:
    """Yaw, pitch and roll (T, 3) in degrees, up to the ``largest`` (3,); angles begin and end each move at rest."""
    seconds = np.arange(0, max(_KNOTS), 1 / FPS)
    knots, shares = np.array(list(_KNOTS)), np.array(list(_KNOTS.values()))
    after = np.clip(np.searchsorted(knots, seconds, side="right"), 1, len(knots) - 1)
    part = (seconds - knots[after - 1]) / (knots[after] - knots[after - 1])
    eased = part * part * (3 - 2 * part)
    share = shares[after - 1] + eased * (shares[after] - shares[after - 1])
    signs = np.random.default_rng(person).choice([-1.0, 1.0], 3)
    return share[:, None] * largest * signs


def frames(heads: HeadSource, person: int, degrees: Floats) -> Iterator[RgbImage]:
    """One person in one setting; only the sensor's noise differs between two frames of the same pose."""
    mesh = heads.head(person)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    scene = draw_scene(AppearanceConfig(), SIZE, np.random.default_rng(person))
    camera = Camera.framing(SIZE, HEAD_EXTENT_MM, scene.fraction, scene.distance, scene.shift)
    rasterizer, rng = get_rasterizer("numba_zbuffer", "cpu"), np.random.default_rng([person, 1])
    for turn in rotation_from_angles(Angles.from_columns(degrees)).astype(np.float32):
        views, turned = [camera.view(mesh.vertices, turn)], [normals @ turn.T]
        (image,) = rasterizer.images(views, mesh, turned, [camera], [scene.light], [scene.background])
        yield expose(image, scene, rng)


def answers(heads: HeadSource, person: int, degrees: Floats) -> list[HeadPose | None]:
    """The estimator's answer to every frame."""
    with HeadPoseEstimator(max_faces=1, tracking=True) as estimator:
        images = tqdm(frames(heads, person, degrees), desc=f"Person {person}", unit="frame", total=len(degrees))
        return [next(iter(estimator.predict(image)), None) for image in images]


def measured(true: Floats, poses: list[HeadPose | None], smooth: Filter) -> Floats:
    """Of one video: jitter in all frames and at rest in degrees, lag in milliseconds, mean error and largest step."""
    seen = [(index, pose) for index, pose in enumerate(poses) if pose is not None]
    rows = [index for index, _ in seen]
    raw = np.array([pose.rotation for _, pose in seen])
    found = np.array([smooth(pose, index / FPS) for index, pose in seen])
    velocity = velocities(true)[rows]
    behind = vector_from_rotation(raw @ np.swapaxes(found, -1, -2))
    error = np.degrees(vector_from_rotation(true[rows] @ np.swapaxes(found, -1, -2)))
    lag = 1e3 * (behind * velocity).sum() / (velocity**2).sum()
    jitter, rest, largest = jitters(error, velocity)
    return np.array([jitter, rest, lag, np.linalg.norm(error, axis=1).mean(), largest])


def fixed_lag(poses: list[HeadPose | None]) -> Filter:
    """What gives the poses of one video as fixed-lag smoothing has them, when it is asked for them one by one."""
    smoother = FixedLagSmoother[int]()
    done: dict[int, list[HeadPose]] = {}
    for index, pose in enumerate(poses):
        done |= smoother.put(index, [] if pose is None else [replace(pose, track=1)], index / FPS)
    done |= smoother.rest()
    return lambda _, time: done[round(time * FPS)][0].rotation


def velocities(true: Floats) -> Floats:
    """Angular velocity (T, 3) of the head in radians a second; none in the first and the last frame."""
    velocity = np.zeros((len(true), 3))
    velocity[1:-1] = vector_from_rotation(true[2:] @ np.swapaxes(true[:-2], -1, -2)) * FPS / 2
    return velocity


def jitters(error: Floats, velocity: Floats) -> list[float]:
    """Root mean square of the change of errors (T, 3) from frame to frame, in all of them and at rest; the largest."""
    change = np.linalg.norm(np.diff(error, axis=0), axis=1)
    rest = change[np.linalg.norm(velocity[1:], axis=1) < 1e-6]
    return [*(float(np.sqrt((part**2).mean())) for part in (change, rest)), float(change.max())]


def one_euro(beta: float) -> Callable[[], Filter]:
    """What makes a new One-Euro filter."""

    def made() -> Filter:
        smooth = RotationFilter(beta=beta)
        return lambda pose, time: smooth(pose.rotation, time)

    return made


def kalman() -> Filter:
    """A new Kalman filter."""
    smooth = KalmanFilter()
    return lambda pose, time: smooth(pose.rotation, time, pose.covariance)


def as_quick(videos: Sequence[Video], lag: float) -> float:
    """The beta at which One-Euro lags by so many milliseconds."""
    low, high = 0.6, 1e4
    for _ in range(24):
        beta = float(np.sqrt(low * high))
        late = np.mean([measured(*video, one_euro(beta)())[2] for video in videos])
        low, high = (beta, high) if late > lag else (low, beta)
    return float(np.sqrt(low * high))


def rows_of(videos: Sequence[Video]) -> list[dict[str, Any]]:
    """The table: each filter's means over the videos."""
    made: dict[str, Callable[[], Filter]] = {
        "none": lambda: lambda pose, time: pose.rotation,
        "One-Euro": one_euro(BETA),
        **{f"One-Euro, beta {beta:g}": one_euro(beta) for beta in (4.0, 16.0)},
        "Kalman": kalman,
    }
    found = {name: np.mean([measured(*video, make()) for video in videos], axis=0) for name, make in made.items()}
    beta = as_quick(videos, found["Kalman"][2])
    same = f"One-Euro, beta {beta:.0f}: the Kalman filter's lag"
    found[same] = np.mean([measured(*video, one_euro(beta)()) for video in videos], axis=0)
    found["fixed lag"] = np.mean([measured(*video, fixed_lag(video[1])) for video in videos], axis=0)
    columns = ("jitter", "jitter at rest", "lag ms", "mean error", "largest step")
    as_late = {"Kalman": same, "fixed lag": "none"}
    rows = []
    for name, values in found.items():
        row = {"filter": name, **dict(zip(columns, values, strict=True))}
        if name in as_late:
            euro = found[as_late[name]]
            row |= {f"{column}, over One-Euro's": values[at] / euro[at] for at, column in enumerate(columns[:2])}
        rows.append(row)
    return rows


def main() -> None:
    """Print and save the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--people", type=int, default=6)
    asked.add_argument("--kit", type=Path, help="ICT-FaceKit's FaceXModel, whose heads then turn to profile")
    given = asked.parse_args()
    config = HeadsConfig(source="ict_facekit", folder=given.kit) if given.kit else HeadsConfig(source="photo")
    heads, videos = open_heads(config, seed=0), []
    for person in range(1, given.people + 1):
        degrees = path(person, _PROFILE_DEG if given.kit else _LARGEST_DEG)
        videos.append((rotation_from_angles(Angles.from_columns(degrees)), answers(heads, person, degrees)))
    notes = [
        f"{len(videos)} rendered videos of {max(_KNOTS)} s at {FPS:g} frames a second; degrees. The last columns are "
        "over One-Euro's at the same lag; without lag it gives the raw answers."
    ]
    name = "smoothing_profile" if given.kit else "smoothing"
    report(name, "Smoothing of rendered videos with known poses", rows_of(videos), notes)


if __name__ == "__main__":
    main()
