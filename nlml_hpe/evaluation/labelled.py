"""Every route on a labelled data set, under a named protocol, with its coverage."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.detection.landmarks import ROUTES as DETECTION_ROUTES
from nlml_hpe.detection.landmarks import LandmarkDetector, normalize_landmarks
from nlml_hpe.evaluation.datasets import Dataset
from nlml_hpe.evaluation.metrics import Errors, constant_rotation, errors, per_interval, summary
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.inference.engines import DEFAULT_METHOD, Method
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.rotation import AXES, Angles

ROUTES: tuple[Method, ...] = ("network", "exact", "refined")


@dataclass(frozen=True)
class Detections:
    """Landmarks (n, N, 3) in pixels of n samples, zeros where no face was found, and the ``route`` (n,) of each."""

    points: NDArray[np.float64]
    route: NDArray[np.uint8]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which samples (n,) show a face."""
        return self.route > 0


def detect_all(data: Dataset, detector: LandmarkDetector) -> Detections:
    """The annotated face of every sample: the one in the label's box, where there is a box, or the largest."""
    count = len(data.samples)
    points = np.zeros((count, detector.point_set.n_points, 3))
    route = np.zeros(count, dtype=np.uint8)
    for index, sample in enumerate(tqdm(data.samples, desc=f"Detect {data.name}", unit="face")):
        image = sample.load()
        face = detector.detect_in_box(image, sample.box) if sample.box else next(iter(detector.detect(image)), None)
        if face is not None:
            points[index], route[index] = face.points, DETECTION_ROUTES.index(face.route)
    return Detections(points, route)


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found: the ``report`` for metrics.json, and per route errors and angles of the detected."""

    report: dict[str, Any]
    errors: dict[Method, Errors]
    estimates: dict[Method, Angles]
    true: Angles


def evaluate(
    engine: TorchEngine, data: Dataset, detections: Detections, protocol: str, interval: float = 10.0
) -> Outcome:
    """Every route on the faces of ``protocol``: on the detected, and with misses charged as a frontal guess.

    Raw figures are those in the model's named head frame; ``unaligned``, in every route's row and once for all
    of them, holds the same in its own frame.
    Raises ``ValueError`` where the protocol is unknown, of another data set, or leaves no detected face.
    """
    if protocol not in PROTOCOLS or PROTOCOLS[protocol].dataset != data.name:
        fitting = sorted(name for name, p in PROTOCOLS.items() if p.dataset == data.name)
        raise ValueError(f"protocol {protocol!r} is not one of {data.name}; expected one of {fitting}")
    chosen = PROTOCOLS[protocol].includes(data.angles)
    found = chosen & detections.found
    if not found.any():
        raise ValueError(f"{protocol}: no face was detected among {int(chosen.sum())} of the protocol")
    true, missed = (Angles.from_columns(data.angles.columns()[mask]) for mask in (found, chosen & ~found))
    model = engine.model
    features = normalize_landmarks(detections.points[found], model.point_set, model.normalization)
    routes = Counter(DETECTION_ROUTES[index] for index in detections.route[found])
    report: dict[str, Any] = {
        "protocol": protocol,
        "frame": model.frame.name,
        "n_total": len(data.samples),
        "n_protocol": int(chosen.sum()),
        "n_detected": int(found.sum()),
        "coverage": float(found.sum() / chosen.sum()),
        "detected_by": dict(routes),
        "left_out": {reason: len(names) for reason, names in data.left_out.items()},
        "default_route": DEFAULT_METHOD,
        "routes": {},
    }
    outcome = Outcome(report, {}, {}, true)
    own: dict[str, Any] = {}
    for name in ROUTES:
        found_own, _ = engine.own_angles(features, name)
        angles = engine.in_named_frame(found_own)
        outcome.errors[name], outcome.estimates[name] = errors(angles, true), angles
        own[name] = _row(found_own, true, missed, interval)
        report["routes"][name] = {**_row(angles, true, missed, interval), "unaligned": own[name]}
    report["unaligned"] = {"frame": "own", "routes": own}
    return outcome


def _row(angles: Angles, true: Angles, missed: Angles, interval: float) -> dict[str, Any]:
    """All figures of one route in one frame."""
    found = errors(angles, true)
    charged, by_interval = _charged(angles, true, missed), per_interval(found, true, interval)
    return {**summary(found), "mae_all": charged, "per_interval": by_interval}


def _charged(angles: Angles, true: Angles, missed: Angles) -> dict[str, float]:
    """MAE over all faces of the protocol where each face that was missed is taken for a frontal one."""
    guessed = Angles.from_columns(np.concatenate([angles.columns(), np.zeros_like(missed.columns())]))
    every = Angles.from_columns(np.concatenate([true.columns(), missed.columns()]))
    return dict(summary(errors(guessed, every))["mae"])


def alignment(engine: TorchEngine, data: Dataset, detections: Detections, protocol: str) -> Angles:
    """The constant rotation from the model's own head frame to that of the labels, by the default route."""
    found = PROTOCOLS[protocol].includes(data.angles) & detections.found
    model = engine.model
    features = normalize_landmarks(detections.points[found], model.point_set, model.normalization)
    estimated, _ = engine.own_angles(features, DEFAULT_METHOD)
    return constant_rotation(estimated, Angles.from_columns(data.angles.columns()[found]))


def text_table(report: Mapping[str, Any]) -> str:
    """The report as text: raw rows first, then those in the model's own frame."""
    lines = [
        f"protocol {report['protocol']}: {report['n_protocol']} of {report['n_total']} faces, "
        f"{report['n_detected']} detected ({report['coverage']:.1%}) "
        + ", ".join(f"{name} {count}" for name, count in report["detected_by"].items()),
        f"{'frame':<8} {'route':<10} {'yaw':>6} {'pitch':>6} {'roll':>6} {'MAE':>6} {'MAE all':>8} {'MAEV':>6} "
        f"{'geod.':>6} {'median':>6}",
    ]
    for frame, routes in ((report["frame"], report["routes"]), ("own", report["unaligned"]["routes"])):
        for name, row in routes.items():
            mae = [row["mae"][key] for key in (*AXES, "mean")]
            rest = [row["mae_all"]["mean"], row["maev"]["mean"], row["geodesic"]["mean"], row["geodesic"]["median"]]
            mark = " *" if name == report["default_route"] else ""
            numbers = " ".join(f"{value:6.2f}" for value in mae) + f" {rest[0]:8.2f} "
            lines.append(f"{frame:<8} {name + mark:<10} {numbers}" + " ".join(f"{value:6.2f}" for value in rest[1:]))
    return "\n".join([*lines, "* default route; MAE all: misses charged as a frontal guess"]) + "\n"


def predictions_csv(data: Dataset, detections: Detections, outcome: Outcome) -> str:
    """One row for every face of the protocol: true angles, how it was found, and every route's angles."""
    chosen = PROTOCOLS[outcome.report["protocol"]].includes(data.angles)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *AXES, "detected_by", *(f"{name}_{axis}" for name in outcome.estimates for axis in AXES)])
    columns = [angles.columns() for angles in outcome.estimates.values()]
    position = np.cumsum(chosen & detections.found) - 1
    for index in np.flatnonzero(chosen):
        sample, route = data.samples[index], detections.route[index]
        row = [sample.name, *(f"{value:.4f}" for value in sample.angles), DETECTION_ROUTES[route]]
        for values in columns:
            row += [f"{value:.4f}" for value in values[position[index]]] if route else [""] * 3
        writer.writerow(row)
    return text.getvalue()
