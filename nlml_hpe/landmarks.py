"""From an image to a pose feature: landmark detectors behind one protocol, and normalisation.

Landmarks are pixels of one image: x to the right, y down, z into the scene, all three in units of
the image width's pixel (FaceMesh gives z relative to the width). Feeding x/W and y/H instead would
distort every image that is not square.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from nlml_hpe.images import RgbImage, require_rgb

Normalization = Literal["nose_eye_corners", "centroid_rms"]
MAX_DETECTION_SIDE = 2048
"""Longer images are detected on a reduced copy; the detector's own input is 192 pixels wide."""
_BORDER = 0.3
MAX_FACES = 16
MIN_CONFIDENCE = 0.3
COINCIDE = "landmarks coincide: a face without size has no pose"
GIVEN_BOX_CONFIDENCE = 0.1
"""Threshold in a crop around a face that is known to be there."""
_CROP = 2.5
"""Side of that crop in the box's longer sides. Of 364 faces of aflw2000_dev in the paper's range the whole image
shows 359, its mirror image one more, and of crops of 1.25 to 3 sides this one finds most of the rest (3 of 4)."""
ROUTES = ("none", "whole", "mirrored", "bordered", "crop")
"""How a face was found; artefacts record the index."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class PointSet:
    """What a detector's points mean: how many, and which ones normalisation refers to."""

    name: str
    n_points: int
    nose_tip: int
    eye_corners: tuple[int, int]

    @property
    def feature_length(self) -> int:
        """Length of the flattened feature: x, y, z of every point."""
        return 3 * self.n_points

    def feature_name(self, normalization: Normalization) -> str:
        """The name by which artefacts tell one kind of feature from another."""
        return f"{self.name}/{normalization}"


FACEMESH = PointSet("facemesh468", 468, nose_tip=1, eye_corners=(33, 263))
IBUG68 = PointSet("ibug68", 68, nose_tip=30, eye_corners=(36, 45))
POINT_SETS = {points.name: points for points in (FACEMESH, IBUG68)}


@dataclass(frozen=True)
class FaceLandmarks:
    """One detected face: ``points`` (N, 3) in pixels, image axes; ``route`` says how it was found."""

    points: NDArray[np.float64]
    route: str = "whole"

    @property
    def box(self) -> Box:
        """Left, top, right, bottom of the landmarks in pixels."""
        low, high = self.points[:, :2].min(axis=0), self.points[:, :2].max(axis=0)
        return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))

    @property
    def area(self) -> float:
        """Area of ``box`` in square pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


class LandmarkDetector(Protocol):
    """A face-landmark detector: RGB image in, faces out, largest first, an empty list for none."""

    point_set: PointSet

    def detect(self, image: RgbImage) -> list[FaceLandmarks]:
        """Faces in an RGB uint8 image ``(H, W, 3)``."""
        ...

    def detect_in_box(self, image: RgbImage, box: Box) -> FaceLandmarks | None:
        """The one face whose centre lies in an annotated ``box``, however hard it is to find."""
        ...

    def close(self) -> None:
        """Release what the detector holds."""
        ...


class MediaPipeFaceMesh:
    """MediaPipe FaceMesh with the weights that mediapipe wheels up to 0.10.21 carry.

    Each image is detected afresh, so results do not depend on their order. Where the whole image shows
    no face, its mirror image and a copy with a wider border are tried: of off-grid rendered poses in the
    default range that takes coverage from 95.9% to 97.8%. With ``tracking`` images are the frames of one video:
    a face is detected once and followed from frame to frame, which is faster, and nothing else is tried.
    Use as a context manager, or ``close`` when done.
    """

    point_set = FACEMESH

    def __init__(self, max_faces: int = 1, min_confidence: float = MIN_CONFIDENCE, tracking: bool = False) -> None:
        self._max_faces, self._min_confidence, self._tracking = max_faces, min_confidence, tracking
        self._meshes: dict[tuple[int, float], Any] = {}
        self._mesh(max_faces, min_confidence)

    def _mesh(self, max_faces: int, confidence: float) -> Any:
        """The graph for one number of faces and threshold, made when it is first needed."""
        from mediapipe.python.solutions.face_mesh import FaceMesh

        if (max_faces, confidence) not in self._meshes:
            self._meshes[max_faces, confidence] = FaceMesh(
                static_image_mode=not self._tracking,
                max_num_faces=max_faces,
                min_detection_confidence=confidence,
                # Despite its name also the threshold on "this is a face" of the landmark network itself.
                min_tracking_confidence=confidence,
            )
        return self._meshes[max_faces, confidence]

    def detect(self, image: RgbImage) -> list[FaceLandmarks]:
        """Faces in an RGB uint8 image ``(H, W, 3)``, largest first. Raises ``ValueError`` for other arrays."""
        require_rgb(image)
        reduced, factor = _reduced(image)
        faces = self._faces(reduced, "whole")
        if not faces and not self._tracking:
            faces = self._mirrored_faces(reduced, "mirrored")
        if not faces and not self._tracking:
            border = round(_BORDER * max(reduced.shape[:2]))
            wide = cv2.copyMakeBorder(reduced, border, border, border, border, cv2.BORDER_REPLICATE)
            faces = _moved(self._faces(np.asarray(wide, dtype=np.uint8), "bordered"), -border, -border)
        scaled = [FaceLandmarks(face.points / factor, face.route) for face in faces]
        return sorted(scaled, key=lambda face: -face.area)

    def detect_in_box(self, image: RgbImage, box: Box) -> FaceLandmarks | None:
        """The face whose centre lies in ``box``, that of best overlap where there are several.

        The whole image and its mirror image are tried, then, with a lower threshold, a loose crop around
        the box. Raises ``ValueError`` for other arrays and for a box that is empty or not finite.
        """
        require_rgb(image)
        _require_box(box)
        reduced, factor = _reduced(image)
        for search, route in ((self._faces, "whole"), (self._mirrored_faces, "mirrored")):
            faces = [FaceLandmarks(face.points / factor, route) for face in search(reduced, route)]
            if found := _best_in(faces, box):
                return found
        crop, (left, top) = _crop(image, box)
        reduced, factor = _reduced(crop)
        # The surest candidate alone: at this threshold the others are seldom faces.
        faces = self._faces(reduced, "crop", self._mesh(1, min(self._min_confidence, GIVEN_BOX_CONFIDENCE)))
        return _best_in(_moved([FaceLandmarks(f.points / factor, f.route) for f in faces], left, top), box)

    def _faces(self, image: RgbImage, route: str, mesh: Any = None) -> list[FaceLandmarks]:
        height, width = image.shape[:2]
        graph = mesh or self._mesh(self._max_faces, self._min_confidence)
        result = graph.process(np.ascontiguousarray(image))
        # z shares the scale of x (MediaPipe's definition), hence the width twice.
        scale = np.array([width, height, width], dtype=np.float64)
        return [
            FaceLandmarks(np.array([(p.x, p.y, p.z) for p in face.landmark], dtype=np.float64) * scale, route)
            for face in result.multi_face_landmarks or []
        ]

    def _mirrored_faces(self, image: RgbImage, route: str) -> list[FaceLandmarks]:
        """Faces found in the mirror image, as faces of the image itself."""
        faces = self._faces(image[:, ::-1], route)
        return [FaceLandmarks(_mirrored(face.points, image.shape[1]), face.route) for face in faces]

    def close(self) -> None:
        """Release the detector's graphs."""
        while self._meshes:
            self._meshes.popitem()[1].close()

    def __enter__(self) -> MediaPipeFaceMesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _require_box(box: Box) -> None:
    left, top, right, bottom = box
    if not (np.isfinite(box).all() and right > left and bottom > top):
        raise ValueError(f"expected a box (left, top, right, bottom) in pixels that is not empty; received {box}")


def _crop(image: RgbImage, box: Box) -> tuple[RgbImage, tuple[int, int]]:
    """A square around the box of ``_CROP`` times its longer side, edges repeated; and its left top corner."""
    left, top, right, bottom = box
    # A box much greater than the image would ask for a crop without bounds.
    longest = 2 * max(image.shape[:2])
    length = int(np.clip(round(_CROP * max(right - left, bottom - top)), 2, longest))
    x, y = round((left + right - length) / 2), round((top + bottom - length) / 2)
    columns = np.clip(np.arange(x, x + length), 0, image.shape[1] - 1)
    rows = np.clip(np.arange(y, y + length), 0, image.shape[0] - 1)
    return np.ascontiguousarray(image[rows[:, None], columns]), (x, y)


def _moved(faces: list[FaceLandmarks], right: float, down: float) -> list[FaceLandmarks]:
    return [FaceLandmarks(face.points + np.array([right, down, 0]), face.route) for face in faces]


def _centre_within(inner: Box, outer: Box) -> bool:
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def _best_in(faces: list[FaceLandmarks], box: Box) -> FaceLandmarks | None:
    """Of the faces whose centre lies in the box the one that overlaps it most."""
    inside = [face for face in faces if _centre_within(face.box, box)]
    return max(inside, key=lambda face: _overlap(face.box, box), default=None)


def _overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared)


def _mirrored(points: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """FaceMesh points found in the mirror image, as points of the image itself."""
    return points[facemesh_mirror()] * [-1, 1, 1] + [width, 0, 0]


def _reduced(image: RgbImage) -> tuple[RgbImage, float]:
    """The image, made smaller where it is too long, and the factor by which it was."""
    height, width = image.shape[:2]
    factor = min(1.0, MAX_DETECTION_SIDE / max(height, width))
    if factor == 1.0:
        return image, factor
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), factor


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
    """Pose features ``(..., 3 N)`` float32 of landmarks ``(..., N, 3)`` in pixels, image axes.

    ``nose_eye_corners`` subtracts the nose tip and divides by the 3D distance of the eye corners;
    ``centroid_rms`` subtracts the centroid and divides by the rms distance from it. Both undo
    translation and scale and commute with rotation. Raises ``ValueError`` for another number of
    points, for values that are not finite, and for points that coincide.
    """
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
def facemesh_triangles() -> NDArray[np.int32]:
    """The FaceMesh tessellation as triangles ``(852, 3)``; eyes and mouth are left open.

    MediaPipe publishes edges only; each triangle is a cycle of three of them. Two cycles enclose a
    vertex of their own and are no triangles: all their edges already belong to two others.
    Orientation is not consistent; ``renderer.mesh.orient_faces`` makes it so.
    """
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    neighbours: dict[int, set[int]] = {index: set() for index in range(FACEMESH.n_points)}
    for first, second in FACEMESH_TESSELATION:
        neighbours[first].add(second)
        neighbours[second].add(first)
    cycles = {
        tuple(sorted((first, second, third)))
        for first in neighbours
        for second in neighbours[first]
        for third in neighbours[first] & neighbours[second]
    }
    shared: dict[tuple[int, ...], int] = {}
    for edge in itertools.chain.from_iterable(itertools.combinations(cycle, 2) for cycle in cycles):
        shared[edge] = shared.get(edge, 0) + 1
    real = [cycle for cycle in cycles if any(shared[edge] < 3 for edge in itertools.combinations(cycle, 2))]
    return np.array(sorted(real), dtype=np.int32)


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


@cache
def facemesh_mirror() -> NDArray[np.int64]:
    """Permutation ``(468,)``: the index of every FaceMesh point's mirror image in the sagittal plane.

    Derived from the tessellation alone. Starting at a midline edge, whose two triangles mirror one
    another, the map is carried from edge to edge; six quads have their diagonals flipped on one
    side, so a last step matches every point by its mapped neighbourhood.
    """
    triangles = facemesh_triangles()
    carried = _carry_mirror(triangles)
    count = FACEMESH.n_points
    neighbours = np.zeros((count, count))
    for corner, other in itertools.permutations(range(3), 2):
        neighbours[triangles[:, corner], triangles[:, other]] = 1
    neighbours += np.eye(count)
    shared = neighbours @ np.eye(count)[carried] @ neighbours
    return np.asarray(linear_sum_assignment(-(shared + shared.T))[1], dtype=np.int64)


def _carry_mirror(triangles: NDArray[np.int32]) -> list[int]:
    """Breadth-first mirror map over the triangles, exact but behind flipped diagonals."""
    by_edge: dict[frozenset[int], list[int]] = {}
    for triangle in triangles.tolist():
        for edge in itertools.combinations(triangle, 2):
            by_edge.setdefault(frozenset(edge), []).append(sum(triangle) - sum(edge))
    forehead, below = 10, 151
    left, right = by_edge[frozenset((forehead, below))]
    mirror = {forehead: forehead, below: below, left: right, right: left}
    queue = deque([((forehead, below, left), (forehead, below, right))])
    done: set[frozenset[int]] = set()
    while queue:
        source, target = queue.popleft()
        if frozenset(source) in done:
            continue
        done.add(frozenset(source))
        for first, second in itertools.combinations(range(3), 2):
            apex, image_apex = source[3 - first - second], target[3 - first - second]
            others = [v for v in by_edge[frozenset((source[first], source[second]))] if v != apex]
            images = [v for v in by_edge[frozenset((target[first], target[second]))] if v != image_apex]
            if others and images:
                mirror.setdefault(others[0], images[0])
                queue.append(((source[first], source[second], others[0]), (target[first], target[second], images[0])))
    return [mirror[index] for index in range(FACEMESH.n_points)]
