"""The second stage of the head detector: what it is shown of a proposal, what it learns, and files that are none."""

from __future__ import annotations

import gc
import math
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.facemesh import FaceMeshNetworks
from nlml_hpe.detection.heads import HEADS_FILE, PLACE, Head, HeadDetector
from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.regions import overlaps
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.head_network.config import RefinementTrainerConfig
from nlml_hpe.head_network.losses import overlap
from nlml_hpe.head_network.proposals import REFINEMENT_FILE, of_image, proposal_crop, within_proposal
from nlml_hpe.head_network.refinement import RefinementNetwork, Truth, refined_of, refinement_loss
from nlml_hpe.head_network.refinement_training import (
    DrawnProposals,
    Looked,
    initial_refinement_network,
    proposals_of,
    train_refinement_network,
)
from nlml_hpe.image_networks.six_d import SixD
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.image_engine import ImageEngine
from nlml_hpe.inference.refinement import HeadRefiner, PlacesAhead
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.eight_bits import quantize_head_detector
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.model.head_export import export_refinement
from nlml_hpe.rotation import geodesic_degrees
from nlml_hpe.threads import thread_count
from nlml_hpe.training_run import Run
from tests.conftest import REPOSITORY

SETTINGS = RefinementTrainerConfig(
    epochs=12, training_scenes=24, validation_scenes=8, batch_size=6, width=8, learning_rate=0.004, patience=12
)


class Disc(NamedTuple):
    """A picture of noise with one bright disc, which is its only head."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    counts: NDArray[np.bool_]

    @property
    def face_boxes(self) -> NDArray[np.float32]:
        """A disc is all face."""
        return self.boxes


class Discs:
    """Discs of 16 to 50 pixels, anywhere in 96 x 96."""

    def draw(self, rng: np.random.Generator) -> Disc:
        """The picture that these random numbers give."""
        radius = rng.uniform(8, 25)
        x, y = rng.uniform(radius, 96 - radius, size=2)
        row, column = np.mgrid[:96, :96] + 0.5
        image = rng.integers(0, 90, (96, 96, 3), dtype=np.uint8)
        image[(row - y) ** 2 + (column - x) ** 2 < radius**2] = 220
        box = np.array([[x - radius, y - radius, x + radius, y + radius]], dtype=np.float32)
        return Disc(image, box, np.ones(1, dtype=bool))


@pytest.fixture(scope="module")
def drawn() -> DrawnProposals:
    return DrawnProposals(Discs(), HeadDetector(), SETTINGS.training_scenes, seed=1, views=SETTINGS.views)


@pytest.fixture(scope="module")
def trained(drawn: DrawnProposals) -> RefinementNetwork:
    network = initial_refinement_network(SETTINGS, seed=2)
    held_out = DrawnProposals(Discs(), drawn.proposer, SETTINGS.validation_scenes, seed=3, views=SETTINGS.views)
    history = train_refinement_network(network, drawn, held_out, SETTINGS, 2, Run())
    assert min(history.validation) < 0.6 * history.validation[0]
    assert history.learning_rate[0] == SETTINGS.learning_rate  # and not the backbone's, of half as much
    return network.eval()


_NARROW = """
import torch
from tests.test_refinement import *
torch.set_num_threads(2)
config = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 1, "training_scenes": 8})
shown = [DrawnProposals(Discs(), HeadDetector(), 8, seed=seed, views=7) for seed in (1, 3)]
train_refinement_network(initial_refinement_network(config, seed=2), *shown, config, 2, Run())
"""


def test_a_narrow_network_is_not_shown_crops_in_the_layout_that_torch_cannot_train_it_in() -> None:
    """An odd batch and two threads ended the process by a signal; so in one of its own."""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "85"}
    done = subprocess.run([sys.executable, "-c", _NARROW], capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr


def test_boxes_go_into_a_crop_and_back() -> None:
    proposal = np.array([10.0, 20.0, 40.0, 44.0])
    boxes = np.array([[12.0, 18.0, 45.0, 50.0], [0.0, 0.0, 5.0, 5.0]])
    np.testing.assert_allclose(of_image(within_proposal(boxes, proposal), proposal), boxes, atol=1e-12)


def test_what_a_crop_shows_lies_where_the_box_says() -> None:
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[40:60, 30:50] = 255
    proposal = np.array([22.0, 30.0, 62.0, 70.0])
    rows, columns = np.nonzero(proposal_crop(image, proposal)[..., 0] > 127)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 64
    # To half a pixel of the crop on each side.
    np.testing.assert_allclose(seen, within_proposal((30, 40, 50, 60), proposal), atol=0.6 / 64)


def test_training_proposals_tell_true_boxes(drawn: DrawnProposals) -> None:
    """The bright part of each crop that has a head is where its box says, mirrored or not."""
    crops, truth = drawn.batch(np.arange(8), np.random.default_rng(0))
    assert crops.shape == (64, 3, 64, 64)
    assert 0.2 < (truth.overlaps > 0.2).float().mean() < 0.9
    seen = 0
    for crop, box in zip(crops.numpy(), truth.boxes.numpy(), strict=True):
        if (box < 0.02).any() or (box > 0.98).any() or (box[2:] - box[:2]).min() < 0.2:
            continue
        rows, columns = np.nonzero(crop[0] > 190)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 64
        np.testing.assert_allclose(found, box, atol=0.06)
        seen += 1
    assert seen >= 5


def test_validation_is_the_same_each_time_and_training_is_not(drawn: DrawnProposals) -> None:
    rows = np.array([3, 5])
    first, again = drawn.batch(rows, None), drawn.batch(rows, None)
    assert first[0].equal(again[0])
    assert first[1].boxes.equal(again[1].boxes)
    assert not drawn.batch(rows, np.random.default_rng(1))[0].equal(drawn.batch(rows, np.random.default_rng(2))[0])


def test_a_head_that_may_be_found_says_nothing_of_scores() -> None:
    scene = Discs().draw(np.random.default_rng(0))
    unsure = Disc(scene.image, scene.boxes, np.zeros(1, dtype=bool))
    made = proposals_of(Looked(unsure, scene.boxes.astype(np.float64)), 20, np.random.default_rng(1))
    assert not made.counts[made.overlaps > 0.5].any()
    assert made.counts[made.overlaps == 0].all()


def test_a_picture_without_heads_or_proposals_is_learned_from_as_none() -> None:
    empty = Disc(np.zeros((96, 96, 3), np.uint8), np.empty((0, 4), np.float32), np.empty(0, bool))
    made = proposals_of(Looked(empty, np.empty((0, 4))), 5, np.random.default_rng(1))
    assert not made.overlaps.any()
    assert made.counts.all()
    assert not made.boxes.any()


def test_the_loss_is_least_for_the_true_box_with_a_full_score_and_finite_without_heads() -> None:
    truth = Truth(torch.tensor([[2 / 9, 2 / 9, 7 / 9, 7 / 9]]), torch.tensor([0.9]), torch.tensor([True]))
    right, moved = torch.tensor([[8.0, 0, 0, 0, 0]]), torch.tensor([[8.0, 0.4, 0, 0, 0]])
    assert refinement_loss(right, truth) < 0.01 < min(refinement_loss(-right, truth), refinement_loss(moved, truth))
    none = Truth(torch.zeros(1, 4), torch.zeros(1), torch.tensor([True]))
    assert refinement_loss(-right, none) < 0.01 < refinement_loss(right, none)
    ignored = none._replace(counts=torch.tensor([False]))
    assert refinement_loss(right, ignored) == 0


def test_a_proposal_that_does_not_count_has_no_say_and_each_part_is_a_mean_of_those_it_is_of() -> None:
    """A head that is found a quarter of its side off, one that is missed, and one that may be found or not."""
    outputs = torch.tensor([[1.0, 0.25, 0, 0, 0], [-1.0, 2.0, 0, 0, 0], [5.0, 0.4, 0.4, 1, -1]])
    boxes = torch.tensor([[2 / 9, 2 / 9, 7 / 9, 7 / 9]]).tile(3, 1)
    truth = Truth(boxes, torch.tensor([0.3, 0.1, 0.9]), torch.tensor([True, True, False]))
    # The box that is said overlaps the head by 0.6, five sixths of the way from a score of nought to one of one.
    score = (math.log1p(math.e) - 5 / 6 + math.log1p(1 / math.e)) / 2
    corners = 2 * (0.25 * 5 / 9 - 0.05 / 2)
    assert refinement_loss(outputs, truth).item() == pytest.approx(score + 2 * 0.4 + 2 * corners, abs=1e-5)


def test_the_score_moves_no_box() -> None:
    """It says how well the box fits; that a box fits worse is no way to be right about it."""
    outputs = torch.tensor([[1.0, 0.25, 0, 0, 0]], requires_grad=True)
    truth = Truth(torch.tensor([[2 / 9, 2 / 9, 7 / 9, 7 / 9]]), torch.tensor([0.1]), torch.tensor([True]))
    refinement_loss(outputs, truth).backward()
    assert outputs.grad is not None
    assert outputs.grad[0, 0] != 0
    assert not outputs.grad[0, 1:].any()


def test_no_output_of_a_network_makes_a_box_without_bounds() -> None:
    sides = refined_of(torch.tensor([[0.0, 0, 0, 1000, -1000]])).boxes[0]
    assert (sides[2] - sides[0]).item() == pytest.approx(math.exp(2) * 5 / 9)
    assert (sides[3] - sides[1]).item() == pytest.approx(math.exp(-3) * 5 / 9)


def test_a_few_epochs_bring_boxes_nearer(drawn: DrawnProposals, trained: RefinementNetwork) -> None:
    """Of discs, which are as easy as can be: what is proposed overlaps them by 0.5, what is said by 0.6 and more."""
    crops, truth = DrawnProposals(Discs(), drawn.proposer, 12, seed=8).batch(np.arange(12), None)
    with torch.inference_mode():
        said = refined_of(trained(crops))
    about = truth.overlaps > 0.3
    assert overlap(said.boxes, truth.boxes)[about].mean() > truth.overlaps[about].mean() + 0.05
    assert said.logits[about].mean() > said.logits[truth.overlaps < 0.1].mean() + 1


def test_a_training_begins_with_an_image_networks_backbone_and_leaves_its_first_layers(
    drawn: DrawnProposals, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    save_file(SixD("residual", 64, SETTINGS.width).state_dict(), tmp_path / "image.safetensors")
    short = SETTINGS.model_copy(update={"image_network": tmp_path / "image.safetensors", "epochs": 1})
    network = initial_refinement_network(short, seed=4)
    before = {name: value.clone() for name, value in network.named_parameters()}
    train_refinement_network(network, drawn, drawn, short, 4, Run())
    changed = {name for name, value in network.named_parameters() if not value.equal(before[name])}
    assert not [name for name in changed if name.startswith(("backbone.0.", "backbone.1.", "backbone.3."))]
    assert {"backbone.6.layers.0.weight", "hidden.0.weight", "answer.weight"} <= changed


def test_onnx_answers_as_torch_does_and_nearly_so_in_eight_bits(
    drawn: DrawnProposals, trained: RefinementNetwork, tmp_path: Path
) -> None:
    """Weights are stored in half precision, eleven bits; in eight bits a twentieth of the crop's side and of the score
    is what the roundings of eight layers leave on average."""
    crops, _ = drawn.batch(np.arange(8), None)
    images = np.ascontiguousarray(crops.permute(0, 2, 3, 1).numpy())
    with torch.inference_mode():
        said = refined_of(trained(crops))
    whole = export_refinement(trained, tmp_path / "whole.onnx")
    small = quantize_head_detector(whole, images, tmp_path / "small.onnx")
    assert small.stat().st_size < whole.stat().st_size
    for file, least in ((whole, 0.005), (small, 0.05)):
        scores, boxes = onnxruntime.InferenceSession(file).run(None, {"images": images})
        assert np.abs(scores - torch.sigmoid(said.logits).numpy()).mean() < least
        assert np.abs(boxes - said.boxes.numpy()).mean() < least


def test_proposals_are_refined_in_the_images_pixels(trained: RefinementNetwork, tmp_path: Path) -> None:
    refiner = HeadRefiner(export_refinement(trained, tmp_path / REFINEMENT_FILE))
    disc = Discs().draw(np.random.default_rng(5))
    (true,) = disc.boxes.astype(np.float64)
    moved = true + 0.25 * (true[2] - true[0]) * np.array([1, 0, 1, 0])
    proposed = [Head(box, box, 0.4) for box in (tuple(moved), (0.0, 0.0, 9.0, 9.0))]
    about, _ = refiner.refine(disc.image, proposed)
    assert overlaps(true[None], np.array(about.face_box))[0] > overlaps(true[None], moved)[0]
    assert about.box == proposed[0].box
    assert refiner.refine(disc.image, []) == []
    with pytest.raises(ValueError, match="uint8"):
        refiner.refine(disc.image.astype(float), proposed)
    with pytest.raises(ValueError, match="without a size"):
        refiner.refine(disc.image, [Head((0.0, 0.0, 9.0, 9.0), (5.0, 5.0, 5.0, 9.0), 0.4)])


def test_a_box_that_is_roughly_known_is_brought_nearer_and_mirrored_with_its_picture(
    photo: RgbImage, detector: FaceMeshOnnx
) -> None:
    """The photograph's face, by the shipped file; eight bits and the crop's pixels leave a fiftieth of its side."""
    (face,) = detector.detect(photo)
    true = np.array(box_of_68(face))
    side, width = true[2] - true[0], photo.shape[1]
    for moved in (true + 0.2 * side * np.array([1, 0, 1, 0]), true + 0.2 * side * np.array([-1, -1, 1, 1])):
        (about,) = HeadRefiner().places([(photo, tuple(moved))])
        before, after = (float(overlaps(true[None], np.array(box))[0]) for box in (moved, about))
        assert after > before + 0.1
        other = (width - moved[2], moved[1], width - moved[0], moved[3])
        (mirrored,) = HeadRefiner().places([(np.ascontiguousarray(photo[:, ::-1]), other)])
        np.testing.assert_allclose([width - mirrored[2], mirrored[1]], about[:2], atol=0.02 * side)
    assert HeadRefiner().places([]) == []


def test_the_image_eye_looks_where_both_say_a_face_is_and_leaves_a_given_box(
    photo: RgbImage, detector: FaceMeshOnnx
) -> None:
    (face,) = [replace(found, placed_box=None) for found in detector.detect(photo)]
    plain, refiner = ImageEngine(SHIPPED / IMAGE_EYE_FILE), HeadRefiner()
    engine = ImageEngine(SHIPPED / IMAGE_EYE_FILE, refiner=refiner)
    (place,) = refiner.places([(photo, box_of_68(face))])
    middle = tuple(np.mean([box_of_68(face), place], axis=0).tolist())
    given = replace(face, given_box=middle)
    np.testing.assert_allclose(engine.estimate([face]).rotation, plain.estimate([given]).rotation, atol=1e-9)
    np.testing.assert_array_equal(engine.estimate([given]).rotation, plain.estimate([given]).rotation)
    assert not np.array_equal(engine.estimate([face]).rotation, plain.estimate([face]).rotation)


def test_where_landmarks_are_lost_pixels_alone_say_where_the_head_is(photo: RgbImage, detector: FaceMeshOnnx) -> None:
    """Looked at twice, the second time from where the first look saw it, each face by itself."""
    (face,) = [replace(found, placed_box=None) for found in detector.detect(photo)]
    assert face.points is not None
    side = face.box[2] - face.box[0]
    lost = replace(face, points=face.points + np.array([0.5 * side, 0.0, 0.0]))
    plain, refiner = ImageEngine(SHIPPED / IMAGE_EYE_FILE), HeadRefiner()
    engine = ImageEngine(SHIPPED / IMAGE_EYE_FILE, refiner=refiner)
    (first,) = refiner.places([(photo, box_of_68(lost))])
    (place,) = refiner.places([(photo, first)])
    assert overlaps(np.array([first]), np.array(box_of_68(lost))) < 0.8
    assert overlaps(np.array([place]), np.array(box_of_68(face))) > 0.8
    both = engine.estimate([lost, face]).rotation
    np.testing.assert_allclose(both[0], plain.estimate([replace(lost, given_box=place)]).rotation[0], atol=1e-4)
    np.testing.assert_allclose(both[1], engine.estimate([face]).rotation[0], atol=1e-4)
    # 0.7 degrees here; 4.6 about the mean of both boxes, 33 about that of the landmarks.
    assert geodesic_degrees(both[0], both[1]) < 2


def test_where_it_is_known_roughly_where_a_head_is_pixels_say_it_better(
    photo: RgbImage, detector: FaceMeshOnnx
) -> None:
    """Three looks at most, each from where the one before saw the head; a box of the head detector has had its look."""
    (face,) = detector.detect(photo)
    left, top, right, bottom = box_of_68(face)
    side = right - left
    plain, refiner = ImageEngine(SHIPPED / IMAGE_EYE_FILE), HeadRefiner()
    engine = ImageEngine(SHIPPED / IMAGE_EYE_FILE, refiner=refiner)
    # As large again, and beside the face, by so much that the first look does not see where it ends.
    rough = Face(photo, (left - 0.75 * side, top - 0.75 * side, right + 0.25 * side, bottom + 0.25 * side))
    looks = [rough.box]
    for _ in range(3):
        looks += refiner.places([(photo, looks[-1])])
    shared = [float(overlaps(np.array([one]), np.array(two))[0]) for one, two in pairwise(looks)]
    assert max(shared[:2]) < 0.8 < shared[2]
    beyond, unseen = Face(photo, (9e3, 9e3, 9.1e3, 9.1e3)), Face(None, rough.box)
    placed, *others = engine.placed([rough, beyond, unseen])
    assert (placed.box, placed.given_box, others) == (looks[3], looks[3], [beyond, unseen])
    assert plain.placed([rough])[0].box == rough.box
    expected = plain.estimate([replace(face, given_box=box_of_68(face))]).rotation[0]
    assert geodesic_degrees(plain.estimate([placed]).rotation[0], expected) < 3
    assert geodesic_degrees(plain.estimate([rough]).rotation[0], expected) > 10


def test_what_is_looked_at_ahead_is_what_would_be_seen_then(photo: RgbImage) -> None:
    """Told or not, in any order, once or twice; a box without a size is left to whoever asks for it."""
    refiner, other = HeadRefiner(), np.ascontiguousarray(photo[:, ::-1])
    boxes = [(180.0, 60.0, 280.0, 190.0), (100.0, 40.0, 200.0, 150.0), (5.0, 5.0, 5.0, 9.0)]
    faces = [(other, boxes[0]), (photo, boxes[1]), (photo, boxes[0]), (photo, (90.0, 40.0, 210.0, 160.0))]
    expected = [refiner.places([face])[0] for face in faces]
    for threads in (1, 2):
        ahead = PlacesAhead(refiner, threads)
        ahead.tell(photo, boxes)
        ahead.tell(other, boxes[:1])
        for _ in range(2):
            # The sizes of batches change the last bits of what a network says.
            np.testing.assert_allclose(ahead.places(faces), expected, atol=1e-3)
        with pytest.raises(ValueError, match="without a size"):
            ahead.places([(photo, boxes[2])])


@pytest.mark.skipif(thread_count() < 2, reason="with one thread nothing is done ahead")
def test_an_answer_looks_ahead_once_and_keeps_nothing(photo: RgbImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look by the refiner for each face, asked for before the landmarks; what failed there is raised here."""
    happened: list[str] = []
    placed = HeadRefiner._placed

    def count(owner: type, name: str) -> None:
        """Each thing that a method is given, before it begins."""
        method = getattr(owner, name)

        def counted(self: object, things: Sequence[Any], *rest: Any) -> Any:
            happened.extend([name] * (1 if isinstance(things, np.ndarray) else len(things)))
            return method(self, things, *rest)

        monkeypatch.setattr(owner, name, counted)

    for owner, name in ((PlacesAhead, "tell"), (HeadRefiner, "_placed"), (FaceMeshNetworks, "landmarks")):
        count(owner, name)
    image = np.hstack([photo[:300, 50:350]] * 2)
    with HeadPoseEstimator(max_faces=4) as estimator:
        expected = estimator.poses(estimator.detect(image, looks=1))
        assert len(expected) == 2
        happened.clear()
        kept = weakref.ref(image)
        poses = estimator.predict(image, looks=1)
        assert sorted(happened) == ["_placed", "_placed", "landmarks", "tell"]
        assert happened.index("tell") < happened.index("landmarks")
        for one, other in zip(poses, expected, strict=True):
            # The sizes of batches change the last bits of what a network says.
            np.testing.assert_allclose(one.rotation, other.rotation, atol=1e-6)
        del image
        gc.collect()
        assert kept() is None

        def failing(*_: Any) -> None:
            raise OSError("no refiner")

        monkeypatch.setattr(HeadRefiner, "_placed", failing)
        with pytest.raises(OSError, match="no refiner"):
            estimator.predict(photo)
        monkeypatch.setattr(HeadRefiner, "_placed", placed)
        assert estimator.predict(photo)


def test_the_image_eye_begins_to_look_where_the_face_was_placed(photo: RgbImage, detector: FaceMeshOnnx) -> None:
    (face,) = detector.detect(photo)
    moved = (box_of_68(face)[0] + 12, *box_of_68(face)[1:])
    refiner = HeadRefiner()
    (place,) = refiner.places([(photo, moved)])
    middle = tuple(np.mean([box_of_68(face), place], axis=0).tolist())
    expected = ImageEngine(SHIPPED / IMAGE_EYE_FILE).estimate([replace(face, given_box=middle)])
    placed = replace(face, placed_box=moved)
    found = ImageEngine(SHIPPED / IMAGE_EYE_FILE, refiner=refiner).estimate([placed])
    np.testing.assert_allclose(found.rotation, expected.rotation, atol=1e-9)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        HeadRefiner(tmp_path / REFINEMENT_FILE)
    shutil.copy(PLACE / HEADS_FILE, tmp_path / REFINEMENT_FILE)
    with pytest.raises(ArtifactError, match="expected 'nlml-hpe head refinement onnx 1', found"):
        HeadRefiner(tmp_path / REFINEMENT_FILE)


def test_both_shipped_files_are_small() -> None:
    assert sum((PLACE / name).stat().st_size for name in (HEADS_FILE, REFINEMENT_FILE)) < 3_000_000
