"""Angles of the faces in a photograph: ``python stages/TD_Inference.py --image_path photo.jpg``.

By the paper's cosine optimisation (Powell, the reference route), by the exact separable solve, and
by the network, each with its time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from nlml_hpe.estimator import HeadPoseEstimator
from nlml_hpe.images import read_image
from nlml_hpe.landmarks import normalize_landmarks
from nlml_hpe.powell import infer_powell
from renderer.heads.photo import embedded_photo
from stages.common import guarded

METHODS = ("powell", "exact", "network")


def main(image_path: Path | None, model: Path, methods: tuple[str, ...]) -> list[dict[str, Any]]:
    """Angles in degrees by every method for every face, largest first; the embedded photo without a path."""
    image = embedded_photo() if image_path is None else read_image(image_path)
    results = []
    with HeadPoseEstimator.from_pretrained(model) as estimator:
        faces = estimator.detect(image)
        for number, face in enumerate(faces, start=1):
            feature = normalize_landmarks(face.points, estimator.model.point_set, estimator.model.normalization)
            for method in methods:
                estimate(estimator, feature, method)  # the first call also builds tables; it is not timed
                start = time.perf_counter()
                angles, sigma = estimate(estimator, feature, method)
                elapsed = 1000 * (time.perf_counter() - start)
                results.append({"face": number, "method": method, **angles, "sigma": sigma, "milliseconds": elapsed})
    return results


def estimate(estimator: HeadPoseEstimator, feature: Any, method: str) -> tuple[dict[str, float], list[float] | None]:
    """Named angles in degrees of one feature, and their standard deviations where the method has them."""
    if method == "powell":
        return infer_powell(estimator.model.manifold, feature).named(), None
    angles, sigma = estimator.angles(feature[None], "exact" if method == "exact" else "network")
    named = {name: float(value[0]) for name, value in angles._asdict().items()}
    return named, None if sigma is None else sigma[0].tolist()


def show(results: list[dict[str, Any]]) -> None:
    """Print one line per face and method."""
    for row in results:
        spread = "" if row["sigma"] is None else "   +- " + ", ".join(f"{s:.1f}" for s in row["sigma"])
        named = "  ".join(f"{axis} {row[axis]:+7.2f}" for axis in ("yaw", "pitch", "roll"))
        print(f"face {row['face']}  {row['method']:<8} {named}  degrees   {row['milliseconds']:8.2f} ms{spread}")


def command() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image_path", type=Path, help="without it the embedded photograph")
    parser.add_argument("--model", type=Path, default=Path("data/demo/model"))
    parser.add_argument("--method", choices=METHODS, help="without it all of them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()

    def work() -> None:
        results = main(given.image_path, given.model, (given.method,) if given.method else METHODS)
        if not results:
            print("no face found", file=sys.stderr)
        print(json.dumps(results, indent=2)) if given.json else show(results)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(command())
