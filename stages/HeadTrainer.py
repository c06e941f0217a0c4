"""Scenes to a head detector: ``python stages/HeadTrainer.py --config configs/head_detector.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.head_network.network_training import (
    KIND,
    ONNX,
    WEIGHTS,
    DrawnScenes,
    initial_head_network,
    train_head_network,
)
from nlml_hpe.model.eight_bits import quantize_head_detector
from nlml_hpe.model.head_export import export_head_detector
from renderer.crops import SPLITS
from renderer.scenes import Scenes
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

_RANGED = 160
"""Views by which the ranges of activations in eight bits are found."""


def plan(config: Config) -> Plan:
    """What the network depends on."""
    reads = {folder_of(config, split): SPRITES for split in SPLITS}
    others = digests_behind(config) | _weights_read(config)
    sections = config.sections("seed", "sprites", "scenes", "head_trainer")
    return Plan((Workdir(config.workdir).head_network,), KIND, sections, reads, others)


def check(config: Config) -> None:
    """Raise what is wrong with the weights to begin with, and as ``require_trainable`` does."""
    require_trainable(config, config.head_trainer)
    _weights_read(config)
    initial_head_network(config.head_trainer, config.seed)


def _weights_read(config: Config) -> dict[str, str]:
    """Digest of the weights to begin with. Raises ``ArtifactError`` where the file is missing."""
    begin = config.head_trainer.weights
    return {} if begin is None else {f"weights {begin}": digest_of_weights(begin, "head_trainer.weights")}


def main(config: Config) -> Path:
    """Train the network; returns the folder of its weights, its ONNX file, curves and history."""
    work, made = Workdir(config.workdir), plan(config)
    network = initial_head_network(config.head_trainer, config.seed)
    run = training_run(config, work.head_network, made)
    scenes = scenes_of(config, "train"), scenes_of(config, "validation")
    with training_folder(work.head_network, KIND, run) as folder:
        history = train_head_network(network, *scenes, config.head_trainer, config.seed, run)
        network = network.cpu()
        facts = write_trained(folder / WEIGHTS, network, history)
        export_head_detector(network, folder / ONNX)
        if config.head_trainer.int8:
            quantize_head_detector(folder / ONNX, _some_views(config, scenes[0]), folder / ONNX)
        write_manifest(folder, KIND, made.settings, made.inputs, facts)
    return work.head_network


def _some_views(config: Config, scenes: Scenes) -> NDArray[np.uint8]:
    """Views of training people, by which the ranges of activations are found."""
    settings = config.head_trainer
    shown = DrawnScenes(scenes, _RANGED, config.seed, settings.view_px)
    views, _ = shown.batch(np.arange(_RANGED), None)
    return np.asarray(views.permute(0, 2, 3, 1).numpy())


STAGE = Stage("HeadTrainer", plan, main, check=check)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train the head detector."))
