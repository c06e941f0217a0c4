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

from renderer.accessories import joined, volume
from renderer.atlas import Texels
from renderer.compiled import compiled
from renderer.config import HeadsConfig
from renderer.crop_clothes import STRIP, Worn, draw_body, draw_worn
from renderer.heads.ict_kit import Kit, family_of
from renderer.looks import Looks, draw_looks
from renderer.makehuman import Wardrobe
from renderer.mesh import vertex_normals
from renderer.neck import head_share

FloatArray = NDArray[np.float32]
_DRESSED = 0.85
"""Share of people with a body of the wardrobe, where there is one."""
_CUT_MM = -98.0
"""Height of the head's own shoulders."""


class Take(NamedTuple):
    """One face that a person makes: ``vertices`` and unit ``normals`` (V, 3) in the kit's frame, ``marks`` (68, 3).

    ``head`` (H, 3) is the skin that goes with the skull, from crown to chin, ears and face included, without hair.
    """

    vertices: FloatArray
    normals: FloatArray
    marks: FloatArray
    head: FloatArray


@dataclass(frozen=True)
class Person:
    """A person ready to be drawn.

    ``takes`` share ``faces`` (F, 3), ``uv`` (V, 2) and ``texture``; ``share`` (V,) says how far each vertex goes with
    the head and how far with the shoulders, as ``neck.head_share``.
    """

    takes: tuple[Take, ...]
    faces: NDArray[np.int32]
    uv: FloatArray
    texture: NDArray[np.uint8]
    share: FloatArray
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
    wardrobe: Wardrobe | None = None,
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
    wardrobe : Wardrobe, optional
        Hair, shoulders and clothes of real shape, which most people have then.

    Returns
    -------
    Person
        With that many takes.

    Raises
    ------
    HeadDataError
        As ``Kit.expressions`` does.
    """
    weights = kit.draw_weights(config.shape_variation, rng)
    names = kit.expressions(config)
    looks = draw_looks(config.looks, rng)
    dressed = wardrobe if rng.uniform() < _DRESSED else None
    if looks.covering == "none" and (dressed is not None or rng.uniform() < 0.65):
        # What is painted as a collar is a bare neck then; the shoulders have cloth of their own.
        red, green, blue = looks.skin
        looks = replace(looks, cloth_color=(0.95 * red, 0.95 * green, 0.95 * blue))
    stretch = rng.normal(1, (0.03, 0.03, 0.03)).astype(np.float32)
    shapes = [kit.shape(weights, draw_expression(names, rng)) * stretch for _ in range(takes)]
    worn, body = draw_worn(shapes[0], kit, looks, wardrobe, rng), draw_body(looks, dressed, patterns, rng)
    texture = kit.canvas.paint(looks)
    if rng.uniform() < 0.25:
        texture = _blotched(texture, patterns, rng)
    # Where the body has a neck, the head's own shoulders are left out.
    skin = kit.faces if dressed is None else kit.faces[kit.neutral[kit.source[kit.faces], 1].max(axis=1) > _CUT_MM]
    return _assembled(kit, looks, shapes, worn, body, texture, skin)


def _assembled(
    kit: Kit,
    looks: Looks,
    shapes: list[FloatArray],
    worn: list[Worn],
    body: list[Worn],
    texture: NDArray[np.uint8],
    skin: NDArray[np.int32],
) -> Person:
    """One mesh and one texture of the head, what is worn on it, and the body."""
    pieces = [*worn, *body]
    texture, own_uv, uvs = _with_strips(texture, kit.uv, pieces)
    whole = joined([piece.extra._replace(uv=uv) for piece, uv in zip(pieces, uvs, strict=True)])
    normals = np.concatenate([piece.normals for piece in pieces])
    lift = volume(kit.scalp, looks)
    takes = tuple(_take(kit, shape, lift, whole.vertices, normals) for shape in shapes)
    shares = [kit.share, *(head_share(piece.extra.vertices) for piece in worn)]
    shares += [np.zeros(len(piece.extra.vertices), dtype=np.float32) for piece in body]
    faces = np.concatenate([skin, whole.faces + len(kit.source)]).astype(np.int32)
    return Person(takes, faces, np.concatenate([own_uv, whole.uv]), texture, np.concatenate(shares), looks)


def draw_expression(names: tuple[str, ...], rng: np.random.Generator) -> dict[str, float]:
    """Strengths of some of the kit's expressions: none, one family or a few, both sides nearly alike."""
    families = sorted({family_of(name) for name in names})
    strengths: dict[str, float] = {}
    if not families or rng.uniform() < 0.2:
        return strengths
    for family in rng.choice(families, size=min(len(families), int(rng.integers(1, 7))), replace=False):
        strength = float(rng.beta(1.2, 1.6))
        for name in (family, f"{family}_L", f"{family}_R"):
            if name in names:
                strengths[name] = float(np.clip(strength * rng.normal(1, 0.15), 0, 1))
    return strengths


def _take(kit: Kit, shape: FloatArray, lift: FloatArray, worn: FloatArray, worn_normals: FloatArray) -> Take:
    """What is worn stays as it was made for the first face: expressions move hair and frame by little."""
    # Normals of the kit's own vertices: charts that meet are lit and pushed the same way.
    normals = vertex_normals(shape, kit.own_faces)
    return Take(
        np.concatenate([_lifted(shape, normals, kit.source, lift, kit.outer), worn]),
        np.concatenate([normals.take(kit.source, axis=0), worn_normals]),
        shape[kit.landmarks],
        shape[kit.skull],
    )


@compiled()
def _lifted(shape, normals, source, lift, outer):  # type: ignore[no-untyped-def]
    """Places (A, 3) of the mesh's vertices, each from a kit vertex of ``source`` (A,) and moved along its normal."""
    result = np.empty((len(source), 3), dtype=shape.dtype)
    for row, vertex in enumerate(source):
        for axis in range(3):
            result[row, axis] = shape[vertex, axis] + normals[vertex, axis] * lift[vertex] * outer[row]
    return result


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
    texture: NDArray[np.uint8], uv: FloatArray, pieces: list[Worn]
) -> tuple[NDArray[np.uint8], FloatArray, list[FloatArray]]:
    """The texture with one strip below it for each piece, and texture coordinates of skin and pieces in it."""
    height, width = texture.shape[:2]
    total = height + STRIP * len(pieces)
    strips = [cv2.resize(piece.picture, (width, STRIP), interpolation=cv2.INTER_LINEAR) for piece in pieces]
    placed = []
    for number, piece in enumerate(pieces):
        inside = np.array([1.0, height + number * STRIP + 1]) + piece.extra.uv * [width - 2, STRIP - 2]
        placed.append((inside / [width, total]).astype(np.float32))
    return np.concatenate([texture, *strips]), (uv * [1, height / total]).astype(np.float32), placed
