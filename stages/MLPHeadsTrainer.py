"""The manifold's cosines to three angle heads: ``python stages/MLPHeadsTrainer.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save
from torch import nn

from nlml_hpe.files.atomic import write_bytes, write_json
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import manifest_digest, write_manifest
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.network_training import train_heads
from nlml_hpe.view.plots import plot_history
from stages.common import Plan, Stage, Workdir, stage_command
from stages.config import Config

KIND = "angle_heads"


def plan(config: Config) -> Plan:
    """What the heads depend on."""
    work = Workdir(config.workdir)
    return Plan(
        (work.heads,), KIND, config.sections("seed", "angle_heads"), {"manifold": manifest_digest(work.manifold)}
    )


def main(config: Config) -> Path:
    """Train the three heads; returns the folder of weights and loss curves."""
    work, made = Workdir(config.workdir), plan(config)
    manifold = PoseManifold.load(work.manifold / "manifold.npz")
    heads, histories = train_heads(manifold, config.angle_heads, config.seed, work.root)
    with fresh_folder(work.heads, KIND) as folder:
        write_bytes(folder / "heads.safetensors", save(nn.ModuleList(heads).state_dict()))
        write_json(folder / "history.json", {name: asdict(history) for name, history in histories.items()})
        plot_history(histories, folder / "losses.png")
        facts = {"best_epoch": {name: history.best_epoch for name, history in histories.items()}}
        write_manifest(folder, KIND, made.settings, made.inputs, facts)
    return work.heads


STAGE = Stage("MLPHeadsTrainer", plan, main)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Train the three angle heads."))
