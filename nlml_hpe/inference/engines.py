"""What turns faces into poses: one ONNX file, without torch; or the model itself (``torch_engine``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import COINCIDE, PointSet, check_landmarks, points_named
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import require_digest
from nlml_hpe.inference.looks import mean_and_scatter, mean_of_looks, score_of, with_looks
from nlml_hpe.model.components import read_components
from nlml_hpe.model.format import (
    CONFIG_FILE,
    CROP_ONNX_FORMAT,
    IMAGE_ONNX_FORMAT,
    METADATA,
    ONNX_FILE,
    ONNX_FORMAT,
    ONNX_FORMATS,
    WHOLE_ONNX_FORMAT,
)
from nlml_hpe.rotation import (
    CONVENTION,
    Angles,
    covariance_from_sigma,
    is_rotation,
    rotation_from_angles,
    sigma_from_covariance,
)
from nlml_hpe.sessions import answers, open_session
from nlml_hpe.threads import begin, thread_count

Route = Literal["network", "exact", "refined", "powell"]
DEFAULT_ROUTE: Route = "refined"
_ROUNDED = 1e-6
"""How far a rotation that was written as text may be from one."""
ONNX_ROUTES: tuple[Route, ...] = ("network", "refined")
"""The routes that an ONNX file holds."""
Interval = tuple[float, float]


class Estimates(NamedTuple):
    """Poses of N faces in one head frame.

    Parameters
    ----------
    rotation : float array (N, 3, 3)
        Maps head to camera.
    covariance : float array (N, 3, 3)
        Of the error's rotation vector w in the camera frame, ``R(true) = exp([w]) R(estimated)``, in square radians;
        NaN where it is not known. It is the same in every head frame.
    """

    rotation: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @property
    def sigma(self) -> NDArray[np.float64]:
        """Standard deviations (N, 3) of yaw, pitch and roll in degrees, 104 at most; NaN where they are not known."""
        return sigma_from_covariance(self.rotation, self.covariance)

    @property
    def score(self) -> NDArray[np.float64]:
        """How sure each pose (N,) is, in 0..1, as ``looks.score_of``; NaN where it is not known."""
        return score_of(self.covariance)

    @classmethod
    def of_rotations(cls, rotation: NDArray[np.float64]) -> Estimates:
        """Rotations (N, 3, 3) of which nothing more is known."""
        # An array of its own: whoever joins estimates writes into it.
        return cls(rotation, np.full((len(rotation), 3, 3), np.nan))

    @classmethod
    def of_angles(cls, rotation: NDArray[np.float64], sigma: NDArray[np.float64]) -> Estimates:
        """Rotations (N, 3, 3) with the standard deviations (N, 3) of their angles, whose errors are independent."""
        return cls(rotation, covariance_from_sigma(rotation, sigma))

    def joined(self, counts: Sequence[int]) -> Estimates:
        """Of looks, those of a face side by side and ``counts`` of each face: one estimate of each of N faces."""
        if max(counts, default=1) == 1:
            return self
        return Estimates(*mean_of_looks(self.rotation, self.covariance, counts))

    def in_named_frame(self, named_from_own: NDArray[np.float64]) -> Estimates:
        """Poses in the own head frame, in the named one: ``named_from_own`` is C (3, 3) of ``Engine``."""
        return self._replace(rotation=self.rotation @ named_from_own)

    def in_own_frame(self, named_from_own: NDArray[np.float64]) -> Estimates:
        """Poses in the named head frame, in the own one: the way back from ``in_named_frame``.

        >>> turn = rotation_from_angles(Angles.from_columns((0.0, 5.0, 0.0)))
        >>> own = Estimates.of_rotations(np.eye(3)[None])
        >>> bool(np.allclose(own.in_named_frame(turn).in_own_frame(turn).rotation, own.rotation))
        True
        """
        return self._replace(rotation=self.rotation @ named_from_own.T)


class Engine(Protocol):
    """Faces in, poses out, in the model's named head frame."""

    @property
    def point_set(self) -> PointSet:
        """The landmarks that the model was trained on."""
        ...

    @property
    def min_confidence(self) -> float:
        """The detector's threshold in training."""
        ...

    @property
    def range(self) -> tuple[Interval, Interval, Interval]:
        """Lowest and highest yaw, pitch and roll of training, in degrees, in the model's own head frame."""
        ...

    @property
    def frame(self) -> str:
        """Name of the head frame of the answers."""
        ...

    @property
    def named_from_own(self) -> NDArray[np.float64]:
        """C (3, 3) with ``R(named) = R(own) C``: the named head frame beside that of the training heads."""
        ...

    def estimate(self, faces: Sequence[Face], route: Route) -> Estimates:
        """Pose of faces, in their order, by one route.

        Raises ``ValueError`` for a route that the engine does not have and for a face without what it needs.
        """
        ...


def points_of(faces: Sequence[Face], point_set: PointSet) -> NDArray[np.float64]:
    """Landmarks (M, P, 3) of all looks at N faces, those of a face side by side; of faces seen once M is N.

    Raises ``ValueError`` where a face has none, or other ones.
    """
    if not faces:
        return np.empty((0, point_set.n_points, 3))
    first = [check_landmarks(face.landmarks, point_set)[None] for face in faces]
    further = [face.looks for face in faces]
    return np.concatenate([part for pair in zip(first, further, strict=True) for part in pair if part is not None])


def by_looks(
    points: NDArray[np.float64],
    counts: Sequence[int],
    route: Route,
    estimate: Callable[[NDArray[np.float64], Route], Estimates],
    threads: int = 1,
) -> Estimates:
    """Poses of N faces of which some were seen several times; the rule is that of ``looks``.

    Parameters
    ----------
    points : float array (M, P, 3)
        Landmarks of all looks, those of a face side by side.
    counts : sequence of int
        How many looks there are at each face; their sum is M.
    route : Route
        Of the answers.
    estimate : callable
        Answers landmarks by a route.
    threads : int
        How many threads may take part, as of ``threads.begin``; with more than one ``estimate`` is called in several
        at once.

    Returns
    -------
    Estimates
        In the frame that ``estimate`` answers in.
    """
    if max(counts, default=1) == 1 or route != "refined":
        return estimate(points, route).joined(counts)
    sizes = np.asarray(counts)
    mean = np.add.reduceat(points, np.cumsum(sizes) - sizes) / sizes[:, None, None]

    def rough() -> Estimates:
        """Of each face the mean of the network's answers to its looks, and their scatter as its covariance."""
        return Estimates(*mean_and_scatter(estimate(points, "network").rotation, counts))

    # The exact step, which takes longer, is last: with that this thread begins.
    looks, exact = begin(lambda work: work(), [rough, lambda: estimate(mean, "refined")], threads).results()
    return Estimates(*with_looks(*exact, *looks, counts))


def n_looks(faces: Sequence[Face]) -> list[int]:
    """How many looks there are at each face, the first one included."""
    return [1 + (0 if face.looks is None else len(face.looks)) for face in faces]


class OnnxEngine:
    """The file that ``model.onnx_export.export_onnx`` writes, run by onnxruntime on the CPU.

    It is always the CPU: the network is one of a third of a millisecond, and the descent after it many small steps,
    each of which would wait for another processor.

    In a model folder, whose config.json has its SHA-256, it must be the file that was written with it.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.

    Raises
    ------
    ArtifactError
        For a file that is missing, damaged, or of another version or convention.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> engine = OnnxEngine(SHIPPED / ONNX_FILE)
    >>> engine.point_set.name, engine.range[0]
    ('facemesh468', (-50.0, 50.0))
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            if path.parent.is_file():
                raise ArtifactError(f"{path.parent} is no model: expected a model folder or an .onnx file")
            raise ArtifactError(
                f"{path} is missing; name a model folder, as ModelBuilder and ImageModelBuilder write it, or an ONNX "
                "file (or use backend='torch', where a model folder was written without this one)"
            )
        _verify(path)
        # Its layers are small, and a second thread that waits for them costs more than it brings.
        self._session = open_session(path, threads=1)
        about = _about(path, self._session.get_modelmeta().custom_metadata_map)
        self.point_set: PointSet = points_named(about.get("point_set"), path)
        self.min_confidence, self.frame = float(about["min_confidence"]), str(about["frame"])
        self.range: tuple[Interval, Interval, Interval] = range_of(path, about)
        # Files of format 3 do not have it; their range is compared in the named frame, degrees beside the own one.
        self.named_from_own: NDArray[np.float64] = named_from_own_of(path, {"named_from_own": np.eye(3), **about})

    def estimate(self, faces: Sequence[Face], route: Route) -> Estimates:
        """As ``Engine.estimate``; the file holds the routes ``network`` and ``refined``."""
        if route not in ONNX_ROUTES:
            raise ValueError(f"an ONNX model has the routes 'network' and 'refined'; {route!r} needs backend='torch'")
        points = points_of(faces, self.point_set)
        if not len(points):
            return Estimates.of_rotations(np.empty((0, 3, 3)))
        return by_looks(points, n_looks(faces), route, self._answers, thread_count())

    def _answers(self, points: NDArray[np.float64], route: Route) -> Estimates:
        """What the file says of landmarks (M, P, 3)."""
        inputs = {"landmarks": points.astype(np.float32), "refine": np.array(route == "refined")}
        shape = (len(points), 3)
        angles, sigma = answers(self._session, inputs, **{route: shape, "sigma": shape})
        if not np.isfinite(angles).all():
            raise ValueError(COINCIDE)
        rotation = rotation_from_angles(Angles.from_columns(angles))
        if route == "network":
            return Estimates.of_rotations(rotation)
        # The file's deviations are those of the angles in the own frame.
        own = Estimates.of_angles(rotation @ self.named_from_own.T, sigma)
        return own.in_named_frame(self.named_from_own)


def _verify(path: Path) -> None:
    """Refuse a file that is not the one of its folder's config.json. A file alone has nothing to be compared with."""
    if path.name == ONNX_FILE and path.with_name(CONFIG_FILE).is_file():
        component = read_components(path.parent).get("landmark_eye")
        if component and ONNX_FILE in component.sha256:
            require_digest(path, component.sha256[ONNX_FILE])


def said_of_itself(path: Path, properties: dict[str, str]) -> dict[str, Any]:
    """What an ONNX file of this project says of itself: ``format``, ``convention`` and more, by its metadata.

    Raises ``ArtifactError`` where it says nothing that reads.
    """
    try:
        about: dict[str, Any] = json.loads(properties[METADATA])
        about["format"], about["convention"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is no ONNX model of this project ({error}); export it again") from error
    return about


def range_of(path: Path, about: dict[str, Any]) -> tuple[Interval, Interval, Interval]:
    """The range of training that an ONNX file says of itself. Raises ``ArtifactError`` where it is none."""
    values = _numbers_of(path, about, "range", (3, 2))
    # Both are the same of an axis of one angle.
    if not (values[:, 0] <= values[:, 1]).all():
        raise ArtifactError(f"{path}: expected a range of lower and higher degrees; found {values.tolist()}")
    yaw, pitch, roll = ((float(low), float(high)) for low, high in values)
    return yaw, pitch, roll


def named_from_own_of(path: Path, about: dict[str, Any]) -> NDArray[np.float64]:
    """The head frame (3, 3) that an ONNX file says of itself. Raises ``ArtifactError`` where it is no rotation."""
    frame = _numbers_of(path, about, "named_from_own", (3, 3))
    if not is_rotation(frame, _ROUNDED):
        raise ArtifactError(f"{path}: expected a rotation as named_from_own; found {frame.tolist()}; export it again")
    return frame


def _numbers_of(path: Path, about: dict[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        values = np.array(about.get(name), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{path}: {name!r} are no numbers ({error}); export it again") from error
    if values.shape != shape or not np.isfinite(values).all():
        raise ArtifactError(
            f"{path}: expected {name!r} of shape {shape} and finite; found {about.get(name)!r}; export it again"
        )
    return values


def _about(path: Path, properties: dict[str, str]) -> dict[str, Any]:
    """The same, of a landmark eye that is known here."""
    about = said_of_itself(path, properties)
    form, convention = about["format"], about["convention"]
    if form in (CROP_ONNX_FORMAT, WHOLE_ONNX_FORMAT, IMAGE_ONNX_FORMAT):
        raise ArtifactError(
            f"{path} takes pictures ({form!r}), where one that takes landmarks is expected ({ONNX_FORMAT!r}): run it "
            "by onnxruntime itself, as README.md shows, or name the model folder that it was made of"
        )
    if form not in ONNX_FORMATS or convention != CONVENTION:
        raise ArtifactError(
            f"{path}: expected {ONNX_FORMAT!r} with {CONVENTION!r}; found {form!r} with {convention!r}; export it again"
        )
    for name, kind in (("min_confidence", (int, float)), ("frame", str)):
        if not isinstance(about.get(name), kind):
            raise ArtifactError(f"{path}: it does not say its {name}, or says {about.get(name)!r}; export it again")
    if not 0 <= about["min_confidence"] <= 1:
        raise ArtifactError(
            f"{path}: expected min_confidence in 0..1; found {about['min_confidence']!r}; export it again"
        )
    return about
