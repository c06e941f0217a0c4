"""Heads without anything behind them, all the way round: what scenes for the head detector are put together from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from renderer.config import SpritesConfig
from renderer.crop_drawing import Crop, draw_sprite
from renderer.crop_people import Person, Take
from renderer.crops import CropSet

KIND = "sprites"


@dataclass(frozen=True)
class SpriteSet(CropSet):
    """All sprites of one split; they are written, and gone on with after a kill, as crops are.

    Raises ``HeadDataError`` as ``CropSet``.
    """

    kind: ClassVar[str] = KIND
    crops: SpritesConfig

    @property
    def side_over_box(self) -> float:
        """Side of a sprite over the longer side of the box."""
        return self.crops.share

    def drawn(
        self,
        person: Person,
        take: Take,
        rotation: NDArray[np.float64],
        found: list[NDArray[np.uint8]],
        rng: np.random.Generator,
    ) -> Crop:
        """One sprite of a person with this face at this rotation."""
        return draw_sprite(person, take, rotation, self.crops.size, self.crops.share, rng)
