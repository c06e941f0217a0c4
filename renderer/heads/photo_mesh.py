"""The closed, textured head of one photograph.

The detector's 468 points are the surface of the face and the photograph its texture. The points
are made upright by the face's own symmetry, their depth is scaled as real turned faces ask for,
and a fitted cranium and neck close the back, so that no pose shows a hollow mask.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import FACEMESH, LandmarkDetector, boundary_loops, facemesh_mirror, facemesh_triangles
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import IMAGE_FROM_CAMERA
from renderer.heads import EYE_CORNER_DISTANCE_MM, HeadDataError
from renderer.mesh import Mesh, orient_outwards
from renderer.smoothstep import smoothstep

DEPTH_SCALE = 1.05
"""FaceMesh depth times this best predicts where the points of real turned faces lie: the minimum of
the 2D misfit of the mean frontal shape over faces beyond 30 degrees of yaw (aflw2000_dev)."""
FRONTAL_TILT_DEG = 2.0
"""Forward tilt of the face oval's plane in a face whose pitch is labelled zero (mean over 359 faces
of aflw2000_dev, standard deviation 4.1 degrees; FaceMesh depth). A smile hardly moves the oval."""

_MOST_LEAN_DEG = 45.0
"""A face that leans further lies on its side: what is hair and what is neck would be told by the wrong direction."""

_FOREHEAD, _CHIN = 10, 152
_TEXTURE_PX = 640
_UNROLL = 0.6
_RINGS = 14


class HeadPhotoError(HeadDataError):
    """A photograph cannot become a head; the message says why."""


def head_from_photo(image: RgbImage, name: str, detector: LandmarkDetector) -> Mesh:
    """The closed, textured head of the one face in a photograph.

    Parameters
    ----------
    image : RGB uint8 array (H, W, 3)
        The photograph.
    name : str
        Of it, for the message.
    detector : LandmarkDetector
        With FaceMesh's points.

    Returns
    -------
    Mesh
        In millimetres and in the head frame.

    Raises
    ------
    HeadPhotoError
        Where no face or more than one is found, and where it lies on its side.
    """
    faces = detector.detect(image)
    if len(faces) != 1:
        found = "no face" if not faces else f"{len(faces)} faces"
        raise HeadPhotoError(f"{name}: {found} found; a head needs a photograph of one face, upright and unobscured")
    points = faces[0].landmarks
    _require_upright(points, name)
    topology = _topology()
    face = _frontal_shape(points)
    vertices = np.concatenate([_close_holes(face, topology), _cranium(face, topology), _neck(face)])
    texture, uv = _texture(image, points, topology)
    return Mesh(vertices.astype(np.float32), _faces(vertices, topology), uv, texture)


def _require_upright(points: NDArray[np.float64], name: str) -> None:
    first, second = FACEMESH.eye_corners
    right, down, _ = points[second] - points[first]
    lean = float(np.degrees(np.arctan2(down, right)))
    if abs(lean) > _MOST_LEAN_DEG:
        raise HeadPhotoError(
            f"{name}: the face leans by {lean:.0f} degrees, clockwise counted; turn the photograph until it is upright"
        )


@dataclass(frozen=True)
class _Topology:
    triangles: NDArray[np.int32]
    oval: list[int]
    holes: list[list[int]]


@lru_cache(maxsize=1)
def _topology() -> _Topology:
    triangles = facemesh_triangles()
    oval, *holes = boundary_loops(triangles)
    return _Topology(triangles, oval, holes)


def _frontal_shape(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upright, symmetric face ``(468, 3)`` in the head frame (mm) of landmarks in pixels.

    Yaw and roll come from bilateral symmetry, pitch from the plane of the face oval.
    """
    camera = (points - points.mean(axis=0)) @ IMAGE_FROM_CAMERA
    mirror = facemesh_mirror()
    across = camera - camera[mirror]
    # FaceMesh numbers the person's right side first: point 263 lies to the image's right of 33.
    across *= np.sign(across[:, :1])
    x_axis = across.sum(axis=0) / np.linalg.norm(across.sum(axis=0))
    y_axis = camera[_FOREHEAD] - camera[_CHIN]
    y_axis -= (y_axis @ x_axis) * x_axis
    y_axis /= np.linalg.norm(y_axis)
    upright = camera @ np.stack([x_axis, y_axis, np.cross(x_axis, y_axis)]).T
    upright = _tilt_to(upright, np.radians(FRONTAL_TILT_DEG)) * [1, 1, DEPTH_SCALE]
    symmetric = (upright + upright[mirror] * [-1, 1, 1]) / 2
    left, right = FACEMESH.eye_corners
    symmetric *= EYE_CORNER_DISTANCE_MM / np.linalg.norm(symmetric[left] - symmetric[right])
    return symmetric - _head_centre(symmetric)


def _tilt_to(points: NDArray[np.float64], tilt: float) -> NDArray[np.float64]:
    """Points turned about x until the face oval's plane leans forward by ``tilt`` radians."""
    oval = points[_topology().oval] - points[_topology().oval].mean(axis=0)
    turn = tilt - np.arctan2(oval[:, 1] @ oval[:, 2], oval[:, 1] @ oval[:, 1])
    cos, sin = np.cos(turn), np.sin(turn)
    return np.asarray(points @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]).T)


def _head_centre(face: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point about which the head turns: between the ears, behind the middle of the oval."""
    oval = face[_topology().oval]
    middle = (oval.max(axis=0) + oval.min(axis=0)) / 2
    return np.array([0.0, middle[1], oval[:, 2].min() - 0.1 * np.ptp(oval[:, 0])])


def _close_holes(face: NDArray[np.float64], topology: _Topology) -> NDArray[np.float64]:
    """The face's vertices and one more in the middle of each eye and of the mouth."""
    return np.concatenate([face, np.array([face[hole].mean(axis=0) for hole in topology.holes])])


def _cranium(face: NDArray[np.float64], topology: _Topology) -> NDArray[np.float64]:
    """Rings ``((rings + 1) * oval, 3)`` from the face oval over an ellipsoid to the back of the head.

    Proportions are those of an adult head: breadth 1.12 of the face's, length 1.4 of it, and the
    vertex of the skull a third of the face's height above the hairline.
    """
    oval = face[topology.oval]
    breadth, height = np.ptp(oval[:, 0]), np.ptp(oval[:, 1])
    centre = np.array([0.0, oval[:, 1].max() - 0.33 * height, oval[:, 2].min() - 0.18 * breadth])
    axes = np.array([0.56 * breadth, 0.52 * height, 0.72 * breadth])
    offset = oval - centre
    bearing = np.arctan2(offset[:, 1] / axes[1], offset[:, 0] / axes[0])
    start = np.arctan2(-offset[:, 2] / axes[2], np.hypot(offset[:, 0] / axes[0], offset[:, 1] / axes[1]))
    rings = []
    for step in range(1, _RINGS + 1):
        t = step / (_RINGS + 1)
        angle = start + (np.pi / 2 - start) * t
        unit = np.stack([np.cos(angle) * np.cos(bearing), np.cos(angle) * np.sin(bearing), -np.sin(angle)], axis=1)
        blend = smoothstep(t / 0.4, dtype=np.float64)
        # Near the oval the surface carries on where the face ends; further back it is the ellipsoid.
        carried = centre + unit * axes * (np.linalg.norm(offset / axes, axis=1)[:, None])
        rings.append((1 - blend) * carried + blend * (centre + unit * axes))
    # The back pole once per segment: one place in space, but each with its own place in the texture.
    back = np.tile(centre - [0.0, 0.0, axes[2]], (len(oval), 1))
    return np.concatenate([*rings, back])


def _neck(face: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three rings of a neck, ``(3 * oval, 3)``: in the skull, far below the chin, and its closed end."""
    oval = face[_topology().oval]
    breadth, height = np.ptp(oval[:, 0]), np.ptp(oval[:, 1])
    angle = np.linspace(0, 2 * np.pi, len(oval), endpoint=False)
    ring = np.stack([0.36 * breadth * np.cos(angle), np.zeros_like(angle), 0.36 * breadth * np.sin(angle)], axis=1)
    back = oval[:, 2].min() - 0.25 * breadth
    upper = ring + np.array([0.0, oval[:, 1].min() + 0.25 * height, back])
    lower = ring * np.array([1.15, 1, 1.15]) + np.array([0.0, oval[:, 1].min() - 0.8 * height, back - 0.15 * breadth])
    return np.concatenate([upper, lower, np.broadcast_to(lower.mean(axis=0), lower.shape)])


def _faces(vertices: NDArray[np.float64], topology: _Topology) -> NDArray[np.int32]:
    count, n_oval = FACEMESH.n_points, len(topology.oval)
    fans = [
        (hole[i], hole[(i + 1) % len(hole)], count + number)
        for number, hole in enumerate(topology.holes)
        for i in range(len(hole))
    ]
    first_ring = count + len(topology.holes)
    rings = [topology.oval]
    rings += [
        list(range(start, start + n_oval)) for start in range(first_ring, first_ring + (_RINGS + 1) * n_oval, n_oval)
    ]
    skull = [face for inner, outer in itertools.pairwise(rings) for face in _band(inner, outer)]
    head = np.array([*map(tuple, topology.triangles.tolist()), *fans, *skull], dtype=np.int32)
    upper = list(range(rings[-1][-1] + 1, rings[-1][-1] + 1 + n_oval))
    lower, end = ([v + k * n_oval for v in upper] for k in (1, 2))
    neck = np.array([*_band(upper, lower), *_band(lower, end)], dtype=np.int32)
    inside = vertices[upper + lower].mean(axis=0)
    return np.concatenate([orient_outwards(vertices, head, np.zeros(3)), orient_outwards(vertices, neck, inside)])


def _band(inner: list[int], outer: list[int]) -> list[tuple[int, int, int]]:
    triangles = []
    for i in range(len(inner)):
        j = (i + 1) % len(inner)
        triangles += [(inner[i], inner[j], outer[i]), (inner[j], outer[j], outer[i])]
    return triangles


def _texture(
    image: RgbImage, points: NDArray[np.float64], topology: _Topology
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Square texture and ``uv`` of every vertex, in the order face, holes, cranium, back, neck.

    The cranium is unrolled outwards around the face: close to the oval it shows the photograph's
    own hair and ears, further out it fades to hair above and skin below, since there the photo
    shows what is behind the head.
    """
    face_px = _close_holes(points, topology)[:, :2]
    outline = face_px[topology.oval]
    centre = (outline.max(axis=0) + outline.min(axis=0)) / 2
    reach = np.linalg.norm(outline - centre, axis=1).max() * (1 + _UNROLL)
    scale = _TEXTURE_PX / 2 / reach * 0.98
    shift = _TEXTURE_PX / 2 - scale * centre
    image, across, down = _reduced(image, scale)
    to_patch = np.array([[across, 0, shift[0]], [0, down, shift[1]]])
    patch = cv2.warpAffine(image, to_patch, (_TEXTURE_PX, _TEXTURE_PX), borderMode=cv2.BORDER_REPLICATE)
    radial = (outline - centre) * scale
    around = [radial * (1 + _UNROLL * step / (_RINGS + 1)) for step in range(1, _RINGS + 2)]
    neck = np.tile([[0.0, 0.9 * _TEXTURE_PX / 2]], (3 * len(outline), 1))
    pixels = np.concatenate([(face_px - centre) * scale, *around, neck]) + _TEXTURE_PX / 2
    return _fade_background(np.asarray(patch, dtype=np.uint8), radial), (pixels / _TEXTURE_PX).astype(np.float32)


def _reduced(image: RgbImage, scale: float) -> tuple[RgbImage, float, float]:
    """A photograph of no more pixels than the texture has of it, and the scales across and down that are left to do."""
    if scale >= 1:
        return image, scale, scale
    # By the means of areas, which warpAffine does not know: it takes single pixels of a large photograph.
    rows, columns = image.shape[:2]
    width, height = math.ceil(columns * scale), math.ceil(rows * scale)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8), scale * columns / width, scale * rows / height


def _fade_background(patch: NDArray[np.uint8], outline: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The patch with everything far outside the face's ``outline`` turned to hair or skin colour."""
    half = _TEXTURE_PX / 2
    y, x = np.mgrid[0:_TEXTURE_PX, 0:_TEXTURE_PX] + 0.5 - half
    bearing = np.arctan2(outline[:, 1], outline[:, 0])
    order = np.argsort(bearing)
    oval_radius = np.interp(np.arctan2(y, x), bearing[order], np.linalg.norm(outline, axis=1)[order], period=2 * np.pi)
    outside = np.hypot(x, y) / oval_radius - 1
    upwards = -y / np.hypot(x, y)
    skin = np.median(patch[(outside < -0.1) & (outside > -0.6)], axis=0)
    hair = np.median(patch[(outside > 0.15) & (outside < 0.3) & (upwards > 0.7)], axis=0)
    # Hair above, skin below, blended from a little under the ears to the temples.
    share = smoothstep((upwards + 0.45) / 0.5, dtype=np.float64)[..., None]
    filled = share * hair + (1 - share) * skin * 0.9
    # The photograph is kept beyond the oval where it shows the head: a little for the ears, more for the
    # hairline; at the jaw, where its background begins, it already fades inside.
    low, ears, crown = (smoothstep((upwards - start) / 0.3, dtype=np.float64) for start in (-0.3, -0.12, 0.5))
    reach = -0.05 * (1 - low) + 0.07 * ears + 0.14 * crown
    keep = 1 - smoothstep((outside - reach) / (0.05 + 0.14 * ears), dtype=np.float64)[..., None]
    return np.asarray(np.clip(keep * patch + (1 - keep) * filled, 0, 255), dtype=np.uint8)
