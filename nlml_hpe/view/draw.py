"""Drawing a pose on an image: the head's axes, a cube or a cone of doubt, projected from the rotation; its angles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.face import Box, HeadPose
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, nose_cone

AXIS_COLORS = ((220, 40, 40), (40, 180, 40), (50, 90, 240))
"""RGB of the head's x (image right of a frontal face), y (up) and z (out of the face)."""
_OUTLINE, _INK = (0, 0, 0), (255, 255, 255)
_WIDEST, _SHORT_WIDEST = 4.2, 1.1
"""The widest text and the widest short one that takes its place, in sides of the head's box."""
_SMALL, _LEAST = 0.4, 0.3
"""Size down to which a short text follows that width, and the least, in pictures that are narrower still."""
_STROKE = 1.5
"""Pixels of a letter's stroke, over its size; of size 1 a letter is 22 pixels high."""
_BELOW_PX, _BELOW = 20, 30
"""From the box down to the text's line: pixels at least, and pixels over the text's size."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_EDGE_PX = 4
"""Least distance of text from the picture's left, right and upper edges."""
_LINE_PX = 6
"""Least distance of the line that text stands on from the picture's lower edge."""
_FILL = 0.35
"""How opaque the cube's front is."""
_BRIM = 2
"""Pixels beside a polygon that smoothing its edge may touch."""


def draw_axes(image: RgbImage, rotation: ArrayLike, origin: tuple[float, float], length: float) -> RgbImage:
    """A copy of an image with the head's x, y and z axes (red, green, blue), the farthest drawn first.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3).
    rotation : array_like
        (3, 3), maps head to camera.
    origin : (float, float)
        Where the axes begin, in pixels.
    length : float
        Of an axis that lies in the image, in pixels; the projection is orthographic.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3).

    Examples
    --------
    >>> grey = np.full((50, 50, 3), 128, dtype=np.uint8)
    >>> frontal = draw_axes(grey, np.eye(3), (10, 40), 30)
    >>> [frontal[y, x].tolist() for x, y in ((25, 40), (10, 25))]  # x to the right, y up
    [[220, 40, 40], [40, 180, 40]]
    """
    drawn = _copied(image)
    _put_axes(drawn, rotation, origin, length)
    return drawn


def _put_axes(drawn: RgbImage, rotation: ArrayLike, origin: tuple[float, float], length: float) -> None:
    in_image = IMAGE_FROM_CAMERA @ np.asarray(rotation, dtype=np.float64)
    start = (round(origin[0]), round(origin[1]))
    thickness = max(2, round(length / 40))
    for axis in np.argsort(-in_image[2]):
        end = (round(origin[0] + length * in_image[0, axis]), round(origin[1] + length * in_image[1, axis]))
        cv2.arrowedLine(drawn, start, end, AXIS_COLORS[axis], thickness, cv2.LINE_AA, tipLength=0.15)


def draw_cube(image: RgbImage, rotation: ArrayLike, middle: tuple[float, float], side: float) -> RgbImage:
    """A copy of an image with a cube about the head: edges along its x, y and z (red, green, blue), the face filled.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3).
    rotation : array_like
        (3, 3), maps head to camera.
    middle : (float, float)
        Of the cube, in pixels.
    side : float
        Of the cube, in pixels; the projection is orthographic. The side that the face looks out of is filled,
        unless it is seen from behind.

    Returns
    -------
    RGB uint8 array (H, W, 3)
        The copy.

    Examples
    --------
    >>> grey = np.full((50, 50, 3), 128, dtype=np.uint8)
    >>> frontal = draw_cube(grey, np.eye(3), (25, 25), 20)
    >>> [frontal[y, x].tolist() for x, y in ((20, 15), (15, 20))]  # above the face along x, beside it along y
    [[220, 40, 40], [40, 180, 40]]
    """
    drawn = _copied(image)
    in_image = IMAGE_FROM_CAMERA @ np.asarray(rotation, dtype=np.float64)
    corners = np.array(list(itertools.product((-1, 1), repeat=3)), dtype=np.float64) * side / 2
    seen = corners @ in_image.T
    places = np.rint(seen[:, :2] + middle).astype(int)
    front = np.flatnonzero(corners[:, 2] > 0)[[0, 1, 3, 2]]
    if in_image[2, 2] < 0:  # the face looks towards the viewer; z goes into the scene here
        _put_tint(drawn, places[front])
    thickness = max(1, round(side / 40))
    edges = [(a, b) for a, b in itertools.combinations(range(8), 2) if np.count_nonzero(corners[a] != corners[b]) == 1]
    for a, b in sorted(edges, key=lambda edge: -seen[list(edge), 2].sum()):
        axis = int(np.flatnonzero(corners[a] != corners[b])[0])
        width = thickness + (a in front and b in front)
        cv2.line(drawn, _point(places[a]), _point(places[b]), AXIS_COLORS[axis], width, cv2.LINE_AA)
    return drawn


def draw_cone(
    image: RgbImage, rotation: ArrayLike, covariance: ArrayLike, origin: tuple[float, float], length: float
) -> RgbImage:
    """A copy of an image with the cone in which the nose points with a probability of 95%; see ``rotation.nose_cone``.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3).
    rotation, covariance : array_like
        (3, 3), as ``HeadPose`` has them.
    origin : (float, float)
        The cone's tip, in pixels.
    length : float
        Of the cone's edge where it lies in the image, in pixels; the projection is orthographic.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3).

    Raises
    ------
    ValueError
        For a covariance that is not finite.

    Examples
    --------
    >>> grey = np.full((50, 50, 3), 128, dtype=np.uint8)
    >>> aside = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # the nose points to image right
    >>> drawn = draw_cone(grey, aside, np.radians(8) ** 2 * np.eye(3), (10, 25), 30)
    >>> [bool((drawn[y, x] != 128).any()) for x, y in ((30, 25), (30, 40), (5, 25))]
    [True, False, False]
    """
    drawn = _copied(image)
    _put_cone(drawn, rotation, covariance, origin, length)
    return drawn


def _put_cone(
    drawn: RgbImage, rotation: ArrayLike, covariance: ArrayLike, origin: tuple[float, float], length: float
) -> None:
    edge = nose_cone(rotation, covariance)[:, :2] * [1, -1] * length + origin
    places = np.rint(np.concatenate([edge, [origin]])).astype(np.int32)
    _put_tint(drawn, cv2.convexHull(places)[:, 0])
    cv2.polylines(drawn, [places[:-1]], True, AXIS_COLORS[2], max(1, round(length / 100)), cv2.LINE_AA)


def _put_tint(drawn: RgbImage, corners: NDArray[np.integer]) -> None:
    """Lay the colour of the head's z over a convex polygon, whose corners are (N, 2) whole numbers."""
    first = np.maximum(corners.min(axis=0) - _BRIM, 0)
    last = np.maximum(corners.max(axis=0) + _BRIM + 1, 0)
    part = drawn[first[1] : last[1], first[0] : last[0]]
    if part.size:
        filled = cv2.fillConvexPoly(part.copy(), (corners - first).astype(np.int32), AXIS_COLORS[2], cv2.LINE_AA)
        cv2.addWeighted(filled, _FILL, part, 1 - _FILL, 0, dst=part)


def _copied(image: RgbImage) -> RgbImage:
    """A copy that OpenCV can draw into."""
    return np.array(image, order="C")


def _point(place: NDArray[np.int64]) -> tuple[int, int]:
    return int(place[0]), int(place[1])


def draw_pose(image: RgbImage, pose: HeadPose, cone: bool = False) -> RgbImage:
    """A copy of an image with the axes of one head, from the middle of its box, and its angles below it.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3), the one that the pose is of.
    pose : HeadPose
        Behind the angles stands the largest of their standard deviations, before them a head's number in a video.
    cone : bool
        Draw the doubt of where the nose points, too, where the pose has error bars; see ``draw_cone``.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3).

    Examples
    --------
    >>> from nlml_hpe.face import HeadPose
    >>> pose = HeadPose(0.0, 0.0, 0.0, np.eye(3), None, True, np.empty((0, 3)), (20.0, 20.0, 80.0, 80.0), None)
    >>> grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    >>> bool((draw_pose(grey, pose) != grey).any())
    True
    """
    drawn = _copied(image)
    _put_pose(drawn, pose, _labels(drawn, [pose])[0], cone)
    return drawn


def _put_pose(drawn: RgbImage, pose: HeadPose, label: _Label | None, cone: bool) -> None:
    left, top, right, bottom = pose.box
    middle = ((left + right) / 2, (top + bottom) / 2)
    length = 0.7 * _side(pose)
    if cone and pose.covariance is not None:
        _put_cone(drawn, pose.rotation, pose.covariance, middle, length)
    _put_axes(drawn, pose.rotation, middle, length)
    if label is not None:
        _put_text(drawn, label.text, (label.left, label.line), label.size)


class _Label(NamedTuple):
    """A line of text below a head."""

    text: str
    size: float
    left: int
    line: int
    width: int
    height: int

    @property
    def box(self) -> Box:
        """What the letters cover, in pixels."""
        return (self.left, self.line - self.height, self.left + self.width, self.line + self.height / 2)


def _labels(image: RgbImage, poses: Sequence[HeadPose]) -> list[_Label | None]:
    """The angles of every head; short where the long text would lie over another head or over its text.

    A number of which a part is cut off is another number: where even the short text has no room there is none.
    """
    short = [_short_label(image, pose) for pose in poses]
    long = [_long_label(image, pose) for pose in poses]
    taken = np.array([pose.box for pose in poses]).reshape(-1, 4)
    written = [(wide or brief) for wide, brief in zip(long, short, strict=True)]
    texts = np.array([label.box if label else (np.inf,) * 4 for label in written]).reshape(-1, 4)

    def is_free(number: int, label: _Label) -> bool:
        others = np.arange(len(poses)) != number
        return not any(_touched(label.box, boxes[others]).any() for boxes in (taken, texts))

    chosen = zip(long, short, strict=True)
    return [wide if wide and is_free(number, wide) else brief for number, (wide, brief) in enumerate(chosen)]


def _touched(box: Box, others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of boxes (n, 4) a box overlaps."""
    left, top, right, bottom = box
    beside = (others[:, 0] >= right) | (others[:, 2] <= left)
    return ~(beside | (others[:, 1] >= bottom) | (others[:, 3] <= top))


def _long_label(image: RgbImage, pose: HeadPose) -> _Label | None:
    yaw, pitch, roll = (round(angle) for angle in (pose.yaw, pose.pitch, pose.roll))  # whole numbers have no -0
    sigma = "" if pose.sigma is None else f" (+-{max(pose.sigma):.0f})"
    text = f"{_number(pose)}yaw {yaw:+d} pitch {pitch:+d} roll {roll:+d}{sigma}"
    label = _label(image, pose, text, _text_size(image))
    return label if label.width <= min(_WIDEST * _side(pose), _room(image)) else None


def _short_label(image: RgbImage, pose: HeadPose) -> _Label | None:
    text = _number(pose) + " ".join(f"{round(angle):+d}" for angle in (pose.yaw, pose.pitch, pose.roll))
    size = _text_size(image)
    size = max(_SMALL, min(size, size * _SHORT_WIDEST * _side(pose) / _label(image, pose, text, size).width))
    for tried in (size, _SMALL, _LEAST):
        label = _label(image, pose, text, tried)
        if label.width <= _room(image):
            return label
    return None


def _label(image: RgbImage, pose: HeadPose, text: str, size: float) -> _Label:
    """The text below a head's box, moved so that the picture's edges do not cut it off."""
    (width, height), below = cv2.getTextSize(text, _FONT, size, _thickness(size))
    left = max(min(pose.box[0], image.shape[1] - _EDGE_PX - width), _EDGE_PX)
    line = min(pose.box[3] + max(_BELOW_PX, _BELOW * size), image.shape[0] - max(_LINE_PX, below))
    return _Label(text, size, round(left), round(line), width, height)


def _number(pose: HeadPose) -> str:
    return "" if pose.track is None else f"#{pose.track} "


def _side(pose: HeadPose) -> float:
    left, top, right, bottom = pose.box
    return max(right - left, bottom - top)


def _room(image: RgbImage) -> int:
    return image.shape[1] - 2 * _EDGE_PX


def draw_poses(image: RgbImage, poses: Sequence[HeadPose], cone: bool = False) -> RgbImage:
    """A copy of an image with every pose drawn; the first, which is the largest face's, is on top.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3), the one that the poses are of.
    poses : sequence of HeadPose
        As ``HeadPoseEstimator.predict`` gives them.
    cone : bool
        As of ``draw_pose``.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3).

    Examples
    --------
    >>> from nlml_hpe.face import HeadPose
    >>> pose = HeadPose(0.0, 0.0, 0.0, np.eye(3), None, True, np.empty((0, 3)), (20.0, 20.0, 80.0, 80.0), None)
    >>> grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    >>> bool((draw_poses(grey, [pose, pose]) == draw_pose(draw_pose(grey, pose), pose)).all())
    True
    """
    drawn = _copied(image)
    for pose, label in reversed(list(zip(poses, _labels(drawn, poses), strict=True))):
        _put_pose(drawn, pose, label, cone)
    return drawn


def draw_text(image: RgbImage, text: str, place: tuple[int, int], size: float | None = None) -> RgbImage:
    """A copy of an image with a line of text that is readable on anything.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3).
    text : str
        One line, of ASCII letters.
    place : (int, int)
        The text's lower left corner in pixels; lower where letters would be cut off by the image's upper edge.
    size : float, optional
        Of the letters, in OpenCV's unit of some 20 pixels; by default by the image's size.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3).

    Examples
    --------
    >>> grey = np.full((40, 100, 3), 128, dtype=np.uint8)
    >>> bool((draw_text(grey, "yaw", (5, 30)) != grey).any())
    True
    """
    drawn, size = _copied(image), size or _text_size(image)
    (_, height), _ = cv2.getTextSize(text, _FONT, size, _thickness(size))
    _put_text(drawn, text, (place[0], max(place[1], height + _EDGE_PX)), size)
    return drawn


def _put_text(drawn: RgbImage, text: str, place: tuple[int, int], size: float) -> None:
    # The outline is the text itself around its place: OpenCV 5 sets thicker letters wider apart, OpenCV 4 does not.
    thickness = _thickness(size)
    shifts = (-thickness, 0, thickness)
    around = [(x, y) for x in shifts for y in shifts if (x, y) != (0, 0)]
    for color, moves in ((_OUTLINE, around), (_INK, [(0, 0)])):
        for x, y in moves:
            at = (place[0] + x, place[1] + y)
            cv2.putText(drawn, text, at, _FONT, size, color, thickness, cv2.LINE_AA)


def _thickness(size: float) -> int:
    return max(1, round(_STROKE * size))


def _text_size(image: RgbImage) -> float:
    return max(0.45, min(image.shape[:2]) / 1000)
