"""The streaming decomposition against tensorly's, and against one plain read of the tensor.

``python benchmarks/tucker.py --identities 300``. Each rival runs in a process of its own, so that
its peak memory is its own. The tensor is synthetic: people of smoothly varying landmarks at every
pose, bent a little by the pose, with noise; its values do not change how long anything takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from tensorly.decomposition import tucker

from benchmarks.common import peak_memory_gb, report
from nlml_hpe.config import GridConfig
from nlml_hpe.manifold.tensor import open_array
from nlml_hpe.manifold.tucker import decompose
from nlml_hpe.rotation import rotate_image_points, rotation_from_angles

RANKS = (5, 3, 3, 3)
POINTS = 468
TENSORLY_LIMIT = 400
"""More people than this do not fit beside tensorly's copies of the tensor in 24 GiB."""


def write_tensor(path: Path, identities: int) -> None:
    """Write the tensor (identities, 11, 9, 7, 1404) float32 person by person."""
    rng = np.random.default_rng(0)
    grid = GridConfig().pose_grid()
    rotations = rotation_from_angles(grid.angles()).reshape(-1, 3, 3)
    modes = rng.normal(size=(8, POINTS, 3)) * np.array([1, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.03])[:, None, None]
    yaw, pitch, roll = (a.reshape(-1) / 50 for a in grid.angles())
    bends = 0.05 * np.stack([yaw**2, yaw * pitch, pitch**2, roll * yaw], axis=1) @ rng.normal(size=(4, 3 * POINTS))
    tensor = np.lib.format.open_memmap(path, "w+", np.float32, (identities, *grid.shape, 3 * POINTS))
    for person in range(identities):
        points = np.tensordot(np.r_[1, rng.normal(size=7)], modes, axes=1)
        features = rotate_image_points(points, rotations).reshape(len(rotations), -1) + bends
        features += 0.02 * rng.standard_normal(features.shape, dtype=np.float32)
        tensor[person] = features.reshape(tensor.shape[1:])


Factors = tuple[Any, Any, list[Any]]
"""What a rival returns: core, basis of the feature mode, factors of the four other modes; or nothing."""


def plain_read(path: Path) -> None:
    """One plain read of the file into memory."""
    np.load(path)


def buffered_read(path: Path) -> None:
    """The fastest read there is: block after block into one buffer, nothing kept."""
    buffer = memoryview(bytearray(4_000_000))
    with path.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def ours(path: Path, sweeps: int) -> Factors:
    """This project's decomposition with a number of HOOI sweeps."""
    model = decompose(open_array(path), RANKS, GridConfig().pose_grid(), hooi_sweeps=sweeps)
    return model.core, model.basis, list(model.factors)


def tensorly_tucker(path: Path) -> Factors:
    """``tensorly.decomposition.tucker`` with its defaults and the same ranks, reading included."""
    tensor = np.load(path)
    core, factors = tucker(tensor, rank=[*RANKS, tensor.shape[-1]])
    return core, factors[4].T, factors[:4]


RIVALS: dict[str, Callable[[Path], Factors | None]] = {
    "plain read (np.load)": plain_read,
    "buffered read": buffered_read,
    "ours, HOSVD": lambda path: ours(path, 0),
    "ours, 1 HOOI sweep": lambda path: ours(path, 1),
    "ours, 2 HOOI sweeps": lambda path: ours(path, 2),
    "tensorly tucker": tensorly_tucker,
}


def error_of(path: Path, core: Any, basis: Any, factors: list[Any]) -> float:
    """|X - model| / |X|, measured person by person in float64 by the same code for every rival."""
    left, total = 0.0, 0.0
    wide = np.asarray(core, dtype=np.float64) @ np.asarray(basis, dtype=np.float64)
    for person, block in enumerate(np.load(path, mmap_mode="r")):
        weights = np.tensordot(np.asarray(factors[0][person], dtype=np.float64), wide, axes=1)
        for mode, factor in enumerate(factors[1:]):
            weights = np.moveaxis(np.tensordot(np.asarray(factor, float), weights, axes=(1, mode)), 0, mode)
        left += float(((block - weights) ** 2).sum())
        total += float((block.astype(np.float64) ** 2).sum())
    return float(np.sqrt(left / total))


def work(name: str, path: Path) -> None:
    """Run one rival in this process and print what it took as JSON."""
    start = time.perf_counter()
    found = RIVALS[name](path)
    seconds = time.perf_counter() - start
    peak = peak_memory_gb()
    error = None if found is None else error_of(path, *found)
    print(json.dumps({"seconds": seconds, "peak RSS (GB)": peak, "relative error": error}))


def drop_caches() -> bool:
    """Forget the files that the system holds in memory; False where this needs more rights."""
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1", encoding="utf-8")
    except OSError:
        return False
    return True


def main(identities: int, repeats: int, skip_tensorly: bool) -> None:
    """Write the tensor, run every rival, print and save the table."""
    names = [n for n in RIVALS if n != "tensorly tucker" or not (skip_tensorly or identities > TENSORLY_LIMIT)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensor.npy"
        write_tensor(path, identities)
        for cache in ("cold", "warm") if drop_caches() else ("warm",):
            # tensorly computes for so long that a cold file makes no difference to it.
            for name in (n for n in names if cache == "warm" or n != "tensorly tucker"):
                figures = median_of(name, path, 1 if name == "tensorly tucker" else repeats, cache)
                rows.append({"rival": name, "file": cache, **figures})
    for row in rows:
        reads = {r["rival"]: r["seconds"] for r in rows if r["file"] == row["file"]}
        row["over a plain read"] = row["seconds"] / reads["plain read (np.load)"]
        row["over a buffered read"] = row["seconds"] / reads["buffered read"]
    size = identities * GridConfig().pose_grid().size * 3 * POINTS * 4 / 1e9
    title = f"Tucker of {identities} x 11 x 9 x 7 x 1404 float32 ({size:.2f} GB), ranks {RANKS}"
    notes = [f"Medians of {repeats} runs (tensorly: one), each in a fresh process; times include reading the file."]
    report(f"tucker_{identities}", title, rows, notes)


def median_of(name: str, path: Path, repeats: int, cache: str) -> dict[str, float]:
    """Median figures of one rival over fresh processes."""
    results = []
    for _ in range(repeats):
        if cache == "cold":
            drop_caches()
        command = [sys.executable, "-m", "benchmarks.tucker", "--worker", name, "--file", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: statistics.median(r[key] for r in results) for key in results[0] if results[0][key] is not None}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identities", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip_tensorly", action="store_true")
    parser.add_argument("--worker", choices=list(RIVALS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.file)
    else:
        main(given.identities, given.repeats, given.skip_tensorly)
