"""Sums over people that the decomposition is made of, each of one person's block at a time.

Products are formed block by block in float32 and summed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import tensorly as tl
import torch
from numpy.typing import NDArray

from nlml_hpe.device import double_device
from nlml_hpe.manifold.blocks import TensorError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PoseGrams:
    """Gram matrices of the three pose unfoldings, float64; sums over people, hence additive."""

    yaw: FloatArray
    pitch: FloatArray
    roll: FloatArray
    people: int

    def __add__(self, other: PoseGrams) -> PoseGrams:
        return PoseGrams(
            self.yaw + other.yaw, self.pitch + other.pitch, self.roll + other.roll, self.people + other.people
        )

    @property
    def matrices(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The Grams in axis order."""
        return (self.yaw, self.pitch, self.roll)


@dataclass(frozen=True)
class Arithmetic:
    """Where the products of the decomposition are formed.

    Parameters
    ----------
    backend : {"pytorch", "numpy"}
        That of tensorly.
    device : torch.device
        With "pytorch". Float64 stays on the CPU where the device has none (mps).

    Examples
    --------
    >>> Arithmetic("numpy").array(np.zeros((1, 2), dtype=np.float32))
    array([[0., 0.]], dtype=float32)
    """

    backend: str = "pytorch"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def array(self, block: NDArray[Any]) -> Any:
        """The block as a tensor of the backend, not copied where it need not be."""
        if self.backend == "numpy":
            return block
        contiguous = np.ascontiguousarray(block)
        if not contiguous.flags.writeable:
            contiguous = contiguous.copy()
        tensor = torch.from_numpy(contiguous)
        return tensor.to(double_device(self.device) if tensor.dtype == torch.float64 else self.device)

    def each(self, task: Callable[..., Any], blocks: Iterable[NDArray[np.float32]], *arguments: Any) -> Iterator[Any]:
        """``task(block, *arguments, arithmetic)`` for every block, in order."""
        with tl.backend_context(self.backend, local_threadsafe=True):
            for block in blocks:
                yield task(block, *arguments, self)


def pose_grams(blocks: Iterable[NDArray[np.float32]], arithmetic: Arithmetic) -> PoseGrams:
    """Pose Grams of some people's blocks (Y, P, R, F); add those of several shards."""
    return reduce(PoseGrams.__add__, arithmetic.each(person_grams, blocks))


def person_grams(block: NDArray[np.float32], arithmetic: Arithmetic) -> PoseGrams:
    """Pose Grams of one person's block (Y, P, R, F)."""
    n_yaw, n_pitch, n_roll, length = block.shape
    x = arithmetic.array(block)
    by_pitch = tl.reshape(x, (n_yaw, n_pitch, n_roll * length))
    by_roll = tl.reshape(x, (n_yaw * n_pitch, n_roll, length))
    # One product per pitch column bounds the length of each float32 sum.
    by_yaw = tl.transpose(by_pitch, (1, 0, 2))
    yaw, pitch, roll = (_summed(tl.matmul(part, tl.transpose(part, (0, 2, 1)))) for part in (by_yaw, by_pitch, by_roll))
    if not all(np.isfinite(gram).all() for gram in (yaw, pitch, roll)):
        raise TensorError("the tensor holds NaN or infinite features; run Landmarks again, or mark the cells as missed")
    return PoseGrams(yaw, pitch, roll, people=1)


def _summed(products: Any) -> FloatArray:
    return np.asarray(tl.to_numpy(products), dtype=np.float64).sum(axis=0)


def project_poses(block: NDArray[np.floating], factors: Sequence[FloatArray], arithmetic: Arithmetic) -> FloatArray:
    """A person's block (Y, P, R, F) in the pose subspaces: (ry, rp, rr, F), through float32 products."""
    x = arithmetic.array(block)
    yaw, pitch, roll = (arithmetic.array(np.ascontiguousarray(f.T.astype(block.dtype))) for f in factors)
    n_yaw, n_pitch, n_roll, length = block.shape
    x = tl.reshape(tl.matmul(yaw, tl.reshape(x, (n_yaw, -1))), (-1, n_pitch, n_roll * length))
    x = tl.reshape(tl.matmul(pitch, x), (-1, n_roll, length))
    x = tl.matmul(roll, x)
    shape = (*(f.shape[1] for f in factors), length)
    return np.asarray(tl.to_numpy(tl.reshape(x, shape)))


def expand_poses(weights: FloatArray, factors: Sequence[FloatArray]) -> FloatArray:
    """The inverse of ``project_poses`` on its subspaces: (ry, rp, rr, K) -> (Y, P, R, K)."""
    return np.asarray(np.einsum("abck,ya,pb,rc->yprk", weights, *factors, optimize=True))


def leading_eigenvectors(gram: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    """Orthonormal leading eigenvectors (n, rank), largest entry positive, and all shares of energy."""
    values, vectors = np.linalg.eigh(gram)
    vectors = vectors[:, ::-1][:, :rank]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(rank)]
    shares = np.maximum(values[::-1], 0.0)
    return vectors * np.where(largest < 0, -1.0, 1.0), shares / max(shares.sum(), np.finfo(float).tiny)


def sum_of_outer_products(rows: NDArray[np.float32], arithmetic: Arithmetic) -> FloatArray:
    """Gram ``rows @ rows.T`` (I, I) summed in float64 over slices of the columns."""
    gram = np.zeros((len(rows), len(rows)))
    step = 4096
    for start in range(0, rows.shape[1], step):
        part = arithmetic.array(np.ascontiguousarray(rows[:, start : start + step]))
        gram += tl.to_numpy(tl.matmul(part, tl.transpose(part)))
    return gram
