"""Placing a scan in the head frame by its own face: whatever its unit and origin were, it is in mm after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nlml_hpe.detection.landmarks import FACEMESH, LandmarkDetector
from renderer.camera import Camera
from renderer.heads import EYE_CORNER_DISTANCE_MM, HeadDataError
from renderer.mesh import Mesh, vertex_normals
from renderer.rasterizers import get_rasterizer
from renderer.shading import Light, shade

_PX = 384
_LIGHT = Light(direction=(0.0, 0.2, 0.98), ambient=0.6, color=(1.0, 1.0, 1.0))
_PIVOT_BEHIND_EYES_MM = np.array([0.0, -15.0, -70.0], dtype=np.float32)


def placed_by_face(mesh: Mesh, name: str, detector: LandmarkDetector) -> Mesh:
    """The mesh in millimetres, turning about a point between the ears.

    The outer corners of the eyes, found in a frontal render, set the scale.

    Parameters
    ----------
    mesh : Mesh
        In any unit, looking along +z with y upwards.
    name : str
        Of it, for the message.
    detector : LandmarkDetector
        With FaceMesh's points.

    Returns
    -------
    Mesh
        In the head frame.

    Raises
    ------
    HeadDataError
        Where no face is found, and where the corners of the eyes lie beside the head.
    """
    middle = (mesh.vertices.max(axis=0) + mesh.vertices.min(axis=0)) / 2
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    centred = replace(mesh, vertices=(mesh.vertices - middle) * (230.0 / extent))
    camera = Camera.framing(_PX, 230.0, 0.9, 3000.0)
    seen = camera.view(centred.vertices, np.eye(3, dtype=np.float32))
    fragments = get_rasterizer("numba_zbuffer")(seen, mesh.faces, camera, (_PX, _PX))
    normals = vertex_normals(centred.vertices, mesh.faces)
    image = shade(fragments, mesh, normals, _LIGHT, np.full((_PX, _PX, 3), 128, dtype=np.uint8))
    faces = detector.detect(image)
    if not faces:
        raise HeadDataError(f"{name}: no face is seen from the front; expected a head that looks along +z, y upwards")
    corners = faces[0].landmarks[list(FACEMESH.eye_corners), :2]
    column, row = np.clip(np.round(corners).astype(int), 0, _PX - 1).T
    depth = fragments.depth[row, column]
    if not np.isfinite(depth).all():
        raise HeadDataError(f"{name}: the corners of the eyes lie beside the head; is it a single, closed head?")
    scale = depth / camera.focal
    across = (corners - camera.centre) * scale[:, None]
    points = np.column_stack([across[:, 0], -across[:, 1], camera.distance - depth])
    size = EYE_CORNER_DISTANCE_MM / float(np.linalg.norm(points[0] - points[1]))
    vertices = (centred.vertices - points.mean(axis=0)) * size - _PIVOT_BEHIND_EYES_MM
    return replace(centred, vertices=vertices.astype(np.float32))
