"""The shader of crops: two lights, a cast shadow, gloss; what is drawn is averaged over finer pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from renderer.camera import Camera
from renderer.compiled import compiled
from renderer.neck import moved
from renderer.rasterizers import Fragments, get_rasterizer

FloatArray = NDArray[np.float32]
_SHADOW_PX = 112
_SHADOW_DISTANCE_MM = 20_000.0
_SHADOW_EXTENT_MM = 420.0
_SHADOW_BIAS_MM = 5.0
_SAMPLED = 16
_ABOUT_UP = np.array([0.21, 0.95, 0.11])
"""A direction that hardly any lamp stands in."""
_NEXT, _AFTER = np.array([1, 2, 0]), np.array([2, 0, 1])


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
    """Vertices seen from the main lamp, the camera there, and how far it sees at each of its pixels.

    Of a lamp that casts no shadow none of this is looked at.
    """
    camera = Camera.framing(_SHADOW_PX, _SHADOW_EXTENT_MM, 0.98, _SHADOW_DISTANCE_MM)
    if lamps.shadow == 0:
        return vertices, camera, np.empty((0, 0), dtype=np.float32)
    direction = lamps.direction
    right = _cross(_ABOUT_UP, direction)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, _cross(direction, right), direction]).astype(np.float32)
    # Some vertices tell where the head is as well as all of them. Coordinates first: a reduction along the first axis
    # is slow.
    some = np.ascontiguousarray(vertices[::_SAMPLED].T)
    middle = (some.max(axis=1) + some.min(axis=1)) / 2
    seen = camera.view(moved(vertices, -middle), rotation)
    depth = get_rasterizer("numba_zbuffer")(seen, faces, camera, (_SHADOW_PX, _SHADOW_PX)).depth
    return seen, camera, depth


def _cross(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """The cross product of two vectors (3,): numpy's own takes five times as long over one pair."""
    return first[_NEXT] * second[_AFTER] - first[_AFTER] * second[_NEXT]


@compiled(error_model="numpy", fastmath={"nnan", "nsz"})
def _light(  # type: ignore[no-untyped-def]
    pix_to_face, bary, faces, uv, texture, normals, side, depth, lamp_camera, direction, fill, power, color, image
):
    """Row by row, and a row step by step: a processor works on more pixels at once in short loops than in one long."""
    width = image.shape[1]
    seen, surface, light = np.empty(width, dtype=np.int64), np.empty((5, width)), np.empty((3, width))
    for row in range(image.shape[0]):
        count = _seen_surface(pix_to_face[row], bary[row], faces, uv, normals, seen, surface)
        _reflect(surface, count, direction, fill, power, light)
        if power[5] > 0.0:
            _cast_shadow(seen[:count], pix_to_face[row], bary[row], faces, side, depth, lamp_camera, power[5], light)
        _paint(seen[:count], surface, light, texture, power, color, image[row])


@compiled(error_model="numpy", fastmath={"nnan", "nsz"})
def _seen_surface(pix_to_face, bary, faces, uv, normals, seen, surface):  # type: ignore[no-untyped-def]
    """Which pixels of a row show a face, and how many do; of each u, v and the normal, not yet of unit length."""
    count = 0
    for column in range(len(pix_to_face)):
        face = pix_to_face[column]
        if face < 0:
            continue
        u, v, nx, ny, nz = 0.0, 0.0, 0.0, 0.0, 0.0
        for corner in range(3):
            weight, vertex = bary[column, corner], faces[face, corner]
            u += weight * uv[vertex, 0]
            v += weight * uv[vertex, 1]
            nx += weight * normals[vertex, 0]
            ny += weight * normals[vertex, 1]
            nz += weight * normals[vertex, 2]
        surface[0, count], surface[1, count] = u, v
        surface[2, count], surface[3, count], surface[4, count] = nx, ny, nz
        seen[count] = column
        count += 1
    return count


@compiled(error_model="numpy", fastmath={"nnan", "nsz"})
def _reflect(surface, count, direction, fill, power, light):  # type: ignore[no-untyped-def]
    """How much of the main lamp, of the second and of the gloss each pixel gives back."""
    # The camera looks along -z, so towards the viewer is +z, and half-way to the lamp is this.
    hx, hy, hz = direction[0], direction[1], direction[2] + 1.0
    length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-6
    hx, hy, hz = hx / length, hy / length, hz / length
    for pixel in range(count):
        x, y, z = surface[2, pixel], surface[3, pixel], surface[4, pixel]
        length = max(math.sqrt(x * x + y * y + z * z), 1e-9)
        # Thin sheets (hair, brims) are seen from both sides.
        length = -length if z < -0.15 * length else length
        x, y, z = x / length, y / length, z / length
        light[0, pixel] = max(x * direction[0] + y * direction[1] + z * direction[2], 0.0)
        light[1, pixel] = max(x * fill[0] + y * fill[1] + z * fill[2], 0.0)
        light[2, pixel] = max(x * hx + y * hy + z * hz, 0.0) if power[3] > 0.0 else 0.0
    if power[3] > 0.0:
        for pixel in range(count):
            light[2, pixel] = light[2, pixel] ** power[4] * power[3] * 255.0


@compiled(error_model="numpy", fastmath={"nnan", "nsz"})
def _cast_shadow(seen, pix_to_face, bary, faces, side, depth, lamp_camera, dark, light):  # type: ignore[no-untyped-def]
    """Take the main lamp and its gloss from pixels that it does not see, in part where it sees some of nine places."""
    for pixel, column in enumerate(seen):
        if light[0, pixel] + light[2, pixel] == 0.0:
            continue
        face = pix_to_face[column]
        x, y, z = 0.0, 0.0, 0.0
        for corner in range(3):
            weight, vertex = bary[column, corner], faces[face, corner]
            x += weight * side[vertex, 0]
            y += weight * side[vertex, 1]
            z += weight * side[vertex, 2]
        right, down = int(lamp_camera[1] - x * lamp_camera[0] / z), int(lamp_camera[2] + y * lamp_camera[0] / z)
        if 0 < right < depth.shape[1] - 1 and 0 < down < depth.shape[0] - 1:
            open_ = 0.0
            for row in range(down - 1, down + 2):
                for place in range(right - 1, right + 2):
                    if -z < depth[row, place] + lamp_camera[3]:
                        open_ += 1.0
            lit = 1.0 - dark * (1.0 - open_ / 9.0)
            light[0, pixel] *= lit
            light[2, pixel] *= lit


@compiled(error_model="numpy", fastmath={"nnan", "nsz"})
def _paint(seen, surface, light, texture, power, color, image):  # type: ignore[no-untyped-def]
    """The texture's colours, between its four pixels next to each place, in that light."""
    rows, columns = texture.shape[0], texture.shape[1]
    for pixel, column in enumerate(seen):
        px = min(max(surface[0, pixel] * columns - 0.5, 0.0), columns - 1.001)
        py = min(max(surface[1, pixel] * rows - 0.5, 0.0), rows - 1.001)
        left, top = int(px), int(py)
        fx, fy = px - left, py - top
        for channel in range(3):
            upper = texture[top, left, channel] * (1 - fx) + texture[top, left + 1, channel] * fx
            lower = texture[top + 1, left, channel] * (1 - fx) + texture[top + 1, left + 1, channel] * fx
            bright = power[0] + power[1] * light[0, pixel] * color[channel] + power[2] * light[1, pixel]
            value = (upper * (1 - fy) + lower * fy) * bright + light[2, pixel] * color[channel]
            image[column, channel] = min(value, 255.0)
