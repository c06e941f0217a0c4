"""What a person looks like besides the shape of the head: skin, hair, eyes, what is worn; all seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from renderer.config import LooksConfig

Rgb = tuple[float, float, float]
HairStyle = Literal["bald", "short", "full", "long"]
Covering = Literal["none", "cap", "scarf"]
Eyewear = Literal["none", "glasses", "sunglasses"]

# sRGB of skin from the least to the most melanin: the middle of each type of the Fitzpatrick scale.
_SKIN = np.array([(244, 216, 198), (229, 188, 160), (206, 158, 126), (172, 122, 90), (124, 82, 60), (74, 48, 38)])
_HAIR = np.array([(24, 20, 18), (52, 36, 26), (92, 62, 40), (150, 108, 66), (204, 172, 118), (140, 70, 36)])
_GREY_HAIR = np.array([190, 190, 188])
_IRIS = np.array([(58, 36, 22), (92, 60, 34), (110, 100, 60), (86, 116, 108), (104, 134, 160), (120, 124, 128)])


@dataclass(frozen=True)
class Looks:
    """One person's looks; colours are sRGB in 0..255, strengths in 0..1, lengths in mm."""

    skin: Rgb
    melanin: float
    redness: float
    age: float
    hair: HairStyle
    hair_color: Rgb
    hair_mm: float
    hairline_mm: float
    """How much higher than usual the hair begins."""
    recession: float
    brow_color: Rgb
    brow_mm: float
    brow_density: float
    beard: float
    stubble: float
    lip_color: Rgb
    eye_makeup: float
    iris: Rgb
    gaze_deg: tuple[float, float]
    """Turn of both eyes to the image's right and up."""
    eyewear: Eyewear
    frame_color: Rgb
    frame_mm: float
    covering: Covering
    face_mask: bool
    cloth_color: Rgb
    seed: int
    """Of strokes and blotches."""


def draw_looks(config: LooksConfig, rng: np.random.Generator) -> Looks:
    """The looks of one person."""
    melanin = float(rng.uniform(*config.melanin))
    age = float(rng.uniform())
    hair = _hair_color(melanin, age, rng)
    male = rng.uniform() < 0.5
    bearded = male and rng.uniform() < 2 * config.beard
    makeup = float(rng.uniform(0.2, 1.0)) if not male and rng.uniform() < 2 * config.makeup else 0.0
    skin = _between(_SKIN, melanin) * rng.normal(1, [0.03, 0.025, 0.035])
    return Looks(
        skin=_rgb(skin),
        melanin=melanin,
        redness=float(rng.uniform(0, 1)),
        age=age,
        hair=_hair_style(config, male, rng),
        hair_color=_rgb(hair),
        hair_mm=float(rng.uniform(2, 16)),
        hairline_mm=float(rng.normal(0, 6)),
        recession=float(rng.uniform(0, 1)) * (1.0 if male else 0.3),
        brow_color=_rgb(hair * rng.uniform(0.55, 0.95)),
        brow_mm=float(rng.uniform(5.0, 10.0)),
        brow_density=float(rng.uniform(0.35, 1.0)),
        beard=float(rng.uniform(0.5, 1.0)) if bearded else 0.0,
        stubble=float(rng.uniform(0, 0.6)) if male else 0.0,
        lip_color=_lip_color(skin, makeup, rng),
        eye_makeup=makeup,
        iris=_rgb(_IRIS[_choose(rng, len(_IRIS), 0.35 if melanin < 0.4 else 0.9)] * rng.uniform(0.8, 1.15)),
        gaze_deg=(float(rng.normal(0, 7)), float(rng.normal(0, 4))),
        eyewear=_eyewear(config, rng),
        frame_color=_rgb(rng.uniform(10, 120) * rng.uniform(0.5, 1, size=3)),
        frame_mm=float(rng.uniform(0.7, 2.0)),
        covering=_covering(config, rng),
        face_mask=bool(rng.uniform() < config.face_mask),
        cloth_color=_rgb(rng.uniform(15, 240, size=3) * 0.6 + rng.uniform(15, 240) * 0.4),
        seed=int(rng.integers(2**31)),
    )


def _between(colors: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    place = share * (len(colors) - 1)
    return np.array([np.interp(place, np.arange(len(colors)), colors[:, channel]) for channel in range(3)])


def _rgb(color: NDArray[np.float64]) -> Rgb:
    red, green, blue = (float(value) for value in np.clip(color, 0, 255))
    return red, green, blue


def _choose(rng: np.random.Generator, count: int, first: float) -> int:
    """An index that is 0 with probability ``first`` and any other alike."""
    return 0 if rng.uniform() < first else int(rng.integers(1, count))


def _hair_color(melanin: float, age: float, rng: np.random.Generator) -> NDArray[np.float64]:
    color = _HAIR[_choose(rng, len(_HAIR), 0.2 + 0.75 * melanin)] * rng.uniform(0.75, 1.2)
    grey = float(np.clip((age - 0.6) / 0.4, 0, 1) * rng.uniform(0.2, 1.0))
    return np.asarray((1 - grey) * color + grey * _GREY_HAIR)


def _lip_color(skin: NDArray[np.float64], makeup: float, rng: np.random.Generator) -> Rgb:
    natural = skin * [0.86, 0.66, 0.66] + [6.0, 0.0, 2.0]
    painted = np.array([rng.uniform(120, 205), rng.uniform(25, 85), rng.uniform(45, 100)])
    return _rgb((1 - 0.75 * makeup) * natural * rng.uniform(0.9, 1.06) + 0.75 * makeup * painted)


def _hair_style(config: LooksConfig, male: bool, rng: np.random.Generator) -> HairStyle:
    if rng.uniform() < config.bald * (1.6 if male else 0.4):
        return "bald"
    if rng.uniform() < config.long_hair * (0.3 if male else 1.7):
        return "long"
    return "short" if rng.uniform() < 0.5 else "full"


def _eyewear(config: LooksConfig, rng: np.random.Generator) -> Eyewear:
    drawn = rng.uniform()
    if drawn < config.sunglasses:
        return "sunglasses"
    return "glasses" if drawn < config.sunglasses + config.glasses else "none"


def _covering(config: LooksConfig, rng: np.random.Generator) -> Covering:
    if rng.uniform() >= config.head_covering:
        return "none"
    return "cap" if rng.uniform() < 0.5 else "scarf"
