"""Labelled benchmarks read as they are distributed, and the protocols under which figures are quoted.

Every reader gives angles in this project's convention and says what it left out and why. Layouts:

- ``aflw2000``, ``300w_lp``: ``image.jpg`` with ``image.mat`` beside it, in one folder or several
  (``Pose_Para[0][:3]`` is pitch, yaw, roll in radians; ``pt3d_68`` or ``pt2d`` gives the face's box).
- ``biwi``: ``NN/frame_NNNNN_rgb.png`` with ``_pose.txt`` (a 3 x 3 rotation, then the head's centre) or
  ``_pose.bin`` (six float32: centre in mm; pitch, yaw, roll in degrees).
- ``fsanet``: an ``.npz`` with ``image`` (n, H, W, 3), BGR, and ``pose`` (n, 3), yaw, pitch, roll.
- ``rendered``: ``ID{n}/ID{n}_(yaw_pitch_roll).jpg``, the layout in which the method's authors publish theirs.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from nlml_hpe.detection.landmarks import Box
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.files.images import IMAGE_SUFFIXES, RgbImage, read_image
from nlml_hpe.pose_grid import RenderFolderError, parse_image_name
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, Angles, angles_from_rotation

MAX_LABEL_BYTES = 16 * 1024 * 1024
MAX_NPZ_BYTES = 4 * 1024**3
_SHOWN = 3
_NEAR = 200


class DatasetError(ValueError):
    """A folder is not the data set it should be; the message says what was found and what to do."""


@dataclass(frozen=True)
class Sample:
    """One labelled face: its ``name``, true (yaw, pitch, roll) in degrees, the image, and its ``box`` in pixels."""

    name: str
    angles: tuple[float, float, float]
    load: Callable[[], RgbImage]
    box: Box | None = None


@dataclass
class Dataset:
    """Samples in the order of their names, and what was ``left_out``: reason -> names."""

    name: str
    root: Path
    samples: list[Sample] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Count a file that cannot be used."""
        self.left_out.setdefault(reason, []).append(name)

    @property
    def angles(self) -> Angles:
        """True angles (n,) in degrees."""
        return Angles.from_columns(np.reshape([sample.angles for sample in self.samples], (-1, 3)))

    def summary(self) -> str:
        """What was found and what was left out, in words."""
        lines = [f"{self.name} in {self.root}: {len(self.samples)} labelled faces"]
        for reason, names in self.left_out.items():
            more = ", ..." if len(names) > _SHOWN else ""
            lines.append(f"left out, {reason}: {len(names)} ({', '.join(names[:_SHOWN])}{more})")
        return "\n  ".join(lines)


@dataclass(frozen=True)
class Protocol:
    """Which faces count: all angles within ``limits`` (yaw, pitch, roll) degrees of zero, of one data set."""

    dataset: str
    limits: tuple[float, float, float]

    def includes(self, angles: Angles) -> NDArray[np.bool_]:
        """Whether each of (n,) faces counts."""
        return np.asarray((np.abs(angles.columns()) <= self.limits).all(axis=1))


_ALL, _PAPER = (99.0, 99.0, 99.0), (50.0, 40.0, 30.0)
PROTOCOLS = {
    **{name: Protocol(name, _ALL) for name in ("aflw2000", "300w_lp", "biwi", "fsanet", "rendered")},
    **{f"{name}-nlml": Protocol(name, _PAPER) for name in ("aflw2000", "300w_lp", "biwi", "fsanet", "rendered")},
}
"""``aflw2000`` is the field's usual one (1,969 of 2,000 faces); ``-nlml`` is the range of the method's paper."""


def read_dataset(name: str, root: Path) -> Dataset:
    """Read the data set of this name below ``root``.

    Raises ``DatasetError`` for an unknown name and for a root without a single labelled face, with
    the folder that was probably meant.
    """
    if name not in _READERS:
        raise DatasetError(f"unknown data set {name!r}; expected one of {sorted(_READERS)}")
    if not root.exists():
        raise DatasetError(f"{root}: no such folder")
    data = Dataset(name, root)
    _READERS[name](data)
    if not data.samples:
        raise DatasetError(f"{data.summary()}\n  expected {_LAYOUTS[name]}{_hint(name, root)}")
    data.samples.sort(key=lambda sample: sample.name)
    return data


def _hint(name: str, root: Path) -> str:
    """The folder that was probably meant, one or two levels up or down."""
    pattern = {"biwi": "*/frame_*_rgb.png", "rendered": "ID*_(*).*", "300w_lp": "*/*.mat", "fsanet": "*.npz"}.get(
        name, "*.mat"
    )
    below = [place for depth in ("*", "*/*") for place in sorted(root.glob(depth)) if place.is_dir()]
    near = [*below[:_NEAR], root.parent]
    meant = next((place for place in near if next(place.glob(pattern), None)), None)
    return f"; did you mean {meant}?" if meant else ""


def _read_pairs(data: Dataset, pattern: str) -> None:
    """Images with MATLAB labels of the same name, at the data set's own depth below the root."""
    files = sorted(data.root.glob(pattern))
    labels = {path.with_suffix(""): path for path in files if path.suffix == ".mat"}
    images = {path.with_suffix(""): path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    for stem in sorted(labels.keys() | images.keys()):
        name = str(stem.relative_to(data.root))
        if stem not in images:
            data.leave_out("label without image", name)
        elif stem not in labels:
            data.leave_out("image without label", name)
        else:
            _add_pair(data, name, images[stem], labels[stem])


def _add_pair(data: Dataset, name: str, image: Path, label: Path) -> None:
    if label.stat().st_size > MAX_LABEL_BYTES:
        data.leave_out(f"label larger than {MAX_LABEL_BYTES} bytes", name)
        return
    try:
        content = loadmat(label, variable_names=["Pose_Para", "pt3d_68", "pt2d"])
    except (MatReadError, ValueError, TypeError, NotImplementedError, OSError) as error:
        data.leave_out(f"label not readable ({type(error).__name__})", name)
        return
    if "Pose_Para" not in content or content["Pose_Para"].size < 3:
        data.leave_out("label without Pose_Para", name)
        return
    pitch, yaw, roll = (float(v) for v in np.degrees(content["Pose_Para"].reshape(-1)[:3].astype(np.float64)))
    if not np.isfinite([pitch, yaw, roll]).all():
        data.leave_out("angles not finite", name)
        return
    points = content.get("pt3d_68", content.get("pt2d"))
    data.samples.append(Sample(name, (yaw, pitch, roll), partial(read_image, image), _box_of(points)))


def _box_of(points: Any) -> Box | None:
    """The box of landmarks (2 or 3, n); points at or below zero are missing in ``pt2d``."""
    if points is None or points.ndim != 2 or len(points) < 2:
        return None
    x, y = points[:2, (points[:2] > 0).all(axis=0) & np.isfinite(points[:2]).all(axis=0)].astype(np.float64)
    if len(x) < 2 or np.ptp(x) <= 0 or np.ptp(y) <= 0:
        return None
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _read_biwi(data: Dataset) -> None:
    for image in sorted(data.root.glob("*/frame_*_rgb.png")):
        stem = image.name.removesuffix("_rgb.png")
        name = f"{image.parent.name}/{stem}"
        text, binary = (image.with_name(f"{stem}_pose.{suffix}") for suffix in ("txt", "bin"))
        angles = _biwi_text(text) if text.is_file() else _biwi_binary(binary) if binary.is_file() else None
        if angles is None:
            readable = text.is_file() or binary.is_file()
            data.leave_out("label not readable" if readable else "image without label", name)
        else:
            data.samples.append(Sample(name, angles, partial(read_image, image)))
    stems = {path.with_name(path.name.split("_pose.")[0]) for path in data.root.glob("*/frame_*_pose.*")}
    for place in sorted(stems):
        if not place.with_name(f"{place.name}_rgb.png").is_file():
            data.leave_out("label without image", f"{place.parent.name}/{place.name}")


def _biwi_text(path: Path) -> tuple[float, float, float] | None:
    """BIWI's rotation maps the head to a camera with y down and z into the scene; ours has both the other way.

    The angles that follow are those that HopeNet and FSA-Net quote for BIWI.
    """
    if path.stat().st_size > MAX_LABEL_BYTES:
        return None
    try:
        numbers = np.array(path.read_text(encoding="ascii").split(), dtype=np.float64)
    except (ValueError, UnicodeDecodeError):
        return None
    if (
        len(numbers) < 9
        or not np.isfinite(numbers[:9]).all()
        or abs(np.linalg.det(numbers[:9].reshape(3, 3)) - 1) > 0.1
    ):
        return None
    rotation = IMAGE_FROM_CAMERA @ numbers[:9].reshape(3, 3) @ IMAGE_FROM_CAMERA
    yaw, pitch, roll = (float(value) for value in angles_from_rotation(rotation))
    return yaw, pitch, roll


def _biwi_binary(path: Path) -> tuple[float, float, float] | None:
    """Six float32; their pitch has the other sign (checked on five frames, in which roll is near zero)."""
    content = path.read_bytes() if path.stat().st_size == 24 else b""
    if not content:
        return None
    pitch, yaw, roll = (float(value) for value in np.frombuffer(content, dtype="<f4")[3:])
    return (yaw, -pitch, roll) if np.isfinite([yaw, pitch, roll]).all() else None


def _read_fsanet(data: Dataset) -> None:
    files = [data.root] if data.root.is_file() else sorted(data.root.glob("*.npz"))
    for path in files:
        if path.stat().st_size > MAX_NPZ_BYTES:
            data.leave_out(f"file larger than {MAX_NPZ_BYTES} bytes", path.name)
            continue
        try:
            with np.load(path, allow_pickle=False) as content:
                images, poses = content["image"], content["pose"]
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            data.leave_out(f"not an FSA-Net file ({type(error).__name__})", path.name)
            continue
        if images.ndim != 4 or images.dtype != np.uint8 or poses.shape != (len(images), 3):
            data.leave_out(f"image {images.dtype} {images.shape} and pose {poses.shape} do not fit", path.name)
            continue
        for index, (image, pose) in enumerate(zip(images, poses.astype(np.float64), strict=True)):
            yaw, pitch, roll = (float(value) for value in pose)
            flipped = np.ascontiguousarray(image[..., ::-1])
            box = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
            sample = Sample(f"{path.stem}/{index:06d}", (yaw, pitch, roll), partial(_same, flipped), box)
            data.samples.append(sample)


def _same(image: RgbImage) -> RgbImage:
    return image


def _read_rendered(data: Dataset) -> None:
    for path in sorted(p for p in data.root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        name = str(path.relative_to(data.root))
        try:
            _, pose = parse_image_name(path.name)
        except RenderFolderError:
            data.leave_out("name without pose", name)
            continue
        data.samples.append(Sample(name, pose, partial(read_image, path)))


_READERS: dict[str, Callable[[Dataset], None]] = {
    "aflw2000": partial(_read_pairs, pattern="*"),
    "300w_lp": partial(_read_pairs, pattern="*/*"),
    "biwi": _read_biwi,
    "fsanet": _read_fsanet,
    "rendered": _read_rendered,
}
_LAYOUTS = {
    "aflw2000": "image00002.jpg with image00002.mat beside it",
    "300w_lp": "AFW/name.jpg with AFW/name.mat beside it",
    "biwi": "01/frame_00003_rgb.png with 01/frame_00003_pose.txt (or .bin) beside it",
    "fsanet": "an .npz file with image (n, H, W, 3) uint8 and pose (n, 3)",
    "rendered": "ID1/ID1_(yaw_pitch_roll).jpg",
}


def file_list(data: Dataset) -> Iterator[str]:
    """Names without suffix, as 6DRepNet, HopeNet and others of this field expect in ``files.txt``."""
    for sample in data.samples:
        yield sample.name


def command() -> int:
    """``python -m nlml_hpe.evaluation.datasets filelist ROOT`` and ``... info ROOT``."""
    parser = argparse.ArgumentParser(description=command.__doc__)
    parser.add_argument("action", choices=["filelist", "info"])
    parser.add_argument("root", type=Path)
    parser.add_argument("--dataset", choices=sorted(_READERS), default="aflw2000")
    given = parser.parse_args()
    try:
        data = read_dataset(given.dataset, given.root)
        print(data.summary())
        if given.action == "filelist":
            if not given.root.is_dir():
                raise DatasetError(f"{given.root}: expected a folder to write files.txt into")
            write_bytes(given.root / "files.txt", "".join(f"{line}\n" for line in file_list(data)).encode())
            print(f"wrote {given.root / 'files.txt'}")
        else:
            counts = Counter(
                {name: int(p.includes(data.angles).sum()) for name, p in PROTOCOLS.items() if p.dataset == data.name}
            )
            print("\n".join(f"protocol {name}: {count} of {len(data.samples)}" for name, count in counts.items()))
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(command())
