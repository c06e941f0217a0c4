"""Errors on rendered validation people (``--config``) or on labelled photographs (``--dataset ... --root ...``)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from nlml_hpe.evaluation.command import add_arguments, run
from nlml_hpe.evaluation.labelled import ROUTES
from nlml_hpe.evaluation.rendered import evaluate_routes, predictions_csv, rendered_faces, summary_csv, table
from nlml_hpe.files.atomic import write_bytes, write_json
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import manifest_digest, require_equal, write_manifest
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.model.folder import load_model
from nlml_hpe.view.plots import plot_intervals
from stages.common import Aside, Plan, Stage, Workdir, stage_command
from stages.config import Config

KIND = "test"


def plan(config: Config) -> Plan:
    """What the evaluation depends on."""
    work = Workdir(config.workdir)
    inputs = {name: manifest_digest(work.root / name) for name in ("model", "landmarks_validation")}
    return Plan((work.test,), KIND, config.sections("test"), inputs)


def main(config: Config) -> Path:
    """Evaluate every route; returns the folder of table, JSON, CSV and plots."""
    work, made = Workdir(config.workdir), plan(config)
    tensor, engine = LandmarkTensor.open(work.landmarks_validation), TorchEngine(load_model(work.model))
    with fresh_folder(work.test, KIND) as folder:
        mend = "run Landmarks and the training stages with one config"
        require_equal("feature of model and tensor", engine.model.manifold.feature, tensor.feature, mend)
        routes = {name: partial(engine.own_angles, method=name) for name in ROUTES}
        report = {}
        for kind, faces in rendered_faces(tensor).items():
            report[kind], estimates = evaluate_routes(faces, routes, config.test.interval_deg)
            write_bytes(folder / f"predictions_{kind}.csv", predictions_csv(faces, estimates).encode())
            intervals = {name: row["per_interval"] for name, row in report[kind]["routes"].items()}
            plot_intervals(intervals, folder / f"mae_per_interval_{kind}.png")
        write_json(folder / "metrics.json", report)
        write_bytes(folder / "metrics.csv", summary_csv(report).encode())
        write_bytes(folder / "table.txt", table(report).encode())
        write_manifest(folder, KIND, made.settings, made.inputs)
    return work.test


STAGE = Stage("NLML_HPE_Test", plan, main)


def show(folder: Path) -> None:
    """Print the table, also where it was up to date."""
    print((folder / "table.txt").read_text(), end="")


if __name__ == "__main__":
    sys.exit(stage_command(STAGE, __doc__ or "", done=show, aside=Aside(add_arguments, run)))
