"""The layouts in which labelled data sets are distributed, one reader for each.

Every reader gives angles in this project's convention. What it cannot use it leaves out, counted and named:

- ``aflw2000``, ``300w_lp``: ``image.jpg`` with ``image.mat`` beside it, in one folder or several
  (``Pose_Para[0][:3]`` is pitch, yaw, roll in radians; ``pt3d_68`` or ``pt2d`` gives the face's box).
- ``biwi``: ``NN/frame_NNNNN_rgb.png`` with ``_pose.txt`` (a 3 x 3 rotation, then the head's centre) or
  ``_pose.bin`` (six float32: centre in mm; pitch, yaw, roll in degrees).
- ``fsanet``: an ``.npz`` with ``image`` (n, H, W, 3), BGR, loose crops of heads, and ``pose`` (n, 3), yaw, pitch, roll.
- ``rendered``: ``ID{n}/ID{n}_(yaw_pitch_roll).jpg``, the layout in which the method's authors publish theirs.
- ``crops``: the shards that the stage Crops writes (``image_networks.shards``): rendered people at drawn poses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.evaluation.datasets.biwi import read_biwi
from nlml_hpe.evaluation.datasets.matlab import LabelError, read_arrays
from nlml_hpe.evaluation.datasets.samples import Dataset, DatasetError, Sample
from nlml_hpe.face import Box, box_of, has_size
from nlml_hpe.files.arrays import read_npz
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import IMAGE_SUFFIXES, RgbImage, read_image, with_swapped_colors
from nlml_hpe.files.manifests import files_below
from nlml_hpe.image_networks.crop import SHARE
from nlml_hpe.image_networks.shards import LABEL_TOLERANCE, NO_ROTATION, Shard, crop_names, read_shards
from nlml_hpe.pose_grid import RenderFolderError, parse_image_name
from nlml_hpe.rotation import angles_from_rotation, is_rotation

_NEAR = 200
_MAT = ".[mM][aA][tT]"
"""The suffix of a label, as patterns have it: it is read in capitals, too."""
_NOT_SEEN = -1.0
"""The x of a point of ``pt2d`` that AFLW2000-3D has no place of."""


class Layout(NamedTuple):
    """How one data set lies on disk: its reader, an example in words, and a pattern by which it is recognised."""

    read: Callable[[Dataset], None]
    example: str
    pattern: str


def read_dataset(name: str, root: str | Path) -> Dataset:
    """Read all labelled faces below a folder.

    Parameters
    ----------
    name : str
        The layout: one of ``LAYOUTS``.
    root : str or Path
        The data set's folder, as distributed.

    Returns
    -------
    Dataset
        Its faces in the order of their names, and what was left out and why.

    Raises
    ------
    DatasetError
        For an unknown name, and for a root without a single labelled face; the message names the folder that was
        probably meant.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (32, 32)).save(f"{folder}/ID1_(10_-20_0).jpg")
    ...     data = read_dataset("rendered", folder)
    >>> [(sample.name, sample.angles) for sample in data.samples]
    [('ID1_(10_-20_0).jpg', (10.0, -20.0, 0.0))]
    """
    if name not in LAYOUTS:
        raise DatasetError(f"unknown data set {name!r}; expected one of {sorted(LAYOUTS)}")
    root = Path(root)
    if not root.exists():
        raise DatasetError(f"{root}: no such folder")
    data = Dataset(name, root)
    LAYOUTS[name].read(data)
    if not data.samples:
        raise DatasetError(f"{data.summary()}\n  expected {LAYOUTS[name].example}{_hint(name, root)}")
    data.samples.sort(key=lambda sample: sample.name)
    return data


def recognised_layout(root: Path) -> str:
    """The layout in which a folder lies. Raises ``DatasetError`` where it is none of them, or no folder."""
    if not root.exists():
        raise DatasetError(f"{root}: no such folder")
    for name in LAYOUTS:
        if _lies_as(name, root) or (name == "fsanet" and root.suffix == ".npz"):
            return name
    known = "\n  ".join(f"{name}: {layout.example}" for name, layout in LAYOUTS.items())
    raise DatasetError(f"{root}: no data set that is known here; expected one of\n  {known}")


def _hint(name: str, root: Path) -> str:
    """The folder that was probably meant, one or two levels down; else the folder's own layout and the one above."""
    below = [place for depth in ("*", "*/*") for place in sorted(root.glob(depth)) if place.is_dir()]
    meant = next((place for place in below[:_NEAR] if _lies_as(name, place)), None)
    if meant is not None:
        return f"; did you mean {meant}?"
    other = next((known for known in LAYOUTS if known != name and _lies_as(known, root)), None)
    hint = "" if other is None else f"; this folder is laid out as {other}"
    # A folder of 300W-LP and AFLW2000-3D are laid out alike; one file of FSA-Net's lies in a folder of them.
    return f"{hint}; did you mean {root.parent}?" if root.is_dir() and _lies_as(name, root.parent) else hint


def _lies_as(name: str, root: Path) -> bool:
    return next(root.glob(LAYOUTS[name].pattern), None) is not None


def _read_pairs(data: Dataset, pattern: str, group: Callable[[Path], str]) -> None:
    """Images with MATLAB labels of the same name, at the data set's own depth below the root."""
    labels: dict[Path, Path] = {}
    images: dict[Path, Path] = {}
    for path in sorted(p for p in data.root.glob(pattern) if p.is_file()):
        stem, suffix = path.with_suffix(""), path.suffix.lower()
        if suffix in IMAGE_SUFFIXES and stem in images:
            data.leave_out("second image of the same name", path.relative_to(data.root).as_posix())
        elif suffix in IMAGE_SUFFIXES:
            images[stem] = path
        elif suffix == ".mat":
            labels[stem] = path
    for stem in sorted(labels.keys() | images.keys()):
        place = stem.relative_to(data.root)
        if stem not in images:
            data.leave_out("label without image", place.as_posix())
        elif stem not in labels:
            data.leave_out("image without label", place.as_posix())
        else:
            _add_pair(data, place, images[stem], labels[stem], group(place))


def _add_pair(data: Dataset, place: Path, image: Path, label: Path, group: str) -> None:
    name = place.as_posix()
    try:
        content = read_arrays(label, ("Pose_Para", "pt3d_68", "pt2d"))
    except LabelError as error:
        data.leave_out(f"label not readable ({error})", name)
        return
    if "Pose_Para" not in content or content["Pose_Para"].size < 3:
        data.leave_out("label without Pose_Para", name)
        return
    pose = content["Pose_Para"].reshape(-1)[:3]
    if not np.isfinite(pose).all():
        data.leave_out("angles not finite", name)
        return
    pitch, yaw, roll = (float(value) for value in np.degrees(pose))
    box = _box_of(content["pt3d_68"]) if "pt3d_68" in content else _box_of(content.get("pt2d"), _NOT_SEEN)
    data.add(Sample(name, (yaw, pitch, roll), partial(read_image, image), box, group))


def _photograph_of_300w_lp(place: Path) -> str:
    """The photograph that a rendered crop was made of, in either of the folders AFW and AFW_Flip.

    Names are PHOTOGRAPH_FACE_INDEX (``AFW_134212_1_0``), in LFPW without the face (``LFPW_image_test_0001_0``).
    """
    folder = _without_flip(place.parent.name)
    end = r"_\d+$" if place.name.startswith("LFPW") else r"(_\d+)?_\d+$"
    return f"{folder}/{re.sub(end, '', place.name)}"


def _without_flip(name: str) -> str:
    """The name of a part of 300W-LP, of a folder or a file of FSA-Net's; its mirror images lie in another one."""
    return name.removesuffix("_Flip")


def _box_of(points: NDArray[np.float64] | None, not_seen: float = np.nan) -> Box | None:
    """The box of landmarks (2 or 3, n), beyond the image, too; those whose x is ``not_seen`` are left out."""
    if points is None or points.ndim != 2 or len(points) not in (2, 3):
        return None
    seen = points[:2, (points[0] != not_seen) & np.isfinite(points[:2]).all(axis=0)]
    box = box_of(seen.T) if seen.size else None
    return box if box is not None and has_size(box) else None


def _read_fsanet(data: Dataset) -> None:
    files = [data.root] if data.root.is_file() else sorted(p for p in data.root.glob("*.npz") if p.is_file())
    for path in files:
        try:
            images, poses = _fsanet_arrays(path)
        except LabelError as error:
            data.leave_out(f"not an FSA-Net file ({error})", path.name)
            continue
        for index, (image, pose) in enumerate(zip(images, poses.astype(np.float64), strict=True)):
            name = f"{path.stem}/{index:06d}"
            if not np.isfinite(pose).all():
                data.leave_out("angles not finite", name)
                continue
            yaw, pitch, roll = (float(value) for value in pose)
            box = _inner_box(image.shape[1], image.shape[0])
            # The file does not say which photograph a crop is from, so that it cannot be divided.
            group = _without_flip(path.stem)
            data.add(Sample(name, (yaw, pitch, roll), partial(with_swapped_colors, image), box, group))


def _inner_box(width: int, height: int) -> Box:
    """The box of the 68 points in a loose crop of a head: that of which THE crop shows all of the image."""
    margin = (1 - 1 / SHARE) / 2
    return margin * width, margin * height, (1 - margin) * width, (1 - margin) * height


def _fsanet_arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """``image`` (n, H, W, 3) and ``pose`` (n, 3) of a file that may be damaged or something else."""
    try:
        found = read_npz(path, ("image", "pose"))
    except ArtifactError as error:
        # The file's name is counted beside the reason.
        raise LabelError(str(error).removeprefix(f"{path}: ")) from error
    images, poses = found["image"], found["pose"]
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise LabelError(f"image {images.dtype} {images.shape}")
    if poses.shape != (len(images), 3) or poses.dtype.kind not in "fiu":
        raise LabelError(f"pose {poses.dtype} {poses.shape}")
    return images, poses


def _read_rendered(data: Dataset) -> None:
    for path in (p for p in files_below(data.root) if p.suffix.lower() in IMAGE_SUFFIXES):
        name = path.relative_to(data.root).as_posix()
        try:
            identity, pose = parse_image_name(path.name)
        except RenderFolderError:
            data.leave_out("name without pose", name)
            continue
        data.add(Sample(name, pose, partial(read_image, path), group=f"ID{identity}", person=str(identity)))


def _read_crops(data: Dataset) -> None:
    """Shards stay memory-mapped. Raises ``ArtifactError`` where one of them is damaged."""
    if not any(data.root.glob(LAYOUTS["crops"].pattern)):
        return
    shards = read_shards(data.root)
    names = iter(crop_names(shards))
    for shard in shards:
        rotations = shard.rotations.astype(np.float64)
        proper = is_rotation(rotations, LABEL_TOLERANCE)
        angles = angles_from_rotation(np.where(proper[:, None, None], rotations, np.eye(3))).columns()
        for row, (pose, box, person) in enumerate(zip(angles, shard.boxes, shard.people, strict=True)):
            name = next(names)
            if not proper[row]:
                data.leave_out(NO_ROTATION, name)
                continue
            yaw, pitch, roll = map(float, pose)
            left, top, right, bottom = map(float, box)
            load = partial(_row_of, shard, row)
            box_of_68 = (left, top, right, bottom)
            data.add(Sample(name, (yaw, pitch, roll), load, box_of_68, f"person {person}", str(person)))


def _row_of(shard: Shard, row: int) -> RgbImage:
    return np.array(shard.images[row])


LAYOUTS: dict[str, Layout] = {
    "aflw2000": Layout(
        partial(_read_pairs, pattern="*", group=str), "image00002.jpg with image00002.mat beside it", f"*{_MAT}"
    ),
    "300w_lp": Layout(
        partial(_read_pairs, pattern="*/*", group=_photograph_of_300w_lp),
        "AFW/name.jpg with AFW/name.mat beside it",
        f"*/*{_MAT}",
    ),
    "biwi": Layout(
        read_biwi,
        "01/frame_00003_rgb.png with 01/frame_00003_pose.txt (or .bin) beside it",
        "*/frame_*_rgb.png",
    ),
    "fsanet": Layout(_read_fsanet, "an .npz file with image (n, H, W, 3) uint8 and pose (n, 3)", "*.npz"),
    "rendered": Layout(_read_rendered, "ID1/ID1_(yaw_pitch_roll).jpg", "ID*/ID*_(*).*"),
    "crops": Layout(_read_crops, "images_00000.npy and what else Crops writes beside it", "images_[0-9]*.npy"),
}
"""Data sets by name."""
