"""A plain convolutional network, as the field's tutorials train on AFLW2000-3D: four blocks, one hidden layer, bins."""

from __future__ import annotations

from torch import Tensor, nn

from nlml_hpe.image_networks.binned import BinnedNetwork
from nlml_hpe.image_networks.losses import BINS
from nlml_hpe.image_networks.network import maps_of

CHANNELS = (32, 64, 128, 256)
_HIDDEN = 256


class CustomCNN(BinnedNetwork):
    """Crops to the bins of three angles; at 224 px the last maps are 14 x 14, and it has about 13 M parameters."""

    def __init__(self, size: int = 224, alpha: float = 1.0, dropout: float = 0.5) -> None:
        super().__init__(alpha)
        self.size = size
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *CHANNELS), CHANNELS, strict=False):
            layers += [
                nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.blocks = nn.Sequential(*layers)
        channels, height, width = maps_of(self.blocks, size)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * height * width, _HIDDEN), nn.ReLU(), nn.Dropout(dropout)
        )
        self.heads = nn.Linear(_HIDDEN, 3 * BINS)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (N, 3, 66) of yaw, pitch and roll."""
        return self.heads(self.hidden(self.blocks(crops / 127.5 - 1))).float().view(-1, 3, BINS)
