"""How few people are enough? ``python benchmarks/limited_data.py --config C``: error against number of people.

Needs a finished Landmarks stage of that configuration (``configs/ict_facekit.yaml``). Manifold, encoder and heads
are learned anew from the first so many training people; each network sees about as many faces, so epochs grow as
people shrink, up to a limit. Measured on the faces of ``--root`` (by default the development split of AFLW2000-3D)
in the paper's range, in the model's own head frame and after the one constant rotation that suits it best there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt

from benchmarks.common import RESULTS, development_data, report
from nlml_hpe.detection.detectors import MAX_FACES, MediaPipeFaceMesh
from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.evaluation.datasets import Dataset, read_dataset
from nlml_hpe.evaluation.labelled import Detections, detect_all, evaluate
from nlml_hpe.evaluation.metrics import constant_rotation, errors, summary, turned
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.fit import fit_manifold
from nlml_hpe.manifold.network_training import network_shape, train_encoder, train_heads
from nlml_hpe.manifold.networks import HeadPoseNetwork
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.model.folder import HeadPoseModel
from stages.common import Workdir
from stages.config import Config, load_config

PROTOCOL = "aflw2000-nlml"
PEOPLE = (5, 10, 20, 40, 80, 160, 320)
MOST_EPOCHS = 100
LABELLED = 2.61
"""6DRepNet's published MAE in this range (Ghafourian et al. 2025, table of AFLW2000), on labelled photographs."""


def learned(tensor: LandmarkTensor, config: Config, epochs: int) -> HeadPoseModel:
    """A whole model of this tensor, as the stages make it."""
    manifold = fit_manifold(tensor, config.tucker, config.seed).manifold
    settings = config.encoder.model_copy(update={"epochs": epochs, "patience": epochs})
    encoder, _ = train_encoder(tensor, manifold, settings, config.seed)
    heads, _ = train_heads(manifold, config.angle_heads, config.seed)
    network = HeadPoseNetwork(network_shape(manifold, settings, config.angle_heads))
    network.encoder, network.heads = encoder, torch.nn.ModuleList(heads)
    marks = config.landmarks
    return HeadPoseModel(network.eval(), manifold, FACEMESH, marks.normalization, marks.min_confidence)


def measured(people: int, model: HeadPoseModel, data: Dataset, found: Detections) -> dict[str, Any]:
    """One row: both routes raw and after one rotation."""
    outcome = evaluate(TorchEngine(model), data, found, PROTOCOL)
    row: dict[str, Any] = {"people": people, "images": people * (model.manifold.grid.size)}
    for route in ("network", "exact"):
        estimated = outcome.estimates[route]
        fitted = turned(estimated, constant_rotation(estimated, outcome.true))
        row[f"{route}, own frame"] = outcome.report["routes"][route]["mae"]["mean"]
        row[f"{route}, after one rotation"] = summary(errors(fitted, outcome.true))["mae"]["mean"]
    return row


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Error over people, both routes, with the published figure of a model trained on labelled photographs."""
    figure, panel = plt.subplots(figsize=(6, 3.8))
    people = [row["people"] for row in rows]
    for color, route in (("C0", "network"), ("C1", "exact")):
        for style, kind in (("o--", "own frame"), ("o-", "after one rotation")):
            name = f"{route}, {kind}"
            panel.plot(people, [row[name] for row in rows], style, color=color, ms=4, label=name)
    panel.axhline(LABELLED, color="grey", ls=":", label="6DRepNet, 122,450 labelled photographs (published)")
    panel.set(xscale="log", xlabel="rendered people", ylabel="MAE (degrees)")
    panel.set_xticks(people, [str(n) for n in people], minor=False)
    panel.minorticks_off()
    panel.legend(fontsize=7)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main(config: Config, root: Path, counts: tuple[int, ...]) -> None:
    """Learn, measure and show every number of people."""
    whole = LandmarkTensor.open(Workdir(config.workdir).landmarks_train)
    counts = tuple(n for n in counts if n <= len(whole.people))
    data = read_dataset("aflw2000", root)
    with MediaPipeFaceMesh(MAX_FACES, config.landmarks.min_confidence) as detector:
        found = detect_all(data, detector)
    rows = []
    for people in counts:
        epochs = min(config.encoder.epochs * counts[-1] // people, MOST_EPOCHS)
        model = learned(whole.first(people), config, epochs)
        rows.append({**measured(people, model, data, found), "epochs": epochs})
        print(rows[-1], flush=True)
    plot(rows, RESULTS / "limited_data.png")
    faces = "its faces in the paper's range that are found"
    report("limited_data", f"Error against number of rendered people, {data.root.name}: {faces}", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/ict_facekit.yaml"))
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE)
    given = parser.parse_args()
    main(load_config(given.config), given.root, tuple(sorted(given.people)))
