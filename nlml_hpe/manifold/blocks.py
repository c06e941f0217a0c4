"""The landmark tensor one person at a time: from memory or from a file, missing cells filled on the way."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import RawIOBase
from mmap import ALLOCATIONGRANULARITY
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shards = NDArray[np.float32] | Sequence[NDArray[np.float32]]
Fill = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]


class TensorError(ValueError):
    """The tensor cannot be decomposed as asked; the message says what to change."""


@dataclass(frozen=True)
class FileShard:
    """People of a tensor on disk: a name that travels to other processes, read through a few reused buffers.

    Mapped pages would count as resident memory until the whole file does. A block is valid until the
    next one but one is asked for.

    Attributes
    ----------
    path : str
        The file.
    position : int
        Of the first person's first byte.
    shape : tuple of int
        (I, Y, P, R, F), float32 in row-major order.
    """

    path: str
    position: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, mapped: np.memmap[Any, np.dtype[np.float32]]) -> FileShard:
        """The part of its file that a mapped array shows; a slice's own ``offset`` is that of the whole."""
        start = np.frombuffer(mapped._mmap, dtype=np.uint8).ctypes.data  # type: ignore[attr-defined]
        skipped = mapped.offset - mapped.offset % ALLOCATIONGRANULARITY
        return cls(str(mapped.filename), skipped + mapped.ctypes.data - start, mapped.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, people: slice) -> FileShard:
        first, last, _ = people.indices(len(self))
        size = int(np.prod(self.shape[1:])) * np.dtype(np.float32).itemsize
        return FileShard(self.path, self.position + first * size, (last - first, *self.shape[1:]))

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        buffers = itertools.cycle([np.empty(self.shape[1:], dtype=np.float32) for _ in range(3)])
        with open(self.path, "rb", buffering=0) as stream, ThreadPoolExecutor(1) as reader:
            stream.seek(self.position)
            # One block is read ahead of its use.
            ahead = deque(reader.submit(_read_into, stream, next(buffers)) for _ in range(min(2, len(self))))
            for person in range(len(self)):
                yield ahead.popleft().result()
                if person + 2 < len(self):
                    ahead.append(reader.submit(_read_into, stream, next(buffers)))


class PersonBlocks:
    """The tensor one person at a time.

    Parameters
    ----------
    features : ndarray of shape (I, Y, P, R, F), float32, or a list of such
        The tensor, or shards of its people in order.
    detected : ndarray of shape (I, Y, P, R), bool, optional
        False at missing cells.
    fill : callable, optional
        A block and its part of ``detected`` to the features (missing, F) of its missing cells.

    Raises
    ------
    TensorError
        For features that are neither float32 nor float64.

    Examples
    --------
    >>> people = PersonBlocks([np.zeros((2, 3, 1, 1, 4), dtype=np.float32), np.ones((1, 3, 1, 1, 4), dtype=np.float32)])
    >>> people.shape, [float(block.max()) for block in people]
    ((3, 3, 1, 1, 4), [0.0, 0.0, 1.0])
    """

    def __init__(
        self,
        features: Shards | Sequence[NDArray[np.float32] | FileShard],
        detected: NDArray[np.bool_] | None = None,
        fill: Fill | None = None,
    ) -> None:
        shards = [features] if isinstance(features, np.ndarray) else features
        self.shards = [_by_name(shard) for shard in shards]
        self.detected, self.fill = detected, fill

    @property
    def shape(self) -> tuple[int, ...]:
        """(I, Y, P, R, F) over all shards. Raises ``TensorError`` where shards differ in shape."""
        if not self.shards or any(shard.shape[1:] != self.shards[0].shape[1:] for shard in self.shards):
            raise TensorError(f"expected shards of one shape but for people; received {[s.shape for s in self.shards]}")
        return (sum(map(len, self.shards)), *self.shards[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for person, block in enumerate(itertools.chain.from_iterable(self.shards)):
            mask = None if self.detected is None else np.asarray(self.detected[person])
            if mask is not None and self.fill is not None and not mask.all():
                filled = np.array(block)
                filled[~mask] = self.fill(filled, mask)
                yield filled
            else:
                yield block

    def pieces(self, people: int) -> list[PersonBlocks]:
        """The same in parts of at most this many people, in order."""
        found, before = [], 0
        for shard in self.shards:
            for first in range(0, len(shard), people):
                part = shard[first : first + people]
                mask = None if self.detected is None else self.detected[before : before + len(part)]
                found.append(PersonBlocks([part], mask, self.fill))
                before += len(part)
        return found


def _by_name(shard: NDArray[np.float32] | FileShard) -> NDArray[np.float32] | FileShard:
    if isinstance(shard, FileShard):
        return shard
    # Whole numbers would be multiplied as such, beyond what they hold, and torch takes no foreign byte order.
    if shard.dtype not in (np.float32, np.float64):
        raise TensorError(f"expected features of float32; received {shard.dtype}: give features.astype(np.float32)")
    mapped = isinstance(shard, np.memmap) and bool(shard.filename) and shard.flags.c_contiguous
    # A file is read as float32.
    return FileShard.of(shard) if mapped and isinstance(shard, np.memmap) and shard.dtype == np.float32 else shard


def _read_into(stream: RawIOBase, block: NDArray[np.float32]) -> NDArray[np.float32]:
    view = block.data.cast("B")
    while view:
        count = stream.readinto(view)
        if not count:
            raise TensorError("the tensor's file is shorter than its header says; run Landmarks again")
        view = view[count:]
    return block
