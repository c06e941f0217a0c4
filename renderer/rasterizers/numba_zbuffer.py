"""The CPU rasteriser: a z-buffer in compiled loops, one triangle after the other."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from renderer.camera import Camera
from renderer.rasterizers import Fragments

NEAR_MM = 1.0


def rasterize(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], camera: Camera, size: tuple[int, int]
) -> Fragments:
    """Rasterise camera-frame ``vertices`` (V, 3); see ``rasterizers.Rasterizer`` for the contract.

    Raises ``ValueError`` where a vertex lies behind the camera (there is no clipping).
    """
    if len(vertices) and vertices[:, 2].max() > -NEAR_MM:
        raise ValueError(f"a vertex lies behind the camera (z = {vertices[:, 2].max():.1f} mm); move the camera back")
    height, width = size
    pix_to_face = np.full((height, width), -1, dtype=np.int32)
    barycentrics = np.zeros((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    _fill(camera.project(vertices), -vertices[:, 2], faces, pix_to_face, barycentrics, depth)
    return Fragments(pix_to_face, barycentrics, depth)


@numba.njit(cache=True, nogil=True)
def _fill(pixels, distance, faces, pix_to_face, barycentrics, depth):  # type: ignore[no-untyped-def]
    height, width = pix_to_face.shape
    for face in range(faces.shape[0]):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        ax, ay, bx, by = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1]
        cx, cy = pixels[c, 0], pixels[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-12:
            continue
        left = max(0, int(math.ceil(min(ax, bx, cx) - 0.5)))
        right = min(width - 1, int(math.floor(max(ax, bx, cx) - 0.5)))
        top = max(0, int(math.ceil(min(ay, by, cy) - 0.5)))
        bottom = min(height - 1, int(math.floor(max(ay, by, cy) - 0.5)))
        near_a, near_b, near_c = 1.0 / distance[a], 1.0 / distance[b], 1.0 / distance[c]
        for row in range(top, bottom + 1):
            y = row + 0.5
            for column in range(left, right + 1):
                x = column + 0.5
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                # 1/distance is linear on the screen; attributes over distance are, too.
                inverse = wa * near_a + wb * near_b + wc * near_c
                here = 1.0 / inverse
                if here < depth[row, column]:
                    depth[row, column] = here
                    pix_to_face[row, column] = face
                    barycentrics[row, column, 0] = wa * near_a * here
                    barycentrics[row, column, 1] = wb * near_b * here
                    barycentrics[row, column, 2] = wc * near_c * here
