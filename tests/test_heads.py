"""The head detector: images of any shape, files that are none, one answer for each head."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.heads import (
    HEADS_FILE,
    LEAST_PX,
    PLACE,
    Head,
    HeadDetector,
    longest_side,
    suppressed,
    uncovered,
)
from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import overlap
from nlml_hpe.detection.regions import overlaps
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.head_network.network import HeadNetwork
from nlml_hpe.image_networks.registry import build
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.following import HeadFollower
from nlml_hpe.inference.heads import HeadSearch, confirmed_heads, with_heads
from nlml_hpe.inference.image_engine import ImageEngine, open_image_engine
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.model.head_export import export_head_detector
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from nlml_hpe.rotation import Angles, rotation_from_angles
from nlml_hpe.threads import thread_count
from renderer.config import HeadsConfig
from renderer.crop_drawing import Crop, draw_sprite
from renderer.crop_people import Person, draw_person, small_kit
from renderer.crop_scene import pictures
from renderer.heads.ict_kit import Kit
from tests.test_image_export import FRAME, RANGE

YAWS = (0, 60, 120, 180, -120, -60)


@pytest.fixture(scope="module")
def heads() -> HeadDetector:
    return HeadDetector()


@pytest.fixture(scope="module")
def person(kit_of_few: Path) -> Person:
    kit = small_kit(Kit.open(kit_of_few, kit_of_few.parent / "cache" / "ict_facekit.npz"))
    config = HeadsConfig(source="ict_facekit", folder=kit_of_few)
    return draw_person(kit, config, 1, pictures(None), np.random.default_rng(6))


@pytest.fixture(scope="module")
def turned(person: Person) -> list[Crop]:
    """One person, once around."""
    rng = np.random.default_rng(2)
    return [
        draw_sprite(person, person.takes[0], rotation_from_angles(Angles.from_columns((yaw, 0, 0))), 256, 3.2, rng)
        for yaw in YAWS
    ]


def street(height: int, width: int) -> RgbImage:
    """A picture without people, stretched."""
    return np.asarray(cv2.resize(pictures(None)[-2], (width, height)), dtype=np.uint8)  # china.jpg


def lay(image: RgbImage, crop: Crop, middle: tuple[float, float], longest: float) -> NDArray[np.float64]:
    """Lay a sprite into an image, in place, its box so long and there; returns the box."""
    assert crop.alpha is not None
    scale = longest / float((crop.box[2:] - crop.box[:2]).max())
    side = round(256 * scale)
    corner = np.round(np.array(middle) - (crop.box[:2] + crop.box[2:]) / 2 * scale).astype(int)
    sprite = cv2.resize(np.dstack([crop.image, crop.alpha]), (side, side), interpolation=cv2.INTER_AREA).astype(float)
    low, high = np.maximum(corner, 0), np.minimum(corner + side, image.shape[1::-1])
    part = sprite[low[1] - corner[1] : high[1] - corner[1], low[0] - corner[0] : high[0] - corner[0]]
    place = image[low[1] : high[1], low[0] : high[0]]
    place[:] = (place * (1 - part[..., 3:] / 255) + part[..., :3]).round()
    return crop.box * scale + np.tile(corner, 2)


def test_a_head_of_less_than_the_least_pixels_is_not_reported(
    heads: HeadDetector, turned: list[Crop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network itself takes smaller heads for some of twenty pixels, so the limit is moved to where it matters."""
    image = street(240, 320)
    lay(image, turned[0], (160, 100), 40)
    found = heads.find(image, min_score=0.02)
    limit = float(np.median([longest_side(head.box) for head in found]))
    assert limit > LEAST_PX
    monkeypatch.setattr("nlml_hpe.detection.heads.LEAST_PX", limit)
    large = [head for head in found if longest_side(head.box) >= limit]
    assert 0 < len(large) < len(found)
    assert heads.find(image, min_score=0.02) == large


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (33, 65)])
def test_images_of_any_shape_are_searched(heads: HeadDetector, shape: tuple[int, int]) -> None:
    assert heads.find(np.zeros((*shape, 3), dtype=np.uint8)) == []


def test_what_is_no_image_is_refused(heads: HeadDetector) -> None:
    with pytest.raises(ValueError, match="RGB"):
        heads.find(np.zeros((8, 8), dtype=np.uint8))


def test_threads_get_the_same_heads(heads: HeadDetector, turned: list[Crop]) -> None:
    image = street(360, 480)
    lay(image, turned[2], (240, 170), 110)
    alone = heads.find(image, min_score=0.02)
    assert alone
    with ThreadPoolExecutor(4) as pool:
        assert all(each == alone for each in pool.map(partial(heads.find, min_score=0.02), [image] * 8))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        HeadDetector(tmp_path / HEADS_FILE)
    (tmp_path / HEADS_FILE).write_bytes(b"no network")
    with pytest.raises(ArtifactError, match=r"heads\.onnx"):
        HeadDetector(tmp_path / HEADS_FILE)
    shutil.copy(PLACE / HEADS_FILE, tmp_path / "other.onnx")
    other = onnx.load(tmp_path / "other.onnx")
    onnx.helper.set_model_props(other, {"nlml_hpe": '{"format": "another"}'})
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="expected 'nlml-hpe heads onnx 2', found 'another'"):
        HeadDetector(tmp_path / "other.onnx")


def test_the_shipped_file_is_small() -> None:
    assert (PLACE / HEADS_FILE).stat().st_size < 3_000_000


def test_the_surest_of_boxes_that_overlap_stays() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])
    assert suppressed(boxes, np.array([0.5, 0.9, 0.7])) == [1]
    assert suppressed(boxes, np.array([0.5, 0.4, 0.3])) == [0, 2]
    assert suppressed(np.empty((0, 4)), np.empty(0)) == []


def test_a_head_whose_face_is_known_is_no_second_head() -> None:
    face = Face(None, (0.0, 0.0, 100.0, 100.0))
    wider, within, beside = (-20.0, -30.0, 110.0, 120.0), (30.0, 30.0, 90.0, 95.0), (70.0, 0.0, 170.0, 100.0)
    heads = [Head(box, box, 0.9) for box in (wider, within, beside)]
    assert [head.box for head in uncovered(heads, [face])] == [beside]
    assert uncovered(heads, []) == heads
    # By what they share of both, though it is little of each; and by what the smaller one has in the other.
    for box in ((50.0, 0.0, 150.0, 100.0), (30.0, 30.0, 60.0, 60.0), (-150.0, -150.0, 250.0, 250.0)):
        assert uncovered([Head(box, box, 0.9)], [face]) == []


def test_a_face_in_the_box_of_a_head_is_its_own_but_a_tiny_one_is_another_ones() -> None:
    """Where the points of a head are thought to be elsewhere its own box still says whose face it is."""
    head = Head((0.0, 0.0, 100.0, 120.0), (60.0, 60.0, 130.0, 130.0), 0.9)
    own, tiny = Face(None, (5.0, 30.0, 60.0, 100.0)), Face(None, (5.0, 5.0, 25.0, 25.0))
    assert uncovered([head], [own]) == []
    assert uncovered([head], [tiny]) == [head]


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head detector whose every cell says, with a score of a half, that there is a head of 64 pixels about it, the
    face of 40 pixels in its middle."""
    network = HeadNetwork(width=8).eval()
    torch.nn.init.zeros_(network.answer.weight)
    assert network.answer.bias is not None
    with torch.no_grad():
        face = np.log(40 / 64)
        network.answer.bias.copy_(torch.tensor([0.0, 0, 0, np.log(8.0), np.log(8.0), 0, 0, face, face]))
    return export_head_detector(network, tmp_path_factory.mktemp("everywhere") / HEADS_FILE)


def test_what_the_detector_proposes_is_looked_at_closely_and_faces_leave_room(
    everywhere: Path, turned: list[Crop]
) -> None:
    """Everywhere heads are proposed; what is left after a closer look lies on the one that is there."""
    image = street(240, 320)
    box = lay(image, turned[0], (160, 120), 40)
    search, eye = HeadSearch(everywhere), open_image_engine(SHIPPED)
    proposed, sure = search.detector.find(image), confirmed_heads(search, eye, image)
    assert 0 < len(sure) < len(proposed) / 4
    assert sorted((head.score for head in sure), reverse=True) == [head.score for head in sure]
    assert overlaps(np.array([head.face_box for head in sure]), box).max() > 0.4
    assert search.boxes(image) == [head.face_box for head in search.find(image)]
    assert search.boxes(image, eye) == [head.face_box for head in sure]
    known = Face(image, tuple(box.tolist()))
    (all_of_them,) = with_heads(search, eye, [image], [[known]], 100)
    assert known in all_of_them
    assert all(face.found_by == "head" for face in all_of_them if face is not known)
    assert with_heads(search, eye, [image], [[known]], 1) == [[known]]


def test_a_face_whose_landmarks_are_lost_is_where_its_head_is(photo: RgbImage, detector: FaceMeshOnnx) -> None:
    """The photograph's face, its landmarks moved by two fifths of its width; where they are right nothing changes."""
    (face,) = detector.detect(photo)
    assert face.points is not None
    search, eye = HeadSearch(), open_image_engine(SHIPPED)
    ((same, *_),) = with_heads(search, eye, [photo], [[face]], 1)
    assert same is face
    left, top, right, bottom = box_of_68(face)
    lost = Face.from_points(face.points + np.array([0.4 * (right - left), 0, 0]))
    ((placed, *_),) = with_heads(search, eye, [photo], [[replace(lost, image=photo)]], 1)
    assert placed.points is None
    assert overlap(box_of_68(placed), (left, top, right, bottom)) > 0.6 > overlap(box_of_68(lost), box_of_68(face))


def test_a_face_that_is_no_head_is_left_out_where_heads_are_asked_for(shared_data: Path) -> None:
    """FaceMesh takes a blur and trinkets for further faces; the one whose label it is stays."""
    samples = {sample.name: sample for sample in read_dataset("aflw2000", shared_data / "aflw2000_dev").samples}
    with HeadPoseEstimator() as plain, HeadPoseEstimator(heads=True) as searching:
        for name in ("image01040", "image02470"):
            image, label = samples[name].load(), samples[name].box
            assert label is not None
            assert any(overlap(pose.box, label) < 0.1 for pose in plain.predict(image))
            assert all(overlap(pose.box, label) > 0.3 for pose in searching.predict(image))
    # What is left out takes no place.
    image, false = samples["image02470"].load(), (5.0, 5.0, 60.0, 60.0)
    ((head,),) = with_heads(HeadSearch(), open_image_engine(SHIPPED), [image], [[Face(image, false, None, "box")]], 1)
    assert head.found_by == "head"
    # Of a head that fills the image, and that its edges cut off, neither knows much.
    wall = np.full_like(image, 90)
    small, large = ((5.0, 5.0, 5.0 + side, 5.0 + side) for side in (0.4 * max(wall.shape), 0.6 * max(wall.shape)))
    for box, kept in ((small, 0), (large, 1)):
        (found,) = with_heads(HeadSearch(), open_image_engine(SHIPPED), [wall], [[Face(wall, box, None, "box")]], 1)
        assert len(found) == kept


def test_an_eye_that_tells_no_doubt_leaves_heads_to_the_search(photo: RgbImage, tmp_path: Path) -> None:
    """It confirmed none, so that no head was found, and known faces were left out where no head was seen."""
    network = build("mobilenetv2", 32, answer="six_d", width=8).eval()
    eye = ImageEngine(export_image_eye(ImageEye(network, "mobilenetv2", FRAME, RANGE), tmp_path / "eye.onnx"))
    search = HeadSearch()
    found = search.find(photo)
    assert found
    assert [head.face_box for head in confirmed_heads(search, eye, photo)] == [head.face_box for head in found]
    wall = np.full((200, 200, 3), 90, dtype=np.uint8)
    face, beyond = Face(wall, (40.0, 40.0, 90.0, 90.0)), Face(wall, (900.0, 900.0, 950.0, 950.0))
    assert with_heads(search, eye, [wall], [[face, beyond]], 2) == [[face]]


def test_a_face_is_not_moved_to_a_head_that_is_much_smaller(shared_data: Path) -> None:
    """In the dark half of this face a head of a twentieth of its area is seen: its landmarks were thrown away."""
    samples = {sample.name: sample for sample in read_dataset("aflw2000", shared_data / "aflw2000_dev").samples}
    image, label = samples["image02176"].load(), samples["image02176"].box
    assert label is not None
    with HeadPoseEstimator(heads=True) as searching:
        assert max(overlap(pose.box, label) for pose in searching.predict(image) if len(pose.landmarks)) > 0.5


def test_a_head_is_reported_once_though_parts_of_it_were_proposed(shared_data: Path) -> None:
    """The second stage moves what is proposed of ears, caps and shoulders to the one face that is there."""
    samples = {sample.name: sample for sample in read_dataset("aflw2000", shared_data / "aflw2000_dev").samples}
    search = HeadSearch()
    for name in ("image00886", "image01795", "image02721"):
        boxes = np.array([head.face_box for head in search.find(samples[name].load(), least=0.29)])
        for row, box in enumerate(boxes[1:], start=1):
            assert overlaps(boxes[:row], box).max() < 0.5


def test_a_head_without_a_face_is_answered_by_the_image_eye_where_heads_are_asked_for(
    everywhere: Path, turned: list[Crop], photo: RgbImage
) -> None:
    image = street(240, 320)
    lay(image, turned[2], (160, 120), 40)
    with HeadPoseEstimator(heads=everywhere) as estimator:
        poses = estimator.predict(image)
        assert all((pose.eye, len(pose.landmarks)) == ("image", 0) for pose in poses)
        assert all(pose.sigma is not None for pose in poses)
        # By landmarks alone nobody would: no head was found, and nothing was said.
        with pytest.raises(ValueError, match=r"heads: .* eye='landmarks' does not answer them"):
            estimator.predict(image, eye="landmarks")
        # A face that is known is no second head.
        faces = estimator.detect(photo)
        (face,) = [face for face in faces if face.found_by == "whole"]
        others = np.array([box_of_68(other) for other in faces if other is not face]).reshape(-1, 4)
        assert (overlaps(others, np.array(box_of_68(face))) < 0.25).all()
    with HeadPoseEstimator(heads=False) as without:
        assert {face.found_by for face in without.detect(image)} <= {"whole", "mirrored", "bordered", "crop", "box"}


def test_where_no_face_is_seen_at_once_heads_are_looked_for(photo: RgbImage) -> None:
    """Eight people whose faces have a tenth of the image's height: the search found one face, and that was a chest."""
    person = cv2.resize(photo, None, fx=0.35, fy=0.35, interpolation=cv2.INTER_AREA)
    group = np.tile(np.concatenate([person, person[:, ::-1]], axis=1), (2, 2, 1))
    with HeadPoseEstimator() as estimator, HeadPoseEstimator(heads=False) as without:
        (alone,) = without.predict(photo)
        poses = [pose for pose in estimator.predict(group) if abs(pose.yaw) + abs(pose.pitch) < 15]
        sides = [pose.box[2] - pose.box[0] for pose in poses]
        np.testing.assert_allclose(sides, 0.35 * (alone.box[2] - alone.box[0]), rtol=0.3)
        assert len(poses) == 8
        assert not np.any([overlap(pose.box, face.box) for pose in poses for face in without.detect(group)])
        # By landmarks alone nobody answers a head, and of a face that is seen nothing changes.
        assert len(estimator.predict(group, eye="landmarks")) == len(without.predict(group, eye="landmarks"))
        assert [pose.as_dict() for pose in estimator.predict(photo)] == [alone.as_dict()]
    with HeadPoseEstimator(tracking=True) as following:
        assert len(following.detect(group)) < 8
    with FaceMeshOnnx(16) as handed_in, HeadPoseEstimator(detector=handed_in) as estimator:
        assert len(estimator.detect(group)) < 8


def test_heads_that_nobody_could_answer_are_refused(everywhere: Path, landmark_eye_alone: Path) -> None:
    for heads in (True, everywhere, Path("/nowhere")):
        with pytest.raises(ValueError, match="heads: this model has no image eye"):
            HeadPoseEstimator(landmark_eye_alone, heads=heads)
    with (
        HeadPoseEstimator(landmark_eye_alone) as estimator,
        pytest.raises(ValueError, match="heads: this model has no image eye"),
    ):
        HeadFollower(estimator, boxes=HeadSearch().boxes)
    with HeadPoseEstimator() as estimator, pytest.raises(ValueError, match="eye='landmarks' does not answer them"):
        HeadFollower(estimator, eye="landmarks", boxes=HeadSearch().boxes)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_detector_has_as_many_threads_as_opencv(photo: RgbImage, threads: int) -> None:
    """Also where that is said later: it had onnxruntime's own, as many as there are cores, whatever was said."""
    detector, before = HeadDetector(), cv2.getNumThreads()
    try:
        cv2.setNumThreads(threads)
        alone = thread_count() == 1
        (head, *_) = detector.find(photo)
        whole, own = time.process_time(), time.thread_time()
        for _ in range(10):
            assert detector.find(photo)[0] == head
        whole, own = time.process_time() - whole, time.thread_time() - own
    finally:
        cv2.setNumThreads(before)
    others = (whole - own) / whole
    # On a busy machine further threads, which sleep until they are woken, may come late for most of the work.
    assert others < 0.05 if alone else others > 0.01


def test_another_head_detector_is_named_by_its_path(everywhere: Path) -> None:
    """A path as text was taken for a plain yes, and the shipped detector looked."""
    HeadPoseEstimator(heads=str(everywhere)).close()
    with pytest.raises(ArtifactError, match=f"{PLACE} is a folder; name an ONNX file"):
        HeadPoseEstimator(heads=PLACE)
    with pytest.raises(ArtifactError, match=r"nowhere\.onnx is missing"):
        HeadPoseEstimator(heads="/nowhere.onnx")
    with pytest.raises(ValueError, match="heads: expected True, False or the path"):
        HeadPoseEstimator(heads=3)  # type: ignore[arg-type]
