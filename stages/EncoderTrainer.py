"""Detected faces to the encoder: ``python stages/EncoderTrainer.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import stages.guard  # noqa: F401

from safetensors.torch import save

from nlml_hpe.files.atomic import write_bytes, write_json
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.manifold.manifold_file import read_manifold
from nlml_hpe.manifold.tensor import KIND as LANDMARKS
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.view.training_plots import plot_history
from stages import TD_main
from stages.common import Plan, Stage, Workdir, require_trainable, stage_command, training_folder, training_run
from stages.config import Config

KIND = "encoder"


def plan(config: Config) -> Plan:
    """What the encoder depends on."""
    work = Workdir(config.workdir)
    reads = {work.landmarks_train: LANDMARKS, work.manifold: TD_main.KIND}
    return Plan((work.encoder,), KIND, config.sections("seed", "encoder"), reads)


def check(config: Config) -> None:
    """Raise ``TrainingError`` where our renders are of too few people to train on some and to stop on others, and as
    ``require_trainable`` does.
    """
    from nlml_hpe.manifold.encoder_training import require_divisible

    require_trainable(config, config.encoder)
    if config.landmarks.train_images is None:
        require_divisible(config.heads.train, config.encoder.held_out_share)


def main(config: Config) -> Path:
    """Train the encoder; returns the folder of weights and loss curves."""
    # Not above: later stages read this one's folder, and need not wait for what a training loads.
    from nlml_hpe.manifold.encoder_training import train_encoder

    work, made = Workdir(config.workdir), plan(config)
    tensor = LandmarkTensor.open(work.landmarks_train)
    manifold = read_manifold(work.manifold / "manifold.npz")
    run = training_run(config, work.encoder, made)
    with training_folder(work.encoder, KIND, run) as folder:
        encoder, history = train_encoder(tensor, manifold, config.encoder, config.seed, run)
        write_bytes(folder / "encoder.safetensors", save(encoder.state_dict()))
        write_json(folder / "history.json", asdict(history))
        plot_history({"encoder": history}, folder / "losses.png")
        write_manifest(folder, KIND, made.settings, made.inputs, history.epochs)
    return work.encoder


STAGE = Stage("EncoderTrainer", plan, main, check=check)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train the landmark encoder."))
