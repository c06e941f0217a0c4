"""HopeNet (Ruiz et al. 2018): ResNet-50, and for each angle 66 bins whose expected value is the answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.backbones import ResNet50
from nlml_hpe.image_networks.binned import BinnedNetwork
from nlml_hpe.image_networks.losses import BINS

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class HopeNet(BinnedNetwork):
    """Crops to the bins of three angles.

    Its weights have the names that its authors publish: ``conv1``, ``bn1``, ``layer1`` to ``layer4``,
    ``fc_yaw``, ``fc_pitch``, ``fc_roll``, and ``fc_finetune``, which is read and not used, as in theirs.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int = 224, alpha: float = 1.0, width: int = 64) -> None:
        super().__init__(alpha)
        self.size = size
        body = ResNet50(width)
        for name, layer in body.named_children():
            self.add_module(name, layer)
        self.fc_yaw = nn.Linear(body.channels, BINS)
        self.fc_pitch = nn.Linear(body.channels, BINS)
        self.fc_roll = nn.Linear(body.channels, BINS)
        self.fc_finetune = nn.Linear(body.channels + 3, 3)
        self.fc_finetune.requires_grad_(False)
        self.register_buffer("mean", 255 * torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(_DEVIATION)[:, None, None], persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (N, 3, 66) of yaw, pitch and roll."""
        # The layers are this network's own children, so that their names carry no prefix.
        maps = ResNet50.forward(self, (crops - self.mean) / self.deviation)  # type: ignore[arg-type]
        features = maps.mean(dim=(2, 3))
        heads = (self.fc_yaw, self.fc_pitch, self.fc_roll)
        return torch.stack([head(features).float() for head in heads], dim=1)
