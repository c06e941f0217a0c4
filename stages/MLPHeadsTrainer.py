"""The manifold's cosines to three angle heads: ``python stages/MLPHeadsTrainer.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import stages.guard  # noqa: F401

from safetensors.torch import save
from torch import nn

from nlml_hpe.files.atomic import write_bytes, write_json
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.manifold.head_training import train_heads
from nlml_hpe.manifold.manifold_file import read_manifold
from nlml_hpe.view.training_plots import plot_history
from stages import TD_main
from stages.common import Plan, Stage, Workdir, require_trainable, stage_command, training_folder, training_run
from stages.config import Config

KIND = "angle_heads"


def plan(config: Config) -> Plan:
    """What the heads depend on."""
    work = Workdir(config.workdir)
    return Plan((work.heads,), KIND, config.sections("seed", "angle_heads"), {work.manifold: TD_main.KIND})


def check(config: Config) -> None:
    """Raise as ``require_trainable`` does."""
    require_trainable(config, config.angle_heads)


def main(config: Config) -> Path:
    """Train the three heads; returns the folder of weights and loss curves."""
    work, made = Workdir(config.workdir), plan(config)
    manifold = read_manifold(work.manifold / "manifold.npz")
    run = training_run(config, work.heads, made)
    with training_folder(work.heads, KIND, run) as folder:
        heads, histories = train_heads(manifold, config.angle_heads, config.seed, run)
        write_bytes(folder / "heads.safetensors", save(nn.ModuleList(heads).state_dict()))
        write_json(folder / "history.json", {name: asdict(history) for name, history in histories.items()})
        plot_history(histories, folder / "losses.png")
        facts = {
            fact: {axis: history.epochs[fact] for axis, history in histories.items()}
            for fact in ("best_epoch", "epochs_run")
        }
        write_manifest(folder, KIND, made.settings, made.inputs, facts)
    return work.heads


STAGE = Stage("MLPHeadsTrainer", plan, main, check=check)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train the three angle heads."))
