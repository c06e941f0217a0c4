"""People for crops: heads of the ICT kit in all its expressions, with hair that has a shape, brims and shoulders.

One person is painted once; several faces that this person makes share the paint. Crops are small, so the
texture has half the atlas' side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from renderer.accessories import Extra, glasses, joined, volume
from renderer.atlas import Texels
from renderer.config import HeadsConfig
from renderer.crop_hair import Hair, draw_hair, hair_shell
from renderer.heads.ict_kit import Kit
from renderer.looks import Looks, draw_looks
from renderer.mesh import vertex_normals

FloatArray = NDArray[np.float32]
NECK_MM = np.array([0.0, -118.0, -15.0], dtype=np.float32)
"""Where the neck stands on the shoulders: the point that the body turns about."""
_STRIP = 64
"""Rows of texture that are added for each thing worn."""
_DRAWN_LIMIT = 2.5
_RING = 36


class Take(NamedTuple):
    """One face that a person makes: ``vertices`` and unit ``normals`` (V, 3) in the kit's frame, ``marks`` (68, 3)."""

    vertices: FloatArray
    normals: FloatArray
    marks: FloatArray


@dataclass(frozen=True)
class Person:
    """A person ready to be drawn.

    ``takes`` share ``faces`` (F, 3), ``uv`` (V, 2) and ``texture``; vertices from ``body`` on are the
    shoulders, which turn about ``NECK_MM`` by a rotation of their own.
    """

    takes: tuple[Take, ...]
    faces: NDArray[np.int32]
    uv: FloatArray
    texture: NDArray[np.uint8]
    body: int
    looks: Looks


def small_kit(kit: Kit) -> Kit:
    """The kit with a canvas of half the atlas' side, which is painted four times as fast."""
    texels = kit.texels
    half = Texels(texels.part[::2, ::2], texels.position[::2, ::2], texels.normal[::2, ::2], texels.openness[::2, ::2])
    return replace(kit, texels=half)


def draw_person(
    kit: Kit,
    config: HeadsConfig,
    takes: int,
    patterns: list[NDArray[np.uint8]],
    rng: np.random.Generator,
) -> Person:
    """A person, drawn by lot.

    Parameters
    ----------
    kit : Kit
        What heads are made of.
    config : HeadsConfig
        How people vary.
    takes : int
        How many faces the person makes.
    patterns : list of RGB uint8 arrays
        Pictures that cloth and, rarely, skin is printed with.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    Person
        With that many takes.
    """
    spread = rng.standard_normal(len(kit.identity)) * config.shape_variation
    weights = np.clip(spread, -_DRAWN_LIMIT, _DRAWN_LIMIT)
    names = tuple(name for name in kit.expression_names if config.makes(name))
    looks = draw_looks(config.looks, rng)
    if looks.covering == "none" and rng.uniform() < 0.65:
        # What is painted as a collar is a bare neck then; the shoulders have cloth of their own.
        red, green, blue = looks.skin
        looks = replace(looks, cloth_color=(0.95 * red, 0.95 * green, 0.95 * blue))
    hair = draw_hair(looks, rng)
    if hair is not None and looks.hair == "bald":
        hair = None
    stretch = rng.normal(1, (0.03, 0.03, 0.03)).astype(np.float32)
    shapes = [kit.shape(weights, draw_expression(names, rng)) * stretch for _ in range(takes)]
    lifted = volume(kit.neutral, looks)
    extras, prints = _worn(shapes[0], kit, looks, hair, rng)
    body, cloth = _shoulders(rng), _cloth(looks, patterns, rng)
    texture = kit.canvas.paint(looks)
    if rng.uniform() < 0.25:
        texture = _blotched(texture, patterns, rng)
    texture, own_uv, uvs = _with_strips(texture, kit.uv, [*extras, body], [*prints, cloth])
    worn = joined([extra._replace(uv=uv) for extra, uv in zip([*extras, body], uvs, strict=True)])
    worn_normals = vertex_normals(worn.vertices, worn.faces)
    drawn = tuple(_take(kit, shape, lifted, worn, worn_normals) for shape in shapes)
    skin = len(kit.source)
    faces = np.concatenate([kit.faces, worn.faces + skin]).astype(np.int32)
    start = skin + len(worn.vertices) - len(body.vertices)
    return Person(drawn, faces, np.concatenate([own_uv, worn.uv]), texture, start, looks)


def draw_expression(names: tuple[str, ...], rng: np.random.Generator) -> dict[str, float]:
    """Strengths of some of the kit's expressions: none, one family or a few, both sides nearly alike."""
    families = sorted({name.removesuffix("_L").removesuffix("_R") for name in names})
    strengths: dict[str, float] = {}
    if not families or rng.uniform() < 0.2:
        return strengths
    for family in rng.choice(families, size=min(len(families), int(rng.integers(1, 7))), replace=False):
        strength = float(rng.beta(1.2, 1.6))
        for name in (family, f"{family}_L", f"{family}_R"):
            if name in names:
                strengths[name] = float(np.clip(strength * rng.normal(1, 0.15), 0, 1))
    return strengths


def _take(kit: Kit, shape: FloatArray, lifted: FloatArray, worn: Extra, worn_normals: FloatArray) -> Take:
    """What is worn stays as it was made for the first face: expressions move hair and frame by little."""
    # Normals of the kit's own vertices: charts that meet are lit and pushed the same way.
    normals = vertex_normals(shape, kit.source[kit.faces].astype(np.int32))
    outer = np.zeros(len(kit.source), dtype=np.float32)
    parts = [kit.canvas.parts.index(name) for name in ("M_Face", "M_BackHead")]
    outer[kit.faces[np.isin(kit.part, parts)]] = 1
    skin = shape[kit.source] + (normals * lifted[:, None])[kit.source] * outer[:, None]
    return Take(
        np.concatenate([skin, worn.vertices]), np.concatenate([normals[kit.source], worn_normals]), shape[kit.landmarks]
    )


def _worn(
    shape: FloatArray, kit: Kit, looks: Looks, hair: Hair | None, rng: np.random.Generator
) -> tuple[list[Extra], list[NDArray[np.uint8]]]:
    """Hair, glasses and brim, each with its print (_STRIP, W, 3)."""
    extras, prints = [], []
    if hair is not None and looks.covering == "none":
        extras.append(hair_shell(shape, hair))
        prints.append(hair.print(_STRIP))
    if looks.eyewear != "none":
        head = shape[shape[:, 1] > -20]
        ears = np.stack([head[head[:, 0].argmin()], head[head[:, 0].argmax()]])
        frame, lens = glasses(shape[kit.landmarks], ears, looks)
        extras.append(frame)
        prints.append(_plain(np.array(looks.frame_color)))
        if looks.eyewear == "sunglasses":
            extras.append(lens)
            prints.append(_plain(np.array(looks.frame_color) * rng.uniform(0.2, 0.7)))
    if looks.covering == "cap" and rng.uniform() < 0.8:
        extras.append(_brim(rng))
        prints.append(_plain(np.array(looks.cloth_color) * rng.uniform(0.7, 1.1)))
    return extras, prints


def _plain(color: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.broadcast_to(np.clip(color, 0, 255).astype(np.uint8), (_STRIP, _STRIP, 3)).copy()


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
    return Extra(vertices, _band(2, _RING), np.full((len(vertices), 2), 0.5, np.float32))


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
    return Extra(vertices, _band(len(levels), _RING), uv)


def _cloth(looks: Looks, patterns: list[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    color = np.array(looks.cloth_color) if rng.uniform() < 0.5 else rng.uniform(10, 240, size=3)
    plain = np.broadcast_to(color, (_STRIP, 4 * _STRIP, 3)).astype(np.float32)
    if rng.uniform() < 0.35:
        printed = cv2.resize(patterns[int(rng.integers(len(patterns)))], (4 * _STRIP, _STRIP)).astype(np.float32)
        plain = plain + rng.uniform(0.2, 1.0) * (printed - plain)
    elif rng.uniform() < 0.3:
        stripes = np.sign(np.sin(np.arange(4 * _STRIP) * rng.uniform(0.1, 1.5)))[None, :, None]
        plain = plain + stripes * rng.uniform(-50, 50, size=3).astype(np.float32)
    return np.asarray(np.clip(plain, 0, 255), dtype=np.uint8)


def _blotched(
    texture: NDArray[np.uint8], patterns: list[NDArray[np.uint8]], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Skin and hair with a picture's light and dark over them, so that shape and not paint tells the pose."""
    height, width = texture.shape[:2]
    picture = cv2.resize(patterns[int(rng.integers(len(patterns)))], (width, height)).astype(np.float32)
    grey = picture if rng.uniform() < 0.3 else picture.mean(axis=2, keepdims=True)
    factor = 1 + rng.uniform(0.1, 0.6) * (grey - grey.mean()) / 128
    return np.asarray(np.clip(texture * factor, 0, 255), dtype=np.uint8)


def _with_strips(
    texture: NDArray[np.uint8], uv: FloatArray, extras: list[Extra], prints: list[NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], FloatArray, list[FloatArray]]:
    """The texture with one strip below it for each extra, and texture coordinates of skin and extras in it."""
    height, width = texture.shape[:2]
    total = height + _STRIP * len(prints)
    strips = [cv2.resize(image, (width, _STRIP), interpolation=cv2.INTER_LINEAR) for image in prints]
    placed = []
    for number, extra in enumerate(extras):
        inside = np.array([1.0, height + number * _STRIP + 1]) + extra.uv * [width - 2, _STRIP - 2]
        placed.append((inside / [width, total]).astype(np.float32))
    return np.concatenate([texture, *strips]), (uv * [1, height / total]).astype(np.float32), placed


def _band(rows: int, columns: int) -> NDArray[np.int32]:
    """Triangles of a grid of vertices (rows, columns)."""
    first = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    upper = np.stack([first, first + 1, first + columns], axis=1)
    lower = np.stack([first + 1, first + columns + 1, first + columns], axis=1)
    return np.concatenate([upper, lower]).astype(np.int32)
