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
    device: str = "auto",
) -> list[RgbImage]:
    """Images of a head at several poses.

    Parameters
    ----------
    mesh : Mesh
        The head, in millimetres and in the head frame.
    normals : float array (V, 3)
        Of its vertices, in the head frame.
    poses : sequence of (yaw, pitch, roll)
        Degrees.
    config : RenderConfig
        Size, rasteriser and appearance.
    rngs : sequence of numpy Generators
        One for each pose, which draws its scene.
    device : str
        For rasterisers that can use one, as for ``nlml_hpe.device``.

    Returns
    -------
    list of RGB uint8 arrays (size, size, 3)
        In the order of the poses.
    """
    rotations = [rotation_from_angles(Angles.from_columns(pose)).astype(np.float32) for pose in poses]
    scenes = [draw_scene(config.appearance, config.size, rng) for rng in rngs]
    cameras = [Camera.framing(config.size, HEAD_EXTENT_MM, s.fraction, s.distance, s.shift) for s in scenes]
    views = [camera.view(mesh.vertices, turn) for camera, turn in zip(cameras, rotations, strict=True)]
    turned = [normals @ turn.T for turn in rotations]
    lights, backgrounds = [s.light for s in scenes], [s.background for s in scenes]
    images = get_rasterizer(config.rasterizer, device).images(views, mesh, turned, cameras, lights, backgrounds)
    return [expose(image, scene, rng) for image, scene, rng in zip(images, scenes, rngs, strict=True)]
