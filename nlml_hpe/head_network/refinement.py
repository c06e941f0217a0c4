"""The head detector's second stage: a proposed box is looked at closely, and its score and its corners are said again.

As of detectors in two stages (Ren et al. 2015, "Faster R-CNN"; Cai and Vasconcelos 2018, "Cascade R-CNN"), but from the
image's own pixels, not from the first stage's maps: the crop shows every head at the size at which the image eye's
backbone, which this begins with, has learned what heads look like.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nlml_hpe.head_network.losses import generalised_iou, overlap
from nlml_hpe.head_network.proposals import PROPOSAL_PX, PROPOSAL_SHARE
from nlml_hpe.image_networks.backbones import residual
from nlml_hpe.image_networks.network import maps_of

LOG_BOUNDS = (-3.0, 2.0)
"""Of the logarithms of a box's sides in sides of the proposal."""
_SQUEEZED, _HIDDEN = 64, 128
_ANSWERS_FROM = 0.2
"""Overlap of a proposal with a head from which it is to say the head's box."""
_POOR, _GOOD = 0.35, 0.65
"""Overlaps of the refined box with a head of which the score is to be nought and one: about the chance that it is half.
"""
_BOX_WEIGHT, _CORNER_WEIGHT = 2.0, 2.0


class Refined(NamedTuple):
    """``logits`` (N,) of the scores, and ``boxes`` (N, 4): left, top, right, bottom in sides of the crop."""

    logits: Tensor
    boxes: Tensor


class Truth(NamedTuple):
    """Of N crops: the head ``boxes`` (N, 4) nearest to the proposals, in sides of the crop, without a size where there
    is none; the ``overlaps`` (N,) of the proposals with them; and whether each ``counts`` (N,): a head that may be
    found, being small or mostly hidden, is neither to be found nor to be none.
    """

    boxes: Tensor
    overlaps: Tensor
    counts: Tensor


class RefinementNetwork(nn.Module):
    """The image eye's ``residual`` backbone on the crop of a proposal, and a score and a box of what it sees.

    Where a thing lies in the crop is what is asked for, so the maps are not averaged away.

    Examples
    --------
    >>> network = RefinementNetwork(width=8).eval()
    >>> outputs = network(torch.zeros(2, 3, 64, 64))
    >>> outputs.shape
    torch.Size([2, 5])
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.backbone = residual(width)
        channels, height, across = maps_of(self.backbone, PROPOSAL_PX)
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, _SQUEEZED, 1, bias=False), nn.BatchNorm2d(_SQUEEZED), nn.ReLU(), nn.Flatten()
        )
        self.hidden = nn.Sequential(nn.Linear(_SQUEEZED * height * across, _HIDDEN), nn.ReLU())
        self.answer = nn.Linear(_HIDDEN, 5)
        nn.init.normal_(self.answer.weight, std=0.01)
        nn.init.zeros_(self.answer.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (N, 3, 64, 64), RGB in 0..255, to (N, 5), which ``refined_of`` reads."""
        return self.answer(self.hidden(self.squeeze(self.backbone(crops.float() / 127.5 - 1))))


def refined_of(outputs: Tensor) -> Refined:
    """Scores and boxes of the network's outputs (N, 5).

    Each says its logit, the way from the proposal's middle to the head's in sides of the proposal, and the logarithms
    of the head's width and height in those sides.

    Examples
    --------
    >>> [round(corner, 3) for corner in refined_of(torch.zeros(1, 5)).boxes[0].tolist()]
    [0.222, 0.222, 0.778, 0.778]
    """
    logits, right, down, wide, high = outputs.float().unbind(1)
    half_wide, half_high = (torch.exp(side.clamp(*LOG_BOUNDS)) / 2 for side in (wide, high))
    corners = torch.stack([right - half_wide, down - half_high, right + half_wide, down + half_high], dim=1)
    return Refined(logits, corners / PROPOSAL_SHARE + 0.5)


def refinement_loss(outputs: Tensor, truth: Truth) -> Tensor:
    """The mean loss of a batch of outputs (N, 5).

    Of proposals that overlap a head one minus the generalised IoU (Rezatofighi et al. 2019) and Huber's loss of the
    corners; of all the binary cross-entropy of the score, which is to tell how well the box that the network now says
    overlaps the head's (Jiang et al. 2018, "IoU-Net"; Li et al. 2020).
    """
    said = refined_of(outputs)
    answers = (truth.overlaps >= _ANSWERS_FROM) & truth.counts
    earned = (overlap(said.boxes.detach(), truth.boxes) - _POOR) / (_GOOD - _POOR)
    apart = nn.functional.binary_cross_entropy_with_logits(said.logits, earned.clamp(0, 1), reduction="none")
    score = (apart * truth.counts).sum() / truth.counts.sum().clamp_min(1)
    found, true = said.boxes[answers], truth.boxes[answers]
    corners = nn.functional.smooth_l1_loss(found, true, reduction="none", beta=0.05).sum(dim=1)
    each = _BOX_WEIGHT * (1 - generalised_iou(found, true)) + _CORNER_WEIGHT * corners
    return score + each.sum() / answers.sum().clamp_min(1)
