"""Crops on disk: memory-mapped arrays in shards, written one by one, so that a run that was killed goes on.

Shard 7 of a folder is four files: ``images_00007.npy`` uint8 (n, S, S, 3) RGB, ``rotations_00007.npy`` float32
(n, 3, 3) head to camera, ``boxes_00007.npy`` float32 (n, 4) of the 68 points in the crop's own pixels, and
``people_00007.npy`` int32 (n,), which is written last: without it the shard is unfinished. Where a model gave the
labels there is a fifth, ``confidence_00007.npy`` float32 (n,); of heads without a background ``alpha_00007.npy`` uint8
(n, S, S), by which their colours are multiplied already, and ``heads_00007.npy`` float32 (n, 4), the boxes of the whole
heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.arrays import map_npy
from nlml_hpe.files.atomic import ArtifactError, atomic_path

LABEL_TOLERANCE = 1e-3
"""How far the numbers of a label's ``R R^T`` may be from the identity's; float32 is apart by 1e-6."""
NO_ROTATION = "label is no rotation"
_KINDS: dict[str, type] = {"images": np.uint8, "rotations": np.float32, "boxes": np.float32, "people": np.int32}
_LAST = "people"
_CONFIDENCE, _ALPHA, _HEADS = "confidence", "alpha", "heads"
_MEANT = {"images": ", of square RGB images"}
_OPTIONAL: dict[str, type] = {_CONFIDENCE: np.float32, _ALPHA: np.uint8, _HEADS: np.float32}


@dataclass(frozen=True, eq=False)
class Shard:
    """Some crops: ``images`` (n, S, S, 3) uint8, ``rotations`` (n, 3, 3), ``boxes`` (n, 4), ``people`` (n,).

    ``confidence`` (n,), from 0 to 1, is how much a label that a model gave is to count; None where all are certain.
    ``alpha`` (n, S, S) says how much of each pixel is the person's; None where all of it is picture. ``heads`` (n, 4)
    are the boxes of the whole heads, from crown to chin; None where nobody asks for them.
    """

    images: NDArray[np.uint8]
    rotations: NDArray[np.float32]
    boxes: NDArray[np.float32]
    people: NDArray[np.int32]
    confidence: NDArray[np.float32] | None = None
    alpha: NDArray[np.uint8] | None = None
    heads: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.people)


def is_written(folder: Path, number: int) -> bool:
    """Whether this shard is finished."""
    return _file(folder, _LAST, number).is_file()


def write_shard(folder: Path, number: int, shard: Shard) -> None:
    """Write one shard; each file whole or not at all, the one that finishes it last.

    Parameters
    ----------
    folder : Path
        That is there.
    number : int
        Of the shard, by which ``is_written`` knows it.
    shard : Shard
        The crops.
    """
    further = {name: kind for name, kind in _OPTIONAL.items() if getattr(shard, name) is not None}
    for name, kind in {**further, **_KINDS}.items():
        with atomic_path(_file(folder, name, number)) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(getattr(shard, name), dtype=kind))


def read_shards(folder: Path) -> list[Shard]:
    """Every finished shard of a folder.

    Parameters
    ----------
    folder : Path
        What ``write_shard`` wrote into.

    Returns
    -------
    list of Shard
        In order, memory-mapped.

    Raises
    ------
    ArtifactError
        Where there is none, where a file is missing, cut short, of another kind or not called so, or where sizes
        differ.
    """
    numbers = sorted(map(_number_of, folder.glob(f"{_LAST}_[0-9]*.npy")))
    if not numbers:
        raise ArtifactError(f"{folder} holds no crops (images_00000.npy, ...); run Crops first")
    shards = [_read_shard(folder, number) for number in numbers]
    sizes = sorted({shard.images.shape[1] for shard in shards})
    if len(sizes) > 1:
        raise ArtifactError(f"{folder}: crops of {sizes} px lie together; run Crops into an empty folder")
    return shards


def crop_names(shards: Sequence[Shard]) -> list[str]:
    """The name of each crop, as lists of faces have it, counted through all shards: shard and row.

    >>> eye = np.eye(3, dtype=np.float32)[None]
    >>> crop = np.zeros((1, 8, 8, 3), np.uint8), eye, np.zeros((1, 4), np.float32), np.array([5], np.int32)
    >>> crop_names([Shard(*crop), Shard(*crop)])
    ['00000/00000', '00001/00000']
    """
    return [f"{number:05d}/{row:05d}" for number, shard in enumerate(shards) for row in range(len(shard))]


def gathered(shards: Sequence[Shard], chosen: NDArray[np.integer[Any]]) -> Shard:
    """The crops of these numbers, counted through all shards, in memory.

    Raises ``IndexError`` for a number that no shard holds.

    Examples
    --------
    >>> images, eye = np.zeros((3, 8, 8, 3), np.uint8), np.tile(np.eye(3, dtype=np.float32), (3, 1, 1))
    >>> one = Shard(images, eye, np.zeros((3, 4), np.float32), np.array([5, 6, 7], np.int32))
    >>> gathered([one, one], np.array([4, 0])).people
    array([6, 5], dtype=int32)
    """
    starts = np.cumsum([0, *map(len, shards)])
    if len(chosen) and not (chosen.min() >= 0 and chosen.max() < starts[-1]):
        raise IndexError(f"expected numbers of crops in 0..{starts[-1] - 1}; received {chosen.min()}..{chosen.max()}")
    owner = np.searchsorted(starts, chosen, side="right") - 1
    own = chosen - starts[owner]

    def rows(name: str) -> NDArray[Any]:
        arrays = [getattr(shards[one], name)[number] for one, number in zip(owner, own, strict=True)]
        return np.stack(arrays) if arrays else getattr(shards[0], name)[:0]

    optional = {
        name: None if any(getattr(shard, name) is None for shard in shards) else rows(name) for name in _OPTIONAL
    }
    return Shard(rows("images"), rows("rotations"), rows("boxes"), rows("people"), **optional)


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}_{number:05d}.npy"


def _number_of(path: Path) -> int:
    """The number of the shard that this file, of people, finishes."""
    digits = path.stem.removeprefix(f"{_LAST}_")
    if not digits.isascii() or not digits.isdigit() or path != _file(path.parent, _LAST, int(digits)):
        raise ArtifactError(
            f"{path}: expected a name such as {_LAST}_00007.npy; move it out of the folder, or give it its name back"
        )
    return int(digits)


def _read_shard(folder: Path, number: int) -> Shard:
    further = {name: kind for name, kind in _OPTIONAL.items() if _file(folder, name, number).is_file()}
    arrays = {name: _mapped(_file(folder, name, number), kind) for name, kind in {**_KINDS, **further}.items()}
    images, count = arrays["images"], len(arrays[_LAST])
    side = images.shape[1] if images.ndim == 4 else "S"
    shapes: dict[str, tuple[int | str, ...]] = {
        "images": (side, side, 3),
        "rotations": (3, 3),
        "boxes": (4,),
        "people": (),
        _CONFIDENCE: (),
        _ALPHA: (side, side),
        _HEADS: (4,),
    }
    for name, array in arrays.items():
        if array.shape != (count, *shapes[name]):
            expected = ", ".join(map(str, (count, *shapes[name])))
            raise ArtifactError(
                f"{_file(folder, name, number)}: expected the shape ({expected}), found {array.shape}"
                f"{_MEANT.get(name, '')}; delete the files of this number and run Crops again"
            )
    return Shard(**arrays)


def _mapped(path: Path, kind: type) -> NDArray[Any]:
    try:
        array = map_npy(path, "r")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is missing, damaged or cut short ({error}); delete the files of this number and run Crops again"
        ) from error
    if array.dtype != kind:
        raise ArtifactError(f"{path}: expected {np.dtype(kind)}, found {array.dtype}; run Crops again")
    return array
