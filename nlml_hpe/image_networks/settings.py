"""Settings of training crops that a configuration holds; reading one must not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

Share = Annotated[float, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class Augmentation:
    """How strongly training crops vary; probabilities are shares of crops, 0 switches a change off.

    ``turn_deg``, ``shift`` (share of the crop's side) and ``scale`` (the same, up or down) bound an even
    draw; ``mirror``, ``grey``, ``soft`` (down- and up-sampling), ``blocks`` (JPEG-like), ``erase`` and
    ``frame`` (a border without picture) are probabilities; ``color``, ``contrast``, ``gamma`` and ``noise``
    bound how far each may go.
    """

    mirror: Share = 0.5
    turn_deg: Annotated[float, Interval(ge=0, le=180)] = 30.0
    scale: Share = 0.18
    shift: Share = 0.08
    grey: Share = 0.2
    color: Share = 0.25
    contrast: Share = 0.7
    gamma: Share = 0.6
    soft: Share = 0.35
    blocks: Share = 0.3
    noise: Share = 0.07
    erase: Share = 0.35
    frame: Share = 0.1


PLAIN = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
"""No change at all: the crop as inference cuts it."""
