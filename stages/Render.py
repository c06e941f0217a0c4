"""Heads to images on the pose grid: ``python stages/Render.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

from nlml_hpe.config import Config
from nlml_hpe.images import RgbImage, read_image
from nlml_hpe.plots import save_image, tiled
from nlml_hpe.pose_grid import image_stem
from renderer.grid import KIND, people_of, render_inputs, render_people, render_sections
from stages.common import Plan, Stage, Workdir, stage_command


def plan(config: Config) -> Plan:
    """What the rendered images depend on."""
    return Plan((Workdir(config.workdir).renders,), KIND, render_sections(config), render_inputs(config))


def main(config: Config) -> Path:
    """Render every person and a contact sheet beside them; returns the folder of images."""
    renders = render_people(config, Workdir(config.workdir).renders)
    save_image(tiled(_sheet(config, renders), 128), renders.with_name("renders_sheet.jpg"))
    return renders


def _sheet(config: Config, renders: Path) -> list[list[RgbImage]]:
    """Up to six people of each split at the corners, edges and middle of the grid."""
    axes = config.grid.pose_grid().axes
    # Which end of each axis: -1 the lowest, 0 the middle, 1 the highest angle.
    ends = [(0, 0, 0), (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (-1, 1, 1), (1, -1, -1)]
    poses = [tuple(axis[(end + 1) * (len(axis) - 1) // 2] for axis, end in zip(axes, e, strict=True)) for e in ends]
    people = [(split, person) for split, numbers in people_of(config).items() for person in numbers[:4]]
    return [
        [read_image(renders / split / f"ID{n}" / f"{image_stem(n, *pose)}.jpg") for pose in poses]
        for split, n in people
    ]


STAGE = Stage("Render", plan, main)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Render heads on the pose grid."))
