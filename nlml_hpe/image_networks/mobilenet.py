"""MobileNetV2 (Sandler et al. 2018) with one linear layer to three angles or to six numbers of a rotation."""

from __future__ import annotations

from typing import Literal

import roma
import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.backbones import mobilenet_v2
from nlml_hpe.image_networks.losses import geodesic_huber
from nlml_hpe.image_networks.network import ImageNetwork, Posterior
from nlml_hpe.torch_rotation import rotation_from_degrees

DEGREES = 45.0
"""What an output of one stands for, so that weights and outputs are of one size."""


class MobileNetV2(ImageNetwork):
    """Crops to a rotation; outputs are (N, 3) angles over 45 degrees, or (N, 6) numbers of two columns."""

    def __init__(
        self, size: int = 224, answer: Literal["angles", "six_d"] = "six_d", width: int = 32, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.size = size
        self.answer = answer
        self.backbone = mobilenet_v2(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(40 * width, 3 if answer == "angles" else 6)
        if answer == "six_d":
            with torch.no_grad():
                self.head.bias.copy_(torch.tensor([1.0, 0, 0, 1, 0, 0]))

    def forward(self, crops: Tensor) -> Tensor:
        """Outputs in float32."""
        features = self.backbone(crops / 127.5 - 1).mean(dim=(2, 3))
        return self.head(self.dropout(features)).float()

    def posterior(self, outputs: Tensor) -> Posterior:
        """The rotation."""
        if self.answer == "angles":
            return Posterior(rotation_from_degrees(outputs * DEGREES))
        return Posterior(roma.special_gramschmidt(outputs.view(-1, 3, 2)))

    def losses(self, outputs: Tensor, rotations: Tensor) -> Tensor:
        """Huber's loss of the angle between the rotations; that knows no seam, whatever the answer is."""
        return geodesic_huber(self.posterior(outputs).rotation, rotations)
