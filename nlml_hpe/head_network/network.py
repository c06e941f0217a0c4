"""The head detector's network: an image to, for every 8 x 8 pixels, whether a head's middle lies there, and its box.

Without anchors: of each cell one score and one box (Zhou et al. 2019, "Objects as points"). Maps at a sixteenth and at
an eighth of the image are added (Lin et al. 2017). A cell sees about 120 pixels: heads of 10 to 100 pixels are what it
answers for, and copies of an image show the others so large (``nlml_hpe.detection.heads``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.backbones import residual

STRIDE = 8
"""Pixels between the middles of two cells."""
MULTIPLE = 16
"""Images have sides that are a multiple of this."""
_FIRST_SHARE = 0.01
"""Score of every cell before training: heads are rare."""
_FIRST_PX = 32.0
"""Side of every box then."""
LOG_BOUNDS = (-3.0, 6.0)
"""Of the logarithms of a box's sides in cells: far beyond any image, and yet an untrained network's numbers stay
finite.
"""


class Found(NamedTuple):
    """``logits`` (N, h, w) of a head's middle in each cell, and ``boxes`` (N, h, w, 4): left, top, right, bottom in
    pixels.
    """

    logits: Tensor
    boxes: Tensor


class HeadNetwork(nn.Module):
    """The image eye's ``residual`` backbone, run over the whole image, and a light pyramid on its last two maps.

    The backbone may begin with the image eye's weights (``image_networks.weights.load_own_backbone``): it has learned
    from crops what heads look like all the way round, at the size that they have in a crop, about 40 pixels.

    Examples
    --------
    >>> network = HeadNetwork(width=8).eval()
    >>> outputs = network(torch.zeros(1, 3, 64, 96))
    >>> outputs.shape
    torch.Size([1, 5, 8, 12])
    >>> found_of(outputs).boxes[0, 0, 0].round().tolist()
    [-12.0, -12.0, 20.0, 20.0]
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.backbone = residual(width)
        fine, coarse, joined = 4 * width, 6 * width, 3 * width
        self.from_fine, self.from_coarse = nn.Conv2d(fine, joined, 1), nn.Conv2d(coarse, joined, 1)
        self.twice = nn.Upsample(scale_factor=2, mode="nearest")
        self.join = nn.Sequential(nn.ReLU(), *_layer(joined, joined), *_layer(joined, joined))
        self.answer = nn.Conv2d(joined, 5, 1)
        nn.init.normal_(self.answer.weight, std=0.001)
        first = math.log(_FIRST_PX / STRIDE)
        logit = math.log(_FIRST_SHARE / (1 - _FIRST_SHARE))
        self.answer.bias = nn.Parameter(torch.tensor([logit, 0.0, 0.0, first, first]))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), RGB in 0..255, to (N, 5, H / 8, W / 8), which ``found_of`` reads."""
        *layers, last = self.backbone
        fine = images.float() / 127.5 - 1
        for layer in layers:
            fine = layer(fine)
        coarse = last(fine)
        return self.answer(self.join(self.from_fine(fine) + self.twice(self.from_coarse(coarse))))


def found_of(outputs: Tensor) -> Found:
    """Scores and boxes of the network's outputs (N, 5, h, w).

    Each cell says its logit, the way from its own middle to that of the box, in cells, and the logarithms of the box's
    width and height in cells.
    """
    rows, columns = outputs.shape[2:]
    y = (torch.arange(rows, device=outputs.device) + 0.5)[:, None]
    x = torch.arange(columns, device=outputs.device) + 0.5
    logit, right, down, wide, high = outputs.unbind(1)
    half_wide, half_high = (torch.exp(side.clamp(*LOG_BOUNDS)) / 2 for side in (wide, high))
    middle_x, middle_y = x + right, y + down
    corners = (middle_x - half_wide, middle_y - half_high, middle_x + half_wide, middle_y + half_high)
    return Found(logit, torch.stack(corners, dim=-1) * STRIDE)


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
