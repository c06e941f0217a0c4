"""The head detector's network: an image to, for every 8 x 8 pixels, whether a head's middle lies there, and its box.

Without anchors: of each cell one score and one box (Zhou et al. 2019, "Objects as points"). Maps at an eighth, a
sixteenth and a thirty-second of the image are added from the coarsest to the finest (Lin et al. 2017), so that one map
answers for heads from 10 pixels to most of the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.backbones import Block

STRIDE = 8
"""Pixels between the middles of two cells."""
MULTIPLE = 32
"""Images have sides that are a multiple of this."""
_FIRST_SHARE = 0.01
"""Score of every cell before training: heads are rare."""
_FIRST_PX = 32.0
"""Side of every box then."""


class Found(NamedTuple):
    """``logits`` (N, h, w) of a head's middle in each cell, and ``boxes`` (N, h, w, 4): left, top, right, bottom in
    pixels.
    """

    logits: Tensor
    boxes: Tensor


class HeadNetwork(nn.Module):
    """About half a million parameters with the usual ``width``, its first layer's channels.

    Examples
    --------
    >>> network = HeadNetwork(width=8).eval()
    >>> outputs = network(torch.zeros(1, 3, 64, 96))
    >>> outputs.shape
    torch.Size([1, 5, 8, 12])
    >>> found_of(outputs).boxes[0, 0, 0].round().tolist()
    [-12.0, -12.0, 20.0, 20.0]
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        fine, middle, coarse = 2 * width, 4 * width, 6 * width
        self.stem = nn.Sequential(*_layer(3, width, 2), *_layer(width, width, 2), *_layer(width, fine, 2))
        self.to_middle = nn.Sequential(Block(fine, middle, 2), Block(middle, middle, 1))
        self.to_coarse = nn.Sequential(Block(middle, coarse, 2), Block(coarse, coarse, 1))
        joined = 3 * width
        self.from_fine, self.from_middle, self.from_coarse = (
            nn.Conv2d(channels, joined, 1) for channels in (fine, middle, coarse)
        )
        self.twice = nn.Upsample(scale_factor=2, mode="nearest")
        self.join_middle = nn.Sequential(nn.ReLU(), *_layer(joined, joined, 1))
        self.join_fine = nn.Sequential(nn.ReLU(), *_layer(joined, joined, 1))
        self.answer = nn.Conv2d(joined, 5, 1)
        nn.init.normal_(self.answer.weight, std=0.001)
        first = math.log(_FIRST_PX / STRIDE)
        logit = math.log(_FIRST_SHARE / (1 - _FIRST_SHARE))
        self.answer.bias = nn.Parameter(torch.tensor([logit, 0.0, 0.0, first, first]))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), RGB in 0..255, to (N, 5, H / 8, W / 8), which ``found_of`` reads."""
        fine = self.stem(images.float() / 64 - 2)
        middle = self.to_middle(fine)
        coarse = self.to_coarse(middle)
        joined = self.join_middle(self.from_middle(middle) + self.twice(self.from_coarse(coarse)))
        return self.answer(self.join_fine(self.from_fine(fine) + self.twice(joined)))


def found_of(outputs: Tensor) -> Found:
    """Scores and boxes of the network's outputs (N, 5, h, w).

    Each cell says its logit, the way from its own middle to that of the box, in cells, and the logarithms of the box's
    width and height in cells.
    """
    rows, columns = outputs.shape[2:]
    y = (torch.arange(rows, device=outputs.device) + 0.5)[:, None]
    x = torch.arange(columns, device=outputs.device) + 0.5
    logit, right, down, wide, high = outputs.unbind(1)
    # Far beyond any image, so that an untrained network's numbers stay finite.
    half_wide, half_high = (torch.exp(side.clamp(-3, 6)) / 2 for side in (wide, high))
    middle_x, middle_y = x + right, y + down
    corners = (middle_x - half_wide, middle_y - half_high, middle_x + half_wide, middle_y + half_high)
    return Found(logit, torch.stack(corners, dim=-1) * STRIDE)


def _layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
