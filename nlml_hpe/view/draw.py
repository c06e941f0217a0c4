"""Drawing a pose on an image: the head's axes, projected from the rotation matrix, and its angles."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from nlml_hpe.face import HeadPose
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import IMAGE_FROM_CAMERA

AXIS_COLORS = ((220, 40, 40), (40, 180, 40), (50, 90, 240))
"""RGB of the head's x (image right of a frontal face), y (up) and z (out of the face)."""
_OUTLINE, _INK = (0, 0, 0), (255, 255, 255)


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
    drawn = np.ascontiguousarray(image).copy()
    in_image = IMAGE_FROM_CAMERA @ np.asarray(rotation, dtype=np.float64)
    start = (round(origin[0]), round(origin[1]))
    thickness = max(2, round(length / 40))
    for axis in np.argsort(-in_image[2]):
        end = (round(origin[0] + length * in_image[0, axis]), round(origin[1] + length * in_image[1, axis]))
        cv2.arrowedLine(drawn, start, end, AXIS_COLORS[axis], thickness, cv2.LINE_AA, tipLength=0.15)
    return drawn


def draw_pose(image: RgbImage, pose: HeadPose) -> RgbImage:
    """A copy of an image with the axes of one face, from the middle of its box, and its angles below it.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3), the one that the pose is of.
    pose : HeadPose
        Behind the angles stands the largest of their standard deviations.

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
    left, top, right, bottom = pose.box
    middle = ((left + right) / 2, (top + bottom) / 2)
    drawn = draw_axes(image, pose.rotation, middle, 0.7 * max(right - left, bottom - top))
    sigma = "" if pose.sigma is None else f" (+-{max(pose.sigma):.0f})"
    text = f"yaw {pose.yaw:+.0f} pitch {pose.pitch:+.0f} roll {pose.roll:+.0f}{sigma}"
    return draw_text(drawn, text, (round(max(left, 4)), round(min(bottom + 20, image.shape[0] - 6))))


def draw_poses(image: RgbImage, poses: Sequence[HeadPose]) -> RgbImage:
    """A copy of an image with every pose drawn; the first, which is the largest face's, is on top.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3), the one that the poses are of.
    poses : sequence of HeadPose
        As ``HeadPoseEstimator.predict`` gives them.

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
    for pose in reversed(poses):
        image = draw_pose(image, pose)
    return image


def draw_text(image: RgbImage, text: str, place: tuple[int, int]) -> RgbImage:
    """A copy of an image with a line of text that is readable on anything.

    Parameters
    ----------
    image : numpy.ndarray
        RGB uint8 (H, W, 3).
    text : str
        One line, of ASCII letters.
    place : (int, int)
        The text's lower left corner in pixels.

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
    drawn = np.ascontiguousarray(image).copy()
    size = max(0.45, min(image.shape[:2]) / 1000)
    for color, width in ((_OUTLINE, 4), (_INK, 1)):
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, color, width, cv2.LINE_AA)
    return drawn
