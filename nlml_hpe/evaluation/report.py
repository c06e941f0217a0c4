"""What an evaluation writes: one table, one file of predictions, plots; the same for rendered and labelled faces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nlml_hpe.evaluation.evaluate import Evaluation
from nlml_hpe.evaluation.faces import is_known
from nlml_hpe.evaluation.metrics import VECTORS
from nlml_hpe.files.atomic import write_bytes, write_json
from nlml_hpe.rotation import AXES, angles_from_rotation
from nlml_hpe.view.error_plots import plot_error_cdf, plot_intervals

_MEASURES = [("mae", key) for key in (*AXES, "mean")] + [("maev", key) for key in (*VECTORS, "mean")]
_MEASURES += [("geodesic", key) for key in ("mean", "median")]


Costs = Mapping[str, Mapping[str, Any]]
"""Route -> what it costs, by the names of ``cost.Cost``; other facts may stand beside them."""
_COSTS = {
    "parameters": ("M param.", 1e-6, 8, 2),
    "macs": ("M MACs", 1e-6, 7, 0),
    "bytes": ("MB", 1e-6, 6, 2),
    "ms": ("ms", 1.0, 6, 2),
    "detect_ms": ("detect ms", 1.0, 9, 1),
}
"""Title, scale, width and decimals of each in a table."""


def write_report(
    folder: Path, measured: Evaluation | Mapping[str, Evaluation], routes: Costs | None = None
) -> dict[str, dict[str, Any]]:
    """Write ``metrics.json``, ``metrics.csv``, ``table.txt``, and predictions and plots of each set of faces.

    Parameters
    ----------
    folder : Path
        Where to.
    measured : Evaluation, or mapping
        Of one set of faces alone ``metrics.json`` is the report. Of sets by their names it has a report for each, and
        the names of their predictions and plots end in theirs.
    routes : mapping, optional
        What is known of each route beside its errors: for ``metrics.json``, and its costs for the tables.

    Returns
    -------
    dict
        Name of the faces -> ``Evaluation.report``.
    """
    if isinstance(measured, Evaluation):
        reports, metrics = {measured.report["protocol"]: measured.report}, measured.report
        _write_faces(folder, measured)
    else:
        reports = {name: evaluation.report for name, evaluation in measured.items()}
        metrics = reports if routes is None else {"routes": routes, "faces": reports}
        for name, evaluation in measured.items():
            _write_faces(folder, evaluation, f"_{in_file_name(name)}")
    write_json(folder / "metrics.json", metrics)
    write_bytes(folder / "table.txt", table(reports, routes).encode())
    write_bytes(folder / "metrics.csv", summary_csv(reports, routes).encode())
    return reports


def in_file_name(faces: str) -> str:
    """How the name of a set of faces stands in the names of its files.

    Examples
    --------
    >>> in_file_name("dark aflw2000")
    'dark_aflw2000'
    """
    return faces.replace(" ", "_")


def _write_faces(folder: Path, evaluation: Evaluation, suffix: str = "") -> None:
    """One set of faces, with a ``suffix`` in the names of its files where there are more; no plots without answers."""
    write_bytes(folder / f"predictions{suffix}.csv", predictions_csv(evaluation).encode())
    rows = {name: row for name, row in evaluation.report["routes"].items() if row["n"]}
    if not rows:
        return
    plot_intervals({name: row["per_interval"] for name, row in rows.items()}, folder / f"mae_per_interval{suffix}.png")
    means = {name: evaluation.errors[name].angle.mean(axis=1) for name in rows}
    plot_error_cdf(means, folder / f"error_cdf{suffix}.png")


def table(reports: Mapping[str, Mapping[str, Any]], costs: Costs | None = None) -> str:
    """Reports as text: a line for every set of faces, head frame and route, raw figures first.

    Parameters
    ----------
    reports : mapping
        Name of the faces -> ``Evaluation.report``.
    costs : mapping, optional
        What each route costs; then more columns say so.

    Returns
    -------
    str
        The table and, below it, what its marks mean.
    """
    rows = []
    for faces, report in reports.items():
        for frame, routes in _frames(report):
            for name, row in routes.items():
                mark = " *" if name.rpartition("/")[2] == report["default_route"] else ""
                rows.append((faces, frame, name + mark, row, _costs_text(costs.get(name, {})) if costs else ""))
    titles = {"faces": 13, "frame": 8, "route": 10}
    wide = [max(least, *(len(row[column]) for row in rows)) for column, least in enumerate(titles.values())]
    head = " ".join(f"{title:<{width}}" for title, width in zip(titles, wide, strict=True))
    prices = "".join(f" {title:>{width}}" for title, _, width, _ in _COSTS.values())
    lines = [
        f"{head} {'yaw':>6} {'pitch':>6} {'roll':>6} {'MAE':>6} {'95% interval':>13} {'MAE all':>8} {'MAEV':>6} "
        f"{'geod.':>6} {'median':>6}{prices if costs else ''}   found"
    ]
    for *names, row, cost in rows:
        begin = " ".join(f"{name:<{width}}" for name, width in zip(names, wide, strict=True))
        lines.append(f"{begin} {_numbers(row)}{cost}   {_found(row)}")
    return "\n".join([*lines, *_notes(reports)]) + "\n"


def _costs_text(cost: Mapping[str, float | None]) -> str:
    """Numbers under their titles; a dash where one is not known."""
    text = ""
    for name, (_, scale, width, digits) in _COSTS.items():
        value = cost.get(name)
        text += f" {'-':>{width}}" if value is None else f" {value * scale:{width}.{digits}f}"
    return text


def _frames(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(head frame, rows) in the order in which they are shown."""
    yield report["frame"], report["routes"]
    for kind, name in (("unaligned", "own"), ("aligned", "aligned"), ("fitted", "fitted")):
        if kind in report and name != report["frame"]:  # of a model that names no other frame they are the same rows
            yield name, report[kind]["routes"]


def _numbers(row: Mapping[str, Any]) -> str:
    if not row["n"]:
        return f"{'no answer':>71}"
    mae = " ".join(f"{row['mae'][key]:6.2f}" for key in (*AXES, "mean"))
    low, high = row["mae_interval"]["mean"]
    rest = (row["maev"]["mean"], row["geodesic"]["mean"], row["geodesic"]["median"])
    interval = f"{low:.2f}..{high:.2f}"
    return f"{mae} {interval:>13} {row['mae_all']['mean']:8.2f} " + " ".join(f"{value:6.2f}" for value in rest)


def _found(row: Mapping[str, Any]) -> str:
    return f"{row['n']} of {row['n_total']}" + (f" ({row['coverage']:.1%})" if row["n_total"] else "")


def _notes(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield (
        "errors in degrees; * default route; MAE: faces with an answer; "
        "MAE all: a face without one counts as a frontal guess"
    )
    routes = {name.rpartition("/")[2] for report in reports.values() for name in report["routes"]}
    if routes & {"image", "fused"}:
        yield "the image eye's crop is cut about the label's box, where labels have one"
    if any("fitted" in report for report in reports.values()):
        yield "fitted: after the one rotation that suits each route best on these very faces"
    for faces, report in reports.items():
        steps = ", ".join(f"{step} {count}" for step, count in report["detected_by"].items()) or "nobody"
        finder = "their labels" if report["n_detected"] is None else steps
        yield f"{faces}: {report['n_protocol']} of {report['n_total']} faces, found by {finder}"
        if report["left_out"]:
            yield "left out: " + ", ".join(f"{reason} {count}" for reason, count in report["left_out"].items())
        if "aligned" in report:
            part = report["aligned"]
            yield f"aligned: one constant rotation, estimated on {part['n_faces']} other faces ({part['frame']})"


def summary_csv(reports: Mapping[str, Mapping[str, Any]], costs: Costs | None = None) -> str:
    """Reports as CSV: a row per set of faces, route and head frame, without the intervals of true angles."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    counts = ("n_total", "n_detected", "n_missed", "coverage")
    bounds = ("mae_low", "mae_high", "mae_all", "frame")
    priced = tuple(_COSTS) if costs else ()
    writer.writerow(["faces", "route", *counts, *(f"{measure}_{key}" for measure, key in _MEASURES), *bounds, *priced])
    for faces, report in reports.items():
        for frame, routes in _frames(report):
            for name, row in routes.items():
                known = [row["n_total"], row["n"], row["n_missed"], row["coverage"]]
                prices = [(costs or {}).get(name, {}).get(column) for column in priced]
                spent = ["" if value is None else f"{value:.6g}" for value in prices]
                writer.writerow([faces, name, *known, *_cells(row), frame, *spent])
    return text.getvalue()


def _cells(row: Mapping[str, Any]) -> list[str]:
    if not row["n"]:
        return [""] * (len(_MEASURES) + 3)
    values = [row[measure][key] for measure, key in _MEASURES]
    return [_short(value) for value in (*values, *row["mae_interval"]["mean"], row["mae_all"]["mean"])]


def predictions_csv(evaluation: Evaluation) -> str:
    """One row for every face that counts: its label, how it was found, and every route's raw angles and error bars.

    Parameters
    ----------
    evaluation : Evaluation
        What ``evaluate`` gave.

    Returns
    -------
    str
        CSV; degrees, and empty what a route did not answer. ``label_yaw``, ``label_pitch`` and ``label_roll`` are the
        label's, in its own head frame; ``ROUTE_yaw`` and so on a route's, in the head frame that the last column names;
        ``ROUTE_sigma_yaw`` and so on their standard deviations, of one eye's routes as that eye states them, before
        calibration; ``ROUTE_geodesic`` is the angle of the rotation between label and answer. ``detected`` is 1 or 0,
        ``detected_by`` the step of the search that found the face; both are empty where no landmarks were looked for.
    """
    answered, text = evaluation.answered, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    routes = list(answered.answers)
    angles, sigmas = ([f"{name}_{kind}{axis}" for name in routes for axis in AXES] for kind in ("", "sigma_"))
    named = ["name", *(f"label_{axis}" for axis in AXES), "detected_by", *angles, "person", "detected", *sigmas]
    writer.writerow([*named, *(f"{name}_geodesic" for name in routes), "frame"])
    columns = {name: _angles(evaluation, name) for name in routes}
    sigma = {name: given.sigma for name, given in answered.answers.items()}
    true, found, searched = answered.labels.columns(), answered.found, answered.searched
    for index, name in enumerate(answered.names):
        row = [name, *map(_short, true[index]), answered.found_by[index]]
        row += [_short(value) for route in routes for value in columns[route][index, :3]]
        row += [answered.people[index], str(int(found[index])) if searched[index] else ""]
        row += [_short(value) for route in routes for value in sigma[route][index]]
        row += [_short(columns[route][index, 3]) for route in routes]
        writer.writerow([*row, evaluation.report["frame"]])
    return text.getvalue()


def _angles(evaluation: Evaluation, route: str) -> Any:
    """Yaw, pitch, roll and geodesic error (n, 4) of one route, NaN where it has no answer."""
    given = evaluation.answered.answers[route]
    columns = np.full((len(given.rotation), 4), np.nan)
    known = is_known(given)
    columns[known, :3] = angles_from_rotation(given.rotation[known]).columns()
    columns[known, 3] = evaluation.errors[route].geodesic
    return columns


def _short(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""
