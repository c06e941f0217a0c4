"""Labelled faces, from photographs and from rendered people alike, and what a route answers to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.detection.landmarks import LOOKS, LandmarkDetector, PointSet
from nlml_hpe.evaluation.datasets import Dataset
from nlml_hpe.face import Box, Face
from nlml_hpe.files.images import ImageReadError, RgbImage
from nlml_hpe.inference.engines import Engine
from nlml_hpe.inference.engines import Route as RouteName
from nlml_hpe.rotation import Angles, rotation_from_angles

if TYPE_CHECKING:
    from nlml_hpe.manifold.tensor import LandmarkTensor

BATCH = 64
"""Faces that go through a route together; only so many images are held in memory."""
UNREADABLE = "image not readable"
_NO_LOOK = LOOKS[0]


@dataclass(frozen=True, eq=False)
class LabelledFace:
    """One face whose pose is known.

    Attributes
    ----------
    name : str
        The sample's name, or the rendered image's.
    label : tuple of float
        Yaw, pitch and roll in degrees, as the label states them.
    image : ndarray, optional
        RGB uint8 (H, W, 3).
    box : tuple of float, optional
        The labelled box in pixels; without one in the label that of the landmarks.
    points : ndarray, optional
        (N, 3) landmarks in pixels, image axes; None where the detector found no face.
    look : str
        How the detector found it: one of ``LOOKS``, "none" where it did not.
    person : str
        Identity of a rendered person; empty for photographs.
    """

    name: str
    label: tuple[float, float, float]
    image: RgbImage | None = None
    box: Box | None = None
    points: NDArray[np.float64] | None = None
    look: str = _NO_LOOK
    person: str = ""


@dataclass(frozen=True, eq=False)
class Answers:
    """One route's answers to n faces: ``rotation`` (n, 3, 3) head to camera, NaN where it has none, and its standard
    deviations ``sigma`` (n, 3) in degrees, NaN where not known."""

    rotation: NDArray[np.float64]
    sigma: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which faces (n,) have an answer."""
        return np.isfinite(self.rotation).all(axis=(1, 2))

    def turned(self, constant: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rotations in another head frame: each times ``constant`` (3, 3)."""
        return self.rotation @ constant

    def __getitem__(self, mask: NDArray[np.bool_]) -> Answers:
        return Answers(self.rotation[mask], self.sigma[mask])


Route = Callable[[Sequence[LabelledFace]], Answers]
"""Any way from faces to rotations: of landmarks, of pixels, or of both. It answers what it can."""


@dataclass(frozen=True, eq=False)
class Answered:
    """What several routes answered to the same n labelled faces."""

    names: tuple[str, ...]
    people: tuple[str, ...]
    looks: tuple[str, ...]
    labels: Angles
    answers: Mapping[str, Answers]

    @property
    def true(self) -> NDArray[np.float64]:
        """True rotations (n, 3, 3)."""
        return rotation_from_angles(self.labels)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which faces (n,) the detector found."""
        return np.array([look != _NO_LOOK for look in self.looks], dtype=bool)

    def chosen(self, mask: NDArray[np.bool_]) -> Answered:
        """The same of some of the faces (n,)."""
        names, people, looks = (
            tuple(itertools.compress(values, mask)) for values in (self.names, self.people, self.looks)
        )
        labels = Angles.from_columns(self.labels.columns()[mask])
        return Answered(names, people, looks, labels, {route: given[mask] for route, given in self.answers.items()})


def photographs(data: Dataset, detector: LandmarkDetector) -> Iterator[LabelledFace]:
    """The annotated face of every sample: the one in the label's box, where there is a box, or the largest.

    A sample whose image does not read is moved to ``data.left_out``, with its name, and the next one follows. Shows a
    progress bar on stderr.
    """
    usable = []
    for sample in tqdm(data.samples, desc=f"Evaluate {data.name}", unit="face"):
        try:
            image = sample.load()
        except ImageReadError:
            data.leave_out(UNREADABLE, sample.name)
            continue
        usable.append(sample)
        face = detector.detect_in_box(image, sample.box) if sample.box else next(iter(detector.detect(image)), None)
        if face is None:
            yield LabelledFace(sample.name, sample.angles, image, sample.box)
        else:
            yield LabelledFace(sample.name, sample.angles, image, sample.box or face.box, face.points, face.look)
    data.samples = usable


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
    looks: NDArray[np.uint8],
    angles: NDArray[np.float64],
    points: PointSet,
) -> Iterator[LabelledFace]:
    for person, rows, kinds, poses in zip(people, features, looks, angles, strict=True):
        marks = np.asarray(rows).reshape(-1, points.n_points, 3)
        for index, (kind, pose) in enumerate(zip(np.asarray(kinds).reshape(-1), poses, strict=True)):
            yaw, pitch, roll = (float(value) for value in pose)
            name, seen = f"ID{person}_({yaw:g}_{pitch:g}_{roll:g})", marks[index].astype(np.float64) if kind else None
            yield LabelledFace(name, (yaw, pitch, roll), points=seen, look=LOOKS[kind], person=str(person))


def landmark_route(engine: Engine, name: RouteName) -> Route:
    """A route of an engine that needs landmarks, in the model's named head frame.

    A face without landmarks has no answer.
    """

    def answer(faces: Sequence[LabelledFace]) -> Answers:
        rotation, sigma = np.full((len(faces), 3, 3), np.nan), np.full((len(faces), 3), np.nan)
        seen = {i: Face.from_points(face.points) for i, face in enumerate(faces) if face.points is not None}
        if seen:
            found, rows = engine.estimate(list(seen.values()), name), list(seen)
            rotation[rows], sigma[rows] = found.rotation, found.sigma
        return Answers(rotation, sigma)

    return answer


def ask(faces: Iterable[LabelledFace], routes: Mapping[str, Route]) -> Answered:
    """Every route's answers to every face; images are let go batch by batch.

    Examples
    --------
    >>> def frontal(faces):
    ...     return Answers(np.tile(np.eye(3), (len(faces), 1, 1)), np.full((len(faces), 3), 5.0))
    >>> answered = ask([LabelledFace("a", (10.0, 0.0, 0.0)), LabelledFace("b", (0.0, 0.0, 0.0))], {"frontal": frontal})
    >>> answered.names, answered.answers["frontal"].rotation.shape
    (('a', 'b'), (2, 3, 3))
    """
    told: list[LabelledFace] = []
    parts: dict[str, list[Answers]] = {name: [Answers(np.empty((0, 3, 3)), np.empty((0, 3)))] for name in routes}
    stream = iter(faces)
    while batch := list(itertools.islice(stream, BATCH)):
        told += [replace(face, image=None, points=None) for face in batch]
        for name, route in routes.items():
            parts[name].append(route(batch))
    joined = {
        name: Answers(np.concatenate([p.rotation for p in given]), np.concatenate([p.sigma for p in given]))
        for name, given in parts.items()
    }
    return Answered(
        tuple(face.name for face in told),
        tuple(face.person for face in told),
        tuple(face.look for face in told),
        Angles.from_columns(np.reshape([face.label for face in told], (-1, 3))),
        joined,
    )
