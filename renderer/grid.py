"""Heads to images on a pose grid, one folder per person, as ``ID{n}/ID{n}_(yaw_pitch_roll).jpg``.

Off-grid random poses lie in ``ID{n}/random``. Every image depends on the configuration, the person
and the pose alone, so a run that was killed is continued by skipping the images that are there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.artifacts import (
    ArtifactError,
    digest_of,
    digest_of_file,
    exclusive,
    read_json,
    write_json,
    write_manifest,
)
from nlml_hpe.config import Config, RenderConfig
from nlml_hpe.extraction import RANDOM_FOLDER
from nlml_hpe.images import RgbImage
from nlml_hpe.pose_grid import image_stem
from nlml_hpe.rotations import CONVENTION, Angles, rotation_from_angles
from renderer.appearance import draw_scene
from renderer.camera import Camera
from renderer.heads import open_heads
from renderer.mesh import Mesh, vertex_normals
from renderer.rasterizers import get_rasterizer
from renderer.shading import shade

KIND = "renders"
HEAD_EXTENT_MM = 230.0
"""Height of an adult head; the camera is set so that this much fills ``head_fraction`` of the image."""
_IN_PROGRESS = "in_progress.json"
_Pose = tuple[float, float, float]


def render_pose(
    mesh: Mesh, normals: NDArray[np.float32], pose: _Pose, config: RenderConfig, rng: np.random.Generator
) -> RgbImage:
    """One RGB image of ``mesh`` (with head-frame vertex ``normals``) at (yaw, pitch, roll) degrees."""
    rotation = rotation_from_angles(Angles.from_columns(pose)).astype(np.float32)
    scene = draw_scene(config.appearance, config.size, rng)
    camera = Camera.framing(config.size, HEAD_EXTENT_MM, scene.fraction, scene.distance)
    vertices = camera.view(mesh.vertices, rotation)
    fragments = get_rasterizer(config.rasterizer)(vertices, mesh.faces, camera, (config.size, config.size))
    return shade(fragments, mesh, normals @ rotation.T, scene.light, scene.background)


def people_of(config: Config) -> dict[str, list[int]]:
    """Person numbers of each split; no person is in both."""
    train = config.heads.train
    return {
        "train": list(range(1, train + 1)),
        "validation": list(range(train + 1, train + config.heads.validation + 1)),
    }


def random_poses(config: Config, split: str, person: int) -> list[_Pose]:
    """Seeded off-grid poses of one person, uniform inside the grid's range, to a hundredth of a degree."""
    count = getattr(config.render, f"random_poses_{split}")
    rng = np.random.default_rng([config.seed, person, 1])
    axes = config.grid.pose_grid().axes
    drawn = rng.uniform([a[0] for a in axes], [a[-1] for a in axes], size=(count, 3))
    return [(float(y), float(p), float(r)) for y, p, r in np.round(drawn, 2)]


def render_people(config: Config, folder: Path) -> Path:
    """Render every person of every split below ``folder``; returns ``folder``, finished.

    Raises ``ArtifactError`` where ``folder`` holds anything that is not this stage's own work.
    """
    sections, inputs = render_sections(config), render_inputs(config)
    with exclusive(folder):
        _prepare(folder, digest_of([sections, inputs]))
        heads = open_heads(config.heads, config.seed)
        work = [(split, person) for split, people in people_of(config).items() for person in people]
        tasks = (delayed(_render_person)(config, heads.head(person), split, person, folder) for split, person in work)
        # Meshes travel to the workers as they are, not by way of temporary files.
        results = Parallel(n_jobs=config.n_workers, return_as="generator", max_nbytes=None)(tasks)
        poses = dict(tqdm(results, total=len(work), desc="Render", unit="person"))
        index = {"convention": CONVENTION, "grid": config.grid.pose_grid().as_dict(), "random_poses": poses}
        write_json(folder / "renders.json", index)
        facts = {
            "people": people_of(config),
            "heads": heads.describe(),
            "images_per_person": config.grid.pose_grid().size,
        }
        (folder / _IN_PROGRESS).unlink()
        write_manifest(folder, KIND, sections, inputs, facts)
    return folder


def render_sections(config: Config) -> dict[str, object]:
    """The settings that rendered images depend on."""
    return config.sections("seed", "grid", "heads", "render")


def render_inputs(config: Config) -> dict[str, str]:
    """Digests of what is read to render: the user's photographs, where there are any."""
    folder = config.heads.photos
    if folder is None or not folder.is_dir():
        return {}
    return {path.name: digest_of_file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _prepare(folder: Path, digest: str) -> None:
    """Keep the images of an interrupted run with these settings; clear those of any other run."""
    marker = folder / _IN_PROGRESS
    ours = marker.is_file() or (folder / "renders.json").is_file()
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise ArtifactError(f"{folder} holds files that this stage did not write; choose another workdir")
    if not (marker.is_file() and read_json(marker).get("digest") == digest):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(marker, {"digest": digest})


def _render_person(
    config: Config, mesh: Mesh, split: str, person: int, folder: Path
) -> tuple[str, dict[str, list[_Pose]]]:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    target = folder / split / f"ID{person}"
    (target / RANDOM_FOLDER).mkdir(parents=True, exist_ok=True)
    off_grid = random_poses(config, split, person)
    for number, (path, pose) in enumerate(_images(config, person, target, off_grid)):
        if not path.is_file():
            rng = np.random.default_rng([config.seed, person, 2, number])
            _write_jpeg(path, render_pose(mesh, normals, pose, config.render, rng), config.render.jpeg_quality)
    return f"{split}/ID{person}", {"random": off_grid}


def _images(config: Config, person: int, target: Path, off_grid: list[_Pose]) -> Iterator[tuple[Path, _Pose]]:
    for pose in config.grid.pose_grid().poses():
        yield target / f"{image_stem(person, *pose)}.jpg", pose
    for pose in off_grid:
        yield target / RANDOM_FOLDER / f"{image_stem(person, *pose)}.jpg", pose


def _write_jpeg(path: Path, image: RgbImage, quality: int) -> None:
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OSError(f"{path}: the image could not be encoded")
    # A rename per image keeps a killed run from leaving half an image; thousands need no fsync.
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(encoded.tobytes())
    os.replace(temporary, path)
