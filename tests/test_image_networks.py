"""Image networks: losses by hand, each network learns, weights are read safely, sizes are as published."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from safetensors.torch import save_file
from torch import Tensor

from nlml_hpe.image_networks.hopenet import HopeNet
from nlml_hpe.image_networks.losses import (
    ROTATION_LOSSES,
    LabelError,
    binned,
    bins_of,
    geodesic,
    geodesic_huber,
    negative_log_likelihood,
)
from nlml_hpe.image_networks.network import ImageNetwork, WeightsError, size_of
from nlml_hpe.image_networks.registry import NETWORKS, build
from nlml_hpe.image_networks.weights import load_backbone, load_state, read_state
from nlml_hpe.torch_rotation import rotation_from_degrees

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL: dict[str, dict[str, object]] = {
    "hopenet": {"width": 8},
    "custom_cnn": {"dropout": 0.0},
    "mobilenetv2": {"width": 8, "dropout": 0.0},
    "six_d": {"width": 8, "dropout": 0.0},
}


def poses(count: int, seed: int = 0) -> Tensor:
    """Angles (count, 3) in degrees."""
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 120 - 60


def pictures(rotations: Tensor, size: int) -> Tensor:
    """Crops (N, 3, size, size) whose colours are an easy riddle for the rotation."""
    ramp = torch.linspace(-1, 1, size)
    axis = rotations[:, :, 2]
    return 127 + 100 * torch.clamp(
        axis[:, :, None, None] * ramp + rotations[:, :, 0, None, None] * ramp[:, None], -1, 1
    )


def test_the_geodesic_loss_is_finite_where_its_angle_has_no_gradient() -> None:
    same = torch.eye(3)[None].requires_grad_()
    opposite = torch.diag(torch.tensor([1.0, -1.0, -1.0]))[None]
    for true in (torch.eye(3)[None], opposite):
        loss = geodesic_huber(same, true)
        (gradient,) = torch.autograd.grad(loss, same)
        assert gradient.abs().max() < 1
    # A bound of one in a million under the sine takes a tenth of a degree off half a turn.
    assert float(geodesic(torch.eye(3)[None], opposite)) == pytest.approx(np.pi, abs=0.003)


def test_each_rotation_has_its_own_loss() -> None:
    turns = torch.tensor([0.1, 0.4])
    true = roma.rotvec_to_rotmat(torch.stack([turns * 0, turns, turns * 0], dim=1))
    delta = np.radians(10)
    expected = {"geodesic": turns, "chordal": 1 - turns.cos(), "huber": [0.1**2 / 2, delta * (0.4 - delta / 2)]}
    for name, loss in ROTATION_LOSSES.items():
        np.testing.assert_allclose(loss(torch.eye(3).expand(2, 3, 3), true), expected[name], rtol=1e-3)


def test_six_d_learns_by_the_loss_that_is_named() -> None:
    turn = 0.5
    outputs = torch.tensor([[1.0, 0, 0, 1, 0, 0, *[0.0] * 6]])
    true = roma.rotvec_to_rotmat(torch.tensor([[0.0, turn, 0.0]]))
    delta = np.radians(10)
    # The likelihood of the covariance is the same beside each.
    found = {name: float(build("six_d", 32, width=8, loss=name).losses(outputs, true)) for name in ROTATION_LOSSES}
    assert found["geodesic"] - found["chordal"] == pytest.approx(turn - (1 - np.cos(turn)), abs=1e-5)
    assert found["huber"] - found["chordal"] == pytest.approx(delta * (turn - delta / 2) - (1 - np.cos(turn)), abs=1e-5)
    with pytest.raises(ValueError, match=r"unknown loss 'mse'; expected one of \['chordal', 'geodesic', 'huber'\]"):
        build("six_d", 32, loss="mse")


def test_the_likelihood_is_that_of_a_normal_distribution() -> None:
    factor = torch.tensor([[[0.2, 0, 0], [0.05, 0.1, 0], [-0.02, 0.03, 0.3]]])
    error = torch.tensor([[0.1, -0.2, 0.15]])
    estimated = rotation_from_degrees(torch.tensor([[40.0, -20.0, 30.0]]))
    true = roma.rotvec_to_rotmat(error) @ estimated
    normal = torch.distributions.MultivariateNormal(torch.zeros(3), scale_tril=factor[0])
    constant = 1.5 * np.log(2 * np.pi)
    expected = -float(normal.log_prob(error[0])) - constant
    found = negative_log_likelihood(estimated.expand(2, 3, 3), torch.cat([factor, torch.eye(3)[None]]), true)
    assert found.tolist() == pytest.approx([expected, 0.5 * float((error**2).sum())], abs=1e-4)


def test_the_dual_loss_is_crossentropy_and_squared_error() -> None:
    logits = torch.zeros(2, 3, 66)
    # Even logits: log 66 nats an angle, and an expected angle of -1.5 degrees.
    angles = torch.tensor([[0.0, 1.5, -1.5]]).expand(2, 3)
    squared = np.mean([1.5**2, 3.0**2, 0.0])
    even = 3 * (np.log(66) + 0.5 * squared)
    assert float(binned(logits, angles, alpha=0.5).mean()) == pytest.approx(even, rel=1e-5)
    # A face has its own, whatever the batch: of one that is sure of the right bins no cross-entropy is left.
    logits[0, range(3), [33, 33, 32]] = 99.0
    first, second = binned(logits, angles, alpha=0.5).tolist()
    assert first == pytest.approx(0.5 * 2 * 1.5**2, rel=1e-5)
    assert second == pytest.approx(even, rel=1e-5)
    for name in ("custom_cnn", "hopenet"):
        rotations = rotation_from_degrees(angles)
        both = build(name, 64, alpha=0.5).losses(logits, rotations).tolist()
        assert both == pytest.approx([first, second], rel=1e-4)


def test_labels_outside_of_the_bins_are_counted_not_clipped() -> None:
    with pytest.raises(LabelError, match=r"2 of 4 angles .* bins, -99 to 99 degrees, .* 120\.0"):
        bins_of(torch.tensor([0.0, 120.0, -99.5, 98.9]))
    with pytest.raises(LabelError, match="1 of 1 angles"):
        bins_of(torch.tensor([99.0]))
    network = build("custom_cnn", 32)
    rotations = rotation_from_degrees(torch.tensor([[10.0, 0.0, 0.0], [10.0, 0.0, 150.0]]))
    assert network.trainable(rotations).tolist() == [True, False]
    assert build("six_d", 64).trainable(rotations).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_learns_an_easy_riddle(name: str) -> None:
    """Loss falls, answers follow the image, and outputs are rotations."""
    torch.manual_seed(0)
    network = build(name, 32, **SMALL[name])
    rotations = rotation_from_degrees(poses(32))
    crops = pictures(rotations, 32)
    optimizer = torch.optim.Adam([w for w in network.parameters() if w.requires_grad], lr=3e-3)
    losses = []
    for _ in range(40):
        loss = network.losses(network(crops), rotations).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    found = network.posterior(network(crops)).rotation
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(3).expand(32, 3, 3), atol=1e-4, rtol=0)
    # A network that answers the same to every image is right about none: its error is the spread of the poses.
    error, spread = geodesic(found, rotations).mean(), geodesic(found.roll(1, 0), rotations).mean()
    assert error < 0.6 * spread


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("size", [64, 80])
def test_every_network_takes_any_input_size(name: str, size: int) -> None:
    network = build(name, size, **SMALL[name]).eval()
    posterior = network.posterior(network(torch.rand(2, 3, size, size) * 255))
    assert posterior.rotation.shape == (2, 3, 3)
    torch.testing.assert_close(torch.linalg.det(posterior.rotation), torch.ones(2), atol=1e-4, rtol=0)


def test_the_covariance_is_one() -> None:
    network = build("six_d", 64)
    covariance = network.posterior(torch.randn(16, 12, generator=torch.Generator().manual_seed(3))).covariance
    assert covariance is not None
    torch.testing.assert_close(covariance, covariance.transpose(1, 2))
    assert (torch.linalg.eigvalsh(covariance) > 0).all()
    assert build("custom_cnn", 32).posterior(torch.zeros(1, 3, 66)).covariance is None


def test_saved_weights_go_on_to_mean_what_they_meant() -> None:
    """A training learns any reading of its outputs; what was trained before, here or by others, has one alone."""
    angles = torch.tensor([[45.0, -22.5, 11.25]])
    columns = 2 * rotation_from_degrees(angles)[:, :, :2].reshape(1, 6)
    six_d = build("six_d", 32, width=8)
    spread = torch.tensor([[0.2, -0.5, 0.0, 0.3, -0.4, 0.7]])
    rotation, factor = six_d.posterior(torch.cat([columns, spread], dim=1))
    torch.testing.assert_close(rotation, rotation_from_degrees(angles), atol=1e-5, rtol=0)
    first, second, third = (0.005 + 0.15 * np.exp([0.2, -0.5, 0.0])).tolist()
    by_hand = [[first, 0, 0], [0.3 * second, second, 0], [-0.4 * third, 0.7 * third, third]]
    torch.testing.assert_close(factor, torch.tensor([by_hand]))
    # However unsure or sure a network is, the numbers stay finite.
    bounds = six_d.posterior(torch.cat([columns, torch.tensor([[99.0, -99.0, 0, 0, 0, 0]])], dim=1)).factor
    expected = torch.tensor([0.005 + 0.15 * np.exp(4.0), 0.005 + 0.15 * np.exp(-6.0), 0.155], dtype=torch.float32)
    assert bounds is not None
    torch.testing.assert_close(bounds[0].diagonal(), expected)
    for answer, outputs in (("six_d", columns), ("angles", torch.tensor([[1.0, -0.5, 0.25]]))):
        found = build("mobilenetv2", 32, answer=answer, width=8).posterior(outputs).rotation
        torch.testing.assert_close(found, rotation_from_degrees(angles), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["custom_cnn", "mobilenetv2", "six_d"])
def test_dropout_is_of_training_alone(name: str) -> None:
    network, crops = build(name, 32, dropout=0.5), pictures(rotation_from_degrees(poses(4)), 32)
    assert not torch.equal(network(crops), network(crops))
    network.eval()
    assert torch.equal(network(crops), network(crops))


def test_hopenets_published_weights_say_yaw_pitch_and_roll_of_crops_normalised_as_theirs() -> None:
    network = HopeNet(64, width=8).eval()
    given: list[Tensor] = []
    network.conv1.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    for name, place in (("yaw", 43), ("pitch", 26), ("roll", 33)):
        layer = getattr(network, f"fc_{name}")
        layer.weight.data.zero_()
        layer.bias.data.zero_()[place] = 99
    # ImageNet's mean of each channel, and one deviation above it and below.
    color = 255 * torch.tensor([0.485 + 0.229, 0.456, 0.406 - 0.225])
    found = network.posterior(network(color[:, None, None].expand(1, 3, 64, 64))).rotation
    torch.testing.assert_close(given[0][0, :, 0, 0], torch.tensor([1.0, 0.0, -1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, rotation_from_degrees(torch.tensor([[30.0, -21.0, 0.0]])), atol=1e-4, rtol=0)


def test_how_sure_it_is_does_not_change_what_it_says() -> None:
    """The likelihood reaches the layers of the spread alone."""
    network: ImageNetwork = build("six_d", 32, width=8)
    rotations = rotation_from_degrees(poses(4))
    rotation, factor = network.posterior(network(pictures(rotations, 32)))
    assert factor is not None
    negative_log_likelihood(rotation.detach(), factor, rotations).mean().backward()
    gradients = {name: weights.grad for name, weights in network.named_parameters() if weights.grad is not None}
    touched = {name.split(".")[0] for name, gradient in gradients.items() if gradient.abs().max() > 0}
    assert touched == {"spread"}
    # Nor in the loss of which it is a part.
    outputs = torch.randn(4, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    whole, alone = network.losses(outputs, rotations), geodesic_huber(network.posterior(outputs).rotation, rotations)
    of_whole, of_alone = (torch.autograd.grad(loss.sum(), outputs)[0] for loss in (whole, alone))
    torch.testing.assert_close(of_whole[:, :6], of_alone[:, :6])
    assert of_whole[:, 6:].abs().min() > 0


@pytest.mark.parametrize(
    ("name", "millions"), [("hopenet", (23.8, 24.1)), ("custom_cnn", (12, 14)), ("mobilenetv2", (2.2, 2.3))]
)
def test_sizes_are_those_of_the_published_networks(name: str, millions: tuple[float, float]) -> None:
    found = size_of(build(name, 224))
    assert millions[0] < found.parameters / 1e6 < millions[1]
    assert str(found).endswith("M MACs")


def test_macs_are_counted_by_hand() -> None:
    network = build("custom_cnn", 32)
    pixels = 32 * 32
    # Each block halves the map before the next; then 2 x 2 maps of 256 to 256 and to 198.
    by_hand = 9 * (3 * 32 * pixels + 32 * 64 * pixels // 4 + 64 * 128 * pixels // 16 + 128 * 256 * pixels // 64)
    assert size_of(network).macs == by_hand + 4 * 256 * 256 + 256 * 198


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match="custom_cnn"):
        build("crayon", 64)
    with pytest.raises(ValueError, match="resnet50"):
        build("six_d", 64, backbone="crayon")


def published(path: Path, **changes: object) -> Path:
    """A file in the layout that HopeNet's authors publish; torch of its time knew no counters of batches."""
    state = {k: v for k, v in HopeNet(64).state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save({**state, **changes}, path)
    return path


def test_hopenets_published_layout_is_read(tmp_path: Path) -> None:
    path = published(tmp_path / "hopenet_robust_alpha1.pkl")
    state = torch.load(path, weights_only=True)
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.running_var", "fc_yaw.bias"} <= state.keys()
    assert state["fc_finetune.weight"].shape == (3, 2051)
    network = HopeNet(64)
    load_state(network, path)
    assert torch.equal(network.fc_yaw.weight, state["fc_yaw.weight"])
    assert torch.equal(network.state_dict()["layer3.5.conv2.weight"], state["layer3.5.conv2.weight"])


def test_other_weights_are_refused_by_name_and_shape(tmp_path: Path) -> None:
    path, network = tmp_path / "weights.pkl", HopeNet(64)
    with pytest.raises(WeightsError, match="no such file"):
        load_state(network, path)
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"without bn1\.bias \(64,\)"):
        load_state(network, path)
    with pytest.raises(WeightsError, match=r"fc_yaw\.weight is \(62, 2048\), expected \(66, 2048\)"):
        load_state(network, published(path, **{"fc_yaw.weight": torch.zeros(62, 2048)}))
    with pytest.raises(WeightsError, match=r"1 differences: with the unknown layer5\.0\.conv1\.weight \(3,\)"):
        load_state(network, published(path, **{"layer5.0.conv1.weight": torch.zeros(3)}))
    path.write_bytes(b"not a file of torch")
    with pytest.raises(WeightsError, match="not a state dict"):
        load_state(network, path)
    safe = path.with_suffix(".safetensors")
    save_file({"conv1.weight": torch.zeros(2)}, safe)
    assert read_state(safe)["conv1.weight"].shape == (2,)
    safe.write_bytes(safe.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not a state dict"):
        read_state(safe)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch reads on, and fails
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_weights_that_is_damaged_anywhere_is_named(tmp_path: Path, zipped: bool) -> None:
    path, rng = tmp_path / "weights.pkl", np.random.default_rng(0)
    torch.save(HopeNet(64, width=8).state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(150):
        changed = whole[: rng.integers(1, len(whole))].copy()
        changed[rng.integers(min(len(changed), 3000), size=4)] = rng.integers(256, size=4)
        path.write_bytes(changed.tobytes())
        with pytest.raises(WeightsError, match=r"weights\.pkl"):
            read_state(path)


def test_weights_without_names_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(2)}, tmp_path / "weights.pkl")
    with pytest.raises(WeightsError, match="expected a state dict, names to tensors"):
        load_backbone(build("six_d", 64), tmp_path / "weights.pkl")
    # As many keep a training's state: which of its names holds the weights is for the user to see.
    for torn in ({"epoch": 3, "a": torch.zeros(2)}, {"a": torch.zeros(2), 0: torch.zeros(2)}, ["a"]):
        torch.save(torn, tmp_path / "checkpoint.tar")
        with pytest.raises(WeightsError, match="expected a state dict, names to tensors"):
            read_state(tmp_path / "checkpoint.tar")
    torch.save({"epoch": 3, "model_state_dict": {"a": torch.zeros(2)}}, tmp_path / "checkpoint.tar")
    with pytest.raises(WeightsError, match=r"received a dict of 'epoch' \(int\), 'model_state_dict' \(dict\)"):
        read_state(tmp_path / "checkpoint.tar")


def test_a_file_of_weights_that_fills_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of torch's zip archives members may be compressed: a megabyte of zeros made gigabytes."""
    monkeypatch.setattr("nlml_hpe.image_networks.weights.MAX_WEIGHTS_BYTES", 1_000_000)
    torch.save({"conv1.weight": torch.zeros(1_000_000)}, tmp_path / "whole.pkl")
    with (
        zipfile.ZipFile(tmp_path / "whole.pkl") as whole,
        zipfile.ZipFile(tmp_path / "weights.pkl", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert (tmp_path / "weights.pkl").stat().st_size < 100_000
    with pytest.raises(WeightsError, match=r"weights\.pkl: larger than 1000000 bytes"):
        read_state(tmp_path / "weights.pkl")


class Room:
    """What torch takes from a pickle, and makes room for."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return (bytearray, (2**62,))


def test_weights_that_ask_for_more_memory_than_there_is_are_named(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Room()}, tmp_path / "weights.pkl")
    with pytest.raises(WeightsError, match=r"weights\.pkl: not a state dict"):
        read_state(tmp_path / "weights.pkl")


class Trap:
    """What a pickle may do when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("trapped"),))


def test_no_code_in_a_file_of_weights_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"conv1.weight": Trap()}, tmp_path / "zipped.pkl")
    for name in ("weights.pkl", "zipped.pkl"):
        with pytest.raises(WeightsError, match=r"read safely$"):  # and no advice to run it
            read_state(tmp_path / name)
    assert not (tmp_path / "trapped").exists()
