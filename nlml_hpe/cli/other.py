"""``nlml-hpe evaluate``, ``export``, ``demo`` and ``info``."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

from nlml_hpe.cli.interrupt import ended_by_sigterm
from nlml_hpe.cli.options import MODEL_HELP, model_files
from nlml_hpe.cli.places import require_output, shown
from nlml_hpe.cli.whole import add_whole, refuse_at_odds, write_whole
from nlml_hpe.detection.weights import default_folder
from nlml_hpe.evaluation.options import add_arguments
from nlml_hpe.extras import how_to_install, needs
from nlml_hpe.files.images import user_path
from nlml_hpe.inference.calibration import DEFAULT_CALIBRATION
from nlml_hpe.inference.opening import engine_of, open_eyes
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.page.server import LOOPBACK, serve
from nlml_hpe.rotation import AXES, CONVENTION
from nlml_hpe.version import version_of

_EXPORT = "`nlml-hpe export`"
_FOLDER_HELP = "model folder (default: the model that comes with the package)"


def add_parsers(commands: Any) -> None:
    """Add the commands to a parser's."""
    evaluate = commands.add_parser(
        "evaluate",
        help="accuracy on a labelled data set (needs the train extra)",
        description="Accuracy of a model on labelled faces (needs the train extra).",
    )
    add_arguments(evaluate)
    evaluate.set_defaults(work=_evaluate)
    export = commands.add_parser("export", help="write the ONNX file of a model folder (needs the train extra)")
    export.add_argument("output", type=user_path, metavar="OUT.onnx")
    export.add_argument("--overwrite", action="store_true", help="replace OUT.onnx where it is there already")
    export.add_argument("--model", type=user_path, default=SHIPPED, help=_FOLDER_HELP)
    export.add_argument(
        "--from",
        dest="source",
        choices=("landmarks", "image"),
        help="what the file takes: a face's landmarks, or its picture, 192 px on a side, with the landmark network "
        "inside (default: landmarks)",
    )
    add_whole(export)
    export.set_defaults(work=_export, command=export)
    demo = commands.add_parser("demo", help="a page to try it in this machine's browser; Ctrl-C ends it")
    demo.add_argument("--model", type=user_path, default=SHIPPED, help=_FOLDER_HELP)
    demo.add_argument(
        "--host",
        default=LOOPBACK,
        help=f"any but this machine's own shows the page to the network (default: {LOOPBACK})",
    )
    demo.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    text = "look for heads that show no face in a webcam's frames, too, as in other images"
    demo.add_argument("--heads", action="store_true", help=text)
    demo.set_defaults(work=_demo)
    info = commands.add_parser("info", help="versions, the model, and what is installed")
    info.add_argument("--model", type=user_path, default=SHIPPED, help=MODEL_HELP)
    info.set_defaults(work=_info)


def _evaluate(given: argparse.Namespace) -> int:
    with needs("train", "`nlml-hpe evaluate`"):
        from nlml_hpe.evaluation.command import run

        if not run(given):
            given.command.error("--dataset is required")
    return 0


def _export(given: argparse.Namespace) -> int:
    refuse_at_odds(given)
    if given.output.suffix != ".onnx":
        raise ValueError(f"{shown(given.output)}: expected a name that ends in .onnx, by which such a file is known")
    require_output("OUT.onnx", given.output, model_files(given))
    if given.output.is_file() and not given.overwrite:
        raise ValueError(f"{shown(given.output)} is there already; --overwrite replaces it")
    with needs("train", _EXPORT):
        from nlml_hpe.model.onnx_export import OPSET
    path = write_whole(given) if given.crop is not None else _write_one_eye(given)
    print(f"{shown(path)}  {path.stat().st_size / 1e6:.1f} MB, opset {OPSET}")
    return 0


def _write_one_eye(given: argparse.Namespace) -> Path:
    with needs("train", _EXPORT):
        from nlml_hpe.model.crop_export import export_crop_onnx
        from nlml_hpe.model.folder import load_model
        from nlml_hpe.model.onnx_export import export_onnx
    export = export_crop_onnx if given.source == "image" else export_onnx
    return export(load_model(given.model), given.output)


def _demo(given: argparse.Namespace) -> int:
    with serve(given.model, given.host, given.port, given.heads) as server, ended_by_sigterm():
        try:
            print(f"{server.url}  (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("the page is closed")
    return 0


def _info(given: argparse.Namespace) -> int:
    import onnxruntime

    eyes = open_eyes(given.model)
    engine = engine_of(eyes)
    is_calibrated = eyes.calibration not in (None, DEFAULT_CALIBRATION)
    size = sum(path.stat().st_size for path in model_files(given))
    names = [name for name, eye in (("landmarks", eyes.landmarks), ("image", eyes.image)) if eye is not None]
    limits = ", ".join(f"{axis} {low:g}..{high:g}" for axis, (low, high) in zip(AXES, engine.range, strict=True))
    lines = {
        "nlml-hpe": version_of("nlml-hpe"),
        "python": platform.python_version(),
        "model": f"{shown(given.model)} ({size / 1e6:.1f} MB)",
        "eyes": ", ".join(names) + ("; their error bars are calibrated" if is_calibrated else ""),
        "head frame": engine.frame,
        "range": f"{limits} degrees",
        "points": engine.point_set.name,
        "convention": CONVENTION,
        **{name: version_of(name) for name in ("numpy", "onnxruntime", "opencv-python-headless")},
        "providers": ", ".join(onnxruntime.get_available_providers()),
        "FaceMesh": shown(default_folder()),
        "mediapipe": f"{version_of('mediapipe')} (not needed)",
        "torch": f"{version_of('torch')} (for --backend torch: {how_to_install('torch')})",
    }
    print("\n".join(f"{name:<22} {value}" for name, value in lines.items()))
    return 0
