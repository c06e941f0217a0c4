"""The head detector's network: an image to, for every 8 x 8 pixels, whether a head's middle lies there, and its boxes.

Without anchors: of each cell one score and two boxes (Zhou et al. 2019, "Objects as points"): the head's, and that of
its 68 points. Maps at a thirty-second, a sixteenth and an eighth of the image are added (Lin et al. 2017). A cell
answers for heads of 20 to 125 pixels, as of its training (``network_training.SMALLEST_PX``, ``LARGEST_SHARE`` of 160);
a copy of an image shows larger ones so small (``nlml_hpe.detection.heads``).
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
_FIRST_PX = 48.0
"""Side of every head's box then."""
_FACE_SHARE = 0.65
"""Side of the 68 points' box then, as a share of the head's."""
LOG_BOUNDS = (-3.0, 6.0)
"""Of the logarithms of a box's sides in cells: far beyond any image, and yet an untrained network's numbers stay
finite.
"""
ANSWERS = 9
"""Numbers that each cell says."""


class Found(NamedTuple):
    """``logits`` (N, h, w) of a head's middle in each cell, and the ``boxes`` and the ``face_boxes`` of the 68 points,
    each (N, h, w, 4): left, top, right, bottom in pixels.
    """

    logits: Tensor
    boxes: Tensor
    face_boxes: Tensor


class HeadNetwork(nn.Module):
    """Five halvings of the image with a residual block at the last two of them, and a light pyramid on the last three.

    Most is computed where the map is a sixteenth of the image: there a head is two to ten cells wide, and a cell costs
    a quarter of what it does at an eighth.

    Examples
    --------
    >>> network = HeadNetwork(width=8).eval()
    >>> outputs = network(torch.zeros(1, 3, 64, 96))
    >>> outputs.shape
    torch.Size([1, 9, 8, 12])
    >>> found_of(outputs).boxes[0, 0, 0].round().tolist()
    [-20.0, -20.0, 28.0, 28.0]
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        joined = 4 * width
        self.fine = nn.Sequential(*_layer(3, width, 2), *_layer(width, 2 * width, 2), *_layer(2 * width, joined, 2))
        self.middle = nn.Sequential(*_layer(joined, 8 * width, 2), Block(8 * width, 8 * width, 1))
        self.coarse = nn.Sequential(*_layer(8 * width, 12 * width, 2), Block(12 * width, 12 * width, 1))
        self.from_fine, self.from_middle = nn.Conv2d(joined, joined, 1), nn.Conv2d(8 * width, joined, 1)
        self.from_coarse = nn.Conv2d(12 * width, joined, 1)
        self.twice = nn.Upsample(scale_factor=2, mode="nearest")
        self.join_middle = nn.Sequential(nn.ReLU(), *_layer(joined, joined))
        self.join_fine = nn.Sequential(nn.ReLU(), *_layer(joined, joined))
        self.answer = nn.Conv2d(joined, ANSWERS, 1)
        nn.init.normal_(self.answer.weight, std=0.001)
        head, face = math.log(_FIRST_PX / STRIDE), math.log(_FACE_SHARE)
        logit = math.log(_FIRST_SHARE / (1 - _FIRST_SHARE))
        self.answer.bias = nn.Parameter(torch.tensor([logit, 0.0, 0.0, head, head, 0.0, 0.0, face, face]))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), RGB in 0..255, to (N, 9, H / 8, W / 8), which ``found_of`` reads."""
        fine = self.fine(images.float() / 127.5 - 1)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        joined = self.join_middle(self.from_middle(middle) + self.twice(self.from_coarse(coarse)))
        return self.answer(self.join_fine(self.from_fine(fine) + self.twice(joined)))


def found_of(outputs: Tensor) -> Found:
    """Scores and boxes of the network's outputs (N, 9, h, w).

    Each cell says its logit; the way from its own middle to that of the head's box, in cells, and the logarithms of
    that box's width and height in cells; the way from there to the middle of the box of the 68 points, in sides of
    the head's box, and the logarithms of its width and height in those sides.
    """
    rows, columns = outputs.shape[2:]
    y = (torch.arange(rows, device=outputs.device) + 0.5)[:, None]
    x = torch.arange(columns, device=outputs.device) + 0.5
    logit, right, down, wide, high, face_right, face_down, face_wide, face_high = outputs.unbind(1)
    width, height = (torch.exp(side.clamp(*LOG_BOUNDS)) * STRIDE for side in (wide, high))
    middle = (x + right) * STRIDE, (y + down) * STRIDE
    face_middle = middle[0] + face_right * width, middle[1] + face_down * height
    face_sides = (torch.exp(side.clamp(*LOG_BOUNDS)) for side in (face_wide, face_high))
    face_width, face_height = (share * side for share, side in zip(face_sides, (width, height), strict=True))
    return Found(logit, _corners(middle, (width, height)), _corners(face_middle, (face_width, face_height)))


def _corners(middle: tuple[Tensor, Tensor], sides: tuple[Tensor, Tensor]) -> Tensor:
    """Boxes (N, h, w, 4) of their middles and sides, each of them (N, h, w)."""
    (x, y), (width, height) = middle, sides
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)


def _layer(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
