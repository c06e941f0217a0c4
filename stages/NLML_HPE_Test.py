"""Errors on rendered validation people (``--config``) or on labelled photographs (``--dataset ... --root ...``)."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import stages.guard  # noqa: F401

from nlml_hpe.device import resolve_device
from nlml_hpe.evaluation.command import add_arguments, run
from nlml_hpe.evaluation.evaluate import ROUTES, evaluate
from nlml_hpe.evaluation.faces import Answerer, ask, landmark_route, rendered_faces
from nlml_hpe.evaluation.report import write_faces, write_tables
from nlml_hpe.files.atomic import write_json
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import require_equal, write_manifest
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.tensor import KIND as LANDMARKS
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.model.folder import HeadFrame, load_model
from stages import ModelBuilder
from stages.common import Plan, Stage, Workdir, config_of, guarded, run_stage, stage_parser
from stages.config import Config

KIND = "test"


def plan(config: Config) -> Plan:
    """What the evaluation depends on."""
    work = Workdir(config.workdir)
    reads = {work.model: ModelBuilder.KIND, work.landmarks_validation: LANDMARKS}
    return Plan((work.test,), KIND, config.sections("test"), reads)


def main(config: Config) -> Path:
    """Evaluate every route; returns the folder of table, JSON, CSV and plots.

    Rendered people are labelled in the heads' own frame, whatever frame the model names.
    """
    work, made = Workdir(config.workdir), plan(config)
    tensor = LandmarkTensor.open(work.landmarks_validation)
    model = replace(load_model(work.model), frame=HeadFrame())
    engine = TorchEngine(model, resolve_device(config.device))
    with fresh_folder(work.test, KIND) as folder:
        mend = "run Landmarks and the training stages with one config"
        require_equal("feature of model and tensor", engine.model.manifold.feature, tensor.feature, mend)
        routes: dict[str, Answerer] = {name: landmark_route(engine, name) for name in ROUTES}
        reports = {}
        for kind, faces in rendered_faces(tensor, engine.point_set).items():
            width = config.test.interval_deg
            evaluation = evaluate(ask(faces, routes), protocol=kind, frame=engine.model.frame.name, interval=width)
            reports[kind] = evaluation.report
            write_faces(folder, evaluation, suffix=f"_{kind}")
        write_json(folder / "metrics.json", reports)
        write_tables(folder, reports)
        write_manifest(folder, KIND, made.settings, made.inputs)
    return work.test


STAGE = Stage("NLML_HPE_Test", plan, main)


def work(given: argparse.Namespace) -> None:
    """Evaluate photographs where ``--dataset`` is given; otherwise run the stage and print its table."""
    if not run(given):
        folder = run_stage(STAGE, config_of(given), given.force, given.verify)
        print((folder / "table.txt").read_text(), end="")


def command() -> int:
    """The command line: the shared arguments, and those of labelled photographs."""
    parser = stage_parser(__doc__)
    add_arguments(parser)
    return guarded(work, parser.parse_args())


if __name__ == "__main__":
    sys.exit(command())
