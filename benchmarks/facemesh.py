"""FaceMesh by onnxruntime beside FaceMesh by MediaPipe: ``python benchmarks/facemesh.py``, about three minutes.

All photographs of ``--root`` (by default the development data) and ``--renders`` rendered images: how many have the
same faces, how far the points lie apart, as a share of the face's width, and the poses of the shipped model. MediaPipe
gives every face up to ``MAX_FACES``; poses are the landmark eye's. Needs ``pip install -e '.[train,mediapipe]'``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from tqdm import tqdm

from benchmarks.common import development_data, report
from nlml_hpe.config import GridConfig
from nlml_hpe.detection.detectors import MAX_FACES, FaceMeshOnnx
from nlml_hpe.detection.mediapipe_detectors import MediaPipeFaceMesh
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.rotation import geodesic_degrees
from renderer.config import HeadsConfig, RenderConfig
from renderer.people import People

_RENDERS_EACH = 25


def main(root: Path, renders: int) -> None:
    """Compare on photographs and on renders."""
    samples = read_dataset("aflw2000", root).samples
    sources: dict[str, tuple[Iterable[RgbImage], int]] = {
        f"photographs of {root.name}": ((sample.load() for sample in samples), len(samples)),
        "rendered images": (_rendered(renders), renders),
    }
    rows = [_compared(name, images, count) for name, (images, count) in sources.items()]
    report("facemesh", "FaceMesh by onnxruntime beside MediaPipe", rows)


def _rendered(count: int) -> Iterator[RgbImage]:
    """People of the embedded photograph at poses off the grid."""
    people = People(GridConfig().pose_grid(), HeadsConfig(), RenderConfig(random_poses_train=_RENDERS_EACH), seed=0)
    for start in range(0, count, _RENDERS_EACH):
        person = 1 + start // _RENDERS_EACH
        yield from people.images(person, people.off_grid("train", person)[: count - start])


def _compared(name: str, images: Iterable[RgbImage], count: int) -> dict[str, Any]:
    same, pairs = 0, []
    with MediaPipeFaceMesh(MAX_FACES) as theirs, HeadPoseEstimator() as estimator:
        assert isinstance(estimator.detector, FaceMeshOnnx)
        for image in tqdm(images, desc=name, total=count, unit="image"):
            a, b = estimator.detector.detect(image), theirs.detect(image)
            same += len(a) == len(b)
            pairs += list(zip(a, b, strict=True)) if len(a) == len(b) else []
        each = (estimator.poses(list(some), eye="landmarks") for some in zip(*pairs, strict=True))
        poses = [np.array([pose.rotation for pose in some]) for some in each]
    apart, turned = [_apart(*pair) for pair in pairs], geodesic_degrees(*poses)
    return {
        "images": name,
        "with the same faces": f"{same} of {count}",
        "faces": len(pairs),
        "points apart, median, of the width": f"{np.median(apart):.1e}",
        "largest": f"{max(apart):.1e}",
        "poses apart, mean, degrees": f"{turned.mean():.4f}",
        "largest, degrees": f"{turned.max():.3f}",
    }


def _apart(first: Face, second: Face) -> float:
    """Median distance of two faces' points in space, as a share of the first face's width."""
    points, others = first.landmarks, second.landmarks
    return float(np.median(np.linalg.norm(points - others, axis=1)) / np.ptp(points[:, 0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=development_data() / "aflw2000_dev")
    parser.add_argument("--renders", type=int, default=500)
    given = parser.parse_args()
    main(given.root, given.renders)
