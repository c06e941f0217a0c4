"""The labelled-data half of ``NLML_HPE_Test``: a model on AFLW2000-3D, 300W-LP, BIWI or a rendered folder."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nlml_hpe.detection.detectors import MAX_FACES, detector_for, open_detector
from nlml_hpe.detection.landmarks import LandmarkDetector
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.labelled import alignment, detect_all, evaluate, predictions_csv, text_table
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.files.atomic import write_bytes, write_json
from nlml_hpe.files.folders import fresh_folder, require_replaceable
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.inference.engines import SHIPPED
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.view.plots import plot_error_cdf, plot_intervals

KIND = "evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What turns the stage from the rendered validation people to labelled photographs."""
    group = parser.add_argument_group("labelled photographs, in place of the configuration's rendered people")
    names = sorted({protocol.dataset for protocol in PROTOCOLS.values()})
    group.add_argument("--dataset", choices=names, help="how the folder is laid out")
    group.add_argument("--root", type=Path, help="folder of the data set as distributed")
    group.add_argument("--protocol", choices=sorted(PROTOCOLS), help="default: all angles within 99 degrees")
    group.add_argument("--model", type=Path, default=SHIPPED, help="model folder (default: the shipped checkpoint)")
    group.add_argument("--output", type=Path, default=Path("data/test"), help="folder for metrics.json, tables, plots")
    group.add_argument("--align-on", type=Path, help="another folder of this layout: its labels set the head frame")


def run(given: argparse.Namespace) -> bool:
    """Evaluate, where ``--dataset`` is given; returns whether it was."""
    if given.dataset is None:
        return False
    if given.root is None:
        raise ValueError("--dataset needs --root, the folder of the data set")
    if given.align_on is not None and given.align_on.resolve() == given.root.resolve():
        raise ValueError("--align-on names the evaluated set itself; a frame is estimated on another one")
    require_replaceable(given.output, KIND)
    data = read_dataset(given.dataset, given.root)
    print(data.summary())
    engine = TorchEngine(load_model(given.model))
    with open_detector(detector_for(engine.point_set), MAX_FACES, engine.min_confidence) as detector:
        if given.align_on is not None:
            engine = TorchEngine(replace(engine.model, frame=_frame(given.align_on, given.dataset, engine, detector)))
        detections = detect_all(data, detector)
    outcome = evaluate(engine, data, detections, given.protocol or given.dataset)
    with fresh_folder(given.output, KIND) as folder:
        write_json(folder / "metrics.json", outcome.report)
        write_bytes(folder / "predictions.csv", predictions_csv(data, detections, outcome).encode())
        write_bytes(folder / "table.txt", text_table(outcome.report).encode())
        rows = outcome.report["routes"]
        plot_intervals({name: row["per_interval"] for name, row in rows.items()}, folder / "mae_per_interval.png")
        plot_error_cdf(
            {name: found.angle.mean(axis=1) for name, found in outcome.errors.items()}, folder / "error_cdf.png"
        )
        asked = {name: str(getattr(given, name)) for name in ("dataset", "root", "protocol", "model", "align_on")}
        write_manifest(folder, KIND, asked, {})
    print(text_table(outcome.report), end="")
    return True


def _frame(root: Path, dataset: str, engine: TorchEngine, detector: LandmarkDetector) -> HeadFrame:
    """The head frame of another set's labels, estimated in the paper's range; printed to be written into a config."""
    data = read_dataset(dataset, root)
    turn = alignment(engine, data, detect_all(data, detector), f"{dataset}-nlml")
    frame = HeadFrame(f"aligned on {root.name}", float(turn.yaw), float(turn.pitch), float(turn.roll))
    angles = f"yaw: {frame.yaw:.3f}, pitch: {frame.pitch:.3f}, roll: {frame.roll:.3f}"
    print(f"frame: {{{angles}}}  # {data.name} labels in {root.name}")
    return frame
