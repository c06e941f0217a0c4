"""Tucker decomposition of the landmark tensor in few passes over the data, with missing cells.

Sequentially truncated HOSVD (Vannieuwenhoven, Vandebril & Meerbergen 2012, alg. 1): first the three
pose Grams in one pass, then every person projected from Y*P*R poses to ry*rp*rr in a second, then
the identity mode of what is left. The feature mode is not decomposed: its rank cannot exceed
ri*ry*rp*rr, so the core is kept as (ranks, K) times an orthonormal basis (K, F), which is exact.
Optional HOOI sweeps (De Lathauwer, De Moor & Vandewalle 2000) alternate poses and identities.

Memory holds one person's block and ry*rp*rr*F numbers per person. Products are formed block by
block in float32 and summed in float64; every pass is a sum over people, so shards may be summed
anywhere and in any order. Cells that the detector missed are filled by the model itself (EM with
identities solved on the observed cells), starting from rigidly rotated frontal landmarks.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from io import RawIOBase
from mmap import ALLOCATIONGRANULARITY
from typing import Any

import numpy as np
import tensorly as tl
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import rotate_image_points, rotation_from_angles

FloatArray = NDArray[np.float64]
Ranks = tuple[int, int, int, int]
Shards = NDArray[np.float32] | Sequence[NDArray[np.float32]]
Fill = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]
Runner = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]], str], Iterable[Any]]
"""Does a task for each tuple of arguments, under a label, and gives the results in any order."""
_GROUP = 8
_PEOPLE_PER_TASK = 16
_FILL_TOLERANCE = 1e-4
"""EM stops when no pose subspace turns by more than this (radians, about 0.006 degrees)."""


class TensorError(ValueError):
    """The tensor cannot be decomposed as asked; the message says what to change."""


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
class TuckerModel:
    """``core`` (ri, ry, rp, rr, K), orthonormal ``basis`` (K, F), orthonormal factors, energies.

    ``factors`` are identity (I, ri), yaw (Y, ry), pitch (P, rp), roll (R, rr); ``energy`` lists, per
    mode, the eigenvalues of its Gram as shares of the whole; ``relative_error`` is |X - model| / |X|
    of the (filled) tensor; ``filled`` counts the cells that were filled.
    """

    core: FloatArray
    basis: FloatArray
    factors: tuple[FloatArray, FloatArray, FloatArray, FloatArray]
    energy: tuple[FloatArray, FloatArray, FloatArray, FloatArray]
    relative_error: float
    filled: int
    fill_iterations: int

    def reconstruct(self, person: int) -> FloatArray:
        """The model's features (Y, P, R, F) of one person of the tensor."""
        weights = np.tensordot(self.factors[0][person], self.core, axes=1)
        return expand_poses(weights, self.factors[1:]) @ self.basis


@dataclass(frozen=True)
class FileShard:
    """People of a tensor on disk: a name that travels to other processes, read through a few reused buffers.

    Mapped pages would count as resident memory until the whole file does. A block is valid until the
    next one but one is asked for.
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
    """The tensor one person at a time: shards (I_s, Y, P, R, F) in order, with ``detected`` (I, Y, P, R)."""

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
    mapped = isinstance(shard, np.memmap) and bool(shard.filename) and shard.flags.c_contiguous
    return FileShard.of(shard) if mapped and isinstance(shard, np.memmap) else shard


def _read_into(stream: RawIOBase, block: NDArray[np.float32]) -> NDArray[np.float32]:
    view = block.data.cast("B")
    while view:
        count = stream.readinto(view)
        if not count:
            raise TensorError("the tensor's file is shorter than its header says; run Landmarks again")
        view = view[count:]
    return block


@dataclass(frozen=True)
class Engine:
    """Where the arithmetic runs: a tensorly ``backend`` ("numpy" or "pytorch") and a torch ``device``."""

    backend: str = "pytorch"
    device: str = "cpu"

    def array(self, block: NDArray[Any]) -> Any:
        """The block as a tensor of the backend, not copied where it need not be."""
        if self.backend == "numpy":
            return block
        contiguous = np.ascontiguousarray(block)
        if not contiguous.flags.writeable:
            contiguous = contiguous.copy()
        if self.device == "cuda" and not torch.cuda.is_available():
            raise TensorError("tucker.device is cuda, but torch finds no CUDA device; set it to cpu")
        tensor = torch.from_numpy(contiguous)
        return tensor if self.device == "cpu" else tensor.to(self.device)

    def each(self, task: Callable[..., Any], blocks: Iterable[NDArray[np.float32]], *arguments: Any) -> Iterator[Any]:
        """``task(block, *arguments, engine)`` for every block, in order."""
        with tl.backend_context(self.backend, local_threadsafe=True):
            for block in blocks:
                yield task(block, *arguments, self)


def pose_grams(blocks: Iterable[NDArray[np.float32]], engine: Engine) -> PoseGrams:
    """Pose Grams of some people's blocks (Y, P, R, F); add those of several shards."""
    return reduce(PoseGrams.__add__, engine.each(_person_grams, blocks))


def _piece(number: int, blocks: PersonBlocks, task: Callable[..., Any], arguments: Any, engine: Engine) -> Any:
    """What a worker does: ``task`` for some people; they are few numbers, so they come back one by one."""
    return number, list(engine.each(task, blocks, *arguments))


def _person_grams(block: NDArray[np.float32], engine: Engine) -> PoseGrams:
    n_yaw, n_pitch, n_roll, length = block.shape
    x = engine.array(block)
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


def project_poses(block: NDArray[np.floating], factors: Sequence[FloatArray], engine: Engine) -> FloatArray:
    """A person's block (Y, P, R, F) in the pose subspaces: (ry, rp, rr, F), through float32 products."""
    x = engine.array(block)
    yaw, pitch, roll = (engine.array(np.ascontiguousarray(f.T.astype(block.dtype))) for f in factors)
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


def decompose(
    features: Shards,
    ranks: Ranks,
    grid: PoseGrid,
    detected: NDArray[np.bool_] | None = None,
    hooi_sweeps: int = 2,
    max_fill_iterations: int = 30,
    engine: Engine | None = None,
    progress: bool = False,
    runner: Runner | None = None,
) -> TuckerModel:
    """Tucker decomposition of ``features`` (I, Y, P, R, F), or a list of shards of its people.

    ``ranks`` are those of identity, yaw, pitch and roll; ``detected`` (I, Y, P, R) is False at missing
    cells. With a ``runner`` the passes of the ST-HOSVD are its tasks, for instance in a cluster whose
    workers read the same file; what comes back is summed in the order of the people. Raises ``TensorError``
    for ranks that do not fit, for values that are not finite, and for a person or grid line without any
    detected cell.
    """
    engine = engine or Engine()
    blocks = PersonBlocks(features, detected)
    _check(blocks.shape, ranks, grid, detected)
    with tl.backend_context(engine.backend, local_threadsafe=True):
        run = _Run(blocks, ranks, engine, progress, runner)
        iterations = run.fill_missing(grid, max_fill_iterations)
        for sweep in range(hooi_sweeps):
            run.hooi_sweep(f"HOOI {sweep + 1}/{hooi_sweeps}")
        return run.model(iterations)


def _check(shape: tuple[int, ...], ranks: Ranks, grid: PoseGrid, detected: NDArray[np.bool_] | None) -> None:
    if len(shape) != 5 or shape[1:4] != grid.shape or 0 in shape:
        raise TensorError(f"expected features (I, {', '.join(map(str, grid.shape))}, F); received {shape}")
    for mode, size, rank in zip(("identity", "yaw", "pitch", "roll"), shape, ranks, strict=False):
        if rank > size:
            raise TensorError(
                f"rank {rank} of mode {mode} exceeds its {size} entries; lower tucker.ranks.{mode} to {size} "
                f"or less, or add data"
            )
    if detected is None:
        return
    if detected.shape != shape[:4]:
        raise TensorError(f"expected a mask of shape {shape[:4]}; received {detected.shape}")
    for axis, mode in enumerate(("person", "yaw", "pitch", "roll")):
        others = tuple(a for a in range(4) if a != axis)
        empty = np.flatnonzero(~detected.any(axis=others))
        if empty.size:
            raise TensorError(
                f"nothing was detected in {mode} slice {empty.tolist()}: nothing can be learned of it; "
                "drop it from the data or from the grid"
            )


class _Run:
    """State of one decomposition: the current factors, and the passes that improve them."""

    def __init__(
        self, blocks: PersonBlocks, ranks: Ranks, engine: Engine, progress: bool, runner: Runner | None
    ) -> None:
        self.ranks, self.engine, self.progress, self.runner = ranks, engine, progress, runner
        self.blocks = blocks
        self.filled = 0 if blocks.detected is None else int(blocks.detected.size - blocks.detected.sum())
        self.poses: list[FloatArray] = []
        self.pose_energy: list[FloatArray] = []
        self.norm_squared = 0.0

    def fill_missing(self, grid: PoseGrid, max_iterations: int) -> int:
        """ST-HOSVD; with missing cells EM until the pose subspaces rest. Returns the iterations used."""
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
        grams = reduce(PoseGrams.__add__, self._each_person(f"{label}: poses", _person_grams))
        self.norm_squared = float(np.trace(grams.yaw))
        found = [leading_eigenvectors(g, r) for g, r in zip(grams.matrices, self.ranks[1:], strict=True)]
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
        gram = sum_of_outer_products(rows, self.engine)
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
                partial = np.stack([project_poses(part, others, self.engine) for part in compressed])
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
                part = tl.matmul(self.engine.array(weights), self.engine.array(group[: person + 1 - first]))
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
            yield from self.engine.each(task, self._shown(label), *arguments)
            return
        pieces = self.blocks.pieces(_PEOPLE_PER_TASK)
        todo = [(number, piece, task, arguments, self.engine) for number, piece in enumerate(pieces)]
        found = dict(self.runner(_piece, todo, label))
        for number in range(len(pieces)):
            yield from found[number]

    def _shown(self, label: str) -> Iterable[NDArray[np.float32]]:
        return tqdm(self.blocks, desc=label, unit="person", disable=not self.progress, leave=False)


def sum_of_outer_products(rows: NDArray[np.float32], engine: Engine) -> FloatArray:
    """Gram ``rows @ rows.T`` (I, I) summed in float64 over slices of the columns."""
    gram = np.zeros((len(rows), len(rows)))
    step = 4096
    for start in range(0, rows.shape[1], step):
        part = engine.array(np.ascontiguousarray(rows[:, start : start + step]))
        gram += tl.to_numpy(tl.matmul(part, tl.transpose(part)))
    return gram


def largest_angle(first: FloatArray, second: FloatArray) -> float:
    """Largest principal angle in radians between the column spaces of two orthonormal matrices."""
    # The sine is accurate for the small angles that matter here, the cosine is not.
    outside = second - first @ (first.T @ second)
    return float(np.arcsin(min(1.0, float(np.linalg.norm(outside, 2)))))


class RigidFill:
    """Missing cells as the person's most frontal detected landmarks, rigidly rotated.

    The perspective change and the detector's own habits are not in it: a start for EM, no more.
    """

    def __init__(self, grid: PoseGrid) -> None:
        self.rotations = rotation_from_angles(grid.angles())
        self._turn = np.linalg.norm(grid.angles().columns(), axis=-1)

    def __call__(self, block: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features (missing, F) for the cells where ``mask`` is False."""
        return self.turned(block, mask)[~mask]

    def turned(self, block: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The most frontal face of a block (Y, P, R, F), seen where ``mask`` is True, at every pose."""
        frontal = np.unravel_index(np.where(mask, self._turn, np.inf).argmin(), mask.shape)
        turns = self.rotations @ self.rotations[frontal].T
        return rotate_image_points(block[frontal].reshape(-1, 3), turns).reshape(block.shape).astype(np.float32)


def rotation_tensor(features: NDArray[np.float32], detected: NDArray[np.bool_], grid: PoseGrid) -> NDArray[np.float32]:
    """The tensor of purely rotated points: every person's most frontal landmarks at every pose."""
    rigid = RigidFill(grid)
    return np.stack([rigid.turned(block, mask) for block, mask in zip(features, detected, strict=True)])


class LowRankFill:
    """Missing cells from the current model, each person's identity solved on the observed cells."""

    def __init__(self, poses: Sequence[FloatArray], core: FloatArray) -> None:
        self.cells = np.einsum("ya,pb,rc->yprabc", *poses).reshape(*(len(f) for f in poses), -1)
        self.core = core.reshape(len(core), -1, core.shape[-1])
        self.overlap = np.einsum("imf,jnf->ijmn", self.core, self.core, optimize=True)

    def __call__(self, block: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features (missing, F) for the cells where ``mask`` is False."""
        seen = self.cells[mask]
        normal = np.einsum("ijmn,mn->ij", self.overlap, seen.T @ seen)
        projected = seen.T @ block[mask].astype(np.float64)
        target = np.einsum("imf,mf->i", self.core, projected)
        # A trace-relative ridge keeps identities finite where a person has very few cells.
        normal += np.eye(len(normal)) * 1e-9 * np.trace(normal)
        weights = np.tensordot(np.linalg.solve(normal, target), self.core, axes=1)
        return np.asarray(self.cells[~mask] @ weights, dtype=np.float32)
