"""The CPU rasteriser: a z-buffer in compiled loops, one triangle after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from renderer.camera import Camera
from renderer.compiled import compiled
from renderer.mesh import Mesh
from renderer.rasterizers import Fragments
from renderer.shading import Light, shade


def rasterize_many(
    vertices: Sequence[NDArray[np.float32]],
    faces: NDArray[np.int32],
    cameras: Sequence[Camera],
    size: tuple[int, int],
) -> list[Fragments]:
    """Several views of one mesh, one after the other; see ``rasterizers.Rasterizer`` for the contract."""
    return [
        _rasterize(camera.project(view), -view[:, 2], faces, size)
        for view, camera in zip(vertices, cameras, strict=True)
    ]


def paint(
    vertices: Sequence[NDArray[np.float32]],
    mesh: Mesh,
    normals: Sequence[NDArray[np.float32]],
    cameras: Sequence[Camera],
    lights: Sequence[Light],
    backgrounds: Sequence[NDArray[np.uint8]],
) -> list[NDArray[np.uint8]]:
    """Shaded images of several views.

    Parameters
    ----------
    vertices, mesh, normals, cameras, lights, backgrounds
        As of ``rasterizers.Rasterizer.images``.

    Returns
    -------
    list of RGB uint8 arrays (H, W, 3)
        In the order of the views.
    """
    images = []
    for view, turned, camera, light, background in zip(vertices, normals, cameras, lights, backgrounds, strict=True):
        (fragments,) = rasterize_many([view], mesh.faces, [camera], (background.shape[0], background.shape[1]))
        images.append(shade(fragments, mesh, turned, light, background))
    return images


def rasterize_flat(pixels: NDArray[np.float32], faces: NDArray[np.int32], size: tuple[int, int]) -> Fragments:
    """Rasterise a chart that lies in the plane: ``pixels`` (V, 2), x right, y down; every depth is 1."""
    return _rasterize(pixels, np.ones(len(pixels), dtype=np.float32), faces, size)


def _rasterize(
    pixels: NDArray[np.float32], distance: NDArray[np.float32], faces: NDArray[np.int32], size: tuple[int, int]
) -> Fragments:
    height, width = size
    pix_to_face = np.full((height, width), -1, dtype=np.int32)
    barycentrics = np.zeros((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    # Without a sign: numba asks of every signed index whether it counts from the end.
    _fill(pixels, distance, faces.astype(np.int32, copy=False).view(np.uint32), pix_to_face, barycentrics, depth)
    return Fragments(pix_to_face, barycentrics, depth)


# NaN is excluded: a mesh's vertices are finite and in front of the camera.
@compiled(error_model="numpy", fastmath={"nnan", "ninf", "nsz"})
def _fill(pixels, distance, faces, pix_to_face, barycentrics, depth):  # type: ignore[no-untyped-def]
    height, width = pix_to_face.shape
    # 1/distance is linear on the screen; attributes over distance are, too.
    nearest = np.zeros((height, width), dtype=np.float32)
    spans, near = _of_vertices(pixels, distance, height, width)
    for face in range(faces.shape[0]):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        left, right = min(spans[a, 0], spans[b, 0], spans[c, 0]), max(spans[a, 1], spans[b, 1], spans[c, 1])
        top, bottom = min(spans[a, 2], spans[b, 2], spans[c, 2]), max(spans[a, 3], spans[b, 3], spans[c, 3])
        if left >= right or top >= bottom:  # between the pixel centres, as many small triangles are
            continue
        near_a, near_b, near_c = near[a], near[b], near[c]
        if _is_hidden(nearest, max(near_a, near_b, near_c), left, right, top, bottom):
            continue
        # In double precision, as the weights below: of a face that is seen from its edge single precision leaves an
        # area that is not there, and what a step lacks adds up from row to row.
        ax, bx, cx = np.float64(pixels[a, 0]), np.float64(pixels[b, 0]), np.float64(pixels[c, 0])
        ay, by, cy = np.float64(pixels[a, 1]), np.float64(pixels[b, 1]), np.float64(pixels[c, 1])
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-12:
            continue
        scale = 1.0 / area
        across_a, across_b = (by - cy) * scale, (cy - ay) * scale
        down_a, down_b = (cx - bx) * scale, (ax - cx) * scale
        x, y = left + 0.5, top + 0.5
        first_a = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * scale
        first_b = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * scale
        for row in range(top, bottom):
            wa, wb = first_a, first_b
            for column in range(left, right):
                wc = 1.0 - wa - wb
                if min(wa, wb, wc) >= 0.0:
                    inverse = wa * near_a + wb * near_b + wc * near_c
                    if inverse > nearest[row, column]:
                        nearest[row, column] = inverse
                        pix_to_face[row, column] = face
                wa += across_a
                wb += across_b
            first_a += down_a
            first_b += down_b
    _interpolate(pixels, near, faces, pix_to_face, barycentrics, depth)


@compiled(error_model="numpy", fastmath={"nnan", "ninf", "nsz"})
def _of_vertices(pixels, distance, height, width):  # type: ignore[no-untyped-def]
    """Of each vertex the first column whose centre lies right of it, the one after the last whose centre lies left, the
    same of rows, within the image; and one over its distance. A face's are the least and greatest of its vertices'."""
    spans, near = np.empty((len(pixels), 4), dtype=np.uint32), np.empty(len(pixels))
    for vertex in range(len(pixels)):
        for axis, size in enumerate((width, height)):
            place = pixels[vertex, axis] - 0.5
            spans[vertex, 2 * axis] = min(max(math.ceil(place), 0.0), size)
            spans[vertex, 2 * axis + 1] = max(min(math.floor(place) + 1.0, size), 0.0)
        near[vertex] = 1.0 / distance[vertex]
    return spans, near


@compiled(error_model="numpy", fastmath={"nnan", "ninf", "nsz"})
def _is_hidden(nearest, near, left, right, top, bottom):  # type: ignore[no-untyped-def]
    """Whether all of these pixels show something nearer than 1 / ``near``; a little more, as rounding may have it."""
    bound = np.float32(near * 1.000001)
    for row in range(top, bottom):
        for column in range(left, right):
            if nearest[row, column] < bound:
                return False
    return True


@compiled(error_model="numpy")
def _interpolate(pixels, near, faces, pix_to_face, barycentrics, depth):  # type: ignore[no-untyped-def]
    """Weights and depth of the faces that are seen, once per pixel."""
    for row in range(pix_to_face.shape[0]):
        for column in range(pix_to_face.shape[1]):
            face = pix_to_face[row, column]
            if face < 0:
                continue
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            x, y = column + 0.5, row + 0.5
            ax, ay, bx, by = pixels[a, 0] - x, pixels[a, 1] - y, pixels[b, 0] - x, pixels[b, 1] - y
            cx, cy = pixels[c, 0] - x, pixels[c, 1] - y
            # Twice the areas of the three triangles about the pixel; weights are these over distance.
            area_a, area_b, area_c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
            near_a, near_b, near_c = area_a * near[a], area_b * near[b], area_c * near[c]
            scale = 1.0 / (near_a + near_b + near_c)
            barycentrics[row, column, 0] = near_a * scale
            barycentrics[row, column, 1] = near_b * scale
            barycentrics[row, column, 2] = near_c * scale
            depth[row, column] = (area_a + area_b + area_c) * scale
