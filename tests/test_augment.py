"""Augmentation: framing has its true effect on the rotation, colours have none, and the seed decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nlml_hpe.image_networks.augment import PLAIN, augment, recolored, reframed
from nlml_hpe.image_networks.config import AugmentationConfig
from nlml_hpe.image_networks.crop import SHARE, crop
from nlml_hpe.pose_grid import Pose
from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
from renderer.config import AppearanceConfig, HeadsConfig, RenderConfig
from renderer.drawing import render_pose
from renderer.heads.photo import PhotoHeads
from renderer.mesh import Mesh, vertex_normals

STORED = 128
BOX = torch.tensor([[32.0, 32.0, 96.0, 96.0]])
SIZE = 64


@pytest.fixture(scope="module")
def head() -> Mesh:
    return PhotoHeads.open(HeadsConfig(), seed=5).head(1)


def drawn(mesh: Mesh, pose: Pose) -> np.ndarray:
    """A head in the middle of its image, in light that comes from everywhere, so that only the pose is seen."""
    light = AppearanceConfig(vary=False, ambient=(1.0, 1.0), distance_mm=(3000, 3000), head_fraction=(0.6, 0.6))
    config = RenderConfig(size=STORED, appearance=light)
    return render_pose(mesh, vertex_normals(mesh.vertices, mesh.faces), pose, config, np.random.default_rng(0))


def batch(image: np.ndarray, pose: Pose, count: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rotation = torch.from_numpy(rotation_from_angles(Angles.from_columns(pose)).astype(np.float32))
    return (
        torch.from_numpy(image).expand(count, -1, -1, -1),
        rotation.expand(count, 3, 3),
        BOX.expand(count, 4),
    )


def as_shown(crops: torch.Tensor) -> np.ndarray:
    return crops[0].permute(1, 2, 0).numpy()


def plain(image: np.ndarray) -> np.ndarray:
    return as_shown(reframed(*batch(image, (0.0, 0.0, 0.0)), SIZE, PLAIN, torch.Generator())[0])


def test_without_changes_it_is_the_crop_that_inference_cuts(head: Mesh) -> None:
    image = drawn(head, (20.0, 10.0, 5.0))
    images, rotations, _ = batch(image, (20.0, 10.0, 5.0))
    # A crop of as many pixels as it shows, half a pixel off theirs: both must interpolate.
    box = torch.tensor([[42.5, 42.0, 42.5 + SIZE / SHARE, 80.0]])
    cut, shown = reframed(images, rotations, box, SIZE, PLAIN, torch.Generator())
    # OpenCV interpolates in steps of a thirty-second of a pixel, and rounds.
    np.testing.assert_allclose(as_shown(cut), crop(image, box[0].numpy(), SIZE).astype(float), atol=6.0)
    assert np.abs(as_shown(cut) - crop(image, box[0].numpy(), SIZE)).mean() < 0.5
    torch.testing.assert_close(shown, rotations)


@pytest.mark.parametrize("pose", [(25.0, -10.0, 15.0), (-70.0, 20.0, -30.0)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_turned_crop_shows_the_head_at_the_turned_rotation(head: Mesh, pose: Pose, seed: int) -> None:
    """Render, augment, and render again at the pose that augmentation says: the two pictures agree."""
    settings = PLAIN.model_copy(update={"turn_deg": 30.0})
    crops, shown = reframed(*batch(drawn(head, pose), pose), SIZE, settings, torch.Generator().manual_seed(seed))
    said = tuple(angles_from_rotation(shown[0].double().numpy()).columns().tolist())
    turned_by = abs(np.array(said) - pose).max()
    again = plain(drawn(head, said))
    error = np.abs(as_shown(crops) - again).mean()
    # Edges differ by half a pixel of interpolation; not to turn at all differs by several times as much.
    assert error < 3.0
    if turned_by > 8:
        assert np.abs(as_shown(crops) - plain(drawn(head, pose))).mean() > 2 * error


def test_the_mirror_image_shows_the_mirrored_head_at_the_mirrored_rotation(head: Mesh) -> None:
    pose = (35.0, 15.0, -20.0)
    other = replace(head, vertices=head.vertices * np.float32([-1, 1, 1]), faces=head.faces[:, ::-1].copy())
    settings = PLAIN.model_copy(update={"mirror": 1.0})
    crops, shown = reframed(*batch(drawn(head, pose), pose), SIZE, settings, torch.Generator())
    said = tuple(angles_from_rotation(shown[0].double().numpy()).columns().tolist())
    np.testing.assert_allclose(said, (-35.0, 15.0, 20.0), atol=1e-3)
    # The same pixels from right to left, but for those whose centre an edge runs through.
    assert np.abs(as_shown(crops) - plain(drawn(other, said))).mean() < 1.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_mirror_image_of_a_turned_crop_shows_the_mirrored_head_at_that_rotation(head: Mesh, seed: int) -> None:
    """The turn comes first: in the other order it would be the opposite one."""
    pose = (25.0, -10.0, 15.0)
    other = replace(head, vertices=head.vertices * np.float32([-1, 1, 1]), faces=head.faces[:, ::-1].copy())
    settings = PLAIN.model_copy(update={"turn_deg": 30.0, "mirror": 1.0})
    crops, shown = reframed(*batch(drawn(head, pose), pose), SIZE, settings, torch.Generator().manual_seed(seed))
    said = tuple(angles_from_rotation(shown[0].double().numpy()).columns().tolist())
    assert np.abs(as_shown(crops) - plain(drawn(other, said))).mean() < 3.0


def test_shift_and_scale_move_the_picture_and_not_the_pose(head: Mesh) -> None:
    pose = (10.0, 0.0, 0.0)
    settings = PLAIN.model_copy(update={"shift": 0.1, "scale": 0.2})
    image = drawn(head, pose)
    crops, shown = reframed(*batch(image, pose, 8), SIZE, settings, torch.Generator().manual_seed(0))
    # float32 of a rotation.
    torch.testing.assert_close(shown, batch(image, pose, 8)[1], atol=1e-6, rtol=0)
    assert (crops - crops[:1]).abs().mean(dim=(1, 2, 3))[1:].min() > 2


def test_colours_change_and_stay_in_range(head: Mesh) -> None:
    images, rotations, boxes = batch(drawn(head, (0.0, 0.0, 0.0)), (0.0, 0.0, 0.0), 64)
    generator = torch.Generator().manual_seed(0)
    crops, _ = augment(images, rotations, boxes, SIZE, AugmentationConfig(), generator)
    assert crops.shape == (64, 3, SIZE, SIZE)
    assert 0 <= float(crops.min()) <= float(crops.max()) <= 255
    spread = crops.flatten(1).mean(dim=1).std()
    assert spread > 10


@pytest.mark.parametrize(
    "change", ["grey", "color", "contrast", "gamma", "soft", "filter", "blocks", "noise", "erase", "frame", "surround"]
)
def test_each_change_alone_does_something_and_none_does_nothing(head: Mesh, change: str) -> None:
    crops = reframed(*batch(drawn(head, (30.0, 0.0, 0.0)), (30.0, 0.0, 0.0), 16), SIZE, PLAIN, torch.Generator())[0]
    full = 1.0 if change in ("grey", "soft", "filter", "blocks", "erase", "frame", "surround") else 0.5
    changed = recolored(crops, PLAIN.model_copy(update={change: full}), torch.Generator().manual_seed(1))
    assert (changed - crops).abs().mean() > 0.5
    # Black is lifted by less than a fortieth of a grey value, lest its power be infinite.
    torch.testing.assert_close(recolored(crops, PLAIN, torch.Generator()), crops, atol=0.03, rtol=0)


@pytest.mark.parametrize("size", [84, 100, 101])
def test_blocks_are_seen_at_every_size(size: int) -> None:
    """They were left out, without a word, where the sides are no multiple of 8; borders are changed with the rest."""
    crops = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0)) * 255
    changed = recolored(crops, PLAIN.model_copy(update={"blocks": 1.0}), torch.Generator().manual_seed(1))
    assert changed.shape == crops.shape
    for part in ((changed - crops).abs(), (changed - crops).abs()[:, :, :, -3:], (changed - crops).abs()[:, :, -3:]):
        assert part.mean() > 0.5


def test_the_seed_decides(head: Mesh) -> None:
    images = batch(drawn(head, (0.0, 0.0, 0.0)), (0.0, 0.0, 0.0), 4)
    first, again, other = (
        augment(*images, SIZE, AugmentationConfig(), torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
