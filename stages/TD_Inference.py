"""Angles of the faces in a photograph, by every route: ``python stages/TD_Inference.py --image_path photo.jpg``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

from nlml_hpe.device import DEVICE_HELP, DEVICES, DeviceName
from nlml_hpe.files.images import RgbImage, read_image
from nlml_hpe.inference.engines import Route
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.model.folder import HeadPoseModel, load_model, official_model
from renderer.heads.photo import embedded_photo
from stages.common import guarded

METHODS: tuple[Route, ...] = ("powell", "exact", "network")


def main(
    image_path: Path | None, model: HeadPoseModel, methods: tuple[Route, ...], device: DeviceName = "auto"
) -> list[dict[str, Any]]:
    """Angles in degrees by every method for every face, largest first; the embedded photo without a path."""
    image = embedded_photo() if image_path is None else read_image(image_path)
    with HeadPoseEstimator(model, backend="torch", device=device) as estimator:
        return timed_poses(estimator, image, methods)


def timed_poses(estimator: HeadPoseEstimator, image: RgbImage, methods: Sequence[Route]) -> list[dict[str, Any]]:
    """Every face of an image, largest first, by every method: number, method, pose, milliseconds after detection."""
    results = []
    for number, face in enumerate(estimator.detect(image), start=1):
        for method in methods:
            estimator.poses([face], method)  # the first call also builds tables; it is not timed
            start = time.perf_counter()
            (pose,) = estimator.poses([face], method)
            elapsed = 1000 * (time.perf_counter() - start)
            results.append({"face": number, "method": method, **pose.as_dict(), "milliseconds": elapsed})
    return results


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
    model_help = "model folder (default: %(default)s, which `make demo` makes)"
    parser.add_argument("--model", type=Path, default=Path("data/demo/model"), help=model_help)
    parser.add_argument("--official", type=Path, help="folder of the authors' published artefacts, in place of --model")
    parser.add_argument("--method", choices=METHODS, help="without it all of them")
    parser.add_argument("--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return guarded(work, parser.parse_args())


def work(given: argparse.Namespace) -> None:
    """Estimate and print as the command line says."""
    model = official_model(given.official) if given.official else load_model(given.model)
    usable = METHODS if model.network else METHODS[:2]
    results = main(given.image_path, model, (given.method,) if given.method else usable, given.device)
    if not results:
        print("no face found", file=sys.stderr)
    print(json.dumps(results, indent=2)) if given.json else show(results)


if __name__ == "__main__":
    sys.exit(command())
