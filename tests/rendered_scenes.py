"""Pictures of several rendered heads, with their true rotations and boxes: the real rasteriser, small and quick."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import Box, box_of
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import Angles, rotation_from_angles
from renderer.camera import Camera
from renderer.config import HeadsConfig, LooksConfig
from renderer.crop_people import Person, draw_person, small_kit
from renderer.crop_scene import pictures
from renderer.crop_shading import Lamps, light_crop
from renderer.heads.ict_kit import Kit
from renderer.neck import SKULL_MM, posed
from renderer.rasterizers import get_rasterizer

_DISTANCE_MM = 1500.0
_PLAIN = LooksConfig(long_hair=0, glasses=0, sunglasses=0, head_covering=0, face_mask=0)
_LAMPS = Lamps(
    np.array([0.3, 0.4, 0.87], dtype=np.float32),
    np.array([-0.8, 0.3, 0.5], dtype=np.float32),
    *(0.5, 0.7, 0.1, np.ones(3, dtype=np.float32), 0.1, 20.0, 0.3),
)


class Placed(NamedTuple):
    """A head in a picture: ``person``, yaw, pitch, roll in ``degrees``, ``neck`` (x, y) in pixels, pixels a mm."""

    person: Person
    degrees: tuple[float, float, float]
    neck: tuple[float, float]
    scale: float


@cache
def people(kit_folder: Path, count: int) -> tuple[Person, ...]:
    """So many people of the kit, always the same; painted once, for all tests."""
    kit = small_kit(Kit.open(kit_folder, kit_folder.parent / "cache" / "ict_facekit.npz"))
    heads = HeadsConfig(source="ict_facekit", folder=kit_folder, looks=_PLAIN, expressions=())
    return tuple(
        draw_person(kit, heads, 1, pictures(None), np.random.default_rng([3, number])) for number in range(count)
    )


def background(width: int, height: int) -> RgbImage:
    """A wall with structure and nobody on it."""
    picture = pictures(None)[1]
    grey = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(60 + 0.4 * grey, dtype=np.uint8)


def scene(behind: RgbImage, heads: Sequence[Placed]) -> tuple[RgbImage, NDArray[np.float64], list[Box]]:
    """The picture, rotations (n, 3, 3) and boxes of the 68 points; the first head stands farthest away."""
    image = np.ascontiguousarray(behind, dtype=np.float32)
    rotations = rotation_from_angles(Angles.from_columns(np.array([head.degrees for head in heads]).reshape(-1, 3)))
    boxes = [_draw(image, head, rotation) for head, rotation in zip(heads, rotations, strict=True)]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), rotations, boxes


def _draw(image: NDArray[np.float32], head: Placed, rotation: NDArray[np.float64]) -> Box:
    """One person, in place, turned as a whole; the box of the head."""
    person, (take, *_) = head.person, head.person.takes
    away = np.array([0, 0, _DISTANCE_MM], dtype=np.float32)
    vertices, normals, skull = posed(take.vertices, take.normals, person.share, rotation, rotation)
    vertices, marks = vertices - away, (take.marks - SKULL_MM) @ rotation.astype(np.float32).T + skull - away
    camera = Camera(head.scale * _DISTANCE_MM, head.neck, 0.0)
    height, width = image.shape[:2]
    fragments = get_rasterizer("numba_zbuffer")(vertices, person.faces, camera, (height, width))
    light_crop(fragments, vertices, normals, person.faces, person.uv, person.texture, _LAMPS, image)
    return box_of(camera.project(marks))
