"""Networks and their training: the paper's layers, the best epoch, the same weights from the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from nlml_hpe.config import AngleHeadsConfig, EncoderConfig, TrainingConfig
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.manifold.encoder_training import Coordinates, detected_faces, train_encoder, turned_in_plane
from nlml_hpe.manifold.head_training import train_heads
from nlml_hpe.manifold.manifold_file import read_manifold
from nlml_hpe.manifold.networks import HeadPoseNetwork, LandmarkEncoder, NetworkShape
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.model.components import FORMAT
from nlml_hpe.model.folder import load_model, save_model
from nlml_hpe.rotation import Angles, rotate_image_points, rotation_from_angles
from nlml_hpe.training import train
from nlml_hpe.training_data import Samples
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import Run
from stages.common import Workdir
from stages.config import Config


def layer_sizes(module: nn.Module) -> list[int]:
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def test_the_defaults_are_the_papers_layers() -> None:
    shape = NetworkShape(1404, (3, 3, 3), EncoderConfig().hidden, AngleHeadsConfig().hidden)
    network = HeadPoseNetwork(shape)
    assert layer_sizes(network.encoder) == [1404, 1024, 512, 256, 128, 64, 9]
    kinds = [type(layer).__name__ for layer in network.encoder.layers if not isinstance(layer, nn.Linear)]
    assert kinds == ["ReLU"] * 4 + ["Tanh"]
    for head in network.heads:
        assert layer_sizes(head) == [3, 128, 256, 128, 64, 1]
        assert all(isinstance(layer, (nn.Linear, nn.ReLU)) for layer in head.layers)
    assert network(torch.zeros(2, 1404)).shape == (2, 3)


def line(seed: int, slope: float = 3.0) -> Samples:
    inputs = torch.randn(64, 1, generator=torch.Generator().manual_seed(seed))
    return Samples(inputs, slope * inputs)


def flat() -> nn.Linear:
    """A line of slope zero: the same start in every run."""
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def mean_square(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return ((first - second) ** 2).mean()


# On its way from slope 0 to slope 3 the network passes the slope of 1 that validation asks for.
PASSING = {"batch_size": 64, "learning_rate": 0.3}


def test_the_best_epoch_is_what_is_kept() -> None:
    network = flat()
    config = TrainingConfig(epochs=12, patience=12, **PASSING)
    validation = line(2, slope=1.0)
    history = train(network, mean_square, line(1), validation, config, 0, "line")
    assert history.best_epoch == int(np.argmin(history.validation))
    assert 1 <= history.best_epoch <= 6
    kept = mean_square(network(validation.inputs), validation.targets).item()
    assert kept == pytest.approx(min(history.validation), rel=1e-5)
    assert history.validation[-1] > 2 * kept


def test_training_stops_when_nothing_is_gained() -> None:
    config = TrainingConfig(epochs=200, patience=3, **PASSING)
    history = train(flat(), mean_square, line(1), line(2, slope=1.0), config, 0, "line")
    assert len(history.validation) == history.best_epoch + 4 < 200


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    broken = Samples(torch.full((8, 1), float("nan")), torch.zeros(8, 1))
    with pytest.raises(TrainingError, match="not finite"):
        train(nn.Linear(1, 1), mean_square, broken, broken, TrainingConfig(epochs=2), 0, "line")
    with pytest.raises(TrainingError, match="at least one"):
        Samples(torch.zeros(0, 1), torch.zeros(0, 1))


def test_the_same_seed_gives_the_same_weights(tiny_run: Config) -> None:
    work = Workdir(tiny_run.workdir)
    tensor = LandmarkTensor.open(work.landmarks_train)
    manifold = read_manifold(work.manifold / "manifold.npz")
    first, second, other = (
        train_encoder(tensor, manifold, tiny_run.encoder, seed)[0].state_dict() for seed in (1, 1, 2)
    )
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_the_first_layer_takes_the_projection_in(tiny_run: Config) -> None:
    work = Workdir(tiny_run.workdir)
    manifold = read_manifold(work.manifold / "manifold.npz")
    features = torch.from_numpy(detected_faces(LandmarkTensor.open(work.landmarks_train), np.arange(2)).features)
    inside = Coordinates.of(manifold, features)
    seen = inside(features)
    assert seen.mean(dim=0).abs().max() < 1e-3
    assert seen.var(dim=0).mean().item() == pytest.approx(1, rel=1e-3)
    encoder = LandmarkEncoder(seen.shape[1], 9, (32, 16)).eval()
    with torch.inference_mode():
        # float32 sums of 1404 terms against sums of a few dozen: a few units of 1e-5.
        torch.testing.assert_close(inside.folded_into(encoder)(features), encoder(seen), atol=1e-4, rtol=1e-4)
    with pytest.raises(TrainingError, match="no noise statistics"):
        Coordinates.of(replace(manifold, noise=None), features)


def test_an_image_turned_in_its_plane_keeps_its_face() -> None:
    """Points made by rotating a face must turn into those of the turned rotation, and nothing else may change."""
    rng = np.random.default_rng(5)
    face = rng.normal(size=(468, 3))
    angles = Angles.from_columns(rng.uniform([-90, -60, -60], [90, 60, 60], size=(50, 3)))
    turns = rng.uniform(-60, 60, size=50)
    features = rotate_image_points(face, rotation_from_angles(angles)).reshape(50, -1).astype(np.float32)
    columns = torch.from_numpy(angles.columns().astype(np.float32))
    turned, new = turned_in_plane(torch.from_numpy(features), columns, torch.deg2rad(torch.from_numpy(turns).float()))
    in_plane = Rotation.from_euler("z", turns[:, None], degrees=True).as_matrix()
    expected = in_plane @ rotation_from_angles(angles)
    found = rotation_from_angles(Angles.from_columns(new.double().numpy()))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    points = rotate_image_points(face, expected).reshape(50, -1)
    np.testing.assert_allclose(turned.numpy(), points, atol=1e-4)


def test_no_faces_are_turned_in_their_plane_to_none() -> None:
    features, angles = turned_in_plane(torch.zeros(0, 6), torch.zeros(0, 3), torch.zeros(0))
    assert (features.shape, angles.shape) == ((0, 6), (0, 3))


def test_curves_go_to_tensorboard_where_asked(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, tensorboard=True)
    train(flat(), mean_square, line(1), line(2), config, 0, "line", run=Run(log_folder=tmp_path))
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_heads_invert_the_cosines(tiny_run: Config) -> None:
    manifold = read_manifold(Workdir(tiny_run.workdir).manifold / "manifold.npz")
    config = AngleHeadsConfig(epochs=15, samples=4000, hidden=(64, 64))
    heads, _ = train_heads(manifold, config, 0)
    for axis, head in enumerate(heads):
        degrees = np.linspace(manifold.grid.axes[axis][0], manifold.grid.axes[axis][-1], 50)
        rows = torch.from_numpy(manifold.axis_rows(axis, degrees).astype(np.float32))
        with torch.inference_mode():
            assert np.abs(head(rows).numpy() - degrees).mean() < 1.5


def test_only_detected_faces_are_learned_from(tiny_run: Config) -> None:
    tensor = LandmarkTensor.open(Workdir(tiny_run.workdir).landmarks_validation)
    faces = detected_faces(tensor, np.arange(len(tensor.people)))
    assert len(faces.features) == tensor.detected.sum() + tensor.random_detected.sum()
    assert (np.abs(faces.features).max(axis=1) > 0).all()


def test_a_model_folder_survives_and_a_changed_one_is_refused(tiny_run: Config, tmp_path: Path) -> None:
    model = load_model(Workdir(tiny_run.workdir).model)
    save_model(tmp_path / "copy", model)
    again = load_model(tmp_path / "copy")
    x = torch.randn(3, 1404)
    assert (again.network(x) == model.network(x)).all()
    weights = tmp_path / "copy" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="was changed"):
        load_model(tmp_path / "copy")
    weights.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        load_model(tmp_path / "copy")
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace(FORMAT, "nlml-hpe model 1"))
    with pytest.raises(ArtifactError, match="expected format"):
        load_model(tmp_path / "copy")
    with pytest.raises(ArtifactError, match="no such model folder"):
        load_model(tmp_path / "none")


def test_manifests_record_the_epochs_that_were_run(tiny_run: Config) -> None:
    work = Workdir(tiny_run.workdir)
    encoder = json.loads((work.encoder / "manifest.json").read_text())["facts"]
    history = json.loads((work.encoder / "history.json").read_text())
    assert encoder == {"epochs_run": len(history["train"]), "best_epoch": history["best_epoch"]}
    heads = json.loads((work.heads / "manifest.json").read_text())["facts"]
    for axis, course in json.loads((work.heads / "history.json").read_text()).items():
        assert heads["epochs_run"][axis] == len(course["metrics"]["mae_deg"])
