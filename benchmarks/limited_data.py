"""How few people are enough? ``python benchmarks/limited_data.py --config C``: error against number of people.

Needs a finished Landmarks stage of that configuration (``configs/ict_facekit.yaml``). Manifold, encoder and heads
are learned anew from the first so many training people; each network sees about as many faces, so epochs grow as
people shrink, up to a limit. Measured on the faces of ``--root`` (by default the development split of AFLW2000-3D)
in the paper's range, in the model's own head frame and after the one constant rotation that suits it best there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import torch
from matplotlib import pyplot as plt

from benchmarks.common import RESULTS, development_data, report
from nlml_hpe.detection.detectors import MAX_FACES, FaceMeshOnnx
from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.faces import Answerer, LabelledFace, ask, landmark_route, photographs
from nlml_hpe.evaluation.metrics import constant_rotation, errors, summary
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.inference.engines import Route
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.encoder_training import train_encoder
from nlml_hpe.manifold.fit import fit_manifold
from nlml_hpe.manifold.head_training import train_heads
from nlml_hpe.manifold.networks import HeadPoseNetwork, network_shape
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.model.folder import HeadPoseModel
from stages.common import Workdir
from stages.config import Config, load_config

PROTOCOL = "aflw2000-nlml"
PEOPLE = (5, 10, 20, 40, 80, 160, 320)
MOST_EPOCHS = 100
ROUTES: tuple[Route, ...] = ("network", "exact")


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


def measured(people: int, model: HeadPoseModel, faces: Sequence[LabelledFace]) -> dict[str, Any]:
    """One row: both routes raw and after one rotation."""
    engine = TorchEngine(model)
    routes: dict[str, Answerer] = {name: landmark_route(engine, name) for name in ROUTES}
    answered = ask(faces, routes)
    answered = answered.chosen(answered.found & PROTOCOLS[PROTOCOL].includes(answered.labels))
    row: dict[str, Any] = {"people": people, "images": people * model.manifold.grid.size}
    for name, given in answered.answers.items():
        turn = constant_rotation(given.rotation, answered.true)
        for kind, rotation in (("own frame", given.rotation), ("after one rotation", given.rotation @ turn)):
            row[f"{name}, {kind}"] = summary(errors(rotation, answered.true))["mae"]["mean"]
    return row


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Error over people, both routes."""
    figure, panel = plt.subplots(figsize=(6, 3.8))
    people = [row["people"] for row in rows]
    for color, route in zip(("C0", "C1"), ROUTES, strict=True):
        for style, kind in (("o--", "own frame"), ("o-", "after one rotation")):
            name = f"{route}, {kind}"
            panel.plot(people, [row[name] for row in rows], style, color=color, ms=4, label=name)
    panel.set(xscale="log", xlabel="rendered people", ylabel="MAE on aflw2000_dev (degrees)")
    panel.set_xticks(people, [str(n) for n in people], minor=False)
    panel.minorticks_off()
    panel.legend(fontsize=7)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main(config: Config, root: Path, counts: tuple[int, ...]) -> None:
    """Learn, measure and show every number of people."""
    folder = Workdir(config.workdir).landmarks_train
    whole = LandmarkTensor.open(folder)
    known = len(whole.people)
    if known < min(counts):
        raise SystemExit(f"{folder} has {known} people, fewer than {min(counts)}; name fewer by --people")
    counts = tuple(n for n in counts if n <= known)
    data = read_dataset("aflw2000", root)
    with FaceMeshOnnx(MAX_FACES, config.landmarks.min_confidence) as detector:
        # Landmarks stay in memory, images do not.
        faces = [replace(seen, face=replace(seen.face, image=None)) for seen in photographs(data, detector, looks=1)]
    rows = []
    for people in counts:
        epochs = min(config.encoder.epochs * counts[-1] // people, MOST_EPOCHS)
        model = learned(whole.first(people), config, epochs)
        rows.append({**measured(people, model, faces), "epochs": epochs})
        print(rows[-1], flush=True)
    plot(rows, RESULTS / "limited_data.png")
    which = "its faces in the paper's range that are found"
    report("limited_data", f"Error against number of rendered people, {data.root.name}: {which}", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/ict_facekit.yaml"))
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE)
    parser.add_argument("--redraw", action="store_true", help="only draw the picture again, of the results on disk")
    given = parser.parse_args()
    if given.redraw:
        drawn = json.loads((RESULTS / "limited_data.json").read_text(encoding="utf-8"))
        plot(drawn["rows"], RESULTS / "limited_data.png")
    else:
        main(load_config(given.config), given.root, tuple(sorted(given.people)))
