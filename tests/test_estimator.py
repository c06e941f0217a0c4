"""The estimator: images of every kind in, named angles out, by both backends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from nlml_hpe import HeadPoseEstimator
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import FACEMESH, IBUG68, mirror_of
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import ImageReadError, RgbImage
from nlml_hpe.inference.engines import Route
from nlml_hpe.inference.opening import open_eyes
from nlml_hpe.model.format import CONFIG_FILE, ONNX_FILE, ONNX_FORMAT, SHIPPED
from nlml_hpe.rotation import Angles, rotate_image_points, rotation_from_angles
from stages.common import Workdir
from stages.config import Config


@pytest.fixture(scope="module")
def estimator(tiny_run: Config) -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator.from_pretrained(Workdir(tiny_run.workdir).model) as opened:
        yield opened


@pytest.fixture(scope="module")
def with_torch(tiny_run: Config) -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator(Workdir(tiny_run.workdir).model, backend="torch") as opened:
        yield opened


@pytest.mark.parametrize("route", get_args(Route))
def test_every_route_gives_one_pose_per_face(with_torch: HeadPoseEstimator, photo: RgbImage, route: Route) -> None:
    (pose,) = with_torch.poses(with_torch.detect(photo, 1), route)
    assert pose.rotation == pytest.approx(
        rotation_from_angles(Angles.from_columns((pose.yaw, pose.pitch, pose.roll))), abs=1e-9
    )
    assert (pose.sigma is not None) == (pose.score is not None) == (route in ("exact", "refined"))
    assert {
        "yaw",
        "pitch",
        "roll",
        "rotation",
        "sigma",
        "in_range",
        "box",
        "score",
        "eye",
        "facing",
    } == pose.as_dict().keys()


@pytest.mark.parametrize("refine", [True, False])
def test_both_backends_agree(
    estimator: HeadPoseEstimator, with_torch: HeadPoseEstimator, photo: RgbImage, refine: bool
) -> None:
    (first,), (second,) = (e.predict(photo, refine=refine) for e in (estimator, with_torch))
    for name in ("yaw", "pitch", "roll", "score", "sigma"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-3)
    assert (first.in_range, first.box) == (second.in_range, second.box)


def test_the_exact_step_is_taken_where_it_is_asked_for(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    faces, answers = estimator.detect(photo), []
    for refine, route in ((True, "refined"), (False, "network")):
        (found,), (expected,) = estimator.predict(photo, refine=refine), estimator.poses(faces, route)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.rotation, expected.rotation, atol=1e-5)
        answers.append(found.rotation)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_a_mirrored_face_has_the_mirrored_pose(
    estimator: HeadPoseEstimator, with_torch: HeadPoseEstimator, photo: RgbImage
) -> None:
    """Not of a mirrored picture, in which the detector finds other points, but of mirrored points."""
    (face,) = estimator.detect(photo, 1)
    mirrored = Face.from_points(face.landmarks[mirror_of(FACEMESH)] * [-1, 1, 1] + [photo.shape[1], 0, 0])
    for engine in (estimator, with_torch):
        for route in ("network", "refined"):
            first, second = engine.poses([face, mirrored], route)  # type: ignore[arg-type]
            assert (first.yaw, first.pitch, first.roll) == pytest.approx(
                (-second.yaw, second.pitch, -second.roll), abs=1e-3
            )


def test_two_faces_give_two_poses_largest_first(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    pair = np.full((260, 480, 3), 128, dtype=np.uint8)
    pair[:, :260] = photo[0:260, 100:360]
    pair[60:190, 320:450] = photo[0:260:2, 100:360:2]
    first, second = estimator.predict(pair)
    assert first.box[0] < second.box[0]
    nothing = np.zeros((50, 50, 3), dtype=np.uint8)
    alone, none, both = estimator.predict_batch([photo, nothing, pair])
    assert [len(alone), len(none), len(both)] == [1, 0, 2]
    assert both[0].yaw == pytest.approx(first.yaw, abs=1e-4)
    # Of a generator nothing was found, and nothing was said.
    assert [len(faces) for faces in estimator.detect_batch(image for image in (photo, nothing, pair))] == [1, 0, 2]


FORMS: dict[str, Callable[[RgbImage], object]] = {
    "PIL": Image.fromarray,
    "tensor uint8": lambda image: torch.from_numpy(image.transpose(2, 0, 1).copy()),
    "tensor float": lambda image: torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255,
    "array float": lambda image: image / 255.0,
    "a view": lambda image: image[::-1][::-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_gives_the_same(estimator: HeadPoseEstimator, photo: RgbImage, form: str) -> None:
    (expected,), (found,) = estimator.predict(photo), estimator.predict(FORMS[form](photo))
    assert found.as_dict() == expected.as_dict()


def test_a_file_gives_what_its_pixels_give(estimator: HeadPoseEstimator, photo: RgbImage, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (from_file,) = estimator.predict(tmp_path / "photo.png")
    (from_array,) = estimator.predict(photo)
    assert from_file.as_dict() == from_array.as_dict()
    with pytest.raises(ImageReadError, match="no such image"):
        estimator.predict(str(tmp_path / "none.png"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 10, 3), dtype=np.uint8), "non-empty"),
        (np.zeros((10, 10), dtype=np.uint8), "RGB uint8"),
        (np.zeros((10, 10, 4), dtype=np.uint8), "RGB uint8"),
        (np.zeros((10, 10, 3), dtype=np.int64), "RGB uint8"),
        (np.full((10, 10, 3), 200.0), r"0\.\.1"),
        (np.full((10, 10, 3), np.nan), r"0\.\.1"),
        (np.zeros((10, 0, 3)), "RGB uint8"),
        ([[1, 2, 3]], "received list"),
        (None, "received NoneType"),
    ],
)
def test_what_is_no_image_is_named(estimator: HeadPoseEstimator, image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.predict(image)


def test_an_animation_gives_its_first_frame(estimator: HeadPoseEstimator, photo: RgbImage, tmp_path: Path) -> None:
    frames = [Image.fromarray(photo), Image.new("RGB", photo.shape[1::-1])]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:], loop=0)
    assert len(estimator.predict(tmp_path / "two.gif")) == 1


def test_no_face_is_an_empty_list(estimator: HeadPoseEstimator) -> None:
    assert estimator.predict(np.full((80, 80, 3), 90, dtype=np.uint8)) == []
    assert estimator.predict_batch([]) == []


@pytest.mark.parametrize(
    ("pose", "inside"),
    [((0, 0, 0), True), ((15, 5, 0), True), ((50, 0, 0), False), ((0, 40, 0), False), ((0, 0, -25), False)],
)
def test_in_range_means_inside_the_grid(
    estimator: HeadPoseEstimator, photo: RgbImage, pose: tuple[float, float, float], inside: bool
) -> None:
    """The photograph's landmarks, turned to poses inside and outside of the tiny grid: +-30, +-20 and +-10 degrees."""
    (face,) = estimator.detect(photo)
    (seen,) = estimator.poses([face])
    turn = rotation_from_angles(Angles.from_columns(pose)) @ seen.rotation.T
    turned = Face.from_points(rotate_image_points(face.landmarks, turn))
    # Every angle lies 10 degrees or more away from the edge of the grid: a tiny model is a rough one.
    assert estimator.poses([turned])[0].in_range == inside


def test_what_cannot_be_loaded_is_named(tiny_run: Config, tmp_path: Path) -> None:
    whole = (Workdir(tiny_run.workdir).model / ONNX_FILE).read_bytes()
    with pytest.raises(ArtifactError, match="is missing"):
        HeadPoseEstimator(tmp_path)
    for content in (b"", b"no model", whole[: len(whole) // 2]):
        (tmp_path / ONNX_FILE).write_bytes(content)
        with pytest.raises(ArtifactError, match="is damaged or no ONNX file"):
            HeadPoseEstimator(tmp_path)
    (tmp_path / ONNX_FILE).write_bytes(whole.replace(ONNX_FORMAT.encode(), b"nlml-hpe onnx 1"))
    with pytest.raises(ArtifactError, match="export it again"):
        HeadPoseEstimator(tmp_path / ONNX_FILE)
    shutil.copy(Workdir(tiny_run.workdir).model / CONFIG_FILE, tmp_path)
    with pytest.raises(ArtifactError, match="was changed after the model was built"):
        HeadPoseEstimator(tmp_path)
    with pytest.raises(ValueError, match="unknown backend"):
        HeadPoseEstimator(tmp_path, backend="tflite")  # type: ignore[arg-type]


def test_a_model_lies_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an image does, whose path may begin with a tilde, too."""
    shutil.copy(SHIPPED / ONNX_FILE, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for model in ("~", f"~/{ONNX_FILE}"):
        assert open_eyes(model).default == "landmarks"


def test_a_detector_of_other_points_is_refused(tiny_run: Config) -> None:
    class Other(FaceMeshOnnx):
        point_set = IBUG68

    with Other() as detector, pytest.raises(ValueError, match="needs points 'facemesh468'"):
        HeadPoseEstimator(Workdir(tiny_run.workdir).model, detector=detector)


def test_a_route_that_the_file_lacks_is_named(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    with pytest.raises(ValueError, match="backend='torch'"):
        estimator.poses(estimator.detect(photo), "exact")
