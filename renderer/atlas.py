"""A texture atlas for a head of many parts, and what is known at each of its texels.

Painting needs to know, for every texel, where on the neutral head it lies; it then paints in
millimetres of the head instead of in the coordinates of somebody's UV layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from renderer.camera import Camera
from renderer.mesh import vertex_normals
from renderer.rasterizers import get_rasterizer
from renderer.rasterizers.numba_zbuffer import rasterize_flat

_AO_DIRECTIONS = 64
_AO_PX = 320
_AO_DISTANCE_MM = 20_000.0
_AO_BIAS_MM = 2.0


@dataclass(frozen=True)
class Texels:
    """What each texel of a (H, W) atlas shows: ``part`` (H, W) int8 (-1 none), and of the neutral head
    ``position`` (H, W, 3) mm, ``normal`` (H, W, 3) and ``openness`` (H, W), the share of the sky it sees."""

    part: NDArray[np.int8]
    position: NDArray[np.float32]
    normal: NDArray[np.float32]
    openness: NDArray[np.float32]

    @classmethod
    def of_mesh(
        cls,
        size: tuple[int, int],
        uv: NDArray[np.float32],
        faces: NDArray[np.int32],
        part: NDArray[np.int8],
        vertices: NDArray[np.float32],
    ) -> Texels:
        """Texels of a neutral head.

        Parameters
        ----------
        size : (int, int)
            Height and width of the texture in pixels.
        uv : float array (V, 2)
            Texture coordinates of the vertices in [0, 1], from the top.
        faces : int array (F, 3)
            Triangles.
        part : int array (F,)
            Which part of the head each of them is.
        vertices : float array (V, 3)
            In millimetres and in the head frame.

        Returns
        -------
        Texels
            Of the whole texture; between the charts those of the nearest one.
        """
        height, width = size
        fragments = rasterize_flat(uv * np.array([width, height], np.float32), faces, size)
        seen = fragments.pix_to_face >= 0
        # Texels between the charts take the nearest chart's values, so that no seam shows.
        nearest = distance_transform_edt(~seen, return_distances=False, return_indices=True)
        face = fragments.pix_to_face[tuple(nearest)]
        weights = fragments.barycentrics[tuple(nearest)]
        normals = vertex_normals(vertices, faces)
        fields = np.concatenate([vertices, normals, openness(vertices, normals, faces)[:, None]], axis=1)
        values = np.einsum("hwk,hwkd->hwd", weights, fields[faces[face]], optimize=True)
        # Arrays of their own, as a file gives them back: numpy rounds views with gaps otherwise.
        position, normal, open_sky = (np.ascontiguousarray(values[..., of]) for of in (slice(3), slice(3, 6), 6))
        return cls(part[face], position, normal, open_sky)


def openness(
    vertices: NDArray[np.float32], normals: NDArray[np.float32], faces: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Share of the sky over each vertex, cosine-weighted, that the mesh itself does not cover.

    Parameters
    ----------
    vertices : float array (V, 3)
        In millimetres.
    normals : float array (V, 3)
        Of unit length.
    faces : int array (F, 3)
        Triangles.

    Returns
    -------
    float array (V,)
        In 0..1.
    """
    rasterize = get_rasterizer("numba_zbuffer")
    camera = Camera.framing(_AO_PX, float(np.ptp(vertices, axis=0).max()), 0.65, _AO_DISTANCE_MM)
    centred = vertices - (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    open_sky, sky = np.zeros(len(vertices)), np.full(len(vertices), 1e-6)
    for direction in _sphere(_AO_DIRECTIONS):
        side = np.cross([0.31, 0.95, 0.05], direction)
        side /= np.linalg.norm(side)
        rotation = np.stack([side, np.cross(direction, side), direction]).astype(np.float32)
        seen_from = camera.view(centred, rotation)
        depth = rasterize(seen_from, faces, camera, (_AO_PX, _AO_PX)).depth
        column, row = np.clip(camera.project(seen_from).astype(int), 0, _AO_PX - 1).T
        visible = -seen_from[:, 2] < depth[row, column] + _AO_BIAS_MM
        weight = np.maximum(normals @ direction, 0.0)
        open_sky += weight * visible
        sky += weight
    return (open_sky / sky).astype(np.float32)


def _sphere(count: int) -> NDArray[np.float64]:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    azimuth = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)
