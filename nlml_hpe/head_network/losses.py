"""What the head detector's training makes small: a focal loss of the middles, and generalised IoU of the boxes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nlml_hpe.head_network.network import STRIDE, found_of

_SPREAD = 0.1
"""Standard deviation of the target around a head's middle, in sides of its box."""
_LEAST_SPREAD = 0.65
"""The same in cells, of small heads."""
_ANSWERS_FROM = 0.3
"""Cells whose target is this or more learn the head's box."""
_BOX_WEIGHT, _FACE_WEIGHT = 2.0, 0.7
_LEAST_EARNED, _POOR, _GOOD = 0.3, 0.25, 0.6
"""Of a full score: what a box earns that overlaps the head's own by no more than the second; all of it from the third.
"""


class Heads(NamedTuple):
    """The heads of N images, M places each: ``boxes`` (N, M, 4) of the heads and ``face_boxes`` (N, M, 4) of their 68
    points, in pixels, and ``kinds`` (N, M).

    A kind is 1 for a head that is to be found, 0 for one that may be (small, or mostly hidden), -1 for no head.
    """

    boxes: Tensor
    face_boxes: Tensor
    kinds: Tensor


class Targets(NamedTuple):
    """Of each cell: ``heat`` (N, h, w), one at heads' middles; ``counts``, whether its score counts; the ``box`` and
    the ``face_box`` (N, h, w, 4) of the nearest head, and ``answers``, whether the cell is to know them.
    """

    heat: Tensor
    counts: Tensor
    box: Tensor
    face_box: Tensor
    answers: Tensor


def targets_of(heads: Heads, rows: int, columns: int) -> Targets:
    """What each of the cells is to say.

    Parameters
    ----------
    heads : Heads
        Of N images.
    rows, columns : int
        Cells of an image, h and w, each of ``STRIDE`` pixels.

    Returns
    -------
    Targets
        On the device of the boxes.

    Examples
    --------
    >>> box = torch.tensor([[[20.0, 20.0, 36.0, 36.0]]])
    >>> targets = targets_of(Heads(box, box, torch.ones(1, 1)), 8, 8)
    >>> int(targets.heat[0].argmax()), float(targets.heat.max())
    (27, 1.0)
    """
    device = heads.boxes.device
    y = torch.arange(rows, device=device)[:, None] + 0.5
    x = torch.arange(columns, device=device) + 0.5
    boxes = heads.boxes / STRIDE
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    side = (boxes[..., 2:] - boxes[..., :2]).amax(dim=-1)
    spread = (_SPREAD * side).clamp_min(_LEAST_SPREAD)[..., None, None]
    # One in the cell that holds the middle, whatever its place in it.
    near_x, near_y = middle[..., 0].floor() + 0.5, middle[..., 1].floor() + 0.5
    away = (x - near_x[..., None, None]) ** 2 + (y - near_y[..., None, None]) ** 2
    bell = torch.exp(-away / (2 * spread**2))
    heat = torch.where(heads.kinds[..., None, None] == 1, bell, torch.zeros_like(bell)).amax(dim=1)
    # A head that may be found takes all that is about its middle out of the count.
    uncertain = torch.where(heads.kinds[..., None, None] == 0, bell, torch.zeros_like(bell)).amax(dim=1)
    best, owner = torch.where(heads.kinds[..., None, None] == 1, bell, -torch.ones_like(bell)).max(dim=1)
    owners = owner.flatten(1)[..., None].expand(-1, -1, 4)
    box, face_box = (
        torch.gather(known, 1, owners).unflatten(1, (rows, columns)) for known in (heads.boxes, heads.face_boxes)
    )
    return Targets(heat, ~((uncertain > 0.3) & (heat < 0.99)), box, face_box, best >= _ANSWERS_FROM)


def head_loss(outputs: Tensor, heads: Heads) -> Tensor:
    """The mean loss of a batch of outputs (N, 9, h, w).

    Of both boxes about heads' middles one minus the generalised IoU (Rezatofighi et al. 2019). Of the scores the
    quality focal loss of Li et al. 2020 (beta 2), over the number of heads: cells about a middle learn, too, so that
    few thousand steps are enough, and what a score is to be grows with how well the box that the network now says
    overlaps the head's, so that a score tells of the box as well.
    """
    found, targets = found_of(outputs), targets_of(heads, *outputs.shape[2:])
    said, true = found.boxes[targets.answers], targets.box[targets.answers]
    wanted = targets.heat.clone()
    wanted[targets.answers] *= _quality(overlap(said.detach(), true))
    apart = nn.functional.binary_cross_entropy_with_logits(found.logits, wanted, reduction="none")
    focal = (wanted - torch.sigmoid(found.logits)) ** 2 * apart
    middles = (focal * targets.counts).sum() / (heads.kinds == 1).sum().clamp_min(1)
    weight = targets.heat[targets.answers]
    faces = generalised_iou(found.face_boxes[targets.answers], targets.face_box[targets.answers])
    each = _BOX_WEIGHT * (1 - generalised_iou(said, true)) + _FACE_WEIGHT * (1 - faces)
    return middles + (weight * each).sum() / weight.sum().clamp_min(1e-6)


def _quality(overlaps: Tensor) -> Tensor:
    """What share of a full score boxes earn that overlap the true ones so: all from ``_GOOD`` on."""
    return _LEAST_EARNED + (1 - _LEAST_EARNED) * ((overlaps - _POOR) / (_GOOD - _POOR)).clamp(0, 1)


def overlap(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union (n,) of boxes (n, 4).

    Examples
    --------
    >>> one = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    >>> overlap(one, one + torch.tensor([2.0, 0, 2, 0])).item()
    0.3333333432674408
    """
    shared, union = _shared_and_union(found, true)
    return shared / union


def generalised_iou(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union (n,) of boxes (n, 4), less the share of their hull that neither covers.

    Examples
    --------
    >>> one = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    >>> generalised_iou(one, one + 2).item()
    -0.5
    """
    shared, union = _shared_and_union(found, true)
    hull = (torch.maximum(found[:, 2:], true[:, 2:]) - torch.minimum(found[:, :2], true[:, :2])).prod(dim=1)
    return shared / union - (hull - union) / hull.clamp_min(1e-6)


def _shared_and_union(found: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Areas (n,)."""
    low, high = torch.maximum(found[:, :2], true[:, :2]), torch.minimum(found[:, 2:], true[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=1)
    areas = (found[:, 2:] - found[:, :2]).prod(dim=1) + (true[:, 2:] - true[:, :2]).prod(dim=1)
    return shared, (areas - shared).clamp_min(1e-6)
