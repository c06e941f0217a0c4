"""Where training crops come from: rendered shards, labelled photographs, or a mixture of them with weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nlml_hpe.files.images import ImageReadError, RgbImage
from nlml_hpe.image_networks.augment import PLAIN, reframed
from nlml_hpe.image_networks.crop import stored_crop
from nlml_hpe.image_networks.network import Labels
from nlml_hpe.image_networks.shards import LABEL_TOLERANCE, NO_ROTATION, Shard, crop_names, gathered, read_shards
from nlml_hpe.rotation import is_rotation
from nlml_hpe.training_error import TrainingError

NO_BOX = "box has no size"
NO_CONFIDENCE = "confidence is no number from 0 to 1"
NO_BIN = "the network has no bin for the label"
_UNKNOWN_PERSON = -1


class Source(Protocol):
    """Labelled crops by number, as they are stored: with the margin that training needs."""

    @property
    def name(self) -> str:
        """What a message calls it."""
        ...

    @property
    def size(self) -> int:
        """Pixels on a side of a stored crop."""
        ...

    def rotations(self) -> NDArray[np.float32]:
        """All labels (n, 3, 3), head to camera."""
        ...

    def boxes_are_whole(self) -> NDArray[np.bool_]:
        """Of each (n,) whether its box has a size, as ``face.has_size`` says of one."""
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

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def size(self) -> int:
        """Pixels on a side of a stored crop."""
        return int(self._shards[0].images.shape[1])

    def names(self) -> list[str]:
        """Of each crop (n), as lists of faces have it."""
        return crop_names(self._shards)

    def rotations(self) -> NDArray[np.float32]:
        """All labels (n, 3, 3), head to camera."""
        return np.concatenate([shard.rotations for shard in self._shards])

    def boxes_are_whole(self) -> NDArray[np.bool_]:
        """Of each (n,) whether its box has a size."""
        return _have_size(np.concatenate([shard.boxes for shard in self._shards]))

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
    name: str = "photographs"

    def rotations(self) -> NDArray[np.float32]:
        """All labels (n, 3, 3), head to camera."""
        return self.labels.astype(np.float32)

    def boxes_are_whole(self) -> NDArray[np.bool_]:
        """Of each (n,) whether its box has a size."""
        return _have_size(self.boxes)

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

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    @property
    def size(self) -> int:
        """Pixels on a side of a stored crop."""
        return self.source.size

    def rotations(self) -> NDArray[np.float32]:
        """Their labels (n, 3, 3), head to camera."""
        return self.source.rotations()[self.numbers]

    def boxes_are_whole(self) -> NDArray[np.bool_]:
        """Of each of them (n,) whether its box has a size."""
        return self.source.boxes_are_whole()[self.numbers]

    def confidence(self) -> NDArray[np.float32]:
        """How much each of them counts (n,)."""
        return self.source.confidence()[self.numbers]

    def stored(self, chosen: NDArray[np.int64]) -> Shard:
        """The crops of these numbers, counted among the chosen."""
        return self.source.stored(self.numbers[chosen])


def _have_size(boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Of boxes (n, 4) what ``face.has_size`` says of one."""
    return np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))


class Labelled(NamedTuple):
    """``kept``: the numbers (n,) of crops to learn from; ``left_out``: how many are not learned from, by reason."""

    kept: NDArray[np.int64]
    left_out: Counter[str]


def labelled(source: Source, usable: Callable[[Tensor], Tensor]) -> Labelled:
    """The crops of a source whose label can be learned from.

    Parameters
    ----------
    source : Source
        Whose crops.
    usable : callable
        Rotations (n, 3, 3) to whether each can be a label of the network.

    Returns
    -------
    Labelled
        Those whose label is a rotation to within 0.001, ``usable``, and trusted by a number from 0 to 1, and whose box
        is finite, left before right and top before bottom.

    Examples
    --------
    >>> upside_down = -np.eye(3)[None]
    >>> images = Photographs([], np.array([[0, 0, 8, 8]] * 2), np.concatenate([np.eye(3)[None], upside_down]), 96)
    >>> labelled(images, lambda rotations: torch.ones(len(rotations), dtype=torch.bool))
    Labelled(kept=array([0]), left_out=Counter({'label is no rotation': 1}))
    """
    rotations, confidence = np.array(source.rotations()), source.confidence()
    proper = is_rotation(rotations, LABEL_TOLERANCE)
    certain = (confidence >= 0) & (confidence <= 1)
    fits = np.zeros(len(rotations), dtype=bool)
    fits[proper] = usable(torch.from_numpy(rotations[proper])).numpy()
    kept, counts = np.ones(len(rotations), dtype=bool), Counter[str]()
    tests = ((NO_ROTATION, proper), (NO_BOX, source.boxes_are_whole()), (NO_CONFIDENCE, certain), (NO_BIN, fits))
    for reason, passed in tests:  # each is left out for one reason, the first
        counts[reason] = int((kept & ~passed).sum())
        kept &= passed
    return Labelled(np.flatnonzero(kept), +counts)


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
        Rotations (n, 3, 3) to whether each can be a label; others are left out, as those that are no rotations are,
        and counted by reason in ``left_out``: see ``labelled``.
    shown : callable
        Finished crops (n, 3, size, size) to what the network is shown of them.

    Raises
    ------
    TrainingError
        Where the crops of two sources are stored in different sizes.
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
        require_one_size([(source.name, source.size) for source in self.sources])
        found = [labelled(source, usable) for source in self.sources]
        kept = [one.kept for one in found]
        self.left_out = sum((one.left_out for one in found), Counter[str]())
        parts = [source.confidence()[numbers] for source, numbers in zip(self.sources, kept, strict=True)]
        self._confidence = torch.from_numpy(np.concatenate(parts))
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


def require_one_size(stored: Sequence[tuple[str, int]]) -> None:
    """Raise ``TrainingError`` where crops of one batch could not lie in one array: sources by name, pixels a side."""
    if len({size for _, size in stored}) > 1:
        places = ", ".join(f"{name} {size} px" for name, size in stored)
        raise TrainingError(
            f"expected data whose crops are stored in one size; received {places}; give folders of crops the same "
            "crops.size and run Crops again, or set image_trainer.stored_px, the size of photographs, to theirs"
        )
