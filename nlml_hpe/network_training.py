"""What the networks are trained on: the encoder on detected faces, the heads on the manifold alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor

from nlml_hpe.artifacts import require_equal
from nlml_hpe.config import AngleHeadsConfig, EncoderConfig
from nlml_hpe.landmark_tensor import LandmarkTensor
from nlml_hpe.manifold import PoseManifold
from nlml_hpe.networks import AngleHead, LandmarkEncoder
from nlml_hpe.rotations import AXES, Angles
from nlml_hpe.training import History, Samples, TrainingError, gaussian_noise, train

HEAD_MARGIN_DEG = 8.0
"""Heads are trained this far beyond the grid, so that they do not flatten at its edge."""


class LabelledFaces(NamedTuple):
    """Detected faces of some people: features (n, F) float32 and angles (n,) in degrees."""

    features: NDArray[np.float32]
    angles: Angles


def detected_faces(tensor: LandmarkTensor, people: NDArray[np.int64]) -> LabelledFaces:
    """Every detected face, on the grid and off it, of the people at these indices."""
    grid_angles = tensor.grid.angles().columns()
    features, angles = [], []
    for index in people:
        on_grid, off_grid = np.asarray(tensor.detected[index]), np.asarray(tensor.random_detected[index])
        features += [tensor.features[index][on_grid], tensor.random_features[index][off_grid]]
        angles += [grid_angles[on_grid], tensor.random_angles[index][off_grid]]
    return LabelledFaces(np.concatenate(features), Angles.from_columns(np.concatenate(angles)))


def train_encoder(
    tensor: LandmarkTensor, manifold: PoseManifold, config: EncoderConfig, seed: int, log_folder: Path
) -> tuple[LandmarkEncoder, History]:
    """Train the encoder to give the manifold's factor rows.

    A share of the training people is held out for early stopping; the validation people stay
    unseen. Raises ``ArtifactError`` where tensor and manifold do not belong together and
    ``TrainingError`` for fewer than two people.
    """
    mend = "run TD_main on this tensor"
    require_equal("feature of manifold and tensor", manifold.feature, tensor.feature, mend)
    require_equal("grid of manifold and tensor", manifold.grid.as_dict(), tensor.grid.as_dict(), mend)
    if len(tensor.people) < 2:
        raise TrainingError("the encoder needs at least two people: one to train on, one to stop on; raise heads.train")
    kept, held_out = train_test_split(np.arange(len(tensor.people)), test_size=config.held_out_share, random_state=seed)
    training, stopping = (_row_samples(detected_faces(tensor, np.sort(p)), manifold) for p in (kept, held_out))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = LandmarkEncoder(manifold.feature_length, training.targets.shape[1], config.hidden)
    encoder.row_mean.copy_(training.targets.mean(dim=0))
    encoder.row_scale.copy_(training.targets.std(dim=0).clamp_min(1e-6))

    def loss(rows: Tensor, targets: Tensor) -> Tensor:
        return (((rows - targets) / encoder.row_scale) ** 2).mean()

    augment = gaussian_noise(torch.tensor(config.noise)) if config.noise else None
    history = train(encoder, loss, training, stopping, config, seed, "encoder", augment, log_folder)
    return encoder, history


def _row_samples(faces: LabelledFaces, manifold: PoseManifold) -> Samples:
    rows = manifold.factor_rows(faces.angles).astype(np.float32)
    return Samples(torch.from_numpy(faces.features), torch.from_numpy(rows))


def train_heads(
    manifold: PoseManifold, config: AngleHeadsConfig, seed: int, log_folder: Path
) -> tuple[list[AngleHead], dict[str, History]]:
    """Train one head per angle to invert the manifold's cosines; no image or landmark is needed."""
    heads, histories = [], {}
    for number, axis in enumerate(AXES):
        head, histories[axis] = _train_head(manifold, number, config, seed + number, log_folder)
        heads.append(head)
    return heads, histories


def _train_head(
    manifold: PoseManifold, number: int, config: AngleHeadsConfig, seed: int, log_folder: Path
) -> tuple[AngleHead, History]:
    rng = np.random.default_rng([seed, 4])
    axis = manifold.grid.axes[number]
    degrees = rng.uniform(axis[0] - HEAD_MARGIN_DEG, axis[-1] + HEAD_MARGIN_DEG, size=config.samples)
    rows = torch.from_numpy(manifold.axis_rows(number, degrees).astype(np.float32))
    targets = torch.from_numpy(degrees.astype(np.float32))
    split = config.samples // 10
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = AngleHead(rows.shape[1], config.hidden)
    head.row_mean.copy_(rows.mean(dim=0))
    head.row_scale.copy_(rows.std(dim=0).clamp_min(1e-6))
    head.angle_scale.fill_(max(float(np.abs(degrees).max()), 1.0))

    def loss(angles: Tensor, wanted: Tensor) -> Tensor:
        return (((angles - wanted) / head.angle_scale) ** 2).mean()

    training, stopping = Samples(rows[split:], targets[split:]), Samples(rows[:split], targets[:split])
    augment = gaussian_noise(head.row_scale * config.noise) if config.noise else None
    history = train(head, loss, training, stopping, config, seed, f"head_{AXES[number]}", augment, log_folder)
    return head, history
