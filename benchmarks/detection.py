"""Does the detector find rendered faces as it finds real ones? ``python benchmarks/detection.py --tensor WORKDIR``.

``WORKDIR`` holds a finished ``landmarks_train``; ``--root`` is a folder in AFLW2000-3D's layout, by default the
development data. Both are searched in the same way (``detect_in_box``). Rates are given per cell of yaw and pitch,
over all rolls of the grid.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import development_data, report
from nlml_hpe.detection.detectors import MAX_FACES, FaceMeshOnnx
from nlml_hpe.detection.landmarks import SEARCHES
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.faces import ask, photographs
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.rotation import AXES

YAW_EDGES = (-55, -35, -15, 15, 35, 55)
PITCH_EDGES = (-45, -15, 15, 45)


def main(workdir: Path, root: Path) -> None:
    """Print and save the rates per cell, and those of the whole range."""
    tensor = LandmarkTensor.open(workdir / "landmarks_train")
    routes = np.asarray(tensor.routes).reshape(len(tensor.people), -1)
    rendered = np.broadcast_to(tensor.grid.angles().columns().reshape(-1, 3), (len(routes), routes.shape[1], 3))
    data = read_dataset("aflw2000", root)
    with FaceMeshOnnx(MAX_FACES) as detector:
        found = ask(photographs(data, detector, looks=1), {})
    found = found.chosen(PROTOCOLS["aflw2000-nlml"].includes(found.labels))
    angles, real = found.labels.columns(), np.array([SEARCHES.index(step) for step in found.found_by], dtype=np.uint8)
    rows = [_row("all", rendered.reshape(-1, 3), routes.ravel(), angles, real, None)]
    for low_yaw, high_yaw in itertools.pairwise(YAW_EDGES):
        for low_pitch, high_pitch in itertools.pairwise(PITCH_EDGES):
            cell = (low_yaw, high_yaw, low_pitch, high_pitch)
            name = f"yaw {low_yaw}..{high_yaw}, pitch {low_pitch}..{high_pitch}"
            rows.append(_row(name, rendered.reshape(-1, 3), routes.ravel(), angles, real, cell))
    by_axis = []
    for axis, (name, values) in enumerate(zip(AXES, tensor.grid.axes, strict=True)):
        others = tuple(a for a in range(4) if a != axis + 1)
        rates = np.asarray(tensor.detected).mean(axis=others)
        by_axis.append(
            f"rendered by {name}: " + "  ".join(f"{v:g}: {r:.1%}" for v, r in zip(values, rates, strict=True))
        )
    title = f"Faces found: {len(tensor.people)} rendered people on the grid, and {root.name} in the paper's range"
    report("detection", title, rows, by_axis)


def _row(
    name: str,
    rendered: NDArray[np.float64],
    rendered_routes: NDArray[np.uint8],
    real: NDArray[np.float64],
    real_routes: NDArray[np.uint8],
    cell: tuple[float, float, float, float] | None,
) -> dict[str, object]:
    row: dict[str, object] = {"cell (degrees)": name}
    for kind, angles, routes in (("rendered", rendered, rendered_routes), ("real", real, real_routes)):
        chosen = routes
        if cell is not None:
            yaw, pitch = angles[:, 0], angles[:, 1]
            chosen = routes[(yaw >= cell[0]) & (yaw < cell[1]) & (pitch >= cell[2]) & (pitch < cell[3])]
        row[f"{kind}, n"] = len(chosen)
        row[f"{kind}, whole image"] = f"{(chosen == SEARCHES.index('whole')).mean():.1%}" if len(chosen) else "-"
        row[f"{kind}, found"] = f"{(chosen > 0).mean():.1%}" if len(chosen) else "-"
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensor", type=Path, required=True, help="workdir of a finished Landmarks stage")
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    given = parser.parse_args()
    main(given.tensor, given.root)
