"""Landmarks of a face, what a detector must give, and from landmarks to a pose feature.

Landmarks are pixels of one image: x to the right, y down, z into the scene, all three in units of
the image width's pixel (FaceMesh gives z relative to the width). Feeding x/W and y/H instead would
distort every image that is not square.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.face import Box, Face, box_of
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage

Normalization = Literal["nose_eye_corners", "centroid_rms"]
MIN_CONFIDENCE = 0.3
COINCIDE = "landmarks coincide: a face without size has no pose"
SEARCHES = ("none", "whole", "mirrored", "bordered", "crop", "box")
"""Which step of the search found a face; artefacts record the index."""
AT_ONCE = ("whole", "mirrored", "bordered", "box")
"""Those that show the whole image: what others find is small, turned, or no face at all now and then."""


@dataclass(frozen=True)
class PointSet:
    """What a detector's points mean: how many, and which ones normalisation refers to.

    Parameters
    ----------
    name : str
        By which artefacts know it.
    n_points : int
        How many points a face has.
    nose_tip : int
        Index of the nose's tip.
    eye_corners : tuple of two int
        Indices of the outer corners of both eyes.

    Examples
    --------
    >>> FACEMESH.feature_length, FACEMESH.feature_name("nose_eye_corners")
    (1404, 'facemesh468/nose_eye_corners')
    """

    name: str
    n_points: int
    nose_tip: int
    eye_corners: tuple[int, int]

    @property
    def feature_length(self) -> int:
        """Length of the flattened feature: x, y, z of every point."""
        return 3 * self.n_points

    def feature_name(self, normalization: Normalization) -> str:
        """The name by which artefacts tell one kind of feature from another.

        Parameters
        ----------
        normalization : "nose_eye_corners" or "centroid_rms"
            What ``normalize_landmarks`` does to these points.

        Returns
        -------
        str
            Both names, with a slash between them.
        """
        return f"{self.name}/{normalization}"


FACEMESH = PointSet("facemesh468", 468, nose_tip=1, eye_corners=(33, 263))
IBUG68 = PointSet("ibug68", 68, nose_tip=30, eye_corners=(36, 45))
POINT_SETS = {points.name: points for points in (FACEMESH, IBUG68)}
"""By the name under which a model folder has them; those of a detector of your own are entered before one is saved or
read."""


def points_named(name: object, place: Path) -> PointSet:
    """The points by whose name a model at ``place`` has them.

    Raises ``ArtifactError`` for those that are not in ``POINT_SETS``.
    """
    if not isinstance(name, str) or name not in POINT_SETS:
        raise ArtifactError(
            f"{place}: landmarks {name!r} are not known, only {sorted(POINT_SETS)}; enter those of a detector of your "
            "own into nlml_hpe.detection.landmarks.POINT_SETS before a model of them is saved or read"
        )
    return POINT_SETS[name]


class LandmarkDetector(Protocol):
    """A face-landmark detector: RGB image in, faces out, largest first, an empty list for none."""

    point_set: PointSet

    def detect(self, image: RgbImage) -> list[Face]:
        """Faces in an RGB uint8 image ``(H, W, 3)``."""
        ...

    def detect_in_box(self, image: RgbImage, box: Box) -> Face | None:
        """The one face whose centre lies in an annotated ``box``, however hard it is to find."""
        ...

    def close(self) -> None:
        """Release what the detector holds."""
        ...


def check_landmarks(points: ArrayLike, point_set: PointSet) -> NDArray[np.float64]:
    """Landmarks ``(..., N, 3)`` as float64. Raises ``ValueError`` for another shape and for values not finite."""
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-2:] != (point_set.n_points, 3):
        raise ValueError(f"expected landmarks (..., {point_set.n_points}, 3); received shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("landmarks hold NaN or infinite values")
    return array


def normalize_landmarks(
    points: ArrayLike, point_set: PointSet = FACEMESH, normalization: Normalization = "nose_eye_corners"
) -> NDArray[np.float32]:
    """Pose features of landmarks: without place and size, but turning with the head.

    Parameters
    ----------
    points : array_like of shape (..., N, 3)
        In pixels, image axes.
    point_set : PointSet
        What they mean.
    normalization : str
        ``nose_eye_corners`` subtracts the nose tip and divides by the 3D distance of the eye corners;
        ``centroid_rms`` subtracts the centroid and divides by the rms distance from it.

    Returns
    -------
    ndarray of shape (..., 3 N), float32
        x, y, z of every point.

    Raises
    ------
    ValueError
        For another number of points, another normalization, values that are not finite, and points that coincide.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal(size=(468, 3))
    >>> feature = normalize_landmarks(points)
    >>> bool(np.allclose(normalize_landmarks(3 * points + 100), feature, atol=1e-5))
    True
    """
    if normalization not in get_args(Normalization):
        known = list(get_args(Normalization))
        raise ValueError(f"unknown normalization {normalization!r}; expected one of {known}")
    array = check_landmarks(points, point_set)
    if normalization == "nose_eye_corners":
        centred = array - array[..., point_set.nose_tip : point_set.nose_tip + 1, :]
        left, right = point_set.eye_corners
        scale = np.linalg.norm(array[..., left, :] - array[..., right, :], axis=-1)
    else:
        centred = array - array.mean(axis=-2, keepdims=True)
        scale = np.sqrt((centred**2).sum(axis=-1).mean(axis=-1))
    if (scale <= 0).any():
        raise ValueError(COINCIDE)
    feature = centred / scale[..., None, None]
    return feature.reshape(*array.shape[:-2], point_set.feature_length).astype(np.float32)


@cache
def _facemesh_tables() -> dict[str, Any]:
    """MediaPipe's tables, which say where each comes from."""
    tables: dict[str, Any] = json.loads(Path(__file__).with_name("facemesh_tables.json").read_text(encoding="utf-8"))
    return tables


def _table(name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """One of them as an array. It is kept, and who is given it cannot write into it: later answers go by it, too."""
    table = np.array(_facemesh_tables()[name], dtype=dtype)
    table.flags.writeable = False
    return table


@cache
def facemesh_triangles() -> NDArray[np.int32]:
    """The FaceMesh tessellation as triangles ``(852, 3)``, read-only; eyes and mouth are left open.

    Orientation is not consistent; ``renderer.mesh.orient_outwards`` makes it so.

    >>> facemesh_triangles().shape
    (852, 3)
    """
    return _table("triangles", np.int32)


@cache
def facemesh_canonical() -> NDArray[np.float64]:
    """MediaPipe's canonical face ``(468, 3)`` in cm, read-only, in the head frame (x right, y up, z to the viewer).

    >>> facemesh_canonical()[FACEMESH.nose_tip]
    array([ 0.      , -1.126865,  7.475604])
    """
    return _table("canonical", np.float64)


def boundary_loops(triangles: Iterable[Iterable[int]]) -> list[list[int]]:
    """Closed loops of the edges that belong to one triangle only, longest first."""
    count: dict[tuple[int, int], int] = {}
    for triangle in triangles:
        for first, second in itertools.combinations(sorted(int(v) for v in triangle), 2):
            count[first, second] = count.get((first, second), 0) + 1
    links: dict[int, list[int]] = {}
    for first, second in sorted(edge for edge, uses in count.items() if uses == 1):
        links.setdefault(first, []).append(second)
        links.setdefault(second, []).append(first)
    loops: list[list[int]] = []
    seen: set[int] = set()
    for start in sorted(links):
        loop: list[int] = []
        vertex: int | None = start
        while vertex is not None and vertex not in seen:
            seen.add(vertex)
            loop.append(vertex)
            vertex = next((other for other in links[vertex] if other not in seen), None)
        if loop:
            loops.append(loop)
    return sorted(loops, key=len, reverse=True)


# The FaceMesh point that lies nearest to each of the 68, in their order: jaw, brows, nose, eyes, mouth. On 142
# photographs the square around these is that around the labels' points to 2% of its side up to 30 degrees of yaw.
_FACEMESH_68 = np.array(
    [
        *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
        *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305),
        *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
    ]
)


def canonical_68() -> NDArray[np.float64]:
    """The 68 points ``(68, 3)`` of MediaPipe's canonical face, as ``facemesh_canonical``.

    >>> canonical_68().shape
    (68, 3)
    """
    return facemesh_canonical()[_FACEMESH_68]


BOX_SHORT, BOX_SHORTER_IN_PROFILE = 0.03, 0.085
"""Logarithm of the factor by which the box of these 68 of FaceMesh's landmarks is smaller than that of the 68 points
themselves, of a frontal face, and how much more it is in full profile: FaceMesh's contour ends short of the jaw's ends
at the ears. Measured on rendered people, whose own points are known: ``benchmarks/landmark_boxes.py``."""
_TINY = 1e-12
_INDICES_68 = {FACEMESH.n_points: _FACEMESH_68, IBUG68.n_points: np.arange(68)}


def box_of_68(face: Face) -> Box:
    """The box of the 68 contour-and-feature points, around which crops are cut.

    The one that was given, otherwise that of the landmarks, and ``face.box`` of a face that has neither. FaceMesh's
    contour lies within that of the 68 points, so the box of its landmarks is made larger by as much.

    Parameters
    ----------
    face : Face
        Of any detector.

    Returns
    -------
    Box
        Left, top, right, bottom in pixels: brows to chin, cheek to cheek.

    Examples
    --------
    >>> box_of_68(Face(None, (1.0, 2.0, 3.0, 4.0)))
    (1.0, 2.0, 3.0, 4.0)
    """
    if face.given_box is not None:
        return face.given_box
    indices = None if face.points is None else _INDICES_68.get(len(face.points))
    if face.points is None or indices is None:
        return face.box
    box = box_of(face.points[indices])
    if len(face.points) != FACEMESH.n_points:
        return box
    return _widened(box, BOX_SHORT + BOX_SHORTER_IN_PROFILE * facemesh_profile(face.points))


def facemesh_profile(points: NDArray[np.floating]) -> float:
    """How far FaceMesh's landmarks (468, 3) are turned to profile: the squared sine of the angle between the line
    through the outer corners of the eyes and the image.

    Examples
    --------
    >>> points = np.zeros((468, 3))
    >>> points[263] = (30, 0, 30)
    >>> round(facemesh_profile(points), 3)
    0.5
    """
    first, second = FACEMESH.eye_corners
    across = np.asarray(points[second] - points[first], dtype=np.float64)
    return float(across[2] ** 2 / max(float(across @ across), _TINY))


def _widened(box: Box, by: float) -> Box:
    """A box about the same middle, its sides times the exponential of ``by``."""
    left, top, right, bottom = box
    more_x, more_y = (side * math.expm1(by) / 2 for side in (right - left, bottom - top))
    return left - more_x, top - more_y, right + more_x, bottom + more_y


# Jaw, brows, bridge and tip of the nose; eyes; mouth.
_IBUG68_MIRROR = np.concatenate(
    [
        [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)],
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
        [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65],
    ]
)
_IBUG68_MIRROR.flags.writeable = False


def has_mirror(points: PointSet) -> bool:
    """Whether it is known which point is the mirror image of which."""
    return points in (FACEMESH, IBUG68)


def mirror_of(points: PointSet) -> NDArray[np.int64]:
    """Permutation ``(N,)``, read-only: the index of every point's mirror image in the sagittal plane.

    Raises ``ValueError`` for points of which it is not known.
    """
    if not has_mirror(points):
        raise ValueError(
            f"which of the points {points.name!r} mirror one another is not known; it is of {FACEMESH.name!r} and "
            f"{IBUG68.name!r}"
        )
    return facemesh_mirror() if points == FACEMESH else _IBUG68_MIRROR


def mirrored_points(points: NDArray[np.float64], width: int, point_set: PointSet) -> NDArray[np.float64]:
    """Landmarks (..., N, 3) found in the mirror image of an image ``width`` pixels wide, as those of the image."""
    return points[..., mirror_of(point_set), :] * [-1, 1, 1] + [width, 0, 0]


def mirrored_features(features: NDArray[np.float32], points: PointSet) -> NDArray[np.float32]:
    """Features of the mirrored faces: yaw and roll change their signs. Both normalisations commute with it.

    Parameters
    ----------
    features : ndarray of shape (N, F), float32
        As `normalize_landmarks` makes them.
    points : PointSet
        What they are made of.

    Returns
    -------
    ndarray of shape (N, F), float32
        Mirrored twice they are as before.

    Raises
    ------
    ValueError
        For features of another shape, and for points of which it is not known which mirror one another: those of a
        detector of your own.

    Examples
    --------
    >>> features = np.random.default_rng(0).normal(size=(2, 1404)).astype(np.float32)
    >>> bool((mirrored_features(mirrored_features(features, FACEMESH), FACEMESH) == features).all())
    True
    """
    if features.ndim != 2 or features.shape[1] != points.feature_length:
        raise ValueError(f"expected features (N, {points.feature_length}); received shape {features.shape}")
    turned = features.reshape(len(features), points.n_points, 3)[:, mirror_of(points)]
    turned[..., 0] *= -1
    return turned.reshape(features.shape)


@cache
def facemesh_mirror() -> NDArray[np.int64]:
    """Permutation ``(468,)``, read-only: the index of every FaceMesh point's mirror image in the sagittal plane.

    >>> int(facemesh_mirror()[33])
    263
    """
    return _table("mirror", np.int64)
