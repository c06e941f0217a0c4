"""Heads to images on a pose grid, one folder per person, as ``ID{n}/ID{n}_(yaw_pitch_roll).jpg``.

Off-grid random poses lie in ``ID{n}/random``. Every image depends on the settings, the person and the
pose alone, so a run that was killed is continued by skipping the images that are there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from nlml_hpe.files.atomic import ArtifactError, read_json, write_json
from nlml_hpe.files.images import RgbImage
from nlml_hpe.files.locks import exclusive
from nlml_hpe.files.manifests import digest_of, write_manifest
from nlml_hpe.parallel import run_tasks
from nlml_hpe.pose_grid import RANDOM_FOLDER, image_stem
from nlml_hpe.rotation import CONVENTION
from renderer.people import NumberedPose, People

KIND = "renders"
_IN_PROGRESS = "in_progress.json"


def render_people(people: People, folder: Path, workers: int, cluster: str | None = None) -> Path:
    """Render every person of every split below ``folder``; returns ``folder``, finished.

    Where images are not kept, only the index of people and poses is written. Raises ``ArtifactError``
    where ``folder`` holds anything that is not this stage's own work.
    """
    settings, inputs = people.settings(), people.inputs()
    with exclusive(folder):
        _prepare(folder, digest_of([settings, inputs]))
        heads, numbers = people.open_heads(), people.numbers()
        work = [(people, split, person, folder) for split, persons in numbers.items() for person in persons]
        if people.render.keep_images:
            for _ in run_tasks(_render_person, work, "Render", workers, cluster):
                pass
        poses = {
            f"{split}/ID{person}": {"random": [pose for _, pose in people.off_grid(split, person)]}
            for _, split, person, _ in work
        }
        index = {"convention": CONVENTION, "grid": people.grid.as_dict(), "random_poses": poses}
        write_json(folder / "renders.json", index)
        facts = {"people": numbers, "heads": heads.describe(), "images_per_person": people.grid.size}
        (folder / _IN_PROGRESS).unlink()
        write_manifest(folder, KIND, settings, inputs, facts)
    return folder


def require_own(folder: Path) -> None:
    """Raise ``ArtifactError`` where ``folder`` holds anything that is not this stage's own work."""
    ours = (folder / _IN_PROGRESS).is_file() or (folder / "renders.json").is_file()
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise ArtifactError(f"{folder} holds files that this stage did not write; choose another workdir")


def _prepare(folder: Path, digest: str) -> None:
    """Keep the images of an interrupted run with these settings; clear those of any other run."""
    require_own(folder)
    marker = folder / _IN_PROGRESS
    if not (marker.is_file() and read_json(marker).get("digest") == digest):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(marker, {"digest": digest})


def _render_person(people: People, split: str, person: int, folder: Path) -> None:
    target = folder / split / f"ID{person}"
    (target / RANDOM_FOLDER).mkdir(parents=True, exist_ok=True)
    absent = [(path, pose) for path, pose in _images(people, split, person, target) if not path.is_file()]
    drawn = people.images(person, [pose for _, pose in absent])
    for (path, (number, _)), image in zip(absent, drawn, strict=True):
        low, high = people.render.jpeg_quality
        quality = int(np.random.default_rng([people.seed, person, 3, number]).integers(low, high + 1))
        _write_image(path, image, quality)


def _images(people: People, split: str, person: int, target: Path) -> Iterator[tuple[Path, NumberedPose]]:
    suffix = people.render.image_format
    for number, pose in people.on_grid():
        yield target / f"{image_stem(person, *pose)}.{suffix}", (number, pose)
    for number, pose in people.off_grid(split, person):
        yield target / RANDOM_FOLDER / f"{image_stem(person, *pose)}.{suffix}", (number, pose)


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
