"""Heads to images on a pose grid, one folder per person, as ``ID{n}/ID{n}_(yaw_pitch_roll).jpg``.

Off-grid random poses lie in ``ID{n}/random``. Every image depends on the settings, the person and the
pose alone, so a run that was killed is continued by skipping the images that are there, and people that are added
later are rendered beside those that are there.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from nlml_hpe.files.atomic import JOURNAL, OWN_PREFIX, ArtifactError, read_json, write_bytes, write_json
from nlml_hpe.files.folders import foreign_entries, own_entries, place_of, remove_own, require_replaceable
from nlml_hpe.files.images import RgbImage, with_swapped_colors
from nlml_hpe.files.locks import await_leases, exclusive, lease
from nlml_hpe.files.manifests import MANIFEST, changed_files, read_manifest, write_manifest
from nlml_hpe.parallel import run_tasks
from nlml_hpe.pose_grid import RANDOM_FOLDER, image_stem
from nlml_hpe.rotation import CONVENTION
from nlml_hpe.version import VERSION
from renderer.people import NumberedPose, People

KIND = "renders"
_INDEX = "renders.json"
_RUN = f"{OWN_PREFIX}run.json"
"""Which run writes into a folder, and the key of each person in it. It goes when they are finished."""


def render_people(people: People, folder: Path, workers: int, cluster: str | None) -> Path:
    """Render every person of every split.

    Where images are not kept, only the index of people and poses is written. Workers that a killed run left in
    ``folder`` are waited for.

    Parameters
    ----------
    people : People
        Who is rendered, and how.
    folder : Path
        Where the images go; of a symbolic link the folder that it names. What an interrupted run left there is gone on
        with.
    workers, cluster
        As of ``parallel.run_tasks``.

    Returns
    -------
    Path
        ``folder``, finished.

    Raises
    ------
    ArtifactError
        Where ``folder`` holds anything that is not this stage's own work, where a worker of an earlier run does not
        end, or where an image is not of the size that was asked for.
    """
    settings, inputs = people.settings(), people.inputs()
    place = place_of(folder)
    with exclusive(place):
        run = _prepare(people, place)
        heads, numbers = people.open_heads(), people.numbers()
        if people.render.keep_images:
            work = [(people, split, person, folder, run) for split, persons in numbers.items() for person in persons]
            for _ in run_tasks(_render_person, work, "Render", workers, cluster):
                pass
            _require_finished(people, place)
        poses = {
            f"{split}/ID{person}": {"random": [pose for _, pose in people.off_grid(split, person)]}
            for split, persons in numbers.items()
            for person in persons
        }
        index = {"convention": CONVENTION, "grid": people.grid.as_dict(), "random_poses": poses}
        write_json(place / _INDEX, index)
        facts = {
            "people": numbers,
            "heads": heads.describe(),
            "images_per_person": people.grid.size,
            "keys": person_keys(people),
        }
        write_manifest(place, KIND, settings, inputs, facts)
        for name in (JOURNAL, _RUN):
            (place / name).unlink()
    return folder


def person_keys(people: People) -> dict[str, str]:
    """By the folder of each person, the digest of all that its images depend on."""
    return {f"{split}/ID{n}": key for split in people.numbers() for n, key in people.keys(split).items()}


def _prepare(people: People, folder: Path) -> str:
    """Take over the folder: keep images of people with the same keys, clear all others. Returns what names this run.

    From here on workers of an earlier run see that it is not theirs any more; they are waited for.
    """
    require_replaceable(folder, KIND)
    wanted, run = person_keys(people), secrets.token_hex(8)
    made, stale = _made(folder)
    kept = {owner for owner, key in wanted.items() if made.get(owner) == key} if people.render.keep_images else set()
    if stale is not None and not stale and made == wanted:
        kept = set()  # finished and whole: who runs this wants it anew
    # Without keys: a run that is killed while it clears leaves nothing that the next one takes for its own.
    write_json(folder / _RUN, {"run": run})
    await_leases(folder)
    if kept:
        _clear(folder, kept, stale or [])
    else:
        remove_own(folder, KIND)
        folder.mkdir(parents=True)
    names = [path.relative_to(folder).as_posix() for path in _all_images(people, folder)]
    lines = [json.dumps(name) for name in (KIND, _INDEX, *names)]
    write_bytes(folder / JOURNAL, "".join(f"{line}\n" for line in lines).encode())
    (folder / MANIFEST).unlink(missing_ok=True)
    write_json(folder / _RUN, {"run": run, "version": VERSION, "keys": wanted})
    return run


def _made(folder: Path) -> tuple[dict[str, str], list[str] | None]:
    """Keys of the people who are rendered, maybe in part, and files that were changed since; None if unfinished."""
    if (folder / MANIFEST).is_file():  # a run that is killed right after it has written this leaves its mark, too
        try:
            manifest = read_manifest(folder, KIND)
            current = manifest.get("package_version") == VERSION
            return (manifest["facts"].get("keys", {}), changed_files(folder, manifest)) if current else ({}, None)
        except ArtifactError:
            return {}, None
    run = read_json(folder / _RUN) if (folder / _RUN).is_file() else {}
    return (run["keys"] if run.get("version") == VERSION else {}), None


def _clear(folder: Path, kept: Set[str], stale: Sequence[str]) -> None:
    """Remove our images of people who are not kept, and what of the others was changed; nothing that is not ours."""
    images = [name for name in own_entries(folder, KIND) if (folder / name).is_file() and name.count("/") > 1]
    for name in images:
        owner = "/".join(name.split("/")[:2])
        if owner not in kept or name in stale:
            (folder / name).unlink()
    # What a killed run or worker was writing; nobody writes now.
    for path in folder.rglob(f"{OWN_PREFIX}*"):
        if path not in (folder / _RUN, folder / JOURNAL):
            path.unlink()
    # The deepest first; those that are not empty stay.
    for path in sorted((p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        with suppress(OSError):
            path.rmdir()


def _require_run(folder: Path, run: str) -> None:
    """Raise ``ArtifactError`` where another run has taken over the folder that a worker writes into."""
    if read_json(folder / _RUN).get("run") != run:
        raise ArtifactError(f"{folder} was taken over by another run")


def _render_person(people: People, split: str, person: int, folder: Path, run: str) -> None:
    place = place_of(folder)  # as this machine has it
    with lease(place):
        _require_run(place, run)
        target = place / split / f"ID{person}"
        absent = [(path, pose) for path, pose in _images(people, split, person, target) if not path.is_file()]
        drawn = people.images(person, [pose for _, pose in absent])
        for (path, (number, _)), image in zip(absent, drawn, strict=True):
            low, high = people.render.jpeg_quality
            quality = int(np.random.default_rng([people.seed, person, 3, number]).integers(low, high + 1))
            _require_run(place, run)
            _write_image(path, image, quality)


def _require_finished(people: People, folder: Path) -> None:
    """Raise ``ArtifactError`` unless every image is there and of the right size, and nothing else beside them."""
    size = people.render.size
    for path in _all_images(people, folder):
        try:
            with Image.open(path) as image:
                found = image.size
        except OSError as error:
            raise ArtifactError(f"{path} does not read ({error}); delete it and run Render again") from error
        if found != (size, size):
            raise ArtifactError(
                f"{path} has {found[0]} x {found[1]} pixels, expected {size} x {size}; delete it and run Render again"
            )
    foreign = foreign_entries(folder, KIND)
    if foreign:
        raise ArtifactError(f"{folder} holds what this stage did not write: {foreign[0]}; move it away and run again")


def _all_images(people: People, folder: Path) -> Iterator[Path]:
    """The images of all people; none where they are not kept."""
    for split, persons in people.numbers().items() if people.render.keep_images else ():
        for person in persons:
            yield from (path for path, _ in _images(people, split, person, folder / split / f"ID{person}"))


def _images(people: People, split: str, person: int, target: Path) -> Iterator[tuple[Path, NumberedPose]]:
    suffix = people.render.image_format
    for number, pose in people.on_grid():
        yield target / f"{image_stem(person, *pose)}.{suffix}", (number, pose)
    for number, pose in people.off_grid(split, person):
        yield target / RANDOM_FOLDER / f"{image_stem(person, *pose)}.{suffix}", (number, pose)


def _write_image(path: Path, image: RgbImage, quality: int) -> None:
    # The fastest PNG: renders are temporary, and the strongest compression takes 30 ms an image.
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    done, encoded = cv2.imencode(path.suffix, with_swapped_colors(image), settings)
    if not done:
        raise OSError(f"{path}: the image could not be encoded")
    write_bytes(path, encoded.tobytes())
