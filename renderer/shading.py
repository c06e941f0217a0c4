"""One shader for all rasterisers: bilinear texture, Lambert light, background where nothing is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renderer.compiled import compiled
from renderer.mesh import Mesh
from renderer.rasterizers import Fragments


@dataclass(frozen=True)
class Light:
    """``direction`` to the light in the camera frame (unit), ``ambient`` in [0, 1], RGB ``color``."""

    direction: tuple[float, float, float]
    ambient: float
    color: tuple[float, float, float]


def shade(
    fragments: Fragments,
    mesh: Mesh,
    normals: NDArray[np.float32],
    light: Light,
    background: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """The image of what fragments show of a mesh. Colours are combined as stored, without linearisation.

    Parameters
    ----------
    fragments : Fragments
        What is seen at each pixel.
    mesh : Mesh
        Faces, texture coordinates and texture.
    normals : float array (V, 3)
        The mesh's vertex normals, in the camera frame.
    light : Light
        Direction, colour and share of ambient light.
    background : RGB uint8 array (H, W, 3)
        Fills the pixels where nothing is.

    Returns
    -------
    RGB uint8 array (H, W, 3)
        The image.
    """
    image = background.copy()
    _shade(
        fragments.pix_to_face,
        fragments.barycentrics,
        mesh.faces,
        mesh.uv,
        mesh.texture,
        normals,
        np.asarray(light.direction, dtype=np.float32),
        np.float32(light.ambient),
        np.asarray(light.color, dtype=np.float32),
        image,
    )
    return image


@compiled()
def _shade(pix_to_face, barycentrics, faces, uv, texture, normals, direction, ambient, color, image):  # type: ignore[no-untyped-def]
    rows, columns = texture.shape[0], texture.shape[1]
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            face = pix_to_face[row, column]
            if face < 0:
                continue
            u, v, nx, ny, nz = 0.0, 0.0, 0.0, 0.0, 0.0
            for corner in range(3):
                weight = barycentrics[row, column, corner]
                vertex = faces[face, corner]
                u += weight * uv[vertex, 0]
                v += weight * uv[vertex, 1]
                nx += weight * normals[vertex, 0]
                ny += weight * normals[vertex, 1]
                nz += weight * normals[vertex, 2]
            length = max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
            cosine = (nx * direction[0] + ny * direction[1] + nz * direction[2]) / length
            brightness = ambient + (1.0 - ambient) * max(cosine, 0.0)
            x = min(max(u * columns - 0.5, 0.0), columns - 1.001)
            y = min(max(v * rows - 0.5, 0.0), rows - 1.001)
            left, top = int(x), int(y)
            right, below = min(left + 1, columns - 1), min(top + 1, rows - 1)  # a texture may be a pixel wide
            fx, fy = x - left, y - top
            for channel in range(3):
                upper = texture[top, left, channel] * (1 - fx) + texture[top, right, channel] * fx
                lower = texture[below, left, channel] * (1 - fx) + texture[below, right, channel] * fx
                value = (upper * (1 - fy) + lower * fy) * brightness * color[channel]
                image[row, column, channel] = np.uint8(min(max(value + 0.5, 0.0), 255.0))
