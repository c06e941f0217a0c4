"""What surrounds a head in a crop: backgrounds with structure, light, and things that lie over the face."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.images import images_in, read_image
from nlml_hpe.files.manifests import digest_of_names_and_sizes
from renderer.compiled import compiled
from renderer.crop_shading import Lamps

FloatArray = NDArray[np.float32]
_PICTURES = ("coffee", "brick", "gravel", "grass", "rocket", "hubble_deep_field", "page", "text")
"""Of scikit-image's own pictures those without any face, painted or struck, and without much of one colour."""
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")
"""The same of scikit-learn's."""
_LARGEST_PX = 640
MOST_PICTURES = 1_000
"""Each worker holds all of them, up to 1.2 MB each."""
_SHARES = {"hand": 0.3, "thing": 0.35, "bar": 0.15, "strands": 0.2}
"""How often each lies over a face that is covered."""


_FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}
"""How OpenCV calls them, by whether left and right and whether top and bottom change places."""


class BackgroundError(ValueError):
    """A folder of backgrounds is not there, or holds no picture or too many; the message says what to do."""


def pictures(folder: Path | None, digest: str | None = None) -> list[NDArray[np.uint8]]:
    """Pictures to cut backgrounds from, read once in each process.

    Parameters
    ----------
    folder : Path or None
        Where they lie; by default those that installed packages carry.
    digest : str, optional
        Of the folder's names and sizes, where it is known already. Pictures of another digest are read anew.

    Returns
    -------
    list of RGB uint8 arrays
        None of them large.

    Raises
    ------
    BackgroundError
        Where the folder is not there, or holds none or more than ``MOST_PICTURES``.
    ImageReadError
        Where one is damaged.
    """
    if folder is None:
        return _pictures(None, "")
    return _pictures(folder, digest or digest_of_names_and_sizes(folder))


@lru_cache(maxsize=2)
def _pictures(folder: Path | None, digest: str) -> list[NDArray[np.uint8]]:
    """Kept by the digest, too: a process outlives a run, and the files change."""
    if folder is not None:
        if not folder.is_dir():
            raise BackgroundError(f"{folder}: no such folder; correct the setting `backgrounds`, or leave it out")
        files = images_in(folder)
        if not files:
            raise BackgroundError(f"{folder}: no pictures here; expected photographs without people, as .jpg or .png")
        if len(files) > MOST_PICTURES:
            raise BackgroundError(
                f"{folder}: {len(files)} pictures, which every worker would hold in memory; expected {MOST_PICTURES} "
                "at most: put some of them into a folder of their own"
            )
        return [_reduced(read_image(path)) for path in files]
    from skimage import data

    found = [np.asarray(getattr(data, name)()) for name in _PICTURES]
    found += [np.asarray(data.stereo_motorcycle()[0]), *map(_of_scikit_learn, _PHOTOGRAPHS)]
    return [_reduced(np.repeat(p[..., None], 3, axis=2) if p.ndim == 2 else p[..., :3]) for p in found]


def _of_scikit_learn(name: str) -> NDArray[np.uint8]:
    """One of its pictures, read where it is installed: to import it takes 0.7 seconds, and every worker reads them."""
    return read_image(Path(str(distribution("scikit-learn").locate_file(f"sklearn/datasets/images/{name}"))))


def draw_background(size: int, found: list[NDArray[np.uint8]], rng: np.random.Generator) -> FloatArray:
    """One background: a cut of a picture, blurred or not, or a smooth wall.

    Parameters
    ----------
    size : int
        Pixels on a side.
    found : list of RGB uint8 arrays
        Pictures to cut from.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    float array (size, size, 3)
        RGB in 0..255.
    """
    if rng.uniform() < 0.2:
        wall = rng.uniform(0, 255) + rng.normal(0, 25, size=(1, 1, 3))
        coarse = wall + rng.normal(0, rng.uniform(2, 45), size=(3, 3, 3))
        return np.clip(cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC), 0, 255)
    image = _cut(found[int(rng.integers(len(found)))], size, rng)
    if rng.uniform() < 0.3:
        other = _cut(found[int(rng.integers(len(found)))], size, rng)
        edge = np.zeros((size, size), np.uint8)
        corners = rng.uniform(-0.2, 1.2, size=(4, 2)) * size
        cv2.fillConvexPoly(edge, cv2.convexHull(corners.astype(np.int32)), [1])
        cv2.copyTo(other, edge, image)
    if rng.uniform() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 0.06 * size)), dtype=np.float32)
    tint = rng.uniform(0.35, 1.3) * rng.normal(1, 0.12, size=3)
    _tint(image, tint)
    return image


@compiled()
def _tint(image, factors):  # type: ignore[no-untyped-def]
    """An image (H, W, 3) times a factor (3,) for each colour, within 0..255."""
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            for channel in range(3):
                image[row, column, channel] = min(max(image[row, column, channel] * factors[channel], 0.0), 255.0)


def draw_lamps(rng: np.random.Generator) -> Lamps:
    """Light from soft and frontal to hard and from one side, cold or warm."""
    azimuth = np.radians(rng.normal(0, 55) if rng.uniform() < 0.8 else rng.uniform(-150, 150))
    elevation = np.radians(rng.uniform(-20, 75))
    ambient = rng.uniform(0.12, 0.75)
    exposure = np.exp(rng.normal(0.12, 0.3))
    warmth = rng.normal(0, 0.07)
    return Lamps(
        _direction(azimuth, elevation),
        _direction(np.radians(rng.uniform(-180, 180)), np.radians(rng.uniform(-40, 60))),
        float(ambient * exposure),
        float((1 - ambient) * rng.uniform(0.7, 1.6) * exposure),
        float(rng.uniform(0, 0.3) * exposure),
        np.array([1 + warmth, 1, 1 - warmth], dtype=np.float32),
        float(rng.uniform(0, 0.25) if rng.uniform() < 0.6 else 0.0),
        float(rng.uniform(6, 60)),
        float(rng.uniform(0.3, 1.0) if rng.uniform() < 0.7 else 0.0),
    )


def lay_over(
    image: FloatArray, size: int, skin: NDArray[np.floating], found: list[NDArray[np.uint8]], rng: np.random.Generator
) -> None:
    """Draw something over a part of the face: a hand, a thing, an edge of a picture, or strands of hair.

    Parameters
    ----------
    image : float array (size, size, 3)
        RGB in 0..255, drawn into.
    size : int
        Pixels on a side.
    skin : array (3,)
        RGB of the person's skin, which a hand has.
    found : list of RGB uint8 arrays
        Pictures to cut from.
    rng : numpy Generator
        By which all is drawn.
    """
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    middle = (0.5 + rng.normal(0, 0.17, size=2)) * size
    if kind == "hand":  # the one that is not flat
        _hand(image, middle, size, skin, rng)
        return
    mask = np.zeros((size, size), np.uint8)
    _SHAPES[kind](mask, middle, size, rng)
    fill = _hair_color(rng) if kind == "strands" else draw_background(size, found, rng)
    left, top, width, height = cv2.boundingRect(mask)
    where = slice(top, top + height), slice(left, left + width)
    _lay(image[where], mask[where], np.broadcast_to(fill, image.shape)[where])


@compiled()
def _lay(image, mask, over):  # type: ignore[no-untyped-def]
    """Lay one image (H, W, 3) over another, as far as a mask (H, W) in 0..255 says."""
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            if mask[row, column] > 0:
                share = mask[row, column] / 255.0
                for channel in range(3):
                    under = image[row, column, channel]
                    image[row, column, channel] = under + share * (over[row, column, channel] - under)


def _reduced(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    longest = max(picture.shape[:2])
    if longest <= _LARGEST_PX:
        return np.ascontiguousarray(picture)
    # Of a strip a pixel is left of its width.
    scale = max(_LARGEST_PX / longest, 1 / min(picture.shape[:2]))
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _cut(picture: NDArray[np.uint8], size: int, rng: np.random.Generator) -> FloatArray:
    rows, columns = picture.shape[:2]
    side = max(1, int(min(rows, columns) * rng.uniform(0.15, 1.0)))
    top, left = rng.integers(0, rows - side + 1), rng.integers(0, columns - side + 1)
    part = picture[top : top + side, left : left + side]
    mirrored, upside_down = rng.uniform() < 0.5, rng.uniform() < 0.2
    if mirrored or upside_down:
        part = np.asarray(cv2.flip(part, _FLIPS[mirrored, upside_down]), dtype=np.uint8)
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(part, (size, size), interpolation=method).astype(np.float32)


def _direction(azimuth: float, elevation: float) -> FloatArray:
    flat = np.cos(elevation)
    return np.array([np.sin(azimuth) * flat, np.sin(elevation), np.cos(azimuth) * flat], dtype=np.float32)


def _hand(
    image: FloatArray, middle: NDArray[np.floating], size: int, skin: NDArray[np.floating], rng: np.random.Generator
) -> None:
    """A palm and fingers, each lighter in its middle, so that they are seen apart."""
    along = rng.uniform(0, 2 * np.pi)
    ahead, across = np.array([np.cos(along), np.sin(along)]), np.array([-np.sin(along), np.cos(along)])
    width = rng.uniform(0.03, 0.05) * size
    color = skin * rng.uniform(0.6, 1.15)
    bend = rng.uniform(-0.15, 0.15)
    count = int(rng.integers(1, 6))
    pieces = [(middle - ahead * 4 * width, middle - ahead * 12 * width, 4.5 * width)]
    for number in range(count):
        offset = (number - (count - 1) / 2) * 2.0 * width
        root = middle - ahead * 3 * width + across * offset
        tip = root + (ahead + (bend + 0.05 * (number - 2)) * across) * width * rng.uniform(4, 8)
        pieces.append((root, tip, width))
    for first, last, half in pieces:
        for share, bright in ((1.0, 0.62), (0.8, 0.88), (0.5, 1.0)):
            start, end = (np.round(place).astype(int).tolist() for place in (first, last))
            cv2.line(image, start, end, (color * bright).tolist(), max(1, round(2 * half * share)), cv2.LINE_AA)


def _strands(mask: NDArray[np.uint8], middle: NDArray[np.floating], size: int, rng: np.random.Generator) -> None:
    """Hair that falls across the crop from above."""
    root, lean = rng.uniform(0.2, 0.8) * size, rng.normal(0, 0.3)
    for _ in range(int(rng.integers(4, 30))):
        x = root + rng.normal(0, 0.08) * size
        y = np.linspace(0, rng.uniform(0.35, 0.95) * size, 8)
        path = np.stack([x + lean * y + rng.normal(0, 0.01 * size, 8).cumsum(), y], axis=1)
        cv2.polylines(mask, [np.round(path).astype(np.int32)], False, [255], int(rng.integers(1, 4)), cv2.LINE_AA)


def _bar(mask: NDArray[np.uint8], middle: NDArray[np.floating], size: int, rng: np.random.Generator) -> None:
    """A line from edge to edge."""
    reach = rng.uniform(0.06, 0.17) * size
    along = rng.uniform(0, np.pi)
    step = np.array([np.cos(along), np.sin(along)]) * size
    first, last = (tuple((middle + sign * step).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(mask, first, last, [255], max(2, int(reach * 0.5)))


def _thing(mask: NDArray[np.uint8], middle: NDArray[np.floating], size: int, rng: np.random.Generator) -> None:
    """A convex piece of a picture."""
    reach = rng.uniform(0.06, 0.17) * size
    corners = middle + rng.uniform(-1, 1, size=(int(rng.integers(4, 8)), 2)) * reach * rng.uniform(0.7, 1.6, size=2)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.int32)), [255])


def _hair_color(rng: np.random.Generator) -> NDArray[np.floating]:
    return np.full(3, rng.uniform(5, 120)) * rng.uniform(0.6, 1.0, size=3)


_SHAPES: dict[str, Callable[[NDArray[np.uint8], NDArray[np.floating], int, np.random.Generator], None]] = {
    "thing": _thing,
    "bar": _bar,
    "strands": _strands,
}
