"""What a training reads: data sets, the batches of an epoch, their way to the device, and noise on them.

Order and random changes come from the seed alone, so that neither the number of worker processes nor their speed
changes a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import ImageReadError
from nlml_hpe.training_error import TrainingError

Key = tuple[NDArray[np.int64], tuple[int, ...] | None]
"""Which samples a batch holds, and the seed of its random changes; no seed, no changes."""
Augment = Callable[[Any, Any, torch.Generator], tuple[Any, Any]]
"""Inputs and targets of a batch to those that the network sees in their place; the generator is on their device."""
_IN_MEMORY_BATCH = 4096
"""Samples of a validation batch where the whole split is in memory anyway."""


class Dataset(Protocol):
    """A map-style data set: its length, and ``data[index]`` as a pair of input and target.

    Both may be tensors, arrays, numbers, or tuples and dicts of them; samples are stacked to batches. With worker
    processes it is sent to them, so it holds paths or memory-mapped files rather than open ones.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@runtime_checkable
class BatchedDataset(Protocol):
    """A data set that reads a batch at once, and may change samples at random while it does."""

    def __len__(self) -> int: ...

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None, /) -> tuple[Any, Any]:
        """Inputs and targets of these samples, batched; ``rng`` is None in validation: then nothing is changed."""
        ...


AnyDataset = Dataset | BatchedDataset


@dataclass(frozen=True)
class Samples:
    """A split in memory: inputs (N, ...) and targets (N, ...), on one device.

    Raises
    ------
    TrainingError
        Where there are not as many inputs as targets, or none.

    Examples
    --------
    >>> samples = Samples(torch.arange(6.0).reshape(3, 2), torch.tensor([0.0, 1.0, 2.0]))
    >>> samples.batch(np.array([2, 0]), None)
    (tensor([[4., 5.],
            [0., 1.]]), tensor([2., 0.]))
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or not len(self.inputs):
            raise TrainingError(
                f"expected as many inputs as targets, at least one; received {len(self.inputs)} and {len(self.targets)}"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Inputs and targets of these samples.

        Parameters
        ----------
        indices : int array (B,)
            Which samples, in any order.
        rng : numpy Generator or None
            Not used: what is in memory is changed on its device, by the ``augment`` of a training.

        Returns
        -------
        tuple of two Tensors
            Inputs (B, ...) and targets (B, ...), on the device of the split.
        """
        chosen = torch.from_numpy(indices).to(self.inputs.device)
        return self.inputs[chosen], self.targets[chosen]


class Batches:
    """Batches of a data set, an epoch at a time, on the device.

    Parameters
    ----------
    data : Dataset or BatchedDataset
        What is read.
    batch_size : int
        Samples of a batch; the last one of an epoch may be smaller.
    device : torch.device
        Where the batches are wanted.
    workers : int
        Processes that read ahead; 0 reads in this one, as is always done where the split is in memory.

    Examples
    --------
    >>> batches = Batches([(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)], 2, torch.device("cpu"))
    >>> [(inputs.tolist(), targets.tolist(), count) for inputs, targets, count in batches.in_order()]
    [([0.0, 2.0], [1.0, 3.0], 2), ([4.0], [5.0], 1)]
    """

    def __init__(self, data: AnyDataset, batch_size: int, device: torch.device, workers: int = 0) -> None:
        if not len(data):
            raise TrainingError("expected a data set of at least one sample; received an empty one")
        self.data, self.batch_size, self.device = data, batch_size, device
        workers = 0 if isinstance(data, Samples) else workers
        self._keys: list[Key] = []
        self._loader: DataLoader[Any] = DataLoader(
            _Fetch(data),  # type: ignore[arg-type]
            batch_size=None,
            sampler=self._keys,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda" and not isinstance(data, Samples),
            # Its own, since a loader draws a number that nobody uses here.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self.data)

    def shuffled(self, order: Tensor, seed: tuple[int, ...]) -> Iterator[tuple[Any, Any, int]]:
        """Inputs, targets and number of samples of each batch in this order (N,), changed at random by the seed."""
        return self._batches([(part.numpy(), (*seed, i)) for i, part in enumerate(order.split(self.batch_size))])

    def in_order(self) -> Iterator[tuple[Any, Any, int]]:
        """Inputs, targets and number of samples of each batch, as they lie and unchanged."""
        size = max(self.batch_size, _IN_MEMORY_BATCH) if isinstance(self.data, Samples) else self.batch_size
        return self._batches([(part.numpy(), None) for part in torch.arange(len(self.data)).split(size)])

    def _batches(self, keys: list[Key]) -> Iterator[tuple[Any, Any, int]]:
        # The same list, which the loader goes through.
        self._keys[:] = keys
        for (indices, _), read in zip(keys, self._loader, strict=True):
            if isinstance(read, Exception):
                raise read
            inputs, targets = read
            yield on_device(inputs, self.device), on_device(targets, self.device), len(indices)


def on_device(values: Any, device: torch.device) -> Any:
    """Tensors, or tuples, lists and dicts of them, on this device.

    Examples
    --------
    >>> on_device({"pose": torch.zeros(1)}, torch.device("cpu"))
    {'pose': tensor([0.])}
    """
    return each_tensor(lambda tensor: tensor.to(device, non_blocking=True), values)


def each_tensor(change: Callable[[Tensor], Tensor], values: Any) -> Any:
    """The same tensor, or tuple, list or dict of tensors, with ``change`` applied to each tensor.

    Examples
    --------
    >>> each_tensor(torch.neg, (torch.ones(1), [torch.zeros(1) + 2]))
    (tensor([-1.]), [tensor([-2.])])
    """
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: each_tensor(change, value) for key, value in values.items()}
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(each_tensor(change, value) for value in values))
    if isinstance(values, (tuple, list)):
        return type(values)(each_tensor(change, value) for value in values)
    return values


def gaussian_noise(deviation: Tensor) -> Augment:
    """Noise of this standard deviation, one for all or one per column, on the inputs' device.

    Parameters
    ----------
    deviation : Tensor
        () or (columns,), on the device of the inputs.

    Returns
    -------
    Augment
        Adds the noise to inputs (N, columns) and leaves the targets.

    Examples
    --------
    >>> add = gaussian_noise(torch.tensor([0.0, 1.0]))
    >>> inputs, targets = add(torch.zeros(2, 2), None, torch.Generator().manual_seed(0))
    >>> inputs[:, 0].tolist(), bool(inputs[:, 1].all())
    ([0.0, 0.0], True)
    """

    def add(inputs: Tensor, targets: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        drawn = torch.randn(inputs.shape, generator=generator, device=inputs.device)
        return inputs + deviation * drawn, targets

    return add


class _Fetch:
    """A map-style data set of whole batches, by key."""

    def __init__(self, data: AnyDataset) -> None:
        self.data = data

    def __getitem__(self, key: Key) -> tuple[Any, Any] | Exception:
        """Inputs and targets; a file that does not read is a value: torch makes a page of what is raised."""
        try:
            return self._batch(*key)
        except (ArtifactError, ImageReadError, OSError) as error:
            return error

    def _batch(self, indices: NDArray[np.int64], seed: tuple[int, ...] | None) -> tuple[Any, Any]:
        if isinstance(self.data, BatchedDataset):
            return self.data.batch(indices, None if seed is None else np.random.default_rng(seed))
        inputs, targets = default_collate([self.data[int(index)] for index in indices])
        return inputs, targets
