"""The whole chain in order: ``python stages/run_pipeline.py --config configs/demo.yaml``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import stages.guard  # noqa: F401

from stages import EncoderTrainer, Landmarks, MLPHeadsTrainer, ModelBuilder, NLML_HPE_Test, Render, TD_main
from stages.common import guarded, on_cluster, run_stage, stage_parser
from stages.config import load_config

STAGES = [
    Render.STAGE,
    Landmarks.STAGE,
    TD_main.STAGE,
    EncoderTrainer.STAGE,
    MLPHeadsTrainer.STAGE,
    ModelBuilder.STAGE,
    NLML_HPE_Test.STAGE,
]
NAMES = [stage.name for stage in STAGES]


def main(
    config_path: Path, first: str, last: str, force: bool, cluster: str | None = None, verify: bool = False
) -> None:
    """Run the stages from ``first`` to ``last``; those that are up to date are skipped unless ``force``."""
    config = on_cluster(load_config(config_path), cluster)
    start, stop = NAMES.index(first), NAMES.index(last)
    if start > stop:
        raise ValueError(f"--from {first} comes after --until {last}; the order is {' -> '.join(NAMES)}")
    for stage in STAGES[start : stop + 1]:
        run_stage(stage, config, force, verify)


def work(given: argparse.Namespace) -> None:
    """Run the chain as the command line says."""
    main(given.config, given.first, given.last, given.force, given.cluster, given.verify)


def command() -> int:
    """The command line: the shared arguments, ``--from`` and ``--until``."""
    parser = stage_parser(__doc__)
    parser.add_argument("--from", dest="first", choices=NAMES, default=NAMES[0])
    parser.add_argument("--until", dest="last", choices=NAMES, default=NAMES[-1])
    return guarded(work, parser.parse_args())


if __name__ == "__main__":
    sys.exit(command())
