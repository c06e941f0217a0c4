"""The exact inverse against the reference's Powell, on the authors' published factors.

``python benchmarks/inverse.py``: ``--official`` is the folder with the authors' ``Trained_data.npz`` and
``Factor_Matrices.npz``, ``--faces`` a folder of photographs; both default to the development data. Powell
runs as the reference runs it: eight unknowns from zero, no bounds. Both minimise half the squared error
of the same features; no prior, no noise model. Times are of the reference's own arithmetic (einsum over
the full W in float32), on some of the faces; the objectives of all faces come from the same optimisation
with the same objective in the manifold's basis (``nlml_hpe.manifold.powell``), which takes a fraction of the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks.common import development_data, report
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import normalize_landmarks
from nlml_hpe.files.images import read_image
from nlml_hpe.manifold.cosines import evaluate
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.official import official_manifold
from nlml_hpe.manifold.powell import PowellResult, infer_powell
from nlml_hpe.rotation import Angles

NOISE = 0.02
"""White noise on drawn faces, as a share of the features' standard deviation."""
WORSE = 1e-6
MARGIN_DEG = 180.0
"""Powell has no bounds, so neither has the exact inverse here."""
_TIMED = 15


def reference_powell(weights: NDArray[np.float32], cosines: tuple[Any, Any, Any], x: NDArray[Any]) -> float:
    """Objective that the reference's optimisation of one face ends with."""

    def objective(unknowns: NDArray[np.float64]) -> float:
        rows = [evaluate(c, np.asarray(w)).astype(np.float32) for c, w in zip(cosines, unknowns[:3], strict=True)]
        model = np.einsum("ijklm,i,j,k,l->m", weights, unknowns[3:], *rows)
        return 0.5 * float(np.sum((x - model) ** 2))

    found = minimize(objective, np.zeros(3 + weights.shape[0]), method="Powell")
    return float(found.fun)


def one_thread(manifold: PoseManifold, x: NDArray[Any]) -> PowellResult:
    """Powell in one thread, since as many run side by side as there are cores."""
    with threadpool_limits(1):
        return infer_powell(manifold, x)


def drawn_faces(manifold: PoseManifold, count: int, noise: float) -> tuple[NDArray[np.float64], Angles]:
    """Faces drawn from the model: identities from the prior, angles inside the grid, white noise."""
    rng = np.random.default_rng(0)
    axes = manifold.grid.axes
    angles = Angles.from_columns(rng.uniform([a[0] for a in axes], [a[-1] for a in axes], size=(count, 3)))
    identities = rng.multivariate_normal(manifold.prior.mean, manifold.prior.covariance, size=count)
    features = manifold.synthesize(identities, angles)
    return features + noise * features.std() * rng.normal(size=features.shape), angles


def real_faces(folder: Path) -> NDArray[np.float64]:
    """Features of the largest face of every photograph in which one is found."""
    with FaceMeshOnnx() as detector:
        paths = sorted(folder.glob("*.jpg"))
        found = [detector.detect(read_image(path)) for path in tqdm(paths, desc="Detect")]
    print(f"{sum(map(bool, found))} of {len(found)} photographs show a face that was found")
    return np.array([normalize_landmarks(faces[0].landmarks) for faces in found if faces], dtype=np.float64)


def median_ms(work: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of ``work``."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def compare(
    name: str, manifold: PoseManifold, weights: NDArray[np.float32], features: NDArray[np.float64]
) -> dict[str, Any]:
    """Both routes on the same faces: time of one face, objectives, angles."""
    single = features.astype(np.float32)
    manifold.infer(features[:1], statistical=False)
    # Alternating, so that a noisy minute of the machine meets both.
    slow, fast = [], []
    for face in range(min(_TIMED, len(features))):
        slow.append(median_ms(partial(reference_powell, weights, manifold.cosines, single[face]), 1))
        exact = partial(manifold.infer, features[face : face + 1], statistical=False, margin=MARGIN_DEG)
        fast.append(median_ms(exact, 9))
    tasks = (delayed(one_thread)(manifold, x) for x in features)
    reference = list(tqdm(Parallel(n_jobs=-1, return_as="generator")(tasks), total=len(features), desc=name))
    found = manifold.infer(features, statistical=False, margin=MARGIN_DEG)
    theirs = np.array([result.objective for result in reference])
    angles = np.array([(result.yaw, result.pitch, result.roll) for result in reference])
    difference = np.abs(angles - found.angles.columns()).max(axis=1)
    return {
        "faces": name,
        "n": len(features),
        "powell ms": statistics.median(slow),
        "evaluations": statistics.median(result.evaluations for result in reference),
        "exact ms": statistics.median(fast),
        "times faster": statistics.median(a / b for a, b in zip(slow, fast, strict=True)),
        "exact worse": int((found.objective > theirs * (1 + WORSE)).sum()),
        "powell worse": int((theirs > found.objective * (1 + WORSE)).sum()),
        "median angle difference": float(np.median(difference)),
        "share beyond 1 degree": float((difference > 1).mean()),
    }


def throughput(manifold: PoseManifold, features: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Faces a second in batches."""
    rows = []
    for size in (1, 32, 1024):
        batch = np.resize(features, (size, features.shape[1]))
        manifold.infer(batch, statistical=False)
        repeats = max(5, 200 // size)
        milliseconds = median_ms(partial(manifold.infer, batch, statistical=False), repeats)
        rows.append({"batch": size, "ms per batch": milliseconds, "faces a second": 1000 * size / milliseconds})
    return rows


def main(official: Path, faces: Path, count: int) -> None:
    """Run both comparisons, print and save the tables."""
    manifold = official_manifold(official / "Trained_data.npz", official / "Factor_Matrices.npz")
    weights = np.tensordot(manifold.core, manifold.basis, axes=1).astype(np.float32)
    drawn, _ = drawn_faces(manifold, count, NOISE)
    rows = [compare("drawn from the model", manifold, weights, drawn)]
    if faces.is_dir():
        rows.append(compare(f"photographs ({faces.name})", manifold, weights, real_faces(faces)))
    else:
        print(f"{faces}: no such folder, photographs are left out")
    notes = [f"'worse' counts faces whose objective is above the other route's by more than {WORSE:g} of it."]
    report("inverse", "One face: exact inverse against Powell, authors' published factors", rows, notes)
    report("inverse_throughput", "Throughput of the exact inverse", throughput(manifold, drawn))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, default=development_data() / "nlml_hpe_official")
    parser.add_argument("--faces", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--count", type=int, default=500)
    given = parser.parse_args()
    main(given.official, given.faces, given.count)
