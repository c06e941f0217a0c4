"""Images to the landmark tensor: ``python stages/Landmarks.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

from nlml_hpe.config import Config
from nlml_hpe.files.manifests import digest_of_names_and_sizes, manifest_digest
from nlml_hpe.manifold.extraction import extract
from nlml_hpe.manifold.tensor import KIND, LandmarkTensor, misses
from nlml_hpe.view.plots import plot_misses
from renderer.grid import extract_direct
from stages.common import Plan, Stage, Workdir, stage_command

SPLITS = ("train", "validation")


def images_of(config: Config, split: str) -> tuple[Path, str]:
    """Folder of one split's images and the digest that stands for it."""
    own: Path | None = getattr(config.landmarks, f"{split}_images")
    if own is not None:
        if not own.is_dir():
            raise FileNotFoundError(f"{own}: no such folder of images (landmarks.{split}_images)")
        return own, digest_of_names_and_sizes(own)
    renders = Workdir(config.workdir).renders
    return renders / split, manifest_digest(renders)


def plan(config: Config) -> Plan:
    """What both landmark tensors depend on."""
    work = Workdir(config.workdir)
    inputs = {split: images_of(config, split)[1] for split in SPLITS}
    return Plan((work.landmarks_train, work.landmarks_validation), KIND, config.sections("grid", "landmarks"), inputs)


def main(config: Config) -> Path:
    """Detect and normalise both splits; returns the folder of the training tensor."""
    work, made = Workdir(config.workdir), plan(config)
    for split, folder in zip(SPLITS, made.folders, strict=True):
        images, _ = images_of(config, split)
        own = getattr(config.landmarks, f"{split}_images")
        if own is None and not config.render.keep_images:
            extract_direct(config, split, folder, (made.settings, made.inputs))
        else:
            extract(images, folder, config, (made.settings, made.inputs))
        tensor = LandmarkTensor.open(folder)
        title, *by_axis = misses(tensor)
        print("\n  ".join([f"{split}: {title}", *by_axis]))
        plot_misses(tensor.detected, tensor.grid, work.root / f"landmarks_{split}_misses.png", f"{split}: {title}")
    return work.landmarks_train


STAGE = Stage("Landmarks", plan, main)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Detect landmarks on rendered images."))
