"""Drawing a pose on an image: the head's axes, projected from the rotation matrix."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from nlml_hpe.images import RgbImage
from nlml_hpe.rotations import IMAGE_FROM_CAMERA

AXIS_COLORS = ((220, 40, 40), (40, 180, 40), (50, 90, 240))
"""RGB of the head's x (image right of a frontal face), y (up) and z (out of the face)."""


def draw_axes(image: RgbImage, rotation: ArrayLike, origin: tuple[float, float], length: float) -> RgbImage:
    """A copy of the RGB image with the head's x, y, z axes (red, green, blue) drawn from ``origin`` px.

    ``rotation`` (3, 3) maps head to camera; axes are drawn orthographically, ``length`` px long, the
    one that points away from the viewer first.
    """
    drawn = np.ascontiguousarray(image).copy()
    in_image = IMAGE_FROM_CAMERA @ np.asarray(rotation, dtype=np.float64)
    start = (round(origin[0]), round(origin[1]))
    thickness = max(2, round(length / 40))
    for axis in np.argsort(-in_image[2]):
        end = (round(origin[0] + length * in_image[0, axis]), round(origin[1] + length * in_image[1, axis]))
        cv2.arrowedLine(drawn, start, end, AXIS_COLORS[axis], thickness, cv2.LINE_AA, tipLength=0.15)
    return drawn
