"""What the head detector proposes to its second stage: ``python stages/RefinementTrainer.py --config ...``."""

from __future__ import annotations

import sys
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np

from nlml_hpe.detection.heads import HeadDetector
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.head_network.network_training import KIND as FIRST_STAGE
from nlml_hpe.head_network.network_training import ONNX as FIRST_STAGE_FILE
from nlml_hpe.head_network.network_training import validation_seed
from nlml_hpe.head_network.proposals import REFINEMENT_FILE
from nlml_hpe.head_network.refinement_training import (
    KIND,
    WEIGHTS,
    DrawnProposals,
    initial_refinement_network,
    train_refinement_network,
)
from nlml_hpe.model.eight_bits import quantize_head_detector
from nlml_hpe.model.head_export import export_refinement
from renderer.crops import SPLITS, Split
from renderer.sprites import KIND as SPRITES
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
from stages.Sprites import digests_behind, folder_of, scenes_of

_RANGED = 40
"""Scenes by whose crops the ranges of activations in eight bits are found."""


def plan(config: Config) -> Plan:
    """What the network depends on."""
    work = Workdir(config.workdir)
    reads = {**{folder_of(config, split): SPRITES for split in SPLITS}, work.head_network: FIRST_STAGE}
    others = digests_behind(config) | _weights_read(config)
    sections = config.sections("seed", "sprites", "scenes", "refinement_trainer")
    return Plan((work.refinement_network,), KIND, sections, reads, others)


def check(config: Config) -> None:
    """Raise what is wrong with the weights to begin with, and as ``require_trainable`` does."""
    require_trainable(config, config.refinement_trainer)
    _weights_read(config)
    initial_refinement_network(config.refinement_trainer, config.seed)


def _weights_read(config: Config) -> dict[str, str]:
    """Digest of the weights to begin with. Raises ``ArtifactError`` where the file is missing."""
    begin, name = config.refinement_trainer.image_network, "refinement_trainer.image_network"
    return {} if begin is None else {f"image_network {begin}": digest_of_weights(begin, name)}


def main(config: Config) -> Path:
    """Train the network; returns the folder of its weights, the ONNX files of both stages, curves and history."""
    work, made, settings = Workdir(config.workdir), plan(config), config.refinement_trainer
    network = initial_refinement_network(settings, config.seed)
    run = training_run(config, work.refinement_network, made)
    first_stage = work.head_network / FIRST_STAGE_FILE
    first, proposing = HeadDetector(first_stage), first_stage.read_bytes()
    drawn: dict[Split, tuple[int, int]] = {
        "train": (settings.training_scenes, config.seed),
        "validation": (settings.validation_scenes, validation_seed(config.seed)),
    }
    training, validation = (
        DrawnProposals(scenes_of(config, split), first, count, seed, settings.views)
        for split, (count, seed) in drawn.items()
    )
    with training_folder(work.refinement_network, KIND, run) as folder:
        history = train_refinement_network(network, training, validation, settings, config.seed, run)
        network = network.cpu()
        facts = write_trained(folder / WEIGHTS, network, history)
        file = export_refinement(network, folder / REFINEMENT_FILE)
        if settings.int8:
            crops, _ = training.batch(np.arange(min(_RANGED, len(training))), None)
            quantize_head_detector(file, np.asarray(crops.permute(0, 2, 3, 1).numpy()), file)
        # Beside it the stage whose proposals it knows: inference looks for both in one folder.
        write_bytes(folder / FIRST_STAGE_FILE, proposing)
        write_manifest(folder, KIND, made.settings, made.inputs, facts)
    return work.refinement_network


STAGE = Stage("RefinementTrainer", plan, main, check=check)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train the head detector's second stage."))
