"""What each lever of the image eye gives: ``python benchmarks/image_ablations.py --crops C --validation V``.

Five minutes a lever. C and V are finished folders of the stage Crops (``configs/image_ict.yaml``). Every row is a
network trained from the same random weights on the same number of crops, one thing being otherwise, and measured on the
faces of ``--root`` (the development split of AFLW2000-3D by default) and on V's unseen people, in the frame of the
renders. Rows that the results hold already are not trained again; ``--levers`` names some, ``--new NAME`` measures the
base on other crops, ``--seed`` draws weights and batches otherwise, and ``--results NAME`` is a table of its own, as
for a base of other crops or of another ``--width``. Results of other faces, of other unseen people, of another width,
or of another number of crops are refused, and so is a row that was learned from other crops than those of ``--crops``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import RESULTS, development_data, report
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.metrics import errors, mae_interval, summary
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.face import Box, Face, box_of
from nlml_hpe.files.images import RgbImage
from nlml_hpe.files.manifests import digest_of_names_and_sizes, manifest_digest
from nlml_hpe.image_networks.config import AugmentationConfig, ImageNetworkConfig, ImageTrainerConfig
from nlml_hpe.image_networks.network import ImageNetwork, size_of
from nlml_hpe.image_networks.network_training import Weighted, network_of, train_image_network
from nlml_hpe.image_networks.shards import read_shards
from nlml_hpe.image_networks.training_data import Chosen, RenderedCrops
from nlml_hpe.inference.image_engine import ImageEngine
from nlml_hpe.model.folder import HeadFrame
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
from nlml_hpe.training_run import Run
from renderer.crops import KIND as CROPS
from stages.common import guarded
from stages.config import load_config

NAME, SEED, WIDTH = "image_ablations", 1, 32
_RANGE, _WIDE = "aflw2000-nlml", "aflw2000"
_EPOCHS, _BATCH = 7, 64
_DIGITS = 12
"""Of a digest, in the results."""
_EVERY = 5
"""One in so many of the unseen crops is answered."""
_CONFIG = Path(__file__).parent.parent / "configs" / "image_ict.yaml"
"""Whose augmentation the base has."""
_ALL = tuple(name for name in AugmentationConfig.model_fields if name != "mirror")


@dataclass(frozen=True)
class Lever:
    """One thing that is otherwise: settings of the network, of the augmentation, or which crops are learned from."""

    network: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, float] = field(default_factory=dict)
    chosen: Callable[[NDArray[np.int32], NDArray[np.float64]], NDArray[np.bool_]] | None = None
    """Of people (n,) and angles (n, 3) in degrees."""


def _people(count: int) -> Lever:
    return Lever(chosen=lambda people, _: people <= count)


LEVERS: dict[str, Lever] = {
    "base: six_d, 64 px": Lever(),
    "loss: the angle itself": Lever(network={"loss": "geodesic"}),
    "loss: one minus the angle's cosine": Lever(network={"loss": "chordal"}),
    "24 people": _people(24),
    "240 people": _people(240),
    "poses of the paper's range alone": Lever(chosen=lambda _, angles: (np.abs(angles) <= [50, 40, 30]).all(axis=1)),
    "no turns": Lever(augmentation={"turn_deg": 0}),
    "no shift, no scale": Lever(augmentation={"shift": 0, "scale": 0}),
    "no mirror images": Lever(augmentation={"mirror": 0}),
    "no colour, contrast, gamma, grey": Lever(augmentation=dict.fromkeys(("color", "contrast", "gamma", "grey"), 0)),
    "no softness, filters, blocks, noise": Lever(augmentation=dict.fromkeys(("soft", "filter", "blocks", "noise"), 0)),
    "nothing erased, no frame": Lever(augmentation={"erase": 0, "frame": 0}),
    "no change at all but the mirror image": Lever(augmentation=dict.fromkeys(_ALL, 0)),
    "other surroundings for 70%": Lever(augmentation={"surround": 0.7}),
    "borders covered": Lever(network={"covered": (0.125, 0, 0.125, 0.125)}),
    "width 16": Lever(network={"width": 16}),
    "width 48": Lever(network={"width": 48}),
    "48 px": Lever(network={"size": 48}),
    "96 px": Lever(network={"size": 96}),
    "no dropout": Lever(network={"dropout": 0.0}),
    "MobileNetV2 of width 16, 6D": Lever(network={"name": "mobilenetv2", "width": 16, "answer": "six_d"}),
    "the plain CNN, 66 bins an angle": Lever(network={"name": "custom_cnn", "width": None}),
    "MobileNetV2 of width 16, three angles": Lever(network={"name": "mobilenetv2", "width": 16, "answer": "angles"}),
}


@dataclass(frozen=True)
class Faces:
    """Images and boxes to cut crops from, and their rotations (n, 3, 3)."""

    images: Sequence[RgbImage]
    boxes: Sequence[Box]
    true: NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """What all networks of a table have in common, but for the seed, and which crops they learn from."""

    crops: Path
    validation: Path
    seen: int = 98_000
    width: int = WIDTH
    seed: int = SEED


def main(common: Training, root: Path, levers: Sequence[str], results: str = NAME) -> None:
    """Train and measure the levers that no results hold yet; print and save the table of this name.

    A name that is no lever's is that of the base on these crops. Raises ``ValueError`` where the results are of other
    data, and for a lever that leaves no crop.
    """
    learned = _digest(common.crops)
    notes = _notes(common, root)
    file = RESULTS / f"{results}.json"
    rows = _kept(file, notes)
    names = {(lever if common.seed == SEED else f"{lever}, seed {common.seed}"): lever for lever in levers}
    for name in (name for name in names if name in rows):
        _require_same_crops(file, rows[name], learned, common.crops)
        print(f"{name}: measured before, kept", flush=True)
    missing = [name for name in names if name not in rows]
    if not missing:
        return
    photographs, unseen = _photographs(root), _unseen(common.validation)
    for name in missing:
        lever = LEVERS.get(names[name], Lever())
        start = time.process_time()
        network = _trained(lever, common)
        minutes = (time.process_time() - start) / 60
        figures = _row(network, photographs, unseen)
        rows[name] = {"lever": name, **figures, "minutes of processor time": minutes, "crops": learned}
        report(results, f"One lever at a time: {common.seen:,} crops, {root.name}", list(rows.values()), notes)


def _kept(file: Path, notes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows that were measured before, by name. Raises ``ValueError`` where they are of other data."""
    if not file.is_file():
        return {}
    before = json.loads(file.read_text(encoding="utf-8"))
    if before["notes"] != list(notes):
        raise ValueError(
            f"{file} holds results of other data, of another number of crops, or of another width; move it away to "
            "measure these\n"
            f"there: {' '.join(before['notes'])}\nhere: {' '.join(notes)}"
        )
    return {row["lever"]: row for row in before["rows"]}


def _require_same_crops(file: Path, row: Mapping[str, Any], learned: str, crops: Path) -> None:
    if row.get("crops") != learned:
        raise ValueError(
            f"{file}: the row {row['lever']!r} was learned from the crops {row.get('crops')}; {crops} "
            f"holds {learned}: name those crops, move the file away, or measure the base on these under a name (--new)"
        )


def _notes(common: Training, root: Path) -> list[str]:
    width = "" if common.width == WIDTH else f"Networks of width {common.width}. "
    return [
        f"{width}{common.seen:,} crops seen, {_EPOCHS} epochs, batches of {_BATCH}, one seed; label's box; raw in the "
        "frame of the renders; 95% intervals over faces. Networks this young are far from done.",
        f"Faces of {root.name} ({digest_of_names_and_sizes(root)[:_DIGITS]}), unseen people of "
        f"{_digest(common.validation)}; "
        "digests are of names and sizes of files, and of the manifest of crops.",
    ]


def _digest(crops: Path) -> str:
    """By which the results name a folder of crops. Raises ``ArtifactError`` where it is not finished or damaged."""
    return manifest_digest(crops, CROPS)[:_DIGITS]


def _trained(lever: Lever, common: Training) -> ImageNetwork:
    """The network of this lever. Raises ``ValueError`` where it leaves fewer crops than a batch."""
    source = RenderedCrops(common.crops)
    people = np.concatenate([shard.people for shard in read_shards(common.crops)])
    angles = angles_from_rotation(source.rotations().astype(np.float64)).columns()
    taken = np.ones(len(people), dtype=bool) if lever.chosen is None else lever.chosen(people, angles)
    numbers = np.flatnonzero(taken)
    if len(numbers) < _BATCH:
        raise ValueError(
            f"of {len(taken)} crops of {common.crops} this lever leaves {len(numbers)}; expected {_BATCH} or more"
        )
    # A training shows each crop once an epoch at most; of few crops more epochs are made.
    epoch = min(common.seen // _EPOCHS, len(numbers))
    epochs = round(common.seen / epoch)
    augmentation = load_config(_CONFIG).image_trainer.augmentation.model_copy(update=lever.augmentation)
    settings = ImageTrainerConfig(
        epochs=epochs,
        crops_per_epoch=epoch,
        batch_size=_BATCH,
        learning_rate=0.003,
        weight_decay=0.02,
        gradient_clip=1.0,
        precision="auto",
        patience=epochs,
        augmentation=augmentation,
    )
    settings_of_network = {"name": "six_d", "size": 64, "width": common.width} | lever.network
    network = network_of(ImageNetworkConfig.model_validate(settings_of_network), common.seed)
    unseen = RenderedCrops(common.validation)
    training = Weighted(Chosen(source, numbers))
    held_out = Weighted(Chosen(unseen, np.arange(0, len(unseen.rotations()), _EVERY)))
    train_image_network(network, [training], [held_out], settings, common.seed, Run())
    return network.eval()


def _photographs(root: Path) -> Faces:
    samples = [sample for sample in read_dataset("aflw2000", root).samples if sample.box is not None]
    angles = np.array([sample.angles for sample in samples], dtype=np.float64)
    boxes = [sample.box for sample in samples if sample.box is not None]
    return Faces([sample.load() for sample in samples], boxes, rotation_from_angles(Angles.from_columns(angles)))


def _unseen(folder: Path) -> Faces:
    shards = read_shards(folder)
    images = [image for shard in shards for image in shard.images[::_EVERY]]
    boxes = [box_of(box.reshape(2, 2)) for shard in shards for box in shard.boxes[::_EVERY]]
    return Faces(images, boxes, np.concatenate([shard.rotations[::_EVERY] for shard in shards]).astype(np.float64))


def _row(network: ImageNetwork, photographs: Faces, unseen: Faces) -> dict[str, Any]:
    """MAE on photographs in the range and within 99 degrees, with intervals, and on renders in the range."""
    size = size_of(network)
    row: dict[str, Any] = {"parameters": size.parameters, "million MACs": size.macs / 1e6}
    for name, faces, protocol in (
        ("range", photographs, _RANGE),
        ("within 99", photographs, _WIDE),
        ("renders in the range", unseen, _RANGE),
    ):
        chosen = PROTOCOLS[protocol].includes(angles_from_rotation(faces.true))
        found = errors(_answers(network, faces)[chosen], faces.true[chosen])
        low, high = mae_interval(found)["mean"]
        row[name], row[f"{name}, 95%"] = summary(found)["mae"]["mean"], f"{low:.2f}..{high:.2f}"
    return row


def _answers(network: ImageNetwork, faces: Faces) -> NDArray[np.float64]:
    """Rotations (n, 3, 3), as inference answers: by the exported network, of its crops of each face."""
    all_round = (-180.0, 180.0)
    eye = ImageEye(network, "ablation", HeadFrame(), (all_round, all_round, all_round))
    with tempfile.TemporaryDirectory() as scratch:
        engine = ImageEngine(export_image_eye(eye, Path(scratch) / "eye.onnx"))
        parts = [Face(image, box) for image, box in zip(faces.images, faces.boxes, strict=True)]
        return engine.estimate(parts).rotation


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says, by default this process's own; ends the process where that cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--seen", type=int, default=Training.seen, help="crops that each network is shown")
    parser.add_argument("--width", type=int, default=WIDTH, help="channels that the networks begin with")
    parser.add_argument(
        "--seed", type=int, default=SEED, help="of weights and batches; another one makes rows of its own"
    )
    parser.add_argument("--levers", nargs="*", choices=list(LEVERS), default=list(LEVERS), metavar="NAME")
    parser.add_argument("--new", metavar="NAME", help="the base on these crops, as a row of this name")
    parser.add_argument("--results", default=NAME, metavar="NAME", help="the table's name, for a base of its own")
    found = parser.parse_args(given)
    if found.seen < _EPOCHS * _BATCH:
        parser.error(f"--seen: expected {_EPOCHS * _BATCH} or more, a batch in each of {_EPOCHS} epochs")
    if found.new in LEVERS:
        parser.error(f"--new: {found.new!r} is a lever; expected a name of your own")
    return found


def _work(given: argparse.Namespace) -> None:
    common = Training(given.crops, given.validation, given.seen, given.width, given.seed)
    main(common, given.root, [given.new] if given.new else given.levers, given.results)


if __name__ == "__main__":
    sys.exit(guarded(_work, arguments()))
