"""Photographs and video frames to shards of crops, once, so that training reads them as it reads rendered ones.

The folder is an artefact: it is written shard by shard, a run that was killed goes on with the shard that it was at,
and what no crop could be cut of is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nlml_hpe.evaluation.datasets import DatasetError, bare_name, each_once, meant, read_list
from nlml_hpe.evaluation.datasets.samples import counted_names
from nlml_hpe.face import Box
from nlml_hpe.files.atomic import OWN_PREFIX, ArtifactError, read_json, write_json
from nlml_hpe.files.folders import begun_folder, replace_folder
from nlml_hpe.files.images import IMAGE_SUFFIXES, ImageReadError, RgbImage, read_image
from nlml_hpe.files.locks import exclusive
from nlml_hpe.files.manifests import digest_of, files_below, is_current, read_manifest, write_manifest
from nlml_hpe.image_networks.crop import STORED_SHARE, stored_crop
from nlml_hpe.image_networks.shards import Shard, is_written, read_shards, write_shard
from nlml_hpe.inference.video_files import VideoError, VideoSource
from nlml_hpe.words import BAR_DELAY_SECONDS

KIND = "photograph_crops"
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
MOST_FRAMES = 4096
"""Frames of one video that are looked at, lest one teaches more than all others."""
_TOGETHER = 64
"""Photographs of a shard; a video is a shard of its own."""
UNREADABLE = "files not readable"
TOO_LONG = f"videos whose end was not looked at, after {MOST_FRAMES} frames"


class CropLabel(NamedTuple):
    """One face of an image: the ``box`` of its 68 points in pixels, its ``rotation`` (3, 3), and how sure that is."""

    box: Box
    rotation: NDArray[np.float64]
    confidence: float = 1.0


class FaceLabels(NamedTuple):
    """The faces of an image that are labelled, and of each other one why it is not."""

    labels: Sequence[CropLabel]
    left_out: Sequence[str] = ()


Labeller = Callable[[RgbImage], FaceLabels]


@dataclass(frozen=True)
class ImageFile:
    """Images that are labelled in the same way: one photograph, or the frames of a video.

    Attributes
    ----------
    name : str
        Path below the root; of a photograph without suffix, unless another one differs by that alone.
    images : callable
        Opens the images. May raise ``ImageReadError`` or ``VideoError``: then the file is left out and counted.
    label : callable
        An image to its faces.
    is_video : bool
        Whether there are many images.
    """

    name: str
    images: Callable[[], Iterable[RgbImage]]
    label: Labeller
    is_video: bool = False


def image_files(root: Path, label: Labeller, every: int = 1, names: Path | None = None) -> list[ImageFile]:
    """All photographs and videos below a folder, as ``files_below`` finds them, or one video file.

    Parameters
    ----------
    root : Path
        The folder, or a video.
    label : callable
        What labels an image.
    every : int
        Of a video every such frame is looked at: neighbours are too much alike to teach more than one of them.
    names : Path, optional
        A list of names, one a line, with or without suffix; others are not looked at.

    Returns
    -------
    list of ImageFile
        In the order of their names, or of the list's; nothing is read yet.

    Raises
    ------
    DatasetError
        Where the root is missing or holds neither, and where a name of the list is not there, stands there twice, or
        is that of several photographs (``a`` of ``a.jpg`` and ``a.png``).
    """
    if not root.exists():
        raise DatasetError(f"{root}: no such file or folder")
    paths = [root] if root.is_file() else files_below(root)
    places = {path.name if root.is_file() else path.relative_to(root).as_posix(): path for path in paths}
    places = {name: path for name, path in places.items() if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEOS)}
    owners = Counter(one for name in places for one in {name, bare_name(name)})
    files = {}
    for name, path in places.items():
        if path.suffix.lower() in VIDEOS:
            files[name] = ImageFile(name, _frames(path, every), label, is_video=True)
        else:
            own = bare_name(name) if owners[bare_name(name)] == 1 else name
            files[name] = ImageFile(own, _photograph(path), label)
    if not files:
        known = ", ".join((*IMAGE_SUFFIXES, *VIDEOS))
        raise DatasetError(f"{root}: neither photographs nor videos; expected names that end in one of {known}")
    if names is None:
        return list(files.values())
    return [files[name] for name in _listed(names, list(files), root)]


def _listed(names: Path, known: Sequence[str], root: Path) -> list[str]:
    """The files that a list names, by their names with suffix, whether it gives the suffix or not."""
    wanted = read_list(names)
    found = meant(wanted, known)
    if unknown := [name for name, one in zip(wanted, found, strict=True) if not one]:
        raise DatasetError(f"{names}: of {len(wanted)} names these are not in {root}: {counted_names(unknown)}")
    return each_once(names, found)


def _photograph(path: Path) -> Callable[[], Iterable[RgbImage]]:
    return lambda: [read_image(path)]


def _frames(path: Path, every: int) -> Callable[[], Iterator[RgbImage]]:
    def frames() -> Iterator[RgbImage]:
        with VideoSource(path) as video:
            for frame in video:
                if frame.number % every == 0:
                    yield frame.image

    return frames


def write_photograph_crops(
    files: Sequence[ImageFile], folder: Path, size: int, settings: Mapping[str, Any], inputs: Mapping[str, str]
) -> Path:
    """Cut and label the faces of all files, unless ``folder`` holds just that already.

    Parameters
    ----------
    files : sequence of ImageFile
        What is looked at, in this order.
    folder : Path
        The artefact to write.
    size : int
        Pixels on a side of a stored crop, which shows ``STORED_SHARE`` times the box.
    settings, inputs : mapping
        What the labels depend on, for the manifest.

    Returns
    -------
    Path
        ``folder``; its shards are read by ``shards.read_shards``, its manifest's facts count what was left out.

    Raises
    ------
    ArtifactError
        Where ``folder`` holds anything else, and where no face of all files has a label.
    """
    config = {**settings, "stored_px": size}
    if is_current(folder, KIND, config, inputs):
        return folder
    with exclusive(folder):
        partial = begun_folder(folder, KIND, digest_of([config, dict(inputs), [file.name for file in files]]))
        left_out: Counter[str] = Counter()
        with tqdm(total=len(files), desc=f"Label {folder.name}", unit="file", delay=BAR_DELAY_SECONDS) as bar:
            for number, group in enumerate(_groups(files)):
                counts = partial / f"{OWN_PREFIX}left_out_{number:05d}.json"
                if not is_written(partial, number):
                    _write_group(partial, number, group, size, counts)
                left_out.update(read_json(counts))
                bar.update(len(group))
        crops = sum(map(len, read_shards(partial)))
        if not crops:
            raise ArtifactError(f"{folder}: of {len(files)} files no face has a label; {_reasons(left_out)}")
        facts = {"crops": crops, "files": len(files), "left_out": dict(left_out), "side_over_box": STORED_SHARE}
        write_manifest(partial, KIND, config, inputs, facts)
        replace_folder(partial, folder, KIND)
    return folder


def summary(folder: Path) -> str:
    """How many crops such a folder holds and what was left out, in words."""
    facts = read_manifest(folder, KIND)["facts"]
    lost = _reasons(facts["left_out"])
    return f"{folder}: {facts['crops']} crops of {facts['files']} files" + (f"; left out: {lost}" if lost else "")


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(left_out.items()))


def _groups(files: Sequence[ImageFile]) -> Iterator[list[ImageFile]]:
    """What becomes one shard: some photographs, or one video."""
    together: list[ImageFile] = []
    for file in files:
        if together and (file.is_video or together[-1].is_video or len(together) == _TOGETHER):
            yield together
            together = []
        together.append(file)
    if together:
        yield together


def _write_group(partial: Path, number: int, group: Sequence[ImageFile], size: int, counts: Path) -> None:
    images, boxes, labels, people = [], [], [], []
    left_out: Counter[str] = Counter()
    for index, file in enumerate(group):
        for image, label in _labelled(file, left_out):
            cut, box = stored_crop(image, label.box, size)
            images.append(cut)
            boxes.append(box)
            labels.append(label)
            people.append(number * _TOGETHER + index)
    shard = Shard(
        np.reshape(np.array(images, dtype=np.uint8), (-1, size, size, 3)),
        np.reshape(np.array([label.rotation for label in labels], dtype=np.float32), (-1, 3, 3)),
        np.reshape(np.array(boxes, dtype=np.float32), (-1, 4)),
        np.array(people, dtype=np.int32),
        np.array([label.confidence for label in labels], dtype=np.float32),
    )
    write_json(counts, left_out)
    write_shard(partial, number, shard)


def _labelled(file: ImageFile, left_out: Counter[str]) -> Iterator[tuple[RgbImage, CropLabel]]:
    """The faces of a file's images that have a label; the others are counted."""
    try:
        for number, image in enumerate(file.images()):
            if number == MOST_FRAMES:
                left_out[TOO_LONG] += 1
                return
            found = file.label(image)
            left_out.update(found.left_out)
            for label in found.labels:
                yield image, label
    except (ImageReadError, VideoError):
        left_out[UNREADABLE] += 1
