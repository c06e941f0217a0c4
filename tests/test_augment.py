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
from renderer.config import AppearanceConfig, RenderConfig
from renderer.drawing import render_pose
from renderer.mesh import Mesh, vertex_normals

STORED = 128
BOX = torch.tensor([[32.0, 32.0, 96.0, 96.0]])
SIZE = 64


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


@pytest.mark.parametrize("left", [42.5, 92.5])
def test_without_changes_it_is_the_crop_that_inference_cuts(head: Mesh, left: float) -> None:
    """At the picture's border, too, which goes on beyond it."""
    image = drawn(head, (20.0, 10.0, 5.0))
    images, rotations, _ = batch(image, (20.0, 10.0, 5.0))
    # A crop of as many pixels as it shows, half a pixel off theirs: both must interpolate.
    box = torch.tensor([[left, 42.0, left + SIZE / SHARE, 80.0]])
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


def test_framing_varies_evenly_and_as_far_as_is_said() -> None:
    """Pixels that hold their own place tell which part of the picture a crop shows."""
    count, box = 400, torch.tensor([[48.0, 48.0, 80.0, 80.0]])
    across = torch.arange(STORED, dtype=torch.uint8).expand(STORED, STORED)
    images = torch.stack([across, across.T, across], dim=-1).expand(count, -1, -1, -1)
    settings = PLAIN.model_copy(update={"shift": 0.1, "scale": 0.2, "turn_deg": 30.0, "mirror": 0.25})
    draw = torch.Generator().manual_seed(0)
    crops, shown = reframed(images, torch.eye(3).expand(count, 3, 3), box.expand(count, 4), SIZE, settings, draw)
    places = crops[:, :2].double() + 0.5
    right = (places[:, :, SIZE // 2, -1] - places[:, :, SIZE // 2, 0]) / (SIZE - 1)
    down = (places[:, :, -1, SIZE // 2] - places[:, :, 0, SIZE // 2]) / (SIZE - 1)
    side = down.norm(dim=1, keepdim=True) * SIZE
    mirrored = right[:, 0] * down[:, 1] < right[:, 1] * down[:, 0]
    assert 0.15 < mirrored.double().mean() < 0.35
    # A turn from the image's right to its top is a negative roll; the mirror image has the other sign.
    turn = torch.rad2deg(torch.atan2(-down[:, 0], down[:, 1]))
    roll = torch.from_numpy(angles_from_rotation(shown.double().numpy()).roll)
    torch.testing.assert_close(roll, torch.where(mirrored, turn, -turn), atol=0.01, rtol=0)
    larger = torch.log(side[:, 0] / (SHARE * 32)) / np.log(1.2)
    shifts = (places.mean(dim=(2, 3)) - 64) / side
    for share in (larger, turn / 30, shifts[:, 0] / 0.1, shifts[:, 1] / 0.1):
        assert -1.001 < share.min() < -0.95
        assert 0.95 < share.max() < 1.001
        # An even draw; the standard error of these is 0.03.
        assert abs(share.mean()) < 0.12
        assert 0.4 < share.abs().mean() < 0.6
    assert (torch.corrcoef(torch.stack([larger, turn, *shifts.T])) - torch.eye(4)).abs().max() < 0.2


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


def changed_by(crops: torch.Tensor, **settings: float) -> torch.Tensor:
    """Crops in 0..1 with these changes alone, in 0..1."""
    draw = torch.Generator().manual_seed(0)
    return recolored(crops * 255, PLAIN.model_copy(update=settings), draw) / 255


def even(count: int = 200, value: float = 0.5, size: int = 32) -> torch.Tensor:
    return torch.full((count, 3, size, size), value)


def rough(count: int = 200, size: int = 32) -> torch.Tensor:
    """Soft random pictures around another grey in each channel, far from black and white."""
    drawn = torch.randn((count, 3, size, size), generator=torch.Generator().manual_seed(5))
    soft = torch.nn.functional.avg_pool2d(drawn, 3, 1, 1)
    return torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1) + 0.1 * soft


def test_a_grey_crop_has_the_luminance_of_its_colours() -> None:
    crops = rough()
    luminance = (crops * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(changed_by(crops, grey=1.0), luminance.expand_as(crops))
    changed = (changed_by(crops, grey=0.3) - crops).abs().amax(dim=(1, 2, 3)) > 0.01
    assert 0.2 < changed.double().mean() < 0.4


def test_light_has_a_colour_and_a_brightness_within_their_bounds() -> None:
    light = changed_by(even(), color=0.25)[:, :, 0, 0] / 0.5
    assert 0.749 < light.min() < 0.77
    assert 1.23 < light.max() < 1.251
    assert torch.corrcoef(light.T).triu(1).abs().max() < 0.25
    brightness = changed_by(even(), contrast=0.4)[:, :, 0, 0] - 0.5
    assert -0.1001 < brightness.min() < -0.09
    assert 0.09 < brightness.max() < 0.1001


def test_colours_are_at_most_washed_out_and_never_turned_about() -> None:
    wave = torch.where(torch.arange(32) % 2 == 0, 0.05, -0.05).expand(200, 32, 32)
    # Red and green change places at the same luminance.
    crops = 0.5 + torch.stack([wave, -wave * 0.299 / 0.587, torch.zeros_like(wave)], dim=1)
    left = (changed_by(crops, color=0.5)[:, 0] - changed_by(crops, color=0.5)[:, 0].roll(1, 2)).abs().amax(dim=(1, 2))
    # A saturation from -0.5, which is nought, to 2.5, under a light of half to one and a half.
    assert 0.1 < (left < 1e-5).double().mean() < 0.24
    assert 0.2 < left.max() < 0.1 * 2.5 * 1.5


def test_as_many_crops_are_softened_as_is_said_and_stay_as_bright() -> None:
    crops = rough()
    changed = changed_by(crops, soft=0.35)
    soft = (changed - crops).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert 0.2 < soft.double().mean() < 0.42
    assert (changed.std(dim=(1, 2, 3)) < crops.std(dim=(1, 2, 3)))[soft].all()
    torch.testing.assert_close(changed.mean(dim=(2, 3)), crops.mean(dim=(2, 3)), atol=0.02, rtol=0)


def test_noise_is_of_half_of_the_crops_and_grey_in_half_of_these() -> None:
    noise = changed_by(even(), noise=0.07) - 0.5
    strength = noise.std(dim=(1, 2, 3))
    noisy = strength > 1e-6
    assert 0.4 < noisy.double().mean() < 0.6
    assert 0.06 < strength.max() < 0.075
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 0.01
    film = ((noise[:, :1] - noise).abs().amax(dim=(1, 2, 3)) < 1e-6)[noisy]
    assert 0.35 < film.double().mean() < 0.65


def test_filters_leave_brightness_and_add_no_contrast() -> None:
    """What a random filter makes is as bright and as rich in contrast as the crop: no mixture of both has more."""
    crops = rough()
    changed = changed_by(crops, filter=1.0)
    torch.testing.assert_close(changed.mean(dim=(2, 3)), crops.mean(dim=(2, 3)), atol=1e-3, rtol=0)
    share = changed.std(dim=(2, 3)) / crops.std(dim=(2, 3))
    assert share.max() < 1.001
    # As of a mixture with a weight of a half to what is unlike it.
    assert 0.6 < share.mean() < 0.95
    likeness = ((changed - crops).abs().mean(dim=(1, 2, 3)) / crops.std(dim=(2, 3)).mean(1)).sort().values
    assert likeness[10] < 0.1
    assert likeness[-10] > 0.8


def test_blocks_keep_an_even_picture_and_lose_the_finest_waves_first() -> None:
    for size in (32, 29):
        # At most half of the largest step of the mean of 64 pixels.
        assert (changed_by(even(size=size), blocks=1.0) - 0.5).abs().max() < 0.14 / 16
    place = torch.arange(32) + 0.5
    coarse, fine = (0.5 + 0.03 * torch.cos(torch.pi / 8 * place * n) for n in (1, 7))
    kept = [
        changed_by(wave.expand(200, 3, 32, 32), blocks=1.0)[:, 0, 0].std(dim=1) / wave.std() for wave in (coarse, fine)
    ]
    assert kept[0].median() > 0.9
    assert kept[1].median() < 0.1


def test_boxes_hide_a_part_and_frames_a_band_along_one_side() -> None:
    for change in ("erase", "frame"):
        crops = changed_by(even(), **{change: 1.0})
        hidden = ((crops - 0.5).abs() > 1e-3).any(dim=1)
        rows, columns = hidden.any(dim=2), hidden.any(dim=1)
        whole = rows.all(dim=1).int() + columns.all(dim=1).int()
        assert hidden.any(dim=(1, 2)).double().mean() > 0.95
        assert hidden.double().mean(dim=(1, 2)).max() < 0.42
        if change == "erase":
            assert (whole == 0).all()
            continue
        assert (whole == 1).all()
        assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])
        for side in (rows[:, 0], rows[:, -1], columns[:, 0], columns[:, -1]):
            # Hidden by a band of its own once in four, and by the end of one across it once in two.
            assert 0.65 < side.double().mean() < 0.85
        for picture, mask in zip(crops, hidden, strict=True):
            assert (picture[:, mask] == picture[:, mask][:, :1]).all()


def test_surroundings_are_anothers_or_one_colour_and_end_at_the_face() -> None:
    values = torch.linspace(0.1, 0.9, 200).view(200, 1, 1, 1)
    crops = values.expand(200, 3, 32, 32)
    changed = changed_by(crops, surround=1.0)
    same = ((changed - crops).abs() < 1e-4).all(dim=1)
    assert same[:, 6:26, 6:26].all()
    # Each side is hidden three times in four, and by at least a pixel of these in all but a tenth.
    for side in (same[:, 16, 0], same[:, 16, -1], same[:, 0, 16], same[:, -1, 16]):
        assert 0.2 < side.double().mean() < 0.45
    # A corner is hidden where either of its sides is.
    assert same[:, 0, 0].double().mean() < 0.2
    others = ((changed - crops.roll(1, 0)).abs() < 1e-4).all(dim=1)
    assert 0.35 < (others[:, 0, 0] | same[:, 0, 0]).double().mean() < 0.7
    assert (changed_by(crops, surround=0.3) == changed_by(crops)).all(dim=(1, 2, 3)).double().mean() > 0.6


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
