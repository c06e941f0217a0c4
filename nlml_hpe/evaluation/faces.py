"""Labelled faces, from photographs and from rendered people alike, and what a route answers to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.detection.landmarks import SEARCHES, LandmarkDetector, PointSet
from nlml_hpe.detection.looks import first_seen, looks_by, seen_again
from nlml_hpe.evaluation.datasets import Dataset
from nlml_hpe.face import Box, Face
from nlml_hpe.files.images import ImageReadError, RgbImage
from nlml_hpe.inference.engines import Engine, Estimates, Route
from nlml_hpe.inference.eyes import Eyes
from nlml_hpe.rotation import Angles, rotation_from_angles
from nlml_hpe.words import BAR_DELAY_SECONDS

if TYPE_CHECKING:
    from nlml_hpe.manifold.tensor import LandmarkTensor

BATCH = 64
"""Faces that go through a route together; only so many images are held in memory."""
UNREADABLE = "image not readable"
_NOT_FOUND = SEARCHES[0]
_NOT_SEARCHED = ""
_NO_FACE = Face(None, (0.0, 0.0, 0.0, 0.0), None, _NOT_FOUND)
"""A face that was not found where nobody says where it is: of its image nothing is kept, so that no route answers."""


@dataclass(frozen=True, eq=False)
class LabelledFace:
    """One face whose pose is known.

    Attributes
    ----------
    name : str
        The sample's name, or the rendered image's.
    label : tuple of float
        Yaw, pitch and roll in degrees, as the label states them.
    face : Face
        What a route is shown: the image, where there is one; the label's box, and without one in the label that of
        the landmarks; the landmarks, where the detector found a face. ``face.found_by`` is "none" where it did not,
        and empty where no detector was asked; where the label has no box either, there is neither image nor box.
    person : str
        Identity of a rendered person; empty for photographs.
    """

    name: str
    label: tuple[float, float, float]
    face: Face
    person: str = ""


Answerer = Callable[[Sequence[Face]], Estimates]
"""Any way from faces to rotations, of landmarks, of pixels or of both: NaN for a face that it cannot answer."""


def is_known(given: Estimates) -> NDArray[np.bool_]:
    """Which faces (n,) have an answer."""
    return np.isfinite(given.rotation).all(axis=(1, 2))


def some(given: Estimates, mask: NDArray[np.bool_]) -> Estimates:
    """The estimates of some of the faces (n,)."""
    return Estimates(*(values[mask] for values in given))


@dataclass(frozen=True, eq=False)
class Answered:
    """What several routes answered to the same n labelled faces."""

    names: tuple[str, ...]
    people: tuple[str, ...]
    found_by: tuple[str, ...]
    labels: Angles
    answers: Mapping[str, Estimates]

    @property
    def true(self) -> NDArray[np.float64]:
        """True rotations (n, 3, 3)."""
        return rotation_from_angles(self.labels)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which faces (n,) the detector found."""
        return np.array([step not in (_NOT_FOUND, _NOT_SEARCHED) for step in self.found_by], dtype=bool)

    @property
    def searched(self) -> NDArray[np.bool_]:
        """Which faces (n,) a detector was asked for."""
        return np.array([step != _NOT_SEARCHED for step in self.found_by], dtype=bool)

    def chosen(self, mask: NDArray[np.bool_]) -> Answered:
        """The same of some of the faces (n,)."""
        names, people, found_by = (
            tuple(itertools.compress(values, mask)) for values in (self.names, self.people, self.found_by)
        )
        labels = Angles.from_columns(self.labels.columns()[mask])
        return Answered(
            names, people, found_by, labels, {route: some(given, mask) for route, given in self.answers.items()}
        )


def photographs(
    data: Dataset, detector: LandmarkDetector | None, work: str = "Evaluate", looks: int | None = None
) -> Iterator[LabelledFace]:
    """The annotated face of every sample: the one in the label's box, where there is a box, or the largest.

    Without a detector, for routes that need no landmarks, a label without a box has no answer.

    A sample whose image does not read is moved to ``data.left_out``, with its name, and the next one follows. Shows a
    progress bar on stderr.

    Parameters
    ----------
    data : Dataset
        What is read; its ``left_out`` grows on the way.
    detector : LandmarkDetector or None
        What finds faces.
    work : str
        What the progress bar says.
    looks : int, optional
        How often each face is looked at, as of ``HeadPoseEstimator.predict``.

    Yields
    ------
    LabelledFace
        One for each sample that reads; its face has no points where none was found.

    Examples
    --------
    >>> from pathlib import Path
    >>> from nlml_hpe.evaluation.datasets import Sample
    >>> class Blind:
    ...     def detect(self, image):
    ...         return []
    >>> blank = Sample("a", (10.0, 0.0, 0.0), lambda: np.zeros((48, 64, 3), dtype=np.uint8))
    >>> (seen,) = photographs(Dataset("biwi", Path("faces"), [blank]), Blind())
    >>> seen.face.points is None, seen.face.image is None  # nobody says where it is
    (True, True)
    """
    usable = []
    for sample in tqdm(data.samples, desc=f"{work} {data.name}", unit="face", delay=BAR_DELAY_SECONDS):
        try:
            image = sample.load()
        except ImageReadError:
            data.leave_out(UNREADABLE, sample.name)
            continue
        usable.append(sample)
        face = None if detector is None else annotated_face(detector, image, sample.box, looks)
        if face is None:
            unseen = _NO_FACE if sample.box is None else Face(image, sample.box, None)
            step = _NOT_SEARCHED if detector is None else _NOT_FOUND
            shown = replace(unseen, found_by=step)
        else:
            shown = replace(face, box=sample.box or face.box, given_box=sample.box)
        yield LabelledFace(sample.name, sample.angles, shown, sample.person)
    data.samples = usable


def annotated_face(
    detector: LandmarkDetector, image: RgbImage, box: Box | None, looks: int | None = None
) -> Face | None:
    """The face that a label is of: the one in its box, where it has one, or the largest.

    Parameters
    ----------
    detector : LandmarkDetector
        What finds faces.
    image : RGB uint8 array (H, W, 3)
        The labelled image.
    box : Box or None
        The label's, in pixels.
    looks : int, optional
        How often the face is looked at, as of ``HeadPoseEstimator.predict``.

    Returns
    -------
    Face or None
        None where none is found.

    Raises
    ------
    ValueError
        For another number of looks, and where the detector cannot look again.
    """
    further = looks_by(detector, looks)
    if box is None:
        (faces,) = first_seen(detector, [image], bool(further))
        return next(iter(seen_again(detector, faces, further)), None)
    face = detector.detect_in_box(image, box)
    return None if face is None else seen_again(detector, [face], further)[0]


def rendered_faces(tensor: LandmarkTensor, points: PointSet) -> dict[str, list[LabelledFace]]:
    """All faces of a landmark tensor: ``on_grid`` and, where there are any, ``off_grid``.

    A feature is a face's landmarks moved and scaled, and stands in for them: normalising it again changes nothing.
    """
    count = len(tensor.people)
    grid = np.broadcast_to(tensor.grid.angles().columns().reshape(-1, 3), (count, tensor.grid.size, 3))
    faces = {"on_grid": list(_of_tensor(tensor.people, tensor.features, tensor.routes, grid, points))}
    if tensor.random_routes.size:
        random = (tensor.random_features, tensor.random_routes, tensor.random_angles)
        faces["off_grid"] = list(_of_tensor(tensor.people, *random, points))
    return faces


def _of_tensor(
    people: Sequence[int],
    features: NDArray[np.float32],
    found_by: NDArray[np.uint8],
    angles: NDArray[np.float64],
    points: PointSet,
) -> Iterator[LabelledFace]:
    for person, rows, kinds, poses in zip(people, features, found_by, angles, strict=True):
        marks = np.asarray(rows).reshape(-1, points.n_points, 3)
        for index, (kind, pose) in enumerate(zip(np.asarray(kinds).reshape(-1), poses, strict=True)):
            yaw, pitch, roll = (float(value) for value in pose)
            face = Face.from_points(marks[index], SEARCHES[kind]) if kind else _NO_FACE
            yield LabelledFace(f"ID{person}_({yaw:g}_{pitch:g}_{roll:g})", (yaw, pitch, roll), face, str(person))


def landmark_route(engine: Engine, name: Route) -> Answerer:
    """A route of an engine that needs landmarks, in the model's named head frame.

    A face without landmarks has no answer.
    """
    return partial(Eyes(engine).by_landmarks, route=name)


def ask(faces: Iterable[LabelledFace], routes: Mapping[str, Answerer]) -> Answered:
    """Every route's answers to every face; images are let go batch by batch.

    Parameters
    ----------
    faces : iterable of LabelledFace
        Read one after the other.
    routes : mapping of str to callable
        Name -> what turns faces into `Estimates`.

    Returns
    -------
    Answered
        Labels and answers in the order of the faces.

    Raises
    ------
    ValueError
        Where a route answers another number of faces than it was asked about.

    Examples
    --------
    >>> def frontal(faces):
    ...     return Estimates.of_rotations(np.tile(np.eye(3), (len(faces), 1, 1)))
    >>> face = Face(None, (0.0, 0.0, 8.0, 8.0))
    >>> answered = ask([LabelledFace("a", (10.0, 0.0, 0.0), face)], {"frontal": frontal})
    >>> answered.names, answered.answers["frontal"].rotation.shape
    (('a',), (1, 3, 3))
    """
    names: list[str] = []
    people: list[str] = []
    found_by: list[str] = []
    labels: list[tuple[float, float, float]] = []
    nothing = Estimates.of_rotations(np.empty((0, 3, 3)))
    parts: dict[str, list[Estimates]] = {name: [nothing] for name in routes}
    stream = iter(faces)
    while batch := list(itertools.islice(stream, BATCH)):
        for labelled in batch:
            names.append(labelled.name)
            people.append(labelled.person)
            found_by.append(labelled.face.found_by)
            labels.append(labelled.label)
        for name, route in routes.items():
            given = route([labelled.face for labelled in batch])
            if len(given.rotation) != len(batch):
                raise ValueError(
                    f"route {name!r}: expected an answer to each of {len(batch)} faces, NaN where there is none; "
                    f"received {len(given.rotation)}"
                )
            parts[name].append(given)
    joined = {name: Estimates(*map(np.concatenate, zip(*given, strict=True))) for name, given in parts.items()}
    angles = Angles.from_columns(np.reshape(labels, (-1, 3)))
    return Answered(tuple(names), tuple(people), tuple(found_by), angles, joined)
