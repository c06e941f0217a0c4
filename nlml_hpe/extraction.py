"""Rendered images to the landmark tensor, person by person in parallel workers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.config import LandmarksConfig
from nlml_hpe.images import read_image
from nlml_hpe.landmark_tensor import LandmarkTensorWriter, PersonRows
from nlml_hpe.landmarks import FACEMESH, MediaPipeFaceMesh, normalize_landmarks
from nlml_hpe.pose_grid import (
    IMAGE_SUFFIXES,
    PoseGrid,
    RenderFolderError,
    grid_images,
    identity_folders,
    parse_image_name,
)

RANDOM_FOLDER = "random"


def extract(
    images: Path,
    folder: Path,
    grid: PoseGrid,
    config: LandmarksConfig,
    provenance: tuple[Any, Mapping[str, str]],
    workers: int,
) -> Path:
    """Detect, normalise and write every person below ``images``; returns the finished ``folder``.

    ``provenance`` is the JSON form of the settings and the digests of the inputs. Raises
    ``RenderFolderError`` where the images are not exactly those of the grid.
    """
    people = identity_folders(images)
    files = {person: (grid_images(place, person, grid), _random_images(place, person)) for person, place in people}
    angles = _random_angles(images, {person: poses for person, (_, (_, poses)) in files.items()})
    names = [person for person, _ in people]
    settings, inputs = provenance
    with LandmarkTensorWriter(folder, names, grid, FACEMESH.feature_length, angles, [settings, dict(inputs)]) as writer:
        pending = writer.pending()
        tasks = (delayed(_person)(p, files[p][0], files[p][1][0], grid.shape, config) for p in pending)
        results = Parallel(n_jobs=workers, return_as="generator")(tasks)
        for person, rows in tqdm(results, total=len(pending), desc=f"Landmarks {folder.name}", unit="person"):
            writer.put(person, rows)
        return writer.finish(settings, inputs, FACEMESH.feature_name(config.normalization))


def _random_images(folder: Path, person: int) -> tuple[list[Path], list[tuple[float, float, float]]]:
    """Off-grid images of one person in the order of their names, and their poses."""
    place = folder / RANDOM_FOLDER
    paths = sorted(p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if place.is_dir() else []
    poses = []
    for path in paths:
        owner, pose = parse_image_name(path.name)
        if owner != person:
            raise RenderFolderError(f"{place}: {path.name} belongs to ID{owner}, not ID{person}")
        poses.append(pose)
    return paths, poses


def _random_angles(images: Path, poses: Mapping[int, list[tuple[float, float, float]]]) -> NDArray[np.float64]:
    counts = {len(p) for p in poses.values()}
    if len(counts) != 1:
        raise RenderFolderError(
            f"{images}: people have different numbers of off-grid images ({sorted(counts)}); render again"
        )
    return np.array(list(poses.values()), dtype=np.float64).reshape(len(poses), counts.pop(), 3)


@cache
def _worker_detector(min_confidence: float) -> MediaPipeFaceMesh:
    return MediaPipeFaceMesh(min_confidence=min_confidence)


def _person(
    person: int, on_grid: list[Path], off_grid: list[Path], shape: tuple[int, ...], config: LandmarksConfig
) -> tuple[int, PersonRows]:
    grid, detected = _features(on_grid, config)
    random, random_detected = _features(off_grid, config)
    return person, PersonRows(grid.reshape(*shape, -1), detected.reshape(shape), random, random_detected)


def _features(paths: list[Path], config: LandmarksConfig) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    features = np.zeros((len(paths), FACEMESH.feature_length), dtype=np.float32)
    detected = np.zeros(len(paths), dtype=bool)
    detector = _worker_detector(config.min_confidence)
    for index, path in enumerate(paths):
        faces = detector.detect(read_image(path))
        if faces:
            features[index] = normalize_landmarks(faces[0].points, FACEMESH, config.normalization)
            detected[index] = True
    return features, detected
