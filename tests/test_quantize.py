"""Eight bits: training goes on with the roundings, and the ONNX file says what the rounded network says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nlml_hpe.config import ImageModelConfig, ImageNetworkConfig, ImageQuantizerConfig
from nlml_hpe.face import Face
from nlml_hpe.files.manifests import read_manifest
from nlml_hpe.image_networks.shards import read_shards
from nlml_hpe.inference.image_engine import ImageEngine, open_image_engine
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.format import METADATA
from nlml_hpe.rotation import geodesic_degrees
from stages import ImageModelBuilder, ImageQuantizer, ImageTrainer
from stages.common import run_stage
from stages.config import Config
from tests.test_image_trainer import SHORT, folder  # noqa: F401

pytest.importorskip("torchao", reason="torchao is not installed: pip install '.[quantize]'")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small to share: on a busy machine threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_network_in_eight_bits_answers_as_it_did_in_float(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    """configs/mobilenetv2_int8.yaml's stages after the crops, on a narrow network and easy riddles."""
    data = SHORT.data[0]
    parts = {split: (data.model_copy(update={"root": folder / f"crops_{split}"}),) for split in ("train", "validation")}
    trainer = SHORT.model_copy(update={"data": parts["train"], "validation": parts["validation"]})
    config = Config(
        workdir=tmp_path,
        workers=1,
        image_network=ImageNetworkConfig(name="mobilenetv2", size=32, width=8, dropout=0),
        image_trainer=trainer,
        image_quantizer=ImageQuantizerConfig(epochs=2, learning_rate=3e-4),
        image_model=ImageModelConfig(int8=True),
    )
    run_stage(ImageTrainer.STAGE, config)
    run_stage(ImageQuantizer.STAGE, config)
    assert ImageQuantizer.STAGE.plan(config).is_current()
    facts = read_manifest(tmp_path / "image_network_int8", ImageQuantizer.KIND)["facts"]
    assert (facts["epochs_run"], facts["crops"]["training"]) == (2, 256)
    rounded = open_image_engine(run_stage(ImageModelBuilder.STAGE, config))
    path = tmp_path / "image_model" / IMAGE_EYE_FILE
    proto = onnx.load(path)
    about = {each.key: each.value for each in proto.metadata_props}
    assert json.loads(about[METADATA])["precision"] == "int8"
    kinds = [node.op_type for node in proto.graph.node]
    # Every convolution stands between them, and weights are stored in eight bits.
    assert kinds.count("QuantizeLinear") > 50
    assert kinds.count("DequantizeLinear") > 100
    assert sum(each.data_type == onnx.TensorProto.INT8 for each in _constants(proto)) > 50
    whole = config.model_copy(update={"workdir": tmp_path / "float", "image_model": ImageModelConfig()})
    (tmp_path / "float").mkdir()
    (tmp_path / "image_network").rename(tmp_path / "float" / "image_network")
    exact = open_image_engine(run_stage(ImageModelBuilder.STAGE, whole))
    errors = [_errors(engine, folder / "crops_validation") for engine in (exact, rounded)]
    # A riddle of degrees, learned in seconds: eight bits may cost it a tenth.
    assert errors[1].mean() < 1.1 * errors[0].mean() + 0.5
    assert path.stat().st_size < 0.6 * (tmp_path / "float" / "image_model" / IMAGE_EYE_FILE).stat().st_size


def _errors(engine: ImageEngine, crops: Path) -> np.ndarray:
    shard = read_shards(crops)[0]
    faces = [Face(image, tuple(box)) for image, box in zip(shard.images, shard.boxes.tolist(), strict=True)]
    return geodesic_degrees(engine.estimate(faces).rotation, shard.rotations)


def _constants(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    nodes = [node for node in proto.graph.node if node.op_type == "Constant"]
    return [*proto.graph.initializer, *(each.t for node in nodes for each in node.attribute if each.name == "value")]
