"""Errors on rendered validation people (``--config``) or on labelled photographs (``--dataset ... --root ...``)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import stages.guard  # noqa: F401

from nlml_hpe.device import resolve_device
from nlml_hpe.evaluation.command import run
from nlml_hpe.evaluation.datasets import chosen_by_list, read_dataset
from nlml_hpe.evaluation.evaluate import IMAGE_ROUTE, ROUTES, Evaluation, evaluate
from nlml_hpe.evaluation.faces import Answerer, ask, landmark_route, photographs, rendered_faces
from nlml_hpe.evaluation.options import add_arguments
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.evaluation.report import write_report
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import require_equal, write_manifest
from nlml_hpe.image_networks.config import LabelledDataConfig
from nlml_hpe.inference.engines import Estimates
from nlml_hpe.inference.image_engine import ImageEngine, open_image_engine
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.tensor import KIND as LANDMARKS
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.rotation import OWN_FRAME
from renderer.crops import KIND as CROPS
from stages import ModelBuilder
from stages.common import Plan, Stage, Workdir, config_of, guarded, run_stage, stage_parser
from stages.config import Config

KIND = "test"
_BOXED = ("crops", "aflw2000", "300w_lp", "fsanet")
"""Data whose labels have the box of the 68 points, so that no detector is needed to cut crops."""
_OF_THE_CONFIG: tuple[str, ...] = ("config", "force", "verify", "cluster", "eye")
_OF_PHOTOGRAPHS: tuple[str, ...] = ("model", "output")
"""Options with a default that say something of the configuration's model, and of labelled photographs, alone."""
_NOTHING = "no face of image_trainer.validation is labelled with a pose in range and a box; evaluate with --dataset"


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
        frame, width = engine.model.frame.name, config.test.interval_deg
        evaluations = {
            kind: evaluate(ask(faces, routes), protocol=kind, frame=frame, interval=width)
            for kind, faces in rendered_faces(tensor, engine.point_set).items()
        }
        write_report(folder, evaluations)
        write_manifest(folder, KIND, made.settings, made.inputs)
    return work.test


def image_plan(config: Config) -> Plan:
    """What the evaluation of the image eye depends on."""
    # Not above: the landmark eye's evaluation need not wait for what the training of image networks loads.
    from stages.ImageTrainer import data_digests

    work = Workdir(config.workdir)
    reads = {work.image_model: ModelBuilder.KIND}
    others: dict[str, str] = {}
    for part, folder in _held_out(config):
        if part.kind == "crops" and part.root is None:
            reads[folder] = CROPS
        others |= data_digests(part)
    return Plan((work.image_test,), KIND, config.sections("test", "image_trainer"), reads, others)


def image_main(config: Config) -> Path:
    """Evaluate the image eye on what its training was validated on; returns the folder of table, JSON, CSV and plots.

    Answers are compared in the head frame of the training data's labels, whatever frame the model names. Validation
    data without boxes is named and left out; where nothing else is there, the table says so.
    """
    work, made = Workdir(config.workdir), image_plan(config)
    engine = open_image_engine(work.image_model)
    for part in config.image_trainer.validation:
        if part.kind not in _BOXED:
            print(f"left out, labels without a box: {part.kind} in {part.root}", flush=True)
    evaluations: dict[str, Evaluation] = {}
    for number, (part, folder) in enumerate(_held_out(config)):
        data = chosen_by_list(read_dataset(part.kind, folder), part.list)
        answered = ask(photographs(data, None), {IMAGE_ROUTE: lambda faces: _own(engine, faces)})
        for protocol in (part.kind, f"{part.kind}-nlml"):
            inside = answered.chosen(PROTOCOLS[protocol].includes(answered.labels))
            if not inside.names:
                continue
            name = protocol if number == 0 else f"{protocol}_{number}"
            evaluations[name] = evaluate(
                inside,
                protocol=protocol,
                frame=OWN_FRAME,
                default_route=IMAGE_ROUTE,
                n_total=len(answered.names),
                left_out=data.left_out,
                interval=config.test.interval_deg,
            )
    with fresh_folder(work.image_test, KIND) as folder:
        if evaluations:
            write_report(folder, evaluations)
        else:
            write_bytes(folder / "table.txt", f"{_NOTHING}\n".encode())
        write_manifest(folder, KIND, made.settings, made.inputs)
    return work.image_test


def _held_out(config: Config) -> Iterator[tuple[LabelledDataConfig, Path]]:
    """The labelled sets that the image eye's training was validated on, with their folders."""
    for part in config.image_trainer.validation:
        if part.kind in _BOXED:
            yield part, part.root or Workdir(config.workdir).crops_validation


def _own(engine: ImageEngine, faces: Sequence[Face]) -> Estimates:
    return engine.estimate(faces).in_own_frame(engine.named_from_own)


STAGE = Stage("NLML_HPE_Test", plan, main)
IMAGE_STAGE = Stage("NLML_HPE_Test", image_plan, image_main)
STAGES = {"landmarks": STAGE, "image": IMAGE_STAGE}
"""By the eye that is evaluated."""


def work(given: argparse.Namespace) -> None:
    """Evaluate photographs where ``--dataset`` is given; otherwise run the stage and print its table."""
    if not run(given):
        folder = run_stage(STAGES[given.eye], config_of(given), given.force, given.verify)
        print((folder / "table.txt").read_text(encoding="utf-8"), end="")


def command() -> int:
    """The command line: the shared arguments, and those of labelled photographs."""
    parser = stage_parser(__doc__)
    text = "whose stage: the landmark eye's or the image eye's (default: %(default)s)"
    parser.add_argument("--eye", choices=tuple(STAGES), default="landmarks", help=text)
    add_arguments(parser, device=False)
    said = (*_OF_THE_CONFIG, *_OF_PHOTOGRAPHS)
    # Without defaults, by which an option that is given as it is by default would look as if it were not.
    given = parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(said)))
    idle, why = _OF_THE_CONFIG, "does not go with --dataset, which evaluates the folder of --model"
    if given.dataset is None:
        idle, why = _OF_PHOTOGRAPHS, "needs --dataset; without it the model of --config is evaluated, in its workdir"
    for name in idle:
        if getattr(given, name) is not None:
            parser.error(f"--{name} {why}")
    for name in said:
        if getattr(given, name) is None:
            setattr(given, name, parser.get_default(name))
    return guarded(work, given)


if __name__ == "__main__":
    sys.exit(command())
