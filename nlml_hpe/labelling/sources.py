"""What a configuration names as data, as sources of crops for the trainer: by kind, counted, kept where it is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.detectors import open_detector_for
from nlml_hpe.detection.landmarks import FACEMESH, LandmarkDetector, box_of_68
from nlml_hpe.evaluation.datasets import (
    Dataset,
    DatasetError,
    Sample,
    bare_name,
    chosen_by_list,
    read_dataset,
    read_list,
    with_slashes,
)
from nlml_hpe.files.images import RgbImage
from nlml_hpe.files.manifests import digest_of_file, digest_of_names_and_sizes
from nlml_hpe.image_networks.config import LabelledDataConfig
from nlml_hpe.image_networks.training_data import Chosen, Photographs, RenderedCrops, Source
from nlml_hpe.labelling.photographs import (
    CropLabel,
    FaceLabels,
    ImageFile,
    image_files,
    summary,
    write_photograph_crops,
)
from nlml_hpe.labelling.pseudo_labels import NO_FACE, PseudoLabeller
from nlml_hpe.model.format import CONFIG_FILE, SHIPPED
from nlml_hpe.rotation import Angles, rotation_from_angles
from nlml_hpe.words import why_no_file

_WHOLE_TURN_DEG = 360.0
"""A label beyond it is no pose, but would be learned as one; of AFLW2000-3D some have 300 degrees and more, one 951."""
_DEPTHS: dict[str, int | None] = {"aflw2000": 1, "300w_lp": 2, "rendered": None, "unlabelled": None}
"""Kinds of data whose faces are in images, and how deep below its root these lie; None: at any depth."""


@dataclass(frozen=True)
class Places:
    """Where a source of crops reads and keeps what is not its data set's own.

    Attributes
    ----------
    crops : Path
        The rendered crops that are meant where the configuration names no folder.
    kept : Path
        The folder for crops of photographs that a detector or a model has to look at first.
    stored_px : int
        Pixels on a side of a crop of a photograph as it is stored.
    """

    crops: Path
    kept: Path
    stored_px: int


def open_source(part: LabelledDataConfig, places: Places) -> Source:
    """The crops of one entry of ``image_trainer.data``; prints what was found and what was left out.

    Parameters
    ----------
    part : LabelledDataConfig
        The entry.
    places : Places
        Where the stages' own data lies.

    Returns
    -------
    Source
        Of crops with their labels.

    Raises
    ------
    DatasetError, ArtifactError
        Where the data is missing, damaged or not what its kind says, and where a list names what is not there.
    """
    return _KINDS.get(part.kind, _photographs)(part, places)


def inputs_of(part: LabelledDataConfig) -> dict[str, str]:
    """Digests of all that an entry is made from, by name; not of crops that a stage wrote, whose manifest says it.

    Raises ``DatasetError`` for a folder or a list that is not there.
    """
    digests, root = {}, part.root
    if part.kind != "crops" and root is not None:
        if not root.exists():
            raise DatasetError(
                f"{root}: no such file or folder; correct the setting `root` of data of kind {part.kind!r}"
            )
        # Without lists: `datasets split` and `list` write them here, and one more of them changes no data.
        digests[str(root)] = digest_of_file(root) if root.is_file() else digest_of_names_and_sizes(root, ".txt")
    if part.list is not None:
        if not part.list.is_file():
            raise DatasetError(
                f"{part.list}: {why_no_file(part.list, 'list')}; correct the setting `list`, or write lists by "
                "`python -m nlml_hpe.evaluation.datasets split FOLDER`"
            )
        digests[str(part.list)] = digest_of_file(part.list)
    if part.kind == "unlabelled":
        model = part.pseudo_labels.model
        config = (model or SHIPPED) / CONFIG_FILE
        digests["model" if model is None else f"model {model}"] = digest_of_file(config) if config.is_file() else ""
    return digests


def require_apart(
    training: Iterable[tuple[LabelledDataConfig, Path]], validation: Iterable[tuple[LabelledDataConfig, Path]]
) -> None:
    """Require that no face is in both splits: errors on faces that were learned from say nothing.

    Entries are compared by where their faces lie and by the names of their lists; no data is read. An image is one
    face's, whatever kind reads it, and whoever labels it.

    Parameters
    ----------
    training, validation : iterable of (LabelledDataConfig, Path)
        The entries of each split, with the folder or file that each is read from.

    Raises
    ------
    DatasetError
        Where an entry of both names the same faces, and for a list that does not read.
    """
    for one, other in product(map(_faces_of, training), map(_faces_of, validation)):
        inner, outer = sorted((one, other), key=lambda faces: len(faces.place.parts), reverse=True)
        shared = _in_both(inner, outer)
        if shared is None or shared:
            raise DatasetError(
                f"{inner.folder}: {'all faces' if shared is None else f'{len(shared)} faces'} are in the training data "
                "and in the validation data, whose errors would be of faces that were learned from; let `list` name "
                "other faces in each, as `python -m nlml_hpe.evaluation.datasets split FOLDER` writes them of labelled "
                "ones"
            )


class _Faces(NamedTuple):
    """The faces of an entry: what holds them, the ``folder`` as it is given and its ``place``, how deep below that
    their images lie (any where None), and their names there (all where None)."""

    holder: str
    folder: Path
    place: Path
    depth: int | None
    names: set[str] | None


def _faces_of(entry: tuple[LabelledDataConfig, Path]) -> _Faces:
    part, folder = entry
    place, names = folder.resolve(), None if part.list is None else _listed(part)
    if part.kind not in _DEPTHS:
        return _Faces(part.kind, folder, place, None, names)
    if place.is_file():  # a video
        place, names = place.parent, {place.name}
    return _Faces("images", folder, place, _DEPTHS[part.kind], names)


def _in_both(inner: _Faces, outer: _Faces) -> set[str] | None:
    """The names, below the inner folder, of the faces that two entries share; None for all that may be there."""
    images = inner.holder == "images"
    if inner.holder != outer.holder or outer.place not in (inner.place, *(inner.place.parents if images else ())):
        return set()
    ways = ((inner, Path()), (outer, inner.place.relative_to(outer.place)))
    depths = {faces.depth - len(way.parts) for faces, way in ways if faces.depth is not None}
    if min(depths, default=1) < 1 or len(depths) > 1:
        return set()
    names = [_below(way, faces.names) for faces, way in ways if faces.names is not None]
    if not names:
        return None
    return {name for name in reduce(_shared, names) if not depths or len(PurePosixPath(name).parts) in depths}


def _below(folder: Path, names: Iterable[str]) -> set[str]:
    """The names that lie in a folder below, as they are called there."""
    places = map(PurePosixPath, names)
    return {place.relative_to(folder).as_posix() for place in places if place.is_relative_to(folder)}


def _listed(part: LabelledDataConfig) -> set[str]:
    """The names of an entry's list, as they are compared: two photographs without labels may differ by suffix alone."""
    assert part.list is not None
    names = (with_slashes(name.strip()) for name in read_list(part.list))
    return set(names) if part.kind == "unlabelled" else set(map(bare_name, names))


def _shared(one: set[str], other: set[str]) -> set[str]:
    """The names of both lists; one without suffix is that of the file whose name goes on with one."""
    given = {name for name in one if bare_name(name) in other} | {name for name in other if bare_name(name) in one}
    return one & other | given


def _crops(part: LabelledDataConfig, places: Places) -> Source:
    source = RenderedCrops(part.root or places.crops)
    if part.list is None:
        return source
    data = read_dataset("crops", source.folder)
    wanted = {sample.name for sample in chosen_by_list(data, part.list).samples}
    return Chosen(source, np.flatnonzero([name in wanted for name in source.names()]))


def _photographs(part: LabelledDataConfig, places: Places) -> Source:
    """The faces of a labelled data set whose label has a box and angles of a turn; others are left out and counted."""
    data = _labelled(part)
    usable: list[Sample] = []
    for sample in data.samples:
        if max(map(abs, sample.angles)) > _WHOLE_TURN_DEG:
            data.leave_out("angle beyond a whole turn, as where degrees stand in place of radians", sample.name)
        elif sample.box is None:
            data.leave_out("label without a box", sample.name)
        else:
            usable.append(sample)
    print(data.summary(), flush=True)
    if not usable:
        raise DatasetError(
            f"{part.root}: nothing to learn from; expected labels with the box of the 68 points, by which crops are "
            f"cut, and angles within {_WHOLE_TURN_DEG:g} degrees"
        )
    boxes = np.array([sample.box for sample in usable], dtype=np.float64)
    labels = Dataset(data.name, data.root, usable).rotations
    return Photographs([sample.load for sample in usable], boxes, labels, places.stored_px, str(data.root))


def _labelled(part: LabelledDataConfig) -> Dataset:
    assert part.root is not None  # the configuration has seen to it
    return chosen_by_list(read_dataset(part.kind, part.root), part.list)


def _rendered(part: LabelledDataConfig, places: Places) -> Source:
    """Rendered images are labelled by their names, which say no box: a detector finds it, once."""
    data = _labelled(part)
    print(data.summary(), flush=True)
    with open_detector_for(FACEMESH, max_faces=1) as detector:

        def file_of(sample: Sample) -> ImageFile:
            rotation = rotation_from_angles(Angles.from_columns(sample.angles))
            return ImageFile(sample.name, lambda: [sample.load()], partial(_label_of_pose, detector, rotation))

        files = [file_of(sample) for sample in data.samples]
        write_photograph_crops(files, places.kept, places.stored_px, {"kind": part.kind}, inputs_of(part))
    print(summary(places.kept), flush=True)
    return RenderedCrops(places.kept)


def _label_of_pose(detector: LandmarkDetector, rotation: NDArray[np.float64], image: RgbImage) -> FaceLabels:
    faces = detector.detect(image)
    return FaceLabels([CropLabel(box_of_68(faces[0]), rotation)]) if faces else FaceLabels([], [NO_FACE])


def _unlabelled(part: LabelledDataConfig, places: Places) -> Source:
    assert part.root is not None  # the configuration has seen to it
    settings = part.pseudo_labels
    with PseudoLabeller(settings.model or SHIPPED, settings.agreement_deg) as label:
        files = image_files(part.root, label, settings.every, part.list)
        config = {"kind": part.kind, "pseudo_labels": settings.model_dump(mode="json")}
        write_photograph_crops(files, places.kept, places.stored_px, config, inputs_of(part))
    print(summary(places.kept), flush=True)
    return RenderedCrops(places.kept)


_KINDS: dict[str, Callable[[LabelledDataConfig, Places], Source]] = {
    "crops": _crops,
    "rendered": _rendered,
    "unlabelled": _unlabelled,
}
"""Kinds that are not labelled photographs with boxes."""
