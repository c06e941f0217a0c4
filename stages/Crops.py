"""Heads to crops at drawn poses: ``python stages/Crops.py --config configs/image_ict.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

import stages.guard  # noqa: F401

from nlml_hpe.files.images import RgbImage
from nlml_hpe.image_networks.shards import read_shards
from nlml_hpe.view.pictures import save_image, tiled
from renderer.crops import KIND, SPLITS, CropSet, Split, render_splits
from stages.common import Plan, Stage, Workdir, stage_command
from stages.config import Config

_SHEET = (8, 12)
"""People and crops of each that the contact sheet shows."""


def plan(config: Config) -> Plan:
    """What the crops depend on."""
    people = crop_set(config, "train")
    folders = tuple(folder_of(config, split) for split in SPLITS)
    return Plan(folders, KIND, people.settings(), others=people.inputs(), pictures=(_place_of_sheet(config),))


def main(config: Config) -> Path:
    """Render the people of both splits and a contact sheet beside them; returns the folder of the training crops."""
    splits = [(crop_set(config, split), folder_of(config, split)) for split in SPLITS]
    render_splits(splits, config.n_workers, config.cluster)
    draw(config)
    return folder_of(config, "train")


def draw(config: Config) -> None:
    """The contact sheet."""
    save_image(tiled(_sheet(folder_of(config, "train")), config.crops.size), _place_of_sheet(config))


def _place_of_sheet(config: Config) -> Path:
    return folder_of(config, "train").with_name("crops_sheet.jpg")


def crop_set(config: Config, split: Split) -> CropSet:
    """The crops of one split of this experiment."""
    return CropSet(config.heads, config.crops, config.seed, split, config.workdir / "cache")


def folder_of(config: Config, split: Split) -> Path:
    """Where they lie."""
    workdir = Workdir(config.workdir)
    return workdir.crops_train if split == "train" else workdir.crops_validation


def _sheet(folder: Path) -> list[list[RgbImage]]:
    """Some crops of the first people, a row each."""
    shard = read_shards(folder)[0]
    people = list(dict.fromkeys(shard.people.tolist()))[: _SHEET[0]]
    return [list(shard.images[shard.people == person][: _SHEET[1]]) for person in people]


STAGE = Stage("Crops", plan, main, draw=draw)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Render crops of heads at drawn poses."))
