"""Where a face's milliseconds go, beside MediaPipe: ``python benchmarks/latency.py``, about two minutes.

Photographs of ``--root`` (by default the development data), set into images of 640 x 480. What is compared takes turns,
image by image or file by file, in one run, so that whatever else the machine does is shared; medians and ratios.

- ``latency_faces``: landmarks of one face, by MediaPipe, by our networks one by one, and in batches of 32.
- ``latency_looks``: one image to its pose, by the number of looks at the face, by the landmark eye and by both.
- ``latency_parts``: what each part of such an answer costs, on one thread; ``latency_parts.py`` alone measures it, too.
- ``latency_folder``: JPEG files to poses, reading included, by the number of looks at each face.
- ``latency_video``: frames that are tracked, to poses.

Beside MediaPipe stands the landmark eye, which needs what MediaPipe gives; rows of both eyes are named so.
- ``latency``: each step by itself, with FSA-Net (ONNX, two files) and MediaPipe's face matrix beside it.

Needs ``pip install -e '.[train,mediapipe]'``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import development_data, report
from benchmarks.latency_parts import in_frame, parts
from benchmarks.peers import Timed, fsanet, mediapipe_matrix
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import normalize_landmarks
from nlml_hpe.detection.looks import LOOKS
from nlml_hpe.detection.mediapipe_detectors import MediaPipeFaceMesh
from nlml_hpe.detection.search import CascadeDetector
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage, read_image
from nlml_hpe.inference.engines import Engine, OnnxEngine, Route
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fusion import Eye
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.inference.video import Summary, process
from nlml_hpe.inference.video_files import VideoSource
from nlml_hpe.model.folder import load_model
from nlml_hpe.model.format import ONNX_FILE, SHIPPED

_WARM = 10
_BATCH = 32
_ROUNDS = 3
_ROUNDS_ALONE = 9
_SECONDS_OF_VIDEO = 12
_MEDIAPIPE = "MediaPipe"
_EYES: tuple[Eye, ...] = ("landmarks", "both")


def milliseconds(work: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """Median of one call."""
    for given in inputs[:_WARM]:
        work(given)
    return statistics.median(_once(work, given) for given in inputs)


def main(root: Path, count: int, nets: Path, bundle: Path) -> None:
    """Measure the steps, the peers and the video."""
    samples = read_dataset("aflw2000", root).samples[:count]
    paths = [root / f"{sample.name}.jpg" for sample in samples]
    images = [read_image(path) for path in paths]
    framed = [in_frame(image) for image in images]
    with MediaPipeFaceMesh() as theirs, FaceMeshOnnx() as ours:
        shown = [image for image in framed if theirs.detect(image) and ours.detect(image)]
        _faces(shown, theirs, ours)
        found = [next(iter(ours.detect(image)), None) for image in images]
        points = [face.points[None] for face in found if face is not None and face.points is not None]
        steps = {
            "decode a JPEG of 450 px": milliseconds(read_image, paths),
            "detect (our networks, one image afresh)": milliseconds(ours.detect, images),
        }
    looks(shown)
    parts(shown)
    _folder(shown)
    videos(framed)
    steps |= _after(points)
    faces = [Timed(i, s.box, None, 0.0, None, 0.0) for i, s in zip(images, samples, strict=True) if s.box is not None]
    steps["peer: FSA-Net (ONNX), crop included, detection not"] = milliseconds(fsanet(nets), faces)
    steps["peer: MediaPipe's face matrix, detection included"] = milliseconds(mediapipe_matrix(bundle), faces)
    refined = steps["ONNX: landmarks to refined angles and error bars"]
    rows = [{"step": name, "ms": ms, "over ours, refined": ms / refined} for name, ms in steps.items()]
    report(
        "latency",
        "Milliseconds a face",
        rows,
        [f"{len(images)} photographs of {root.name}, {len(points)} with a face."],
    )


def _faces(images: Sequence[RgbImage], theirs: CascadeDetector, ours: CascadeDetector) -> None:
    """One face's landmarks by each way; the ways take turns."""
    spent: dict[str, list[float]] = {_MEDIAPIPE: [], "ours, one by one": [], "ours, in batches of 32": []}
    for _ in range(_ROUNDS):
        for start in range(0, len(images) - _BATCH + 1, _BATCH):
            batch = images[start : start + _BATCH]
            for image in batch:
                spent[_MEDIAPIPE].append(_once(theirs.detect, image))
                spent["ours, one by one"].append(_once(ours.detect, image))
            spent["ours, in batches of 32"].append(_once(ours.detect_batch, batch) / _BATCH)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    rows = [
        {
            "landmarks by": name,
            "ms a face": ms,
            f"over {_MEDIAPIPE}'s": ms / medians[_MEDIAPIPE],
            "faces a second": 1e3 / ms,
        }
        for name, ms in medians.items()
    ]
    report("latency_faces", "Landmarks of one face in 640 x 480", rows, [f"{len(images)} photographs with a face."])


def looks(images: Sequence[RgbImage]) -> None:
    """One 640 x 480 image to its pose, with every number of looks, by the landmark eye and by both; they take turns.

    Then the default by itself, image after image, as a program has it that does nothing else.
    """
    spent: dict[tuple[int, Eye], list[float]] = {(count, eye): [] for count in LOOKS for eye in _EYES}
    with HeadPoseEstimator(max_faces=1) as estimator:
        for number, image in enumerate(images):
            for (count, eye), times in spent.items():
                ms = _once(partial(estimator.predict, looks=count, eye=eye), image)
                if number >= _WARM:
                    times.append(ms)
        alone = sorted(milliseconds(estimator.predict, images) for _ in range(_ROUNDS_ALONE))
    medians = {way: statistics.median(times) for way, times in spent.items()}
    rows = [
        {
            "looks": count,
            "landmark eye, ms an image": medians[count, "landmarks"],
            "over one look's": medians[count, "landmarks"] / medians[1, "landmarks"],
            "both eyes, ms an image": medians[count, "both"],
        }
        for count in LOOKS
    ]
    notes = [
        f"{len(images) - _WARM} photographs with a face.",
        f"The default by itself, image after image: {statistics.median(alone):.1f} ms, the median of {len(alone)} "
        f"rounds' medians, which are {alone[0]:.1f} to {alone[-1]:.1f}.",
    ]
    report("latency_looks", "An image to the pose of its face", rows, notes)


def _folder(images: Sequence[RgbImage]) -> None:
    """Files a second to poses with error bars: one by one with either detector, and in batches; by number of looks."""
    with (
        tempfile.TemporaryDirectory() as place,
        MediaPipeFaceMesh() as detector,
        HeadPoseEstimator(detector=detector) as theirs,
    ):
        paths = [Path(place) / f"{number:03}.jpg" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            cv2.imwrite(str(path), image[..., ::-1])
        with HeadPoseEstimator(max_faces=1) as ours:
            ways: dict[str, Callable[[], Any]] = {
                f"{_MEDIAPIPE}'s landmarks, one by one": partial(_one_by_one, theirs, paths, 1)
            }
            for looks in LOOKS:
                ways |= {
                    f"ours, one by one, looks: {looks}": partial(_one_by_one, ours, paths, looks),
                    f"ours, in batches, looks: {looks}": partial(
                        ours.predict_batch, paths, looks=looks, eye="landmarks"
                    ),
                }
            ways["both eyes, in batches, as by default"] = partial(ours.predict_batch, paths)
            spent = _in_turns(ways)
    medians = {name: statistics.median(times) / len(paths) for name, times in spent.items()}
    first = medians[next(iter(ways))]
    rows = [
        {"files to poses": name, "ms a file": 1e3 * each, "files a second": 1 / each, "times": first / each}
        for name, each in medians.items()
    ]
    report("latency_folder", "A folder of 640 x 480 photographs", rows, [f"{len(paths)} files, a face in each."])


def _one_by_one(estimator: HeadPoseEstimator, paths: Sequence[Path], looks: int) -> None:
    for path in paths:
        estimator.predict(path, looks=looks, eye="landmarks")


def _in_turns(ways: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each way, several times."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            spent[name].append(time.perf_counter() - start)
    return spent


def _once(work: Callable[[Any], Any], given: Any) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work(given)
    return (time.perf_counter() - start) * 1e3


def _after(points: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """What comes after the landmarks."""
    onnx, model = OnnxEngine(SHIPPED / ONNX_FILE), load_model(SHIPPED)
    torch = TorchEngine(model)

    def timed(engine: Engine, route: Route) -> float:
        return milliseconds(lambda some: engine.estimate([Face.from_points(face) for face in some], route), points)

    routes: tuple[Route, ...] = ("network", "refined", "exact")
    return {
        "normalise": milliseconds(lambda some: normalize_landmarks(some, model.point_set, model.normalization), points),
        "ONNX: landmarks to the network's angles": timed(onnx, "network"),
        "ONNX: landmarks to refined angles and error bars": timed(onnx, "refined"),
        **{f"torch: landmarks to {route} angles": timed(torch, route) for route in routes},
    }


def videos(images: Sequence[RgbImage]) -> None:
    """Frames a second of the video command's own loop, tracked, with drawing and writing and without."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faces.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (640, 480))
        for number in range(25 * _SECONDS_OF_VIDEO):
            # Each photograph for a second, drifting: something to follow, and a cut.
            writer.write(np.roll(images[number // 25 % len(images)], number % 25, axis=1)[..., ::-1])
        writer.release()
        rows = [_video(path, MediaPipeFaceMesh, True, None, "landmarks")]
        output = path.with_name("out.mp4")
        rows += [_video(path, FaceMeshOnnx, refine, output, "landmarks") for refine in (True, False)]
        rows += [_video(path, FaceMeshOnnx, True, output, "both")]
    for row in rows:
        row[f"over {_MEDIAPIPE}'s ms"] = row["ms a frame"] / rows[0]["ms a frame"]
    note = "Frames a second count reading the video, milliseconds do not."
    report("latency_video", "A 640 x 480 video, one face tracked", rows, [note])


def _video(path: Path, detector: type[CascadeDetector], refine: bool, copy: Path | None, eye: Eye) -> dict[str, Any]:
    row: dict[str, Any] = {"landmarks by": _MEDIAPIPE if detector is MediaPipeFaceMesh else "ours"}
    row |= {"route": "refined" if refine else "network", "eye": eye}
    for name, output in (("frames a second", None), ("with axes drawn and written", copy)):
        if name != "frames a second" and output is None:
            continue
        with (
            VideoSource(path) as source,
            detector(max_faces=1, tracking=True) as tracker,
            HeadPoseEstimator(detector=tracker, tracking=True) as estimator,
        ):
            start = time.perf_counter()
            *_, summary = process(source, estimator, output, refine=refine, eye=eye)
            seconds = time.perf_counter() - start
        assert isinstance(summary, Summary)
        row |= {name: summary.frames / seconds, "frames with a face": f"{summary.with_face} of {summary.frames}"}
        row.setdefault("ms a frame", statistics.median(summary.milliseconds))
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--fsanet", type=Path, default=development_data() / "peers" / "fsanet")
    parser.add_argument("--bundle", type=Path, default=development_data() / "face_landmarker" / "face_landmarker.task")
    parser.add_argument("--count", type=int, default=150)
    given = parser.parse_args()
    main(given.root, given.count, given.fsanet, given.bundle)
