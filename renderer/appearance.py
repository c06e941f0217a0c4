"""What varies between two renders of one head: camera, light, background, sensor; all seeded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from renderer.config import AppearanceConfig
from renderer.shading import Light

FIXED_LIGHT = Light(direction=(0.0, 0.26, 0.966), ambient=0.65, color=(1.0, 1.0, 1.0))
FIXED_BACKGROUND = 128
_NOISE_SPARE = 128


@dataclass(frozen=True)
class Scene:
    """One image's setting: camera ``distance`` in mm, head ``fraction`` of the image, light, background.

    ``shift`` (x, y) moves the head in the image by a share of its size (as a crop does: the view does not
    change); ``blur`` in px and ``noise`` of 255 are standard deviations.
    """

    distance: float
    fraction: float
    light: Light
    background: NDArray[np.uint8]
    shift: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    noise: float = 0.0


def draw_scene(config: AppearanceConfig, size: int, rng: np.random.Generator) -> Scene:
    """A setting for one square image; the middle of every range where nothing varies.

    Parameters
    ----------
    config : AppearanceConfig
        What may vary.
    size : int
        Pixels on a side.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    Scene
        Camera, light, background, and what lens and sensor add.
    """
    if not config.vary:
        grey = np.full((size, size, 3), FIXED_BACKGROUND, dtype=np.uint8)
        distance, fraction, ambient, blur, noise = (
            sum(span) / 2
            for span in (config.distance_mm, config.head_fraction, config.ambient, config.blur_px, config.noise)
        )
        return Scene(distance, fraction, replace(FIXED_LIGHT, ambient=ambient), grey, blur=blur, noise=noise)
    return Scene(
        distance=float(rng.uniform(*config.distance_mm)),
        fraction=float(rng.uniform(*config.head_fraction)),
        light=_draw_light(config, rng),
        background=_draw_background(size, rng),
        shift=(float(rng.uniform(-1, 1) * config.offset), float(rng.uniform(-1, 1) * config.offset)),
        blur=float(rng.uniform(*config.blur_px)),
        noise=float(rng.uniform(*config.noise)),
    )


def expose(image: NDArray[np.uint8], scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image as a lens and a sensor give it: blurred and noisy.

    Parameters
    ----------
    image : RGB uint8 array (H, W, 3)
        As it was shaded.
    scene : Scene
        Says how much of both.
    rng : numpy Generator
        By which the noise is drawn.

    Returns
    -------
    RGB uint8 array (H, W, 3)
        ``image`` itself where there is neither.
    """
    if scene.blur > 0.05:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), scene.blur), dtype=np.uint8)
    if scene.noise > 0:
        rows, columns = image.shape[:2]
        top, left = rng.integers(0, _NOISE_SPARE, size=2)
        grain = _noise_tile(max(rows, columns) + _NOISE_SPARE)[top : top + rows, left : left + columns]
        image = np.asarray(cv2.add(image, scene.noise * grain, dtype=cv2.CV_8U), dtype=np.uint8)
    return image


@lru_cache(maxsize=2)
def _noise_tile(side: int) -> NDArray[np.float32]:
    """Standard normal noise, the same for every image but for where it begins: drawing it anew takes 4 ms."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((side, side, 3), dtype=np.float32)


def _draw_light(config: AppearanceConfig, rng: np.random.Generator) -> Light:
    azimuth, elevation = np.radians(rng.uniform(-1, 1, size=2) * config.light_angle_deg)
    direction = (np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    warmth = rng.uniform(-0.08, 0.08)
    gain = rng.uniform(0.85, 1.1)
    return Light(
        direction=(float(direction[0]), float(direction[1]), float(direction[2])),
        ambient=float(rng.uniform(*config.ambient)),
        color=(float(gain * (1 + warmth)), float(gain), float(gain * (1 - warmth))),
    )


def _draw_background(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    grey = rng.uniform(30, 225, size=(4, 4, 1))
    coarse = (grey + rng.normal(0, 12, size=(4, 4, 3))).astype(np.float32)
    # Smooth at a quarter of the size: nobody sees the difference, and it is ten times faster.
    smooth = np.clip(cv2.resize(coarse, (size // 4, size // 4), interpolation=cv2.INTER_CUBIC), 0, 255)
    return np.asarray(cv2.resize(smooth.astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
