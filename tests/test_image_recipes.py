"""The recipes in configs/, each on a tiny share of data: they run to the end, go on after a kill, evaluate, export."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn

from nlml_hpe.evaluation.command import run
from nlml_hpe.evaluation.datasets import DatasetError, read_dataset, split, write_lists
from nlml_hpe.evaluation.options import add_arguments
from nlml_hpe.extras import MissingPackageError
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.image_networks.backbones import backbone_of
from nlml_hpe.image_networks.config import ImageNetworkConfig, ImageTrainerConfig, LabelledDataConfig
from nlml_hpe.image_networks.custom_cnn import CustomCNN
from nlml_hpe.image_networks.hopenet import HopeNet
from nlml_hpe.image_networks.network import WeightsError
from nlml_hpe.image_networks.network_training import initial_network
from nlml_hpe.image_networks.registry import NETWORKS, build
from nlml_hpe.image_networks.weights import load_backbone
from nlml_hpe.inference.image_engine import open_image_engine
from nlml_hpe.model.components import IMAGE_EYE_FILE, put_component
from nlml_hpe.model.folder import HeadFrame
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from nlml_hpe.rotation import geodesic_degrees
from nlml_hpe.torch_rotation import degrees_from_rotation, rotation_from_degrees
from nlml_hpe.training_error import TrainingError
from stages import ImageTrainer, ModelBuilder, NLML_HPE_Test, run_pipeline
from stages.common import Workdir, run_stage
from stages.config import Config, load_config
from tests.conftest import REPOSITORY
from tests.test_image_networks import pictures, poses, published

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 96


def write_photographs(root: Path, count: int, points: str) -> None:
    """Labelled images in the layout of AFLW2000-3D and 300W-LP, whose colours tell the pose."""
    root.mkdir(parents=True)
    rotations = rotation_from_degrees(poses(count, seed=7) / 2)
    images = pictures(rotations, SIDE).permute(0, 2, 3, 1).round().to(torch.uint8).numpy()
    edge = np.linspace(SIDE / 4, 3 * SIDE / 4, 68)
    for number, (image, angles) in enumerate(zip(images, degrees_from_rotation(rotations).numpy(), strict=True)):
        yaw, pitch, roll = np.radians(angles)
        Image.fromarray(image).save(root / f"image{number:05d}.jpg", quality=95)
        label = {"Pose_Para": np.array([[pitch, yaw, roll, 0, 0, 0, 1]]), points: np.stack([edge, edge, 0 * edge])}
        savemat(root / f"image{number:05d}.mat", label if points == "pt3d_68" else {**label, points: label[points][:2]})


def recipe(name: str, root: Path, folder: Path, network: dict[str, object], trainer: dict[str, object]) -> Config:
    """A configuration of ours with its data in ``root``, as smaller and shorter as ``network`` and ``trainer`` say."""
    config = load_config(REPOSITORY / "configs" / name)
    kind = config.image_trainer.data[0].kind
    names = split(read_dataset(kind, root), 0.75, 0.25, seed=0)
    write_lists({folder / f"{part}.txt": names[part] for part in ("train", "validation")})
    training, validation = (
        tuple(one.model_copy(update={"root": root, "list": folder / f"{part}.txt"}) for one in own)
        for part, own in (("train", config.image_trainer.data), ("validation", config.image_trainer.validation))
    )
    few = {**trainer, "data": training, "validation": validation}
    return config.model_copy(
        update={
            "workdir": folder,
            "workers": 1,
            "image_network": config.image_network.model_copy(update=network),
            "image_trainer": config.image_trainer.model_copy(update=few),
        }
    )


RECIPES: dict[str, tuple[str, str, dict[str, object], dict[str, object]]] = {
    "hopenet": (
        "hopenet_300w_lp.yaml",
        "pt2d",
        # From random weights its published rate would learn nothing in so few steps.
        {"size": 64, "width": 8, "backbone_weights": None},
        {"epochs": 28, "learning_rate": 1e-3, "stored_px": 86},
    ),
    "custom_cnn": (
        "custom_cnn_aflw2000.yaml",
        "pt3d_68",
        {"size": 32, "dropout": 0.1},
        {"epochs": 14, "stored_px": 44},
    ),
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_runs_to_the_end_and_its_answers_follow_the_image(name: str, tmp_path: Path) -> None:
    file, points, network, trainer = RECIPES[name]
    root = tmp_path / "data" / ("AFW" if points == "pt2d" else "")
    write_photographs(root, 96, points)
    config = recipe(file, tmp_path / "data", tmp_path / "work", network, trainer)
    for stage_name in run_pipeline.needed(run_pipeline.CHAINS["image"], config):
        stage = run_pipeline.stage_of(stage_name, "image")
        run_stage(stage, config)
        assert stage.plan(config).is_current()
    history = json.loads((tmp_path / "work" / "image_network" / "history.json").read_text())
    assert history["train"][-1] < 0.9 * history["train"][0]
    report = json.loads((tmp_path / "work" / "image_test" / "metrics.json").read_text())
    kind = config.image_trainer.data[0].kind
    assert (report[kind]["routes"]["image"]["n"], report[kind]["routes"]["image"]["coverage"]) == (24, 1.0)
    assert report[kind]["frame"] == "own"
    engine = open_image_engine(tmp_path / "work" / "image_model")
    data = read_dataset(kind, tmp_path / "data")
    faces = [Face(sample.load(), sample.box or (0, 0, 1, 1)) for sample in data.samples]
    found, true = engine.estimate(faces).rotation, data.rotations
    # A network that answers the same to every image, the fate of one that was trained too little, is no use.
    error, constant = geodesic_degrees(found, true).mean(), geodesic_degrees(np.eye(3), true).mean()
    assert error < 0.85 * constant
    assert geodesic_degrees(found[0], found).max() > 5


def with_random_eye(model: Path) -> None:
    """Put an image eye of random weights into a model folder."""
    network = build("six_d", 32, width=8).eval()
    eye = ImageEye(network, "six_d", HeadFrame("w300lp", pitch=3.0), ((-90, 90), (-90, 90), (-90, 90)))
    export_image_eye(eye, model / IMAGE_EYE_FILE)
    put_component(model, "image_eye", eye.settings())


def evaluated(tmp_path: Path, *options: str) -> dict[str, Any]:
    """What ``evaluate`` reports of tmp_path/model on tmp_path/data; the model gets an image eye of random weights."""
    with_random_eye(tmp_path / "model")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    places = {"root": "data", "model": "model", "output": "test"}
    given = [text for name, place in places.items() for text in (f"--{name}", str(tmp_path / place))]
    assert run(parser.parse_args(["--dataset", "aflw2000", *given, *options]))
    report: dict[str, Any] = json.loads((tmp_path / "test" / "metrics.json").read_text())
    return report


def test_all_validation_data_with_boxes_is_evaluated_and_the_rest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_photographs(tmp_path / "data", 8, "pt3d_68")
    poses_of = np.linspace([-20, -10, -5], [20, 10, 5], 6)
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "crops.npz", image=images, pose=poses_of)
    (tmp_path / "renders").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "renders" / "ID1_(10_0_0).png")
    model = Workdir(tmp_path / "work").image_model
    model.mkdir(parents=True)
    with_random_eye(model)
    write_manifest(model, ModelBuilder.KIND, {}, {})
    photographs, crops, renders = (
        LabelledDataConfig(kind=kind, root=tmp_path / name)
        for kind, name in (("aflw2000", "data"), ("fsanet", "crops.npz"), ("rendered", "renders"))
    )

    def table_of(*validation: LabelledDataConfig) -> str:
        whole = Config(workdir=tmp_path / "work")
        trainer = whole.image_trainer.model_copy(update={"validation": validation})
        config = whole.model_copy(update={"image_trainer": trainer})
        folder = run_stage(NLML_HPE_Test.IMAGE_STAGE, config)
        assert NLML_HPE_Test.IMAGE_STAGE.plan(config).is_current()
        return (folder / "table.txt").read_text()

    table = table_of(photographs, crops, renders)
    assert "fsanet_1: 6 of 6 faces, found by their labels" in table
    assert "aflw2000: 8 of 8 faces" in table
    assert f"left out, labels without a box: rendered in {renders.root}" in capsys.readouterr().out
    assert "6 of 6 (100.0%)" in table_of(crops)
    assert table_of(renders).endswith("evaluate with --dataset\n")


def test_a_folder_with_an_image_eye_alone_is_evaluated_on_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """No detector is asked: the label's box is what it is shown."""
    write_photographs(tmp_path / "data", 60, "pt3d_68")
    write_photographs(tmp_path / "others", 60, "pt3d_68")
    (tmp_path / "model").mkdir()
    report = evaluated(tmp_path, "--align-on", str(tmp_path / "others"))
    assert list(report["routes"]) == ["image"]
    assert (report["default_route"], report["frame"]) == ("image", "w300lp")
    assert report["routes"]["image"]["coverage"] == 1
    assert [report[name] for name in ("n_detected", "n_missed", "coverage", "detected_by")] == [None, None, None, {}]
    rows = list(csv.DictReader((tmp_path / "test" / "predictions.csv").read_text().splitlines()))
    assert {(row["detected"], row["detected_by"]) for row in rows} == {("", "")}
    assert "faces, found by their labels" in (tmp_path / "test" / "table.txt").read_text()
    raw, own = report["routes"]["image"]["mae"], report["unaligned"]["routes"]["image"]["mae"]
    assert abs(raw["pitch"] - own["pitch"]) > 0.1
    # One rotation that was estimated on the same answers takes away what a constant answer has in common.
    before, after = (rows["image"]["geodesic"]["mean"] for rows in (report["routes"], report["aligned"]["routes"]))
    assert after <= before + 0.1
    assert "image *" in capsys.readouterr().out


def test_of_both_eyes_the_fused_answer_is_the_default(tmp_path: Path) -> None:
    """No landmarks are found in these pictures: the image eye answers for both."""
    write_photographs(tmp_path / "data", 6, "pt3d_68")
    shutil.copytree(SHIPPED, tmp_path / "model")
    report = evaluated(tmp_path)
    assert set(report["routes"]) == {"network", "exact", "refined", "image", "fused"}
    assert (report["default_route"], report["frame"]) == ("fused", "w300lp")
    assert [report["routes"][name]["n"] for name in ("refined", "image", "fused")] == [0, 6, 6]
    image, fused = (report["routes"][name]["geodesic"]["mean"] for name in ("image", "fused"))
    assert fused == pytest.approx(image, abs=1e-3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("{name: hopenet, loss: huber}", "hopenet has no setting loss; it has alpha, width"),
        ("{name: six_d, weights: gone.pth}", r"gone\.pth: no such file; correct image_network\.weights"),
        ("{name: six_d, weights: .}", r"a folder, where a file is wanted; correct image_network\.weights"),
        (f"{{name: custom_cnn, weights: {REPOSITORY}/checkpoints/image_network/image_network.safetensors}}", "another"),
    ],
)
def test_what_is_wrong_with_a_network_is_said_before_anybody_is_rendered(
    tmp_path: Path, network: str, message: str
) -> None:
    path = tmp_path / "c.yaml"
    # There are no heads here: rendering would end with another error.
    path.write_text(f"workdir: {tmp_path}\nheads: {{source: scan, folder: {tmp_path}}}\nimage_network: {network}\n")
    with pytest.raises((ValueError, ArtifactError), match=message):
        run_pipeline.main(path, None, None, force=False, eye="image")


def test_a_layer_that_no_model_folder_can_have_is_said_before_anybody_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network of one's own: it was trained to the end, and then its model could not be built."""

    class Leaky(CustomCNN):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.hidden[2] = nn.LeakyReLU()

    path = tmp_path / "c.yaml"
    path.write_text(
        f"workdir: {tmp_path}\nheads: {{source: scan, folder: {tmp_path}}}\n"
        "image_network: {name: custom_cnn, size: 32}\n"
    )
    monkeypatch.setitem(NETWORKS, "custom_cnn", Leaky)
    with pytest.raises(ValueError, match=r"LeakyReLU.* has no translation to ONNX"):
        run_pipeline.main(path, None, None, force=False, eye="image")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("image_trainer: {data: [{kind: crops}, {kind: 300w_lp, root: gone}]}", r"gone: no such .*correct .*`root`"),
        (
            "image_trainer: {data: [{kind: crops}, {kind: aflw2000, root: ., list: gone.txt}]}",
            r"gone\.txt: no such list",
        ),
        ("image_trainer: {data: [{kind: crops}, {kind: crops, root: gone}]}", "gone holds no finished 'crops'"),
        (
            "image_trainer: {data: [{kind: crops}, {kind: fsanet, root: .}], validation: [{kind: fsanet, root: .}]}",
            "all faces are in the training data and in the validation data",
        ),
        ("image_model: {landmark_eye: gone}", "gone"),
        (f"image_model: {{landmark_eye: {SHIPPED}}}", r"head frame 'w300lp', and 'frame' .* is 'own'"),
    ],
)
def test_what_is_wrong_with_given_data_is_said_before_anybody_is_rendered(
    tmp_path: Path, settings: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    # There are no heads here: rendering would end with another error.
    path.write_text(f"workdir: {tmp_path}\nheads: {{source: scan, folder: {tmp_path}}}\n{settings}\n")
    with pytest.raises((DatasetError, ArtifactError), match=message):
        run_pipeline.main(path, None, None, force=False, eye="image")


def test_a_list_of_crops_that_are_yet_to_be_rendered_is_not_asked_for(tmp_path: Path) -> None:
    """It can be written when they are there."""
    own = tmp_path / "crops_train"
    trainer = ImageTrainerConfig(data=(LabelledDataConfig(), LabelledDataConfig(root=own, list=own / "train.txt")))
    ImageTrainer.check(Config(workdir=tmp_path, image_trainer=trainer))


def test_that_torchao_is_missing_is_said_before_anybody_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"workdir: {tmp_path}\nheads: {{source: scan, folder: {tmp_path}}}\nimage_model: {{int8: true}}\n")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingPackageError, match=r"image_model\.int8 needs torchao"):
        run_pipeline.main(path, None, None, force=False, eye="image")


def test_stages_of_the_other_eye_are_no_part_of_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"workdir: {tmp_path}\n")
    with pytest.raises(ValueError, match="TD_main is no stage of --eye image; its stages are Crops -> ImageTrainer"):
        run_pipeline.main(path, "TD_main", None, force=False, eye="image")
    with pytest.raises(ValueError, match="ImageTrainer is no stage of --eye landmarks"):
        run_pipeline.main(path, None, "ImageTrainer", force=False)


@pytest.mark.parametrize(
    ("sections", "eye"),
    [
        ("", "landmarks"),
        ("heads: {train: 2}", "landmarks"),
        ("image_trainer: {epochs: 2}\nheads: {train: 2}", "image"),
        ("scenes: {size: 192}", "heads"),
        ("image_trainer: {epochs: 2}\nencoder: {epochs: 2}", "landmarks"),
    ],
)
def test_the_chain_is_that_of_the_only_sections(tmp_path: Path, sections: str, eye: str) -> None:
    """A recipe of the image eye that was run without --eye began to render 2,400 people for the landmark eye."""
    path = tmp_path / "c.yaml"
    path.write_text(f"workdir: {tmp_path}\n{sections}\n")
    assert run_pipeline.eye_of(load_config(path)) == eye


def test_of_two_other_chains_it_is_asked_which(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"workdir: {tmp_path}\nimage_trainer: {{epochs: 2}}\nscenes: {{size: 192}}\n")
    with pytest.raises(ValueError, match="sections of several chains; say which by --eye image or heads"):
        run_pipeline.eye_of(load_config(path))


def test_every_section_is_of_one_chain_or_of_all() -> None:
    shared = {"workdir", "seed", "workers", "cluster", "device", "heads", "frame", "test"}
    assert sorted([*shared, *(name for part in run_pipeline._SECTIONS.values() for name in part)]) == sorted(
        Config.model_fields
    )


def test_every_configuration_has_sections_of_its_own_chain() -> None:
    chains = {path.stem: run_pipeline.eye_of(load_config(path)) for path in (REPOSITORY / "configs").glob("*.yaml")}
    assert {name for name, eye in chains.items() if eye == "heads"} == {"head_detector"}
    assert {name for name, eye in chains.items() if eye == "landmarks"} == {"demo", "facescape", "ict_facekit"}
    assert set(run_pipeline.CHAINS) == set(chains.values())


def test_a_recipe_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, points, network, trainer = RECIPES["custom_cnn"]
    write_photographs(tmp_path / "data", 64, points)
    short = {**trainer, "epochs": 3}
    whole, broken = (recipe(file, tmp_path / "data", tmp_path / n, network, short) for n in ("whole", "broken"))
    run_stage(ImageTrainer.STAGE, whole)

    def killed(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stages.common.write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stage(ImageTrainer.STAGE, broken)
    assert list((tmp_path / "broken" / "image_network.training").glob("*.checkpoint"))
    run_stage(ImageTrainer.STAGE, broken)
    first, second = (tmp_path / n / "image_network" / ImageTrainer.WEIGHTS for n in ("whole", "broken"))
    assert first.read_bytes() == second.read_bytes()


def test_a_training_begins_with_published_weights(tmp_path: Path) -> None:
    path = published(tmp_path / "hopenet_robust_alpha1.pkl")
    network = initial_network(ImageNetworkConfig(name="hopenet", size=64, weights=path), seed=0)
    assert torch.equal(network.state_dict()["fc_yaw.weight"], torch.load(path, weights_only=True)["fc_yaw.weight"])
    with pytest.raises(WeightsError, match=r"weights of another network, .* without"):
        initial_network(ImageNetworkConfig(name="custom_cnn", size=32, weights=path), seed=0)
    config = Config(workdir=tmp_path, image_network=ImageNetworkConfig(weights=tmp_path / "none.pkl"))
    with pytest.raises(ArtifactError, match=r"no such file; correct image_network\.weights"):
        ImageTrainer.plan(config)


def test_a_backbone_is_read_from_a_file_in_torchvisions_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = backbone_of("resnet50", 8).state_dict()
    torch.save({**state, "fc.weight": torch.zeros(1000, 256), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet.pth")
    six_d, hopenet = build("six_d", 64, backbone="resnet50", width=8), HopeNet(64, width=8)
    for network in (six_d, hopenet):
        load_backbone(network, tmp_path / "resnet.pth")
    assert torch.equal(six_d.backbone.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    assert torch.equal(hopenet.state_dict()["layer4.2.conv3.weight"], state["layer4.2.conv3.weight"])
    with pytest.raises(WeightsError, match="CustomCNN has no backbone"):
        load_backbone(build("custom_cnn", 32), tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match="weights of another network"):
        load_backbone(build("six_d", 64), tmp_path / "resnet.pth")


def test_a_backbone_is_read_from_a_whole_network_of_another_size_or_with_other_heads(tmp_path: Path) -> None:
    """HopeNet's file gave its heads, too, and one that ImageTrainer wrote was refused."""
    torch.manual_seed(5)
    small, angles = build("six_d", 64, width=8), build("mobilenetv2", 64, answer="angles", width=8)
    hopenet = HopeNet(64, width=8)
    pairs = (
        (small, build("six_d", 96, width=8)),
        (angles, build("mobilenetv2", 64, answer="six_d", width=8)),
        (hopenet, build("six_d", 64, backbone="resnet50", width=8)),
        (hopenet, HopeNet(64, width=8)),
        (build("six_d", 64, backbone="resnet50", width=8), HopeNet(64, width=8)),
    )
    for given, network in pairs:
        torch.save(given.state_dict(), tmp_path / "whole.pkl")
        before = {name: value.clone() for name, value in network.state_dict().items()}
        load_backbone(network, tmp_path / "whole.pkl")
        source = {name.removeprefix("backbone."): value for name, value in given.state_dict().items()}
        for name, value in network.state_dict().items():
            is_head = name.startswith(("fc_", "squeeze", "columns", "spread", "head"))
            assert torch.equal(value, before[name] if is_head else source[name.removeprefix("backbone.")]), name


def torchvisions(name: str) -> str:
    """The name that a layer of our MobileNetV2 has in torchvision's."""
    first, *rest = name.split(".")
    block = int(first)
    if rest[0] != "layers":
        return f"features.{18 if block >= 20 else 0}.{block % 20}.{rest[0]}"
    place, kind = int(rest[1]), rest[2]
    groups = 1 if block == 3 else 2
    if place >= 3 * groups:
        return f"features.{block - 2}.conv.{place - 2 * groups}.{kind}"
    return f"features.{block - 2}.conv.{place // 3}.{place % 3}.{kind}"


def test_mobilenets_published_names_are_read(tmp_path: Path) -> None:
    """Names and number of layers as torchvision has them: 18 blocks, the last of 1,280 channels."""
    torch.manual_seed(4)
    own = backbone_of("mobilenet_v2").state_dict()
    state = {torchvisions(name): value for name, value in own.items()}
    assert state["features.1.conv.0.0.weight"].shape == (32, 1, 3, 3)
    assert state["features.1.conv.1.weight"].shape == (16, 32, 1, 1)
    assert state["features.17.conv.2.weight"].shape == (320, 960, 1, 1)
    assert state["features.18.0.weight"].shape == (1280, 320, 1, 1)
    torch.save({**state, "classifier.1.weight": torch.zeros(1000, 1280)}, tmp_path / "mobilenet.pth")
    network = build("mobilenetv2", 64)
    load_backbone(network, tmp_path / "mobilenet.pth")
    assert all(torch.equal(value, own[name]) for name, value in network.backbone.state_dict().items())


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    file, points, network, trainer = RECIPES["custom_cnn"]
    write_photographs(tmp_path / "data", 32, points)
    config = recipe(file, tmp_path / "data", tmp_path / "work", network, trainer)
    broken = build("custom_cnn", 32).state_dict()
    broken["heads.bias"][0] = float("nan")
    torch.save(broken, tmp_path / "broken.pth")
    began = config.image_network.model_copy(update={"weights": tmp_path / "broken.pth"})
    with pytest.raises(TrainingError, match="the loss is not finite in epoch 1;"):
        run_stage(ImageTrainer.STAGE, config.model_copy(update={"image_network": began}))
    assert not (tmp_path / "work" / "image_network").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    file, points, network, trainer = RECIPES["custom_cnn"]
    write_photographs(tmp_path / "data", 32, points)
    config = recipe(file, tmp_path / "data", tmp_path / "work", network, trainer)
    with pytest.raises(ValueError, match="cuda"):
        run_stage(ImageTrainer.STAGE, config.model_copy(update={"device": "cuda"}))
