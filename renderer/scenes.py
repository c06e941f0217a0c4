"""Sprites to pictures of several heads, of all poses and sizes, which the head detector learns from.

A scene is drawn from its seed alone. Small heads stand behind large ones; what hides a head hides it in the labels,
too. The box of a head goes from crown to chin, ears included, hair, hat and neck left out, seen or not, so that it
hardly depends on the pose; beside it is that of the 68 points, which the image eye's crop is cut by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.regions import overlaps
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import MANIFEST, digest_of_file, digest_of_names_and_sizes
from nlml_hpe.image_networks.shards import Shard, gathered, read_shards
from nlml_hpe.rotation import mirrored
from renderer.config import ScenesConfig
from renderer.crop_scene import draw_background, lay_over, pictures
from renderer.scene_clutter import draw_border, draw_clutter, spoiled

FloatArray = NDArray[np.float32]
_MOST_SHARED = 0.4
"""Boxes of one scene overlap by no more (intersection over union): of two that nearly coincide one hides the other."""
_TRIES = 6
_HIDDEN, _GONE = 0.35, 0.1
"""Least share of a head that is seen, for one that is to be found, and for one that may be found."""
_SEEN = 127
"""A pixel shows a person where alpha is more."""


class Scene(NamedTuple):
    """``image`` (S, S, 3) uint8 RGB, and of n heads ``boxes`` (n, 4) of the whole head and ``face_boxes`` (n, 4) of the
    68 points in its pixels; whether each is to be found (``counts``, (n,) bool) or may be, as one that is hardly seen
    or too small; ``visible`` (n,), the share of it that is seen; and ``rotations`` (n, 3, 3), head to camera.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    face_boxes: NDArray[np.float32]
    counts: NDArray[np.bool_]
    visible: NDArray[np.float32]
    rotations: NDArray[np.float32]


class _Place(NamedTuple):
    """Where a sprite is laid: ``side`` in pixels of the scene, ``left`` and ``top`` of it, mirrored or not; and where
    the ``head`` and its 68 points (``face``) lie then.
    """

    number: int
    side: int
    left: int
    top: int
    mirrored: bool
    head: NDArray[np.float64]
    face: NDArray[np.float64]


@dataclass(frozen=True)
class Scenes:
    """Scenes of the sprites in a folder.

    Parameters
    ----------
    folder : Path
        Of sprites, as the stage Sprites writes them.
    config : ScenesConfig
        How large scenes are, and what is in them.
    backgrounds : Path, optional
        Pictures without people; by default those that installed packages carry.

    Raises
    ------
    ArtifactError
        As ``read_shards``, and for sprites without their heads' boxes, when a scene is drawn.
    BackgroundError
        For a folder without pictures.
    """

    folder: Path
    config: ScenesConfig
    backgrounds: Path | None = None

    @cached_property
    def _digests(self) -> tuple[str, str | None]:
        """Of the sprites' manifest and of the backgrounds, as they are when the first scene is drawn."""
        manifest, behind = self.folder / MANIFEST, self.backgrounds
        sprites = digest_of_file(manifest) if manifest.is_file() else ""
        return sprites, None if behind is None else digest_of_names_and_sizes(behind)

    def draw(self, rng: np.random.Generator) -> Scene:
        """The scene that these random numbers give."""
        shards, config = _shards(self.folder, self._digests[0]), self.config
        found = pictures(self.backgrounds, self._digests[1])
        size = config.size
        image = _background(size, found, rng)
        draw_clutter(image, found, rng)
        places = self._places(shards, rng)
        sprites = gathered(shards, np.array([place.number for place in places], dtype=np.int64))
        owner, whole = np.full((size, size), -1, np.int16), np.zeros(len(places))
        for index, place in enumerate(places):
            assert sprites.alpha is not None  # _shards has seen to it
            assert sprites.heads is not None
            whole[index] = _head_pixels(sprites.alpha[index], sprites.heads[index], place)
            _lay(image, owner, index, _sprite(sprites, index, place, size, rng), place, rng)
            if rng.uniform() < 0.15:
                _cover(image, owner, place, found, rng)
        draw_border(image, owner, rng)
        visible = np.array([_seen_pixels(owner, index, place) for index, place in enumerate(places)]) / np.maximum(
            whole, 1
        )
        kept = np.flatnonzero(visible >= _GONE)
        boxes, faces = (
            np.array([getattr(place, name) for place in places]).reshape(-1, 4) for name in ("head", "face")
        )
        flipped = np.array([place.mirrored for place in places], dtype=bool)
        rotations = np.where(flipped[:, None, None], mirrored(sprites.rotations), sprites.rotations)
        longest = (faces[:, 2:] - faces[:, :2]).max(axis=1, initial=0)
        counts = (visible >= _HIDDEN) & (longest >= config.smallest_px)
        return Scene(
            spoiled(image, rng),
            boxes[kept].astype(np.float32),
            faces[kept].astype(np.float32),
            counts[kept],
            visible[kept].astype(np.float32),
            rotations[kept].astype(np.float32),
        )

    def _places(self, shards: Sequence[Shard], rng: np.random.Generator) -> list[_Place]:
        """Which sprites stand where, the smallest first."""
        config, size = self.config, self.config.size
        count = 0 if rng.uniform() < config.empty else min(int(rng.geometric(1 / config.mean_heads)), config.most_heads)
        total = sum(map(len, shards))
        low, high = np.log(0.6 * config.smallest_px), np.log(config.largest * size)
        # Of many heads none fills the picture.
        high = max(low + 0.5, high - 0.35 * np.log(max(count, 1)))
        sizes = np.sort(np.exp(rng.uniform(low, high, size=count)))
        places: list[_Place] = []
        for longest in sizes:
            number = int(rng.integers(total))
            sprite = _stored(shards, number)
            for _ in range(_TRIES):
                place = _placed(number, sprite, longest, size, rng)
                if not places or overlaps(np.array([p.head for p in places]), place.head).max() < _MOST_SHARED:
                    places.append(place)
                    break
        return places


def _background(size: int, found: list[NDArray[np.uint8]], rng: np.random.Generator) -> FloatArray:
    """Every other one is drawn at half the size: less sharp, and in a quarter of the time."""
    if rng.uniform() < 0.5:
        return draw_background(size, found, rng)
    return np.asarray(cv2.resize(draw_background(size // 2, found, rng), (size, size)), dtype=np.float32)


@lru_cache(maxsize=2)
def _shards(folder: Path, manifest: str) -> list[Shard]:
    """Memory-mapped, of both splits, once in each process; kept by the manifest's digest, too, for sprites change."""
    shards = read_shards(folder)
    if any(shard.alpha is None or shard.heads is None for shard in shards):
        raise ArtifactError(f"{folder}: expected alpha_00000.npy and heads_00000.npy, ...; run Sprites again")
    return shards


class _Stored(NamedTuple):
    """The boxes of a sprite's 68 points and of its head, and pixels on a side of it."""

    face: NDArray[np.float32]
    head: NDArray[np.float32]
    side: int


def _stored(shards: Sequence[Shard], number: int) -> _Stored:
    for shard in shards:
        if number < len(shard):
            assert shard.heads is not None  # _shards has seen to it
            return _Stored(shard.boxes[number], shard.heads[number], shard.images.shape[1])
        number -= len(shard)
    raise IndexError(number)


def _placed(number: int, sprite: _Stored, longest: float, size: int, rng: np.random.Generator) -> _Place:
    """A sprite somewhere in the scene, the box of its 68 points this long; that box's middle lies inside."""
    scale = longest / float((sprite.face[2:] - sprite.face[:2]).max())
    side = max(8, round(sprite.side * scale))
    mirrored = bool(rng.uniform() < 0.5)
    face, head = (_scaled(box, side / sprite.side, side if mirrored else None) for box in (sprite.face, sprite.head))
    left, top, right, bottom = face
    # Cut by the border now and then, but seldom by more than a third.
    margin = 0.5 * longest if rng.uniform() < 0.8 else 0.15 * longest
    x, y = (rng.uniform(min(margin, size / 2), max(size - margin, size / 2)) for _ in range(2))
    column, row = round(x - (left + right) / 2), round(y - (top + bottom) / 2)
    corner = np.array([column, row, column, row])
    return _Place(number, side, column, row, mirrored, head + corner, face + corner)


def _scaled(box: NDArray[np.float32], scale: float, mirrored_in: int | None) -> NDArray[np.float64]:
    """A sprite's box as it lies in the sprite at this size, or in the mirror image of that many pixels."""
    left, top, right, bottom = (float(value) * scale for value in box)
    if mirrored_in is not None:
        left, right = mirrored_in - right, mirrored_in - left
    return np.array([left, top, right, bottom])


def _window(place: _Place, size: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what the scene shows of a sprite, in the sprite's own pixels there."""
    left, top = max(-place.left, 0), max(-place.top, 0)
    return left, top, min(size - place.left, place.side), min(size - place.top, place.side)


def _sprite(sprites: Shard, index: int, place: _Place, size: int, rng: np.random.Generator) -> FloatArray:
    """Colours, multiplied by alpha, and alpha in 0..255 (h, w, 4) of what the scene shows of one sprite, lighter or
    darker, sharp or not."""
    assert sprites.alpha is not None
    stored = cv2.merge([*cv2.split(sprites.images[index]), sprites.alpha[index]])
    if place.mirrored:
        stored = cv2.flip(stored, 1)
    if rng.uniform() < 0.25:
        coarse = max(8, int(min(place.side, len(stored)) / rng.uniform(1, 2.5)))
        stored = cv2.resize(stored, (coarse, coarse), interpolation=cv2.INTER_AREA)
    left, top, right, bottom = _window(place, size)
    if place.side <= len(stored):
        small = cv2.resize(stored, (place.side, place.side), interpolation=cv2.INTER_AREA)
        part = small[top:bottom, left:right]
    else:
        # Most of a large sprite lies beyond the picture.
        scale = len(stored) / place.side
        matrix = np.array([[scale, 0, (left + 0.5) * scale - 0.5], [0, scale, (top + 0.5) * scale - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(
            stored, matrix, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    sprite = part.astype(np.float32)
    gain = np.exp(rng.normal(0, 0.25)) * rng.normal(1, 0.06, size=3)
    lift = rng.uniform(0, 40) / 255 if rng.uniform() < 0.3 else 0.0
    alpha = sprite[..., 3]
    for channel in range(3):
        colored = sprite[..., channel]
        colored *= np.float32(gain[channel])
        if lift:
            colored += np.float32(lift) * alpha
        np.minimum(colored, alpha, out=colored)
    return sprite


def _lay(
    image: FloatArray,
    owner: NDArray[np.int16],
    index: int,
    sprite: FloatArray,
    place: _Place,
    rng: np.random.Generator,
) -> None:
    """Lay a sprite over the picture; its body goes on to the picture's edge, more often than not."""
    top, left = max(place.top, 0), max(place.left, 0)
    more = len(image) - top - len(sprite)
    if more > 0 and rng.uniform() < 0.75:
        last = np.repeat(sprite[-1:], more, axis=0)
        last[..., :3] *= np.linspace(1, rng.uniform(0.4, 1), more, dtype=np.float32)[:, None, None]
        sprite = np.concatenate([sprite, last])
    behind = image[top : top + len(sprite), left : left + sprite.shape[1]]
    behind *= 1 - sprite[..., 3:] / 255
    behind += sprite[..., :3]
    owner[top : top + len(sprite), left : left + sprite.shape[1]][sprite[..., 3] > _SEEN] = index


def _cover(
    image: FloatArray, owner: NDArray[np.int16], place: _Place, found: list[NDArray[np.uint8]], rng: np.random.Generator
) -> None:
    """A hand or a thing before the head, where all of that square lies in the picture."""
    middle = (place.face[:2] + place.face[2:]) / 2
    side = int(1.6 * (place.face[2:] - place.face[:2]).max())
    left, top = (int(value) for value in middle - side / 2)
    if side < 24 or min(left, top) < 0 or max(left, top) + side > len(image):
        return
    patch = np.ascontiguousarray(image[top : top + side, left : left + side])
    before = patch.copy()
    lay_over(patch, side, rng.uniform(40, 230) * np.array([1.0, 0.78, 0.66]), found, rng)
    image[top : top + side, left : left + side] = patch
    owner[top : top + side, left : left + side][np.abs(patch - before).max(axis=2) > 4] = -1


def _inside(place: _Place, size: int) -> tuple[slice, slice]:
    """Rows and columns of the head's box that lie in a picture of this size."""
    left, top, right, bottom = np.clip(np.round(place.head), 0, size).astype(int)
    return slice(top, bottom), slice(left, right)


def _head_pixels(alpha: NDArray[np.uint8], box: NDArray[np.float32], place: _Place) -> float:
    """Pixels of the person in the head's box as the scene shows it, those beyond the picture's edge, too."""
    left, top, right, bottom = np.clip(np.round(box), 0, len(alpha)).astype(int)
    return float((alpha[top:bottom, left:right] > _SEEN).sum() * (place.side / len(alpha)) ** 2)


def _seen_pixels(owner: NDArray[np.int16], index: int, place: _Place) -> int:
    return int((owner[_inside(place, len(owner))] == index).sum())
