"""Textured triangle meshes in the head frame (mm; x right, y up, z towards the viewer)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mesh:
    """A textured head.

    ``vertices`` (V, 3) float32 in mm, ``faces`` (F, 3) int32 counter-clockwise seen from outside,
    ``uv`` (V, 2) float32 in [0, 1] with v = 0 at the top row, ``texture`` (H, W, 3) RGB uint8.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uv: NDArray[np.float32]
    texture: NDArray[np.uint8]

    def __post_init__(self) -> None:
        count = len(self.vertices)
        if self.vertices.shape != (count, 3) or self.uv.shape != (count, 2) or self.faces.shape[1:] != (3,):
            raise ValueError(
                f"expected vertices (V, 3), uv (V, 2), faces (F, 3); received {self.vertices.shape}, "
                f"{self.uv.shape}, {self.faces.shape}"
            )
        if self.faces.size and not (self.faces.min() >= 0 and self.faces.max() < count):
            raise ValueError(f"faces index vertices {self.faces.min()}..{self.faces.max()} of {count}")
        if not np.isfinite(self.vertices).all():
            raise ValueError("vertices hold NaN or infinite values")

    @property
    def height(self) -> float:
        """Extent along y in mm."""
        return float(np.ptp(self.vertices[:, 1]))


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Area-weighted unit normals ``(V, 3)`` of counter-clockwise ``faces``."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Sums by vertex, one axis at a time: several times as fast as np.add.at.
    corner, count = faces.reshape(-1), len(vertices)
    sums = [np.bincount(corner, np.repeat(face_normals[:, axis], 3), count) for axis in range(3)]
    normals = np.stack(sums, axis=1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.asarray(normals / np.maximum(lengths, 1e-12), dtype=np.float32)


def orient_outwards(
    vertices: NDArray[np.floating], faces: NDArray[np.int32], centre: NDArray[np.floating]
) -> NDArray[np.int32]:
    """Faces turned so that each normal points away from a centre, of star-shaped surfaces.

    Parameters
    ----------
    vertices : float array (V, 3)
        In any unit.
    faces : int array (F, 3)
        Triangles of any orientation.
    centre : float array (3,)
        From which all faces are seen from behind.

    Returns
    -------
    int array (F, 3)
        A copy.
    """
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inwards = ((corners.mean(axis=1) - centre) * normals).sum(axis=1) < 0
    oriented = faces.copy()
    oriented[inwards] = oriented[inwards][:, ::-1]
    return oriented
