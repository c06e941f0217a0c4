"""Head pose by other methods and ours, on the same faces of AFLW2000-3D: ``python benchmarks/peers.py``.

Peers: FSA-Net (two ONNX files, averaged; a loose crop of the label's box, so it needs no detection), MediaPipe's
own face matrix (Tasks, its own detection), ``solvePnP`` of the FaceMesh points on MediaPipe's canonical face,
rigid alignment (Kabsch) of the same points in 3D; then all our routes that the model has: those of the landmark eye,
the image eye around the label's box, and both fused as prediction fuses them: the looks that it takes by default, the
image eye around the landmarks, and where there are none, as a note counts, around the label's box. Figures are on the
faces that all of them answer, raw first and then after the one constant rotation that suits each best on these very
faces; and on all faces of the protocol, where a face without an answer counts as a frontal guess. ``ms`` is what comes
after the landmarks, face by face, and ``detect ms`` what comes before. Needs ``pip install -e '.[train,mediapipe]'``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import stages.guard  # noqa: F401

import cv2
import mediapipe as mp
import numpy as np
import onnxruntime
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common import development_data, report
from nlml_hpe.detection.detectors import MAX_FACES, FaceMeshOnnx
from nlml_hpe.detection.landmarks import MIN_CONFIDENCE, LandmarkDetector, facemesh_canonical
from nlml_hpe.detection.looks import looks_by, seen_again
from nlml_hpe.evaluation.datasets import Dataset, Sample, read_dataset
from nlml_hpe.evaluation.metrics import constant_rotation, errors, summary
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.evaluation.routes import ModelRoute, open_routes
from nlml_hpe.face import Box, Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.rotation import AXES, IMAGE_FROM_CAMERA, Angles, kabsch, rotation_from_angles

FSANET_PX = 64
FSANET_MARGIN = 0.6
"""Share of the box that its published crops add on each side."""
OURS = {
    "network": "ours, network (ONNX)",
    "exact": "ours, exact from no start (torch)",
    "refined": "ours, refined (ONNX)",
    "image": "ours, image eye (ONNX)",
    "fused": "ours, both eyes fused",
}
"""Titles of our routes; what `predict` answers by default is the last one that the model has."""
Points = NDArray[np.float64]


class Answer(NamedTuple):
    """Rotation (3, 3), or None; milliseconds before and after the landmarks."""

    rotation: NDArray[np.float64] | None
    detect_ms: float
    ms: float


class Timed(NamedTuple):
    """One face: the image, its label's box, its landmarks or None, and what finding them took.

    ``face`` has the further looks that our routes take by default, and ``looks_ms`` is what these took.
    """

    image: RgbImage
    box: Box
    points: Points | None
    detect_ms: float
    face: Face | None
    looks_ms: float


Peer = Callable[[Timed], Answer]


def timed(work: Callable[[Points], NDArray[np.float64]]) -> Peer:
    """A peer that needs the landmarks alone."""

    def answer(face: Timed) -> Answer:
        """The pose of this face, and what it took."""
        if face.points is None:
            return Answer(None, face.detect_ms, float("nan"))
        start = time.perf_counter()
        rotation = work(face.points)
        return Answer(rotation, face.detect_ms, (time.perf_counter() - start) * 1e3)

    return answer


def fsanet(folder: Path) -> Peer:
    """FSA-Net as its ONNX demo feeds it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    sessions = [onnxruntime.InferenceSession(str(path), options) for path in sorted(folder.glob("*.onnx"))]

    def answer(face: Timed) -> Answer:
        """The pose of this face, and what it took."""
        start = time.perf_counter()
        left, top, right, bottom = face.box
        width, height = FSANET_MARGIN * (right - left), FSANET_MARGIN * (bottom - top)
        rows = slice(max(round(top - height), 0), round(bottom + height))
        columns = slice(max(round(left - width), 0), round(right + width))
        crop = cv2.resize(face.image[rows, columns, ::-1], (FSANET_PX, FSANET_PX)).astype(np.float32)
        blob = ((crop - 127.5) / 128).transpose(2, 0, 1)[None]
        found = [session.run(None, {session.get_inputs()[0].name: blob})[0] for session in sessions]
        rotation = rotation_from_angles(Angles.from_columns(np.mean(found, axis=0).reshape(3)))
        return Answer(rotation, 0.0, (time.perf_counter() - start) * 1e3)

    return answer


def mediapipe_matrix(bundle: Path) -> Peer:
    """MediaPipe's facial transformation matrix; of several faces the one whose centre lies in the box."""
    options = FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(bundle)),
        output_facial_transformation_matrixes=True,
        num_faces=MAX_FACES,
        min_face_detection_confidence=0.3,
        min_face_presence_confidence=0.3,
    )
    landmarker = FaceLandmarker.create_from_options(options)

    def answer(face: Timed) -> Answer:
        """The pose of this face, and what it took."""
        height, width = face.image.shape[:2]
        start = time.perf_counter()
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(face.image))
        found = landmarker.detect(image)
        ms = (time.perf_counter() - start) * 1e3
        left, top, right, bottom = face.box
        for points, matrix in zip(found.face_landmarks, found.facial_transformation_matrixes, strict=True):
            spread = np.array([(p.x * width, p.y * height) for p in points])
            x, y = (spread.min(axis=0) + spread.max(axis=0)) / 2
            if left <= x <= right and top <= y <= bottom:
                turn, _, _ = kabsch(np.eye(3), np.asarray(matrix)[:3, :3].T)
                return Answer(turn, ms, 0.0)
        return Answer(None, ms, float("nan"))

    return answer


def solve_pnp(canonical: Points) -> Peer:
    """Perspective from all 2D points; the focal length is unknown and taken as the image's width."""

    def answer(face: Timed) -> Answer:
        """The pose of this face, and what it took."""
        height, width = face.image.shape[:2]
        camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], dtype=np.float64)

        def work(points: Points) -> NDArray[np.float64]:
            seen = points[:, :2].copy()
            _, turn, _ = cv2.solvePnP(canonical * [1, -1, -1], seen, camera, np.zeros(4), flags=cv2.SOLVEPNP_SQPNP)
            return np.asarray(IMAGE_FROM_CAMERA @ cv2.Rodrigues(turn)[0] @ IMAGE_FROM_CAMERA)

        return timed(work)(face)

    return answer


def rigid(canonical: Points) -> Callable[[Points], NDArray[np.float64]]:
    """Rigid alignment of the canonical face to the 3D points."""
    return lambda points: kabsch(canonical, points * [1, -1, -1])[0]


def ours(route: ModelRoute) -> Peer:
    """One of our routes, normalisation or cutting included; without landmarks an image eye is shown the label's box."""

    def answer(face: Timed) -> Answer:
        """The pose of this face, and what it took."""
        shown = Face(face.image, face.box)
        if route.landmarks and face.face is not None:
            shown = replace(face.face, box=face.box)
        start = time.perf_counter()
        rotation = route.answer([shown]).rotation[0]
        ms = (time.perf_counter() - start) * 1e3
        known = bool(np.isfinite(rotation).all())
        return Answer(rotation if known else None, face.detect_ms + face.looks_ms if route.landmarks else 0.0, ms)

    return answer


def answers(data: Dataset, bundle: Path, nets: Path, model: Path) -> dict[str, list[Answer]]:
    """Every peer's answer for every sample."""
    canonical = facemesh_canonical()
    found: dict[str, list[Answer]] = {}
    routes = open_routes(model)
    confidence = max((route.landmarks[1] for route in routes.values() if route.landmarks), default=MIN_CONFIDENCE)
    with FaceMeshOnnx(MAX_FACES, confidence) as detector:
        fixed: dict[str, Peer] = {"FSA-Net (ONNX)": fsanet(nets), "MediaPipe's face matrix": mediapipe_matrix(bundle)}
        fixed["solvePnP on the canonical face"] = solve_pnp(canonical)
        fixed["rigid alignment (Kabsch)"] = timed(rigid(canonical))
        for name, route in routes.items():
            fixed[OURS[name]] = ours(route)
        faces = [_timed(sample, detector) for sample in tqdm(data.samples, desc="Landmarks", unit="face")]
    # One after the other, so that no peer is timed while the threads of another are awake.
    for name, peer in fixed.items():
        found[name] = [peer(face) for face in tqdm(faces, desc=name, unit="face")]
    return found


def _timed(sample: Sample, detector: LandmarkDetector) -> Timed:
    image = sample.load()
    if sample.box is None:
        raise ValueError(f"{sample.name}: the label has no landmarks, so the annotated face is not known")
    start = time.perf_counter()
    face = detector.detect_in_box(image, sample.box)
    found = time.perf_counter()
    again = None if face is None else seen_again(detector, [face], looks_by(detector, None))[0]
    looks_ms = (time.perf_counter() - found) * 1e3
    return Timed(image, sample.box, face.points if face else None, (found - start) * 1e3, again, looks_ms)


def table(protocol: str, data: Dataset, found: Mapping[str, list[Answer]], save: bool) -> None:
    """Print one protocol's table; ``save`` keeps it, too."""
    chosen = np.flatnonzero(PROTOCOLS[protocol].includes(data.angles))
    common = np.array([i for i in chosen if all(given[i].rotation is not None for given in found.values())])
    rows = []
    for name, given in found.items():
        answered = [i for i in chosen if given[i].rotation is not None]
        raw = _mae(_rotations(given, common), data.rotations[common])
        charged = _mae(_rotations(given, chosen), data.rotations[chosen])["mean"]
        turn = constant_rotation(_rotations(given, common), data.rotations[common])
        fitted = _mae(_rotations(given, common) @ turn, data.rotations[common])["mean"]
        rows.append(
            {"method": name, "found": f"{len(answered)} of {len(chosen)}"}
            | {axis: f"{raw[axis]:.2f}" for axis in AXES}
            | {"MAE": f"{raw['mean']:.2f}", "after one rotation": f"{fitted:.2f}", "MAE, all faces": f"{charged:.2f}"}
            | {"detect ms": f"{_median(given, 'detect_ms'):.1f}", "ms": f"{_median(given, 'ms'):.2f}"}
        )
    title = f"{protocol} on {data.root.name}: {len(common)} faces that all methods answer, of {len(chosen)}"
    report(f"peers_{protocol}", title, rows, _in_label_box(found, chosen), save)


def _in_label_box(found: Mapping[str, list[Answer]], chosen: NDArray[np.int64]) -> list[str]:
    """How many faces both eyes answer without landmarks, as a note; none of a model that has not both."""
    if OURS["fused"] not in found:
        return []
    both, landmarks = (found[OURS[name]] for name in ("fused", "refined"))
    shown = sum(both[i].rotation is not None and landmarks[i].rotation is None for i in chosen)
    return [f"{shown} of {len(chosen)} faces, which no search finds, both eyes answer in the label's box."]


def _rotations(given: list[Answer], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Answers (n, 3, 3) to some of the faces; one that is missing is taken for a frontal one."""
    answers = [given[i].rotation for i in indices]
    return np.array([np.eye(3) if rotation is None else rotation for rotation in answers])


def _mae(estimated: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    return dict(summary(errors(estimated, true))["mae"])


def _median(given: list[Answer], field: str) -> float:
    return statistics.median(getattr(answer, field) for answer in given if answer.rotation is not None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--fsanet", type=Path, default=development_data() / "peers" / "fsanet")
    bundle = development_data() / "face_landmarker" / "face_landmarker.task"
    parser.add_argument("--bundle", type=Path, default=bundle, help="MediaPipe's face_landmarker.task")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--count", type=int, help="only so many faces, to see that all of it runs; saves nothing")
    asked = parser.parse_args()
    read = read_dataset("aflw2000", asked.root)
    if asked.count:
        read = replace(read, samples=read.spread(asked.count))
    print(read.summary())
    everything = answers(read, asked.bundle, asked.fsanet, asked.model)
    for name in ("aflw2000-nlml", "aflw2000"):
        table(name, read, everything, save=not asked.count)
