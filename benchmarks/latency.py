"""Where a face's milliseconds go, and frames a second of a video: ``python benchmarks/latency.py``.

Photographs of ``--root`` (by default the development data), one after the other, each step by itself and each route
in a loop of its own, so that no other library's threads are awake; medians. FSA-Net (ONNX, two files) and MediaPipe's
face matrix run beside it on the same images in the same process. The video is 640 x 480, made of those photographs.
Needs ``pip install 'nlml-hpe[torch]'`` for the rows of the torch backend.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import development_data, report
from benchmarks.peers import Timed, fsanet, mediapipe_matrix
from nlml_hpe.detection.detectors import MediaPipeFaceMesh
from nlml_hpe.detection.landmarks import normalize_landmarks
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage, read_image
from nlml_hpe.inference.engines import OnnxEngine, Route
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.inference.video import Summary, process
from nlml_hpe.inference.video_files import VideoSource
from nlml_hpe.model.folder import load_model
from nlml_hpe.model.format import ONNX_FILE, SHIPPED

_WARM = 10
_SECONDS_OF_VIDEO = 12


def milliseconds(work: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """Median of one call."""
    for given in inputs[:_WARM]:
        work(given)
    times = []
    for given in inputs:
        start = time.perf_counter()
        work(given)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def main(root: Path, count: int, nets: Path, bundle: Path) -> None:
    """Measure the steps, the peers and the video."""
    samples = read_dataset("aflw2000", root).samples[:count]
    paths = [root / f"{sample.name}.jpg" for sample in samples]
    images = [read_image(path) for path in paths]
    with MediaPipeFaceMesh() as detector:
        found = [next(iter(detector.detect(image)), None) for image in images]
        points = [face.points[None] for face in found if face is not None]
        steps = {
            "decode a JPEG of 450 px": milliseconds(read_image, paths),
            "detect (FaceMesh, one image afresh)": milliseconds(detector.detect, images),
        }
    steps |= _after(points)
    faces = [Timed(i, s.box, None, 0.0) for i, s in zip(images, samples, strict=True) if s.box is not None]
    steps["peer: FSA-Net (ONNX), crop included, detection not"] = milliseconds(fsanet(nets), faces)
    steps["peer: MediaPipe's face matrix, detection included"] = milliseconds(mediapipe_matrix(bundle), faces)
    ours = steps["ONNX: landmarks to refined angles and error bars"]
    rows = [{"step": name, "ms": ms, "over ours, refined": ms / ours} for name, ms in steps.items()]
    report(
        "latency",
        "Milliseconds a face",
        rows,
        [f"{len(images)} photographs of {root.name}, {len(points)} with a face."],
    )
    report("latency_video", "A 640 x 480 video", [_video(images, refine) for refine in (True, False)])


def _after(points: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """What comes after the landmarks."""
    onnx, model = OnnxEngine(SHIPPED / ONNX_FILE), load_model(SHIPPED)
    torch = TorchEngine(model)

    def faces(points: NDArray[np.float64]) -> list[Face]:
        return [Face.from_points(face) for face in points]

    steps = {
        "normalise": milliseconds(lambda p: normalize_landmarks(p, model.point_set, model.normalization), points),
        "ONNX: landmarks to the network's angles": milliseconds(lambda p: onnx.estimate(faces(p), "network"), points),
        "ONNX: landmarks to refined angles and error bars": milliseconds(
            lambda p: onnx.estimate(faces(p), "refined"), points
        ),
    }
    routes: tuple[Route, ...] = ("network", "refined", "exact")
    for route in routes:
        steps[f"torch: landmarks to {route} angles"] = milliseconds(
            lambda p, route=route: torch.estimate(faces(p), route), points
        )
    return steps


def _video(images: Sequence[RgbImage], refine: bool) -> dict[str, Any]:
    """Frames a second of the video command's own loop, with drawing and writing and without."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faces.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (640, 480))
        for number in range(25 * _SECONDS_OF_VIDEO):
            # Each photograph for a second, drifting: something to follow, and a cut.
            still = cv2.resize(images[number // 25 % len(images)], (640, 480))
            writer.write(np.roll(still, number % 25, axis=1)[..., ::-1])
        writer.release()
        row: dict[str, Any] = {"route": "refined" if refine else "network"}
        for name, output in (("frames a second", None), ("with axes drawn and written", Path(folder) / "out.mp4")):
            with VideoSource(path) as source, HeadPoseEstimator(max_faces=1, tracking=True) as estimator:
                start = time.perf_counter()
                *_, summary = process(source, estimator, output, refine=refine)
                seconds = time.perf_counter() - start
            assert isinstance(summary, Summary)
            row |= {name: summary.frames / seconds, "frames with a face": f"{summary.with_face} of {summary.frames}"}
            row["ms a frame, detection included"] = statistics.median(summary.milliseconds)
        return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--fsanet", type=Path, default=development_data() / "peers" / "fsanet")
    parser.add_argument("--bundle", type=Path, default=development_data() / "face_landmarker" / "face_landmarker.task")
    parser.add_argument("--count", type=int, default=150)
    given = parser.parse_args()
    main(given.root, given.count, given.fsanet, given.bundle)
