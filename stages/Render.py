"""Heads to images on the pose grid: ``python stages/Render.py --config configs/demo.yaml``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np
from tqdm import tqdm

from nlml_hpe.files.folders import require_replaceable
from nlml_hpe.files.images import RgbImage
from nlml_hpe.view.pictures import save_image, tiled
from renderer.grid import KIND, render_people
from renderer.heads import HeadDataError, check_heads, open_heads
from renderer.people import People
from renderer.rasterizers import get_rasterizer
from stages.common import Plan, Stage, Workdir, config_of, guarded, run_stage, stage_parser
from stages.config import Config


def plan(config: Config) -> Plan:
    """What the rendered images depend on."""
    people, renders = config.people(), Workdir(config.workdir).renders
    return Plan((renders,), KIND, people.settings(), others=people.inputs(), pictures=(_place_of_sheet(renders),))


def main(config: Config) -> Path:
    """Render every person and a contact sheet beside them; returns the folder of images."""
    people = config.people()
    renders = render_people(people, Workdir(config.workdir).renders, config.n_workers, config.cluster)
    draw(config)
    return renders


def draw(config: Config) -> None:
    """The contact sheet."""
    save_image(tiled(_sheet(config.people()), 128), _place_of_sheet(Workdir(config.workdir).renders))


def _place_of_sheet(renders: Path) -> Path:
    return renders.with_name("renders_sheet.jpg")


def _sheet(people: People) -> list[list[RgbImage]]:
    """Up to four people of each split at the corners, edges and middle of the grid."""
    shape = people.grid.shape
    # Which end of each axis: 0 the lowest, 1 the middle, 2 the highest angle.
    ends = [(1, 1, 1), (0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (0, 2, 2), (2, 0, 0)]
    places = [tuple(e * (n - 1) // 2 for e, n in zip(end, shape, strict=True)) for end in ends]
    cells = [int(np.ravel_multi_index(place, shape)) for place in places]
    shown = [person for numbers in people.numbers().values() for person in numbers[:4]]
    return [list(people.cells(person, cells)) for person in shown]


def require_renderable(config: Config) -> None:
    """Raise what rendering would raise: damaged, too large or too few heads, a grid too small for its random poses, a
    rasteriser or a folder that cannot be used.

    Nothing is written. Heads in files are read one by one; of heads that are drawn the first stands for all.
    """
    require_replaceable(Workdir(config.workdir).renders, KIND)
    get_rasterizer(config.render.rasterizer)
    heads, people = open_heads(config.heads, config.seed), config.people()
    for split, numbers in people.numbers().items():
        people.off_grid(split, numbers[0])
    persons = [(split, person) for split, numbers in people.numbers().items() for person in numbers]
    in_files = config.heads.source in ("facescape", "scan")
    for split, person in tqdm(persons if in_files else persons[:1], desc="Check heads", unit="person"):
        poses = [*people.on_grid(), *people.off_grid(split, person)]
        people.require_before_camera(person, heads.head(person), poses)


STAGE = Stage("Render", plan, main, draw=draw)


def work(given: argparse.Namespace) -> None:
    """Render or, with ``--check``, say what the source of heads needs, what was found, and how to get the rest."""
    config = config_of(given)
    if not given.check:
        run_stage(STAGE, config, given.force, given.verify)
        return
    lines = check_heads(config.heads)
    print("\n".join(lines))
    if any(line.startswith("missing") for line in lines):
        raise HeadDataError("the heads of this configuration are not complete")
    require_renderable(config)


def command() -> int:
    """The command line: the shared arguments and ``--check``."""
    parser = stage_parser("Render heads on the pose grid.")
    parser.add_argument("--check", action="store_true", help="say what data is there and what is missing, and stop")
    return guarded(work, parser.parse_args())


if __name__ == "__main__":
    sys.exit(command())
