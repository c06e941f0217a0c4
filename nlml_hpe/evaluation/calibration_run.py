"""What ``python -m nlml_hpe.evaluation.calibration`` does: error bars on labelled faces, measured, fitted and drawn."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import overlap
from nlml_hpe.evaluation.calibration_fit import Labelled, fit, require_enough
from nlml_hpe.evaluation.calibration_fit import answered as answered_by
from nlml_hpe.evaluation.command import require_apart
from nlml_hpe.evaluation.datasets import Dataset, chosen_by_list, read_dataset
from nlml_hpe.evaluation.doubt import doubt_rows, doubt_table
from nlml_hpe.evaluation.faces import Answered, Answerer, LabelledFace, ask, is_known, photographs
from nlml_hpe.evaluation.protocols import PROTOCOLS, protocol_of
from nlml_hpe.files.atomic import ArtifactError, write_bytes, write_json
from nlml_hpe.files.folders import fresh_folder, require_replaceable
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.inference.calibration import DEFAULT_CALIBRATION, ON_PHOTOGRAPHS, RANGES, Calibration
from nlml_hpe.inference.engines import Estimates
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.eyes import Eyes
from nlml_hpe.inference.fusion import EYES, Gaussians
from nlml_hpe.inference.opening import open_eyes
from nlml_hpe.model.components import Component, put_component, read_components
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.view.doubt_plots import plot_held, plot_risk

KIND = "calibration"
"""What the manifest calls the folder of figures; one of another kind is never replaced."""
_SAME_HEAD = 0.3
"""A head that is found is the label's where their boxes overlap by so much (intersection over union) or more."""


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Do what the options of ``calibration.parser`` ask for; returns the rows of the table."""
    if given.output is not None:
        require_replaceable(given.output, KIND)
        require_apart(given.output, given.root)
    if given.fit is not None:
        _require_own(given.model)
    data = chosen_by_list(read_dataset(given.dataset, given.root), given.list)
    print(data.summary())
    ranges = given.fit or ON_PHOTOGRAPHS
    if given.fit is not None:
        # The labels alone say it, before all faces are answered.
        require_enough(_counting(data).rotations, ranges)
    answering = {} if given.fit is None else _eyes_in(given.model)
    eyes = open_eyes(given.model)
    answered = answered_faces(eyes, data, given.looks)
    faces = labelled_faces(eyes, data, answered)
    if given.fit is not None:
        if _eyes_in(given.model) != answering:
            raise ArtifactError(
                f"{given.model}: its eyes are not those that have answered the faces; run the same command again"
            )
        # Of a head that no search finds nobody gets the answer that is given in its label's box.
        found = faces.chosen(answered.found)
        # As it stands now: another run may have fitted other ranges meanwhile.
        calibration = fit(found, ranges, open_eyes(given.model).calibration or DEFAULT_CALIBRATION)
        origin = _fitted_on(given.model) | dict.fromkeys(ranges, _about(given, found))
        put_component(given.model, "calibration", {**calibration.settings(), "fitted_on": origin})
        print(numbers_text(calibration))
        eyes = open_eyes(given.model)
    rows = doubt_rows(faces.true, answers(eyes, faces))
    table = doubt_table(rows, in_label_box(answered))
    print(table, end="")
    if given.output is not None:
        _write(given, rows, table)
    return rows


def answered_faces(eyes: Eyes, data: Dataset, looks: int | None = None) -> Answered:
    """What each eye says of the faces of a data set, uncalibrated and in the named head frame.

    Parameters
    ----------
    eyes : Eyes
        Of a model; the image eye's crop is that of ``predict``.
    data : Dataset
        Of rendered people all count, of photographs those whose label lies within 99 degrees, as their usual protocol
        has it.
    looks : int, optional
        How often the landmark eye looks at each face; by default as often as ``predict`` does.

    Returns
    -------
    Answered
        Of the routes ``landmarks``, ``image`` and ``alone``, as of ``Labelled``, as far as the model has them. The
        image eye is shown the box that ``predict`` finds; where it finds none, that of the label.

    Raises
    ------
    ValueError
        Where no face counts, and for another number of looks than there are.
    """
    counting = _counting(data)
    said: dict[str, Answerer] = {}
    if eyes.landmarks is not None:
        said["landmarks"] = eyes.by_landmarks
    if eyes.image is not None:
        said |= {"image": eyes.by_image, "alone": eyes.image.estimate}
    with HeadPoseEstimator(eyes) as estimator:
        found = photographs(counting, estimator.detector, looks=looks)
        answered = ask((_as_found(estimator, each, looks) for each in found), said)
    if not answered.names:
        raise ValueError(f"{data.root}: no image of a label within 99 degrees reads")
    return answered


def _as_found(estimator: HeadPoseEstimator, labelled: LabelledFace, looks: int | None) -> LabelledFace:
    """A labelled face without its label's box: with the landmarks that were found, which here count even where
    ``predict`` takes them to be lost, or where it finds a head without any."""
    face = labelled.face
    if face.points is not None or face.image is None:
        return replace(labelled, face=replace(face, given_box=None))
    heads = [head for head in estimator.detect(face.image, looks) if overlap(box_of_68(head), face.box) >= _SAME_HEAD]
    return replace(labelled, face=max(heads, key=lambda head: overlap(box_of_68(head), face.box), default=face))


def in_label_box(answered: Answered) -> int:
    """How many faces no search found, so that the image eye answers them in the boxes of their labels."""
    image = answered.answers.get("image")
    return 0 if image is None else int((is_known(image) & ~answered.found).sum())


def labelled_faces(eyes: Eyes, data: Dataset, answered: Answered) -> Labelled:
    """What ``answered_faces`` gave of a data set, as a calibration is measured and fitted by it.

    Parameters
    ----------
    eyes : Eyes
        Which answered.
    data : Dataset
        Whose labels may be in the head frame of the training heads.
    answered : Answered
        The answers.

    Returns
    -------
    Labelled
        NaN where an eye has no answer. In the named head frame, of rendered people in that of their labels.
    """
    nothing = Estimates.of_rotations(np.full((len(answered.names), 3, 3), np.nan))
    landmarks, image, alone = (answered.answers.get(name, nothing) for name in ("landmarks", "image", "alone"))
    if data.is_in_own_frame:
        _, alone = eyes.in_own_frame(landmarks, alone)
        landmarks, image = eyes.in_own_frame(landmarks, image)
    return Labelled(answered.true, *(Gaussians(each.rotation, each.covariance) for each in (landmarks, image, alone)))


def _counting(data: Dataset) -> Dataset:
    """The faces that count, as of ``labelled_faces``."""
    inside = PROTOCOLS[protocol_of(data.name, "crops-round" if data.name == "crops" else None)].includes(data.angles)
    if not inside.any():
        raise ValueError(f"{data.root}: no label lies within 99 degrees")
    return replace(data, samples=list(compress(data.samples, inside)))


def answers(eyes: Eyes, faces: Labelled) -> Mapping[str, Gaussians]:
    """The answers of every eye that the model has, and of both, as inference gives them."""
    if eyes.calibration is None:  # of one eye
        return {eyes.default: faces.landmarks if eyes.default == "landmarks" else faces.alone}
    return {
        eye: answered_by(eyes.calibration, eye, faces) for eye in (EYES if eyes.default == "both" else (eyes.default,))
    }


def numbers_text(calibration: Calibration) -> str:
    """The fitted numbers, a line for each range."""
    lines = []
    for name in RANGES:
        numbers = calibration.numbers(name)
        own = "; ".join(
            f"{eye}: {error.scale:.2f} x sigma + {error.floor_deg:.2f} deg, typically {error.typical_deg:.2f}"
            for eye, error in (("landmarks", numbers.landmarks), ("image", numbers.image))
        )
        shared = ", ".join(f"{axis} {value:.2f}" for axis, value in numbers.shared_deg.items())
        wider = ", ".join(f"{axis} {value:.2f}" for axis, value in numbers.widening["both"].items())
        lines.append(f"{name}: {own}; shared {shared} deg; widened (both) {wider}")
    return "\n".join(lines)


def _require_own(model: Path) -> None:
    """Raise ``ValueError`` where ``--fit`` would write into no model folder, or into that of all who name no model."""
    if not model.is_dir():
        raise ValueError(f"--fit writes into a model folder; {model} is none")
    if model.resolve() == SHIPPED.resolve():
        raise ValueError(f"--fit would change the shipped model itself; copy {SHIPPED} and name the copy by --model")


def _eyes_in(model: Path) -> dict[str, Component]:
    """What a model folder says of its eyes, whose numbers the calibration's are."""
    return {kind: component for kind, component in read_components(model).items() if kind != "calibration"}


def _fitted_on(model: Path) -> dict[str, Any]:
    """Which faces the numbers of each range in a model folder were fitted on, as far as it says so."""
    components = read_components(model)
    said = components["calibration"].settings.get("fitted_on", {}) if "calibration" in components else {}
    return {name: said[name] for name in RANGES if name in said}


def _about(given: argparse.Namespace, faces: Labelled) -> dict[str, Any]:
    about = {"dataset": given.dataset, "folder": given.root.resolve().name, "faces": len(faces.true)}
    return about if given.looks is None else about | {"looks": given.looks}


def _write(given: argparse.Namespace, rows: list[dict[str, Any]], table: str) -> None:
    with fresh_folder(given.output, KIND) as folder:
        write_json(folder / "calibration.json", rows)
        write_bytes(folder / "table.txt", table.encode())
        plot_held(rows, folder / "held.png")
        plot_risk(rows, folder / "risk.png")
        asked = {name: str(getattr(given, name)) for name in ("dataset", "root", "list", "model", "looks", "fit")}
        write_manifest(folder, KIND, asked, {})
