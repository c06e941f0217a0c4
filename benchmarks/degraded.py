"""What worse pictures cost, and whether error bars still hold: ``python benchmarks/degraded.py``, ten minutes.

The photographs of aflw2000_dev made smaller, blocky, blurred, dark and noisy, as cameras and messengers do. Each is
searched as a user's image is, without the label's box, by the shipped model as it is by default; a face is found where
a box overlaps the label's by ``LOOSE`` (intersection over union). Errors are those of the faces that are found, raw, in
degrees; *hold* is the share of 95% intervals of yaw, pitch and roll that the label lies in. Nothing was chosen by this
table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import stages.guard  # noqa: F401

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common import development_data, report
from benchmarks.heads import LOOSE, shared_with
from nlml_hpe.evaluation.datasets import Sample, read_dataset
from nlml_hpe.evaluation.metrics import errors, within_sigma
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fusion import EYES, Eye
from nlml_hpe.rotation import Angles, rotation_from_angles

_SEED = 1
_PROTOCOLS = {"range": "aflw2000-nlml", "within 99": "aflw2000"}
Change = Callable[[RgbImage, float, np.random.Generator], RgbImage]
"""A picture, the longer side of its face's box in pixels, and what is drawn by, to a worse picture."""


def smaller(face_px: int) -> Change:
    """The whole picture so small that the face's box has this longer side; a smaller one stays as it is."""

    def change(image: RgbImage, side: float, _: np.random.Generator) -> RgbImage:
        scale = min(1.0, face_px / side)
        size = [max(1, round(scale * length)) for length in image.shape[1::-1]]
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    return change


def compressed(quality: int) -> Change:
    """As a JPEG of this quality."""

    def change(image: RgbImage, _: float, __: np.random.Generator) -> RgbImage:
        blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        written = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.cvtColor(cv2.imdecode(written, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)

    return change


def blurred(share: float) -> Change:
    """By a Gaussian whose standard deviation is this share of the box."""

    def change(image: RgbImage, side: float, _: np.random.Generator) -> RgbImage:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), share * side), dtype=np.uint8)

    return change


def exposed(gain: float, noise: float) -> Change:
    """Values times ``gain``, then noise of this standard deviation, of 255."""

    def change(image: RgbImage, _: float, rng: np.random.Generator) -> RgbImage:
        return np.clip(gain * image + rng.normal(0.0, noise, image.shape), 0, 255).astype(np.uint8)

    return change


def grey(image: RgbImage, _: float, __: np.random.Generator) -> RgbImage:
    """Without colour."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), dtype=np.uint8)


CHANGES: Mapping[str, Change] = {
    "as they are": lambda image, _, __: image,
    "grey": grey,
    "face of 48 px": smaller(48),
    "face of 32 px": smaller(32),
    "face of 24 px": smaller(24),
    "face of 16 px": smaller(16),
    "JPEG of quality 10": compressed(10),
    "JPEG of quality 5": compressed(5),
    "blurred by 2% of the box": blurred(0.02),
    "blurred by 4% of the box": blurred(0.04),
    "a quarter of the light, noise of 4": exposed(0.25, 4.0),
    "a tenth of the light, noise of 4": exposed(0.1, 4.0),
    "noise of 20": exposed(1.0, 20.0),
}


class Asked(NamedTuple):
    """Of n photographs: the rotations (n, 3, 3) of each eye and the default's standard deviations (n, 3) of yaw, pitch
    and roll in degrees; NaN where there is no answer."""

    rotations: Mapping[Eye, NDArray[np.float64]]
    sigma: NDArray[np.float64]


def main(root: Path) -> None:
    """Ask about every changed photograph, and write the table."""
    samples = [sample for sample in read_dataset("aflw2000", root).samples if sample.box is not None]
    labels = Angles.from_columns(np.array([sample.angles for sample in samples]))
    with HeadPoseEstimator() as estimator:
        rows = [
            {"photographs": name, **_row(_asked(estimator, samples, change, name), labels)}
            for name, change in CHANGES.items()
        ]
    report("degraded", f"Worse pictures of {root.name}", rows)


def _asked(estimator: HeadPoseEstimator, samples: Sequence[Sample], change: Change, name: str) -> Asked:
    rng = np.random.default_rng(_SEED)
    rotations: dict[Eye, NDArray[np.float64]] = {eye: np.full((len(samples), 3, 3), np.nan) for eye in EYES}
    sigma = np.full((len(samples), 3), np.nan)
    for row, sample in enumerate(tqdm(samples, desc=name, unit="image", leave=False)):
        assert sample.box is not None  # the others are left out
        image = sample.load()
        left, top, right, bottom = sample.box
        worse = change(image, max(right - left, bottom - top), rng)
        box = np.array(sample.box) * np.tile(np.array(worse.shape[1::-1]) / image.shape[1::-1], 2)
        face = _same(estimator.detect(worse), box)
        for eye in EYES:
            if face is not None and (face.points is not None or eye != "landmarks"):
                (pose,) = estimator.poses([face], eye=eye)
                rotations[eye][row] = pose.rotation
                if eye == "both":
                    sigma[row] = pose.sigma
    return Asked(rotations, sigma)


def _same(faces: Sequence[Face], box: NDArray[np.float64]) -> Face | None:
    """The found face that is the labelled one."""
    shared = shared_with(faces, box)
    return faces[int(shared.argmax())] if shared.max(initial=0) >= LOOSE else None


def _row(asked: Asked, labels: Angles) -> dict[str, Any]:
    """Coverage, errors of each eye in both ranges, and how often the default's intervals hold."""
    true = rotation_from_angles(labels)
    known = {eye: np.isfinite(rotations).all(axis=(1, 2)) for eye, rotations in asked.rotations.items()}
    chosen = {name: PROTOCOLS[protocol].includes(labels) for name, protocol in _PROTOCOLS.items()}
    columns, held = labels.columns(), dict[str, tuple[list[float], float]]()
    row: dict[str, Any] = {}
    for name, inside in chosen.items():
        row[f"found, {name}"] = f"{(inside & known['both']).sum()} of {inside.sum()}"
    for eye in EYES:
        for name, inside in chosen.items():
            of_these = inside & known[eye]
            found = errors(asked.rotations[eye][of_these], true[of_these], Angles.from_columns(columns[of_these]))
            row[f"{eye}, {name}"] = float(found.angle.mean())
            if eye == "both":
                held[name] = within_sigma(found, asked.sigma[of_these])["1.96"], asked.sigma[of_these].mean()
    for name, (shares, sigma) in held.items():
        row[f"hold, {name}"] = " / ".join(f"{share:.2f}" for share in shares)
        row[f"sigma, {name}"] = float(sigma)
    row["by landmarks, within 99"] = int((chosen["within 99"] & known["landmarks"]).sum())
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root",
        type=Path,
        default=development_data() / "aflw2000_dev",
        help="folder of photographs in AFLW2000-3D's layout",
    )
    main(parser.parse_args().root)
