"""BIWI Kinect head poses: a folder for each recording, an image and a pose for each frame."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from nlml_hpe.evaluation.datasets.matlab import LabelError, read_bounded
from nlml_hpe.evaluation.datasets.samples import Dataset, Sample
from nlml_hpe.files.images import read_image
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, angles_from_rotation, is_rotation

_ROTATION_TOLERANCE = 0.1
"""BIWI prints its matrices with six digits or so; what differs from a rotation by more is another matrix."""


def read_biwi(data: Dataset) -> None:
    """All frames below the data set's root; what cannot be used is left out, counted and named."""
    for image in sorted(data.root.glob("*/frame_*_rgb.png")):
        stem = image.name.removesuffix("_rgb.png")
        name = f"{image.parent.name}/{stem}"
        text, binary = (image.with_name(f"{stem}_pose.{suffix}") for suffix in ("txt", "bin"))
        if not text.is_file() and not binary.is_file():
            data.leave_out("image without label", name)
            continue
        try:
            angles = _biwi_text(text) if text.is_file() else _biwi_binary(binary)
        except LabelError as error:
            data.leave_out(f"label not readable ({error})", name)
            continue
        data.add(Sample(name, angles, partial(read_image, image), group=image.parent.name))
    stems = {path.with_name(path.name.split("_pose.")[0]) for path in data.root.glob("*/frame_*_pose.*")}
    for place in sorted(stems):
        if not place.with_name(f"{place.name}_rgb.png").is_file():
            data.leave_out("label without image", f"{place.parent.name}/{place.name}")


def _biwi_text(path: Path) -> tuple[float, float, float]:
    """BIWI's rotation maps the head to a camera with y down and z into the scene; ours has both the other way.

    The angles that follow are those that HopeNet and FSA-Net quote for BIWI.
    """
    try:
        numbers = np.array(read_bounded(path).decode("ascii").split(), dtype=np.float64)[:9]
    except (ValueError, UnicodeDecodeError) as error:
        raise error if isinstance(error, LabelError) else LabelError("not numbers") from error
    if len(numbers) < 9:
        raise LabelError("cut short")
    matrix = numbers.reshape(3, 3)
    if not is_rotation(matrix, _ROTATION_TOLERANCE):
        raise LabelError("not a rotation")
    yaw, pitch, roll = (float(v) for v in angles_from_rotation(IMAGE_FROM_CAMERA @ matrix @ IMAGE_FROM_CAMERA))
    return yaw, pitch, roll


def _biwi_binary(path: Path) -> tuple[float, float, float]:
    """Six float32; their pitch has the other sign (checked on five frames, in which roll is near zero)."""
    content = read_bounded(path)
    if len(content) != 24:
        raise LabelError("not 24 bytes")
    pitch, yaw, roll = (float(value) for value in np.frombuffer(content, dtype="<f4")[3:])
    if not np.isfinite([yaw, pitch, roll]).all():
        raise LabelError("angles not finite")
    return yaw, -pitch, roll
