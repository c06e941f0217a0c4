"""The shader of crops: two lights, a cast shadow, gloss; what is drawn is averaged over finer pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from renderer.camera import Camera
from renderer.neck import moved
from renderer.rasterizers import Fragments, get_rasterizer

FloatArray = NDArray[np.float32]
_SHADOW_PX = 112
_SHADOW_DISTANCE_MM = 20_000.0
_SHADOW_EXTENT_MM = 420.0
_SHADOW_BIAS_MM = 5.0
_SAMPLED = 16


class Lamps(NamedTuple):
    """The light on a crop: unit ``direction`` to the main lamp and to the ``fill``, in the camera frame.

    ``ambient`` + ``main`` + ``second`` are brightnesses, ``color`` (3,) that of the main lamp, ``gloss`` the
    strength and ``sharp`` the exponent of its reflection; ``shadow`` is how much of the lamp a shadow takes.
    """

    direction: FloatArray
    fill: FloatArray
    ambient: float
    main: float
    second: float
    color: FloatArray
    gloss: float
    sharp: float
    shadow: float


def light_crop(
    fragments: Fragments,
    vertices: FloatArray,
    normals: FloatArray,
    faces: NDArray[np.int32],
    uv: FloatArray,
    texture: NDArray[np.uint8],
    lamps: Lamps,
    image: FloatArray,
) -> None:
    """Draw what fragments show of a head into an image.

    Parameters
    ----------
    fragments : Fragments
        What is seen at each pixel.
    vertices, normals : float arrays (V, 3)
        In the camera frame; normals of unit length.
    faces : int array (F, 3)
        Triangles.
    uv : float array (V, 2)
        Texture coordinates.
    texture : RGB uint8 array
        The texture.
    lamps : Lamps
        What lights the head.
    image : float array (H, W, 3)
        RGB in 0..255, drawn into.
    """
    side, camera, depth = _shadow_map(vertices, faces, lamps)
    _light(
        fragments.pix_to_face,
        fragments.barycentrics,
        faces,
        uv,
        texture,
        normals,
        side,
        depth,
        np.array([camera.focal, *camera.centre, _SHADOW_BIAS_MM], dtype=np.float32),
        lamps.direction,
        lamps.fill,
        np.array(
            [lamps.ambient, lamps.main, lamps.second, lamps.gloss, lamps.sharp, lamps.shadow],
            dtype=np.float32,
        ),
        lamps.color,
        image,
    )


def _shadow_map(
    vertices: FloatArray, faces: NDArray[np.int32], lamps: Lamps
) -> tuple[FloatArray, Camera, NDArray[np.float32]]:
    """Vertices seen from the main lamp, the camera there, and how far it sees at each of its pixels."""
    direction = lamps.direction
    right = np.cross([0.21, 0.95, 0.11], direction)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(direction, right), direction]).astype(np.float32)
    camera = Camera.framing(_SHADOW_PX, _SHADOW_EXTENT_MM, 0.98, _SHADOW_DISTANCE_MM)
    # Some vertices tell where the head is as well as all of them, and a reduction along the first axis is slow.
    some = vertices[::_SAMPLED]
    middle = (some.max(axis=0) + some.min(axis=0)) / 2
    seen = camera.view(moved(vertices, -middle), rotation)
    if lamps.shadow == 0:
        return seen, camera, np.full((_SHADOW_PX, _SHADOW_PX), np.inf, dtype=np.float32)
    depth = get_rasterizer("numba_zbuffer")(seen, faces, camera, (_SHADOW_PX, _SHADOW_PX)).depth
    return seen, camera, depth


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})
def _light(  # type: ignore[no-untyped-def]
    pix_to_face, bary, faces, uv, texture, normals, side, depth, lamp_camera, direction, fill, power, color, image
):
    rows, columns = texture.shape[0], texture.shape[1]
    # The camera looks along -z, so towards the viewer is +z, and half-way to the lamp is this.
    hx, hy, hz = direction[0], direction[1], direction[2] + 1.0
    length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-6
    hx, hy, hz = hx / length, hy / length, hz / length
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            face = pix_to_face[row, column]
            if face < 0:
                continue
            u, v, nx, ny, nz = 0.0, 0.0, 0.0, 0.0, 0.0
            for corner in range(3):
                weight = bary[row, column, corner]
                vertex = faces[face, corner]
                u += weight * uv[vertex, 0]
                v += weight * uv[vertex, 1]
                nx += weight * normals[vertex, 0]
                ny += weight * normals[vertex, 1]
                nz += weight * normals[vertex, 2]
            length = max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
            # Thin sheets (hair, brims) are seen from both sides.
            if nz < -0.15 * length:
                length = -length
            nx, ny, nz = nx / length, ny / length, nz / length
            lit = 1.0
            if power[5] > 0.0:
                sx, sy, sz = 0.0, 0.0, 0.0
                for corner in range(3):
                    weight = bary[row, column, corner]
                    vertex = faces[face, corner]
                    sx += weight * side[vertex, 0]
                    sy += weight * side[vertex, 1]
                    sz += weight * side[vertex, 2]
                away = -sz
                x = int(lamp_camera[1] + sx * lamp_camera[0] / away)
                y = int(lamp_camera[2] - sy * lamp_camera[0] / away)
                if 0 < x < depth.shape[1] - 1 and 0 < y < depth.shape[0] - 1:
                    open_ = 0.0
                    for down in range(-1, 2):
                        for across in range(-1, 2):
                            if away < depth[y + down, x + across] + lamp_camera[3]:
                                open_ += 1.0
                    lit = 1.0 - power[5] * (1.0 - open_ / 9.0)
            main = max(nx * direction[0] + ny * direction[1] + nz * direction[2], 0.0) * lit
            second = max(nx * fill[0] + ny * fill[1] + nz * fill[2], 0.0)
            shine, ahead = 0.0, nx * hx + ny * hy + nz * hz
            if power[3] > 0.0 and ahead > 0.0:  # a power takes as long as all the rest
                shine = ahead ** power[4] * power[3] * lit * 255.0
            px = min(max(u * columns - 0.5, 0.0), columns - 1.001)
            py = min(max(v * rows - 0.5, 0.0), rows - 1.001)
            left, top = int(px), int(py)
            fx, fy = px - left, py - top
            for channel in range(3):
                upper = texture[top, left, channel] * (1 - fx) + texture[top, left + 1, channel] * fx
                lower = texture[top + 1, left, channel] * (1 - fx) + texture[top + 1, left + 1, channel] * fx
                bright = power[0] + power[1] * main * color[channel] + power[2] * second
                value = (upper * (1 - fy) + lower * fy) * bright + shine * color[channel]
                image[row, column, channel] = min(value, 255.0)
