"""What is no head in a scene, and what a camera and a file do to it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from renderer.crop_scene import draw_background

FloatArray = NDArray[np.float32]


def draw_clutter(image: FloatArray, found: list[NDArray[np.uint8]], rng: np.random.Generator) -> None:
    """Draw things over a background: cuts of pictures, balls, limbs, bars and stripes.

    Parameters
    ----------
    image : float array (S, S, 3)
        RGB in 0..255, drawn into.
    found : list of RGB uint8 arrays
        Pictures to cut from.
    rng : numpy Generator
        By which all is drawn.
    """
    size = len(image)
    for _ in range(int(rng.integers(0, 9))):
        kind = rng.choice(["cut", "ball", "limb", "bars"], p=[0.4, 0.25, 0.2, 0.15])
        middle, reach = rng.uniform(0, size, size=2), size * np.exp(rng.uniform(np.log(0.03), np.log(0.35)))
        if kind == "ball":
            _ball(image, middle, reach, rng)
            continue
        mask = np.zeros((size, size), np.uint8)
        if kind == "cut":
            around = rng.normal(0, 1, size=(int(rng.integers(3, 9)), 2)) * reach * rng.uniform(0.5, 1.5, size=2)
            cv2.fillConvexPoly(mask, cv2.convexHull((middle + around).astype(np.int32)), [1])
            fill = cv2.resize(draw_background(size // 4, found, rng), (size, size))
        elif kind == "limb":
            # As broad as an arm or a neck, in skin's or cloth's colour, but with nothing on it.
            way = middle + np.cumsum(rng.normal(0, reach, size=(3, 2)), axis=0)
            cv2.polylines(mask, [way.astype(np.int32)], False, [1], max(2, int(reach * 0.6)))
            fill = np.broadcast_to(
                _skin_or_cloth(rng) * np.linspace(0.7, 1.2, size, dtype=np.float32)[:, None, None], (size, size, 3)
            )
        else:
            step, turn = max(3, int(reach / 2)), rng.uniform(0, np.pi)
            along = np.array([np.cos(turn), np.sin(turn)])
            for offset in np.arange(-2 * reach, 2 * reach, step):
                start = middle + offset * along
                ends = [(start + sign * 2 * reach * along[::-1] * [-1, 1]).astype(int).tolist() for sign in (-1, 1)]
                cv2.line(mask, ends[0], ends[1], [1], max(1, int(step * rng.uniform(0.2, 0.6))))
            fill = np.broadcast_to(_skin_or_cloth(rng), (size, size, 3))
        left, top, wide, high = cv2.boundingRect(mask)
        within = slice(top, top + high), slice(left, left + wide)
        np.copyto(image[within], fill[within], where=mask[within][..., None] > 0)


def spoiled(image: FloatArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture (S, S, 3) as a camera and a file leave it: tone, focus, noise, grey, JPEG's blocks."""
    size = len(image)
    if rng.uniform() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.4)), dtype=np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    saturation = 0.0 if rng.uniform() < 0.12 else rng.uniform(0.4, 1.4)
    middle, contrast = float(grey.mean()), float(np.exp(rng.normal(0, 0.25)))
    image = (grey * np.float32(1 - saturation) + image * np.float32(saturation)) * np.float32(contrast)
    image += np.float32((1 - contrast) * middle + rng.normal(0, 15))
    if rng.uniform() < 0.5:
        channels = 1 if rng.uniform() < 0.4 else 3
        image += rng.uniform(0, 14) * rng.standard_normal((size, size, channels), dtype=np.float32)
    tones = (np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.25)) * 255).round().astype(np.uint8)
    made = np.asarray(cv2.LUT(cv2.convertScaleAbs(np.maximum(image, 0)), tones), dtype=np.uint8)
    if rng.uniform() < 0.4:
        quality = int(rng.integers(20, 90))
        _, coded = cv2.imencode(".jpg", made, [cv2.IMWRITE_JPEG_QUALITY, quality])
        made = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return made


def draw_border(image: FloatArray, owner: NDArray[np.int16], rng: np.random.Generator) -> None:
    """Now and then a band without picture, as beside an image that is not square.

    Parameters
    ----------
    image : float array (S, S, 3)
        RGB in 0..255, drawn into.
    owner : int array (S, S)
        Whose head each pixel shows, drawn into: in the band nobody is seen, -1.
    rng : numpy Generator
        By which all is drawn.
    """
    if rng.uniform() > 0.2:
        return
    width = int(rng.uniform(0.02, 0.35) * len(image))
    upright = rng.uniform() < 0.5
    color = 0.0 if rng.uniform() < 0.8 else rng.uniform(0, 255)
    for array, value in ((image, color), (owner, -1)):
        (array if upright else array.swapaxes(0, 1))[-width:] = value


def _ball(image: FloatArray, middle: NDArray[np.floating], reach: float, rng: np.random.Generator) -> None:
    """An ellipse, shaded as a ball is or flat: round, in skin's or hair's colours, and no head."""
    axes = reach * rng.uniform(0.6, 1.4, size=2)
    low = np.clip(middle - axes, 0, len(image)).astype(int)
    high = np.clip(middle + axes + 1, 0, len(image)).astype(int)
    across = (np.arange(low[0], high[0], dtype=np.float32) - middle[0]) / axes[0]
    down = ((np.arange(low[1], high[1], dtype=np.float32) - middle[1]) / axes[1])[:, None]
    away = (across**2 + down**2).astype(np.float32)
    inside = np.clip((1 - away) * np.float32(reach / 2), 0, 1)[..., None]
    light = 1 - rng.uniform(0, 0.5) * np.clip(away, 0, 1) + 0.15 * rng.normal() * (across + down)
    part = image[low[1] : high[1], low[0] : high[0]]
    part += inside * (np.clip(_skin_or_cloth(rng) * light[..., None], 0, 255).astype(np.float32) - part)


def _skin_or_cloth(rng: np.random.Generator) -> FloatArray:
    """A colour (3,): of skin, of hair or any."""
    kind = rng.uniform()
    if kind < 0.4:
        return (rng.uniform(50, 235) * np.array([1.0, 0.78, 0.66])).astype(np.float32)
    if kind < 0.6:
        return (rng.uniform(5, 120) * np.array([1.0, 0.8, 0.65])).astype(np.float32)
    return rng.uniform(0, 255, size=3).astype(np.float32)
