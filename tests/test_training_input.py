"""What a training of an image network leaves out, refuses and survives: labels, sizes, layouts, other stages' files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import image_ablations
from nlml_hpe.evaluation.datasets import read_dataset, write_lists
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import manifest_digest, read_manifest, write_manifest
from nlml_hpe.image_networks.config import ImageModelConfig, ImageNetworkConfig, LabelledDataConfig
from nlml_hpe.image_networks.network_training import Weighted, network_of, train_image_network
from nlml_hpe.image_networks.shards import write_shard
from nlml_hpe.image_networks.training_data import RenderedCrops
from nlml_hpe.labelling.sources import Places, open_source
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.image_export import outputs_graph
from nlml_hpe.model.onnx_file import write_onnx
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import Run
from renderer.crops import KIND as CROPS
from stages import ImageModelBuilder, ImageQuantizer, ImageTrainer
from stages.common import run_stage
from stages.config import Config
from tests.conftest import REPOSITORY
from tests.test_image_trainer import NETWORK, SHORT, folder, riddle, sources, trainer_on  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")

_BOTH_AT_WIDTH_8 = """
import sys
from pathlib import Path
import torch
from nlml_hpe.head_network.config import HeadTrainerConfig
from nlml_hpe.head_network.network_training import initial_head_network
from nlml_hpe.image_networks.config import ImageNetworkConfig, ImageTrainerConfig
from nlml_hpe.image_networks.network_training import Run, Weighted, network_of, train_image_network
from nlml_hpe.image_networks.training_data import RenderedCrops
crops, precision, threads, size = [Weighted(RenderedCrops(Path(sys.argv[1])))], *sys.argv[2:]
torch.set_num_threads(int(threads))
config = ImageTrainerConfig(epochs=1, batch_size=7, crops_per_epoch=42, precision=precision)
train_image_network(network_of(ImageNetworkConfig(size=int(size), width=8), 0), crops, crops, config, 0, Run())
heads = initial_head_network(HeadTrainerConfig(width=8), 0)
for _ in range(5):
    heads(torch.rand(8, 3, 96, 96)).sum().backward()
"""


@pytest.mark.parametrize(("precision", "threads", "size"), [("float32", 1, 96), ("bfloat16", 2, 32)])
def test_narrow_networks_train_at_sizes_where_torch_writes_beyond_its_memory(
    folder: Path,  # noqa: F811
    precision: str,
    threads: int,
    size: int,
) -> None:
    """In a process of its own, which the layout that wide networks have would end by a signal."""
    command = [sys.executable, "-c", _BOTH_AT_WIDTH_8, str(folder / "crops_validation")]
    command += [precision, str(threads), str(size)]
    # The allocator notices at once what would otherwise be noticed now and then.
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "85"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["six_d", "custom_cnn"])
def test_labels_that_are_no_rotations_and_boxes_without_a_size_are_left_out_and_counted(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    shard = riddle(48, seed=5)
    rotations, confidence = shard.rotations.copy(), np.ones(48, np.float32)
    rotations[0] = 0
    rotations[1] *= -1
    rotations[2, 0, 0] = np.nan
    rotations[3] *= 1e30
    rotations[4] *= 1.01
    confidence[5:9] = -1, np.nan, 1e30, 0
    boxes = shard.boxes.copy()
    boxes[9:12] = boxes[9:12][:, [2, 1, 0, 3]]
    boxes[12, 3] = np.inf
    data = tmp_path / "crops"
    write_shard(data, 0, replace(shard, rotations=rotations, boxes=boxes, confidence=confidence))
    write_manifest(data, CROPS, {}, {})
    held_out = (LabelledDataConfig(root=folder / "crops_validation"),)
    settings = {"epochs": 1, "batch_size": 8, "data": (LabelledDataConfig(root=data),), "validation": held_out}
    network = ImageNetworkConfig(name=name, size=32)
    config = Config(workdir=tmp_path, image_network=network, image_trainer=SHORT.model_copy(update=settings))
    facts = read_manifest(ImageTrainer.main(config), ImageTrainer.KIND)["facts"]
    assert facts["crops"] == {"training": 36, "validation": 64, "left_out": 12}
    counts = "box has no size 4, confidence is no number from 0 to 1 3, label is no rotation 5"
    assert f"training: 36 crops; left out: {counts}" in capsys.readouterr().out
    # The range of what was learned, which the model's card says.
    assert np.isfinite(facts["range"]).all()
    assert np.abs(facts["range"]).max() < 90


def test_data_without_a_label_to_learn_from_are_refused(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    write_shard(tmp_path, 0, replace(riddle(48, seed=5), rotations=np.zeros((48, 3, 3), np.float32)))
    none = [Weighted(RenderedCrops(tmp_path))]
    with pytest.raises(TrainingError, match=r"no crop of the validation data can be .*: label is no rotation 48"):
        train_image_network(network_of(NETWORK, 0), sources(folder, "train"), none, SHORT, 0, Run())


def test_sources_of_different_sizes_are_named_before_the_first_batch(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    other = riddle(8, seed=5)
    write_shard(tmp_path, 0, replace(other, images=np.ascontiguousarray(other.images[:, ::2, ::2])))
    mixed = [*sources(folder, "train"), Weighted(RenderedCrops(tmp_path))]
    with pytest.raises(TrainingError, match=rf"crops_train 48 px, {tmp_path} 24 px; .* image_trainer\.stored_px"):
        train_image_network(network_of(NETWORK, 0), mixed, sources(folder, "validation"), SHORT, 0, Run())


def test_the_model_in_eight_bits_is_made_of_the_graph_beside_its_network(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    trainer = trainer_on(folder, 1)
    model = ImageModelConfig(int8=True)
    config = Config(workdir=tmp_path, image_network=NETWORK, image_trainer=trainer, image_model=model)
    run_stage(ImageTrainer.STAGE, config)
    network, rounded = tmp_path / "image_network", tmp_path / "image_network_int8"
    digest = manifest_digest(network, ImageTrainer.KIND)

    def quantized(seed: int, made_from: str) -> None:
        """What ImageQuantizer leaves, by a network that another seed made."""
        rounded.mkdir(exist_ok=True)
        graph = outputs_graph(network_of(NETWORK, seed).eval(), NETWORK.size)
        write_onnx(graph, rounded / ImageQuantizer.GRAPH)
        write_manifest(rounded, ImageQuantizer.KIND, {}, {"image_network": made_from})

    with pytest.raises(ArtifactError, match="run ImageQuantizer with this config first"):
        run_stage(ImageModelBuilder.STAGE, config)
    quantized(1, digest)
    first = (run_stage(ImageModelBuilder.STAGE, config) / IMAGE_EYE_FILE).read_bytes()
    assert ImageModelBuilder.plan(config).is_current()
    quantized(2, digest)
    assert not ImageModelBuilder.plan(config).is_current()
    assert (run_stage(ImageModelBuilder.STAGE, config) / IMAGE_EYE_FILE).read_bytes() != first
    quantized(2, "another")
    with pytest.raises(ArtifactError, match="image_network_int8 was made from another image_network"):
        run_stage(ImageModelBuilder.STAGE, config, force=True)
    quantized(2, digest)
    graph = rounded / ImageQuantizer.GRAPH
    graph.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"outputs\.onnx: missing, or changed"):
        run_stage(ImageModelBuilder.STAGE, config)
    # Cut short before the stage that wrote it had ended.
    write_manifest(rounded, ImageQuantizer.KIND, {}, {"image_network": digest})
    with pytest.raises(ArtifactError, match=r"outputs\.onnx does not read .* run ImageQuantizer"):
        run_stage(ImageModelBuilder.STAGE, config)


def test_ablations_answer_for_the_data_that_they_looked_at(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    crops, unseen = folder / "crops_train", folder / "crops_validation"
    lever = next(iter(image_ablations.LEVERS))
    monkeypatch.setattr(image_ablations, "RESULTS", tmp_path)
    (tmp_path / "faces").mkdir()
    (tmp_path / "more_faces").mkdir()

    def measured(crops: Path, unseen: Path, root: str = "faces", seen: int = 1000) -> None:
        image_ablations.main(image_ablations.Training(crops, unseen, seen), tmp_path / root, [lever])

    rows = [{"lever": lever, "crops": manifest_digest(crops, CROPS)[:12]}]
    notes = image_ablations._notes(image_ablations.Training(crops, unseen, 1000), tmp_path / "faces")
    (tmp_path / "image_ablations.json").write_text(json.dumps({"rows": rows, "notes": notes}))
    measured(crops, unseen)
    assert capsys.readouterr().out == f"{lever}: measured before, kept\n"
    for others in ((crops, crops), (crops, unseen, "more_faces"), (crops, unseen, "faces", 2000)):
        with pytest.raises(ValueError, match="holds results of other data"):
            measured(*others)
    with pytest.raises(ValueError, match="was learned from the crops"):
        measured(unseen, unseen)
    nobody = image_ablations.Lever(chosen=lambda people, _: people > 1000)
    with pytest.raises(ValueError, match="this lever leaves 0; expected 64 or more"):
        image_ablations._trained(nobody, image_ablations.Training(crops, unseen, 1000))


@pytest.mark.parametrize("wrong", [["--seen", "3"], ["--new", "width 16"]])
def test_ablations_that_cannot_be_measured_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        image_ablations.arguments(["--crops", "c", "--validation", "v", *wrong])
    assert f"{wrong[0]}: " in capsys.readouterr().err


def test_crops_whose_label_is_no_rotation_are_no_faces(tmp_path: Path) -> None:
    """Zeros counted as a frontal label, and NaN vanished from the figures; a list still chooses the crops it names."""
    shard = riddle(6, seed=5)
    rotations = shard.rotations.copy()
    rotations[1], rotations[2], rotations[4] = 0, np.nan, -np.eye(3)
    write_shard(tmp_path, 0, replace(shard, rotations=rotations))
    data = read_dataset("crops", tmp_path)
    assert [sample.name for sample in data.samples] == ["00000/00000", "00000/00003", "00000/00005"]
    assert data.left_out == {"label is no rotation": ["00000/00001", "00000/00002", "00000/00004"]}
    write_lists({tmp_path / "one.txt": ["00000/00005"]})
    part = LabelledDataConfig(root=tmp_path, list=tmp_path / "one.txt")
    source = open_source(part, Places(tmp_path, tmp_path, 96))
    np.testing.assert_array_equal(source.rotations(), rotations[5:])
