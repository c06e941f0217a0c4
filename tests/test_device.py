"""Devices: named, there or refused, and kept to by everything that is computed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from nlml_hpe.cli import main
from nlml_hpe.config import EncoderConfig, TrainingConfig, TuckerConfig
from nlml_hpe.device import DeviceError, double_device, resolve_device, resolve_precision
from nlml_hpe.evaluation import command
from nlml_hpe.evaluation.options import add_arguments
from nlml_hpe.files.images import RgbImage
from nlml_hpe.head_network.losses import Heads, head_loss
from nlml_hpe.head_network.network import HeadNetwork
from nlml_hpe.image_networks.augment import augment
from nlml_hpe.image_networks.config import AugmentationConfig
from nlml_hpe.image_networks.network import Labels
from nlml_hpe.image_networks.network_training import averaged
from nlml_hpe.image_networks.registry import NETWORKS, build
from nlml_hpe.inference.backends import open_engine
from nlml_hpe.inference.engines import Route
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.encoder_training import Coordinates, encoder_augment, factor_rows, turned_in_plane
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.manifold_file import read_manifold
from nlml_hpe.manifold.networks import AngleHead, HeadPoseNetwork, LandmarkEncoder, NetworkShape
from nlml_hpe.manifold.passes import Arithmetic
from nlml_hpe.manifold.tucker import decompose
from nlml_hpe.model.folder import load_model
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import Angles
from nlml_hpe.training import train
from nlml_hpe.training_data import Batches, Samples, gaussian_noise
from nlml_hpe.training_run import Run
from stages.common import Workdir
from stages.config import Config
from tests.elsewhere import elsewhere


@pytest.fixture
def there() -> Iterator[torch.device]:
    with elsewhere() as device:
        yield device


@pytest.fixture(scope="module")
def tiny(tiny_run: Config) -> PoseManifold:
    return read_manifold(Workdir(tiny_run.workdir).manifold / "manifold.npz")


def test_a_device_is_there_or_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for name, present in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if present:
            assert resolve_device(name).type == name
        else:
            with pytest.raises(DeviceError, match=f"{name}.*finds none in this machine; use 'auto' or 'cpu'"):
                resolve_device(name)
    with pytest.raises(DeviceError, match="expected one of auto, cpu, cuda, mps"):
        resolve_device("gpu")


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_first_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto").type == chosen


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [({"avx2": True, "avx512_bf16": False}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_auto_is_half_precision_where_a_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], chosen: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == chosen
    assert (resolve_precision("float32", cpu), resolve_precision("bfloat16", cpu)) == ("float32", "bfloat16")
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # torch of before 2.10 cannot tell
    assert resolve_precision("auto", cpu) == "float32"


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_is_half_precision_where_a_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda")) == chosen


def test_doubles_stay_on_the_cpu_for_mps() -> None:
    assert double_device(torch.device("mps")) == torch.device("cpu")
    assert double_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_the_device_is_no_part_of_what_an_artefact_depends_on(tmp_path: Path) -> None:
    one, other = (Config.model_validate({"workdir": str(tmp_path), "device": name}) for name in ("cpu", "auto"))
    names = [name for name in Config.model_fields if name not in ("workdir", "device", "workers", "cluster")]
    assert one.sections(*names) == other.sections(*names)
    assert "device" not in str(one.sections(*names))


def test_a_file_that_names_the_device_of_the_tucker_section_is_read(tmp_path: Path) -> None:
    data = {"workdir": str(tmp_path), "tucker": {"device": "cuda", "hooi_sweeps": 1}}
    read = Config.model_validate(data)
    assert read.device == "cuda"
    assert read.tucker == TuckerConfig(hooi_sweeps=1)
    with pytest.raises(ValidationError, match="device"):
        Config.model_validate({"workdir": str(tmp_path), "device": "gpu"})


def test_the_test_device_refuses_what_a_gpu_would(there: torch.device) -> None:
    with pytest.raises(AssertionError, match="mixes"):
        torch.zeros(3, device=there) + torch.zeros(3)
    assert (torch.zeros(3, device=there) + torch.ones(3).to(there)).device == there


def test_networks_keep_to_their_device(there: torch.device) -> None:
    shape = NetworkShape(12, (3, 3, 3), (8, 8), (8, 8))
    for network, size in ((HeadPoseNetwork(shape), 12), (LandmarkEncoder(12, 9, (8, 8)), 12), (AngleHead(3, (8,)), 3)):
        answer = network.to(there)(torch.zeros(2, size, device=there))
        assert answer.device == there


def test_augmentation_keeps_to_its_device(there: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)  # this device has none of its own
    features, angles = torch.ones(4, 12, device=there), torch.zeros(4, 3, device=there)
    inside = Coordinates(torch.ones(5, 12, device=there), torch.zeros(5, device=there), 0.1)
    changes: list[Callable[[], tuple[Tensor, Tensor]]] = [
        lambda: turned_in_plane(features, angles, torch.full((4,), 0.5, device=there)),
        lambda: gaussian_noise(torch.full((), 0.5, device=there))(features, angles, generator),
        lambda: encoder_augment(EncoderConfig(turn_deg=20), inside)(features, angles, generator),
    ]
    for change in changes:
        assert [tensor.device for tensor in change()] == [there, there]


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in sorted(NETWORKS)), ("mobilenetv2", {"answer": "angles"})]
)
def test_image_networks_and_their_losses_keep_to_their_device(name: str, settings: dict[str, str]) -> None:
    """What is shown of a crop, answer, loss and gradient, with labels of a batch that are elsewhere, too."""
    torch.manual_seed(0)
    network = build(name, 64, **settings).eval()
    network.covered = (0.1, 0.0, 0.1, 0.2)
    crops, rotations, confidence = torch.rand(2, 3, 64, 64) * 255, torch.eye(3).expand(2, 3, 3), torch.ones(2)
    with elsewhere() as there:
        away = network.to(there)
        shown = away.shown(crops.to(there))
        labels = Labels(rotations.to(there), confidence.to(there))
        outputs = away(shown)
        loss = away.loss(outputs, labels)
        loss.backward()
        answer = away.posterior(outputs)
        assert {tensor.device for tensor in (shown, loss, answer.rotation)} == {there}
        assert away.trainable(labels.rotations).device == there
        assert {weights.grad.device for weights in away.parameters() if weights.grad is not None} == {there}


def test_weights_are_averaged_where_they_are(there: torch.device) -> None:
    """Those that a training began with were kept before it moved the network."""
    begun, trained = nn.Linear(2, 1).state_dict(), nn.Linear(2, 1).to(there).state_dict()
    assert {values.device for values in averaged(begun, trained, 0.5).values()} == {there}


def test_the_network_of_heads_and_its_loss_keep_to_their_device() -> None:
    """With a head to be found, one that may be, and none, whose places are elsewhere, too."""
    torch.manual_seed(0)
    network, images = HeadNetwork(width=8).eval(), torch.rand(2, 3, 64, 64) * 255
    boxes, kinds = torch.tensor([[[8.0, 8.0, 40.0, 48.0]] * 3] * 2), torch.tensor([[1.0, 0.0, -1.0]] * 2)
    with elsewhere() as there:
        away = network.to(there)
        loss = head_loss(away(images.to(there)), Heads(boxes.to(there), boxes.to(there), kinds.to(there)))
        loss.backward()
        assert loss.device == there
        assert {weights.grad.device for weights in away.parameters() if weights.grad is not None} == {there}


def test_augmentation_of_crops_keeps_to_its_device(there: torch.device) -> None:
    """Every change to every crop: what has a probability has that of one."""
    chances = dict.fromkeys(("mirror", "grey", "soft", "filter", "blocks", "erase", "frame", "surround"), 1.0)
    settings = AugmentationConfig(**chances)
    boxes = torch.tensor([[24.0, 24.0, 72.0, 72.0]]).expand(2, 4).to(there)
    images = torch.full((2, 96, 96, 3), 99, dtype=torch.uint8).to(there)
    generator = torch.Generator().manual_seed(0)  # this device has none of its own
    crops, shown = augment(images, torch.eye(3).expand(2, 3, 3).to(there), boxes, 64, settings, generator)
    assert (crops.device, shown.device) == (there, there)


def test_factor_rows_keep_to_their_device(tiny: PoseManifold, there: torch.device) -> None:
    rows = factor_rows(tiny, there)(torch.zeros(2, 3, device=there))
    assert rows.device == there
    # float32 against float64
    np.testing.assert_allclose(rows.cpu().numpy()[0], tiny.factor_rows(Angles(*np.zeros(3))), atol=1e-5)


@pytest.mark.parametrize("statistical", [False, True])
@pytest.mark.parametrize("seeded", [False, True])
def test_the_inverse_keeps_to_its_device(tiny: PoseManifold, statistical: bool, seeded: bool) -> None:
    rng = np.random.default_rng(0)
    angles = Angles.from_columns(rng.uniform(-10, 10, size=(6, 3)))
    features = tiny.synthesize(np.repeat(tiny.prior.mean[None], 6, axis=0), angles)
    features += 0.01 * rng.normal(size=features.shape)
    seeds = angles if seeded else None
    here = tiny.infer(features, seeds=seeds, statistical=statistical)
    with elsewhere() as there:
        away = tiny.infer(features, seeds=seeds, statistical=statistical, device=there)
    np.testing.assert_array_equal(away.angles.columns(), here.angles.columns())
    np.testing.assert_array_equal(away.covariance, here.covariance)


def test_the_decomposition_keeps_to_its_device() -> None:
    grid = PoseGrid((-20.0, 0.0, 20.0), (-10.0, 0.0, 10.0), (0.0, 10.0))
    tensor = np.random.default_rng(0).normal(size=(4, *grid.shape, 30)).astype(np.float32)
    here = decompose(tensor, (2, 2, 2, 2), grid)
    with elsewhere() as there:
        away = decompose(tensor, (2, 2, 2, 2), grid, arithmetic=Arithmetic(device=there))
    np.testing.assert_array_equal(away.core, here.core)


def test_batches_come_to_the_device(there: torch.device) -> None:
    class Numbers(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, float]]:
            return np.full(2, index, dtype=np.float32), {"value": float(index)}

    for inputs, targets, _ in Batches(Numbers(), 2, there).in_order():
        assert inputs.device == targets["value"].device == there


@pytest.mark.parametrize("noisy", [False, True])
def test_a_training_keeps_to_its_device(monkeypatch: pytest.MonkeyPatch, noisy: bool) -> None:
    """The whole loop on another device gives what it gives here: nothing in it chose a device of its own."""
    x = torch.linspace(-1, 1, 32)[:, None]
    data = Samples(x, 2 * x)

    def weight(device: torch.device) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            line = nn.Linear(1, 1)
        train(
            line,
            nn.functional.mse_loss,
            data,
            data,
            TrainingConfig(epochs=3, batch_size=8),
            0,
            "line",
            augment=gaussian_noise(torch.full((), 0.1, device=device)) if noisy else None,
            metrics={"mae": lambda outputs, targets: (outputs - targets).abs()},
            run=Run(device),
        )
        assert line.weight.device.type == device.type
        return line.weight.item()

    here, generator = weight(torch.device("cpu")), torch.Generator
    # The device of this test has no generators.
    monkeypatch.setattr(torch, "Generator", lambda *device: generator())
    with elsewhere() as there:
        away = weight(there)
    # There the noise comes from a generator of its own, as on a GPU.
    assert (away == here) is not noisy


class GeneratorOfAGpu(torch.Generator):
    """Draws on the CPU, and has the state of a GPU's: 16 bytes, and no other is taken."""

    def get_state(self) -> Tensor:
        return torch.zeros(16, dtype=torch.uint8)

    def set_state(self, new_state: Tensor) -> torch.Generator:
        if len(new_state) != 16:
            raise RuntimeError("RNG state is wrong size")
        return self


def test_a_training_goes_on_where_another_device_began_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A checkpoint of the CPU was called damaged on a GPU, whose generator's state is another one."""
    x = torch.linspace(-1, 1, 32)[:, None]
    data, config = Samples(x, 2 * x), TrainingConfig(epochs=3, batch_size=8)
    fixed = (nn.functional.mse_loss, data, data, config, 0, "line")
    begun = train(nn.Linear(1, 1), *fixed, run=Run(checkpoints=tmp_path))
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda *device: GeneratorOfAGpu() if device else generator())
    with elsewhere() as there:
        assert train(nn.Linear(1, 1), *fixed, run=Run(there, checkpoints=tmp_path)) == begun


@pytest.mark.parametrize("route", ["network", "exact", "refined"])
def test_an_engine_keeps_to_its_device(tiny_run: Config, route: Route) -> None:
    model = load_model(Workdir(tiny_run.workdir).model)
    manifold = model.manifold
    angles = Angles.from_columns([(10.0, 5.0, -5.0), (-20.0, 0.0, 0.0)])
    features = manifold.synthesize(np.repeat(manifold.prior.mean[None], 2, axis=0), angles).astype(np.float32)
    here = TorchEngine(model).own_estimates(features, route)
    with elsewhere() as there:
        away = TorchEngine(model, there).own_estimates(features, route)
    np.testing.assert_array_equal(away.rotation, here.rotation)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that this machine has")
def test_estimator_and_evaluation_say_that_a_device_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="'cuda' was asked for"):
        open_engine(SHIPPED, "torch", "cuda")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    asked = ["--dataset", "biwi", "--root", str(tmp_path), "--output", str(tmp_path / "out"), "--device", "cuda"]
    with pytest.raises(DeviceError, match="'cuda' was asked for"):
        command.run(parser.parse_args(asked))


def test_the_command_line_passes_the_device_on(
    photo: RgbImage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    predict = ["predict", str(tmp_path / "photo.png"), "--json"]
    assert main([*predict, "--backend", "torch", "--device", "cpu"]) == 0
    assert '"yaw"' in capfd.readouterr().out
    refused = {"computes on the CPU": ["--device", "cuda"]}
    if not torch.backends.mps.is_available():
        refused["'mps' was asked for"] = ["--device", "mps", "--backend", "torch", "--detector", "facemesh_onnx"]
    for message, options in refused.items():
        assert main([*predict, *options]) == 1
        assert message in capfd.readouterr().err


def test_onnx_refuses_another_device_and_torch_takes_the_named_one() -> None:
    with pytest.raises(DeviceError, match="backend='torch'"):
        HeadPoseEstimator(device="cuda")
    engine = open_engine(SHIPPED, "torch", "cpu")
    assert isinstance(engine, TorchEngine)
    assert engine.device == torch.device("cpu")
