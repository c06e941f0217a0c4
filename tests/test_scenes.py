"""Scenes: sprites are the person alone, labels are true, all follows from the seed, and a head detector learns."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from nlml_hpe.detection.heads import Head, HeadDetector
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import read_manifest
from nlml_hpe.head_network.config import HeadTrainerConfig, RefinementTrainerConfig
from nlml_hpe.head_network.losses import Heads, generalised_iou, head_loss, targets_of
from nlml_hpe.head_network.network import ANSWERS, STRIDE, HeadNetwork, found_of
from nlml_hpe.head_network.network_training import (
    LARGEST_SHARE,
    ONNX,
    SMALLEST_PX,
    WEIGHTS,
    DrawnScenes,
    heads_of,
    initial_head_network,
    view_of,
)
from nlml_hpe.head_network.proposals import REFINEMENT_FILE
from nlml_hpe.head_network.refinement import RefinementNetwork
from nlml_hpe.image_networks.network import WeightsError
from nlml_hpe.image_networks.shards import read_shards, write_shard
from nlml_hpe.inference.heads import HeadSearch
from nlml_hpe.inference.refinement import HeadRefiner
from nlml_hpe.model.eight_bits import quantize_head_detector
from nlml_hpe.model.head_export import export_head_detector
from renderer.config import HeadsConfig, ScenesConfig, SpritesConfig
from renderer.scenes import Scene, Scenes
from renderer.sprites import KIND, SpriteSet
from stages import HeadTrainer, RefinementTrainer, Sprites
from stages.common import Workdir, run_stage
from stages.config import Config

SMALL = SpritesConfig(crops_per_person=4, size=96, people_per_shard=1)
SCENES = ScenesConfig(size=96, empty=0.0)
TRAINER = HeadTrainerConfig(
    epochs=2, training_scenes=8, validation_scenes=4, batch_size=4, views=2, width=8, view_px=64
)
REFINER = RefinementTrainerConfig(epochs=1, training_scenes=4, validation_scenes=2, batch_size=2, width=8)


@pytest.fixture(scope="module")
def states() -> defaultdict[str, set[int]]:
    """Of the random numbers that every scene was drawn by while ``config`` was made, by the sprites' folder."""
    return defaultdict(set)


@pytest.fixture(scope="module")
def config(kit_of_few: Path, tmp_path_factory: pytest.TempPathFactory, states: defaultdict[str, set[int]]) -> Config:
    """Sprites of two people and one, and a network trained on their scenes for two short epochs."""
    heads = HeadsConfig(source="ict_facekit", folder=kit_of_few, train=2, validation=1)
    made = Config(
        workdir=tmp_path_factory.mktemp("heads"),
        seed=5,
        workers=1,
        heads=heads,
        sprites=SMALL,
        scenes=SCENES,
        head_trainer=TRAINER,
        refinement_trainer=REFINER,
    )
    draw = Scenes.draw

    def noted(scenes: Scenes, rng: np.random.Generator) -> Scene:
        states[scenes.folder.name].add(rng.bit_generator.state["state"]["state"])
        return draw(scenes, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scenes, "draw", noted)
        for stage in (Sprites, HeadTrainer, RefinementTrainer):
            run_stage(stage.STAGE, made)
    return made


def test_scenes_that_are_held_out_are_drawn_by_other_random_numbers(
    config: Config, states: defaultdict[str, set[int]]
) -> None:
    """They had the backgrounds of those that were learned from, and as many heads, at the same places."""
    assert len(states["sprites_validation"]) == TRAINER.validation_scenes
    assert not states["sprites_validation"] & states["sprites_train"]


@pytest.fixture(scope="module")
def scenes(config: Config) -> Scenes:
    return Sprites.scenes_of(config, "train")


def drawn(scenes: Scenes, *seed: int) -> Scene:
    return scenes.draw(np.random.default_rng(seed))


def test_a_sprite_is_the_person_alone_and_its_box_lies_on_the_head(config: Config) -> None:
    for shard in read_shards(Workdir(config.workdir).sprites_train):
        assert shard.alpha is not None
        for image, alpha, box in zip(shard.images, shard.alpha, shard.boxes, strict=True):
            assert (image <= alpha[..., None].astype(int) + 1).all()  # multiplied already, but for rounding
            assert not alpha[0, [0, -1]].any()
            left, top, right, bottom = box.round().astype(int)
            assert (alpha[top:bottom, left:right] > 127).mean() > 0.5
            assert max(box[2] - box[0], box[3] - box[1]) == pytest.approx(96 / SMALL.share, rel=1e-3)


def test_the_box_of_a_head_holds_its_face_and_hardly_depends_on_the_pose(config: Config) -> None:
    """Its sides are those of a skull with its face, 0.18 by 0.23 m, seen from anywhere near or far: between one and two
    and a half times the face's, and never twice as long as wide."""
    for shard in read_shards(Workdir(config.workdir).sprites_train):
        assert shard.heads is not None
        assert (shard.heads[:, :2] <= shard.boxes[:, :2] + 1e-3).all()
        assert (shard.heads[:, 2:] >= shard.boxes[:, 2:] - 1e-3).all()
        sides = shard.heads[:, 2:] - shard.heads[:, :2]
        ratio = sides.max(axis=1) / (shard.boxes[:, 2:] - shard.boxes[:, :2]).max(axis=1)
        assert ((ratio > 1) & (ratio < 2.5)).all()
        assert (sides.max(axis=1) < 2 * sides.min(axis=1)).all()


def test_sprites_without_the_boxes_of_heads_are_refused(config: Config, tmp_path: Path) -> None:
    for number, shard in enumerate(read_shards(Workdir(config.workdir).sprites_train)):
        write_shard(tmp_path, number, replace(shard, heads=None))
    with pytest.raises(ArtifactError, match="run Sprites again"):
        drawn(Scenes(tmp_path, SCENES), 0)


def test_sprites_that_were_written_anew_are_seen_by_a_process_that_has_drawn_of_those_before(
    config: Config, tmp_path: Path
) -> None:
    heads = config.heads.model_copy(update={"train": 1})
    one, other = (config.model_copy(update={"workdir": tmp_path, "heads": heads, "seed": seed}) for seed in (1, 2))
    run_stage(Sprites.STAGE, one)
    before = drawn(Sprites.scenes_of(one, "train"), 5)
    run_stage(Sprites.STAGE, other)
    assert not np.array_equal(drawn(Sprites.scenes_of(other, "train"), 5).image, before.image)


def test_sprites_are_an_artefact_of_their_own_kind_and_up_to_date(config: Config) -> None:
    manifest = read_manifest(Workdir(config.workdir).sprites_train, KIND)
    assert (manifest["facts"]["crops"], manifest["facts"]["side_over_box"]) == (8, SMALL.share)
    assert Sprites.STAGE.plan(config).is_current()
    other = config.model_copy(update={"sprites": SMALL.model_copy(update={"share": 3.0})})
    assert not Sprites.STAGE.plan(other).is_current()
    assert Sprites.STAGE.plan(config).pictures == (config.workdir / "scenes_sheet.jpg",)
    assert config.workdir.joinpath("scenes_sheet.jpg").is_file()


def test_a_scene_follows_from_its_seed(scenes: Scenes) -> None:
    for first, second in zip(drawn(scenes, 3), drawn(scenes, 3), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (drawn(scenes, 3).image != drawn(scenes, 4).image).any()


def test_heads_of_a_scene_lie_in_it_and_count_where_they_are_seen(scenes: Scenes) -> None:
    some = [drawn(scenes, 0, number) for number in range(60)]
    assert max(len(scene.boxes) for scene in some) > 2
    for scene in some:
        middle = (scene.face_boxes[:, :2] + scene.face_boxes[:, 2:]) / 2
        assert ((middle > -1) & (middle < 97)).all()
        assert (scene.boxes[:, :2] <= scene.face_boxes[:, :2] + 0.01).all()
        longest = (scene.face_boxes[:, 2:] - scene.face_boxes[:, :2]).max(axis=1, initial=0)
        assert not scene.counts[(longest < SCENES.smallest_px) | (scene.visible < 0.35)].any()
        np.testing.assert_allclose(np.linalg.det(scene.rotations), 1, atol=1e-5)


def test_a_mirrored_sprite_has_the_mirrored_rotation_and_box(kit_of_few: Path, tmp_path: Path) -> None:
    """A face turned to one side and its mirror image: the box leads to the same side as the nose does."""
    heads = HeadsConfig(source="ict_facekit", folder=kit_of_few, train=1, validation=1)
    turned = SMALL.model_copy(update={"around": 0.0, "wide": 0.0, "spread_deg": (60.0, 5.0, 5.0)})
    crops = SpriteSet(heads, turned, 1, "train", kit_of_few.parent / "cache").of_person(1)
    for crop in crops:
        assert crop.alpha is not None
        across = np.arange(96) + 0.5
        middle = float((crop.alpha[:48].sum(axis=0) * across).sum() / crop.alpha[:48].sum())
        ahead = crop.rotation[0, 2]  # to image right where the face looks there
        if abs(ahead) > 0.5:
            assert np.sign(float(crop.box[[0, 2]].mean()) - middle) == np.sign(ahead)


def test_without_heads_a_scene_has_no_label(config: Config) -> None:
    empty = Scenes(Workdir(config.workdir).sprites_train, SCENES.model_copy(update={"empty": 1.0}))
    assert drawn(empty, 0).boxes.shape == (0, 4)
    heads = heads_of([drawn(empty, 0), drawn(empty, 1)])
    assert (heads.kinds == -1).all()
    assert torch.isfinite(head_loss(torch.zeros(2, ANSWERS, 12, 12), heads))


def test_sprites_that_are_missing_are_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no crops"):
        drawn(Scenes(tmp_path, SCENES), 0)


def test_validation_views_are_always_the_same_and_training_views_never(scenes: Scenes) -> None:
    data, numbers = DrawnScenes(scenes, 4, 7, size=64, views=3), np.arange(2)
    (first, heads), (second, _) = data.batch(numbers, None), data.batch(numbers, None)
    assert first.equal(second)
    assert first.shape == (6, 3, 64, 64)
    assert heads.boxes.shape[:2] == heads.kinds.shape
    other, _ = data.batch(numbers, np.random.default_rng(1))
    assert not other.equal(first)


def white_head(left: float, top: float, right: float, bottom: float) -> Scene:
    """A scene of 192 pixels whose one head is a white square."""
    image = np.zeros((192, 192, 3), np.uint8)
    image[int(top) : int(bottom), int(left) : int(right)] = 255
    box = np.array([[left, top, right, bottom]], dtype=np.float32)
    return Scene(image, box, box, np.ones(1, bool), np.ones(1, np.float32), np.eye(3, dtype=np.float32)[None])


def test_the_box_lies_on_the_head_in_every_view_that_asks_for_it() -> None:
    scene, rng, asked = white_head(80, 60, 120, 108), np.random.default_rng(0), 0
    for _ in range(40):
        view = view_of(scene, 128, rng)
        assert view.image.shape == (128, 128, 3)
        if not view.counts.any():
            continue
        asked += 1
        rows, columns = np.nonzero(view.image.max(axis=2) > view.image.max() / 2)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # Within two pixels of the edge that interpolation and blur leave, and cut where the view ends.
        np.testing.assert_allclose(seen, view.boxes[0].clip(0, 128), atol=2.5)
        np.testing.assert_array_equal(view.boxes, view.face_boxes)
    assert asked > 20


def test_a_view_asks_for_no_head_that_another_copy_shows_smaller() -> None:
    rng = np.random.default_rng(0)
    views = [view_of(white_head(20, 20, 180, 170), 128, rng) for _ in range(20)]
    assert not any(view.counts.any() for view in views)  # 160 of 192 pixels are 106 or more of 128
    assert any(len(view.boxes) for view in views)


def test_heads_of_all_sizes_are_shown_that_are_to_be_found() -> None:
    """A head of 60 of 192 pixels, in views of 64: of 20 to 50 pixels where the view allows it."""
    rng = np.random.default_rng(0)
    views = [view_of(white_head(60, 60, 120, 120), 64, rng) for _ in range(200)]
    sides = np.concatenate([(view.boxes[:, 2] - view.boxes[:, 0])[view.counts] for view in views])
    assert len(sides) > 100
    assert (sides.min(), sides.max()) == pytest.approx((SMALLEST_PX, LARGEST_SHARE * 64), abs=2.5)


def test_a_score_is_to_be_lower_where_the_box_is_worse() -> None:
    """Two answers with the same doubt about the head: the one whose box is off is blamed for a high score, too."""
    box = torch.tensor([[[24.0, 24.0, 56.0, 56.0]]])
    heads = Heads(box, box, torch.ones(1, 1))

    def slope(shift: float) -> float:
        outputs = torch.zeros(1, ANSWERS, 10, 10)
        outputs[:, 0] = -6
        outputs[:, 3:5] = math.log(4)
        outputs[:, 1] = shift
        logit = torch.tensor(0.5, requires_grad=True)
        outputs = torch.cat(
            [outputs[:, :1].index_put((*torch.tensor([[0], [0], [5], [5]]),), logit), outputs[:, 1:]], 1
        )
        (gradient,) = torch.autograd.grad(head_loss(outputs, heads), logit)
        return float(gradient)

    assert slope(0.0) < 0 < slope(3.0)


def test_a_perfect_answer_has_hardly_any_loss() -> None:
    boxes = torch.tensor([[[16.0, 24.0, 48.0, 72.0], [60.0, 20.0, 84.0, 44.0]]])
    heads = Heads(boxes, boxes + torch.tensor([2.0, 8, -6, 0]), torch.ones(1, 2))
    targets = targets_of(heads, 12, 12)
    logits = torch.logit(targets.heat, eps=1e-6)
    middle, face_middle = ((box[..., :2] + box[..., 2:]) / 2 for box in (targets.box, targets.face_box))
    sides, face_sides = ((box[..., 2:] - box[..., :2]).clamp_min(1e-3) for box in (targets.box, targets.face_box))
    place = torch.arange(12) + 0.5
    offset = [middle[..., 0] / STRIDE - place, middle[..., 1] / STRIDE - place[:, None]]
    face = [(face_middle - middle) / sides, torch.log(face_sides / sides)]
    rest = [each[..., axis] for each in (torch.log(sides / STRIDE), *face) for axis in (0, 1)]
    outputs = torch.stack([logits, *offset, *rest], dim=1)
    assert head_loss(outputs, heads).item() < 1e-3
    answered = found_of(outputs).boxes[targets.answers]
    assert answered == pytest.approx(targets.box[targets.answers], abs=1e-3)
    answered = found_of(outputs).face_boxes[targets.answers]
    assert answered == pytest.approx(targets.face_box[targets.answers], abs=1e-3)
    for number in (1, 5):
        worse = outputs.clone()
        worse[:, number] += 1
        assert head_loss(worse, heads) > head_loss(outputs, heads) + 0.1


def test_a_head_that_may_be_found_costs_nothing_either_way() -> None:
    box = torch.tensor([[[40.0, 40.0, 56.0, 56.0]]])
    maybe = Heads(box, box, torch.zeros(1, 1))
    nothing = torch.zeros(1, ANSWERS, 12, 12)
    nothing[:, 0] = -12
    said = nothing.clone()
    said[:, 0, 6, 6] = said[:, 0, 6, 5] = 5  # the cell of its middle, and one beside it
    assert head_loss(said, maybe).item() == pytest.approx(head_loss(nothing, maybe).item(), abs=1e-6)
    said[:, 0, 6, 9] = 5
    assert 1 < head_loss(said, maybe) < 1000, "a batch without a head to be found has a loss, too"
    # Where one that is to be found lies, too, the cell of its middle counts.
    counted = targets_of(Heads(box.repeat(1, 2, 1), box.repeat(1, 2, 1), torch.tensor([[1.0, 0.0]])), 12, 12).counts[0]
    assert (counted[6, 6], counted[6, 5], counted[0, 0]) == (True, False, True)


def test_cells_beside_the_middle_of_a_small_head_answer_for_it_too() -> None:
    box = torch.tensor([[[40.0, 40.0, 52.0, 52.0]]])
    targets = targets_of(Heads(box, box, torch.ones(1, 1)), 12, 12)
    assert targets.answers[0].nonzero().tolist() == [[4, 5], [5, 4], [5, 5], [5, 6], [6, 5]]


def test_a_box_learns_from_any_distance_most_by_the_middle_and_by_nothing_that_its_score_says() -> None:
    box = torch.tensor([[[24.0, 24.0, 56.0, 56.0]]])

    def loss_and_slope(shift: float, logit: float, column: int = 5, images: int = 1) -> tuple[float, float]:
        outputs = torch.zeros(images, ANSWERS, 10, 10)
        outputs[:, 3:5], outputs[:, 0] = math.log(4), logit
        moved = torch.tensor(shift, requires_grad=True)
        cell = torch.tensor([5]), torch.tensor([column])
        outputs = outputs.index_put((torch.arange(images), torch.tensor([1]), *cell), moved)
        # The box of the face stays where it is.
        outputs = outputs.index_put((torch.arange(images), torch.tensor([5]), *cell), -moved / 4)
        loss = head_loss(outputs, Heads(*[box.repeat(images, 1, 1)] * 2, torch.ones(images, 1)))
        (slope,) = torch.autograd.grad(loss, moved)
        return loss.item(), slope.item()

    far, near = loss_and_slope(9.0, 0.0), loss_and_slope(6.0, 0.0)
    assert far[0] > near[0]
    assert min(far[1], near[1]) > 0.01
    assert loss_and_slope(1.0, 3.0)[1] == pytest.approx(loss_and_slope(1.0, 0.0)[1], rel=1e-5)
    # Of the cell beside it the same box is as far off, and counts less.
    assert loss_and_slope(1.0, 0.0)[1] > 1.3 * loss_and_slope(2.0, 0.0, column=4)[1] > 0
    assert loss_and_slope(1.0, 0.0, images=3)[0] == pytest.approx(loss_and_slope(1.0, 0.0)[0], rel=1e-5)


def test_generalised_iou_of_known_boxes() -> None:
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert generalised_iou(one, one).item() == pytest.approx(1)
    assert generalised_iou(one, torch.tensor([[2.0, 0.0, 6.0, 4.0]])).item() == pytest.approx(8 / 24)


def test_onnx_answers_as_torch_does_on_a_picture_of_any_size(config: Config, tmp_path: Path) -> None:
    """Both with the weights as stored, in half precision: what is left is the order of sums."""
    network = HeadNetwork(TRAINER.width).eval()
    network.load_state_dict(load_file(Workdir(config.workdir).head_network / WEIGHTS))
    for value in network.parameters():
        if value.numel() >= 1000:
            value.data = value.data.half().float()
    session = onnxruntime.InferenceSession(export_head_detector(network, tmp_path / ONNX))
    for shape in ((1, 64, 96, 3), (2, 128, 32, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        scores, boxes, face_boxes = session.run(None, {"images": images})
        with torch.inference_mode():
            found = found_of(network(torch.from_numpy(images).permute(0, 3, 1, 2)))
        np.testing.assert_allclose(boxes, found.boxes.numpy(), atol=1e-3)
        np.testing.assert_allclose(face_boxes, found.face_boxes.numpy(), atol=1e-3)
        kept = scores > 0
        np.testing.assert_allclose(scores[kept], torch.sigmoid(found.logits).numpy()[kept], atol=1e-5)
        assert 0 < kept.mean() < 0.5  # neighbours of a greater score are nought


def test_the_trained_folder_is_up_to_date_and_says_its_size(config: Config) -> None:
    manifest = read_manifest(Workdir(config.workdir).head_network, "head_network")
    assert manifest["facts"]["parameters"] == sum(value.numel() for value in HeadNetwork(8).parameters())
    assert HeadTrainer.STAGE.plan(config).is_current()


def test_both_networks_depend_on_what_their_scenes_are_drawn_before(config: Config, tmp_path: Path) -> None:
    """The sprites themselves do not show it: they have nothing behind them."""
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((99, 99, 3), 200, np.uint8))
    walls = config.model_copy(update={"sprites": SMALL.model_copy(update={"backgrounds": tmp_path})})
    for stage in (HeadTrainer.STAGE, RefinementTrainer.STAGE):
        assert stage.plan(config).is_current()
        before = stage.plan(walls)
        assert not before.is_current()
        cv2.imwrite(str(tmp_path / f"{stage.name}.png"), np.full((99, 99, 3), 200, np.uint8))
        assert stage.plan(walls).inputs != before.inputs


def test_the_second_stage_is_trained_on_what_the_first_proposes(config: Config, scenes: Scenes) -> None:
    folder = Workdir(config.workdir).refinement_network
    manifest = read_manifest(folder, "refinement_network")
    assert manifest["facts"]["parameters"] == sum(value.numel() for value in RefinementNetwork(8).parameters())
    assert {"sprites_train", "sprites_validation", "head_network"} <= manifest["inputs"].keys()
    assert RefinementTrainer.STAGE.plan(config).is_current()
    box = (10.0, 10.0, 40.0, 40.0)
    (head,) = HeadRefiner(folder / REFINEMENT_FILE).refine(drawn(scenes, 1).image, [Head(box, box, 0.5)])
    assert 0 < head.score < 1
    gone = REFINER.model_copy(update={"image_network": folder / "none"})
    with pytest.raises(ArtifactError, match=r"no such file; correct refinement_trainer\.image_network"):
        RefinementTrainer.plan(config.model_copy(update={"refinement_trainer": gone}))


def test_both_stages_are_found_in_the_folder_of_the_second(config: Config, scenes: Scenes) -> None:
    work, image = Workdir(config.workdir), drawn(scenes, 1).image
    search = HeadSearch(work.refinement_network / ONNX)
    assert search.detector.find(image, 0.0) == HeadDetector(work.head_network / ONNX).find(image, 0.0)
    box = (10.0, 10.0, 40.0, 40.0)
    proposed = [Head(box, box, 0.5)]
    own = HeadRefiner(work.refinement_network / REFINEMENT_FILE).refine(image, proposed)
    assert search.refiner.refine(image, proposed) == own
    assert own != HeadRefiner().refine(image, proposed)  # which is what they would be refined by, were it not there


def test_a_training_may_begin_with_weights_and_those_of_another_network_are_refused(config: Config) -> None:
    file = Workdir(config.workdir).head_network / WEIGHTS
    begun = initial_head_network(TRAINER.model_copy(update={"weights": file}), seed=9)
    for name, value in load_file(file).items():
        assert begun.state_dict()[name].equal(value), name
    with pytest.raises(WeightsError, match="weights of another network"):
        initial_head_network(TRAINER.model_copy(update={"weights": file, "width": 10}), seed=9)
    gone = config.model_copy(update={"head_trainer": TRAINER.model_copy(update={"weights": file / "none"})})
    with pytest.raises(ArtifactError, match=r"no such file; correct head_trainer\.weights"):
        HeadTrainer.plan(gone)


def test_in_eight_bits_the_answers_are_nearly_the_same(config: Config, tmp_path: Path) -> None:
    """Boxes to a tenth of their sides: seven bits of weights and eight of activations, through eight layers."""
    network = HeadNetwork(TRAINER.width).eval()
    network.load_state_dict(load_file(Workdir(config.workdir).head_network / WEIGHTS))
    whole = export_head_detector(network, tmp_path / "whole.onnx")
    images, _ = DrawnScenes(Sprites.scenes_of(config, "train"), 8, 0, size=64).batch(np.arange(8), None)
    pictures = images.permute(0, 2, 3, 1).numpy()
    small = quantize_head_detector(whole, pictures, tmp_path / "small.onnx")
    assert {node.op_type for node in onnx.load(small).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    first, second = onnxruntime.InferenceSession(whole), onnxruntime.InferenceSession(small)
    assert first.get_modelmeta().custom_metadata_map == second.get_modelmeta().custom_metadata_map
    (_, exact, _), (_, rounded, _) = (each.run(None, {"images": pictures}) for each in (first, second))
    sides = exact[..., 2:] - exact[..., :2]
    assert np.abs(exact - rounded).mean() < 0.1 * sides.mean()


def test_a_picture_is_not_changed_by_what_is_laid_into_the_next(scenes: Scenes) -> None:
    """Memory-mapped sprites are read, never written."""
    before = [shard.images.sum() for shard in read_shards(scenes.folder)]
    for number in range(10):
        assert cv2.mean(drawn(scenes, 9, number).image)[0] >= 0
    assert [shard.images.sum() for shard in read_shards(scenes.folder)] == before
