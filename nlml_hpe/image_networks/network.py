"""What every image network is: crops in, a rotation and its uncertainty out, and the loss that it is trained with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

GREY = 127.5
"""Of every channel, where a crop is covered."""


class WeightsError(ValueError):
    """A file of weights is not that of this network; the message names what differs."""


class Posterior(NamedTuple):
    """``rotation`` (N, 3, 3), head to camera, and ``factor`` (N, 3, 3), lower triangles.

    ``factor @ factor.mT`` is the covariance, in square radians, of the error's rotation vector in the
    camera frame; see ``losses.negative_log_likelihood``. ``factor`` is None of a network that gives none.
    """

    rotation: Tensor
    factor: Tensor | None = None

    @property
    def covariance(self) -> Tensor | None:
        """The covariance (N, 3, 3) in square radians."""
        return None if self.factor is None else self.factor @ self.factor.transpose(-1, -2)


class Labels(NamedTuple):
    """``rotations`` (N, 3, 3), head to camera, and the ``confidence`` (N,) from 0 to 1 by which each counts.

    It is one where a renderer or a person gave the label, and less where a model did.
    """

    rotations: Tensor
    confidence: Tensor


class ImageNetwork(nn.Module, ABC):
    """A network of crops (N, 3, ``size``, ``size``), RGB in 0..255; normalisation is its own affair.

    ``forward`` gives what the loss is computed on, ``posterior`` what a user wants to know. ``covered`` are shares of
    the crop's side at its left, top, right and bottom that it is not shown: training and the exported file make them
    grey.
    """

    size: int
    covered: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def shown(self, crops: Tensor) -> Tensor:
        """Crops (N, 3, ``size``, ``size``) with the ``covered`` borders grey, as ``forward`` is to be given them."""
        if not any(self.covered):
            return crops
        left, top, right, bottom = (round(share * self.size) for share in self.covered)
        seen = torch.zeros(self.size, self.size, dtype=torch.bool, device=crops.device)
        seen[top : self.size - bottom, left : self.size - right] = True
        return torch.where(seen, crops, torch.full_like(crops, GREY))

    @abstractmethod
    def forward(self, crops: Tensor) -> Tensor:
        """The network's own outputs (N, ...) in float32."""

    @abstractmethod
    def posterior(self, outputs: Tensor) -> Posterior:
        """Rotation and uncertainty of these outputs."""

    @abstractmethod
    def losses(self, outputs: Tensor, rotations: Tensor) -> Tensor:
        """What training makes small, for each crop (N,), of outputs against true rotations (N, 3, 3)."""

    def loss(self, outputs: Tensor, labels: Labels) -> Tensor:
        """The mean of the ``losses``, each multiplied by the confidence in its label."""
        return (self.losses(outputs, labels.rotations) * labels.confidence).mean()

    def trainable(self, rotations: Tensor) -> Tensor:
        """Whether each of these rotations (N, 3, 3) can be a label of this network."""
        return torch.ones(len(rotations), dtype=torch.bool, device=rotations.device)


class Size(NamedTuple):
    """How large a network is: ``parameters``, and multiplications with an addition of one crop, ``macs``."""

    parameters: int
    macs: int

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.2f} M parameters, {self.macs / 1e6:.0f} M MACs"


def size_of(network: ImageNetwork) -> Size:
    """Parameters and MACs (of convolutions and linear layers) of a network.

    Parameters
    ----------
    network : ImageNetwork
        On any device; it is left as it was.

    Returns
    -------
    Size
        Numbers of parameters and of multiply-accumulates for one crop.

    Examples
    --------
    >>> from nlml_hpe.image_networks.six_d import SixD
    >>> print(size_of(SixD("residual", 64)))
    1.31 M parameters, 59 M MACs
    """
    found: list[int] = []

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        found.append(layer.weight[0].numel() * output.numel())

    _watch(network, (nn.Conv2d, nn.Linear), count)
    return Size(sum(weights.numel() for weights in network.parameters()), sum(found))


def normalises_points(network: ImageNetwork) -> bool:
    """Whether some batch normalisation of a network sees maps of 1 x 1.

    Examples
    --------
    >>> from nlml_hpe.image_networks.six_d import SixD
    >>> [normalises_points(SixD("resnet50", size, 8)) for size in (32, 64)]
    [True, False]
    """
    found: list[bool] = []
    _watch(network, (nn.BatchNorm2d,), lambda _, __, output: found.append(output.shape[2:] == (1, 1)))
    return any(found)


def _watch(
    network: ImageNetwork,
    kinds: tuple[type[nn.Module], ...],
    seen: Callable[[nn.Module, tuple[Tensor, ...], Tensor], None],
) -> None:
    """Show a network one crop and call ``seen`` with each layer of these kinds, its inputs and its output."""
    hooks = [layer.register_forward_hook(seen) for layer in network.modules() if isinstance(layer, kinds)]
    training, device = network.training, next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, network.size, network.size, device=device))
    network.train(training)
    for hook in hooks:
        hook.remove()


def maps_of(backbone: nn.Module, size: int) -> tuple[int, int, int]:
    """Channels, height and width of the maps that a backbone makes of crops of this size."""
    training = backbone.training
    with torch.no_grad():
        channels, height, width = backbone.eval()(torch.zeros(1, 3, size, size)).shape[1:]
    backbone.train(training)
    return channels, height, width
