"""``nlml-hpe predict``: poses of the faces in images."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from nlml_hpe.cli.interrupt import STOPPED, stopping
from nlml_hpe.cli.options import CONE_HELP, HEADS_HELP, add_model, model_files, open_estimator
from nlml_hpe.cli.places import (
    STDOUT,
    Entry,
    Inputs,
    expand,
    in_table,
    require_drawings,
    require_table,
    shown,
    table_place,
)
from nlml_hpe.cli.streams import say_error
from nlml_hpe.cli.tables import (
    COLUMNS,
    FACE,
    NO_FACE,
    UNREADABLE,
    as_csv,
    as_json,
    face_line,
    face_rows,
    write_table,
)
from nlml_hpe.detection.detectors import MAX_FACES
from nlml_hpe.face import HeadPose
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.files.images import ImageReadError, RgbImage, read_image, user_path
from nlml_hpe.inference.batches import read_batches
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.view.draw import draw_poses
from nlml_hpe.words import BAR_DELAY_SECONDS, counted, on_one_line, said_of


def add_parser(commands: Any) -> None:
    """Add the command to a parser's."""
    predict = commands.add_parser(
        "predict",
        help="pose of the faces in images",
        description="Poses of the faces in images: yaw, pitch and roll in degrees, and one standard deviation of each.",
    )
    predict.add_argument(
        "images", nargs="+", metavar="IMAGE|FOLDER|PATTERN", help="folders are read without those below"
    )
    predict.add_argument("--largest", action="store_true", help="the largest face of an image alone (default: all)")
    predict.add_argument("--draw", type=user_path, metavar="DIR", help="write copies with axes drawn, as JPEG")
    predict.add_argument("--cone", action="store_true", help=CONE_HELP)
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", nargs="?", const=STDOUT, metavar="FILE", help="as JSON, to a file or to stdout")
    form.add_argument("--csv", nargs="?", const=STDOUT, metavar="FILE", help="as CSV, to a file or to stdout")
    add_model(predict)
    predict.add_argument("--heads", action="store_true", help=HEADS_HELP)
    predict.set_defaults(work=run)


@dataclass
class _Outcome:
    """One row an image, and what is to be said at the end."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    undrawn: int = 0
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True

    def count(self, status: str) -> int:
        return sum(row["status"] == status for row in self.rows)

    def summary(self, inputs: Inputs) -> str:
        """What was done with the inputs, counted, in words."""
        read = self.count(FACE) + self.count(NO_FACE)
        parts = [
            f"{counted(read, 'image')}, {self.count(NO_FACE)} without a face, {self.count(UNREADABLE)} not readable"
        ]
        if self.undrawn:
            parts.append(f"{counted(self.undrawn, 'drawing')} not written")
        if inputs.skipped:
            parts.append(inputs.skipped_text())
        if self.stopped:
            done = f"{len(self.rows)} of {counted(len(inputs.entries), 'image')}"
            parts.append(f"stopped after {done}; the answers until then are kept")
        return "; ".join(parts)


def run(given: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    if given.cone and not given.draw:
        given.command.error("--cone is for --draw DIR, which is missing")
    inputs = expand(given.images)
    target = _table(given)
    _check(given, inputs, target)
    outcome = _Outcome()
    with open_estimator(given, MAX_FACES, tracking=False) as estimator, stopping(outcome.stop):
        # Detectors print lines of their own when they start, which would tear the bar.
        estimator.detect(np.zeros((64, 64, 3), dtype=np.uint8), given.looks)
        few = len(inputs.entries) < 2
        total = len(inputs.entries)
        with tqdm(total=total, desc="Predict", unit="image", disable=few, delay=BAR_DELAY_SECONDS) as bar:
            # What was read when Ctrl-C was pressed is answered; nothing more is read.
            wanted = takewhile(lambda _: not outcome.stopped, inputs.entries)
            for batch in read_batches(wanted, _read):
                _predict_batch(given, estimator, batch, outcome)
                bar.update(len(batch))
    written = _emit(outcome.rows, given, target)
    print(outcome.summary(inputs), file=sys.stderr)
    if outcome.stopped:
        return STOPPED
    return 0 if written and not outcome.count(UNREADABLE) and not outcome.undrawn else 1


def _table(given: argparse.Namespace) -> Path | None:
    option, name = ("--csv", given.csv) if given.json is None else ("--json", given.json)
    return table_place(option, name)


def _check(given: argparse.Namespace, inputs: Inputs, target: Path | None) -> None:
    """Whatever can be known before the first image: outputs that cannot be written, names that lead nowhere."""
    files = inputs.files
    if target is not None:
        require_table("--json" if given.json else "--csv", target, [*files, *model_files(given)])
    if given.draw:
        names = [_drawing(number, entry.path) for number, entry in enumerate(inputs.entries)]
        require_drawings(given.draw, names, files)
    odd = [shown(path) for path in files if in_table(path) != str(path)]
    if odd:
        print(f"names that are not UTF-8 are written with their bytes as \\xNN: {', '.join(odd)}", file=sys.stderr)
    for path, problem in inputs.entries:
        if problem:
            say_error(f"{shown(path)}: {problem}")


def _drawing(number: int, path: Path) -> str:
    return f"{number:05d}_{path.stem}.jpg"


def _read(entry: Entry) -> RgbImage | ImageReadError:
    """The image, or why there is none."""
    if entry.problem:
        return ImageReadError(entry.problem)
    try:
        return read_image(entry.path)
    except ImageReadError as error:
        return error
    except MemoryError as error:  # of a large one, which must not cost the answers of the others
        return ImageReadError(f"{entry.path}: {said_of(error)}; make the image smaller")


def _predict_batch(
    given: argparse.Namespace,
    estimator: HeadPoseEstimator,
    batch: Sequence[tuple[Entry, RgbImage | ImageReadError]],
    outcome: _Outcome,
) -> None:
    images = [image for _, image in batch if not isinstance(image, ImageReadError)]
    answers = iter(estimator.predict_batch(images, not given.no_refine, given.eye, given.looks))
    for entry, image in batch:
        row: dict[str, Any] = {"image": in_table(entry.path), "status": UNREADABLE, "faces_found": 0, "faces": []}
        if isinstance(image, ImageReadError):
            row["error"] = in_table(str(image))
            if not entry.problem:  # which was said before the first image
                say_error(shown(str(image)))
        else:
            poses = next(answers)
            chosen = poses[:1] if given.largest else poses
            row |= {"status": FACE if poses else NO_FACE, "faces_found": len(poses)}
            row["faces"] = [pose.as_dict() for pose in chosen]
            _draw(given, image, chosen, _drawing(len(outcome.rows), entry.path), outcome)
        outcome.rows.append(row)


def _draw(given: argparse.Namespace, image: RgbImage, poses: Sequence[HeadPose], name: str, outcome: _Outcome) -> None:
    if given.draw:
        try:
            _save(draw_poses(image, poses, given.cone), given.draw / name)
        except OSError as error:
            # A full disk must not cost the answers.
            say_error(error)
            outcome.undrawn += 1


def _save(image: RgbImage, path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=92)
    write_bytes(path, stream.getvalue())


def _emit(rows: list[dict[str, Any]], given: argparse.Namespace, target: Path | None) -> bool:
    if given.json:
        return write_table(as_json(rows), target)
    if given.csv:
        table = ({"image": row["image"], **flat} for row in rows for flat in face_rows(row["faces"], row["status"]))
        return write_table(as_csv(("image", *COLUMNS), table), target)
    for row in rows:
        if row["status"] != UNREADABLE:
            lines = [face_line(face) for face in row["faces"]] or ["no face found"]
            print("\n".join(f"{on_one_line(row['image'])}  {line}" for line in lines))
    return True
