"""The one ONNX file on labelled photographs: ``python benchmarks/one_file.py --dataset D --root R --int8-crops C``.

Heads are cut around the labels' boxes and answered by files of one eye and of both, with several numbers of looks, and,
where crops are named, in eight bits: mean absolute errors, raw, size, and processor time of one head on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import report
from benchmarks.labelled import boxed_faces
from nlml_hpe.evaluation.datasets import LAYOUTS
from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.export.whole import CROP_PX, export_whole
from nlml_hpe.image_networks.crop import crop
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.rotation import Angles, rotation_from_angles
from nlml_hpe.sessions import open_session

_TURNS = 15


def files(model: Path, folder: Path, int8_crops: Path | None) -> Iterator[tuple[str, Path]]:
    """What is compared, by its name."""
    for looks in (5, 3, 2, 1):
        yield f"both, looks={looks}", export_whole(model, folder / f"both{looks}.onnx", looks=looks)
    if int8_crops is not None:
        path = folder / "both_int8.onnx"
        yield "both, looks=3, int8", export_whole(model, path, looks=3, int8=True, int8_crops=int8_crops)
    yield "image eye", export_whole(model, folder / "image.onnx", eye="image")
    if int8_crops is not None:
        path = folder / "image_int8.onnx"
        yield "image eye, int8", export_whole(model, path, eye="image", int8=True, int8_crops=int8_crops)


def measured(path: Path, crops: NDArray[np.uint8], labels: Angles) -> dict[str, Any]:
    """One row: errors in the paper's range and within 99 degrees, bytes, and milliseconds of the processor."""
    session = open_session(path, threads=1)
    heads = [image.transpose(2, 0, 1)[None].astype(np.float32) for image in crops]
    rotation = np.concatenate([session.run(["rotation"], {"crops": head})[0] for head in heads])
    error = errors(rotation.astype(np.float64), rotation_from_angles(labels)).angle.mean(axis=1)
    spent = []
    for _ in range(_TURNS):
        start = time.process_time()
        session.run(None, {"crops": heads[0]})
        spent.append((time.process_time() - start) * 1e3)
    near, wide = (PROTOCOLS[name].includes(labels) for name in ("aflw2000-nlml", "aflw2000"))
    return {
        "range": f"{error[near].mean():.3f} ({near.sum()})",
        "within 99": f"{error[wide].mean():.3f} ({wide.sum()})",
        "MB": path.stat().st_size / 1e6,
        "processor ms": statistics.median(spent),
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(LAYOUTS), required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--int8-crops", type=Path, help="what the stage Crops wrote")
    given = parser.parse_args()
    faces = list(boxed_faces(given.dataset, given.root))
    crops = np.stack([crop(one.face.image, one.face.box, CROP_PX) for one in faces if one.face.image is not None])
    labels = Angles.from_columns([one.label for one in faces])
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            {"file": name, **measured(path, crops, labels)}
            for name, path in files(given.model, Path(scratch), given.int8_crops)
        ]
    notes = [
        f"MAE in degrees on {given.root.name}, raw, crops of {CROP_PX} px around the label's box; number of faces."
    ]
    report("one_file", "One ONNX file from a crop to the answer", rows, notes)


if __name__ == "__main__":
    main()
