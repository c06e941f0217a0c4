"""Crops of heads a second, and whether versions of the code draw the same: ``python benchmarks/crops.py --config C``.

C is a configuration of the image eye whose people are rendered, with ``heads.folder`` where ICT-FaceKit lies, such as
``configs/image_ict_masked.yaml``. One process draws the first people again and again (with ``OMP_NUM_THREADS=1``:
processor time counts the threads of BLAS that wait, too). On one machine the SHA-256 of all
crops is to be the same after a change that is not meant to change them. Then, with ``--stage 360``, the stage itself
draws so many people, a sixth of them for validation, with two workers in a folder of its own: by the clock, first with
nothing there, then once more with what it keeps of the kit and the clothes.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import cv2
import yaml

from benchmarks.common import report
from nlml_hpe.image_networks.shards import read_shards
from renderer.crop_drawing import Crop
from renderer.crops import CropSet
from stages.common import Workdir
from stages.config import Config, load_config
from stages.Crops import crop_set

_STAGE = Path(__file__).parents[1] / "stages" / "Crops.py"
_WORKERS = 2
_VALIDATION = 6
"""One of so many people is one of validation."""


def main(config: Path, people: int, rounds: int, stage: int) -> None:
    """Draw the people that many times and once more before, which reads the kit and compiles; then run the stage."""
    # Workers of the stage have one thread each, too.
    cv2.setNumThreads(1)
    read = load_config(config)
    with tempfile.TemporaryDirectory() as folder:
        drawn = replace(crop_set(read, "train"), cache=Path(folder))
        numbers = drawn.people()[:people]
        first = _crops(drawn, numbers)
        rates = [_rate(drawn, numbers) for _ in range(rounds)]
    rows = [_row(f"one process, processor time, round {number}", rate) for number, rate in enumerate(rates, 1)]
    notes = [f"{len(numbers)} people, {len(first)} crops of {config.name}; SHA-256 {_digest(first)}."]
    if stage:
        rows += _stage_rows(read, stage)
        notes.append(f"The stage: {stage} people, {_WORKERS} workers, by the clock.")
    report("crops", "Crops of heads", rows, notes)


def _row(what: str, rate: float) -> dict[str, Any]:
    return {"measured": what, "crops a second": round(rate, 1)}


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


def _stage_rows(config: Config, people: int) -> list[dict[str, Any]]:
    """The stage from its command to its end, twice, and while its workers draw."""
    with tempfile.TemporaryDirectory() as folder:
        heads = {"train": people - people // _VALIDATION, "validation": people // _VALIDATION}
        own = config.model_copy(
            update={
                "workdir": Path(folder),
                "workers": _WORKERS,
                "cluster": None,
                "heads": config.heads.model_copy(update=heads),
            }
        )
        settings = Path(folder) / "config.yaml"
        settings.write_text(yaml.safe_dump(own.model_dump(mode="json")), encoding="utf-8")
        first = _seconds(settings)
        again = _seconds(settings, "--force")
        work = Workdir(Path(folder))
        folders = (work.crops_train, work.crops_validation)
        count = sum(len(shard) for split in folders for shard in read_shards(split))
        steady = _steady(folders)
    rows = [("while the workers draw", steady), ("its start counted", count / again)]
    rows.append(("its start counted, kit and clothes read anew", count / first))
    return [_row(f"the stage, {what}", rate) for what, rate in rows]


def _seconds(settings: Path, *options: str) -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, _STAGE, "--config", settings, *options], check=True)
    return time.monotonic() - begun


def _steady(folders: Sequence[Path]) -> float:
    """Crops a second from the first shard that was written to the last but one, when a worker has nothing left."""
    shards = [
        (file.stat().st_mtime, len(shard))
        for folder in folders
        for file, shard in zip(sorted(folder.glob("images_*.npy")), read_shards(folder), strict=True)
    ]
    if len(shards) < 3 * _WORKERS:
        raise SystemExit(f"{len(shards)} shards are too few to measure by; name more people")
    shards.sort()
    return sum(count for _, count in shards[1:-1]) / (shards[-2][0] - shards[0][0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="whose people are drawn")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stage", type=int, default=0, metavar="PEOPLE", help="also run the stage, with so many")
    given = parser.parse_args()
    main(given.config, given.people, given.rounds, given.stage)
