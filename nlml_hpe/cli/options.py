"""Options that several commands have, and the estimator that they describe."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nlml_hpe.detection.detectors import DEFAULT_DETECTOR, DETECTORS, open_detector
from nlml_hpe.detection.looks import LOOKS, LOOKS_HELP
from nlml_hpe.device import DEVICE_HELP, DEVICES
from nlml_hpe.files.images import user_path
from nlml_hpe.inference.estimator import HeadPoseEstimator, require_points
from nlml_hpe.inference.fusion import EYES
from nlml_hpe.inference.opening import engine_of, open_eyes
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.sessions import CPU

MODEL_HELP = "model folder or .onnx file (default: the model that comes with the package)"

HEADS_HELP = "look for heads that show no face, too"
CONE_HELP = "draw the cone, too, in which the nose points with a probability of 95%%"


def add_model(command: argparse.ArgumentParser) -> None:
    """Which model, and how it is run; ``open_estimator`` takes what is set here, and ``--heads``."""
    command.set_defaults(command=command)
    command.add_argument("--model", type=user_path, default=SHIPPED, help=MODEL_HELP)
    command.add_argument(
        "--backend", choices=("onnx", "torch"), default="onnx", help="what runs the model (default: onnx)"
    )
    command.add_argument("--device", choices=DEVICES, default="auto", help=f"with --backend torch: {DEVICE_HELP}")
    command.add_argument(
        "--detector",
        choices=sorted(DETECTORS),
        help=f"what finds faces (default: {DEFAULT_DETECTOR}, where the model's landmarks are FaceMesh's)",
    )
    command.add_argument("--bundle", type=user_path, help="face_landmarker.task, for --detector mediapipe_tasks")
    command.add_argument(
        "--providers",
        type=lambda text: text.split(","),
        default=CPU,
        metavar="NAME[,NAME]",
        help="what computes the networks that see pixels: cuda, coreml or directml, where onnxruntime's package for it "
        "is installed (default: cpu)",
    )
    command.add_argument("--looks", type=int, choices=sorted(LOOKS), help=LOOKS_HELP)
    command.add_argument(
        "--eye",
        choices=EYES,
        help="which eye answers: that of landmarks, that of pixels, or both, fused (default: both, where the model has "
        "both)",
    )
    command.add_argument(
        "--no-refine",
        action="store_true",
        help="the landmark eye answers by its network alone, without the exact step: faster",
    )


def model_files(given: argparse.Namespace) -> list[Path]:
    """Files that the options name as inputs, if they are there: of a model folder all that lies in it."""
    places = [place for place in (given.model, getattr(given, "bundle", None)) if place is not None]
    return [path for place in places for path in (place.iterdir() if place.is_dir() else [place]) if path.is_file()]


@contextmanager
def open_estimator(given: argparse.Namespace, max_faces: int, tracking: bool) -> Iterator[HeadPoseEstimator]:
    """The estimator that the options describe; a detector of another name has the model's threshold.

    Parameters
    ----------
    given : Namespace
        The options of ``add_model``.
    max_faces, tracking
        As of ``HeadPoseEstimator``.

    Yields
    ------
    HeadPoseEstimator
        Closed at the end of the block, and its detector with it.

    Raises
    ------
    ValueError, ArtifactError, DetectorError
        With a sentence for the user, as ``HeadPoseEstimator`` and ``open_detector`` do.
    SystemExit
        With 2, for options that do not go together.
    """
    if given.heads and given.eye == "landmarks":
        given.command.error("--heads: heads that show no face have no landmarks; leave out --heads or --eye landmarks")
    if given.bundle is not None and given.detector != "mediapipe_tasks":
        given.command.error("--bundle is for --detector mediapipe_tasks, which is missing")
    if max_faces < 1:
        raise ValueError(f"--max-faces: expected at least 1; received {max_faces}")
    # A video's heads are searched for now and then (``inference.following``), an image's by the estimator itself.
    heads = True if given.heads and not tracking else None
    if given.detector is None:
        with HeadPoseEstimator(
            given.model,
            given.backend,
            max_faces=max_faces,
            tracking=tracking,
            device=given.device,
            providers=given.providers,
            heads=heads,
        ) as estimator:
            yield estimator
        return
    eyes = open_eyes(given.model, given.backend, given.device, given.providers)
    engine = engine_of(eyes)
    # Before a detector is opened, for which face-alignment fetches hundreds of megabytes.
    require_points(engine.point_set, DETECTORS[given.detector].point_set)
    detector = open_detector(given.detector, max_faces, engine.min_confidence, tracking, given.bundle, given.providers)
    with closing(detector), HeadPoseEstimator(eyes, detector=detector, providers=given.providers, heads=heads) as own:
        yield own
