"""The whole chain in order: ``python stages/run_pipeline.py --config configs/demo.yaml``.

The image eye has a chain of its own: ``python stages/run_pipeline.py --eye image --config configs/image_ict.yaml``,
and so has the head detector: ``--eye heads --config configs/head_detector.yaml``. Without ``--eye`` the configuration
says which, by the sections that it has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import stages.guard  # noqa: F401

from nlml_hpe.device import DeviceName
from stages.common import Stage, computed_on, guarded, run_stage, stage_parser
from stages.config import Config, load_config

CHAINS = {
    "landmarks": (
        "Render",
        "Landmarks",
        "TD_main",
        "EncoderTrainer",
        "MLPHeadsTrainer",
        "ModelBuilder",
        "NLML_HPE_Test",
    ),
    "image": ("Crops", "ImageTrainer", "ImageQuantizer", "ImageModelBuilder", "NLML_HPE_Test"),
    "heads": ("Sprites", "HeadTrainer", "RefinementTrainer"),
}
"""Stages in order, by eye; what finds heads for both eyes is trained by a chain of its own."""
_SECTIONS = {
    "landmarks": {"grid", "render", "landmarks", "tucker", "encoder", "angle_heads"},
    "image": {"crops", "image_network", "image_trainer", "image_quantizer", "image_model"},
    "heads": {"sprites", "scenes", "head_trainer", "refinement_trainer"},
}
"""Of a configuration, those that are of one chain alone."""


def main(
    config_path: Path,
    first: str | None,
    last: str | None,
    force: bool,
    cluster: str | None = None,
    verify: bool = False,
    eye: str | None = None,
    device: DeviceName | None = None,
) -> None:
    """Run an eye's stages from ``first`` to ``last``, by default all; those that are up to date are skipped unless
    ``force``. Without ``eye`` it is that of ``eye_of``.

    Raises ``ValueError`` for a stage that is not this eye's, for two in the wrong order, and for a device that is not
    there.
    """
    config = computed_on(load_config(config_path), cluster, device)
    eye = eye or eye_of(config)
    names = CHAINS[eye]
    for name in (first, last):
        if name is not None and name not in names:
            raise ValueError(f"{name} is no stage of --eye {eye}; its stages are {' -> '.join(names)}")
    start, stop = names.index(first or names[0]), names.index(last or names[-1])
    if start > stop:
        raise ValueError(f"--from {first} comes after --until {last}; the order is {' -> '.join(names)}")
    # All of them before the first one works: a package that is missing is to be named before hours of rendering, and so
    # is what a later one refuses.
    stages = [stage_of(name, eye) for name in needed(names[start : stop + 1], config)]
    for stage in stages:
        if stage.check is not None:
            stage.check(config)
    for stage in stages:
        run_stage(stage, config, force, verify)


def eye_of(config: Config) -> str:
    """Whose chain a configuration is for: the landmark eye's, if it has a section of that or of none, otherwise that of
    whose sections it has some.

    Hours of the landmark eye's rendering are not what a recipe of the image eye asks for. Raises ``ValueError`` for
    sections of both other chains.
    """
    those = [eye for eye, sections in _SECTIONS.items() if sections & config.model_fields_set]
    if not those or "landmarks" in those:
        return "landmarks"
    if len(those) > 1:
        raise ValueError(f"this configuration has sections of several chains; say which by --eye {' or '.join(those)}")
    print(f"run_pipeline: --eye {those[0]}, of whose sections alone this configuration has any", flush=True)
    return those[0]


def needed(names: Sequence[str], config: Config) -> list[str]:
    """Nobody is rendered whose images or crops no stage reads, and only a model in eight bits is quantised."""
    trainer = config.image_trainer
    rendered = any(part.kind == "crops" and part.root is None for part in (*trainer.data, *trainer.validation))
    idle = [] if rendered else ["Crops"]
    idle += ["Render"] if config.landmarks.train_images and config.landmarks.validation_images else []
    idle += [] if config.image_model.int8 else ["ImageQuantizer"]
    return [name for name in names if name not in idle]


def stage_of(name: str, eye: str) -> Stage:
    """An eye's stage by its name. It is loaded here: loading all of them takes longer than many a stage."""
    module = import_module(f"stages.{name}")
    stage: Stage = module.STAGES[eye] if name == "NLML_HPE_Test" else module.STAGE
    return stage


def work(given: argparse.Namespace) -> None:
    """Run the chain as the command line says."""
    main(given.config, given.first, given.last, given.force, given.cluster, given.verify, given.eye, given.device)


def command() -> int:
    """The command line: the shared arguments, ``--eye``, ``--from`` and ``--until``."""
    parser = stage_parser(__doc__)
    text = "whose stages: the landmark eye's, the image eye's, or the head detector's (default: as the sections say)"
    parser.add_argument("--eye", choices=tuple(CHAINS), help=text)
    known = list(dict.fromkeys(name for names in CHAINS.values() for name in names))
    parser.add_argument("--from", dest="first", choices=known, help="the first stage (default: the eye's first)")
    parser.add_argument("--until", dest="last", choices=known, help="the last stage (default: the eye's last)")
    return guarded(work, parser.parse_args())


if __name__ == "__main__":
    sys.exit(command())
