"""``nlml-hpe``: head pose of images, folders, videos and a webcam. Results go to stdout, messages to stderr.

Exit codes: 0 all is well, 1 something could not be done (the message says what), 2 the command is not valid.
"""

from __future__ import annotations

import argparse
import csv
import glob
import importlib.util
import io
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
from PIL import Image
from tqdm import tqdm

from nlml_hpe.detection.detectors import DETECTORS, MAX_FACES, DetectorError, open_detector
from nlml_hpe.files.atomic import ArtifactError, write_bytes
from nlml_hpe.files.images import IMAGE_SUFFIXES, ImageReadError, RgbImage, read_image
from nlml_hpe.inference.engines import ONNX_FILE, SHIPPED, OnnxEngine
from nlml_hpe.inference.estimator import HeadPose, HeadPoseEstimator
from nlml_hpe.inference.video import FrameResult, Summary, VideoError, VideoSource, process
from nlml_hpe.page.server import LOOPBACK, serve
from nlml_hpe.rotation import AXES, CONVENTION
from nlml_hpe.view.draw import draw_pose

_ERRORS = (ArtifactError, DetectorError, ImageReadError, VideoError, OSError, ValueError)
_TORCH = "pip install 'nlml-hpe[torch]'"
_EXAMPLES = """examples:
  nlml-hpe predict photo.jpg
  nlml-hpe predict photos/ --all-faces --csv poses.csv --draw drawn/
  nlml-hpe predict 'photos/*.png' --json
  nlml-hpe video talk.mp4 drawn.mp4 --smooth
  nlml-hpe video --webcam 0
  nlml-hpe demo
  nlml-hpe info
"""
COLUMNS = ("face", *AXES, *(f"sigma_{axis}" for axis in AXES), "in_range", "score", "left", "top", "right", "bottom")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    commands = parser()
    given, rest = commands.parse_known_args(arguments)
    given.rest = rest
    if given.rest and given.work is not _evaluate:
        commands.error(f"unrecognized arguments: {' '.join(given.rest)}")
    try:
        work: Callable[[argparse.Namespace], int] = given.work
        return work(given)
    except _ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    whole = argparse.ArgumentParser(
        prog="nlml-hpe",
        description="Head pose: yaw, pitch and roll in degrees, with error bars.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_video(commands)
    # Its options belong to the library that does it, which inference does without.
    evaluation = "accuracy on a labelled data set (needs torch and matplotlib)"
    commands.add_parser("evaluate", help=evaluation, add_help=False).set_defaults(work=_evaluate)
    export = commands.add_parser("export", help="write the ONNX file of a model folder (needs torch, onnx, spox)")
    export.add_argument("output", type=Path, metavar="OUT.onnx")
    export.add_argument("--model", type=Path, default=SHIPPED, help="model folder (default: the shipped one)")
    export.set_defaults(work=_export)
    demo = commands.add_parser("demo", help="a page to try it in this machine's browser")
    demo.add_argument("--model", type=Path, default=SHIPPED, help="model folder")
    demo.add_argument("--host", default=LOOPBACK, help="other than the default shows it to the network")
    demo.add_argument("--port", type=int, default=8000)
    demo.set_defaults(work=_demo)
    info = commands.add_parser("info", help="versions, the model, and what is installed")
    info.add_argument("--model", type=Path, default=SHIPPED, help="model folder or .onnx file")
    info.set_defaults(work=_info)
    return whole


def _add_predict(commands: Any) -> None:
    predict = commands.add_parser("predict", help="pose of the faces in images")
    predict.add_argument("images", nargs="+", metavar="IMAGE|FOLDER|GLOB")
    predict.add_argument("--all-faces", action="store_true", help="every face, not the largest alone")
    predict.add_argument("--draw", type=Path, metavar="DIR", help="write copies with axes drawn, as JPEG")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", nargs="?", const="-", metavar="FILE", help="as JSON, to a file or to stdout")
    form.add_argument("--csv", nargs="?", const="-", metavar="FILE", help="as CSV, to a file or to stdout")
    _add_model(predict)
    predict.set_defaults(work=_predict)


def _add_video(commands: Any) -> None:
    video = commands.add_parser("video", help="pose in a video or from a webcam")
    video.add_argument("input", nargs="?", type=Path, metavar="IN")
    video.add_argument("output", nargs="?", type=Path, metavar="OUT", help=".mp4 with axes drawn")
    video.add_argument("--webcam", type=int, metavar="N", help="camera number, in place of IN; q ends")
    video.add_argument("--smooth", action="store_true", help="One-Euro smoothing; never use it to measure")
    video.add_argument("--csv", metavar="FILE", help="one row per face and frame, to a file or to stdout (-)")
    video.add_argument("--max-faces", type=int, default=1)
    _add_model(video)
    video.set_defaults(work=_video)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, default=SHIPPED, help="model folder or .onnx file")
    command.add_argument("--backend", choices=("onnx", "torch"), default="onnx")
    command.add_argument("--detector", choices=sorted(DETECTORS), help="default: the one that the model's points need")
    command.add_argument("--bundle", type=Path, help="face_landmarker.task, for --detector mediapipe_tasks")
    command.add_argument("--no-refine", action="store_true", help="the network alone, without the exact step")


def _predict(given: argparse.Namespace) -> int:
    paths, failed, rows = expand(given.images), 0, []
    with _estimator(given, MAX_FACES, tracking=False) as estimator:
        for number, path in enumerate(tqdm(paths, desc="Predict", unit="image", disable=len(paths) < 2)):
            try:
                image = read_image(path)
            except ImageReadError as error:
                tqdm.write(f"error: {error}", file=sys.stderr)
                failed += 1
                continue
            poses = estimator.predict(image, not given.no_refine)
            shown = poses if given.all_faces else poses[:1]
            rows.append({"image": str(path), "faces_found": len(poses), "faces": [pose.as_dict() for pose in shown]})
            if given.draw:
                _save(draw_all(image, shown), given.draw / f"{number:05d}_{path.stem}.jpg")
    _emit(rows, given)
    without = sum(not row["faces"] for row in rows)
    print(f"{len(rows)} images, {without} without a face, {failed} not readable", file=sys.stderr)
    return 1 if failed else 0


def expand(names: Sequence[str]) -> list[Path]:
    """Image files of paths, folders and patterns, in order. Raises ``ImageReadError`` for one that names nothing."""
    paths: list[Path] = []
    for name in names:
        place = Path(name)
        if place.is_dir():
            found = sorted(p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif place.is_file():
            found = [place]
        else:
            found = sorted(p for p in map(Path, glob.glob(name, recursive=True)) if p.is_file())
        if not found:
            raise ImageReadError(f"{name}: no such image, folder with images, or pattern that fits any file")
        paths += found
    return paths


def _emit(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    if given.json:
        _write(json.dumps(rows, indent=2) + "\n", given.json)
    elif given.csv:
        table = ({"image": row["image"], **flat} for row in rows for flat in flat_rows(row["faces"]))
        _write(_csv(("image", *COLUMNS), table), given.csv)
    else:
        for row in rows:
            lines = [_line(face) for face in row["faces"]] or ["no face found"]
            print("\n".join(f"{row['image']}  {line}" for line in lines))


def _line(face: dict[str, Any]) -> str:
    named = "  ".join(f"{axis} {face[axis]:+7.2f}" for axis in AXES)
    spread = "" if face["sigma"] is None else "  +- " + ", ".join(f"{s:.1f}" for s in face["sigma"])
    return f"{named} degrees{spread}" + ("" if face["in_range"] else "  (outside the range of training)")


def flat_rows(faces: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Faces as rows of a table, by the names in ``COLUMNS``; what is not known is left empty."""
    for number, face in enumerate(faces, start=1):
        sigma = face["sigma"] or ["", "", ""]
        yield {
            "face": number,
            **{axis: round(face[axis], 4) for axis in AXES},
            **{f"sigma_{axis}": s if s == "" else round(s, 4) for axis, s in zip(AXES, sigma, strict=True)},
            "in_range": face["in_range"],
            "score": "" if face["score"] is None else round(face["score"], 4),
            **dict(zip(("left", "top", "right", "bottom"), (round(v, 1) for v in face["box"]), strict=True)),
        }


def _csv(columns: Sequence[str], rows: Iterator[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(text: str, target: str) -> None:
    if target == "-":
        sys.stdout.write(text)
    else:
        write_bytes(Path(target), text.encode())


def draw_all(image: RgbImage, poses: Sequence[HeadPose]) -> RgbImage:
    """A copy of the image with every pose drawn, the smallest first."""
    for pose in reversed(poses):
        image = draw_pose(image, pose)
    return image


def _save(image: RgbImage, path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=92)
    write_bytes(path, stream.getvalue())


def _video(given: argparse.Namespace) -> int:
    if (given.input is None) == (given.webcam is None):
        raise ValueError("expected a video file or --webcam N, and not both")
    source = given.input if given.webcam is None else given.webcam
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        video = stack.enter_context(VideoSource(source))
        estimator = stack.enter_context(_estimator(given, given.max_faces, tracking=True))
        show = _window if given.webcam is not None else None
        results = process(video, estimator, given.output, given.smooth, not given.no_refine, show)
        bar = stack.enter_context(tqdm(desc="Video", unit="frame", total=video.expected or None))
        for result in results:
            if isinstance(result, Summary):
                summary = result
            else:
                bar.update()
                rows += _frame_rows(result)
    if given.csv or not given.output:
        _write(_csv(("frame", "seconds", *COLUMNS), iter(rows)), given.csv or "-")
    print(summary.text(), file=sys.stderr)
    return 0 if summary.frames and not summary.ends_early else 1


def _estimator(given: argparse.Namespace, max_faces: int, tracking: bool) -> HeadPoseEstimator:
    if max_faces < 1:
        raise ValueError(f"--max-faces: expected at least 1; received {max_faces}")
    if given.detector is None:
        return HeadPoseEstimator(given.model, given.backend, max_faces=max_faces, tracking=tracking)
    detector = open_detector(given.detector, max_faces, tracking=tracking, bundle=given.bundle)
    return HeadPoseEstimator(given.model, given.backend, detector)


def _frame_rows(result: FrameResult) -> list[dict[str, Any]]:
    at = {"frame": result.frame.number, "seconds": round(result.frame.seconds, 4)}
    return [{**at, **row} for row in flat_rows([pose.as_dict() for pose in result.poses])]


def _window(result: FrameResult, drawn: RgbImage) -> bool:
    """Show a frame; false when q or Escape was pressed."""
    cv2.imshow("nlml-hpe", drawn[..., ::-1])
    return (cv2.waitKey(1) & 0xFF) not in (ord("q"), 27)


def _evaluate(given: argparse.Namespace) -> int:
    _require(("torch", "matplotlib"), "evaluate", "pip install 'nlml-hpe[train]'")
    from nlml_hpe.evaluation.command import add_arguments, run

    own = argparse.ArgumentParser(prog="nlml-hpe evaluate", description="Accuracy on a labelled data set.")
    add_arguments(own)
    if not run(own.parse_args(given.rest)):
        own.error("--dataset is required")
    return 0


def _export(given: argparse.Namespace) -> int:
    _require(("torch", "onnx", "spox"), "export", "pip install 'nlml-hpe[train]'")
    from nlml_hpe.model.folder import load_model
    from nlml_hpe.model.onnx_export import OPSET, export_onnx

    path = export_onnx(load_model(given.model), given.output)
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB, opset {OPSET}")
    return 0


def _demo(given: argparse.Namespace) -> int:
    with serve(given.model, given.host, given.port) as server:
        print(f"http://{given.host}:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0


def _require(modules: Sequence[str], command: str, how: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"`nlml-hpe {command}` needs {', '.join(missing)}: {how}")


def _info(given: argparse.Namespace) -> int:
    path = given.model if given.model.suffix == ".onnx" else given.model / ONNX_FILE
    engine = OnnxEngine(path)
    limits = ", ".join(f"{axis} {low:g}..{high:g}" for axis, (low, high) in zip(AXES, engine.range, strict=True))
    lines = {
        "nlml-hpe": _version("nlml-hpe"),
        "python": platform.python_version(),
        "model": f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        "head frame": engine.frame,
        "range": f"{limits} degrees",
        "points": engine.point_set.name,
        "convention": CONVENTION,
        **{name: _version(name) for name in ("mediapipe", "onnxruntime", "opencv-contrib-python", "numpy")},
        "torch": _version("torch") + f" (for backend='torch': {_TORCH})",
    }
    print("\n".join(f"{name:<22} {value}" for name, value in lines.items()))
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
