"""Images to the landmark tensor, person by person in parallel workers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.config import LandmarksConfig
from nlml_hpe.detection.detectors import DETECTORS, open_detector
from nlml_hpe.detection.landmarks import SEARCHES, normalize_landmarks
from nlml_hpe.detection.search import CascadeDetector
from nlml_hpe.face import Box
from nlml_hpe.files.images import ImageReadError, RgbImage, images_in, read_image
from nlml_hpe.manifold.tensor_writer import LandmarkTensorWriter, PersonRows
from nlml_hpe.parallel import run_tasks
from nlml_hpe.pose_grid import (
    RANDOM_FOLDER,
    Pose,
    PoseGrid,
    RenderFolderError,
    grid_images,
    identity_folders,
    other_folders,
    parse_image_name,
)
from nlml_hpe.words import counted

_BATCH = 16
"""Images of one person that are searched at once."""
_MOST_NAMES = 5
"""Of folders that are left out."""


class Extraction(NamedTuple):
    """How a landmark tensor is made: the grid of its images, the detector's settings, who does the work.

    ``settings`` (JSON form) and ``inputs`` (digests) are what the tensor depends on, for its manifest. ``keys`` are, by
    person, digests of all that the rows depend on, where they are known; with ``anew`` people whom the tensor before
    holds under the same key are done again all the same.
    """

    grid: PoseGrid
    landmarks: LandmarksConfig
    settings: Any
    inputs: Mapping[str, str]
    workers: int = 1
    cluster: str | None = None
    keys: Mapping[int, str] = {}
    anew: bool = False


def extract(images: Path, folder: Path, extraction: Extraction) -> Path:
    """Detect, normalise and write every person below a folder of images; says which folders are of no person.

    Parameters
    ----------
    images : Path
        A folder ``ID{n}`` for each person, as the stage Render makes it.
    folder : Path
        Where the tensor is written; one that is there already is replaced when the new one is finished.
    extraction : Extraction
        How.

    Returns
    -------
    Path
        The finished ``folder``, for ``LandmarkTensor.open``.

    Raises
    ------
    RenderFolderError
        Where the images are not exactly those of the grid.
    ImageReadError
        Where one does not read.
    WorkerError
        As ``parallel.run_tasks`` does. What is finished is kept: the same call goes on with it.
    """
    grid, landmarks = extraction.grid, extraction.landmarks
    people = identity_folders(images)
    if others := other_folders(images):
        shown = ", ".join(others[:_MOST_NAMES]) + (", ..." if len(others) > _MOST_NAMES else "")
        print(f"{images}: {counted(len(others), 'folder')} left out, whose name is not ID1, ID2, ...: {shown}")
    files = {person: (grid_images(place, person, grid), _random_images(place, person)) for person, place in people}
    angles = _random_angles(images, {person: poses for person, (_, (_, poses)) in files.items()})
    arguments = {person: (person, on, off, grid.shape, landmarks) for person, (on, (off, _)) in files.items()}
    return write_tensor(folder, angles, extraction, _person_from_files, arguments)


def write_tensor(
    folder: Path,
    random_angles: NDArray[np.float64],
    extraction: Extraction,
    task: Callable[..., tuple[int, PersonRows]],
    arguments: Mapping[int, tuple[Any, ...]],
) -> Path:
    """Run a task for each person and write what comes back.

    People who are written already, by a run that was interrupted or with fewer people, are not done again.

    Parameters
    ----------
    folder : Path
        Where the tensor is written.
    random_angles : float array (I, K, 3)
        Yaw, pitch and roll in degrees of each person's poses off the grid.
    extraction : Extraction
        How.
    task : callable
        Gives a person's number and rows; runs in the worker processes.
    arguments : mapping of int to tuple
        By person what the task is called with; the tensor has the people in this order.

    Returns
    -------
    Path
        The finished ``folder``.

    Raises
    ------
    WorkerError
        As ``parallel.run_tasks`` does.
    """
    grid, landmarks, settings, inputs, workers, cluster, keys, anew = extraction
    points = DETECTORS[landmarks.detector].point_set
    people, depends_on = list(arguments), [settings, dict(inputs)]
    with LandmarkTensorWriter(folder, people, grid, points.feature_length, random_angles, depends_on) as writer:
        if not anew:
            writer.take_over(keys)
        pending = [arguments[person] for person in writer.pending()]
        for person, rows in run_tasks(task, pending, f"Landmarks {folder.name}", workers, cluster):
            writer.put(person, rows)
        return writer.finish(settings, inputs, points.feature_name(landmarks.normalization), keys)


def person_rows(
    on_grid: Iterable[RgbImage], off_grid: Iterable[RgbImage], shape: Sequence[int], config: LandmarksConfig
) -> PersonRows:
    """Rows of one person's images, in each of which one face is looked for about the middle.

    Parameters
    ----------
    on_grid : iterable of RGB uint8 arrays (H, W, 3)
        Of all cells of the grid in its order.
    off_grid : iterable of RGB uint8 arrays (H, W, 3)
        Of the poses off the grid.
    shape : sequence of three int
        Of the grid: yaw, pitch, roll.
    config : LandmarksConfig
        Detector and normalisation.

    Returns
    -------
    PersonRows
        Features, ways of detection and boxes; zeros where no face was found.
    """
    features, routes, boxes = _features(on_grid, config)
    random, random_routes, random_boxes = _features(off_grid, config)
    grid = features.reshape(*shape, -1), routes.reshape(tuple(shape))
    return PersonRows(*grid, random, random_routes, boxes.reshape(*shape, 4), random_boxes)


def _random_images(folder: Path, person: int) -> tuple[list[Path], list[Pose]]:
    """Off-grid images of one person in the order of their names, and their poses."""
    place = folder / RANDOM_FOLDER
    paths = images_in(place) if place.is_dir() else []
    poses = []
    for path in paths:
        owner, pose = parse_image_name(path.name)
        if owner != person:
            raise RenderFolderError(f"{place}: {path.name} belongs to ID{owner}, not ID{person}")
        poses.append(pose)
    return paths, poses


def _random_angles(images: Path, poses: Mapping[int, list[Pose]]) -> NDArray[np.float64]:
    counts = {len(p) for p in poses.values()}
    if len(counts) != 1:
        raise RenderFolderError(
            f"{images}: people have different numbers of off-grid images ({sorted(counts)}); render again"
        )
    return np.array(list(poses.values()), dtype=np.float64).reshape(len(poses), counts.pop(), 3)


@cache
def _worker_detector(config: LandmarksConfig, thread: int) -> CascadeDetector:
    """One detector for each thread of a worker: a graph cannot be shared."""
    return open_detector(config.detector, min_confidence=config.min_confidence, bundle=config.bundle)


def _person_from_files(
    person: int, on_grid: list[Path], off_grid: list[Path], shape: tuple[int, ...], config: LandmarksConfig
) -> tuple[int, PersonRows]:
    return person, person_rows(map(_read, on_grid), map(_read, off_grid), shape, config)


def _read(path: Path) -> RgbImage:
    try:
        return read_image(path)
    except ImageReadError as error:
        raise ImageReadError(f"{error}; delete this file and make it again, if it is ours with Render") from error


def _features(
    images: Iterable[RgbImage], config: LandmarksConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Feature, way of detection and box of the face in each image; zeros where none is found."""
    detector = _worker_detector(config, threading.get_ident())
    points = detector.point_set
    features, routes, boxes = [], [], []
    pending = iter(images)
    while batch := list(itertools.islice(pending, _BATCH)):
        for face in detector.detect_in_boxes(batch, [_middle(image) for image in batch]):
            routes.append(SEARCHES.index(face.found_by) if face else 0)
            boxes.append(face.box if face else (0.0, 0.0, 0.0, 0.0))
            if face:
                features.append(normalize_landmarks(face.landmarks, points, config.normalization))
            else:
                features.append(np.zeros(points.feature_length, dtype=np.float32))
    found = np.array(features, dtype=np.float32).reshape(-1, points.feature_length)
    return found, np.array(routes, dtype=np.uint8), np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _middle(image: RgbImage) -> Box:
    """Where the face's centre lies: a rendered head is in the middle of its image."""
    height, width = image.shape[:2]
    return (0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height)
