"""Heads all the way round, with a mask and without: ``python benchmarks/all_around.py --kit FACEXMODEL``: an hour.

Unseen people of ICT-FaceKit are rendered as crops with backgrounds and answered by each eye of a model; angles between
rotations, in degrees. Over three heads in ten lies a hand or a thing. In the rows of the crop's *own* box the image eye
is told where the 68 points lie, as by a label, which tells of a head from behind much of its pose; in those of the box
that is *found* nobody tells, and the answer is to the largest head that ``predict`` finds in the crop.

- ``all_around``: yaw evenly over the full circle, pitch and roll about zero, by the side of the head that is seen;
  intervals are those of 95% of all drawings of as many people from these.
- ``masks``: the first 30 at the same poses of the paper's range, under the same light, with a face mask and without.
- ``all_around.jpg``: a head that turns once around, each picture with the answer's axes.

Their hair is a painted shell. With ``--makehuman FOLDER`` it has a real shape, and there are shoulders and clothes:
then ``all_around_dressed`` is all that is written.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common import RESULTS, development_data, report
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.device import resolve_device
from nlml_hpe.evaluation.evaluate import FUSED_ROUTE, IMAGE_ROUTE
from nlml_hpe.evaluation.faces import LabelledFace, annotated_face, ask
from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.evaluation.subject import Subject, open_subject
from nlml_hpe.face import Face, facing_of
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import DEFAULT_ROUTE, Estimates
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.rotation import Angles, rotation_from_angles
from nlml_hpe.view.draw import draw_axes
from nlml_hpe.view.pictures import save_image, tiled
from renderer.config import CropsConfig, HeadsConfig, LooksConfig
from renderer.crop_drawing import Crop, draw_crop
from renderer.crop_people import draw_person, small_kit
from renderer.crop_scene import pictures
from renderer.crops import CropSet
from renderer.heads.ict_kit import Kit

_SEED = 4_711
_PX = 224
_ROUTES = (DEFAULT_ROUTE, IMAGE_ROUTE, FUSED_ROUTE)
_LOOKS = LooksConfig(bald=0.07, long_hair=0.45, beard=0.25, glasses=0.2, sunglasses=0.06, head_covering=0.14)
_ROUND = CropsConfig(size=_PX, around=1.0, wide=0.0, spread_deg=(0, 22, 22))
_IN_RANGE = CropsConfig(size=_PX, wide=1.0, limits_deg=(50, 40, 30), occluded=0.0)
_MASKED = 30
"""So many people at most are shown with a mask and without."""
_DRAWINGS = 1000
_TURN_DEG = tuple(range(0, 360, 15))
_ByBox = Sequence[tuple[str, Sequence[str], Mapping[str, Estimates]]]
"""Whose box, the routes that are reported of it, and what these answer."""


def main(model: Path, kit: Path, people: int, makehuman: Path | None) -> None:
    """Render, ask, and write both tables and the picture, or the first table of dressed people."""
    subject = open_subject(model, resolve_device("cpu"))
    with tempfile.TemporaryDirectory() as cache, FaceMeshOnnx(max_faces=1) as detector:

        def rendered(crops: CropsConfig, people: int, masks: float) -> list[Crop]:
            """Crops of so many people, of whom a share has face masks."""
            looks = _LOOKS.model_copy(update={"face_mask": masks})
            heads = HeadsConfig(
                source="ict_facekit",
                folder=kit,
                makehuman=makehuman,
                validation=people,
                expressions="all",
                looks=looks,
            )
            unseen = CropSet(heads, crops, _SEED, "validation", Path(cache))
            return [crop for person in tqdm(unseen.people(), unit="person") for crop in unseen.of_person(person)]

        def both_boxes(crops: Sequence[Crop]) -> _ByBox:
            own, found = _answers(_faces(crops, detector), subject), _answers(_found(crops, model), subject)
            return ("own", _ROUTES, own), ("found", (FUSED_ROUTE,), found)

        crops = rendered(_ROUND, people, masks=0.1)
        sides = np.array([facing_of(crop.rotation) for crop in crops])
        owners = np.arange(len(crops)) // (len(crops) // people)
        rows = []
        for box, routes, given in both_boxes(crops):
            for side in ("front", "side", "rear", "all"):
                chosen = (sides == side) | (side == "all")
                rows += [{"seen": side, "box": box, **_row(crops, given, route, chosen, owners)} for route in routes]
        notes = [f"{people} people of ICT-FaceKit that no training has seen, a tenth with face masks."]
        if makehuman is not None:
            notes.append("With MakeHuman's hair, shoulders and clothes.")
            report("all_around_dressed", "Dressed heads all the way round", rows, notes)
            return
        report("all_around", "Rendered heads all the way round", rows, notes)
        masks = _masks(rendered, both_boxes, min(people, _MASKED))
        report("masks", "Rendered heads with a face mask and without", *masks)
        save_image(_turning(kit, Path(cache), subject, detector), RESULTS / "all_around.jpg")


def _masks(
    rendered: Callable[[CropsConfig, int, float], list[Crop]],
    both_boxes: Callable[[list[Crop]], _ByBox],
    people: int,
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each eye and box, and the note below the table."""
    plain, masked = (rendered(_IN_RANGE, people, share) for share in (0.0, 1.0))
    rows = []
    for (box, routes, first), (_, _, second) in zip(both_boxes(plain), both_boxes(masked), strict=True):
        every = np.ones(len(plain), dtype=bool)
        for route in routes:
            one, other = _row(plain, first, route, every), _row(masked, second, route, every)
            row = {
                f"{name}, {what}": part[name]
                for name in ("answered", "MAE", "sigma")
                for what, part in (("without", one), ("with", other))
            }
            rows.append({"eye": route, "box": box, **row, "MAE with over without": other["MAE"] / one["MAE"]})
    return rows, [f"{len(plain)} crops of {people} unseen people in the paper's range, twice: same poses and light."]


def _faces(crops: Sequence[Crop], detector: FaceMeshOnnx) -> list[Face]:
    """The head of each crop, with the landmarks that FaceMesh gives, if any; ``given_box`` is its own."""
    faces = []
    for crop in tqdm(crops, unit="crop"):
        left, top, right, bottom = map(float, crop.box)
        box = (left, top, right, bottom)
        found = annotated_face(detector, crop.image, box)
        faces.append(replace(found or Face(crop.image, box), box=box, given_box=box))
    return faces


def _found(crops: Sequence[Crop], model: Path) -> list[Face]:
    """The largest head that is found in each crop, one without an image where none is."""
    with HeadPoseEstimator(model) as estimator:
        found = (next(iter(estimator.detect(crop.image)), None) for crop in tqdm(crops, unit="crop"))
        return [face or Face(None, (0.0, 0.0, 0.0, 0.0)) for face in found]


def _answers(faces: Sequence[Face], subject: Subject) -> dict[str, Estimates]:
    """What each route answers, in the heads' own frame."""
    shown = (LabelledFace("", (0.0, 0.0, 0.0), face) for face in tqdm(faces, unit="face"))
    answers = ask(shown, {**subject.parts, IMAGE_ROUTE: subject.routes[IMAGE_ROUTE]}).answers
    return {route: subject.in_own_frame(route, answers) for route in _ROUTES}


def _row(
    crops: Sequence[Crop],
    answers: Mapping[str, Estimates],
    route: str,
    chosen: NDArray[np.bool_],
    owners: NDArray[np.int_] | None = None,
) -> dict[str, Any]:
    """Errors of a route's answers to some of the crops; with their people's numbers also intervals."""
    given = answers[route]
    known = chosen & np.isfinite(given.rotation).all(axis=(1, 2))
    row = {"eye": route, "heads": int(chosen.sum()), "answered": int(known.sum())}
    if not known.any():
        return row
    found = errors(given.rotation[known], np.stack([crop.rotation for crop in crops])[known])
    intervals = {} if owners is None else _intervals(found.geodesic, owners[known])
    return row | {
        "MAE": float(found.angle.mean()),
        "geodesic, mean": float(found.geodesic.mean()),
        "geodesic, median": float(np.median(found.geodesic)),
        "95% below": float(np.quantile(found.geodesic, 0.95)),
        "sigma": float(np.degrees(np.sqrt(np.nanmean(np.trace(given.covariance[known], axis1=1, axis2=2)) / 3))),
        **intervals,
    }


def _intervals(geodesic: NDArray[np.float64], owners: NDArray[np.int_]) -> dict[str, str]:
    """95% bootstrap intervals over people, whose crops err alike, of the median and of the 95% quantile."""
    own = [geodesic[owners == owner] for owner in np.unique(owners)]
    rng = np.random.default_rng(0)
    drawn = [
        np.quantile(np.concatenate([own[one] for one in rng.integers(len(own), size=len(own))]), [0.5, 0.95])
        for _ in range(_DRAWINGS)
    ]
    bounds = np.quantile(drawn, [0.025, 0.975], axis=0).T
    return {
        f"{name}, interval": f"{low:.2f}..{high:.2f}"
        for name, (low, high) in zip(("median", "95% below"), bounds, strict=True)
    }


def _turning(kit: Path, cache: Path, subject: Subject, detector: FaceMeshOnnx) -> RgbImage:
    """A head that turns once around, with the answer's axes."""
    heads = HeadsConfig(source="ict_facekit", folder=kit, looks=_LOOKS)
    found = pictures(None)
    kit_of_crops = small_kit(Kit.open(kit, cache / "ict_facekit.npz"))
    person = draw_person(kit_of_crops, heads, 1, found, np.random.default_rng(_SEED))
    turns = rotation_from_angles(Angles.from_columns([(yaw - 180, 0, 0) for yaw in _TURN_DEG]))
    crops = []
    for turn in turns:
        crops.append(draw_crop(person, person.takes[0], turn, _IN_RANGE, found, np.random.default_rng(_SEED)))
    answers = _answers(_faces(crops, detector), subject)[FUSED_ROUTE].rotation
    drawn = [
        draw_axes(crop.image, rotation, (_PX / 2, _PX / 2), 0.3 * _PX)
        for crop, rotation in zip(crops, answers, strict=True)
    ]
    return tiled([drawn[start : start + 8] for start in range(0, len(drawn), 8)], _PX)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--kit", type=Path, default=development_data() / "ict_facekit" / "FaceXModel")
    parser.add_argument("--people", type=int, default=120)
    parser.add_argument("--makehuman", type=Path, metavar="FOLDER", help="hair and clothes of real shape, from here")
    given = parser.parse_args()
    main(given.model, given.kit, given.people, given.makehuman)
