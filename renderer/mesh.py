"""Textured triangle meshes in the head frame (mm; x right, y up, z towards the viewer)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renderer.compiled import compiled


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
        if self.texture.shape[2:] != (3,) or not self.texture.size:
            raise ValueError(f"expected a texture (H, W, 3); received {self.texture.shape}")
        for name, values in (("vertices", self.vertices), ("texture coordinates", self.uv)):
            # The rasteriser and the shader index arrays by these, in compiled code that checks no index.
            if not np.isfinite(values).all():
                raise ValueError(f"{name} hold NaN or infinite values")


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Area-weighted unit normals ``(V, 3)`` of counter-clockwise ``faces``."""
    return _vertex_normals(np.asarray(vertices), np.asarray(faces))


@compiled()
def _vertex_normals(vertices, faces):  # type: ignore[no-untyped-def]
    sums = np.zeros((len(vertices), 3))
    for face in range(len(faces)):
        a, b, c = faces[face]
        x, y, z = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        u, v, w = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        across, down, ahead = y * w - z * v, z * u - x * w, x * v - y * u
        for corner in range(3):
            sums[faces[face, corner], 0] += across
            sums[faces[face, corner], 1] += down
            sums[faces[face, corner], 2] += ahead
    normals = np.empty((len(vertices), 3), dtype=np.float32)
    for vertex in range(len(vertices)):
        x, y, z = sums[vertex]
        length = max(math.sqrt(x * x + y * y + z * z), 1e-12)
        for axis in range(3):
            normals[vertex, axis] = sums[vertex, axis] / length
    return normals


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
