"""The encoder is trained on detected faces, in the manifold's own coordinates.

These are features in the manifold's basis, whitened by the noise that it leaves on people it has not seen. What lies
outside of that subspace tells the detector's habits on rendered faces rather than the pose. The change of
coordinates is linear, so afterwards the first layer takes it in and the network is the paper's, from features to
factor rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from nlml_hpe.config import EncoderConfig
from nlml_hpe.files.manifests import require_equal
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.networks import LandmarkEncoder
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.rotation import Angles
from nlml_hpe.torch_rotation import degrees_from_rotation, rotation_from_degrees
from nlml_hpe.training import train
from nlml_hpe.training_data import Augment, Samples, gaussian_noise
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import History, Run


class LabelledFaces(NamedTuple):
    """Detected faces of some people: features (n, F) float32 and angles (n,) in degrees."""

    features: NDArray[np.float32]
    angles: Angles


def detected_faces(tensor: LandmarkTensor, people: NDArray[np.int64]) -> LabelledFaces:
    """Every detected face, on the grid and off it, of some people.

    Parameters
    ----------
    tensor : LandmarkTensor
        The faces.
    people : ndarray of int
        Indices of the people in it.

    Returns
    -------
    LabelledFaces
        Features (n, F) and angles.
    """
    grid_angles = tensor.grid.angles().columns()
    features, angles = [], []
    for index in people:
        on_grid, off_grid = np.asarray(tensor.detected[index]), np.asarray(tensor.random_detected[index])
        features += [tensor.features[index][on_grid], tensor.random_features[index][off_grid]]
        angles += [grid_angles[on_grid], tensor.random_angles[index][off_grid]]
    return LabelledFaces(np.concatenate(features), Angles.from_columns(np.concatenate(angles)))


def train_encoder(
    tensor: LandmarkTensor, manifold: PoseManifold, config: EncoderConfig, seed: int, run: Run | None = None
) -> tuple[LandmarkEncoder, History]:
    """Train the encoder to give the manifold's factor rows.

    A share of the training people is held out for early stopping; the validation people stay unseen.

    Parameters
    ----------
    tensor : LandmarkTensor
        The training people's faces, of which only detected ones are learned from.
    manifold : PoseManifold
        Made from this tensor; it carries noise statistics.
    config : EncoderConfig
        Layers, augmentation, and what all trainings share.
    seed : int
        Of the people held out, the first weights, the order and the augmentation.
    run : Run, optional
        Device and checkpoints; by default the CPU and none.

    Returns
    -------
    tuple of LandmarkEncoder and History
        The encoder, from features (N, F) to factor rows (N, ry + rp + rr), on the CPU; and its losses.

    Raises
    ------
    ArtifactError
        Where tensor and manifold do not belong together.
    TrainingError
        As ``require_divisible`` does, and for a manifold without noise statistics.

    Examples
    --------
    Four people, drawn from the shipped manifold at three poses; two epochs show how it is called, not what it can do:

    >>> from dataclasses import replace
    >>> from nlml_hpe.manifold.manifold_file import read_manifold
    >>> from nlml_hpe.model.format import SHIPPED
    >>> from nlml_hpe.pose_grid import PoseGrid
    >>> grid = PoseGrid((-30.0, 0.0, 30.0), (0.0,), (0.0,))
    >>> manifold = replace(read_manifold(SHIPPED / "manifold.npz"), grid=grid)
    >>> rng = np.random.default_rng(0)
    >>> identities = rng.multivariate_normal(manifold.prior.mean, manifold.prior.covariance, size=4)
    >>> angles = Angles.from_columns(np.tile(grid.angles().columns().reshape(-1, 3), (4, 1)))
    >>> features = manifold.synthesize(identities.repeat(3, axis=0), angles).reshape(4, 3, 1, 1, -1).astype(np.float32)
    >>> none = np.zeros((4, 0, 1404), dtype=np.float32), np.zeros((4, 0), dtype=np.uint8), np.zeros((4, 0, 3))
    >>> found = np.ones((4, 3, 1, 1), dtype=np.uint8)
    >>> tensor = LandmarkTensor(grid, manifold.feature, (1, 2, 3, 4), features, found, *none)
    >>> encoder, history = train_encoder(tensor, manifold, EncoderConfig(hidden=(16,), epochs=2), seed=0)
    >>> encoder(torch.zeros(5, 1404)).shape, history.epochs_run
    (torch.Size([5, 9]), 2)
    """
    run = run or Run()
    mend = "run TD_main on this tensor"
    require_equal("feature of manifold and tensor", manifold.feature, tensor.feature, mend)
    require_equal("grid of manifold and tensor", manifold.grid.as_dict(), tensor.grid.as_dict(), mend)
    require_divisible(len(tensor.people), config.held_out_share)
    kept, held_out = train_test_split(np.arange(len(tensor.people)), test_size=config.held_out_share, random_state=seed)
    faces = (detected_faces(tensor, np.sort(people)) for people in (kept, held_out))
    training, stopping = (_angle_samples(part, run.device) for part in faces)
    inside = Coordinates.of(manifold, training.inputs)
    rows_of = factor_rows(manifold, run.device)
    encoder = _new_encoder(inside, manifold, training, config, seed).to(run.device)

    def loss(estimated: Tensor, angles: Tensor) -> Tensor:
        difference = (estimated - rows_of(angles)) / encoder.row_scale
        return nn.functional.huber_loss(difference, torch.zeros_like(difference), delta=config.huber)

    stopping = Samples(inside(stopping.inputs), stopping.targets)
    change = encoder_augment(config, inside)
    history = train(encoder, loss, training, stopping, config, seed, "encoder", augment=change, run=run)
    return inside.folded_into(encoder), history


def require_divisible(people: int, held_out_share: float) -> None:
    """Require people to train on and people to stop early on.

    Raises ``TrainingError`` for fewer than two people, and for a share that leaves none to train on.

    Examples
    --------
    >>> require_divisible(6, 0.9)
    Traceback (most recent call last):
    nlml_hpe.training_error.TrainingError: encoder.held_out_share 0.9 leaves none of 6 people to train on; lower it
    """
    if people < 2:
        raise TrainingError("the encoder needs at least two people: one to train on, one to stop on; raise heads.train")
    if math.ceil(held_out_share * people) >= people:
        raise TrainingError(
            f"encoder.held_out_share {held_out_share:g} leaves none of {people} people to train on; lower it"
        )


def _new_encoder(
    inside: Coordinates, manifold: PoseManifold, training: Samples, config: EncoderConfig, seed: int
) -> LandmarkEncoder:
    """An encoder of coordinates, its rows brought to unit scale by those of the training faces."""
    angles = Angles.from_columns(training.targets.cpu().numpy())
    rows = torch.from_numpy(manifold.factor_rows(angles).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = LandmarkEncoder(len(inside.projection), rows.shape[1], config.hidden)
    encoder.row_mean.copy_(rows.mean(dim=0))
    encoder.row_scale.copy_(rows.std(dim=0).clamp_min(1e-6))
    return encoder


@dataclass(frozen=True)
class Coordinates:
    """``projection`` (K, F) and ``offset`` (K,): features (N, F) to whitened coordinates (N, K) of unit size.

    ``noise`` is the standard deviation, in these coordinates, of what the manifold leaves of unseen people.
    """

    projection: Tensor
    offset: Tensor
    noise: float

    @classmethod
    def of(cls, manifold: PoseManifold, features: Tensor) -> Coordinates:
        """Coordinates in which these features (N, F) are centred and, over all directions, of unit variance."""
        if manifold.noise is None:
            raise TrainingError("the manifold carries no noise statistics; run TD_main again")
        white = torch.from_numpy((manifold.noise.whitening @ manifold.basis).astype(np.float32)).to(features.device)
        coordinates = features @ white.T
        unit = float(coordinates.var(dim=0).mean().sqrt())
        return cls(white / unit, coordinates.mean(dim=0) / unit, 1 / unit)

    def __call__(self, features: Tensor) -> Tensor:
        """Coordinates (N, K) of features (N, F)."""
        return features @ self.projection.T - self.offset

    def folded_into(self, encoder: LandmarkEncoder) -> LandmarkEncoder:
        """The encoder of coordinates as one of features, on the CPU: its first layer takes the projection in."""
        hidden = [layer.out_features for layer in encoder.layers if isinstance(layer, nn.Linear)][:-1]
        whole = LandmarkEncoder(self.projection.shape[1], len(encoder.row_mean), hidden)
        # On the CPU, since not every device has float64.
        weights = {name: value.cpu() for name, value in encoder.state_dict().items()}
        first, bias = weights["layers.0.weight"].double(), weights["layers.0.bias"].double()
        weights["layers.0.weight"] = (first @ self.projection.cpu().double()).float()
        weights["layers.0.bias"] = (bias - first @ self.offset.cpu().double()).float()
        whole.load_state_dict(weights)
        return whole.eval()


def _angle_samples(faces: LabelledFaces, device: torch.device) -> Samples:
    angles = torch.from_numpy(faces.angles.columns().astype(np.float32))
    return Samples(torch.from_numpy(faces.features).to(device), angles.to(device))


def factor_rows(manifold: PoseManifold, device: torch.device) -> Callable[[Tensor], Tensor]:
    """``PoseManifold.factor_rows`` in torch.

    Parameters
    ----------
    manifold : PoseManifold
        Its cosines.
    device : torch.device
        Of the angles and the rows.

    Returns
    -------
    callable
        Angles (N, 3) in degrees to rows (N, ry + rp + rr), float32.
    """
    axes = torch.from_numpy(np.repeat(np.arange(3), [len(cosines) for cosines in manifold.cosines])).to(device)
    a, b, c, d = torch.from_numpy(np.concatenate(manifold.cosines).T.astype(np.float32)).to(device)
    return lambda angles: a * torch.cos(b * torch.deg2rad(angles)[:, axes] + c) + d


def encoder_augment(config: EncoderConfig, inside: Coordinates) -> Augment:
    """What changes a batch of features before the encoder sees it.

    Parameters
    ----------
    config : EncoderConfig
        How far faces are turned in the image plane, and how much noise is added.
    inside : Coordinates
        On the device of the batches.

    Returns
    -------
    Augment
        Features (N, F) to noisy coordinates (N, K), angles (N, 3) in degrees to those of the turned faces.
    """
    noise = gaussian_noise(torch.full((), config.noise * inside.noise, device=inside.offset.device))

    def change(features: Tensor, angles: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if config.turn_deg:
            drawn = torch.rand(len(features), generator=generator, device=features.device)
            features, angles = turned_in_plane(features, angles, torch.deg2rad((2 * drawn - 1) * config.turn_deg))
        return noise(inside(features), angles, generator)

    return change


def turned_in_plane(features: Tensor, angles: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Features and angles of the same images turned in their plane.

    Turning the camera about its axis multiplies the rotation from the left; yaw, pitch and roll all follow from the
    product, and go on past 90 degrees.

    Parameters
    ----------
    features : Tensor (N, F)
        x, y, z of each point in image axes.
    angles : Tensor (N, 3)
        Yaw, pitch and roll in degrees.
    turns : Tensor (N,)
        Radians, from the image's right towards its top.

    Returns
    -------
    tuple of two Tensors
        Features (N, F) and angles (N, 3) in degrees.

    Examples
    --------
    >>> turned = turned_in_plane(torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1, 3), torch.tensor([torch.pi / 2]))
    >>> [(values.round(decimals=3) + 0.0).tolist() for values in turned]  # to the top; the head to image left
    [[[0.0, -1.0, 0.0]], [[0.0, 0.0, -90.0]]]
    """
    cos, sin, zero, one = turns.cos(), turns.sin(), torch.zeros_like(turns), torch.ones_like(turns)
    # Image axes have y down: there the same turn has the other sign.
    in_image = torch.stack([cos, sin, zero, -sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
    points = features.unflatten(1, (-1, 3)) @ in_image.transpose(1, 2)
    turned = in_image.transpose(1, 2) @ rotation_from_degrees(angles)
    return points.reshape(features.shape), degrees_from_rotation(turned)
