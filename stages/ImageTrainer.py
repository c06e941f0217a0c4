"""Labelled crops to an image network: ``python stages/ImageTrainer.py --config configs/image_ict.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np
from safetensors.torch import save

from nlml_hpe.config import LabelledDataConfig
from nlml_hpe.evaluation.datasets import Dataset, DatasetError, Sample, chosen_by_list, read_dataset
from nlml_hpe.files.atomic import write_bytes, write_json
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import digest_of_file, digest_of_names_and_sizes, write_manifest
from nlml_hpe.image_networks.crop import SHARE
from nlml_hpe.image_networks.network import size_of
from nlml_hpe.image_networks.network_training import Weighted, network_of, train_image_network
from nlml_hpe.image_networks.training_data import Photographs, RenderedCrops
from nlml_hpe.rotation import angles_from_rotation
from nlml_hpe.view.plots import plot_measures
from renderer.crops import KIND as CROPS
from stages.common import Plan, Stage, Workdir, stage_command, training_run
from stages.config import Config

KIND = "image_network"
WEIGHTS = "image_network.safetensors"


def plan(config: Config) -> Plan:
    """What the network depends on."""
    work = Workdir(config.workdir)
    reads: dict[Path, str] = {}
    others: dict[str, str] = {}
    for split, part, own in _parts(config):
        folder = part.root or own
        if part.kind == "crops":
            reads[folder] = CROPS
        else:
            others[f"{split} {folder}"] = digest_of_names_and_sizes(folder)
        if part.list is not None:
            others[f"{split} {part.list}"] = digest_of_file(part.list)
    if len({folder.name for folder in reads}) < len(reads):
        raise ValueError(f"folders of crops must have names of their own; received {', '.join(map(str, reads))}")
    return Plan((work.image_network,), KIND, config.sections("seed", "image_network", "image_trainer"), reads, others)


def main(config: Config) -> Path:
    """Train the network; returns the folder of weights, curves and history."""
    work, made = Workdir(config.workdir), plan(config)
    network = network_of(config.image_network, config.seed)
    size = size_of(network)
    print(f"{config.image_network.name} at {config.image_network.size} px: {size}", flush=True)
    run = training_run(config, work.image_network, made)
    training, validation = (_sources(config, split) for split in ("training", "validation"))
    with fresh_folder(work.image_network, KIND) as folder:
        history, counts = train_image_network(network, training, validation, config.image_trainer, config.seed, run)
        write_bytes(folder / WEIGHTS, save(network.state_dict()))
        write_json(folder / "history.json", asdict(history))
        plot_measures(history, folder / "curves.png")
        facts = {**history.epochs, "crops": counts, "parameters": size.parameters, "macs": size.macs}
        facts["range"] = _range(training)
        facts["validation"] = {name: values[history.best_epoch] for name, values in history.metrics.items()}
        write_manifest(folder, KIND, made.settings, made.inputs, facts)
        run.clear()
    return work.image_network


def _parts(config: Config) -> Iterable[tuple[str, LabelledDataConfig, Path]]:
    """Split, data and the workdir's own crops for it."""
    work, trainer = Workdir(config.workdir), config.image_trainer
    yield from (("training", part, work.crops_train) for part in trainer.data)
    yield from (("validation", part, work.crops_validation) for part in trainer.validation)


def _sources(config: Config, split: str) -> list[Weighted]:
    found = []
    for name, part, own in _parts(config):
        if name != split:
            continue
        if part.kind == "crops":
            source: RenderedCrops | Photographs = RenderedCrops(part.root or own)
        else:
            source = _photographs(part, config.image_trainer.stored_px)
        found.append(Weighted(source, part.weight))
    return found


def _range(parts: list[Weighted]) -> list[list[float]]:
    """Lowest and highest yaw, pitch and roll of all labels, in degrees."""
    angles = np.concatenate([angles_from_rotation(part.source.rotations()).columns() for part in parts])
    return [[float(low), float(high)] for low, high in zip(angles.min(axis=0), angles.max(axis=0), strict=True)]


def _photographs(part: LabelledDataConfig, size: int) -> Photographs:
    """The faces of a labelled data set whose label has a box; others are left out and counted."""
    assert part.root is not None  # the configuration has seen to it
    data = read_dataset(part.kind, part.root)
    if part.list is not None:
        data = chosen_by_list(data, part.list)
    boxed: list[Sample] = [sample for sample in data.samples if sample.box is not None]
    for sample in data.samples:
        if sample.box is None:
            data.leave_out("label without a box", sample.name)
    print(data.summary(), flush=True)
    if not boxed:
        raise DatasetError(f"{part.root}: no label has the box of the 68 points, by which crops are cut")
    boxes = np.array([sample.box for sample in boxed], dtype=np.float64)
    if part.kind == "fsanet":
        boxes = _inner(boxes)
    labels = Dataset(data.name, data.root, boxed).rotations
    return Photographs([sample.load for sample in boxed], boxes, labels, size)


def _inner(boxes: np.ndarray) -> np.ndarray:
    """FSA-Net's images are loose crops themselves: what a crop of ours shows is all of them."""
    middle, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.concatenate([middle - half / SHARE, middle + half / SHARE], axis=1)


STAGE = Stage("ImageTrainer", plan, main)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train an image network on labelled crops."))
