"""A network from a crop to a rotation by six numbers (Zhou et al. 2019; Hempel et al. 2022), and to how far off it is.

Two columns of a matrix, made orthonormal, are a rotation without a seam; angles have seams at 90 degrees.
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.backbones import backbone_of
from nlml_hpe.image_networks.losses import ROTATION_LOSSES, negative_log_likelihood
from nlml_hpe.image_networks.network import ImageNetwork, Posterior, maps_of

_HEAD_CHANNELS, _SPREAD_CHANNELS = 64, 128
LEAST_SIGMA, FIRST_SIGMA, LOG_BOUNDS = 0.005, 0.15, (-6.0, 4.0)
"""Standard deviations, in radians, are the least one and the first one times the exponential of a number in bounds."""
_LIKELIHOOD_WEIGHT = 0.02


class SixD(ImageNetwork):
    """Crops to a rotation and the covariance of its error.

    Outputs are (N, 12): six numbers of the rotation, then six of the covariance's factor.
    """

    def __init__(
        self,
        backbone: str = "residual",
        size: int = 64,
        width: int | None = None,
        dropout: float = 0.1,
        loss: str = "huber",
    ) -> None:
        super().__init__()
        if loss not in ROTATION_LOSSES:
            raise ValueError(f"unknown loss {loss!r}; expected one of {sorted(ROTATION_LOSSES)}")
        self.size = size
        self.rotation_loss = ROTATION_LOSSES[loss]
        self.backbone = backbone_of(backbone, width)
        channels, height, across = maps_of(self.backbone, size)
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, _HEAD_CHANNELS, 1, bias=False), nn.BatchNorm2d(_HEAD_CHANNELS), nn.ReLU(), nn.Flatten()
        )
        self.dropout = nn.Dropout(dropout)
        # Where a thing is in the crop tells the pose, so the maps are not averaged away.
        features = _HEAD_CHANNELS * height * across
        self.columns = nn.Linear(features, 6)
        # Doubt is no sum of what tells the pose: a layer between ranks errors better than none.
        last = nn.Linear(_SPREAD_CHANNELS, 6)
        nn.init.zeros_(last.weight)
        self.spread = nn.Sequential(nn.Linear(features, _SPREAD_CHANNELS), nn.ReLU(), last)
        with torch.no_grad():
            # Training begins at a frontal head, from which every rotation is equally near.
            self.columns.weight.mul_(0.1)
            self.columns.bias.copy_(torch.tensor([1.0, 0, 0, 1, 0, 0]))

    def forward(self, crops: Tensor) -> Tensor:
        """Outputs (N, 12) in float32, whatever the layers computed in."""
        features = self.dropout(self.squeeze(self.backbone(crops / 127.5 - 1)))
        # How sure it is must not change what it says: the spread learns from the features and leaves them alone.
        return torch.cat([self.columns(features).float(), self.spread(features.detach()).float()], dim=1)

    def posterior(self, outputs: Tensor) -> Posterior:
        """Rotation by Gram-Schmidt, and the factor of the covariance."""
        return Posterior(roma.special_gramschmidt(outputs[:, :6].view(-1, 3, 2)), _triangle(outputs[:, 6:]))

    def losses(self, outputs: Tensor, rotations: Tensor) -> Tensor:
        """The loss of the rotation, and the likelihood of the covariance given the rotation that was said."""
        rotation, factor = self.posterior(outputs)
        assert factor is not None
        likelihood = negative_log_likelihood(rotation.detach(), factor, rotations)
        return self.rotation_loss(rotation, rotations) + _LIKELIHOOD_WEIGHT * likelihood


def _triangle(values: Tensor) -> Tensor:
    """Lower triangles (N, 3, 3) of six numbers each: the diagonal as logarithms, then what is below it."""
    # Beyond these bounds a standard deviation is below 0.3 degrees or above 460.
    diagonal = LEAST_SIGMA + FIRST_SIGMA * torch.exp(values[:, :3].clamp(*LOG_BOUNDS))
    low = values[:, 3:] * torch.cat([diagonal[:, 1:], diagonal[:, 2:]], dim=1)
    zero = torch.zeros_like(low[:, 0])
    rows = [
        torch.stack([diagonal[:, 0], zero, zero], 1),
        torch.stack([low[:, 0], diagonal[:, 1], zero], 1),
        torch.stack([low[:, 1], low[:, 2], diagonal[:, 2]], 1),
    ]
    return torch.stack(rows, 1)
