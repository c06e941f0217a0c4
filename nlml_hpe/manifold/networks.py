"""The networks, each defined once: landmark encoder, angle head, and both together.

The encoder maps a feature to the factor rows of yaw, pitch and roll; a head inverts one factor row
to its angle. Layer sizes come from the configuration. Rows and angles are brought to unit scale
inside (buffers), so that callers see factor rows and degrees.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # who opens a model folder needs no configuration
    from nlml_hpe.config import AngleHeadsConfig, EncoderConfig
    from nlml_hpe.manifold.manifold import PoseManifold


@dataclass(frozen=True)
class NetworkShape:
    """Everything that fixes the layers.

    Attributes
    ----------
    feature_length : int
        F.
    row_lengths : tuple of three int
        Factor columns of yaw, pitch and roll.
    encoder_hidden, head_hidden : tuple of int
        Sizes of the hidden layers.

    Examples
    --------
    >>> HeadPoseNetwork(NetworkShape(1404, (3, 3, 3), (64,), (32,)))(torch.zeros(2, 1404)).shape
    torch.Size([2, 3])
    """

    feature_length: int
    row_lengths: tuple[int, int, int]
    encoder_hidden: tuple[int, ...]
    head_hidden: tuple[int, ...]


def network_shape(manifold: PoseManifold, encoder: EncoderConfig, heads: AngleHeadsConfig) -> NetworkShape:
    """The layers of a network for this manifold.

    Parameters
    ----------
    manifold : PoseManifold
        Its feature length and the ranks of its poses.
    encoder, heads : EncoderConfig, AngleHeadsConfig
        Sizes of the hidden layers.

    Returns
    -------
    NetworkShape
        All sizes.

    Examples
    --------
    >>> from nlml_hpe.config import AngleHeadsConfig, EncoderConfig
    >>> from nlml_hpe.manifold.manifold_file import read_manifold
    >>> from nlml_hpe.model.format import SHIPPED
    >>> shape = network_shape(read_manifold(SHIPPED / "manifold.npz"), EncoderConfig(), AngleHeadsConfig())
    >>> shape.feature_length, shape.row_lengths
    (1404, (3, 3, 3))
    """
    _, yaw, pitch, roll = manifold.ranks
    return NetworkShape(manifold.feature_length, (yaw, pitch, roll), encoder.hidden, heads.hidden)


class LandmarkEncoder(nn.Module):
    """Features (N, F) to factor rows (N, ry + rp + rr); ReLU, and tanh before the last layer.

    Parameters
    ----------
    feature_length : int
        F.
    row_length : int
        ry + rp + rr.
    hidden : sequence of int
        Sizes of the hidden layers.

    Examples
    --------
    >>> LandmarkEncoder(1404, 9, (64, 32))(torch.zeros(2, 1404)).shape
    torch.Size([2, 9])
    """

    row_mean: Tensor
    row_scale: Tensor

    def __init__(self, feature_length: int, row_length: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = _perceptron([feature_length, *hidden, row_length], last_activation=nn.Tanh())
        self.register_buffer("row_mean", torch.zeros(row_length))
        self.register_buffer("row_scale", torch.ones(row_length))

    def forward(self, features: Tensor) -> Tensor:
        """Factor rows side by side, in axis order."""
        rows: Tensor = self.layers(features) * self.row_scale + self.row_mean
        return rows


class AngleHead(nn.Module):
    """Factor rows (N, r) of one axis to angles (N,) in degrees.

    Parameters
    ----------
    row_length : int
        r.
    hidden : sequence of int
        Sizes of the hidden layers.

    Examples
    --------
    >>> AngleHead(3, (16, 8))(torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    row_mean: Tensor
    row_scale: Tensor
    angle_scale: Tensor

    def __init__(self, row_length: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = _perceptron([row_length, *hidden, 1], last_activation=nn.ReLU())
        self.register_buffer("row_mean", torch.zeros(row_length))
        self.register_buffer("row_scale", torch.ones(row_length))
        self.register_buffer("angle_scale", torch.ones(1))

    def forward(self, rows: Tensor) -> Tensor:
        """Angles in degrees."""
        angles: Tensor = self.layers((rows - self.row_mean) / self.row_scale)[:, 0] * self.angle_scale
        return angles


class HeadPoseNetwork(nn.Module):
    """Features (N, F) to angles (N, 3) in degrees, columns yaw, pitch, roll.

    Parameters
    ----------
    shape : NetworkShape
        Of its layers.

    Examples
    --------
    >>> network = HeadPoseNetwork(NetworkShape(1404, (3, 3, 3), (64, 32), (16, 8)))
    >>> network(torch.zeros(2, 1404)).shape
    torch.Size([2, 3])
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = LandmarkEncoder(shape.feature_length, sum(shape.row_lengths), shape.encoder_hidden)
        self.heads = nn.ModuleList(AngleHead(length, shape.head_hidden) for length in shape.row_lengths)

    def forward(self, features: Tensor) -> Tensor:
        """Angles of faces.

        Parameters
        ----------
        features : Tensor (N, F)
            As ``detection.landmarks.normalize_landmarks`` makes them, on the device of the network.

        Returns
        -------
        Tensor (N, 3)
            Yaw, pitch and roll in degrees.
        """
        rows = self.encoder(features).split(self.shape.row_lengths, dim=1)
        return torch.stack([head(row) for head, row in zip(self.heads, rows, strict=True)], dim=1)


def _perceptron(sizes: Sequence[int], last_activation: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(inputs, outputs))
        if index < len(sizes) - 3:
            layers.append(nn.ReLU())
        elif index == len(sizes) - 3:
            layers.append(last_activation)
    return nn.Sequential(*layers)
