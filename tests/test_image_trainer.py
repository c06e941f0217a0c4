"""Training an image network: it learns, goes on after a kill, mixes data by weight, and says what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from nlml_hpe.config import FrameConfig
from nlml_hpe.evaluation.datasets import DatasetError, read_dataset, write_lists
from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import ImageReadError, read_image
from nlml_hpe.files.manifests import read_manifest, write_manifest
from nlml_hpe.image_networks import training_data
from nlml_hpe.image_networks.augment import PLAIN, reframed
from nlml_hpe.image_networks.config import (
    AugmentationConfig,
    ImageModelConfig,
    ImageNetworkConfig,
    ImageTrainerConfig,
    LabelledDataConfig,
    PseudoLabelConfig,
)
from nlml_hpe.image_networks.crop import crop
from nlml_hpe.image_networks.losses import geodesic
from nlml_hpe.image_networks.network import GREY, Labels
from nlml_hpe.image_networks.network_training import (
    Weighted,
    angle_errors,
    augmentation_of,
    network_of,
    train_image_network,
    weighted_order,
)
from nlml_hpe.image_networks.shards import Shard, read_shards, write_shard
from nlml_hpe.image_networks.training_data import Photographs, RenderedCrops
from nlml_hpe.inference.image_engine import open_image_engine
from nlml_hpe.labelling.sources import require_apart
from nlml_hpe.model.components import read_components
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.rotation import geodesic_degrees
from nlml_hpe.torch_rotation import degrees_from_rotation, rotation_from_degrees
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import Run
from renderer.crops import KIND as CROPS
from stages import Crops, ImageModelBuilder, ImageTrainer
from stages.common import run_stage
from stages.config import Config, load_config
from tests.conftest import REPOSITORY
from tests.test_image_networks import pictures, poses

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 48
NETWORK = ImageNetworkConfig(size=32, width=8, dropout=0)
# Shift and scale alone: the riddle's colours are the pose.
GENTLE = PLAIN.model_copy(update={"shift": 0.02, "scale": 0.05})
SHORT = ImageTrainerConfig(epochs=6, batch_size=32, learning_rate=3e-3, augmentation=GENTLE)


def riddle(count: int, seed: int, person: int = 1) -> Shard:
    """Crops whose colours tell their rotation."""
    rotations = rotation_from_degrees(poses(count, seed))
    images = pictures(rotations, SIDE).permute(0, 2, 3, 1).round().to(torch.uint8).numpy()
    box = np.array([0.25, 0.25, 0.75, 0.75], np.float32) * SIDE
    return Shard(images, rotations.numpy(), np.tile(box, (count, 1)), np.full(count, person, np.int32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training crops in three shards and validation crops in one, as finished artefacts."""
    root = tmp_path_factory.mktemp("crops")
    for split, counts in (("train", (96, 96, 64)), ("validation", (64,))):
        for number, count in enumerate(counts):
            write_shard(root / f"crops_{split}", number, riddle(count, seed=10 * len(counts) + number))
        write_manifest(root / f"crops_{split}", CROPS, {}, {})
    return root


def sources(folder: Path, split: str) -> list[Weighted]:
    return [Weighted(RenderedCrops(folder / f"crops_{split}"))]


def trainer_on(folder: Path, epochs: int) -> ImageTrainerConfig:
    """The same crops by a configuration."""
    data = {name: (LabelledDataConfig(root=folder / f"crops_{name}"),) for name in ("train", "validation")}
    return SHORT.model_copy(update={"epochs": epochs, "data": data["train"], "validation": data["validation"]})


def test_it_learns_and_records_what_it_is_measured_by(folder: Path) -> None:
    network = network_of(NETWORK, seed=1)
    history, counts, validated = train_image_network(
        network, sources(folder, "train"), sources(folder, "validation"), SHORT, 1, Run()
    )
    assert counts == {"training": 256, "validation": 64, "left_out": 0}
    assert history.train[-1] < 0.7 * history.train[0]
    assert set(history.metrics) == {"geodesic", "yaw", "pitch", "roll"}
    held_out = training_data.Crops(
        [RenderedCrops(folder / "crops_validation")], [1], 32, network.trainable, network.shown
    )
    crops, (rotations, _) = held_out.batch(np.arange(64), None)
    with torch.inference_mode():
        found = network.eval().posterior(network(crops)).rotation
    error = float(torch.rad2deg(geodesic(found, rotations)).mean())
    # The weights that are left are those of the best epoch.
    assert error == pytest.approx(history.metrics["geodesic"][history.best_epoch], rel=1e-3)
    assert error == pytest.approx(validated["geodesic"], rel=1e-3)
    # Answers differ from image to image by more than they are wrong.
    assert error < float(torch.rad2deg(geodesic(found, found.roll(1, 0))).mean())


@dataclass(frozen=True)
class Failing:
    """A source on a disk that breaks when training reads a certain batch."""

    source: RenderedCrops
    reads: list[int]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def size(self) -> int:
        return self.source.size

    def rotations(self) -> NDArray[np.float32]:
        return self.source.rotations()

    def boxes_are_whole(self) -> NDArray[np.bool_]:
        return self.source.boxes_are_whole()

    def confidence(self) -> NDArray[np.float32]:
        return self.source.confidence()

    def stored(self, chosen: NDArray[np.int64]) -> Shard:
        self.reads[0] -= 1
        if self.reads[0] < 0:
            raise OSError("the disk is gone")
        return self.source.stored(chosen)


def test_a_training_that_broke_off_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    config = SHORT.model_copy(update={"epochs": 3, "augmentation": AugmentationConfig()})
    training, validation = sources(folder, "train"), sources(folder, "validation")

    def trained(parts: list[Weighted], run: Run) -> dict[str, torch.Tensor]:
        network = network_of(NETWORK, seed=2)
        train_image_network(network, parts, validation, config, 2, run)
        return network.state_dict()

    undisturbed = trained(training, Run())
    # Eight batches an epoch: it breaks in the middle of the second.
    with pytest.raises(OSError, match="disk is gone"):
        trained([Weighted(Failing(RenderedCrops(folder / "crops_train"), [12]))], Run(checkpoints=tmp_path))
    resumed = trained(training, Run(checkpoints=tmp_path))
    assert all(torch.equal(resumed[name], weights) for name, weights in undisturbed.items())


def test_a_source_travels_to_a_worker_as_a_path(folder: Path) -> None:
    source = RenderedCrops(folder / "crops_train")
    before = source.stored(np.array([200, 3])).images
    sent = pickle.dumps(source)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).stored(np.array([200, 3])).images, before)


def test_labels_without_a_bin_are_left_out_and_counted(tmp_path: Path) -> None:
    shard = riddle(40, seed=3)
    beyond = rotation_from_degrees(torch.tensor([[0.0, 0.0, 150.0]])).numpy()
    rotations = np.concatenate([np.repeat(beyond, 10, axis=0), shard.rotations[10:]])
    trusted = np.linspace(0, 1, 40, dtype=np.float32)
    write_shard(tmp_path, 0, replace(shard, rotations=rotations, confidence=trusted))
    network = network_of(ImageNetworkConfig(name="custom_cnn", size=32), 0)
    crops = training_data.Crops([RenderedCrops(tmp_path)], [1.0], None, network.trainable, network.shown)
    assert (len(crops), crops.left_out) == (30, {training_data.NO_BIN: 10})
    (images, _), labels = crops.batch(np.array([29, 0]), None)
    np.testing.assert_array_equal(images, shard.images[[39, 10]])
    np.testing.assert_array_equal(labels.rotations, rotations[[39, 10]])
    np.testing.assert_array_equal(labels.confidence, trusted[[39, 10]])


def test_a_turn_never_takes_a_label_out_of_the_bins() -> None:
    network = network_of(ImageNetworkConfig(name="custom_cnn", size=32), 0)
    rotations = rotation_from_degrees(torch.tensor([[5.0, 0.0, 95.0], [5.0, 0.0, -95.0]])).repeat(32, 1, 1)
    images = torch.zeros(64, SIDE, SIDE, 3, dtype=torch.uint8)
    boxes = torch.tensor([[12.0, 12.0, 36.0, 36.0]]).expand(64, 4)
    change = augmentation_of(network, AugmentationConfig(turn_deg=90))
    labels = Labels(rotations, torch.ones(64))
    _, (shown, _) = change((images, boxes), labels, torch.Generator().manual_seed(0))
    assert network.trainable(shown).all()
    # Those that stay in the bins are turned all the same.
    assert degrees_from_rotation(shown)[:, 2].abs().min() < 60


def test_a_crop_keeps_its_own_label_where_a_turn_is_taken_back() -> None:
    """Of pictures that grow brighter downwards the turn is seen, which the label is to have, and no other."""
    network = network_of(ImageNetworkConfig(name="custom_cnn", size=32), 0)
    rotations = rotation_from_degrees(torch.tensor([[5.0, 0.0, 95.0], [5.0, 0.0, -95.0]])).repeat(32, 1, 1)
    images = torch.arange(0, 5 * SIDE, 5, dtype=torch.uint8)[None, :, None, None].expand(64, SIDE, SIDE, 3)
    boxes = torch.tensor([[12.0, 12.0, 36.0, 36.0]]).expand(64, 4)
    change = augmentation_of(network, PLAIN.model_copy(update={"turn_deg": 90.0}))
    trusted = torch.linspace(0, 1, 64)
    crops, (shown, confidence) = change((images, boxes), Labels(rotations, trusted), torch.Generator().manual_seed(0))
    torch.testing.assert_close(confidence, trusted)
    middle = crops[:, 0, 8:24, 8:24]
    down, right = (middle.diff(dim=axis).mean(dim=(1, 2)) for axis in (1, 2))
    turn = shown @ rotations.mT
    assert 10 < (turn[:, 1, 0].abs() < 1e-6).sum() < 54
    torch.testing.assert_close(torch.atan2(right, down), torch.atan2(turn[:, 1, 0], turn[:, 0, 0]), atol=0.01, rtol=0)


def test_a_label_on_the_edge_of_the_bins_is_left_out_at_either_end() -> None:
    """The lowest edge belongs to a bin, but the label of its mirror image to none, which would end the training."""
    network = network_of(ImageNetworkConfig(name="custom_cnn", size=32), 0)
    edges = [[side * 99.0 if axis == place else 7.0 for axis in range(3)] for side in (-1, 1) for place in (0, 2)]
    inside = [[98.9, 7.0, 0.0], [0.0, 7.0, -98.9]]
    rotations = rotation_from_degrees(torch.tensor([*edges, *inside]))
    assert network.trainable(rotations).tolist() == [False] * 4 + [True] * 2
    images = torch.zeros(64, SIDE, SIDE, 3, dtype=torch.uint8)
    boxes = torch.tensor([[12.0, 12.0, 36.0, 36.0]]).expand(64, 4)
    change = augmentation_of(network, AugmentationConfig(turn_deg=0))
    labels = Labels(rotations[4:].repeat(32, 1, 1), torch.ones(64))
    _, shown = change((images, boxes), labels, torch.Generator().manual_seed(0))
    assert torch.isfinite(network.losses(torch.zeros(64, 3, 66), shown.rotations)).all()


def test_data_are_mixed_by_their_weights(folder: Path) -> None:
    network = network_of(NETWORK, 0)
    crops = training_data.Crops(
        [RenderedCrops(folder / "crops_train"), RenderedCrops(folder / "crops_validation")],
        [1.0, 4.0],
        None,
        network.trainable,
        network.shown,
    )
    assert crops.weights[:256].tolist() == [1.0] * 256
    assert crops.weights[256:].tolist() == [4.0] * 64
    (images, boxes), (rotations, confidence) = crops.batch(np.array([300, 0, 299]), None)
    assert confidence.tolist() == [1.0, 1.0, 1.0]
    assert images.shape == (3, SIDE, SIDE, 3)
    assert boxes.shape == (3, 4)
    own = RenderedCrops(folder / "crops_validation").stored(np.array([44, 43]))
    np.testing.assert_array_equal(images[[0, 2]].numpy(), own.images)
    np.testing.assert_array_equal(rotations[[0, 2]].numpy(), own.rotations)


def test_a_label_counts_as_much_as_it_is_trusted(folder: Path, tmp_path: Path) -> None:
    """What half of the shards say with no confidence at all changes no weight of the network."""
    shards = read_shards(folder / "crops_train")
    write_shard(tmp_path / "alone", 0, shards[0])
    lies = replace(shards[1], rotations=shards[1].rotations[::-1])
    write_shard(tmp_path / "mixed", 0, replace(shards[0], confidence=np.full(96, 0.5, np.float32)))
    write_shard(tmp_path / "mixed", 1, replace(lies, confidence=np.zeros(96, np.float32)))
    source = RenderedCrops(tmp_path / "mixed")
    assert source.confidence().tolist() == [0.5] * 96 + [0.0] * 96
    assert source.stored(np.array([3, 100])).confidence is not None
    network = network_of(NETWORK, 0).eval()
    losses, gradients = [], []
    for data in (RenderedCrops(tmp_path / "alone"), source):
        crops, labels = training_data.Crops([data], [1.0], 32, network.trainable, network.shown).batch(
            np.arange(len(data.rotations())), None
        )
        loss = network.loss(network(crops), labels)
        losses.append(loss.item() * len(crops))
        gradients.append(torch.autograd.grad(loss * len(crops), network.columns.weight)[0])
    assert losses[1] == pytest.approx(losses[0] / 2, rel=1e-4)
    torch.testing.assert_close(gradients[1], gradients[0] / 2, rtol=1e-3, atol=1e-5)


def test_epochs_are_measured_as_an_evaluation_measures() -> None:
    rng = np.random.default_rng(3)
    found, true = (rotation_from_degrees(torch.from_numpy(rng.uniform(-170, 170, (200, 3))).float()) for _ in "ab")
    expected = errors(found.double().numpy(), true.double().numpy()).angle
    np.testing.assert_allclose(angle_errors(found, true).numpy(), expected, atol=0.05)


def test_an_epoch_shows_each_crop_as_often_as_its_weight_says() -> None:
    draw = torch.Generator().manual_seed(0)
    same = torch.ones(50, dtype=torch.float64)
    assert sorted(weighted_order(same, 50, draw).tolist()) == list(range(50))
    assert len(set(weighted_order(same, 20, draw).tolist())) == 20
    # Five photographs beside 45 rendered crops, each due 4.5 times in 50.
    weights = torch.cat([torch.full((5,), 9.0), torch.ones(45)]).double()
    counts = torch.stack([torch.bincount(weighted_order(weights, 50, draw), minlength=50) for _ in range(400)])
    due = 50 * weights / weights.sum()
    assert (counts.sum(1) == 50).all()
    assert ((counts >= due.floor()) & (counts <= due.ceil())).all()
    # The mean of 400 draws of a fraction has a standard error below 0.025.
    torch.testing.assert_close(counts.double().mean(0), due, atol=0.12, rtol=0)
    assert not torch.equal(weighted_order(weights, 50, draw), weighted_order(weights, 50, draw))


def test_a_mixture_with_weights_trains(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, stored = Counter[str](), RenderedCrops.stored

    def counted(source: RenderedCrops, chosen: NDArray[np.int64]) -> Shard:
        seen[source.folder.name] += len(chosen)
        return stored(source, chosen)

    monkeypatch.setattr(RenderedCrops, "stored", counted)
    parts = [Weighted(RenderedCrops(folder / f"crops_{split}"), w) for split, w in (("train", 1), ("validation", 12))]
    config = SHORT.model_copy(update={"epochs": 1, "crops_per_epoch": 100})
    history, counts, _ = train_image_network(
        network_of(NETWORK, 0), parts, sources(folder, "validation"), config, 0, Run()
    )
    assert counts["training"] == 320
    assert history.epochs_run == 1
    # 100 of the epoch, and 64 that it is measured by; without weights 80 of the 100 would be of the larger folder.
    assert seen.total() == 164
    assert 10 < seen["crops_train"] < 40


@pytest.mark.parametrize(("wanted", "said"), [(256, False), (257, True)])
def test_that_an_epoch_is_shorter_than_was_asked_for_is_said(
    folder: Path, wanted: int, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who renders a few people by a recipe of 2,400 trains for a fiftieth of its epochs."""
    config = SHORT.model_copy(update={"epochs": 1, "crops_per_epoch": wanted})
    parts = sources(folder, "train"), sources(folder, "validation")
    train_image_network(network_of(NETWORK, 0), *parts, config, 0, Run())
    assert (
        f"an epoch is of 256 crops, as many as there are, and not of crops_per_epoch, {wanted}"
        in capsys.readouterr().out
    ) == said


@pytest.mark.parametrize(
    ("size", "said"), [(36, ""), (37, "enlarged to the network's 37 px, which in use sees sharper")]
)
def test_that_crops_are_stored_with_too_few_pixels_is_said(
    folder: Path, size: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of 224 px learned from photographs that were cut with the 96 px of the smallest one."""
    config = SHORT.model_copy(update={"epochs": 1, "crops_per_epoch": 32})
    parts = sources(folder, "train"), sources(folder, "validation")
    train_image_network(network_of(NETWORK.model_copy(update={"size": size}), 0), *parts, config, 0, Run())
    shown = capsys.readouterr().out
    assert said in shown
    assert bool(said) == ("with 50 px (image_trainer.stored_px of photographs" in shown)


def test_a_network_trained_on_keeps_a_share_of_what_it_began_with(folder: Path) -> None:
    """The whole: as if it had not been trained; nought: as it was trained; a quarter lies between them."""

    def trained(share: float) -> dict[str, torch.Tensor]:
        network = network_of(NETWORK, 0)
        config = SHORT.model_copy(update={"epochs": 1, "start_share": share})
        train_image_network(network, sources(folder, "train"), sources(folder, "validation"), config, 0, Run())
        return network.state_dict()

    start, end, mixed = network_of(NETWORK, 0).state_dict(), trained(0.0), trained(0.25)
    assert not torch.equal(start["columns.weight"], end["columns.weight"])
    for name, weights in trained(1.0).items():
        if weights.is_floating_point():
            torch.testing.assert_close(weights, start[name])
            torch.testing.assert_close(mixed[name], 0.25 * start[name] + 0.75 * end[name])


def test_what_is_said_of_averaged_weights_is_their_own_error(folder: Path) -> None:
    network = network_of(NETWORK, 0)
    config = SHORT.model_copy(update={"epochs": 2, "start_share": 0.5})
    held_out = sources(folder, "validation")
    history, _, validated = train_image_network(network, sources(folder, "train"), held_out, config, 0, Run())
    crops = training_data.Crops([held_out[0].source], [1], 32, network.trainable, network.shown)
    images, (rotations, _) = crops.batch(np.arange(64), None)
    with torch.inference_mode():
        error = torch.rad2deg(geodesic(network.eval().posterior(network(images)).rotation, rotations)).mean().item()
    assert validated.keys() == history.metrics.keys()
    assert validated["geodesic"] == pytest.approx(error, rel=1e-3)
    assert abs(validated["geodesic"] - history.metrics["geodesic"][history.best_epoch]) > 0.1


@pytest.mark.parametrize("name", ["mobilenetv2", "hopenet"])
def test_a_single_crop_that_no_statistics_can_be_taken_of_is_refused(folder: Path, name: str) -> None:
    network = network_of(ImageNetworkConfig(name=name, size=32, width=8), 0)
    config = SHORT.model_copy(update={"epochs": 1, "crops_per_epoch": 65})
    with pytest.raises(TrainingError, match=r"epoch of 65 crops is a single one, and at 32 px .*batch_size"):
        train_image_network(network, sources(folder, "train"), sources(folder, "validation"), config, 0, Run())


def test_a_single_crop_of_larger_maps_is_learned_from(folder: Path) -> None:
    config = SHORT.model_copy(update={"epochs": 1, "crops_per_epoch": 33})
    parts = sources(folder, "train"), sources(folder, "validation")
    assert train_image_network(network_of(NETWORK, 0), *parts, config, 0, Run()).history.epochs_run == 1


def test_training_covers_what_the_network_is_not_shown(folder: Path) -> None:
    covered = (0.25, 0.0, 0.125, 0.0)
    network = network_of(NETWORK.model_copy(update={"covered": covered}), seed=1)
    given: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    train_image_network(
        network,
        sources(folder, "train"),
        sources(folder, "validation"),
        SHORT.model_copy(update={"epochs": 1}),
        1,
        Run(),
    )
    assert sum(map(len, given)) == 256 + 64
    for crops in given:
        assert (crops[:, :, :, :8] == GREY).all()
        assert (crops[:, :, :, 28:] == GREY).all()
        assert not (crops[:, :, :, 8:28] == GREY).all(dim=-1).any()


def test_two_experiments_crops_may_lie_in_folders_of_one_name(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "crops_train"
    shutil.copytree(folder / "crops_train", other)
    data = tuple(LabelledDataConfig(root=root) for root in (folder / "crops_train", other))
    unseen = (LabelledDataConfig(root=folder / "crops_validation"),)
    config = Config(workdir=tmp_path, image_trainer=ImageTrainerConfig(data=data, validation=unseen))
    assert {f"training {root.root}" for root in data} <= ImageTrainer.plan(config).inputs.keys()


def test_one_more_list_among_the_photographs_leaves_a_training_as_it_is(tmp_path: Path) -> None:
    """`datasets split` and `list` write them there."""
    root = tmp_path / "AFLW2000"
    lists = {root / f"{name}.txt": [name] for name in ("train", "validation")}
    write_lists(lists)
    (root / "a.jpg").write_bytes(b"face")
    parts = [(LabelledDataConfig(kind="aflw2000", root=root, list=path),) for path in lists]
    trainer = ImageTrainerConfig(data=parts[0], validation=parts[1])
    config = Config(workdir=tmp_path, image_trainer=trainer)
    before = ImageTrainer.plan(config).inputs
    write_lists({root / "files.txt": ["train", "validation"]})
    assert ImageTrainer.plan(config).inputs == before
    write_lists({root / "train.txt": ["test"]}, replace_existing=True)
    listed = ImageTrainer.plan(config).inputs
    assert listed != before
    (root / "b.jpg").write_bytes(b"another")
    assert ImageTrainer.plan(config).inputs != listed


def test_every_model_that_labels_photographs_is_compared(folder: Path, tmp_path: Path) -> None:
    models = [tmp_path / name for name in "ab"]
    for model in models:
        model.mkdir()
        (model / "config.json").write_text("1")
    data = tuple(
        LabelledDataConfig(kind="unlabelled", root=folder, pseudo_labels=PseudoLabelConfig(model=model))
        for model in models
    )
    unseen = (LabelledDataConfig(root=folder / "crops_validation"),)
    config = Config(workdir=tmp_path, image_trainer=ImageTrainerConfig(data=data, validation=unseen))
    found = [ImageTrainer.plan(config).inputs]
    for model in models:
        (model / "config.json").write_text("2")
        found.append(ImageTrainer.plan(config).inputs)
    assert found[0] != found[1] != found[2]


def test_photographs_are_cut_as_crops_are_stored() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, size=(12, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    boxes = np.array([[90.0, 40.0, 154.0, 88.0]])
    shard = Photographs([lambda: image], boxes, np.eye(3)[None], 128).stored(np.array([0]))
    tensors = (torch.from_numpy(a) for a in (shard.images, shard.rotations, shard.boxes))
    finished, _ = reframed(*tensors, 96, PLAIN, torch.Generator())
    # Both have one pixel of the crop to one of the photograph.
    difference = np.abs(finished[0].permute(1, 2, 0).numpy() - crop(image, boxes[0], 96))
    assert difference.mean() < 1.0


def test_each_photograph_has_its_own_box_and_label() -> None:
    images = [np.full((100, 100, 3), 80 * n, np.uint8) for n in range(3)]
    boxes = np.array([[30.0, 30.0, 70.0, 70.0], [20.0, 40.0, 60.0, 60.0], [10.0, 10.0, 20.0, 50.0]])
    labels = rotation_from_degrees(poses(3)).double().numpy()
    source = Photographs([partial(np.copy, image) for image in images], boxes, labels, SIDE)
    listed = training_data.Chosen(source, np.array([2, 0]))
    for shard, expected in ((source.stored(np.array([2, 1])), [2, 1]), (listed.stored(np.array([1, 0])), [0, 2])):
        assert shard.images[:, 0, 0, 0].tolist() == [80 * n for n in expected]
        np.testing.assert_array_equal(shard.rotations, labels[expected].astype(np.float32))
        sides = shard.boxes[:, 2:] - shard.boxes[:, :2]
        own = boxes[expected, 2:] - boxes[expected, :2]
        np.testing.assert_allclose(sides, own * (SIDE / 2 / own.max(axis=1, keepdims=True)), rtol=1e-6)
    np.testing.assert_array_equal(listed.rotations(), labels[[2, 0]].astype(np.float32))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_does_not_read_is_named_in_one_line(folder: Path, tmp_path: Path, workers: int) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8 no more")
    boxes, labels = np.tile([2.0, 2.0, 6.0, 6.0], (32, 1)), np.tile(np.eye(3), (32, 1, 1))
    parts = [Weighted(Photographs([partial(read_image, tmp_path / "cut.jpg")] * 32, boxes, labels, SIDE))]
    with pytest.raises(ImageReadError, match=r"cut\.jpg: .*; leave it out by a list") as caught:
        train_image_network(
            network_of(NETWORK, 0), parts, sources(folder, "validation"), SHORT, 0, Run(workers=workers)
        )
    assert "\n" not in str(caught.value)


def test_a_batch_larger_than_the_data_is_refused(folder: Path) -> None:
    config = SHORT.model_copy(update={"batch_size": 1000})
    with pytest.raises(TrainingError, match="batch of 1000 is larger than the data, 256 crops"):
        train_image_network(
            network_of(NETWORK, 0), sources(folder, "train"), sources(folder, "validation"), config, 0, Run()
        )


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="hopenet has no setting answer; it has alpha, width"):
        network_of(ImageNetworkConfig(name="hopenet", answer="angles"), 0)
    with pytest.raises(ValidationError, match="validation: leave out weight"):
        ImageTrainerConfig(validation=(LabelledDataConfig(weight=2.0),))
    labelled = (LabelledDataConfig(kind="aflw2000", root=Path("AFLW2000")),)
    with pytest.raises(ValidationError, match="validation: expected faces that are held out of `data`"):
        ImageTrainerConfig(data=labelled)
    ImageTrainerConfig(data=labelled, validation=(LabelledDataConfig(),))
    ImageTrainerConfig(data=(LabelledDataConfig(), *labelled))
    with pytest.raises(ValidationError, match="'300w_lp' needs root"):
        LabelledDataConfig(kind="300w_lp")
    with pytest.raises(ValidationError, match=r"augmentation\.mirror\s+Input should be less than or equal to 1"):
        ImageTrainerConfig(augmentation={"mirror": 3})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ImageTrainerConfig(augmentation={"miror": 0.5})


def test_the_stage_writes_weights_curves_and_facts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = Config(workdir=tmp_path, seed=4, workers=1, image_network=NETWORK, image_trainer=trainer_on(folder, 2))
    run_stage(ImageTrainer.STAGE, config)
    assert "M parameters" in capsys.readouterr().out
    written = tmp_path / "image_network"
    assert {path.name for path in written.iterdir()} == {
        "manifest.json", "history.json", "curves.png", ImageTrainer.WEIGHTS
    }  # fmt: skip
    facts = read_manifest(written, ImageTrainer.KIND)["facts"]
    assert facts["epochs_run"] == 2
    assert facts["crops"]["training"] == 256
    assert facts["validation"]["geodesic"] > 0
    network_of(NETWORK, 0).load_state_dict(load_file(written / ImageTrainer.WEIGHTS))
    assert ImageTrainer.STAGE.plan(config).is_current()
    assert not (tmp_path / "image_network.training").exists()


def test_the_recipe_of_the_image_eye_runs_from_heads_to_weights(kit_of_few: Path, tmp_path: Path) -> None:
    """configs/image_ict.yaml, both stages, on a hundredth of its people and with a narrow network."""
    config = load_config(REPOSITORY / "configs" / "image_ict.yaml")
    heads = config.heads.model_copy(update={"folder": kit_of_few, "train": 4, "validation": 2})
    network = config.image_network.model_copy(update={"width": 8})
    few = {"crops_per_person": 16, "people_per_shard": 2}
    short = {"epochs": 12, "batch_size": 16, "crops_per_epoch": 64}
    small = config.model_copy(
        update={
            "workdir": tmp_path,
            "workers": 1,
            "heads": heads,
            "crops": config.crops.model_copy(update=few),
            "image_network": network,
            "image_trainer": config.image_trainer.model_copy(update=short),
        }
    )
    run_stage(Crops.STAGE, small)
    run_stage(ImageTrainer.STAGE, small)
    folder = tmp_path / "image_network"
    facts = read_manifest(folder, ImageTrainer.KIND)["facts"]
    assert facts["crops"] == {"training": 64, "validation": 32, "left_out": 0}
    losses = json.loads((folder / "history.json").read_text())["train"]
    assert losses[-1] < losses[0]
    assert Crops.STAGE.plan(small).is_current()
    assert ImageTrainer.STAGE.plan(small).is_current()
    low, high = np.array(facts["range"]).T
    assert (low < -20).all()
    assert (high > 20).all()
    answers_follow_the_image(small)


def answers_follow_the_image(config: Config) -> None:
    """The model folder of a training that is over: its answers differ from image to image."""
    model = run_stage(ImageModelBuilder.STAGE, config)
    assert ImageModelBuilder.STAGE.plan(config).is_current()
    engine = open_image_engine(model)
    assert engine.frame == config.frame.name
    shard = read_shards(config.workdir / "crops_validation")[0]
    faces = [Face(image, tuple(box)) for image, box in zip(shard.images, shard.boxes.tolist(), strict=True)]
    found = engine.estimate(faces).rotation
    assert geodesic_degrees(found[0], found).max() > 1
    card = (model / "README.md").read_text()
    assert f"`{config.image_network.name}`" in card
    assert (
        f"{read_manifest(config.workdir / 'image_network', ImageTrainer.KIND)['facts']['crops']['training']} crops"
        in card
    )


def test_both_eyes_stand_in_one_folder(folder: Path, tmp_path: Path) -> None:
    beside = ImageModelConfig(landmark_eye=SHIPPED)
    frame = FrameConfig(name="w300lp", pitch=2.0)
    trainer = trainer_on(folder, 1).model_copy(update={"start_share": 0.25})
    begun = tmp_path / "begun.safetensors"
    save_file(network_of(NETWORK, 9).state_dict(), begun)
    network = NETWORK.model_copy(update={"weights": begun})
    config = Config(
        workdir=tmp_path, workers=1, image_network=network, image_trainer=trainer, image_model=beside, frame=frame
    )
    run_stage(ImageTrainer.STAGE, config)
    model = run_stage(ImageModelBuilder.STAGE, config)
    assert set(read_components(model)) == {"landmark_eye", "image_eye"}
    engine = open_image_engine(model)
    assert engine.frame == "w300lp"
    np.testing.assert_allclose(engine.named_from_own, HeadFrame("w300lp", pitch=2.0).named_from_own)
    # The landmark eye is the one that was put beside it, to the byte.
    for name in read_components(SHIPPED)["landmark_eye"].sha256:
        assert (model / name).read_bytes() == (SHIPPED / name).read_bytes()
    assert load_model(model).frame == load_model(SHIPPED).frame
    card = (model / "README.md").read_text()
    assert "`image_eye`: `image_eye.onnx`" in card
    assert "## Landmark eye" in card
    # Of 256 crops alone it was not learned.
    assert f"begun with `weights: {begun}`, whose share in those kept is 25%; 1 epoch" in card
    # What the other card says of its own image eye is not said of this one.
    assert card.count("image eye looks at") == 1
    assert card.count("## Image eye") == card.count("192,000 crops") == 0
    with pytest.raises(ArtifactError, match="run ImageTrainer with this config"):
        ImageModelBuilder.main(config.model_copy(update={"image_network": ImageNetworkConfig(size=40, width=8)}))


def test_the_stage_trains_on_a_list_of_photographs(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "aflw2000_dev"
    names = [sample.name for sample in read_dataset("aflw2000", root).samples[:24]]
    write_lists({tmp_path / "train.txt": names[:16], tmp_path / "validation.txt": names[16:]})
    parts = [
        (LabelledDataConfig(kind="aflw2000", root=root, list=tmp_path / f"{split}.txt"),)
        for split in ("train", "validation")
    ]
    trainer = ImageTrainerConfig(epochs=1, batch_size=8, data=parts[0], validation=parts[1])
    network = ImageNetworkConfig(name="custom_cnn", size=32)
    config = Config(workdir=tmp_path, workers=1, image_network=network, image_trainer=trainer)
    facts = read_manifest(ImageTrainer.main(config), ImageTrainer.KIND)["facts"]
    assert facts["crops"]["training"] + facts["crops"]["validation"] + facts["crops"]["left_out"] == 24


def test_faces_that_are_learned_from_are_no_validation(folder: Path, tmp_path: Path) -> None:
    root, link, crops = tmp_path / "photographs", tmp_path / "link", folder / "crops_train"
    root.mkdir()
    link.symlink_to(root)
    lists = {name: tmp_path / f"{name}.txt" for name in ("first", "windows", "second")}
    lists["first"].write_text("AFW/a.jpg\nAFW/b\nAFW/c\n")
    lists["windows"].write_text(".\\AFW\\b.jpg\n./AFW/c\nAFW/d\n")
    lists["second"].write_text("AFW/d\nAFW/e\n")

    def planned(one: LabelledDataConfig, *others: LabelledDataConfig) -> None:
        trainer = ImageTrainerConfig(data=(LabelledDataConfig(root=crops), one), validation=others)
        ImageTrainer.plan(Config(workdir=tmp_path, image_trainer=trainer))

    def part(name: str | None, place: Path = root, kind: str = "300w_lp") -> LabelledDataConfig:
        return LabelledDataConfig(kind=kind, root=place, list=name and lists[name])

    with pytest.raises(DatasetError, match=r"photographs: all faces are in the training data .*datasets split FOLDER"):
        planned(part(None), part(None, link))
    with pytest.raises(DatasetError, match=r"photographs: 2 faces are in the training"):
        planned(part("first"), part("second"), part("windows"))
    with pytest.raises(DatasetError, match=r"photographs: 2 faces are in the training"):
        planned(part(None), part("second"))
    with pytest.raises(DatasetError, match=r"crops_train: all faces are in the training"):
        planned(part(None), LabelledDataConfig(root=crops))
    # What we label ourselves is learned from, too; a.jpg and a.png are two photographs.
    lists["second"].write_text("AFW/a.png\nAFW/e.jpg\n")
    with pytest.raises(DatasetError, match=r"photographs: 2 faces are in the training"):
        planned(part(None, kind="unlabelled"), part("second", kind="unlabelled"))
    planned(part("first", kind="unlabelled"), part("second", kind="unlabelled"))
    # A name without suffix is that of a photograph with one.
    lists["second"].write_text("AFW/a\nAFW/b.jpg\nAFW/e.jpg\n")
    with pytest.raises(DatasetError, match=r"photographs: 2 faces are in the training"):
        planned(part("first", kind="unlabelled"), part("second", kind="unlabelled"))
    planned(part("first"), LabelledDataConfig(root=folder / "crops_validation"))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("unlabelled", "aflw2000", "all faces"),
        ("unlabelled", "aflw2000 list", "2 faces"),
        ("unlabelled list", "aflw2000 rest", "1 faces"),
        ("300w_lp", "aflw2000 AFW", "all faces"),
        ("300w_lp deep", "aflw2000 AFW", "1 faces"),
        ("300w_lp deep", "unlabelled AFW list", "1 faces"),
        ("rendered AFW", "rendered", "all faces"),
        ("unlabelled AFW/talk.mp4", "unlabelled video", "1 faces"),
        # These are of other images: one kind looks in the folder alone, the other one in those in it.
        ("aflw2000", "aflw2000 AFW", None),
        ("aflw2000", "300w_lp", None),
        ("300w_lp", "unlabelled AFW/LFPW", None),
        ("300w_lp deep", "aflw2000 LFPW", None),
        ("unlabelled deep", "aflw2000", None),
        ("crops", "unlabelled", None),
    ],
)
def test_a_face_that_two_kinds_or_folders_have_is_no_validation(
    tmp_path: Path, one: str, other: str, shared: str | None
) -> None:
    """A model labelled the photographs of the validation, whose errors were then of faces that were learned from."""
    for place in ("AFW/LFPW", "LFPW"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "AFW" / "talk.mp4").touch()
    lists = {"list": "a.jpg b", "rest": "a c", "deep": "AFW/a AFW/LFPW/b", "video": "AFW/a AFW/talk.mp4"}
    for name, names in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(names.split()))

    def entry(text: str) -> tuple[LabelledDataConfig, Path]:
        kind, *words = text.split()
        names = next((tmp_path / f"{word}.txt" for word in words if word in lists), None)
        root = tmp_path.joinpath(*(word for word in words if word not in lists))
        return LabelledDataConfig.model_validate({"kind": kind, "root": root, "list": names}), root

    if shared is None:
        require_apart([entry(one)], [entry(other)])
        return
    for sides in ((one, other), (other, one)):
        with pytest.raises(DatasetError, match=f"{shared} are in the training data and in the validation data"):
            require_apart(*([entry(side)] for side in sides))
