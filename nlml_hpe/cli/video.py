"""``nlml-hpe video``: poses in a video or from a webcam."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from nlml_hpe.cli.interrupt import STOPPED, stopping
from nlml_hpe.cli.options import CONE_HELP, HEADS_HELP, add_model, model_files, open_estimator
from nlml_hpe.cli.places import require_output, require_table, shown, table_place
from nlml_hpe.cli.rows import RowTable
from nlml_hpe.cli.tables import COLUMNS, face_rows
from nlml_hpe.detection.detectors import MAX_FACES
from nlml_hpe.files.images import RgbImage, user_path, with_swapped_colors
from nlml_hpe.inference.fixed_lag import SMOOTHER_NAMES
from nlml_hpe.inference.heads import HeadSearch
from nlml_hpe.inference.video import FrameResult, Summary, process
from nlml_hpe.inference.video_files import VideoSource, require_video_name
from nlml_hpe.words import BAR_DELAY_SECONDS


def add_parser(commands: Any) -> None:
    """Add the command to a parser's."""
    video = commands.add_parser(
        "video", help="pose in a video or from a webcam", description="Poses in a video or from a webcam."
    )
    video.add_argument("input", nargs="?", type=user_path, metavar="IN", help="the video")
    video.add_argument("output", nargs="?", type=user_path, metavar="OUT", help="a copy with axes drawn (.mp4)")
    video.add_argument(
        "--webcam",
        type=int,
        metavar="N",
        help="camera number, in place of IN (`video --webcam 0 OUT.mp4` records); q or Ctrl-C ends",
    )
    video.add_argument("--cone", action="store_true", help=CONE_HELP)
    video.add_argument("--overwrite", action="store_true", help="replace OUT where it is there already")
    video.add_argument("--smooth", action="store_true", help="smooth the poses over time; never use it to measure")
    video.add_argument(
        "--smoother",
        choices=sorted(SMOOTHER_NAMES),
        help="with --smooth: how (default: fixed_lag of a file, kalman of a camera, whose pictures fixed_lag would "
        "show a third of a second late)",
    )
    video.add_argument(
        "--csv",
        metavar="FILE",
        help="a row for each head and frame, to a file or to stdout (-); to stdout, too, without OUT",
    )
    video.add_argument(
        "--max-faces", type=int, default=MAX_FACES, metavar="N", help=f"faces to follow (default: {MAX_FACES})"
    )
    video.add_argument("--heads", action="store_true", help=HEADS_HELP)
    add_model(video)
    video.set_defaults(work=run)


def run(given: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    if given.webcam is not None and given.output is None:
        # Of a camera the one name there is can only be that of the copy.
        given.input, given.output = None, given.input
    if (given.input is None) == (given.webcam is None):
        given.command.error("expected a video file or --webcam N, and not both")
    _refuse_without_effect(given)
    target, has_table = table_place("--csv", given.csv), given.csv is not None or given.output is None
    with ExitStack() as stack:
        video = stack.enter_context(VideoSource(given.input if given.webcam is None else given.webcam))
        _check(given, target)
        estimator = stack.enter_context(open_estimator(given, given.max_faces, tracking=True))
        # Detectors print lines of their own when they start, which would tear the bar.
        estimator.detect(np.zeros((64, 64, 3), dtype=np.uint8))
        show = _window if given.webcam is not None and _has_windows() else None
        stack.enter_context(stopping(video.stop))
        options = given.smooth, not given.no_refine, show, given.eye, given.smoother, given.looks
        search = HeadSearch(providers=given.providers) if given.heads else None
        boxes = None if search is None else partial(search.boxes, eye=estimator.eyes.image)
        results = process(video, estimator, given.output, *options, boxes=boxes, cone=given.cone)
        columns = ("frame", "seconds", "track", *COLUMNS)
        table = stack.enter_context(RowTable(columns, target)) if has_table else None
        # On a terminal rows would tear the bar, and show by themselves how far the work is.
        is_quiet = has_table and target is None and sys.stdout.isatty()
        total = video.expected or None
        bar = stack.enter_context(
            tqdm(desc="Video", unit="frame", total=total, delay=BAR_DELAY_SECONDS, disable=is_quiet)
        )
        for result in results:
            if isinstance(result, Summary):
                summary = result
                continue
            bar.update()
            if table is not None:
                table.put(_frame_rows(result))
    print(summary.text(), file=sys.stderr)
    if summary.stopped and given.webcam is None:
        return STOPPED
    is_whole = table is None or table.is_written
    return 0 if is_whole and summary.frames and not summary.ends_early else 1


def _refuse_without_effect(given: argparse.Namespace) -> None:
    """End with code 2 for an option that says how to do what is not asked for."""
    if given.smoother is not None and not given.smooth:
        given.command.error("--smoother is for --smooth, which is missing")
    if given.cone and given.output is None and given.webcam is None:
        given.command.error("--cone is for a copy; name OUT, too")


def _check(given: argparse.Namespace, table: Path | None) -> None:
    """Outputs that must not or cannot be written, before the first frame."""
    inputs = [*([] if given.input is None else [given.input]), *model_files(given)]
    if table is not None:
        require_table("--csv", table, inputs)
    if given.output is None:
        return
    require_video_name(given.output)
    require_output("OUT", given.output, inputs)
    # A shell makes `video *.mp4` of two videos IN and OUT.
    if given.output.is_file() and not given.overwrite:
        raise ValueError(f"{shown(given.output)} is there already; --overwrite replaces it")


def _frame_rows(result: FrameResult) -> list[dict[str, Any]]:
    at = {"frame": result.frame.number, "seconds": round(result.frame.seconds, 4)}
    tracks = [pose.track for pose in result.poses] or [None]
    rows = face_rows([pose.as_dict() for pose in result.poses])
    return [{**at, "track": track, **row} for track, row in zip(tracks, rows, strict=True)]


def _has_windows() -> bool:
    """Whether a window can be shown; says so where not: the package that inference needs has none."""
    reason = ""
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        reason = "this OpenCV has none; `pip install opencv-python` brings one"
    elif platform.system() == "Linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        # There OpenCV would end the whole program.
        reason = "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    if reason:
        print(f"no window: {reason}; Ctrl-C ends", file=sys.stderr)
    return not reason


def _window(result: FrameResult, drawn: RgbImage) -> bool:
    """Show a frame; false when q or Escape was pressed."""
    cv2.imshow("nlml-hpe", with_swapped_colors(drawn))
    return (cv2.waitKey(1) & 0xFF) not in (ord("q"), 27)
