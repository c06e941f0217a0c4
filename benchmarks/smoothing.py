"""Jitter and lag of the video filters on rendered videos with known poses: ``python benchmarks/smoothing.py``.

Seeded variations of the embedded photograph's head move along one path: still, slowly, quickly, back and forth. The
shipped model answers every frame as in a video, with tracking; then each filter smooths the same answers. Of the
error's rotation vector, *jitter* is the root mean square of its change from frame to frame, and *lag* the time by which
the smoothed head follows the raw one: the least-squares share of the head's angular velocity in the difference
between the two. To compare filters at equal lag, One-Euro is also run with quicker settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common import report
from nlml_hpe.face import HeadPose
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.kalman import KalmanFilter
from nlml_hpe.inference.smoothing import RotationFilter
from nlml_hpe.rotation import Angles, rotation_from_angles, vector_from_rotation
from renderer.appearance import draw_scene, expose
from renderer.camera import Camera
from renderer.config import AppearanceConfig, HeadsConfig
from renderer.drawing import HEAD_EXTENT_MM
from renderer.heads import open_heads
from renderer.mesh import vertex_normals
from renderer.rasterizers import get_rasterizer

FPS, SIZE = 25.0, 256
_KNOTS = {0: 0, 2: 0, 4: 1, 5: 1, 5.5: -1, 7: -1, 8: 0.7, 9: -0.7, 10: 0.5, 12: 0.5}
"""Second -> share of the largest angles: still, a slow turn, a quick one, back and forth, still."""
_LARGEST_DEG = np.array([35.0, 15.0, 12.0])
Floats = NDArray[np.float64]
Filter = Callable[[HeadPose, float], Floats]


def path(person: int) -> Floats:
    """Yaw, pitch and roll (T, 3) in degrees; angles begin and end each move at rest."""
    seconds = np.arange(0, max(_KNOTS), 1 / FPS)
    knots, shares = np.array(list(_KNOTS)), np.array(list(_KNOTS.values()))
    after = np.clip(np.searchsorted(knots, seconds, side="right"), 1, len(knots) - 1)
    part = (seconds - knots[after - 1]) / (knots[after] - knots[after - 1])
    eased = part * part * (3 - 2 * part)
    share = shares[after - 1] + eased * (shares[after] - shares[after - 1])
    signs = np.random.default_rng(person).choice([-1.0, 1.0], 3)
    return share[:, None] * _LARGEST_DEG * signs


def frames(person: int, degrees: Floats) -> Iterator[RgbImage]:
    """One person in one setting; only the sensor's noise differs between two frames of the same pose."""
    mesh = open_heads(HeadsConfig(source="photo"), seed=0).head(person)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    scene = draw_scene(AppearanceConfig(), SIZE, np.random.default_rng(person))
    camera = Camera.framing(SIZE, HEAD_EXTENT_MM, scene.fraction, scene.distance, scene.shift)
    rasterizer, rng = get_rasterizer("numba_zbuffer", "cpu"), np.random.default_rng([person, 1])
    for turn in rotation_from_angles(Angles.from_columns(degrees)).astype(np.float32):
        views, turned = [camera.view(mesh.vertices, turn)], [normals @ turn.T]
        (image,) = rasterizer.images(views, mesh, turned, [camera], [scene.light], [scene.background])
        yield expose(image, scene, rng)


def answers(person: int, degrees: Floats) -> list[HeadPose | None]:
    """The estimator's answer to every frame."""
    with HeadPoseEstimator(max_faces=1, tracking=True) as estimator:
        images = tqdm(frames(person, degrees), desc=f"Person {person}", unit="frame", total=len(degrees))
        return [next(iter(estimator.predict(image)), None) for image in images]


def measured(true: Floats, poses: list[HeadPose | None], smooth: Filter) -> Floats:
    """Of one video: jitter in all frames and at rest in degrees, lag in milliseconds, mean error in degrees."""
    seen = [(index, pose) for index, pose in enumerate(poses) if pose is not None]
    rows = [index for index, _ in seen]
    raw = np.array([pose.rotation for _, pose in seen])
    found = np.array([smooth(pose, index / FPS) for index, pose in seen])
    velocity = np.zeros((len(true), 3))
    velocity[1:-1] = vector_from_rotation(true[2:] @ np.swapaxes(true[:-2], -1, -2)) * FPS / 2
    velocity = velocity[rows]
    behind = vector_from_rotation(raw @ np.swapaxes(found, -1, -2))
    error = np.degrees(vector_from_rotation(true[rows] @ np.swapaxes(found, -1, -2)))
    change = np.linalg.norm(np.diff(error, axis=0), axis=1)
    rest = change[np.linalg.norm(velocity[1:], axis=1) < 1e-6]
    lag = 1e3 * (behind * velocity).sum() / (velocity**2).sum()
    jitter = [np.sqrt((part**2).mean()) for part in (change, rest)]
    return np.array([*jitter, lag, np.linalg.norm(error, axis=1).mean()])


def filters() -> dict[str, Callable[[], Filter]]:
    """Name -> what makes a new filter."""

    def one_euro(cutoff: float, beta: float) -> Callable[[], Filter]:
        def made() -> Filter:
            smooth = RotationFilter(cutoff, beta)
            return lambda pose, time: smooth(pose.rotation, time)

        return made

    def kalman() -> Filter:
        smooth = KalmanFilter()
        return lambda pose, time: smooth(pose.rotation, time, pose.covariance)

    quicker = {f"One-Euro, beta {beta:g}": one_euro(1.0, beta) for beta in (4.0, 16.0, 100.0)}
    return {
        "none": lambda: lambda pose, time: pose.rotation,
        "One-Euro": one_euro(1.0, 0.6),
        **quicker,
        "Kalman": kalman,
    }


def main() -> None:
    """Print and save the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--people", type=int, default=6)
    videos = []
    for person in range(1, asked.parse_args().people + 1):
        degrees = path(person)
        videos.append((rotation_from_angles(Angles.from_columns(degrees)), answers(person, degrees)))
    rows = []
    for name, make in filters().items():
        jitter, rest, lag, error = np.mean([measured(true, poses, make()) for true, poses in videos], axis=0)
        rows.append({"filter": name, "jitter": jitter, "jitter at rest": rest, "lag ms": lag, "mean error": error})
    notes = [f"{len(videos)} rendered videos of {max(_KNOTS)} s at {FPS:g} frames a second; degrees."]
    report("smoothing", "Smoothing of rendered videos with known poses", rows, notes)


if __name__ == "__main__":
    main()
