"""Eight bits: training goes on with the roundings, and the ONNX file says what the rounded network says."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from nlml_hpe import training as training_loop
from nlml_hpe.face import Face
from nlml_hpe.files.manifests import read_manifest
from nlml_hpe.image_networks import quantize
from nlml_hpe.image_networks.backbones import Block, Inverted
from nlml_hpe.image_networks.config import ImageModelConfig, ImageNetworkConfig
from nlml_hpe.image_networks.network import GREY, ImageNetwork
from nlml_hpe.image_networks.network_training import network_of, train_image_network
from nlml_hpe.image_networks.quantize import FakeQuantized
from nlml_hpe.image_networks.registry import build
from nlml_hpe.image_networks.shards import read_shards
from nlml_hpe.inference.image_engine import ImageEngine, open_image_engine
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.image_export import outputs_graph
from nlml_hpe.model.onnx_file import said_of
from nlml_hpe.rotation import geodesic_degrees
from nlml_hpe.torch_rotation import rotation_from_degrees
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import Run
from nlml_hpe.training_state import write_checkpoint
from stages import ImageModelBuilder, ImageQuantizer, ImageTrainer
from stages.common import run_stage
from stages.config import Config, load_config
from tests.conftest import REPOSITORY
from tests.test_image_trainer import SHORT, folder, sources  # noqa: F401

pytest.importorskip("torchao", reason="torchao is not installed: pip install -e '.[quantize]'")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def convolutions_of_images_alone() -> Iterator[None]:
    """Let torchao look for these and for no other kinds: it exports dozens of patterns of each, in half of the time."""
    from torchao.quantization.pt2e import qat_utils

    def for_images(work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda graph, kind, *rest, **options: (
            work(graph, kind, *rest, **options) if kind is torch.nn.functional.conv2d else graph
        )

    with pytest.MonkeyPatch.context() as patched:
        for name in ("_fuse_conv_bn_qat_helper", "_fold_conv_bn_qat_helper"):
            patched.setattr(qat_utils, name, for_images(getattr(qat_utils, name)))
        yield


def test_the_recipe_for_eight_bits_runs_goes_on_after_a_kill_and_exports(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """configs/mobilenetv2_int8.yaml's stages after the crops, on a narrow network and easy riddles."""
    config = recipe(folder, tmp_path)
    prepare_once(monkeypatch)
    run_stage(ImageTrainer.STAGE, config)
    losses = json.loads((tmp_path / "image_network" / "history.json").read_text())["train"]
    assert losses[-1] < 0.7 * losses[0]
    written: list[Path] = []

    def killed(path: Path, *rest: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_checkpoint(path, *rest)

    monkeypatch.setattr(training_loop, "write_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run_stage(ImageQuantizer.STAGE, config)
    assert len(list((tmp_path / "image_network_int8.training").glob("*.checkpoint"))) == 1
    saved: list[Path] = []
    monkeypatch.setattr(training_loop, "write_checkpoint", lambda path, *rest: saved.append(path))
    run_stage(ImageQuantizer.STAGE, config)
    # The second epoch alone was left to do.
    assert len(saved) == 1
    assert ImageQuantizer.STAGE.plan(config).is_current()
    facts = read_manifest(tmp_path / "image_network_int8", ImageQuantizer.KIND)["facts"]
    assert (facts["epochs_run"], facts["crops"]["training"]) == (2, 256)
    rounded = open_image_engine(run_stage(ImageModelBuilder.STAGE, config))
    card = (tmp_path / "image_model" / "README.md").read_text()
    assert f"geodesic {facts['validation']['geodesic']:.2f}" in card
    assert "M MACs, in eight bits |" in card
    assert "; then in eight bits 2 epochs" in card
    path = tmp_path / "image_model" / IMAGE_EYE_FILE
    require_eight_bits(path, tmp_path)
    whole = config.model_copy(update={"workdir": tmp_path / "float", "image_model": ImageModelConfig()})
    (tmp_path / "float").mkdir()
    (tmp_path / "image_network").rename(tmp_path / "float" / "image_network")
    exact = open_image_engine(run_stage(ImageModelBuilder.STAGE, whole))
    assert path.stat().st_size < 0.6 * (tmp_path / "float" / "image_model" / IMAGE_EYE_FILE).stat().st_size
    true = read_shards(folder / "crops_validation")[0].rotations
    first, second = (answers(engine, folder / "crops_validation") for engine in (exact, rounded))
    errors = [geodesic_degrees(found, true).mean() for found in (first, second)]
    # A riddle of degrees, learned in seconds: eight bits may cost it a tenth.
    assert errors[1] < 1.1 * errors[0] + 0.5
    assert errors[1] < 0.85 * geodesic_degrees(np.eye(3), true).mean()
    assert geodesic_degrees(second[0], second).max() > 5


def test_a_network_in_eight_bits_is_not_averaged_with_the_one_that_it_began_with() -> None:
    config = load_config(REPOSITORY / "configs" / "image_ict_shipped.yaml")
    assert config.image_trainer.start_share == 0.15
    assert ImageQuantizer.trainer_settings(config).start_share == 0


def prepare_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the stage that goes on a copy of the graph that it began with: torchao takes long to make the same again."""
    prepared, made = quantize.prepared, list[Any]()

    def once(network: ImageNetwork) -> Any:
        if not made:
            made.append(prepared(network))
        return copy.deepcopy(made[0])

    monkeypatch.setattr(quantize, "prepared", once)


def recipe(crops: Path, workdir: Path) -> Config:
    """The configuration as it is, but for the size of the network, the length of its training and the data."""
    config = load_config(REPOSITORY / "configs" / "mobilenetv2_int8.yaml")
    data = SHORT.data[0]
    parts = {split: (data.model_copy(update={"root": crops / f"crops_{split}"}),) for split in ("train", "validation")}
    few = {"data": parts["train"], "validation": parts["validation"], "augmentation": SHORT.augmentation}
    short = {"epochs": 12, "crops_per_epoch": None, "batch_size": 32, "learning_rate": 5e-3}
    changes = {
        "workdir": workdir,
        "workers": 1,
        "image_network": config.image_network.model_copy(update={"size": 32, "width": 8, "dropout": 0.0}),
        "image_trainer": config.image_trainer.model_copy(update={**few, **short}),
        "image_quantizer": config.image_quantizer.model_copy(update={"learning_rate": 3e-4}),
    }
    return config.model_copy(update=changes)


def require_eight_bits(path: Path, workdir: Path) -> None:
    """MobileNetV2's convolutions and sums are computed in integers, and its weights cannot overflow."""
    proto = onnx.load(path)
    assert said_of(proto)["precision"] == "int8"
    kernels = kernels_of(path, workdir)
    sums = sum(isinstance(block, Inverted) and block.around for block in build("mobilenetv2", 32, width=8).modules())
    assert (kernels["QLinearConv"], kernels["QLinearAdd"], kernels["Conv"] + kernels["FusedConv"]) == (52, sums, 0)
    weights = [each for each in constants(proto) if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 4]
    assert len(weights) == 52
    # With larger ones, processors without VNNI instructions would overflow.
    assert all(np.abs(onnx.numpy_helper.to_array(each).astype(int)).max() <= 64 for each in weights)


@pytest.fixture(scope="module")
def prepared() -> FakeQuantized:
    """Preparing takes seconds, so that one is made of it; tests change copies."""
    return rounded_network()


def rounded_network() -> FakeQuantized:
    config = ImageNetworkConfig(size=32, width=8, dropout=0.3, covered=(0.25, 0.0, 0.0, 0.0))
    network = network_of(config, seed=1)
    return FakeQuantized(network.eval(), noise(seed=0), seed=1)


def noise(seed: int) -> torch.Tensor:
    return torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 255


@pytest.mark.parametrize(("name", "width"), [("custom_cnn", None), ("hopenet", 8)])
def test_networks_of_bins_are_written_in_eight_bits(
    folder: Path,  # noqa: F811
    name: str,
    width: int | None,
) -> None:
    """After a whole training with the roundings their pooling had no translation."""
    network = network_of(ImageNetworkConfig(name=name, size=32, width=width), seed=0)  # type: ignore[arg-type]
    fake = FakeQuantized(network, noise(seed=0))
    # A label beyond the bins would end the training.
    labels = rotation_from_degrees(torch.tensor([[10.0, 0.0, 0.0], [10.0, 0.0, 150.0]]))
    assert fake.trainable(labels).tolist() == [True, False]
    if name == "hopenet":
        # The last of 65 crops, on maps of 1 x 1; the graph has no layer by that name any more.
        parts = sources(folder, "train"), sources(folder, "validation")
        with pytest.raises(TrainingError, match="epoch of 65 crops is a single one"):
            train_image_network(fake, *parts, SHORT.model_copy(update={"crops_per_epoch": 65}), 0, Run())
    converted = fake.converted()
    graph = outputs_graph(converted, network.size)
    options = onnxruntime.SessionOptions()
    # As it is written: fused to integer operations, a number at a border may be rounded the other way.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: noise(seed=1).numpy()})
    with torch.no_grad():
        expected = converted(noise(seed=1)).numpy()
    assert found.shape == (8, 3, 66)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_dropout_is_the_networks_own(prepared: FakeQuantized) -> None:
    fake = copy.deepcopy(prepared)

    def dropout() -> list[Any]:
        return [node.args[1:] for node in fake.graph.graph.nodes if node.target == torch.ops.aten.dropout.default]

    assert dropout() == [(0.3, True)]
    fake.eval()
    assert dropout() == [(0.3, False)]
    fake.train()
    assert dropout() == [(0.3, True)]


def test_what_the_network_is_not_shown_its_roundings_are_not(prepared: FakeQuantized) -> None:
    crops = noise(seed=0)
    assert torch.equal(prepared.shown(crops), prepared.own.shown(crops))
    assert (prepared.shown(crops)[..., :8] == GREY).all()


def test_what_it_is_measured_on_moves_no_range(prepared: FakeQuantized) -> None:
    fake = copy.deepcopy(prepared).eval()
    before = copy.deepcopy(fake.state_dict())
    with torch.inference_mode():
        fake(10 * noise(seed=5))
    # The graph counts its batches in either mode; nothing reads that.
    assert {name.rpartition("num")[2] for name in changed(fake.state_dict(), before)} == {"_batches_tracked"}
    fake.train()(10 * noise(seed=5))
    assert any("activation_post_process" in name for name in changed(fake.state_dict(), before))


def test_a_network_is_prepared_the_same_again_and_draws_from_nobodys_generator(prepared: FakeQuantized) -> None:
    torch.rand(7)
    before = torch.get_rng_state()
    again = rounded_network()
    again.eval()
    again.train()
    assert torch.equal(torch.get_rng_state(), before)
    assert not changed(again.state_dict(), prepared.state_dict())


def test_a_training_that_broke_off_goes_on_to_the_same_bytes(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After every epoch, the last one, too: with dropout, which draws from the generator that a change of mode must
    leave alone, and with observers, which read values of another version otherwise."""
    config = SHORT.model_copy(update={"epochs": 3, "crops_per_epoch": 64})
    training, validation = sources(folder, "train"), sources(folder, "validation")

    def trained(run: Run) -> dict[str, torch.Tensor]:
        fake = rounded_network()
        train_image_network(fake, training, validation, config, 2, run)
        return fake.state_dict()

    undisturbed = trained(Run())

    def killed(*state: Any) -> None:
        write_checkpoint(*state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_loop, "write_checkpoint", killed)
        for _ in range(config.epochs):
            with pytest.raises(KeyboardInterrupt):
                trained(Run(checkpoints=tmp_path))
    assert not changed(trained(Run(checkpoints=tmp_path)), undisturbed)


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The names of the values that differ."""
    assert one.keys() == other.keys()
    return [name for name, values in one.items() if not torch.equal(values, other[name])]


def test_a_sum_is_rounded_behind_its_rectifier(prepared: FakeQuantized) -> None:
    """In ``six_d``'s blocks, where torchao alone would round neither what a convolution adds nor before the sum."""
    network, nodes = prepared.own, prepared.graph.graph.nodes
    sums = [node for node in nodes if node.target == torch.ops.aten.add.Tensor and len(node.all_input_nodes) == 2]
    blocks = [layer for layer in network.modules() if isinstance(layer, Block)]
    assert len(sums) == len(blocks) == 4
    for node in sums:
        (rectifier,) = node.users
        assert rectifier.target == torch.ops.aten.relu.default
        around = [*node.all_input_nodes, *rectifier.users]
        assert [str(each.target).rpartition("_")[0] for each in around] == ["activation_post_process"] * len(around)


def kernels_of(path: Path, workdir: Path) -> Counter[str]:
    """How often onnxruntime runs each kind of operation, once it has fused what belongs together."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(workdir / "optimised.onnx")
    options.log_severity_level = 3  # its warning that such a file suits this machine alone
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(workdir / "optimised.onnx").graph.node)


def answers(engine: ImageEngine, crops: Path) -> NDArray[np.float64]:
    """Rotations (N, 3, 3) of the first shard's heads."""
    shard = read_shards(crops)[0]
    faces = [Face(image, tuple(box)) for image, box in zip(shard.images, shard.boxes.tolist(), strict=True)]
    return engine.estimate(faces).rotation


def constants(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    nodes = [node for node in proto.graph.node if node.op_type == "Constant"]
    return [*proto.graph.initializer, *(each.t for node in nodes for each in node.attribute if each.name == "value")]
