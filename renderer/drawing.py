"""A head to images: pose, camera, light and sensor put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.images import RgbImage
from nlml_hpe.pose_grid import Pose
from nlml_hpe.rotation import Angles, rotation_from_angles
from renderer.appearance import draw_scene, expose
from renderer.camera import Camera
from renderer.config import RenderConfig
from renderer.mesh import Mesh
from renderer.rasterizers import get_rasterizer
from renderer.shading import shade

HEAD_EXTENT_MM = 230.0
"""Height of an adult head; the camera is set so that this much fills ``head_fraction`` of the image."""


def render_pose(
    mesh: Mesh, normals: NDArray[np.float32], pose: Pose, config: RenderConfig, rng: np.random.Generator
) -> RgbImage:
    """One RGB image of ``mesh`` (with head-frame vertex ``normals``) at (yaw, pitch, roll) degrees."""
    return render_poses(mesh, normals, [pose], config, [rng])[0]


def render_poses(
    mesh: Mesh,
    normals: NDArray[np.float32],
    poses: Sequence[Pose],
    config: RenderConfig,
    rngs: Sequence[np.random.Generator],
) -> list[RgbImage]:
    """RGB images at several poses, each with the scene that its own generator draws."""
    rotations = [rotation_from_angles(Angles.from_columns(pose)).astype(np.float32) for pose in poses]
    scenes = [draw_scene(config.appearance, config.size, rng) for rng in rngs]
    cameras = [Camera.framing(config.size, HEAD_EXTENT_MM, s.fraction, s.distance, s.shift) for s in scenes]
    views = [camera.view(mesh.vertices, turn) for camera, turn in zip(cameras, rotations, strict=True)]
    fragments = get_rasterizer(config.rasterizer).many(views, mesh.faces, cameras, (config.size, config.size))
    return [
        expose(shade(seen, mesh, normals @ turn.T, scene.light, scene.background), scene, rng)
        for seen, turn, scene, rng in zip(fragments, rotations, scenes, rngs, strict=True)
    ]
