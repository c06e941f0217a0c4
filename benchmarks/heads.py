"""Which heads are found: ``python benchmarks/heads.py``, about two minutes, and three more with ``--root``.

Rendered people whom neither a training nor a choice has seen, all the way round, laid into pictures without people:
recall where nine of ten boxes are right, a box being right where it overlaps a head's own by half (intersection over
union), by the side that the camera sees, by how much of the head is seen and by its size. The box of a head goes from
crown to chin; the last rows have that of its 68 points instead, which nobody sees from behind. ``--root`` is a folder
in AFLW2000-3D's layout, whose labels are boxes of 68 points: whole images, without the label's box, as users' images
are searched.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import stages.guard  # noqa: F401

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common import development_data, report
from nlml_hpe.detection.heads import LEAST_PX, MIN_SCORE, Head
from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.regions import overlaps
from nlml_hpe.evaluation.datasets import Sample, read_dataset
from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.face import Face, facing_of
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.heads import LEAST_CONFIRMED, HeadSearch, confirmed_heads
from nlml_hpe.inference.image_engine import ImageEngine
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.rotation import Angles, rotation_from_angles
from nlml_hpe.view.pictures import save_image, tiled
from renderer.config import HeadsConfig, LooksConfig, ScenesConfig, SpritesConfig
from renderer.crops import render_splits
from renderer.scenes import Scene, Scenes
from renderer.sprites import SpriteSet

PRECISION, SAME, LOOSE = 0.9, 0.5, 0.3
"""Share of boxes that are to be right, and the overlap from which a box is; the last tells how much the boxes cost."""
_SEED, _LOWEST = 1_000, 0.1
"""Of people nobody else has seen; and the score of the boxes that the curve begins with."""
_HINTED, _SHEET = 0.18, (4, 6)
"""Score of the least sure boxes that are drawn, and rows and columns of the sheet."""
_SEEN = {"5% hidden or less": (0.95, np.inf), "5 to 35% hidden": (0.65, 0.95), "35 to 65% hidden": (0.0, 0.65)}
"""Shares that others, things and the border leave to be seen; a head of which less than 0.35 is left may be found."""
_SIZES = (20, 32, 64, 128, 256, 1280)
_LOOKS = LooksConfig(
    bald=0.07, long_hair=0.45, beard=0.25, glasses=0.2, sunglasses=0.06, head_covering=0.14, face_mask=0.2
)


class Matched(NamedTuple):
    """Of all boxes ``score`` and ``right`` (n,), one that may be a head being left out; of all heads ``longest`` side
    in pixels, ``facing``, the share ``seen``, and the ``found`` score (m,), nought where no box is theirs.
    """

    score: NDArray[np.float64]
    right: NDArray[np.bool_]
    longest: NDArray[np.float64]
    facing: NDArray[np.str_]
    seen: NDArray[np.float64]
    found: NDArray[np.float64]


class Way(NamedTuple):
    """``stage`` that answers, overlap of a box that is right (``same``), whether the box is that of the 68 points, and
    how many rows of the table are shown."""

    stage: int
    same: float = SAME
    of_face: bool = False
    rows: int | None = 1


_WAYS = {
    "": Way(2, rows=None),
    ", without the image eye": Way(1, rows=7),
    ", the detector alone": Way(0, rows=7),
    f", overlap {LOOSE}": Way(2, LOOSE),
    ", boxes of 68 points": Way(2, of_face=True),
    ", boxes of 68 points, without the image eye": Way(1, of_face=True),
}
"""By what is added to a row's name; stages are the detector, the second stage and the image eye."""


class Spent:
    """Seconds, as users spend them: of the processor for each stage with those before it, and the detector's of the
    clock."""

    def __init__(self) -> None:
        self.stages, self.wall = [0.0, 0.0, 0.0], 0.0

    def take(self, search: HeadSearch, eye: ImageEngine, image: NDArray[np.uint8]) -> None:
        """Look once more, by the usual settings."""
        begun = time.perf_counter()
        looks: tuple[Callable[[RgbImage], list[Head]], ...] = (
            search.detector.find,
            search.find,
            partial(confirmed_heads, search, eye),
        )
        for stage, look in enumerate(looks):
            start = time.process_time()
            look(image)
            self.stages[stage] += time.process_time() - start
            self.wall += time.perf_counter() - begun if stage == 0 else 0.0

    def notes(self, scenes: int) -> list[str]:
        """The means in words."""
        first, second, third = (f"{1e3 * each / scenes:.1f}" for each in self.stages)
        return [
            f"a scene takes the detector {1e3 * self.wall / scenes:.1f} ms, {first} of processor time; {second} with "
            f"the second stage, {third} with the image eye"
        ]


def main(people: int, scenes: int, size: int, root: Path | None, kit: Path, sheet: Path | None) -> None:
    """Print and save what is found in rendered scenes, and in photographs; draw the first scenes into ``sheet``."""
    search, eye = HeadSearch(), ImageEngine(SHIPPED / IMAGE_EYE_FILE)
    matches: dict[str, list[Matched]] = {name: [] for name in _WAYS}
    shown, shares, spent = [], [], Spent()
    with tempfile.TemporaryDirectory() as scratch:
        heads = HeadsConfig(source="ict_facekit", folder=kit, validation=people, expressions="all", looks=_LOOKS)
        rendered = SpriteSet(heads, SpritesConfig(), _SEED, "validation", Path(scratch) / "cache")
        folder = Path(scratch) / "sprites"
        render_splits([(rendered, folder)], workers=1)
        drawn = Scenes(folder, ScenesConfig(size=size, smallest_px=LEAST_PX))
        for number in tqdm(range(scenes), desc="scenes", unit="scene"):
            scene = drawn.draw(np.random.default_rng([_SEED, number]))
            spent.take(search, eye, scene.image)
            answers = (
                search.detector.find(scene.image, _LOWEST),
                search.find(scene.image, least=_LOWEST),
                confirmed_heads(search, eye, scene.image, least=_LOWEST),
            )
            for name, way in _WAYS.items():
                matches[name].append(matched(scene, answers[way.stage], way.same, way.of_face))
            shares.append([_face_shares(scene, some) for some in answers[:2]])
            shown += [drawn_on(scene.image, answers[-1])] if number < _SHEET[0] * _SHEET[1] else []
    if sheet is not None:
        save_image(tiled([shown[row :: _SHEET[0]] for row in range(_SHEET[0])], size), sheet)
    rows = []
    for name, way in _WAYS.items():
        table = of_scenes(matches[name], LEAST_CONFIRMED if way.stage == 2 else MIN_SCORE)
        rows += [{**row, "heads": row["heads"] + name} for row in table[: way.rows]]
    before, after = (float(np.concatenate(some).mean()) for some in zip(*shares, strict=True))
    notes = [f"boxes of 68 points, of the heads that are found: overlap {before:.3f}, by the second stage {after:.3f}"]
    title = f"Heads found in {scenes} scenes of {size} px, of {people} rendered people all the way round"
    report("heads_rendered", title, rows, spent.notes(scenes) + notes)
    if root is not None:
        report(f"heads_{root.name}", f"Heads found in whole images of {root.name}", of_photographs(root))


def matched(scene: Scene, answers: Sequence[Head], same: float, of_face: bool) -> Matched:
    """Which boxes, surest first, are which heads: each head has one box at most, that overlaps it by ``same``; the
    boxes are those of the heads, or of their faces' 68 points."""
    name = "face_box" if of_face else "box"
    boxes, scores = np.array([getattr(head, name) for head in answers]), [head.score for head in answers]
    heads = (scene.face_boxes if of_face else scene.boxes).astype(np.float64)
    taken = np.zeros(len(heads))
    score, right = [], []
    for box, sure in zip(boxes.reshape(-1, 4), scores, strict=True):
        shared = overlaps(heads, box) if len(heads) else np.zeros(0)
        free = np.where(scene.counts & (taken == 0), shared, 0)
        if len(free) and free.max() >= same:
            taken[int(free.argmax())] = sure
        elif len(shared) and (shared[~scene.counts] >= 0.3).any():
            continue
        score.append(sure)
        right.append(bool(len(free) and free.max() >= same))
    counts = scene.counts
    longest = (scene.boxes[:, 2:] - scene.boxes[:, :2]).max(axis=1, initial=0)
    facing = np.array([facing_of(rotation) for rotation in scene.rotations], dtype="<U8")
    seen = scene.visible[counts].astype(np.float64)
    return Matched(np.array(score), np.array(right, dtype=bool), longest[counts], facing[counts], seen, taken[counts])


def _face_shares(scene: Scene, answers: Sequence[Head]) -> NDArray[np.float64]:
    """Overlaps of the boxes of 68 points, of heads that count and are found by their own boxes."""
    shares = []
    for box, face_box in zip(scene.boxes[scene.counts], scene.face_boxes[scene.counts], strict=True):
        shared = overlaps(np.array([head.box for head in answers]).reshape(-1, 4), box.astype(np.float64))
        if shared.max(initial=0) >= SAME:
            said = np.array(answers[int(shared.argmax())].face_box)
            shares.append(float(overlaps(face_box[None].astype(np.float64), said)[0]))
    return np.array(shares)


def of_scenes(rows: Sequence[Matched], usual: float) -> list[dict[str, Any]]:
    """Recall at the precision that is asked for and at the usual score: all heads, by the side seen, by how much of
    them is seen, by size."""
    score, right, longest, facing, seen, found = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    order = np.argsort(-score, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= PRECISION)
    least = float(score[order][enough[-1]]) if len(enough) else 1.0
    steps = {f"recall at {PRECISION} precision": least, "recall as shipped": usual}
    groups = {"all": np.ones(len(found), dtype=bool)}
    groups |= {side: facing == side for side in ("front", "side", "rear")}
    groups |= {name: (seen >= low) & (seen < high) for name, (low, high) in _SEEN.items()}
    groups |= {f"{low}..{high} px": (longest >= low) & (longest < high) for low, high in itertools.pairwise(_SIZES)}
    table = []
    for name, chosen in groups.items():
        recalls = {step: float((found[chosen] >= at).mean()) if chosen.any() else None for step, at in steps.items()}
        table.append({"heads": name, "n": int(chosen.sum()), **recalls})
    table[0]["score there"] = round(least, 3)
    table[0]["average precision"] = float(_average_precision(precision, right[order], len(found)))
    reported = right[score >= usual]
    table[0]["precision as shipped"] = float(reported.mean()) if len(reported) else None
    return table


def _average_precision(precision: NDArray[np.float64], right: NDArray[np.bool_], heads: int) -> float:
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * right).sum() / heads)


class Searched(NamedTuple):
    """Of a photograph: the greatest ``share`` of the label's box that a found one has (intersection over union), how
    many boxes are ``others``, and the mean ``error`` of yaw, pitch and roll in degrees where the greatest is ``LOOSE``
    or more, otherwise ``frontal``, that of a frontal guess.
    """

    share: float
    others: int
    error: float
    frontal: float


def of_photographs(root: Path) -> list[dict[str, Any]]:
    """Labelled faces found in whole images, without the label's box; boxes that are none; and the errors of the poses.

    A box that is no labelled face's is counted as false, though some of these are heads that nobody labelled.
    """
    samples = [sample for sample in read_dataset("aflw2000", root).samples if sample.box is not None]
    inside = PROTOCOLS["aflw2000"].includes(Angles.from_columns(np.array([sample.angles for sample in samples])))
    ways: dict[str, list[Searched]] = {}
    with (
        HeadPoseEstimator(heads=True) as estimator,
        HeadPoseEstimator() as default,
        HeadPoseEstimator(heads=False) as plain,
    ):
        for sample in tqdm(samples, desc=root.name, unit="image"):
            image = sample.load()
            own = plain.detect(image)
            for name, faces in {
                "landmarks": [face for face in own if face.points is not None],
                "and the face detector's boxes (`heads=False`)": own,
                "and the head detector's, where no face is seen at once, as by default": default.detect(image),
                "and the head detector's in every image (`heads=True`)": estimator.detect(image),
            }.items():
                ways.setdefault(name, []).append(_searched(estimator, faces, sample))
    return [{"boxes": name, **_row(each, inside)} for name, each in ways.items()]


def shared_with(faces: Sequence[Face], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each face's box of the 68 points overlaps a box (intersection over union)."""
    return overlaps(np.array([box_of_68(face) for face in faces]).reshape(-1, 4), box)


def _searched(estimator: HeadPoseEstimator, faces: Sequence[Face], sample: Sample) -> Searched:
    shared = shared_with(faces, np.array(sample.box))
    true = rotation_from_angles(Angles.from_columns(sample.angles))[None]
    frontal = float(errors(np.eye(3)[None], true).angle.mean())
    error = frontal
    if shared.max(initial=0) >= LOOSE:
        (pose,) = estimator.poses([faces[int(shared.argmax())]])
        error = float(errors(pose.rotation[None], true).angle.mean())
    return Searched(float(shared.max(initial=0)), int((shared < 0.2).sum()), error, frontal)


def _row(searched: Sequence[Searched], inside: NDArray[np.bool_]) -> dict[str, Any]:
    share, others, error, frontal = (np.array(values) for values in zip(*searched, strict=True))
    found = share >= LOOSE
    shares = {f"found, overlap {least}": float((share >= least).mean()) for least in (LOOSE, SAME)}
    return {
        "faces": len(share),
        **shares,
        "other boxes": int(others.sum()),
        "within 99, found": f"{(inside & found).sum()} of {inside.sum()}",
        "MAE of these": float(error[inside & found].mean()),
        "misses charged": float(np.where(found, error, frontal)[inside].mean()),
    }


def drawn_on(image: NDArray[np.uint8], heads: Sequence[Head]) -> NDArray[np.uint8]:
    """A copy of the image with the boxes drawn on it: those that are reported in green, less sure ones in red."""
    shown = image.copy()
    for head in heads:
        left, top, right, bottom = (round(value) for value in head.box)
        if head.score >= _HINTED:
            color = (0, 255, 0) if head.score >= LEAST_CONFIRMED else (255, 0, 0)
            cv2.rectangle(shown, (left, top), (right, bottom), color, 2)
    return shown


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--size", type=int, default=640, help="pixels on a side of a scene")
    parser.add_argument("--root", type=Path, help="folder of photographs in AFLW2000-3D's layout")
    parser.add_argument("--kit", type=Path, default=development_data() / "ict_facekit" / "FaceXModel")
    parser.add_argument("--sheet", type=Path, metavar="FILE.jpg", help="draw the first scenes into this picture")
    given = parser.parse_args()
    main(given.people, given.scenes, given.size, given.root, given.kit, given.sheet)
