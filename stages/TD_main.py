"""The landmark tensor to the manifold: ``python stages/TD_main.py --config configs/demo.yaml``."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import stages.guard  # noqa: F401

from nlml_hpe.device import resolve_device
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import require_equal, write_manifest
from nlml_hpe.manifold.fit import fit_manifold
from nlml_hpe.manifold.manifold_file import write_manifold
from nlml_hpe.manifold.tensor import KIND as LANDMARKS
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.manifold.tucker import require_ranks
from nlml_hpe.parallel import run_tasks
from nlml_hpe.view.manifold_plots import plot_energy, plot_factors
from stages.common import Plan, Stage, Workdir, config_of, guarded, run_stage, stage_parser
from stages.config import Config

KIND = "manifold"


def plan(config: Config) -> Plan:
    """What the manifold depends on."""
    work = Workdir(config.workdir)
    return Plan((work.manifold,), KIND, config.sections("seed", "grid", "tucker"), {work.landmarks_train: LANDMARKS})


def check(config: Config) -> None:
    """Raise ``DeviceError`` for a device that is not there, and ``TensorError`` for ranks that are too high for it all:
    of our renders it is known how many people there are.
    """
    resolve_device(config.device)
    ranks = config.tucker.ranks
    people = ranks.identity if config.landmarks.train_images else config.heads.train
    require_ranks((people, *config.grid.pose_grid().shape), (ranks.identity, ranks.yaw, ranks.pitch, ranks.roll))


def main(config: Config) -> Path:
    """Decompose, fit the cosines, measure the noise; returns the folder of manifold and plots."""
    work, made = Workdir(config.workdir), plan(config)
    tensor = LandmarkTensor.open(work.landmarks_train)
    mend = "run Landmarks with this config, or correct the config's grid"
    require_equal("grid of config and landmark tensor", config.grid.pose_grid().as_dict(), tensor.grid.as_dict(), mend)
    runner = partial(run_tasks, workers=config.n_workers, cluster=config.cluster) if config.cluster else None
    device = resolve_device(config.device)
    with fresh_folder(work.manifold, KIND) as folder:
        fitted = fit_manifold(tensor, config.tucker, config.seed, progress=True, runner=runner, device=device)
        write_manifold(folder / "manifold.npz", fitted.manifold)
        plot_factors(fitted.tucker, fitted.cosines, tensor.grid, folder / "factors.png")
        plot_energy(fitted.tucker, folder / "energy.png")
        write_manifest(folder, KIND, made.settings, made.inputs, fitted.manifold.facts)
    print(fitted.summary())
    return work.manifold


STAGE = Stage("TD_main", plan, main, check=check)


def run(given: argparse.Namespace) -> None:
    """Run the stage as the command line says."""
    config = config_of(given)
    if given.use_rotation_features:
        tucker = config.tucker.model_copy(update={"use_rotation_features": True})
        config = config.model_copy(update={"tucker": tucker})
    run_stage(STAGE, config, given.force, given.verify)


def command() -> int:
    """The command line: the shared arguments and, as in the reference, ``--use_rotation_features``."""
    parser = stage_parser("Learn the pose manifold by Tucker decomposition.")
    parser.add_argument("--use_rotation_features", action="store_true", help="rigidly rotate frontal landmarks instead")
    return guarded(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(command())
