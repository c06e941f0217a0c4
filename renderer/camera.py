"""A pinhole camera that looks along -z at the head's origin.

Camera frame: x right, y up, z towards the viewer; the camera sits at z = 0 and the head's origin
at z = -distance. Pixel (row, column) has its centre at (column + 0.5, row + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renderer.compiled import compiled


@dataclass(frozen=True)
class Camera:
    """``focal`` and principal point ``centre`` (x, y) in pixels, ``distance`` to the head in mm."""

    focal: float
    centre: tuple[float, float]
    distance: float

    @classmethod
    def framing(
        cls, size: int, extent: float, fraction: float, distance: float, shift: tuple[float, float] = (0.0, 0.0)
    ) -> Camera:
        """A camera for which a head fills some part of an image.

        Parameters
        ----------
        size : int
            Pixels on a side of the image.
        extent : float
            Millimetres that are to fill it, and
        fraction : float
            what share of its side they fill.
        distance : float
            Millimetres from the camera to the head's middle.
        shift : (float, float)
            Moves the head to the right and down, as a share of the image's side.

        Returns
        -------
        Camera
            Looking at the head from the front.
        """
        centre = (size * (0.5 + shift[0]), size * (0.5 + shift[1]))
        return cls(focal=fraction * size * distance / extent, centre=centre, distance=distance)

    def view(self, vertices: NDArray[np.floating], rotation: NDArray[np.floating]) -> NDArray[np.float32]:
        """Head-frame vertices ``(V, 3)`` in the camera frame, turned by ``rotation`` (head to camera)."""
        # Contiguous, of which products with many rows are twice as fast.
        turned = vertices @ np.ascontiguousarray(np.asarray(rotation, dtype=vertices.dtype).T)
        turned[:, 2] -= self.distance
        return np.asarray(turned, dtype=np.float32)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Pixel positions ``(V, 2)`` (x right, y down) of camera-frame points ``(V, 3)``."""
        focal, across, down = (points.dtype.type(number) for number in (self.focal, *self.centre))
        return np.asarray(_projected(points, focal, across, down), dtype=np.float32)


@compiled(error_model="numpy")
def _projected(points, focal, across, down):  # type: ignore[no-untyped-def]
    """Places (V, 2) in pixels: numpy takes four times as long over rows of three numbers."""
    result = np.empty((len(points), 2), dtype=points.dtype)
    for row in range(len(points)):
        scale = focal / -points[row, 2]
        result[row, 0] = across + points[row, 0] * scale
        result[row, 1] = down - points[row, 1] * scale
    return result
