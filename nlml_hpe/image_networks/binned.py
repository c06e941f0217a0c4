"""What networks share that say each angle by bins."""

from __future__ import annotations

import torch
from torch import Tensor

from nlml_hpe.image_networks.losses import LOWEST_DEG, binned, expected_angles
from nlml_hpe.image_networks.network import ImageNetwork, Posterior
from nlml_hpe.torch_rotation import degrees_from_rotation, rotation_from_degrees

_EDGE_DEG = 0.01
"""How far within the bins, which reach as far up as down, a label must lie."""


class BinnedNetwork(ImageNetwork):
    """Outputs are logits (N, 3, 66) of yaw, pitch and roll; ``alpha`` weighs the squared error of the loss."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def posterior(self, outputs: Tensor) -> Posterior:
        """The rotation of the expected angles; bins give no covariance of a rotation."""
        return Posterior(rotation_from_degrees(expected_angles(outputs)))

    def losses(self, outputs: Tensor, rotations: Tensor) -> Tensor:
        """HopeNet's dual loss. Raises ``LabelError`` where an angle lies outside of the bins."""
        return binned(outputs, degrees_from_rotation(rotations), self.alpha)

    def trainable(self, rotations: Tensor) -> Tensor:
        """Whether all three angles lie in the bins, and those of the mirror image, too."""
        # The lowest edge belongs to a bin, its mirror image at the other end to none, and float32 moves both a little.
        return torch.all(degrees_from_rotation(rotations).abs() < -LOWEST_DEG - _EDGE_DEG, dim=1)
