"""Heads without anything behind them: ``python stages/Sprites.py --config configs/head_detector.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np

from nlml_hpe.files.manifests import digest_of_names_and_sizes
from nlml_hpe.view.pictures import save_image, tiled
from renderer.crops import SPLITS, Split, render_splits
from renderer.scenes import Scenes
from renderer.sprites import KIND, SpriteSet
from stages.common import Plan, Stage, Workdir, stage_command
from stages.config import Config

_SHEET = (4, 6)
"""Rows and columns of scenes that the contact sheet shows."""


def plan(config: Config) -> Plan:
    """What the sprites depend on."""
    people = sprite_set(config, "train")
    folders = tuple(folder_of(config, split) for split in SPLITS)
    return Plan(folders, KIND, people.settings(), others=people.inputs(), pictures=(_place_of_sheet(config),))


def main(config: Config) -> Path:
    """Render the people of both splits, and a sheet of scenes; returns the folder of the training sprites."""
    splits = [(sprite_set(config, split), folder_of(config, split)) for split in SPLITS]
    render_splits(splits, config.n_workers, config.cluster)
    draw(config)
    return folder_of(config, "train")


def draw(config: Config) -> None:
    """The sheet of scenes."""
    scenes = scenes_of(config, "train")
    rows = [
        [scenes.draw(np.random.default_rng([config.seed, row, column])).image for column in range(_SHEET[1])]
        for row in range(_SHEET[0])
    ]
    save_image(tiled(rows, config.scenes.size), _place_of_sheet(config))


def _place_of_sheet(config: Config) -> Path:
    return folder_of(config, "train").with_name("scenes_sheet.jpg")


def sprite_set(config: Config, split: Split) -> SpriteSet:
    """The sprites of one split of this experiment."""
    return SpriteSet(config.heads, config.sprites, config.seed, split, config.workdir / "cache")


def scenes_of(config: Config, split: Split) -> Scenes:
    """Scenes of the sprites of one split."""
    return Scenes(folder_of(config, split), config.scenes, config.sprites.backgrounds)


def digests_behind(config: Config) -> dict[str, str]:
    """Digest, by name, of the user's pictures that scenes are drawn before; none of those of installed packages."""
    behind = config.sprites.backgrounds
    return {} if behind is None else {"backgrounds": digest_of_names_and_sizes(behind)}


def folder_of(config: Config, split: Split) -> Path:
    """Where the sprites lie."""
    workdir = Workdir(config.workdir)
    return workdir.sprites_train if split == "train" else workdir.sprites_validation


STAGE = Stage("Sprites", plan, main, draw=draw)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Render heads without anything behind them."))
