"""What a person wears or grows beyond the skin, for crops: hair, glasses, brims, and a body with clothes."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from renderer.accessories import Extra, glasses, grid
from renderer.crop_hair import draw_hair, hair_shell, strands
from renderer.heads.ict_kit import Kit, ears
from renderer.looks import Looks
from renderer.makehuman import NAPE_MM, Wardrobe, lifted
from renderer.mesh import vertex_normals
from renderer.skull import CENTRE, Envelope

FloatArray = NDArray[np.float32]
STRIP = 64
"""Rows of texture that are added for each thing worn."""
_RING = 36
_STYLED = 0.65
"""Share of people with hair whose hair is a style of the wardrobe, where there is one."""
_LONG = ("afro", "bob", "braid", "long", "ponytail")
_SHORT = ("afro", "short", "ponytail")
_SOFT = 0.6
"""Hair of thin sheets is lit as the ball that it covers, by so much."""
_UNDER_MM, _OVER_MM = 9.0, 3.0
"""Skin under clothes is drawn in, and clothes are drawn out, by so much."""


class Worn(NamedTuple):
    """Geometry with ``normals`` (V, 3), and the ``picture`` (STRIP, W, 3) that is printed on it."""

    extra: Extra
    normals: FloatArray
    picture: NDArray[np.uint8]


def draw_worn(
    shape: FloatArray, kit: Kit, looks: Looks, wardrobe: Wardrobe | None, rng: np.random.Generator
) -> list[Worn]:
    """Hair, glasses and brim.

    Parameters
    ----------
    shape : float array (V, 3)
        Vertices of the kit's mesh, of the face that they are made for.
    kit : Kit
        What the head is made of.
    looks : Looks
        The person's.
    wardrobe : Wardrobe or None
        Whose hair some people have.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    list of Worn
        In the kit's frame.
    """
    worn = []
    if looks.hair != "bald":
        worn += _drawn_hair(shape, looks, wardrobe, rng)
    frame_color = np.array(looks.frame_color)
    if looks.eyewear != "none":
        frame, lens = glasses(shape[kit.landmarks], ears(shape), looks)
        worn.append(_solid(frame, _plain(frame_color)))
        if looks.eyewear == "sunglasses":
            worn.append(_solid(lens, _plain(frame_color * rng.uniform(0.2, 0.7))))
    if looks.covering == "cap" and rng.uniform() < 0.8:
        worn.append(_solid(_brim(rng), _plain(np.array(looks.cloth_color) * rng.uniform(0.7, 1.1))))
    return worn


def draw_body(
    looks: Looks, wardrobe: Wardrobe | None, patterns: list[NDArray[np.uint8]], rng: np.random.Generator
) -> list[Worn]:
    """Shoulders and what covers them.

    Parameters
    ----------
    looks : Looks
        The person's.
    wardrobe : Wardrobe or None
        With one: its body and one of its clothes, or now and then none.
    patterns : list of RGB uint8 arrays
        Pictures that cloth is printed with.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    list of Worn
        In the kit's frame.
    """
    cloth = _cloth(looks, patterns, rng)
    if wardrobe is None:
        return [_solid(_shoulders(rng), cloth)]
    names = sorted(wardrobe.clothes)
    build = np.array([rng.uniform(0.88, 1.12), 1.0, rng.uniform(0.9, 1.15)])
    skin = _grown(wardrobe.body, build, -_UNDER_MM)
    body = [_solid(skin, _plain(np.array(looks.skin) * rng.uniform(0.85, 1.0)))]
    if rng.uniform() < 0.95 and names:
        chosen = wardrobe.clothes[names[int(rng.integers(len(names)))]]
        body.append(_solid(_grown(chosen, build, _OVER_MM), cloth))
    return body


def _plain(color: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A picture of one colour."""
    return np.broadcast_to(np.clip(color, 0, 255).astype(np.uint8), (STRIP, STRIP, 3)).copy()


def _drawn_hair(shape: FloatArray, looks: Looks, wardrobe: Wardrobe | None, rng: np.random.Generator) -> list[Worn]:
    if looks.covering != "none":
        return []
    if wardrobe is not None and rng.uniform() < _STYLED:
        kinds = _LONG if looks.hair == "long" else _SHORT
        names = [name for name in sorted(wardrobe.hair) if name.startswith(kinds)]
        if names:
            return [_styled(shape, wardrobe.hair[names[int(rng.integers(len(names)))]], looks, rng)]
    hair = draw_hair(looks, rng)
    return [] if hair is None else [_solid(hair_shell(shape, hair), strands(hair.color, hair.shade, STRIP))]


def _styled(shape: FloatArray, style: Extra, looks: Looks, rng: np.random.Generator) -> Worn:
    """A style on this head: longer or shorter below the nape, fuller or flatter, as it is or mirrored."""
    vertices, faces = style.vertices.copy(), style.faces
    below = np.minimum(vertices[:, 1] - NAPE_MM, 0)
    vertices[:, 1] += below * np.float32(rng.uniform(-0.35, 0.25))
    if rng.uniform() < 0.5:
        vertices[:, 0] *= -1
        faces = np.ascontiguousarray(faces[:, ::-1])
    reach = Envelope(shape)
    offset = vertices - CENTRE
    full = 1 + np.float32(rng.uniform(-0.03, 0.1)) * (vertices[:, 1] > NAPE_MM)
    vertices = lifted(CENTRE + offset * full[:, None], reach, float(rng.uniform(2, 6)))
    out = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-6)
    own = vertex_normals(vertices, faces)
    own *= np.where((own * out).sum(axis=1, keepdims=True) < 0, -1, 1)
    normals = own + _SOFT * (out - own)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    shade = np.clip(1 + rng.uniform(0.1, 0.5) * rng.standard_normal(96), 0.35, 1.8).astype(np.float32)
    return Worn(Extra(vertices, faces, style.uv), normals.astype(np.float32), strands(looks.hair_color, shade, STRIP))


def _grown(piece: Extra, build: NDArray[np.floating], by: float) -> Extra:
    """A piece of a body of another build, ``by`` mm further out."""
    moved = piece.vertices * build + by * vertex_normals(piece.vertices, piece.faces)
    return piece._replace(vertices=moved.astype(np.float32))


def _solid(extra: Extra, picture: NDArray[np.uint8]) -> Worn:
    return Worn(extra, vertex_normals(extra.vertices, extra.faces), picture)


def _brim(rng: np.random.Generator) -> Extra:
    """The brim of a cap, to the front, or of a hat, all around."""
    hat = rng.uniform() < 0.4
    reach = rng.uniform(25, 80)
    angles = np.linspace(-np.pi, np.pi, _RING) if hat else np.linspace(-1.25, 1.25, _RING)
    share = 1.0 if hat else np.cos(angles / 1.25 * np.pi / 2) ** 0.5
    inner = np.column_stack([84 * np.sin(angles), np.zeros(_RING), 10 + 96 * np.cos(angles)])
    outward = np.column_stack([np.sin(angles), np.zeros(_RING), np.cos(angles)])
    outer = inner + outward * (reach * np.broadcast_to(share, _RING))[:, None]
    height = rng.uniform(72, 92)
    slope = rng.uniform(-0.45, 0.1)
    inner[:, 1] = height + 0.06 * (inner[:, 2] - 90)
    outer[:, 1] = inner[:, 1] + slope * reach * np.broadcast_to(share, _RING)
    vertices = np.concatenate([inner, outer]).astype(np.float32)
    return Extra(vertices, grid(2, _RING), np.full((len(vertices), 2), 0.5, np.float32))


def _shoulders(rng: np.random.Generator) -> Extra:
    """A neck, shoulders and a chest, in mm of the neutral head."""
    wide, deep = rng.uniform(185, 250), rng.uniform(85, 125)
    collar = rng.uniform(-118, -98)
    levels = np.array(
        [
            (collar, 60, 62, -4),
            (collar - 12, 72, 70, -6),
            (-142, 0.55 * wide, 0.8 * deep, -15),
            (-165, 0.85 * wide, 0.95 * deep, -22),
            (-200, wide, deep, -25),
            (-420, 0.97 * wide, 1.05 * deep, -25),
        ]
    )
    turn = np.linspace(0, 2 * np.pi, _RING)
    unit = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    square = np.sign(unit) * np.abs(unit) ** 0.8
    rings = [
        np.column_stack([x * square[:, 0], np.full(_RING, y), z + d * square[:, 1]]) for y, x, d, z in levels.tolist()
    ]
    vertices = np.concatenate(rings).astype(np.float32)
    down = np.repeat(np.linspace(0, 1, len(levels)), _RING)
    uv = np.column_stack([np.tile(np.linspace(0, 1, _RING), len(levels)), down]).astype(np.float32)
    return Extra(vertices, grid(len(levels), _RING), uv)


def _cloth(looks: Looks, patterns: list[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    color = np.array(looks.cloth_color) if rng.uniform() < 0.5 else rng.uniform(10, 240, size=3)
    plain = np.broadcast_to(color, (STRIP, 4 * STRIP, 3)).astype(np.float32)
    if rng.uniform() < 0.35:
        printed = cv2.resize(patterns[int(rng.integers(len(patterns)))], (4 * STRIP, STRIP)).astype(np.float32)
        plain = plain + rng.uniform(0.2, 1.0) * (printed - plain)
    elif rng.uniform() < 0.3:
        stripes = np.sign(np.sin(np.arange(4 * STRIP) * rng.uniform(0.1, 1.5)))[None, :, None]
        plain = plain + stripes * rng.uniform(-50, 50, size=3).astype(np.float32)
    return np.asarray(np.clip(plain, 0, 255), dtype=np.uint8)
