"""How far a head reaches in every direction from the skull's middle: what hair lies on."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
CENTRE = np.array([0.0, 40.0, 5.0], dtype=np.float32)
"""The skull's middle in the kit's frame, in mm."""
_AZIMUTHS, _POLARS = 64, 24
_MOST_ROWS = 32_000
"""Of places that OpenCV's remap is asked for at once; it refuses more than 32,766."""


class Envelope:
    """A head's reach, nose and ears smoothed away.

    Parameters
    ----------
    skin : float array (V, 3)
        Vertices in mm of the kit's own frame.
    """

    def __init__(self, skin: FloatArray) -> None:
        offset = skin - CENTRE
        radius = np.linalg.norm(offset, axis=1)
        column = ((np.arctan2(offset[:, 0], offset[:, 2]) / (2 * np.pi) + 0.5) * (_AZIMUTHS - 1)).round().astype(int)
        row = (np.arccos(np.clip(offset[:, 1] / np.maximum(radius, 1e-6), -1, 1)) / np.pi * (_POLARS - 1)).round()
        table = np.zeros((_AZIMUTHS, _POLARS), dtype=np.float32)
        np.maximum.at(table, (column, row.astype(int)), radius)
        wrapped = np.concatenate([table[-4:], table, table[:4]])
        wide = cv2.dilate(wrapped, np.ones((3, 3), np.uint8))
        self._smooth = np.ascontiguousarray(cv2.GaussianBlur(wide, (0, 0), 1.0)[4:-4])

    def along(self, azimuth: NDArray[np.floating], polar: NDArray[np.floating]) -> FloatArray:
        """Millimetres from the middle, of angles in radians: from front to right, and from the crown."""
        x = ((azimuth / (2 * np.pi) + 0.5) * (_AZIMUTHS - 1)).astype(np.float32)
        y = (polar / np.pi * (_POLARS - 1)).astype(np.float32)
        return np.asarray(cv2.remap(self._smooth, y, x, cv2.INTER_LINEAR), dtype=np.float32)

    def under(self, places: NDArray[np.floating]) -> FloatArray:
        """The same (n,) in the directions of places (n, 3) of the kit's frame."""
        offset = np.asarray(places) - CENTRE
        radius = np.maximum(np.linalg.norm(offset, axis=1), 1e-6)
        polar = np.arccos(np.clip(offset[:, 1] / radius, -1, 1))
        azimuth = np.arctan2(offset[:, 0], offset[:, 2])
        # Columns of places, more than one for meshes that are finer than MakeHuman's own.
        parts = range(_MOST_ROWS, len(offset), _MOST_ROWS)
        columns = zip(np.split(azimuth, parts), np.split(polar, parts), strict=True)
        return np.concatenate([self.along(one[:, None], other[:, None])[:, 0] for one, other in columns])
