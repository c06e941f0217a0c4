"""The pictures in README.md and CONVENTIONS.md, made by the project itself: ``make pictures``.

Needs a finished run of the pipeline (``make demo``). ``--people CONFIG`` makes another contact sheet instead, of
the heads of that configuration, for instance ``--people configs/ict_facekit.yaml``.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np

from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.rotation import AXES, Angles, rotation_from_angles
from nlml_hpe.view.draw import draw_axes
from nlml_hpe.view.pictures import save_image, tiled
from renderer.config import AppearanceConfig, RenderConfig
from renderer.drawing import render_pose
from renderer.heads import open_heads
from renderer.heads.photo import embedded_photo
from renderer.mesh import vertex_normals
from stages.common import Workdir
from stages.config import Config, load_config

FOLDER = Path(__file__).parent
CONVENTION_ANGLE = 35.0


def conventions(config: Config) -> RgbImage:
    """Negative, zero and positive yaw, pitch and roll of a rendered head, with its axes drawn."""
    heads = open_heads(config.heads.model_copy(update={"shape_variation": 0.0, "tone_variation": 0.0}), config.seed)
    mesh = heads.head(1)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    render = RenderConfig(size=320, appearance=AppearanceConfig(vary=False))
    rows = []
    for axis, name in enumerate(AXES):
        row = []
        for angle in (-CONVENTION_ANGLE, 0.0, CONVENTION_ANGLE):
            pose = [0.0, 0.0, 0.0]
            pose[axis] = angle
            image = render_pose(mesh, normals, (pose[0], pose[1], pose[2]), render, np.random.default_rng(0))
            drawn = draw_axes(image, rotation_from_angles(Angles.from_columns(pose)), (160, 165), 110)
            label = f"{name} {angle:+.0f}"
            cv2.putText(drawn, label, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
            row.append(drawn)
        rows.append(row)
    return tiled(rows, 240)


def photograph() -> RgbImage:
    """The embedded photograph with the axes that the shipped checkpoint finds drawn on it."""
    photo = embedded_photo()
    with HeadPoseEstimator.from_pretrained() as estimator:
        for pose in estimator.predict(photo):
            left, top, right, bottom = pose.box
            nose = pose.landmarks[estimator.engine.point_set.nose_tip]
            photo = draw_axes(photo, pose.rotation, (nose[0], nose[1]), max(right - left, bottom - top) * 0.8)
    return photo


def people(config: Config, count: int) -> RgbImage:
    """The first people of a configuration at five poses each, three people a row."""
    grid = config.grid.pose_grid()
    middle = tuple(n // 2 for n in grid.shape)
    yaw, pitch, roll = middle
    places = [middle, (1, pitch, roll), (grid.shape[0] - 2, pitch, roll), (yaw, 1, 1), (yaw, grid.shape[1] - 2, roll)]
    cells = [int(np.ravel_multi_index(place, grid.shape)) for place in places]
    shown = [list(config.people().cells(person, cells)) for person in range(1, count + 1)]
    return tiled([list(itertools.chain(*shown[i : i + 3])) for i in range(0, count, 3)], 112)


def main(config: Config) -> None:
    """Write every picture into ``docs``."""
    work = Workdir(config.workdir)
    save_image(conventions(config), FOLDER / "conventions.jpg")
    save_image(embedded_photo(), FOLDER / "photograph.jpg")
    save_image(photograph(), FOLDER / "photograph_axes.jpg")
    shutil.copyfile(work.root / "renders_sheet.jpg", FOLDER / "renders.jpg")
    for source, name in (("manifold/factors.png", "factors.png"), ("landmarks_train_misses.png", "misses.png")):
        shutil.copyfile(work.root / source, FOLDER / name)
    shutil.copyfile(work.test / "mae_per_interval_off_grid.png", FOLDER / "mae_per_interval.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--people", type=Path, help="a configuration whose heads are drawn, and nothing else")
    parser.add_argument("--folder", type=Path, help="heads.folder in place of that configuration's")
    parser.add_argument("--count", type=int, default=24, help="how many people")
    parser.add_argument("--output", type=Path, default=FOLDER / "people.jpg")
    given = parser.parse_args()
    if given.people:
        chosen = load_config(given.people)
        heads = chosen.heads.model_copy(update={"folder": given.folder} if given.folder else {})
        save_image(people(chosen.model_copy(update={"heads": heads}), given.count), given.output)
    else:
        main(load_config(given.config))
