"""Heads to images on a pose grid, one folder per person, as ``ID{n}/ID{n}_(yaw_pitch_roll).jpg``.

Off-grid random poses lie in ``ID{n}/random``. Every image depends on the configuration, the person
and the pose alone, so a run that was killed is continued by skipping the images that are there, and
images need not be kept at all: ``extract_direct`` renders and detects in one go.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.config import Config, HeadsConfig, RenderConfig
from nlml_hpe.files.atomic import ArtifactError, read_json, write_json
from nlml_hpe.files.images import RgbImage
from nlml_hpe.files.locks import exclusive
from nlml_hpe.files.manifests import digest_of, digest_of_file, digest_of_names_and_sizes, write_manifest
from nlml_hpe.manifold.extraction import RANDOM_FOLDER, Pose, Provenance, person_rows, write_tensor
from nlml_hpe.manifold.tensor import PersonRows
from nlml_hpe.parallel import run_tasks
from nlml_hpe.pose_grid import image_stem
from nlml_hpe.rotation import CONVENTION, Angles, rotation_from_angles
from renderer.appearance import draw_scene, expose
from renderer.camera import Camera
from renderer.heads import HeadSource, open_heads
from renderer.mesh import Mesh, vertex_normals
from renderer.rasterizers import get_rasterizer
from renderer.shading import shade

KIND = "renders"
HEAD_EXTENT_MM = 230.0
"""Height of an adult head; the camera is set so that this much fills ``head_fraction`` of the image."""
_IN_PROGRESS = "in_progress.json"


def render_pose(
    mesh: Mesh, normals: NDArray[np.float32], pose: Pose, config: RenderConfig, rng: np.random.Generator
) -> RgbImage:
    """One RGB image of ``mesh`` (with head-frame vertex ``normals``) at (yaw, pitch, roll) degrees."""
    return render_poses(mesh, normals, [pose], config, [rng])[0]


def render_poses(
    mesh: Mesh,
    normals: NDArray[np.float32],
    poses: Sequence[Pose],
    config: RenderConfig,
    rngs: Sequence[np.random.Generator],
) -> list[RgbImage]:
    """RGB images at several poses, each with the scene that its own generator draws."""
    rotations = [rotation_from_angles(Angles.from_columns(pose)).astype(np.float32) for pose in poses]
    scenes = [draw_scene(config.appearance, config.size, rng) for rng in rngs]
    cameras = [Camera.framing(config.size, HEAD_EXTENT_MM, s.fraction, s.distance, s.shift) for s in scenes]
    views = [camera.view(mesh.vertices, turn) for camera, turn in zip(cameras, rotations, strict=True)]
    fragments = get_rasterizer(config.rasterizer).many(views, mesh.faces, cameras, (config.size, config.size))
    return [
        expose(shade(seen, mesh, normals @ turn.T, scene.light, scene.background), scene, rng)
        for seen, turn, scene, rng in zip(fragments, rotations, scenes, rngs, strict=True)
    ]


def people_of(config: Config) -> dict[str, list[int]]:
    """Person numbers of each split; no person is in both."""
    train = config.heads.train
    return {
        "train": list(range(1, train + 1)),
        "validation": list(range(train + 1, train + config.heads.validation + 1)),
    }


def random_poses(config: Config, split: str, person: int) -> list[Pose]:
    """Seeded off-grid poses of one person, uniform inside the grid's range, to a hundredth of a degree.

    For training people every other one is drawn from the range widened by ``random_margin_deg``.
    """
    count = getattr(config.render, f"random_poses_{split}")
    rng = np.random.default_rng([config.seed, person, 1])
    margin = np.zeros((count, 3))
    if split == "train":
        margin[1::2] = config.render.random_margin_deg
    low, high = (np.array([axis[end] for axis in config.grid.pose_grid().axes]) for end in (0, -1))
    drawn = rng.uniform(low - margin, high + margin)
    return [(float(y), float(p), float(r)) for y, p, r in np.round(drawn, 2)]


def cache_folder(config: Config) -> Path:
    """Where this experiment keeps what is slow to read."""
    return config.workdir / "cache"


def render_people(config: Config, folder: Path) -> Path:
    """Render every person of every split below ``folder``; returns ``folder``, finished.

    Where images are not kept, only the index of people and poses is written. Raises ``ArtifactError``
    where ``folder`` holds anything that is not this stage's own work.
    """
    sections, inputs = render_sections(config), render_inputs(config)
    with exclusive(folder):
        _prepare(folder, digest_of([sections, inputs]))
        heads = open_heads(config.heads, config.seed, cache_folder(config))
        people = people_of(config)
        work = [(config, split, person, folder) for split, numbers in people.items() for person in numbers]
        if config.render.keep_images:
            for _ in run_tasks(_render_person, work, "Render", config.n_workers, config.cluster):
                pass
        poses = {f"{split}/ID{person}": {"random": random_poses(config, split, person)} for _, split, person, _ in work}
        index = {"convention": CONVENTION, "grid": config.grid.pose_grid().as_dict(), "random_poses": poses}
        write_json(folder / "renders.json", index)
        facts = {"people": people, "heads": heads.describe(), "images_per_person": config.grid.pose_grid().size}
        (folder / _IN_PROGRESS).unlink()
        write_manifest(folder, KIND, sections, inputs, facts)
    return folder


def extract_direct(config: Config, split: str, folder: Path, provenance: Provenance) -> Path:
    """Render and detect the people of one split in one go; returns the finished tensor's ``folder``.

    The tensor is the same, to the bit, as by way of lossless image files.
    """
    people = people_of(config)[split]
    angles = np.array([_by_name(person, random_poses(config, split, person))[0] for person in people])
    arguments = {person: (config, split, person) for person in people}
    return write_tensor(folder, angles.reshape(len(people), -1, 3), config, provenance, _person_rows, arguments)


def render_sections(config: Config) -> dict[str, object]:
    """The settings that rendered images depend on."""
    return config.sections("seed", "grid", "heads", "render")


def render_inputs(config: Config) -> dict[str, str]:
    """Digests of what is read to render: the user's photographs, or the names and sizes of a kit's many files."""
    photos, folder, listed = config.heads.photos, config.heads.folder, config.heads.publishable
    inputs = {}
    if photos is not None and photos.is_dir():
        inputs = {path.name: digest_of_file(path) for path in sorted(photos.iterdir()) if path.is_file()}
    if folder is not None and folder.is_dir():
        inputs["folder"] = digest_of_names_and_sizes(folder)
    if listed is not None and listed.is_file():
        inputs["publishable"] = digest_of_file(listed)
    return inputs


def render_cells(config: Config, person: int, numbers: Iterable[int]) -> Iterator[RgbImage]:
    """Images of one person at some cells of the grid, by their numbers in its order."""
    poses = config.grid.pose_grid().poses()
    return _drawn(config, person, ((number, poses[number]) for number in numbers))


def _prepare(folder: Path, digest: str) -> None:
    """Keep the images of an interrupted run with these settings; clear those of any other run."""
    marker = folder / _IN_PROGRESS
    ours = marker.is_file() or (folder / "renders.json").is_file()
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise ArtifactError(f"{folder} holds files that this stage did not write; choose another workdir")
    if not (marker.is_file() and read_json(marker).get("digest") == digest):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(marker, {"digest": digest})


@lru_cache(maxsize=1)
def _worker_heads(config: HeadsConfig, seed: int, cache: Path) -> HeadSource:
    """The heads, opened once in each worker."""
    return open_heads(config, seed, cache)


def _drawn(config: Config, person: int, numbered: Iterable[tuple[int, Pose]]) -> Iterator[RgbImage]:
    """Images of one person; the number of a pose, on the grid and then off it, seeds its scene."""
    mesh = _worker_heads(config.heads, config.seed, cache_folder(config)).head(person)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    batch = get_rasterizer(config.render.rasterizer).batch
    pending = iter(numbered)
    while chunk := list(itertools.islice(pending, batch)):
        rngs = [np.random.default_rng([config.seed, person, 2, number]) for number, _ in chunk]
        yield from render_poses(mesh, normals, [pose for _, pose in chunk], config.render, rngs)


def _render_person(config: Config, split: str, person: int, folder: Path) -> None:
    target = folder / split / f"ID{person}"
    (target / RANDOM_FOLDER).mkdir(parents=True, exist_ok=True)
    wanted = list(enumerate(_images(config, split, person, target)))
    absent = [(number, path, pose) for number, (path, pose) in wanted if not path.is_file()]
    drawn = _drawn(config, person, ((number, pose) for number, _, pose in absent))
    for (number, path, _), image in zip(absent, drawn, strict=True):
        low, high = config.render.jpeg_quality
        quality = int(np.random.default_rng([config.seed, person, 3, number]).integers(low, high + 1))
        _write_image(path, image, quality)


def _person_rows(config: Config, split: str, person: int) -> tuple[int, PersonRows]:
    grid = config.grid.pose_grid()
    off_grid = random_poses(config, split, person)
    _, order = _by_name(person, off_grid)
    numbered = [*enumerate(grid.poses()), *((grid.size + index, off_grid[index]) for index in order)]
    drawn = _drawn(config, person, numbered)
    on_grid = (next(drawn) for _ in range(grid.size))
    return person, person_rows(on_grid, drawn, grid.shape, config.landmarks)


def _by_name(person: int, poses: list[Pose]) -> tuple[list[Pose], list[int]]:
    """Poses in the order of their file names, in which a folder is read, and their places before."""
    order = sorted(range(len(poses)), key=lambda index: image_stem(person, *poses[index]))
    return [poses[index] for index in order], order


def _images(config: Config, split: str, person: int, target: Path) -> Iterator[tuple[Path, Pose]]:
    suffix = config.render.image_format
    for pose in config.grid.pose_grid().poses():
        yield target / f"{image_stem(person, *pose)}.{suffix}", pose
    for pose in random_poses(config, split, person):
        yield target / RANDOM_FOLDER / f"{image_stem(person, *pose)}.{suffix}", pose


def _write_image(path: Path, image: RgbImage, quality: int) -> None:
    # The fastest PNG: renders are temporary, and the strongest compression takes 30 ms an image.
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    done, encoded = cv2.imencode(path.suffix, image[..., ::-1], settings)
    if not done:
        raise OSError(f"{path}: the image could not be encoded")
    # A rename per image keeps a killed run from leaving half an image; thousands need no fsync.
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(encoded.tobytes())
    os.replace(temporary, path)
