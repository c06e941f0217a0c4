"""Tucker decomposition of the landmark tensor in few passes over the data, with missing cells.

Truncated HOSVD, sequentially (Vannieuwenhoven, Vandebril & Meerbergen 2012) in the identity mode
alone: first the three pose Grams of the whole tensor in one pass, then every person projected from
Y*P*R poses to ry*rp*rr in a second, then the identity mode of what is left. The feature mode is not
decomposed: its rank cannot exceed ri*ry*rp*rr, so the core is kept as (ranks, K) times an
orthonormal basis (K, F), which is exact.
Optional HOOI sweeps (De Lathauwer, De Moor & Vandewalle 2000) alternate poses and identities.

Memory holds one person's block and ry*rp*rr*F numbers per person. Products are formed block by
block in float32 and summed in float64; every pass is a sum over people, so shards may be summed
anywhere and in any order. Cells that the detector missed are filled by the model itself (EM with
identities solved on the observed cells), starting from rigidly rotated frontal landmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorly as tl
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.manifold.blocks import PersonBlocks, Shards, TensorError
from nlml_hpe.manifold.fill import LowRankFill, RigidFill
from nlml_hpe.manifold.passes import (
    Arithmetic,
    expand_poses,
    largest_angle,
    leading_eigenvectors,
    person_grams,
    project_poses,
    sum_of_outer_products,
)
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES

FloatArray = NDArray[np.float64]
Ranks = tuple[int, int, int, int]
Runner = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]], str], Iterable[Any]]
"""Does a task for each tuple of arguments, under a label, and gives the results in any order."""
_GROUP = 8
_PEOPLE_PER_TASK = 16
_FILL_TOLERANCE = 1e-4
"""EM stops when no pose subspace turns by more than this (radians, about 0.006 degrees)."""


@dataclass(frozen=True)
class TuckerModel:
    """The decomposition of a tensor X (I, Y, P, R, F).

    Attributes
    ----------
    core : ndarray of shape (ri, ry, rp, rr, K)
        In the basis of the feature mode.
    basis : ndarray of shape (K, F)
        Orthonormal rows.
    factors : tuple of four ndarrays
        Identity (I, ri), yaw (Y, ry), pitch (P, rp), roll (R, rr), each with orthonormal columns.
    energy : tuple of four ndarrays
        Per mode, the eigenvalues of its Gram as shares of the whole.
    relative_error : float
        |X - model| / |X| of the (filled) tensor.
    filled : int
        How many cells were filled.
    fill_iterations : int
        In how many iterations.

    Examples
    --------
    A tensor of rank one, which one component of each mode gives back whole:

    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (0.0,), (0.0,))
    >>> tensor = np.einsum("i,y,f->iyf", [1.0, -2.0], [1.0, 2.0, 3.0], np.ones(4)).reshape(2, 3, 1, 1, 4)
    >>> model = decompose(tensor.astype(np.float32), (1, 1, 1, 1), grid)
    >>> [factor.shape for factor in model.factors], model.relative_error < 1e-3
    ([(2, 1), (3, 1), (1, 1), (1, 1)], True)
    """

    core: FloatArray
    basis: FloatArray
    factors: tuple[FloatArray, FloatArray, FloatArray, FloatArray]
    energy: tuple[FloatArray, FloatArray, FloatArray, FloatArray]
    relative_error: float
    filled: int
    fill_iterations: int

    def reconstruct(self, person: int) -> FloatArray:
        """The model's features of one person of the tensor.

        Parameters
        ----------
        person : int
            Index into the tensor's people, from 0.

        Returns
        -------
        ndarray of shape (Y, P, R, F)
            At all poses of the grid.
        """
        weights = np.tensordot(self.factors[0][person], self.core, axes=1)
        return expand_poses(weights, self.factors[1:]) @ self.basis


def decompose(
    features: Shards,
    ranks: Ranks,
    grid: PoseGrid,
    detected: NDArray[np.bool_] | None = None,
    hooi_sweeps: int = 2,
    max_fill_iterations: int = 30,
    arithmetic: Arithmetic | None = None,
    progress: bool = False,
    runner: Runner | None = None,
) -> TuckerModel:
    """Tucker decomposition of a tensor of faces.

    Parameters
    ----------
    features : ndarray of shape (I, Y, P, R, F), float32, or a list of such
        The tensor, or shards of its people in order; float64 is taken, too. A memory-mapped array is read from its
        file, whatever was written into it in memory.
    ranks : tuple of four int
        Of identity, yaw, pitch and roll.
    grid : PoseGrid
        The poses of the tensor.
    detected : ndarray of shape (I, Y, P, R), bool, optional
        False at missing cells, which the model fills.
    hooi_sweeps : int
        Sweeps that improve the truncated HOSVD.
    max_fill_iterations : int
        Most iterations of filling.
    arithmetic : Arithmetic, optional
        Where products are formed; by default torch on the CPU.
    progress : bool
        Whether to show bars.
    runner : Runner, optional
        Does the passes of the HOSVD as tasks, for instance in a cluster whose workers read the same file; what
        comes back is summed in the order of the people.

    Returns
    -------
    TuckerModel
        Core, basis and factors.

    Raises
    ------
    TensorError
        For ranks that do not fit, for features of another type, for values that are not finite, and for a person or
        a line of the grid without any detected cell.

    Examples
    --------
    Two people whose faces change with yaw alone:

    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (0.0,), (0.0,))
    >>> yaw, people = np.array([1.0, 2.0, 3.0]), np.array([1.0, -2.0])
    >>> tensor = np.einsum("i,y,f->iyf", people, yaw, np.ones(4)).reshape(2, 3, 1, 1, 4).astype(np.float32)
    >>> model = decompose(tensor, (1, 1, 1, 1), grid)
    >>> model.core.shape, model.reconstruct(1)[:, 0, 0, 0].round(4)
    ((1, 1, 1, 1, 1), array([-2., -4., -6.]))
    """
    arithmetic = arithmetic or Arithmetic()
    blocks = PersonBlocks(features, detected)
    _check(blocks.shape, ranks, grid, detected)
    with tl.backend_context("pytorch", local_threadsafe=True):
        run = _Run(blocks, ranks, arithmetic, progress, runner)
        iterations = run.fill_missing(grid, max_fill_iterations)
        for sweep in range(hooi_sweeps):
            run.hooi_sweep(f"HOOI {sweep + 1}/{hooi_sweeps}")
        return run.model(iterations)


def _check(shape: tuple[int, ...], ranks: Ranks, grid: PoseGrid, detected: NDArray[np.bool_] | None) -> None:
    if len(shape) != 5 or shape[1:4] != grid.shape or 0 in shape:
        raise TensorError(f"expected features (I, {', '.join(map(str, grid.shape))}, F); received {shape}")
    if len(ranks) != 4 or min(ranks) < 1:
        raise TensorError(f"expected ranks of identity, yaw, pitch and roll, 1 or more each; received {ranks}")
    require_ranks(shape[:4], ranks)
    if detected is None:
        return
    if detected.shape != shape[:4] or detected.dtype != bool:
        raise TensorError(f"expected a mask of shape {shape[:4]}, bool; received {detected.shape}, {detected.dtype}")
    require_people_found(detected, range(shape[0]))
    for axis, (mode, angles) in enumerate(zip(AXES, grid.axes, strict=True), start=1):
        empty = [f"{angles[place]:g}" for place in unseen(detected, axis)]
        if empty:
            raise TensorError(
                f"no face was found at {mode} {', '.join(empty)}: nothing can be learned of it; drop it from the grid"
            )


def require_ranks(sizes: Sequence[int], ranks: Sequence[int]) -> None:
    """Require ranks that a tensor allows.

    Parameters
    ----------
    sizes : sequence of int
        How many people, yaw, pitch and roll angles there are.
    ranks : sequence of int
        Of identity, yaw, pitch and roll.

    Raises
    ------
    TensorError
        Where one is greater than the size of its mode.

    Examples
    --------
    >>> require_ranks((20, 11, 9, 7), (5, 3, 3, 8))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    nlml_hpe.manifold.blocks.TensorError: rank 8 of mode roll exceeds its 7 entries; lower tucker.ranks.roll ...
    """
    for mode, size, rank in zip(("identity", *AXES), sizes, ranks, strict=True):
        if rank > size:
            raise TensorError(
                f"rank {rank} of mode {mode} exceeds its {size} entries; lower tucker.ranks.{mode} to {size} "
                f"or less, or add data"
            )


def require_people_found(detected: NDArray[np.bool_], people: Sequence[int]) -> None:
    """Require a face of every person.

    Parameters
    ----------
    detected : ndarray of shape (I, Y, P, R), bool
        Where there is a face.
    people : sequence of int
        What each person is called in the error.

    Raises
    ------
    TensorError
        Where there is a person without any.

    Examples
    --------
    >>> require_people_found(np.array([True, False]).reshape(2, 1, 1, 1), (1, 2))
    Traceback (most recent call last):
    nlml_hpe.manifold.blocks.TensorError: no face was found of person 2: nothing can be learned; drop it from the data
    """
    lost = [str(people[place]) for place in unseen(detected, 0)]
    if lost:
        raise TensorError(
            f"no face was found of person {', '.join(lost)}: nothing can be learned; drop it from the data"
        )


def unseen(detected: NDArray[np.bool_], mode: int) -> list[int]:
    """The places along one mode of a mask (I, Y, P, R), 0 for people to 3 for roll, at which there is no face at all.

    Examples
    --------
    >>> unseen(np.array([True, False]).reshape(1, 2, 1, 1), 1)
    [1]
    """
    others = tuple(other for other in range(4) if other != mode)
    return np.flatnonzero(~detected.any(axis=others)).tolist()


class _Run:
    """State of one decomposition: the current factors, and the passes that improve them."""

    def __init__(
        self, blocks: PersonBlocks, ranks: Ranks, arithmetic: Arithmetic, progress: bool, runner: Runner | None
    ) -> None:
        self.ranks, self.arithmetic, self.progress, self.runner = ranks, arithmetic, progress, runner
        self.blocks = blocks
        self.filled = 0 if blocks.detected is None else int(blocks.detected.size - blocks.detected.sum())
        self.poses: list[FloatArray] = []
        self.pose_energy: list[FloatArray] = []
        self.norm_squared = 0.0

    def fill_missing(self, grid: PoseGrid, max_iterations: int) -> int:
        """HOSVD; with missing cells EM until the pose subspaces rest. Returns the iterations used."""
        if not self.filled:
            self.hosvd("Tucker")
            return 0
        self.blocks.fill = RigidFill(grid)
        self.hosvd("Tucker, rigid fill")
        for iteration in range(1, max_iterations + 1):
            before = self.poses
            self.blocks.fill = LowRankFill(self.poses, self.core)
            self.hosvd(f"Tucker, fill {iteration}")
            if max(map(largest_angle, before, self.poses)) < _FILL_TOLERANCE:
                return iteration
        return max_iterations

    def hosvd(self, label: str) -> None:
        """Pose factors from one pass, the identity factor and core from a second."""
        grams = [sum(mode) for mode in zip(*self._each_person(f"{label}: poses", person_grams), strict=True)]
        self.norm_squared = float(np.trace(grams[0]))
        found = [leading_eigenvectors(g, r) for g, r in zip(grams, self.ranks[1:], strict=True)]
        self.poses = [vectors for vectors, _ in found]
        self.pose_energy = [energy for _, energy in found]
        self.identities(label)

    def identities(self, label: str) -> None:
        """The identity factor and the core (ri, ry, rp, rr, F) of the current pose factors."""
        shape = (len(self.blocks), *self.ranks[1:], self.blocks.shape[-1])
        projected = np.empty(shape, dtype=np.float32)
        for person, inside in enumerate(self._each_person(f"{label}: identities", project_poses, self.poses)):
            projected[person] = inside
        rows = projected.reshape(len(self.blocks), -1)
        gram = sum_of_outer_products(rows, self.arithmetic)
        self.identity, self.identity_energy = leading_eigenvectors(gram, self.ranks[0])
        core = np.zeros((self.ranks[0], rows.shape[1]))
        for chunk in np.array_split(np.arange(len(rows)), max(1, len(rows) // 64)):
            core += self.identity[chunk].T @ rows[chunk].astype(np.float64)
        self.core = core.reshape(self.ranks[0], *shape[1:])

    def hooi_sweep(self, label: str) -> None:
        """Pose factors anew on the identity-compressed tensor, then identities on the new poses."""
        compressed = self._compress_identities(label)
        for _ in range(3):
            for mode in range(3):
                others = [np.eye(f.shape[0]) if m == mode else f for m, f in enumerate(self.poses)]
                partial = np.stack([project_poses(part, others, self.arithmetic) for part in compressed])
                unfolded = np.moveaxis(partial, mode + 1, 0).reshape(partial.shape[mode + 1], -1)
                self.poses[mode] = leading_eigenvectors(unfolded @ unfolded.T, self.ranks[mode + 1])[0]
        self.identities(label)

    def _compress_identities(self, label: str) -> FloatArray:
        """The tensor (ri, Y, P, R, F) with people combined by the identity factor, summed in float64."""
        shape = self.blocks.shape
        compressed = np.zeros((self.ranks[0], int(np.prod(shape[1:]))))
        group = np.empty((_GROUP, compressed.shape[1]), dtype=np.float32)
        for person, block in enumerate(self._shown(f"{label}: poses")):
            group[person % _GROUP] = block.reshape(-1)
            if person % _GROUP == _GROUP - 1 or person == len(self.blocks) - 1:
                first = person - person % _GROUP
                weights = np.ascontiguousarray(self.identity[first : person + 1].T.astype(np.float32))
                part = tl.matmul(self.arithmetic.array(weights), self.arithmetic.array(group[: person + 1 - first]))
                compressed += tl.to_numpy(part)
        return compressed.reshape(self.ranks[0], *shape[1:])

    def model(self, fill_iterations: int) -> TuckerModel:
        """The finished decomposition, its features in an orthonormal basis."""
        flat = self.core.reshape(-1, self.core.shape[-1])
        left, singular, basis = np.linalg.svd(flat, full_matrices=False)
        kept = singular > singular[0] * 1e-12
        small = (left * singular)[:, kept]
        captured = float((self.core**2).sum())
        return TuckerModel(
            core=small.reshape(*self.core.shape[:-1], -1),
            basis=basis[kept],
            factors=(self.identity, *self.poses),  # type: ignore[arg-type]
            energy=(self.identity_energy, *self.pose_energy),  # type: ignore[arg-type]
            relative_error=float(np.sqrt(max(0.0, 1 - captured / self.norm_squared))),
            filled=self.filled,
            fill_iterations=fill_iterations,
        )

    def _each_person(self, label: str, task: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        """Results of ``task`` for every person, in order."""
        if self.runner is None:
            yield from self.arithmetic.each(task, self._shown(label), *arguments)
            return
        pieces = self.blocks.pieces(_PEOPLE_PER_TASK)
        todo = [(number, piece, task, arguments, self.arithmetic) for number, piece in enumerate(pieces)]
        found = dict(self.runner(_piece, todo, label))
        for number in range(len(pieces)):
            yield from found[number]

    def _shown(self, label: str) -> Iterable[NDArray[np.float32]]:
        return tqdm(self.blocks, desc=label, unit="person", disable=not self.progress, leave=False)


def _piece(number: int, blocks: PersonBlocks, task: Callable[..., Any], arguments: Any, arithmetic: Arithmetic) -> Any:
    """What a worker does: ``task`` for some people; they are few numbers, so they come back one by one."""
    return number, list(arithmetic.each(task, blocks, *arguments))
