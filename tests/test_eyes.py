"""A model of two eyes: which answers, what is fused, faces without landmarks, and folders that do not fit together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nlml_hpe.cli import main
from nlml_hpe.evaluation.subject import open_subject
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.image_networks.registry import build
from nlml_hpe.inference.calibration import DEFAULT_CALIBRATION
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fusion import Gaussians
from nlml_hpe.inference.opening import open_eyes
from nlml_hpe.model.components import FILES, IMAGE_EYE_FILE, put_component, read_components
from nlml_hpe.model.folder import HeadFrame
from nlml_hpe.model.format import CONFIG_FILE, SHIPPED
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from nlml_hpe.rotation import geodesic_degrees, sigma_from_covariance

FRAME = HeadFrame("w300lp", 0.1, 1.85, -0.152)
RANGE = ((-100.0, 100.0), (-90.0, 90.0), (-90.0, 90.0))


def add_image_eye(folder: Path, frame: HeadFrame = FRAME) -> None:
    """An image eye as ImageModelBuilder writes it; its network has learnt nothing and answers near a frontal head."""
    torch.manual_seed(0)
    eye = ImageEye(build("six_d", 64, width=8).eval(), "six_d", frame, RANGE)
    export_image_eye(eye, folder / IMAGE_EYE_FILE)
    put_component(folder, "image_eye", eye.settings())


def two_eyes(folder: Path) -> None:
    """The shipped landmark eye with an image eye beside it."""
    folder.mkdir()
    for name in (CONFIG_FILE, *FILES["landmark_eye"]):
        shutil.copyfile(SHIPPED / name, folder / name)
    put_component(folder, "landmark_eye", read_components(folder)["landmark_eye"].settings)
    add_image_eye(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two eyes, which nobody has calibrated."""
    folder = tmp_path_factory.mktemp("eyes") / "both"
    two_eyes(folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image eye without a landmark eye."""
    folder = tmp_path_factory.mktemp("eyes") / "image"
    folder.mkdir()
    add_image_eye(folder)
    return folder


@pytest.fixture(scope="module")
def estimator(both: Path) -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator(both) as opened:
        yield opened


def test_each_eye_answers_when_it_is_named_and_both_by_default(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    (default,), (named,) = estimator.predict(photo), estimator.predict(photo, eye="both")
    (landmarks,), (image,) = (estimator.predict(photo, eye=eye) for eye in ("landmarks", "image"))
    np.testing.assert_array_equal(default.rotation, named.rotation)
    assert (landmarks.eye, image.eye) == ("landmarks", "image")
    with HeadPoseEstimator() as shipped:
        (before,) = shipped.predict(photo, eye="landmarks")
    assert geodesic_degrees(landmarks.rotation, before.rotation) < 1e-6
    for pose in (default, landmarks, image):
        assert pose.sigma is not None
        assert min(pose.sigma) > 0.5


def test_the_answer_of_both_is_what_the_calibration_makes_of_the_two(
    estimator: HeadPoseEstimator, photo: RgbImage
) -> None:
    faces = estimator.detect(photo)
    eyes = estimator.eyes
    assert eyes.landmarks is not None
    assert eyes.image is not None
    said = [
        Gaussians(found.rotation, found.covariance)
        for found in (eyes.landmarks.estimate(faces, "refined"), eyes.image.estimate(faces, few=True))
    ]
    expected = DEFAULT_CALIBRATION.answer(said[0], said[1])
    (pose,) = estimator.predict(photo)
    np.testing.assert_allclose(pose.rotation, expected.rotation[0], atol=1e-12)
    assert pose.sigma == pytest.approx(sigma_from_covariance(expected.rotation, expected.covariance)[0])
    assert pose.eye == str(expected.eye[0])


def test_a_face_without_landmarks_is_answered_by_the_image_eye(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    (face,) = estimator.detect(photo)
    unmarked = replace(face, points=None)
    first, second = estimator.poses([face, unmarked])
    assert (first.eye, second.eye) == ("both", "image")
    assert second.landmarks.shape == (0, 3)
    with pytest.raises(ValueError, match="1 of 2 faces cannot be answered: the landmark eye needs landmarks"):
        estimator.poses([face, unmarked], eye="landmarks")
    with pytest.raises(ValueError, match="1 of 1 faces cannot be answered"):
        estimator.poses([Face(None, face.box)])


def test_the_image_eye_looks_at_more_crops_where_it_answers_alone(
    estimator: HeadPoseEstimator, alone: Path, photo: RgbImage
) -> None:
    """Of a head without landmarks, where it alone is asked, and in a model without another eye."""
    (face,) = estimator.detect(photo)
    pair = [face, replace(face, points=None)]
    asked, only = estimator.eyes, open_eyes(alone)
    assert asked.image is not None
    all_crops, few = (asked.image.estimate(pair, few).rotation for few in (False, True))
    assert geodesic_degrees(all_crops, few).min() > 0.005
    for found in (asked.by_image(pair), asked.answer(pair).image):
        np.testing.assert_allclose(found.rotation, [few[0], all_crops[1]], atol=1e-6)
    for found in (asked.answer(pair, eye="image").estimates, only.answer(pair).estimates, only.by_image(pair)):
        np.testing.assert_allclose(found.rotation, all_crops, atol=1e-6)


def test_a_face_whose_landmarks_are_not_seen_is_found_by_its_box(
    estimator: HeadPoseEstimator, photo: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The landmark network is asked for more than it ever says, so that it sees no face; the detector is as it is."""
    (face,) = estimator.detect(photo)
    networks = estimator.detector._networks  # type: ignore[attr-defined]
    landmarks = networks.landmarks
    monkeypatch.setattr(networks, "landmarks", lambda images, regions, confidence: landmarks(images, regions, 1.0))
    (unmarked,) = estimator.detect(photo)
    assert (unmarked.points, unmarked.found_by) == (None, "box")
    left, top, right, bottom = unmarked.box
    x, y = (left + right) / 2, (top + bottom) / 2
    # The boxes' middles are within a tenth of a face of one another, and so are their sides.
    size = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
    assert abs(x - (face.box[0] + face.box[2]) / 2) < 0.15 * size
    assert abs(y - (face.box[1] + face.box[3]) / 2) < 0.15 * size
    assert right - left == pytest.approx(size, rel=0.25)
    assert [pose.eye for pose in estimator.predict(photo)] == ["image"]
    assert estimator.predict(photo, eye="landmarks") == []


def test_the_face_detector_is_asked_once(
    estimator: HeadPoseEstimator, photo: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the search finds a face, it also says where faces without landmarks are."""
    networks = estimator.detector._networks  # type: ignore[attr-defined]
    asked: list[int] = []
    detections = networks.detections
    monkeypatch.setattr(networks, "detections", lambda images: (asked.append(len(images)), detections(images))[1])
    assert [pose.eye for pose in estimator.predict(photo)] == ["both"]
    assert sum(asked) == 1


def test_an_image_eye_alone_predicts(alone: Path, photo: RgbImage) -> None:
    with HeadPoseEstimator(alone) as opened:
        (pose,) = opened.predict(photo)
        assert pose.eye == "image"
        assert pose.sigma is not None
        for eye in ("both", "landmarks"):
            with pytest.raises(ValueError, match=r"expected one of \['image'\]"):
                opened.predict(photo, eye=eye)  # type: ignore[arg-type]


def test_a_model_of_one_eye_refuses_the_other(landmark_eye_alone: Path, photo: RgbImage) -> None:
    with (
        HeadPoseEstimator(landmark_eye_alone) as opened,
        pytest.raises(ValueError, match=r"\['landmarks'\], which this model has"),
    ):
        opened.predict(photo, eye="image")


def test_a_calibration_is_read_with_the_folder_and_goes_with_its_eyes(both: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(both, folder)
    wider = replace(DEFAULT_CALIBRATION, prior=9.0)
    put_component(folder, "calibration", wider.settings())
    assert open_eyes(folder).calibration == wider
    assert open_eyes(both).calibration == DEFAULT_CALIBRATION
    # Another eye makes the numbers those of a model that is no more.
    component = read_components(folder)["image_eye"]
    put_component(folder, "image_eye", component.settings)
    assert "calibration" not in read_components(folder)
    put_component(folder, "calibration", {"in_range": None})
    with pytest.raises(ArtifactError, match="calibration does not read"):
        open_eyes(folder)


def test_eyes_that_answer_in_other_head_frames_are_refused(both: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(both, folder)
    add_image_eye(folder, HeadFrame())
    with pytest.raises(ArtifactError, match="head frame 'w300lp', the image eye in 'own'"):
        open_eyes(folder)


def test_the_command_line_names_the_eye(
    both: Path, landmark_eye_alone: Path, photo: RgbImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo_path = tmp_path / "photo.png"
    Image.fromarray(photo).save(photo_path)
    assert main(["predict", str(photo_path), "--model", str(both), "--eye", "image", "--csv"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["eye"] == "image"
    assert main(["predict", str(photo_path), "--model", str(landmark_eye_alone), "--eye", "both"]) != 0
    assert "this model has" in capsys.readouterr().err


def test_the_evaluation_of_two_eyes_answers_by_both_and_misses_none(both: Path, photo: RgbImage) -> None:
    subject = open_subject(both, torch.device("cpu"))
    assert subject.default == "fused"
    assert list(subject.routes) == ["network", "exact", "refined", "image", "fused"]
    with HeadPoseEstimator(both) as estimator:
        (face,) = estimator.detect(photo)
        poses = estimator.poses([face, replace(face, points=None)])
    given = subject.routes["fused"]([face, replace(face, points=None)])
    # The model itself and its ONNX file agree to a thousandth of a degree.
    assert geodesic_degrees(given.rotation, np.array([pose.rotation for pose in poses])).max() < 1e-3


def test_info_says_which_eyes_a_model_has(both: Path, alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for folder in (SHIPPED, both, alone):
        assert main(["info", "--model", str(folder)]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("eyes "))
        said.append(line.split(maxsplit=1)[1])
    assert said == ["landmarks, image; their error bars are calibrated", "landmarks, image", "image"]
