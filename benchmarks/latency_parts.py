"""What each part of one answer costs: ``python benchmarks/latency_parts.py``, ten seconds.

Photographs of ``--root`` (by default the development data), set into images of 640 x 480; both eyes, three looks, as by
default. Each part by itself on one thread, in milliseconds of processor time, the parts in turns, image by image;
medians. ``predict`` shares what comes after the detection among two threads (docs/speed.md).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import cv2
import numpy as np

from benchmarks.common import development_data, report
from nlml_hpe.detection.facemesh import FaceMeshNetworks
from nlml_hpe.detection.landmarks import MIN_CONFIDENCE, box_of_68
from nlml_hpe.detection.looks import DEFAULT_LOOKS, further_looks, look_again
from nlml_hpe.detection.search import GIVEN_BOX_CONFIDENCE
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage, read_image
from nlml_hpe.image_networks.crop import crop
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.image_engine import FEW, ImageEngine
from nlml_hpe.inference.opening import engine_of, open_eyes
from nlml_hpe.inference.poses import head_poses
from nlml_hpe.inference.refinement import HeadRefiner
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.format import SHIPPED

_WARM = 10


def in_frame(image: RgbImage) -> RgbImage:
    """A square photograph in the middle of 640 x 480, its edges repeated at the sides."""
    square = cv2.resize(image, (480, 480))
    return np.asarray(cv2.copyMakeBorder(square, 0, 0, 80, 80, cv2.BORDER_REPLICATE), dtype=np.uint8)


class _Parts:
    """All parts of an answer, and what each took."""

    def __init__(self) -> None:
        self._networks, self._refiner = FaceMeshNetworks(threads=1), HeadRefiner()
        self._eyes, self._image_eye = open_eyes(SHIPPED), ImageEngine(SHIPPED / IMAGE_EYE_FILE)
        self._engine = engine_of(self._eyes)
        self.spent: dict[str, list[float]] = defaultdict(list)

    def _timed(self, name: str, work: Callable[..., Any], *given: Any) -> Any:
        start = time.process_time()
        found = work(*given)
        self.spent[name].append((time.process_time() - start) * 1e3)
        return found

    def answer(self, image: RgbImage) -> None:
        """One image with a face to its pose, part by part."""
        (detection,) = self._timed("face detection: network", self._networks.detections, [image])
        regions = self._timed("face detection: where the face is", detection.regions, 1, MIN_CONFIDENCE)
        ((points,),) = self._timed("first look", self._networks.landmarks, [image], [regions], MIN_CONFIDENCE)
        face = Face.from_points(points, "whole", image)
        looks = further_looks(DEFAULT_LOOKS)
        seen = self._timed(f"{len(looks)} further looks", self._look_again, face, looks)
        landmarks = self._timed("landmarks to the landmark eye's pose", self._eyes.by_landmarks, seen)
        (box,) = self._timed("closer look at where the face is", self._refiner.places, [(image, box_of_68(face))])
        eye = self._image_eye
        for each in eye.crops[:FEW]:
            framed = (image, box, eye.size, each.side * eye.share, each.turn_deg)
            self._timed("each of the image eye's crops, cut", crop, *framed)
        boxed = [Face(image, box, given_box=box)]
        by_image = self._timed("image eye: crops, network, mean", eye.estimate, boxed, True)
        answer = self._timed("fusion and error bars", self._eyes.joined, landmarks, by_image, "both")
        self._timed("angles", head_poses, seen, answer, self._engine)

    def _look_again(self, face: Face, looks: Any) -> list[Face]:
        return look_again(self._networks, [face], looks, GIVEN_BOX_CONFIDENCE)


def parts(images: Sequence[RgbImage]) -> None:
    """Measure the parts on those images (480, 640, 3) that show a face at once, not only mirrored or from near."""
    networks = FaceMeshNetworks(threads=1)
    images = [image for image in images if networks.find([image], 1, MIN_CONFIDENCE)[0]]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        measured = _Parts()
        with HeadPoseEstimator(max_faces=1) as estimator:
            for image in images:
                measured.answer(image)
                start = time.process_time()
                estimator.predict(image)
                measured.spent["all of it: predict, one thread"].append((time.process_time() - start) * 1e3)
    finally:
        cv2.setNumThreads(threads)
    rows = []
    for name, times in measured.spent.items():
        warm = times[_WARM * len(times) // len(images) :]
        rows.append({"part": name, "ms of processor time": statistics.median(warm)})
    report("latency_parts", "What each part of an answer costs", rows, [f"{len(images) - _WARM} photographs."])


def main(root: Path, count: int) -> None:
    """Measure the first photographs of a folder."""
    samples = read_dataset("aflw2000", root).samples[:count]
    parts([in_frame(read_image(root / f"{sample.name}.jpg")) for sample in samples])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--count", type=int, default=150)
    given = parser.parse_args()
    main(given.root, given.count)
