"""Labelled crops to an image network: ``python stages/ImageTrainer.py --config configs/image_ict.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np

from nlml_hpe.files.manifests import manifest_digest, write_manifest
from nlml_hpe.image_networks.config import LabelledDataConfig
from nlml_hpe.image_networks.network import ImageNetwork, size_of
from nlml_hpe.image_networks.network_training import KIND, WEIGHTS, Weighted, initial_network, train_image_network
from nlml_hpe.image_networks.training_data import Chosen, RenderedCrops, labelled, require_one_size
from nlml_hpe.labelling.photographs import KIND as PHOTOGRAPH_CROPS
from nlml_hpe.labelling.sources import Places, inputs_of, open_source, require_apart
from nlml_hpe.rotation import angles_from_rotation
from renderer.crops import KIND as CROPS
from stages.common import (
    Plan,
    Stage,
    Workdir,
    digest_of_weights,
    require_trainable,
    stage_command,
    training_folder,
    training_run,
    write_trained,
)
from stages.config import Config

_Part = tuple[str, LabelledDataConfig, Path, Path]
"""A split, data of it, the workdir's own crops for it, and where crops of photographs are kept."""


def plan(config: Config) -> Plan:
    """What the network depends on."""
    work = Workdir(config.workdir)
    reads, others = data_read(config)
    others |= _weights_read(config)
    settings = config.sections("seed", "image_network", "image_trainer")
    kept = {folder: PHOTOGRAPH_CROPS for *_, folder in _parts(config)}
    return Plan((work.image_network,), KIND, settings, reads, others, kept)


def check(config: Config) -> None:
    """Raise what is wrong with the network, a setting that it does not have or weights that are not its own, and with
    data that is not rendered first: a folder or a list that is not there, and faces that are in both splits; and as
    ``require_trainable`` does.
    """
    require_trainable(config, config.image_trainer)
    _weights_read(config)
    initial_network(config.image_network, config.seed)
    work = Workdir(config.workdir)
    rendered = {work.crops_train.resolve(), work.crops_validation.resolve()}
    given = [each for each in _parts(config) if each[1].root is not None and each[1].root.resolve() not in rendered]
    for _, part, *_ in given:
        data_digests(part)
    _require_apart(given)


def _weights_read(config: Config) -> dict[str, str]:
    """Digests of the weights to begin with. Raises ``ArtifactError`` where a file is missing."""
    files = {name: getattr(config.image_network, name) for name in ("weights", "narrow_weights", "backbone_weights")}
    return {
        f"weights {file}": digest_of_weights(file, f"image_network.{name}")
        for name, file in files.items()
        if file is not None
    }


def data_read(config: Config) -> tuple[dict[Path, str], dict[str, str]]:
    """The workdir's own folders of crops with their kind, and digests of all other data, of both splits.

    Raises ``DatasetError`` where a folder or a list is not there, and where a face is in both.
    """
    reads: dict[Path, str] = {}
    others: dict[str, str] = {}
    for split, part, crops, _ in _parts(config):
        if part.kind == "crops" and part.root is None:
            reads[crops] = CROPS
        others |= {f"{split} {name}": digest for name, digest in data_digests(part).items()}
    _require_apart(_parts(config))
    return reads, others


def _require_apart(parts: Iterable[_Part]) -> None:
    """Raise ``DatasetError`` where a face is in both splits."""
    folders: dict[str, list[tuple[LabelledDataConfig, Path]]] = {"training": [], "validation": []}
    for split, part, crops, _ in parts:
        folders[split].append((part, part.root or crops))
    require_apart(**folders)


def data_digests(part: LabelledDataConfig) -> dict[str, str]:
    """Digests of an entry's data, by name; the workdir's own crops are no part of them."""
    other = {str(part.root): manifest_digest(part.root, CROPS)} if part.kind == "crops" and part.root else {}
    return other | inputs_of(part)


def main(config: Config) -> Path:
    """Train the network; returns the folder of weights, curves and history."""
    work, made = Workdir(config.workdir), plan(config)
    network = initial_network(config.image_network, config.seed)
    size = size_of(network)
    print(f"{config.image_network.name} at {config.image_network.size} px: {size}", flush=True)
    run = training_run(config, work.image_network, made)
    _require_one_size(config)
    training, validation = (sources_of(config, split) for split in ("training", "validation"))
    with training_folder(work.image_network, KIND, run) as folder:
        trainer = config.image_trainer
        history, counts, validated = train_image_network(network, training, validation, trainer, config.seed, run)
        facts = write_trained(folder / WEIGHTS, network, history)
        facts |= {"crops": counts, "macs": size.macs, "range": _range(network, training), "validation": validated}
        write_manifest(folder, KIND, made.settings, made.inputs, facts)
    return work.image_network


def _parts(config: Config) -> Iterable[_Part]:
    """All data of both splits."""
    work, trainer = Workdir(config.workdir), config.image_trainer
    for split, parts, crops in (
        ("training", trainer.data, work.crops_train),
        ("validation", trainer.validation, work.crops_validation),
    ):
        for number, part in enumerate(parts):
            yield split, part, crops, work.root / f"photographs_{split}_{number}"


def sources_of(config: Config, split: str) -> list[Weighted]:
    """The crops of a split, ``training`` or ``validation``, with their weights."""
    pixels = config.image_trainer.stored_px
    return [
        Weighted(open_source(part, Places(crops, kept, pixels)), part.weight)
        for name, part, crops, kept in _parts(config)
        if name == split
    ]


def _require_one_size(config: Config) -> None:
    """Raise ``TrainingError`` where a split's crops differ in size, before photographs are looked at, which is slow."""
    stored: dict[str, list[tuple[str, int]]] = {}
    for split, part, crops, _ in _parts(config):
        folder = part.root or crops
        size = RenderedCrops(folder).size if part.kind == "crops" else config.image_trainer.stored_px
        stored.setdefault(split, []).append((str(folder), size))
    for each in stored.values():
        require_one_size(each)


def _range(network: ImageNetwork, parts: list[Weighted]) -> list[list[float]]:
    """Lowest and highest yaw, pitch and roll of all labels that the network has learned from, in degrees."""
    kept = [Chosen(part.source, labelled(part.source, network.trainable).kept) for part in parts]
    angles = np.concatenate([angles_from_rotation(source.rotations()).columns() for source in kept])
    return [[float(low), float(high)] for low, high in zip(angles.min(axis=0), angles.max(axis=0), strict=True)]


STAGE = Stage("ImageTrainer", plan, main, check=check)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train an image network on labelled crops."))
