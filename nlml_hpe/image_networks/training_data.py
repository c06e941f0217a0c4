"""Where training crops come from: rendered shards, labelled photographs, or a mixture of them with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nlml_hpe.files.images import ImageReadError, RgbImage
from nlml_hpe.image_networks.augment import PLAIN, reframed
from nlml_hpe.image_networks.crop import stored_crop
from nlml_hpe.image_networks.network import Labels
from nlml_hpe.image_networks.shards import Shard, gathered, read_shards

_UNKNOWN_PERSON = -1


class Source(Protocol):
    """Labelled crops by number, as they are stored: with the margin that training needs."""

    def rotations(self) -> NDArray[np.float32]:
        """All labels (n, 3, 3), head to camera."""
        ...

    def confidence(self) -> NDArray[np.float32]:
        """How much each label (n,) is to count, from 0 to 1."""
        ...

    def stored(self, chosen: NDArray[np.int64]) -> Shard:
        """The crops of these numbers."""
        ...


@dataclass(frozen=True)
class RenderedCrops:
    """The crops that the stage Crops has written into ``folder``. Raises as ``read_shards`` does, when it is read."""

    folder: Path

    @cached_property
    def _shards(self) -> list[Shard]:
        return read_shards(self.folder)

    def __getstate__(self) -> dict[str, Path]:
        # Sent to a worker process, a memory-mapped array would be copied; the worker maps the file itself.
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__dict__.update(state)

    def rotations(self) -> NDArray[np.float32]:
        """All labels (n, 3, 3), head to camera."""
        return np.concatenate([shard.rotations for shard in self._shards])

    def confidence(self) -> NDArray[np.float32]:
        """One, but where a model gave the labels."""
        parts = [np.ones(len(s), np.float32) if s.confidence is None else s.confidence for s in self._shards]
        return np.concatenate(parts)

    def stored(self, chosen: NDArray[np.int64]) -> Shard:
        """The crops of these numbers."""
        return gathered(self._shards, chosen)


@dataclass(frozen=True)
class Photographs:
    """Labelled images, each cut as crops are stored: ``size`` px over ``STORED_SHARE`` of the box.

    ``images`` loads each, ``boxes`` (n, 4) are of the 68 points in pixels, ``labels`` (n, 3, 3) head to camera.
    """

    images: Sequence[Callable[[], RgbImage]]
    boxes: NDArray[np.float64]
    labels: NDArray[np.float64]
    size: int

    def rotations(self) -> NDArray[np.float32]:
        """All labels (n, 3, 3), head to camera."""
        return self.labels.astype(np.float32)

    def confidence(self) -> NDArray[np.float32]:
        """One of each."""
        return np.ones(len(self.labels), np.float32)

    def stored(self, chosen: NDArray[np.int64]) -> Shard:
        """The crops of these numbers. Raises ``ImageReadError`` where an image does not read."""
        try:
            cut = [stored_crop(self.images[n](), self.boxes[n], self.size) for n in chosen]
        except ImageReadError as error:
            raise ImageReadError(f"{error}; leave it out by a list of the others (`list` in image_trainer)") from error
        images, boxes = zip(*cut, strict=True)
        return Shard(
            np.stack(images),
            self.rotations()[chosen],
            np.array(boxes, dtype=np.float32),
            np.full(len(chosen), _UNKNOWN_PERSON, np.int32),
        )


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some crops of a source, by their ``numbers`` (n,)."""

    source: Source
    numbers: NDArray[np.int64]

    def rotations(self) -> NDArray[np.float32]:
        """Their labels (n, 3, 3), head to camera."""
        return self.source.rotations()[self.numbers]

    def confidence(self) -> NDArray[np.float32]:
        """How much each of them counts (n,)."""
        return self.source.confidence()[self.numbers]

    def stored(self, chosen: NDArray[np.int64]) -> Shard:
        """The crops of these numbers, counted among the chosen."""
        return self.source.stored(self.numbers[chosen])


class Crops:
    """Crops of one source or several, for the training loop.

    Parameters
    ----------
    sources : sequence of Source
        Where they come from, one after the other.
    weights : (number of sources,) array
        How often a crop of each is shown, against the others.
    size : int or None
        Pixels on a side of a finished crop, as inference cuts it; None leaves the cutting to ``augment``.
    usable : callable
        Rotations (n, 3, 3) to whether each can be a label; others are left out and counted in ``left_out``.
    shown : callable
        Finished crops (n, 3, size, size) to what the network is shown of them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: ArrayLike,
        size: int | None,
        usable: Callable[[Tensor], Tensor],
        shown: Callable[[Tensor], Tensor],
    ) -> None:
        self.sources, self.size, self._shown = list(sources), size, shown
        labels = [torch.from_numpy(np.array(source.rotations())) for source in self.sources]
        kept = [np.flatnonzero(usable(rotations).numpy()) for rotations in labels]
        parts = [source.confidence()[numbers] for source, numbers in zip(self.sources, kept, strict=True)]
        self._confidence = torch.from_numpy(np.concatenate(parts))
        self.left_out = sum(map(len, labels)) - sum(map(len, kept))
        self._source = np.repeat(np.arange(len(kept)), [len(one) for one in kept])
        self._number = np.concatenate([*kept, np.zeros(0, dtype=np.int64)])
        self.weights = np.asarray(weights, dtype=np.float64)[self._source]

    def __len__(self) -> int:
        return len(self._number)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Any, Labels]:
        """Stored crops (uint8) with their boxes, or finished ones, and their labels; ``rng`` is not used."""
        confidence = self._confidence[torch.from_numpy(indices)]
        shard = self._stored(indices)
        images, rotations, boxes = (torch.from_numpy(a) for a in (shard.images, shard.rotations, shard.boxes))
        if self.size is None:
            return (images, boxes), Labels(rotations, confidence)
        crops, shown = reframed(images, rotations, boxes, self.size, PLAIN, torch.Generator())
        return self._shown(crops), Labels(shown, confidence)

    def _stored(self, indices: NDArray[np.int64]) -> Shard:
        owner = self._source[indices]
        parts = [(np.flatnonzero(owner == n), source) for n, source in enumerate(self.sources) if (owner == n).any()]
        shards = [source.stored(self._number[indices[rows]]) for rows, source in parts]
        back = np.argsort(np.concatenate([rows for rows, _ in parts]))

        def together(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(shard, name) for shard in shards])[back]

        return Shard(together("images"), together("rotations"), together("boxes"), together("people"))
