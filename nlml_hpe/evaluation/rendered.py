"""Every route on the faces of an image, timed, and on rendered people, on the grid and off it, with coverage."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.evaluation.metrics import VECTORS, errors, per_interval, summary
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import Method
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.rotation import AXES, Angles

Route = Callable[[NDArray[np.float32]], tuple[Angles, NDArray[np.float64] | None]]


@dataclass(frozen=True)
class Faces:
    """Rendered faces of one kind: true ``angles`` (n,), ``detected`` (n,), features of the detected, people (n,)."""

    angles: Angles
    detected: NDArray[np.bool_]
    features: NDArray[np.float32]
    people: NDArray[np.int64]


def rendered_faces(tensor: LandmarkTensor) -> dict[str, Faces]:
    """All faces of a tensor: ``on_grid`` and, where there are any, ``off_grid``."""
    people = np.array(tensor.people)
    length = tensor.features.shape[-1]
    grid_columns = np.broadcast_to(tensor.grid.angles().columns(), (*tensor.detected.shape, 3)).reshape(-1, 3)
    on_grid = np.asarray(tensor.detected).reshape(-1)
    sets = {
        "on_grid": Faces(
            Angles.from_columns(grid_columns),
            on_grid,
            np.asarray(tensor.features).reshape(-1, length)[on_grid],
            np.repeat(people, tensor.grid.size),
        )
    }
    if tensor.random_detected.size:
        found = np.asarray(tensor.random_detected).reshape(-1)
        sets["off_grid"] = Faces(
            Angles.from_columns(tensor.random_angles.reshape(-1, 3)),
            found,
            np.asarray(tensor.random_features).reshape(-1, length)[found],
            np.repeat(people, tensor.random_angles.shape[1]),
        )
    return sets


def timed_poses(estimator: HeadPoseEstimator, image: RgbImage, methods: Sequence[Method]) -> list[dict[str, Any]]:
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


def evaluate_routes(
    faces: Faces, routes: Mapping[Method, Route], interval: float
) -> tuple[dict[str, Any], dict[Method, Angles]]:
    """Errors of every route on the detected faces with coverage, and the estimated angles."""
    true = Angles.from_columns(faces.angles.columns()[faces.detected])
    report: dict[str, Any] = {
        "n_total": len(faces.detected),
        "n_detected": int(faces.detected.sum()),
        "n_missed": int((~faces.detected).sum()),
        "coverage": float(faces.detected.mean()),
        "routes": {},
    }
    estimates: dict[Method, Angles] = {}
    for name, route in routes.items():
        estimated, sigma = route(faces.features)
        found = errors(estimated, true)
        report["routes"][name] = {**summary(found), "per_interval": per_interval(found, true, interval)}
        if sigma is not None:
            scores = found.angle / sigma
            known = scores[np.isfinite(scores).all(axis=1)]
            within = {str(k): (known < k).mean(axis=0).tolist() for k in (1.0, 1.96)} if len(known) else {}
            report["routes"][name]["within_sigma"] = {"n": len(known), **within}
        estimates[name] = estimated
    return report, estimates


def summary_csv(report: dict[str, Any]) -> str:
    """The report as CSV: a row per set of faces and route, without the intervals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["faces", "route", "n_total", "n_detected", "n_missed", "coverage"]
    measures = [("mae", key) for key in (*AXES, "mean")] + [("maev", key) for key in (*VECTORS, "mean")]
    measures += [("geodesic", key) for key in ("mean", "median")]
    writer.writerow([*header, *(f"{measure}_{key}" for measure, key in measures)])
    for kind, part in report.items():
        for route, row in part["routes"].items():
            counts = [part[name] for name in header[2:]]
            writer.writerow([kind, route, *counts, *(_short(row[measure][key]) for measure, key in measures)])
    return text.getvalue()


def table(report: dict[str, Any]) -> str:
    """The report as text: a line per set of faces and route."""
    lines = [
        f"{'faces':<9} {'route':<8} {'yaw':>6} {'pitch':>6} {'roll':>6} {'MAE':>6} {'MAEV':>6} "
        f"{'geod.':>6} {'median':>6}   found"
    ]
    for kind, part in report.items():
        for name, row in part["routes"].items():
            mae, geodesic = row["mae"], row["geodesic"]
            numbers = [mae["yaw"], mae["pitch"], mae["roll"], mae["mean"], row["maev"]["mean"], *geodesic.values()]
            lines.append(
                f"{kind:<9} {name:<8} " + " ".join(f"{value:6.2f}" for value in numbers)
                + f"   {part['n_detected']} of {part['n_total']} ({part['coverage']:.1%})"
            )  # fmt: skip
    return "\n".join(lines) + "\n"


def predictions_csv(faces: Faces, estimates: Mapping[Method, Angles]) -> str:
    """One row per rendered face: person, true angles, whether it was found, and every route's angles."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["person", *AXES, "detected", *(f"{name}_{axis}" for name in estimates for axis in AXES)])
    columns = {name: angles.columns() for name, angles in estimates.items()}
    position = np.cumsum(faces.detected) - 1
    for index, (person, true) in enumerate(zip(faces.people, faces.angles.columns(), strict=True)):
        row: list[Any] = [person, *map(_short, true), int(faces.detected[index])]
        for values in columns.values():
            row += map(_short, values[position[index]]) if faces.detected[index] else [""] * 3
        writer.writerow(row)
    return text.getvalue()


def _short(value: float) -> str:
    return f"{value:.4f}"
