"""Hair of real volume for crops: a shell over the skull with a fringe, locks at the sides and a length that hangs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from renderer.accessories import Extra, grid
from renderer.looks import Looks, Rgb
from renderer.skull import CENTRE, Envelope

FloatArray = NDArray[np.float32]
_COLUMNS, _ROWS, _HANGING = 96, 14, 8
_SHORTEST_MM = 4.0


@dataclass(frozen=True)
class Hair:
    """One head of hair.

    ``ends`` (96,) is the polar angle in degrees from the crown at which it ends or begins to hang, around
    the head from the back by way of the image's left; ``hangs`` (96,) how many mm it hangs from there;
    ``thick`` (96, 14) its thickness in mm; ``shade`` (96,) the brightness of each strand.
    """

    color: Rgb
    ends: FloatArray
    hangs: FloatArray
    thick: FloatArray
    shade: FloatArray
    wave: tuple[float, float]


def strands(color: Rgb, shade: FloatArray, rows: int) -> NDArray[np.uint8]:
    """A picture of strands, a little darker towards the ends.

    Parameters
    ----------
    color : tuple of float
        Red, green and blue in 0..255.
    shade : float array (n,)
        Brightness of each strand, 1 being the colour's own.
    rows : int
        Height in pixels; each strand is four wide.

    Returns
    -------
    RGB uint8 array (rows, 4 n, 3)
        To be printed on hair, whose u runs across the strands.
    """
    fade = np.linspace(1.05, 0.75, rows)[:, None, None]
    image = np.array(color) * np.repeat(shade, 4)[None, :, None] * fade
    return np.asarray(np.clip(image, 0, 255), dtype=np.uint8)


def draw_hair(looks: Looks, rng: np.random.Generator) -> Hair | None:
    """The hair of a person who is not bald; None for a fifth of them, whose painted hair is all there is."""
    around = np.abs(np.linspace(-180, 180, _COLUMNS))
    kind = rng.choice(["painted", "short", "fringe", "bob", "long", "locks", "afro"], p=_share_of(looks))
    if kind == "painted":
        return None
    hairline = rng.uniform(42, 58)
    front = rng.uniform(62, 92) if kind in ("fringe", "locks") or rng.uniform() < 0.15 else hairline
    side = rng.uniform(70, 100) if kind in ("short", "afro") else rng.uniform(88, 105)
    ends = np.interp(around, [0, rng.uniform(25, 45), rng.uniform(55, 80), 110, 180], [front, front, side, 105, 118])
    # A parting: one side of the forehead is free.
    if rng.uniform() < 0.5:
        shift = np.linspace(-180, 180, _COLUMNS) * rng.choice([-1, 1])
        ends -= (ends - hairline).clip(0) * (np.clip((shift + 20) / 60, 0, 1) * (around < 70))
    ragged = rng.normal(0, rng.uniform(1, 9), size=_COLUMNS)
    hangs = np.zeros(_COLUMNS)
    if kind in ("bob", "long", "locks"):
        begin = {"bob": rng.uniform(50, 80), "long": rng.uniform(55, 95), "locks": rng.uniform(25, 50)}[kind]
        length = {"bob": rng.uniform(40, 110), "long": rng.uniform(110, 260), "locks": rng.uniform(20, 160)}[kind]
        hangs = length * np.clip((around - begin) / 12, 0, 1) * rng.uniform(0.85, 1.1, size=_COLUMNS)
        ends = np.where(hangs > 1, np.maximum(ends, 88), ends)
    base = {"short": (3, 14), "fringe": (6, 24), "bob": (8, 28), "long": (6, 26), "locks": (6, 24), "afro": (25, 65)}
    rough = cv2.GaussianBlur(rng.normal(0, 1, (_COLUMNS, _ROWS)).astype(np.float32), (0, 0), rng.uniform(0.6, 5))
    rough = 1 + rng.uniform(0, 0.5) * rough / max(float(rough.std()), 1e-6)
    thick = np.clip(rng.uniform(*base[str(kind)]) * rough, _SHORTEST_MM / 2, None)
    lines = cv2.GaussianBlur(rng.normal(0, 1, (1, _COLUMNS)).astype(np.float32), (0, 0), rng.uniform(0.4, 2.0))[0]
    return Hair(
        looks.hair_color,
        np.clip(ends + ragged, 25, 125).astype(np.float32),
        hangs.astype(np.float32),
        thick.astype(np.float32),
        np.clip(1 + 0.35 * lines / max(float(lines.std()), 1e-6), 0.35, 1.8).astype(np.float32),
        (float(rng.uniform(0, 0.12)), float(rng.uniform(0.5, 4.0))),
    )


def hair_shell(skin: FloatArray, hair: Hair) -> Extra:
    """The hair as geometry over skin (V, 3) in mm of the kit's own frame."""
    azimuth = np.radians(np.linspace(-180, 180, _COLUMNS))[:, None]
    share = np.linspace(0, 1, _ROWS)[None]
    polar = np.radians(hair.ends)[:, None] * share
    direction = np.stack(
        [np.sin(polar) * np.sin(azimuth), np.cos(polar) + 0 * azimuth, np.sin(polar) * np.cos(azimuth)], -1
    )
    taper = np.clip((1 - share) * 6, 0, 1) ** 0.7
    taper = np.where(hair.hangs[:, None] > 1, 1.0, np.maximum(taper, 0.15))
    radius = Envelope(skin).along(azimuth + 0 * polar, polar) + _SHORTEST_MM / 2 + hair.thick * taper
    cap = CENTRE + direction * radius[..., None]
    drop = np.linspace(0, 1, _HANGING + 1)[None, 1:]
    outward = np.concatenate([np.sin(azimuth), 0 * azimuth, np.cos(azimuth)], axis=1)[:, None]
    swing = hair.wave[0] * hair.hangs[:, None] * np.sin(hair.wave[1] * np.pi * drop + 5 * azimuth)
    hanging = cap[:, -1:] + swing[..., None] * outward
    hanging[..., 1] -= hair.hangs[:, None] * drop
    places = np.concatenate([cap, hanging], axis=1).transpose(1, 0, 2)
    rows = _ROWS + _HANGING
    u = np.broadcast_to(np.linspace(0, 1, _COLUMNS), (rows, _COLUMNS))
    v = np.broadcast_to(np.linspace(0, 1, rows)[:, None], (rows, _COLUMNS))
    faces = grid(rows, _COLUMNS).take([0, 2, 1], axis=1)  # the other way round: it is seen from outside
    vertices, uv = places.reshape(-1, 3), np.stack([u, v], -1).reshape(-1, 2)
    return Extra(vertices.astype(np.float32), faces, uv.astype(np.float32))


def _share_of(looks: Looks) -> list[float]:
    if looks.hair == "long":
        return [0.0, 0.0, 0.07, 0.23, 0.4, 0.3, 0.0]
    return [0.2, 0.35, 0.2, 0.05, 0.05, 0.08, 0.07]
