"""Crops of heads a second, and whether versions of the code draw the same: ``python benchmarks/crops.py --config C``.

C is a configuration of the image eye whose people are rendered, with ``heads.folder`` where ICT-FaceKit lies, such as
``configs/image_ict_masked.yaml``. One process draws the first people again and again. Figures of two processes
beside each other come from two of these at once. On one machine the SHA-256 of all crops is to be the same after a
change that is not meant to change them.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2

from benchmarks.common import report
from renderer.crop_drawing import Crop
from renderer.crops import CropSet
from stages.config import load_config
from stages.Crops import crop_set


def main(config: Path, people: int, rounds: int) -> None:
    """Draw the people that many times and once more before, which reads the kit and compiles."""
    # Workers of the stage have one thread each, too.
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        drawn = replace(crop_set(load_config(config), "train"), cache=Path(folder))
        numbers = drawn.people()[:people]
        first = _crops(drawn, numbers)
        rates = [_rate(drawn, numbers) for _ in range(rounds)]
    rows = [{"round": number, "crops a second": round(rate, 1)} for number, rate in enumerate(rates, 1)]
    notes = [f"{len(numbers)} people, {len(first)} crops of {config.name}; SHA-256 {_digest(first)}."]
    report("crops", "Crops of heads, one process, processor time", rows, notes)


def _digest(crops: list[Crop]) -> str:
    digest = hashlib.sha256()
    for crop in crops:
        for part in (crop.image, crop.rotation, crop.box):
            digest.update(part.tobytes())
    return digest.hexdigest()


def _crops(people: CropSet, numbers: list[int]) -> list[Crop]:
    return [crop for number in numbers for crop in people.of_person(number)]


def _rate(people: CropSet, numbers: list[int]) -> float:
    begun = time.process_time()
    count = len(_crops(people, numbers))
    return count / (time.process_time() - begun)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="whose people are drawn")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    main(given.config, given.people, given.rounds)
