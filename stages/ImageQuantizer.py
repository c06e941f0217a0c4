"""Image network to eight bits: ``python stages/ImageQuantizer.py --config configs/mobilenetv2_int8.yaml``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np

from nlml_hpe.extras import needs
from nlml_hpe.files.atomic import write_json
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.image_networks.config import ImageTrainerConfig
from nlml_hpe.image_networks.network import ImageNetwork
from nlml_hpe.image_networks.network_training import KIND as IMAGE_NETWORK
from nlml_hpe.image_networks.network_training import WEIGHTS, Weighted, network_of, train_image_network
from nlml_hpe.image_networks.quantize import FakeQuantized
from nlml_hpe.image_networks.training_data import Crops
from nlml_hpe.model.folder import load_weights
from nlml_hpe.model.image_export import outputs_graph
from nlml_hpe.model.onnx_file import write_onnx
from stages import ImageTrainer
from stages.common import Plan, Stage, Workdir, stage_command, training_folder, training_run
from stages.config import Config

KIND, GRAPH = "image_network_int8", "outputs.onnx"
_FIRST_CROPS = 64
"""Crops by which the first ranges of the activations are found."""


def plan(config: Config) -> Plan:
    """What the network in eight bits depends on."""
    work = Workdir(config.workdir)
    reads, others = ImageTrainer.data_read(config)
    settings = config.sections("seed", "image_network", "image_trainer", "image_quantizer")
    return Plan((work.image_network_int8,), KIND, settings, {work.image_network: IMAGE_NETWORK, **reads}, others)


def check(config: Config) -> None:
    """Raise ``MissingPackageError`` where torchao is not installed."""
    with needs("quantize", "image_model.int8"):
        import torchao  # noqa: F401


def main(config: Config) -> Path:
    """Train on with the roundings of eight bits; returns the folder of the graph and its history."""
    work, made = Workdir(config.workdir), plan(config)
    network = network_of(config.image_network, config.seed)
    load_weights(network, work.image_network / WEIGHTS, "run ImageTrainer with this config")
    training, validation = (ImageTrainer.sources_of(config, split) for split in ("training", "validation"))
    run = training_run(config, work.image_network_int8, made)
    fake = _fake_quantized(network.eval(), training, config.seed)
    with training_folder(work.image_network_int8, KIND, run) as folder:
        settings = trainer_settings(config)
        history, counts, validated = train_image_network(fake, training, validation, settings, config.seed, run)
        graph = outputs_graph(fake.cpu().converted(), network.size)
        write_onnx(graph, folder / GRAPH)
        write_json(folder / "history.json", asdict(history))
        facts = {**history.epochs, "crops": counts, "validation": validated}
        write_manifest(folder, KIND, made.settings, made.inputs, facts)
    return work.image_network_int8


def trainer_settings(config: Config) -> ImageTrainerConfig:
    """``image_trainer`` with the length and the rate of ``image_quantizer``, in float32, which the roundings need."""
    own, trainer = config.image_quantizer, config.image_trainer
    changes = {
        "epochs": own.epochs,
        "patience": own.epochs,
        "learning_rate": own.learning_rate,
        "precision": "float32",
        # The mean of two networks' weights is one network's; that of two grids of whole numbers is neither's.
        "start_share": 0.0,
    }
    return trainer.model_copy(update={**changes, "crops_per_epoch": own.crops_per_epoch or trainer.crops_per_epoch})


def _fake_quantized(network: ImageNetwork, training: list[Weighted], seed: int) -> FakeQuantized:
    """The network with roundings whose ranges some training crops have set."""
    sources, weights = [part.source for part in training], [part.weight for part in training]
    crops = Crops(sources, weights, network.size, network.trainable, network.shown)
    some = np.sort(np.random.default_rng(seed).permutation(len(crops))[:_FIRST_CROPS])
    return FakeQuantized(network, crops.batch(some, None)[0], seed)


STAGE = Stage("ImageQuantizer", plan, main, check=check)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train an image network on in eight bits."))
