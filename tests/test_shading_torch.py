"""The shader in torch: the pixels of the compiled one, on the device of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from nlml_hpe.rotation import Angles, rotation_from_angles
from renderer.camera import Camera
from renderer.drawing import HEAD_EXTENT_MM
from renderer.mesh import Mesh, vertex_normals
from renderer.rasterizers import Fragments, get_rasterizer
from renderer.shading import Light, shade
from renderer.shading_torch import Lights, Surface, shade_views

SIZE = 96
POSES = [(0.0, 0.0, 0.0), (-35.0, 20.0, 10.0), (60.0, -30.0, -20.0)]
LIGHTS = [
    Light((0.0, 0.26, 0.966), 0.65, (1.0, 1.0, 1.0)),
    Light((0.6, 0.0, 0.8), 0.1, (1.3, 1.0, 0.8)),  # bright enough to be cut off
    Light((-0.6, 0.64, 0.48), 0.4, (0.9, 1.0, 1.1)),
]


def seen(head: Mesh) -> tuple[list[Fragments], list[np.ndarray], list[np.ndarray]]:
    """Fragments, normals and backgrounds of all poses."""
    rotations = [rotation_from_angles(Angles.from_columns(pose)).astype(np.float32) for pose in POSES]
    camera = Camera.framing(SIZE, HEAD_EXTENT_MM, 0.7, 800.0)
    views = [camera.view(head.vertices, rotation) for rotation in rotations]
    fragments = get_rasterizer("numba_zbuffer").many(views, head.faces, [camera] * len(views), (SIZE, SIZE))
    normals = [vertex_normals(head.vertices, head.faces) @ rotation.T for rotation in rotations]
    rng = np.random.default_rng(0)
    return fragments, normals, [rng.integers(0, 256, size=(SIZE, SIZE, 3), dtype=np.uint8) for _ in POSES]


def in_torch(head: Mesh, device: str) -> torch.Tensor:
    fragments, normals, backgrounds = seen(head)

    def there(parts: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(parts)).to(device)

    owner = there([view.pix_to_face for view in fragments]).long()
    where = torch.device(device)
    surface, lights = Surface.of(head, where), Lights.of(LIGHTS, where)
    weights = there([view.barycentrics for view in fragments])
    return shade_views(owner, weights, surface, there(normals), lights, there(backgrounds))


def test_it_shades_as_the_compiled_one(head: Mesh) -> None:
    drawn, expected = both(head)
    difference = np.abs(drawn.astype(int) - expected)
    # One adds up in single, the other in double precision, so a value next to a half may be rounded the other way.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
    assert (expected == 255).any()


def test_so_it_does_with_a_texture_of_one_pixel(head: Mesh) -> None:
    """As scans of one colour have, which the compiled one draws."""
    drawn, expected = both(replace(head, texture=np.full((1, 1, 3), (200, 150, 100), dtype=np.uint8)))
    assert np.abs(drawn.astype(int) - expected).max() <= 1


def both(head: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Images (3, SIZE, SIZE, 3) of the two shaders."""
    expected = np.stack(
        [
            shade(view, head, turned, light, behind)
            for view, turned, behind, light in zip(*seen(head), LIGHTS, strict=True)
        ]
    )
    drawn = in_torch(head, "cpu").numpy()
    assert drawn.dtype == np.uint8
    return drawn, expected


def test_no_tensor_is_made_on_another_device(head: Mesh) -> None:
    """On ``meta`` whatever was made on the CPU, or needs a value on it, is an error."""
    drawn = in_torch(head, "meta")
    assert drawn.device.type == "meta"
    assert drawn.shape == (len(POSES), SIZE, SIZE, 3)
