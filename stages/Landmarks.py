"""Images to the landmark tensor: ``python stages/Landmarks.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import stages.guard  # noqa: F401

import numpy as np

from nlml_hpe.config import LandmarksConfig
from nlml_hpe.detection.detectors import DETECTORS, open_detector
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import digest_of, digest_of_names_and_sizes, is_current, read_manifest
from nlml_hpe.manifold.extraction import Extraction, extract, person_rows, write_tensor
from nlml_hpe.manifold.tensor import KIND, LandmarkTensor, misses
from nlml_hpe.manifold.tensor_writer import PersonRows
from nlml_hpe.version import VERSION, version_of
from nlml_hpe.view.manifold_plots import plot_misses
from renderer.grid import KIND as RENDERS
from renderer.people import People
from stages.common import Plan, Stage, Workdir, stage_command
from stages.config import Config

SPLITS = ("train", "validation")


def own_images(config: Config, split: str) -> Path | None:
    """The user's folder of one split's images, where there is one in place of our renders."""
    own: Path | None = getattr(config.landmarks, f"{split}_images")
    if own is not None and not own.is_dir():
        raise FileNotFoundError(f"{own}: no such folder of images (landmarks.{split}_images)")
    return own


def plan(config: Config) -> Plan:
    """What both landmark tensors depend on.

    Raises ``ArtifactError`` where people are drawn here that Render has not declared finished, and ``ValueError`` where
    both splits are of the same images.
    """
    work, name = Workdir(config.workdir), config.landmarks.detector
    own = {split: own_images(config, split) for split in SPLITS}
    train, validation = ((own[split] or work.renders / split).resolve() for split in SPLITS)
    if train == validation:
        raise ValueError(
            f"{train} is the folder of images of both splits: errors on people who were learned from say nothing; "
            "let landmarks.train_images and landmarks.validation_images be of different people"
        )
    if not config.render.keep_images:
        require_declared(config, [split for split, folder in own.items() if folder is None])
    # Without lists, which `datasets list` and `split` write there: one more of them changes no image.
    others = {split: digest_of_names_and_sizes(folder, ".txt") for split, folder in own.items() if folder is not None}
    others["detector"] = f"{name} of {DETECTORS[name].package} {version_of(DETECTORS[name].package)}"
    reads = {work.renders: RENDERS} if None in own.values() else {}
    folders = (work.landmarks_train, work.landmarks_validation)
    pictures = tuple(_place_of_plot(config, split) for split in SPLITS)
    return Plan(folders, KIND, config.sections("grid", "landmarks"), reads, others, pictures=pictures)


def check(config: Config) -> None:
    """Raise what is wrong with the detector or with the folders of the user's own images."""
    for split in SPLITS:
        own_images(config, split)
    marks = config.landmarks
    open_detector(marks.detector, min_confidence=marks.min_confidence, bundle=marks.bundle).close()


def main(config: Config) -> Path:
    """Detect and normalise both splits; returns the folder of the training tensor."""
    work, made = Workdir(config.workdir), plan(config)
    anew = made.is_current()  # run all the same: by --force
    for split, folder in zip(SPLITS, made.folders, strict=True):
        # One split may be finished, by a run that was stopped in the other.
        if anew or not is_current(folder, KIND, made.settings, made.inputs):
            _extract_split(config, split, folder, made, anew)
        _draw_split(config, split, folder)
    return work.landmarks_train


def draw(config: Config) -> None:
    """Which faces of each split were missed."""
    work = Workdir(config.workdir)
    for split, folder in zip(SPLITS, (work.landmarks_train, work.landmarks_validation), strict=True):
        _draw_split(config, split, folder)


def _draw_split(config: Config, split: str, folder: Path) -> None:
    tensor = LandmarkTensor.open(folder)
    title, *by_axis = misses(tensor)
    print("\n  ".join([f"{split}: {title}", *by_axis]))
    plot_misses(tensor.detected, tensor.grid, _place_of_plot(config, split), f"{split}: {title}")


def _place_of_plot(config: Config, split: str) -> Path:
    return config.workdir / f"landmarks_{split}_misses.png"


def _extract_split(config: Config, split: str, folder: Path, made: Plan, anew: bool) -> None:
    own = own_images(config, split)
    keys = {} if own else person_keys(config, split, made)
    doing = (config.n_workers, config.cluster, keys, anew)
    extraction = Extraction(config.grid.pose_grid(), config.landmarks, made.settings, made.inputs, *doing)
    if own is None and not config.render.keep_images:
        extract_direct(config.people(), split, folder, extraction)
    else:
        extract(own or Workdir(config.workdir).renders / split, folder, extraction)


def require_declared(config: Config, splits: Sequence[str]) -> None:
    """Raise ``ArtifactError`` unless Render has declared exactly the people finished whom this configuration draws.

    The tensor's manifest names these renders, of which there are no images: what is drawn here must be the same.
    """
    if not splits:
        return
    work, people = Workdir(config.workdir), config.people()
    declared = read_manifest(work.renders, RENDERS)["facts"]["keys"]
    drawn = {f"{split}/ID{number}": key for split in splits for number, key in people.keys(split).items()}
    if drawn != {name: key for name, key in declared.items() if name.split("/")[0] in splits}:
        raise ArtifactError(
            f"{work.renders} is of other people, photographs or settings than this configuration draws "
            "(render.keep_images: false); run Render with this configuration first"
        )


def person_keys(config: Config, split: str, made: Plan) -> dict[int, str]:
    """By person the digest of all that the rows of the tensor depend on: its images, the detector, this package.

    The images are those that Render declared finished, which need not be of this configuration where they are kept.
    """
    rendered = read_manifest(Workdir(config.workdir).renders, RENDERS)["facts"]["keys"]
    common = [VERSION, config.sections("landmarks"), made.inputs["detector"]]
    numbers = config.people().numbers()[split]
    keys = {number: rendered.get(f"{split}/ID{number}") for number in numbers}
    return {number: digest_of([*common, key]) for number, key in keys.items() if key is not None}


def extract_direct(people: People, split: str, folder: Path, extraction: Extraction) -> Path:
    """Render and detect the people of one split in one go; returns the finished tensor's ``folder``.

    The tensor is the same, to the bit, as by way of lossless image files.
    """
    persons = people.numbers()[split]
    angles = np.array([[pose for _, pose in people.off_grid(split, person)] for person in persons])
    arguments = {person: (people, split, person, extraction.landmarks) for person in persons}
    return write_tensor(folder, angles.reshape(len(persons), -1, 3), extraction, _rendered_rows, arguments)


def _rendered_rows(people: People, split: str, person: int, landmarks: LandmarksConfig) -> tuple[int, PersonRows]:
    on_grid = people.on_grid()
    drawn = people.images(person, [*on_grid, *people.off_grid(split, person)])
    return person, person_rows((next(drawn) for _ in on_grid), drawn, people.grid.shape, landmarks)


STAGE = Stage("Landmarks", plan, main, check=check, draw=draw)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Detect landmarks on rendered images."))
