"""Crops: boxes and rotations are true, people are seeded, a killed run goes on, bad input is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.folders import begun_folder, partial_of
from nlml_hpe.files.manifests import digest_of, read_manifest
from nlml_hpe.image_networks.crop import STORED_SHARE
from nlml_hpe.image_networks.shards import Shard, gathered, is_written, read_shards, write_shard
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, Angles, angles_from_rotation, kabsch, rotation_from_angles
from renderer import crops as rendering
from renderer.config import CropsConfig, HeadsConfig, LooksConfig
from renderer.crop_drawing import Crop, draw_crop, draw_poses
from renderer.crop_people import Person, draw_person, small_kit
from renderer.crop_scene import MOST_PICTURES, BackgroundError, _lay, draw_background, pictures
from renderer.crops import KIND, CropSet, render_splits
from renderer.heads import HeadDataError
from renderer.heads.ict_kit import Kit
from renderer.painting import _blend, _lay_chart
from stages import Crops
from stages.common import Workdir, run_stage
from stages.config import Config

TINY = CropsConfig(crops_per_person=4, faces=2, people_per_shard=1, size=48)
PLAIN = LooksConfig(bald=1, long_hair=0, beard=0, makeup=0, glasses=0, sunglasses=0, head_covering=0, face_mask=0)


@pytest.fixture(scope="module")
def folder(kit_of_few: Path) -> Path:
    return kit_of_few


def people(folder: Path, split: rendering.Split = "train", crops: CropsConfig = TINY, **heads: object) -> CropSet:
    config = HeadsConfig(source="ict_facekit", folder=folder, **{"train": 2, "validation": 1, **heads})
    return CropSet(config, crops, 5, split, folder.parent / "cache")


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


def plain_person(folder: Path) -> Person:
    kit = small_kit(Kit.open(folder, folder.parent / "cache" / "ict_facekit.npz"))
    heads = HeadsConfig(source="ict_facekit", folder=folder, looks=PLAIN, expressions=())
    return draw_person(kit, heads, 1, pictures(None), np.random.default_rng(1))


def test_every_crop_holds_its_box_in_its_middle(folder: Path) -> None:
    for crop in people(folder).of_person(1):
        assert crop.image.shape == (48, 48, 3)
        assert crop.image.dtype == np.uint8
        left, top, right, bottom = crop.box
        np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], 24, atol=1e-3)
        assert max(right - left, bottom - top) == pytest.approx(48 / STORED_SHARE, rel=1e-4)
        np.testing.assert_allclose(crop.rotation @ crop.rotation.T, np.eye(3), atol=1e-9)


def test_people_are_seeded_and_differ(folder: Path) -> None:
    first, again, other = (people(folder).of_person(number) for number in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.rotation, two.rotation)
    assert all((one.image != two.image).mean() > 0.5 for one, two in zip(first, other, strict=True))


def test_no_validation_person_trains_and_one_more_person_renumbers_nobody(folder: Path) -> None:
    train, validation = (people(folder, split).people() for split in ("train", "validation"))
    assert not set(train) & set(validation)
    more = people(folder, "validation", train=3, validation=2)
    assert more.people()[: len(validation)] == validation


def test_poses_keep_to_their_limits_and_density() -> None:
    config = CropsConfig(crops_per_person=4000, wide=0.0, spread_deg=(30, 10, 10))
    angles = angles_from_rotation(draw_poses(config, np.random.default_rng(0))).columns()
    # 4,000 draws know a standard deviation to about 1%; what lies beyond 90 degrees of yaw folds.
    np.testing.assert_allclose(angles[np.abs(angles).max(axis=1) < 85].std(axis=0), [29.5, 10, 10], rtol=0.06)
    wide = draw_poses(CropsConfig(crops_per_person=4000, wide=1.0), np.random.default_rng(0))
    # Beyond 90 degrees of yaw the face looks away from the camera: a tenth of even draws to 100 degrees.
    away = ((wide[:, 2, 2] < 0) & (np.abs(wide[:, 0, 2]) > 0.17)).mean()
    assert 0.05 < away < 0.2
    turned = draw_poses(config.model_copy(update={"around": 0.5}), np.random.default_rng(0))
    # Half of 4,000 heads lie evenly on the circle, so a quarter of all look away; the others hardly ever do.
    assert 0.22 < (turned[:, 2, 2] < 0).mean() < 0.28


@pytest.mark.parametrize("pose", [(35.0, 0.0, 0.0), (-35.0, 0.0, 0.0), (0.0, 20.0, 0.0), (0.0, -20.0, 20.0)])
def test_a_face_is_seen_at_the_rotation_of_its_label(
    folder: Path, detector: FaceMeshOnnx, pose: tuple[float, float, float]
) -> None:
    """A detector that was trained on photographs sees the head turn by the angles that the label says."""
    person = plain_person(folder)
    config = CropsConfig(size=256, occluded=0)
    rng = np.random.default_rng(2)
    seen = []
    for angles in ((0.0, 0.0, 0.0), pose):
        rotation = rotation_from_angles(Angles.from_columns(angles))
        crop = draw_crop(person, person.takes[0], rotation, config, pictures(None), rng)
        seen.append(detector.detect(crop.image)[0].points @ IMAGE_FROM_CAMERA)
    # As for the renderer of images: the detector's own error at such poses is 3 to 6 degrees.
    np.testing.assert_allclose(angles_from_rotation(kabsch(*seen)[0]).columns(), pose, atol=8.0)


def test_a_run_that_was_killed_goes_on_and_ends_the_same(folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    render_splits([(people(folder), whole)], workers=1)
    partial = begun_folder(broken, KIND, digest_of([people(folder).settings(), people(folder).inputs()]))
    rendering._render_shard(people(folder), broken, 0, [1])
    assert is_written(partial, 0)
    kept = (partial / "images_00000.npy").stat().st_ino
    render_splits([(people(folder), broken)], workers=1)
    assert shards_of(broken) == shards_of(whole)
    assert (broken / "images_00000.npy").stat().st_ino == kept
    facts = read_manifest(broken, KIND)["facts"]
    assert (facts["crops"], facts["people"], facts["split"]) == (8, 2, "train")
    assert not partial_of(broken).exists()


def test_a_run_of_two_splits_that_was_killed_goes_on_with_both(folder: Path, tmp_path: Path) -> None:
    splits = [(people(folder, split), tmp_path / split) for split in ("train", "validation")]
    for split, place in splits:
        begun_folder(place, KIND, digest_of([split.settings(), split.inputs()]))
    train, place = splits[0]
    for number, numbers in enumerate(train.shards()):
        rendering._render_shard(train, place, number, numbers)
    kept = (partial_of(place) / "images_00001.npy").stat().st_ino
    render_splits(splits, workers=1)
    assert (place / "images_00001.npy").stat().st_ino == kept
    assert [read_manifest(place, KIND)["facts"]["people"] for _, place in splits] == [2, 1]


@pytest.mark.parametrize("stopped", ["note", "disk"])
def test_a_run_that_is_stopped_at_its_very_end_renders_nothing_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    """By a note that came into the folder of before, or by a disk that is full when the manifest is written."""
    place, note = tmp_path / "crops", tmp_path / "crops" / "note.txt"
    render_splits([(people(folder, train=1), place)], workers=1)
    real = rendering.write_manifest

    def disturbed(*arguments: Any) -> Path:
        if stopped == "disk":
            raise OSError(28, "No space left on device")
        note.write_text("mine")
        return real(*arguments)

    monkeypatch.setattr(rendering, "write_manifest", disturbed)
    with pytest.raises((ArtifactError, OSError), match=r"note\.txt|No space"):
        render_splits([(people(folder), place)], workers=1)
    monkeypatch.setattr(rendering, "write_manifest", real)
    rendered = (partial_of(place) / "images_00001.npy").stat().st_mtime_ns
    note.unlink(missing_ok=True)
    render_splits([(people(folder), place)], workers=1)
    assert (place / "images_00001.npy").stat().st_mtime_ns == rendered
    assert not partial_of(place).exists()
    assert not list(place.glob(".*"))


def test_a_split_that_is_finished_is_not_rendered_again_for_the_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = [(people(folder, split), tmp_path / split) for split in ("train", "validation")]
    real = rendering.write_manifest

    def stopped(place: Path, *arguments: Any) -> Path:
        if place == partial_of(tmp_path / "validation"):
            raise KeyboardInterrupt
        return real(place, *arguments)

    monkeypatch.setattr(rendering, "write_manifest", stopped)
    with pytest.raises(KeyboardInterrupt):
        render_splits(splits, workers=1)
    monkeypatch.setattr(rendering, "write_manifest", real)
    images = [place / "images_00000.npy" for place in (tmp_path / "train", partial_of(tmp_path / "validation"))]
    rendered = [path.stat().st_mtime_ns for path in images]
    for again in (True, False):  # of what is finished a run is wanted anew
        render_splits(splits, workers=1)
        now = [(place / "images_00000.npy").stat().st_mtime_ns for _, place in splits]
        assert (now == rendered) is again


def test_other_settings_do_not_go_on_with_what_is_there(folder: Path, tmp_path: Path) -> None:
    write_shard(begun_folder(tmp_path / "crops", KIND, "another"), 0, some(4))
    render_splits([(people(folder), tmp_path / "crops")], workers=1)
    assert read_shards(tmp_path / "crops")[0].people.tolist() == [1] * 4


def test_a_worker_that_outlives_its_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    """As one of a cluster whose run was lost: its crops were taken for those of the run that came after."""
    place = tmp_path / "crops"
    begun_folder(place, KIND, people(folder, train=3).digest())
    with pytest.raises(ArtifactError, match="taken over by another run"):
        rendering._render_shard(people(folder), place, 0, [1])
    assert not is_written(partial_of(place), 0)
    render_splits([(people(folder, train=1), place)], workers=1)
    with pytest.raises(ArtifactError, match="or is finished"):
        rendering._render_shard(people(folder), place, 0, [1])
    assert not partial_of(place).exists()


def test_another_version_does_not_go_on_with_what_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_folder(tmp_path / "crops", KIND, digest_of([people(folder).settings(), people(folder).inputs()]))
    rendering._render_shard(people(folder), tmp_path / "crops", 0, [2])
    monkeypatch.setattr("nlml_hpe.files.folders.VERSION", "0.0.1")
    render_splits([(people(folder), tmp_path / "crops")], workers=1)
    assert read_shards(tmp_path / "crops")[0].people.tolist() == [1] * 4


def test_a_folder_with_the_users_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "thesis.txt").write_text("years")
    with pytest.raises(ArtifactError, match=r"thesis\.txt"):
        render_splits([(people(folder), tmp_path / "crops")], workers=1)
    assert (tmp_path / "crops" / "thesis.txt").read_text() == "years"


def test_the_stage_writes_both_splits_and_a_sheet(folder: Path, tmp_path: Path) -> None:
    heads = HeadsConfig(source="ict_facekit", folder=folder, train=2, validation=1)
    config = Config(workdir=tmp_path, seed=5, workers=1, heads=heads, crops=TINY)
    run_stage(Crops.STAGE, config)
    workdir = Workdir(tmp_path)
    assert [len(read_shards(place)) for place in (workdir.crops_train, workdir.crops_validation)] == [2, 1]
    sheet = (tmp_path / "crops_sheet.jpg").read_bytes()
    (tmp_path / "crops_sheet.jpg").unlink()
    run_stage(Crops.STAGE, config)
    assert (tmp_path / "crops_sheet.jpg").read_bytes() == sheet
    assert Crops.STAGE.plan(config).is_current()
    assert not Crops.STAGE.plan(config.model_copy(update={"seed": 6})).is_current()


def test_what_render_alone_looks_at_makes_no_crop_anew(folder: Path) -> None:
    settings = [people(folder, expression=share).settings() for share in (0.6, 0.1)]
    assert settings[0] == settings[1] != people(folder, expressions="all").settings()


def test_other_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadDataError, match="source is 'photo'"):
        CropSet(HeadsConfig(), TINY, 1, "train", tmp_path)


def test_the_kit_is_read_before_anything_is_begun(tmp_path: Path) -> None:
    """Each worker had read it for itself, and what was begun was left behind."""
    (tmp_path / "kit").mkdir()
    with pytest.raises(HeadDataError, match="no FaceXModel"):
        render_splits([(people(tmp_path / "kit"), tmp_path / "crops")], workers=1)
    assert not partial_of(tmp_path / "crops").exists()


def test_expressions_are_a_setting(folder: Path) -> None:
    """The shipped checkpoint's recipe keeps its eight shapes, whatever else the kit has by now."""
    kit = Kit.open(folder, folder.parent / "cache" / "ict_facekit.npz")
    usual = HeadsConfig(source="ict_facekit", folder=folder)
    assert kit.expressions(usual) == ("jawOpen", "mouthSmile_L", "mouthSmile_R")
    assert kit.expressions(usual.model_copy(update={"expressions": "all"})) == kit.expression_names


def test_no_picture_of_the_packages_has_a_face(detector: FaceMeshOnnx) -> None:
    found = pictures(None)
    assert len(found) >= 8
    faces = [face for picture in found for face in detector.detect(picture)]
    # The search in tiles, for faces below an eighth of a side, takes the motorcycle's headlamp for one.
    assert [face.found_by for face in faces] in ([], ["crop"])


def test_backgrounds_are_a_folder_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(BackgroundError, match="no pictures here"):
        pictures(tmp_path)
    red = tmp_path / "red"
    red.mkdir()
    cv2.imwrite(str(red / "wall.png"), np.full((900, 700, 3), (0, 0, 200), np.uint8))
    (picture,) = pictures(red)
    assert picture.shape == (640, 498, 3)
    assert (picture == (200, 0, 0)).all()
    with pytest.raises(BackgroundError, match="no such folder"):
        pictures(tmp_path / "rde")
    for number in range(MOST_PICTURES):
        (red / f"{number}.png").touch()
    with pytest.raises(BackgroundError, match="1001 pictures, which every worker would hold in memory; expected 1000"):
        pictures(red)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2000, 1), (20, 4000)])
def test_the_smallest_pictures_and_strips_are_backgrounds_too(tmp_path: Path, shape: tuple[int, int]) -> None:
    """As icons and rules among a user's photographs are: OpenCV ended a run over them, early or late."""
    cv2.imwrite(str(tmp_path / "rule.png"), np.full((*shape, 3), 90, np.uint8))
    found, rng = pictures(tmp_path), np.random.default_rng(0)
    assert all(draw_background(16, found, rng).shape == (16, 16, 3) for _ in range(50))


def test_a_background_holds_what_a_pixel_can() -> None:
    """Tints are as bright as 1.3 times a picture, and more."""
    rng, white = np.random.default_rng(0), [np.full((9, 9, 3), 255, np.uint8)]
    made = np.array([draw_background(16, white, rng) for _ in range(100)])
    assert made.min() >= 0
    assert made.max() == 255


def test_paint_lies_over_as_far_as_its_share_says() -> None:
    """From none to half to all of it, on a head's front, side (where a chart shows by half) and back."""
    share = np.tile(np.float32([0, 0.5, 1]), (3, 1))
    ink, bright = np.float32([200, 100, 40]), np.full((3, 3), 0.5, np.float32)
    under = np.full((3, 3, 3), 60, np.float32)
    _blend(painted := under.copy(), share, ink, bright)
    np.testing.assert_allclose(painted, under + share * (ink[:, None, None] / 2 - under))
    ahead = np.float32([[1, 1, 1], [0.5, 0.5, 0.5], [0, 0, 0]])
    drawn = np.concatenate([ink * share[..., None], share[..., None]], axis=2)
    _lay_chart(painted := under.copy(), drawn, ahead)
    np.testing.assert_allclose(painted, under + share * ahead * (ink[:, None, None] - under), rtol=1e-6)
    over = np.broadcast_to(ink, (3, 3, 3))
    _lay(laid := under.copy(), np.uint8([[0, 51, 255]] * 3), over)
    np.testing.assert_allclose(laid, under + np.float32([0, 0.2, 1])[:, None] * (over - under), rtol=1e-6)


def some(count: int, size: int = 8, first: int = 0) -> Shard:
    return Shard(
        np.full((count, size, size, 3), first, np.uint8),
        np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
        np.zeros((count, 4), np.float32),
        np.arange(first, first + count, dtype=np.int32),
    )


def test_crops_are_gathered_through_all_shards(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, some(3))
    write_shard(tmp_path, 1, some(2, first=3))
    shards = read_shards(tmp_path)
    assert gathered(shards, np.array([4, 0, 3])).people.tolist() == [4, 0, 3]
    assert len(gathered(shards, np.array([], dtype=int))) == 0
    for outside in (5, -1):
        with pytest.raises(IndexError, match=r"0\.\.4"):
            gathered(shards, np.array([0, outside]))
    trusted = replace(shards[0], confidence=np.ones(3, np.float32))
    assert gathered([trusted, shards[1]], np.array([0, 4])).confidence is None
    np.save(tmp_path / "rotations_00001.npy", shards[1].rotations.astype(np.float64))
    with pytest.raises(ArtifactError, match=r"rotations_00001\.npy: expected float32, found float64"):
        read_shards(tmp_path)


def test_a_shard_whose_writing_broke_off_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its confidences, every label that a model gave would count as certain."""
    trusted, alpha = np.full(3, 0.5, np.float32), np.full((3, 8, 8), 7, np.uint8)
    shard = replace(some(3), confidence=trusted, alpha=alpha, heads=some(3).boxes)
    save = np.save
    for room in range(7):
        left = iter(range(room))

        def full(*rest: Any, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise OSError("the disk is full")
            save(*rest)

        monkeypatch.setattr(np, "save", full)
        with pytest.raises(OSError, match="the disk is full"):
            write_shard(tmp_path, 0, shard)
        assert not is_written(tmp_path, 0)
    monkeypatch.undo()
    write_shard(tmp_path, 0, shard)
    (read,) = read_shards(tmp_path)
    for name in ("images", "rotations", "boxes", "people", "confidence", "alpha", "heads"):
        np.testing.assert_array_equal(getattr(read, name), getattr(shard, name))


def test_files_that_are_no_shard_are_named(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, some(3))
    copy = tmp_path / "people_00000 (copy).npy"
    copy.write_bytes((tmp_path / "people_00000.npy").read_bytes())
    with pytest.raises(ArtifactError, match=r"people_00000 \(copy\)\.npy: expected a name such as people_00007\.npy"):
        read_shards(tmp_path)
    copy.unlink()
    np.save(tmp_path / "images_00000.npy", np.zeros((3, 32, 32), np.uint8))
    with pytest.raises(ArtifactError, match=r"shape \(3, S, S, 3\), found \(3, 32, 32\), of square RGB images"):
        read_shards(tmp_path)


def test_a_damaged_shard_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run Crops first"):
        read_shards(tmp_path)
    write_shard(tmp_path, 0, some(3))
    images = tmp_path / "images_00000.npy"
    content = images.read_bytes()
    images.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="cut short"):
        read_shards(tmp_path)
    write_shard(tmp_path, 0, some(3))
    write_shard(tmp_path, 1, some(3, size=16))
    with pytest.raises(ArtifactError, match=r"\[8, 16\] px"):
        read_shards(tmp_path)
    write_shard(tmp_path, 1, Shard(some(2).images, some(3).rotations, some(3).boxes, some(3).people))
    with pytest.raises(ArtifactError, match=r"expected the shape \(3, 8, 8, 3\), found \(2, 8, 8, 3\)"):
        read_shards(tmp_path)
    write_shard(tmp_path, 1, some(3))
    content = images.read_bytes()
    images.write_bytes(content[:8] + b"(" + content[9:])  # what begins there is no header
    with pytest.raises(ArtifactError, match=r"images_00000\.npy is missing, damaged or cut short"):
        read_shards(tmp_path)
    images.write_bytes(content)
    (tmp_path / "boxes_00000.npy").unlink()
    with pytest.raises(ArtifactError, match="missing, damaged or cut short"):
        read_shards(tmp_path)


def test_a_kit_and_backgrounds_that_were_replaced_are_seen_by_a_process_that_has_read_them(
    folder: Path, tmp_path: Path
) -> None:
    """As workers of a cluster have, which outlive a run."""
    kit, walls = tmp_path / "FaceXModel", tmp_path / "walls"
    shutil.copytree(folder, kit)
    walls.mkdir()
    cv2.imwrite(str(walls / "wall.png"), np.full((640, 640, 3), 255, np.uint8))
    config = TINY.model_copy(update={"backgrounds": walls, "occluded": 0})

    def drawn() -> list[Crop]:
        return people(kit, crops=config).of_person(1)

    before = drawn()
    cv2.imwrite(str(walls / "wall.png"), np.zeros((600, 600, 3), np.uint8))
    dark = drawn()
    assert any((one.image != other.image).mean() > 0.2 for one, other in zip(before, dark, strict=True))
    np.testing.assert_array_equal([crop.box for crop in dark], [crop.box for crop in before])
    (kit / "identity000.obj").write_bytes((kit / "identity001.obj").read_bytes() + b"# another mode\n")
    assert not np.allclose([crop.box for crop in drawn()], [crop.box for crop in before])
