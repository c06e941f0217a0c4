"""Sums over people that the decomposition is made of, each of one person's block at a time.

Products are formed block by block in float32 and summed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorly as tl
import torch
from numpy.typing import NDArray

from nlml_hpe.device import double_device
from nlml_hpe.manifold.blocks import TensorError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Arithmetic:
    """Where the products of the decomposition are formed: by torch, on ``device``.

    Float64 stays on the CPU where the device has none (mps).

    Examples
    --------
    >>> Arithmetic().array(np.zeros((1, 2), dtype=np.float32))
    tensor([[0., 0.]])
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def array(self, block: NDArray[Any]) -> torch.Tensor:
        """The block as a tensor there, not copied where it need not be."""
        contiguous = np.ascontiguousarray(block)
        if not contiguous.flags.writeable:
            contiguous = contiguous.copy()
        tensor = torch.from_numpy(contiguous)
        return tensor.to(double_device(self.device) if tensor.dtype == torch.float64 else self.device)

    def each(self, task: Callable[..., Any], blocks: Iterable[NDArray[np.float32]], *arguments: Any) -> Iterator[Any]:
        """A task for every block, computed by this arithmetic.

        Parameters
        ----------
        task : callable
            Called as ``task(block, *arguments, arithmetic)``.
        blocks : iterable of float32 arrays
            The people's features.
        *arguments
            The same for every block.

        Yields
        ------
        object
            What the task gives, in the order of the blocks.
        """
        with tl.backend_context("pytorch", local_threadsafe=True):
            for block in blocks:
                yield task(block, *arguments, self)


def person_grams(block: NDArray[np.float32], arithmetic: Arithmetic) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gram matrices (Y, Y), (P, P) and (R, R) of the pose unfoldings of one person's block (Y, P, R, F), in float64.

    Those of several people are their sums. Raises ``TensorError`` where a feature is not finite.
    """
    n_yaw, n_pitch, n_roll, length = block.shape
    x = arithmetic.array(block)
    by_pitch = tl.reshape(x, (n_yaw, n_pitch, n_roll * length))
    by_roll = tl.reshape(x, (n_yaw * n_pitch, n_roll, length))
    # One product per pitch column bounds the length of each float32 sum.
    by_yaw = tl.transpose(by_pitch, (1, 0, 2))
    yaw, pitch, roll = (_summed(tl.matmul(part, tl.transpose(part, (0, 2, 1)))) for part in (by_yaw, by_pitch, by_roll))
    if not all(np.isfinite(gram).all() for gram in (yaw, pitch, roll)):
        raise TensorError("the tensor holds NaN or infinite features; run Landmarks again, or mark the cells as missed")
    return yaw, pitch, roll


def _summed(products: Any) -> FloatArray:
    return np.asarray(tl.to_numpy(products), dtype=np.float64).sum(axis=0)


def project_poses(block: NDArray[np.floating], factors: Sequence[FloatArray], arithmetic: Arithmetic) -> FloatArray:
    """A person's block in the pose subspaces.

    Parameters
    ----------
    block : ndarray of shape (Y, P, R, F)
        Its type is that of the products.
    factors : sequence of three ndarrays
        Of yaw (Y, ry), pitch (P, rp) and roll (R, rr), orthonormal.
    arithmetic : Arithmetic
        Where products are formed.

    Returns
    -------
    ndarray of shape (ry, rp, rr, F)
        The coordinates.

    Examples
    --------
    >>> block = np.arange(6.0).reshape(3, 1, 1, 2)
    >>> project_poses(block, [np.eye(3)[:, :1], np.eye(1), np.eye(1)], Arithmetic()).tolist()
    [[[[0.0, 1.0]]]]
    """
    x = arithmetic.array(block)
    yaw, pitch, roll = (arithmetic.array(np.ascontiguousarray(f.T.astype(block.dtype))) for f in factors)
    n_yaw, n_pitch, n_roll, length = block.shape
    x = tl.reshape(tl.matmul(yaw, tl.reshape(x, (n_yaw, -1))), (-1, n_pitch, n_roll * length))
    x = tl.reshape(tl.matmul(pitch, x), (-1, n_roll, length))
    x = tl.matmul(roll, x)
    shape = (*(f.shape[1] for f in factors), length)
    return np.asarray(tl.to_numpy(tl.reshape(x, shape)))


def expand_poses(weights: FloatArray, factors: Sequence[FloatArray]) -> FloatArray:
    """The inverse of ``project_poses`` on its subspaces.

    Parameters
    ----------
    weights : ndarray of shape (ry, rp, rr, K)
        Coordinates.
    factors : sequence of three ndarrays
        Of yaw (Y, ry), pitch (P, rp) and roll (R, rr).

    Returns
    -------
    ndarray of shape (Y, P, R, K)
        The block.

    Examples
    --------
    >>> expand_poses(np.full((1, 1, 1, 1), 5.0), [np.eye(2)[:, :1], np.eye(1), np.eye(1)]).reshape(2)
    array([5., 0.])
    """
    return np.asarray(np.einsum("abck,ya,pb,rc->yprk", weights, *factors, optimize=True))


def leading_eigenvectors(gram: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    """Leading eigenvectors of a Gram matrix, and how much of the whole each stands for.

    Parameters
    ----------
    gram : ndarray of shape (n, n)
        Symmetric, not negative.
    rank : int
        How many vectors.

    Returns
    -------
    tuple of ndarrays of shapes (n, rank) and (n,)
        The vectors, orthonormal, the largest entry of each positive; and all eigenvalues as shares of their sum.

    Examples
    --------
    >>> vectors, shares = leading_eigenvectors(np.diag([1.0, 3.0]), 1)
    >>> vectors.ravel().round(6) + 0.0, shares.round(6)
    (array([0., 1.]), array([0.75, 0.25]))
    """
    values, vectors = np.linalg.eigh(gram)
    vectors = vectors[:, ::-1][:, :rank]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(rank)]
    shares = np.maximum(values[::-1], 0.0)
    return vectors * np.where(largest < 0, -1.0, 1.0), shares / max(shares.sum(), np.finfo(float).tiny)


def largest_angle(first: FloatArray, second: FloatArray) -> float:
    """Largest principal angle between the column spaces of two orthonormal matrices.

    Parameters
    ----------
    first, second : ndarray of shape (n, rank)
        With orthonormal columns.

    Returns
    -------
    float
        In radians, 0 to pi / 2.

    Examples
    --------
    >>> round(largest_angle(np.eye(3)[:, :2], np.eye(3)[:, 1:]), 4)
    1.5708
    """
    # The sine is accurate for the small angles that matter here, the cosine is not.
    outside = second - first @ (first.T @ second)
    return float(np.arcsin(min(1.0, float(np.linalg.norm(outside, 2)))))


def sum_of_outer_products(rows: NDArray[np.float32], arithmetic: Arithmetic) -> FloatArray:
    """Gram of rows, summed in float64 over slices of the columns.

    Parameters
    ----------
    rows : ndarray of shape (I, n), float32
        One row per person.
    arithmetic : Arithmetic
        Where products are formed.

    Returns
    -------
    ndarray of shape (I, I)
        ``rows @ rows.T``.

    Examples
    --------
    >>> sum_of_outer_products(np.array([[1, 2], [0, 1]], dtype=np.float32), Arithmetic())
    array([[5., 2.],
           [2., 1.]])
    """
    gram = np.zeros((len(rows), len(rows)))
    step = 4096
    for start in range(0, rows.shape[1], step):
        part = arithmetic.array(np.ascontiguousarray(rows[:, start : start + step]))
        gram += tl.to_numpy(tl.matmul(part, tl.transpose(part)))
    return gram
