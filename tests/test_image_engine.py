"""The image eye's engine: torch's answers on THE crop, its mirror image averaged in, every face with a box answered."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from nlml_hpe.detection.landmarks import FACEMESH, box_of_68
from nlml_hpe.face import Box, Face, box_of
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.image_networks.crop import crop, turned
from nlml_hpe.image_networks.network import ImageNetwork
from nlml_hpe.image_networks.registry import build
from nlml_hpe.inference.engines import Estimates
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.image_engine import (
    CROPS_OF_A_FACE,
    FEW,
    CropOfFace,
    ImageEngine,
    _mean_of_crops,
    open_image_engine,
)
from nlml_hpe.model.components import IMAGE_EYE_FILE, put_component
from nlml_hpe.model.format import ONNX_FILE, SHIPPED
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from nlml_hpe.model.onnx_file import said_of, saying
from nlml_hpe.rotation import Angles, angles_from_rotation, geodesic_degrees, mirrored, rotation_from_angles
from nlml_hpe.torch_rotation import rotation_from_degrees
from tests.test_image_export import FRAME, RANGE, lively
from tests.test_image_networks import pictures, poses

SIZE = 32
PAIR = (CropOfFace(1.0, 0.0), CropOfFace(1.0, 0.0, mirrored=True))
"""THE crop and its mirror image."""


@pytest.fixture(scope="module")
def network() -> ImageNetwork:
    return lively(build("six_d", SIZE, width=8), pictures(rotation_from_degrees(poses(64)), SIZE))


@pytest.fixture(scope="module")
def folder(network: ImageNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with an image eye alone."""
    place = tmp_path_factory.mktemp("model")
    eye = ImageEye(network, "six_d", FRAME, RANGE)
    export_image_eye(eye, place / IMAGE_EYE_FILE)
    put_component(place, "image_eye", eye.settings())
    return place


def faces(count: int) -> list[Face]:
    """Faces in images of different sizes, at different boxes."""
    drawn = pictures(rotation_from_degrees(poses(count, seed=5)), 80).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    boxes = [(10.0 + index, 12.0, 50.0 + index, 60.0) for index in range(count)]
    return [Face(image[: 80 - index], box) for index, (image, box) in enumerate(zip(drawn, boxes, strict=True))]


def test_answers_are_torchs_on_the_crop_and_its_mirror_image(network: ImageNetwork, folder: Path) -> None:
    some = faces(5)
    crops = np.stack([crop(face.image, face.box, SIZE) for face in some])
    both = torch.from_numpy(np.concatenate([crops, crops[:, :, ::-1]]).transpose(0, 3, 1, 2).copy()).float()
    with torch.inference_mode():
        posterior = network.posterior(network(both).double())
    first, second = np.split(posterior.rotation.numpy(), 2)
    second = mirrored(second)
    found = ImageEngine(folder / IMAGE_EYE_FILE, crops=PAIR).estimate(some)
    own = found.rotation @ FRAME.named_from_own.T
    # The mean lies half-way between both, and is as far from each.
    apart = geodesic_degrees(first, second)
    assert apart.max() > 0.5
    np.testing.assert_allclose(geodesic_degrees(own, first), apart / 2, atol=0.02)
    np.testing.assert_allclose(geodesic_degrees(own, second), apart / 2, atol=0.02)
    # What the two disagree by makes the answer less sure than either's own word.
    assert posterior.covariance is not None
    named = np.trace(posterior.covariance.numpy(), axis1=1, axis2=2).reshape(2, -1).mean(axis=0)
    spread = np.radians(apart / 2) ** 2
    np.testing.assert_allclose(np.trace(found.covariance, axis1=1, axis2=2), named + spread, rtol=0.02)
    assert (np.linalg.eigvalsh(found.covariance) > 0).all()
    assert np.isfinite(found.sigma).all()


def test_looks_turn_their_answers_back(folder: Path) -> None:
    """A look that is turned by a quarter answers as the whole picture turned by a quarter, and is turned back."""

    def answers(*turns: float) -> Estimates:
        crops = [CropOfFace(1.0, turn, mirrored) for turn in turns for mirrored in (False, True)]
        return ImageEngine(folder / IMAGE_EYE_FILE, crops=crops).estimate(some)

    some = faces(4)
    upright, quarter = answers(0.0), answers(90.0)
    aside = []
    for face in some:
        assert face.image is not None
        (left, top, right, bottom), width = face.box, face.image.shape[1]
        aside.append(Face(np.ascontiguousarray(np.rot90(face.image)), (top, width - right, bottom, width - left)))
    other = ImageEngine(folder / IMAGE_EYE_FILE, crops=PAIR).estimate(aside)
    back = turned(np.eye(3), -90.0)
    # OpenCV interpolates in steps of a thirty-second of a pixel; the network has random weights.
    assert geodesic_degrees(quarter.rotation, back @ other.rotation).max() < 1.0
    apart = geodesic_degrees(upright.rotation, quarter.rotation)
    assert apart.max() > 5.0
    both = answers(0.0, 90.0)
    stated = (np.trace(upright.covariance, axis1=1, axis2=2) + np.trace(quarter.covariance, axis1=1, axis2=2)) / 2
    # Of two looks each lies half their distance from the mean.
    assert (np.trace(both.covariance, axis1=1, axis2=2) > 0.5 * stated + 0.9 * np.radians(apart / 2) ** 2).all()
    with pytest.raises(ValueError, match="one CropOfFace or more"):
        answers()


def test_faces_that_another_eye_answers_are_shown_in_fewer_crops_beside_the_others(folder: Path) -> None:
    """So many that they go through the network in several parts, of which none holds whole faces only."""
    some = [*faces(5), Face(None, (0.0, 0.0, 9.0, 9.0)), *faces(16)]
    few = np.arange(len(some)) % 3 == 0
    engine, fewer = (
        ImageEngine(folder / IMAGE_EYE_FILE, crops=crops) for crops in (CROPS_OF_A_FACE, CROPS_OF_A_FACE[:FEW])
    )
    all_crops, first_crops = engine.estimate(some), fewer.estimate(some)
    assert geodesic_degrees(all_crops.rotation, first_crops.rotation)[:5].min() > 0.01
    mixed = [np.where(few[:, None, None], *pair) for pair in zip(first_crops, all_crops, strict=True)]
    for found, expected in (
        (engine.estimate(some, few), mixed),
        (engine.estimate(some, few=True), first_crops),
        (fewer.estimate(some, few), first_crops),
    ):
        for values, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(values, wanted, atol=1e-6)


def test_crops_that_differ_make_the_answer_less_sure() -> None:
    """By the mean square of their distances from the mean, of two crops as of four."""
    yaw = rotation_from_angles(Angles.from_columns([(degrees, 0, 0) for degrees in (0, 4, 1, 1, 3, 3)]))
    stated = np.radians(np.array([1.0, 1.0, 2.0, 2.0, 2.0, 2.0])[:, None, None]) ** 2 * np.eye(3)
    mean, covariance = _mean_of_crops(yaw, stated, np.array([2, 4]))
    np.testing.assert_allclose(angles_from_rotation(mean).columns(), [[2, 0, 0]] * 2, atol=1e-6)
    variances = np.degrees(np.degrees(np.diagonal(covariance, axis1=1, axis2=2)))
    np.testing.assert_allclose(variances, [[1, 1 + 4, 1], [4, 4 + 1, 4]], rtol=1e-6)


@pytest.mark.parametrize("crops", [PAIR, CROPS_OF_A_FACE[:FEW], CROPS_OF_A_FACE])
def test_a_mirror_image_has_the_mirrored_pose(photo: RgbImage, crops: tuple[CropOfFace, ...]) -> None:
    engine = ImageEngine(SHIPPED / IMAGE_EYE_FILE, crops=crops)
    engine.named_from_own = np.eye(3)
    left, top, right, bottom = 176.3, 50.7, 272.1, 178.8
    seen = Face(photo, (left, top, right, bottom))
    width = photo.shape[1]
    other = Face(np.ascontiguousarray(photo[:, ::-1]), (width - right, top, width - left, bottom))
    found = engine.estimate([seen, other])
    # OpenCV reads images in steps of a thirty-second of a pixel, rounded otherwise in the mirror image: some 0.3
    # degrees by this network. Random weights can make more than a degree of that.
    assert geodesic_degrees(mirrored(found.rotation[0]), found.rotation[1]) < 0.6
    assert geodesic_degrees(found.rotation[0], found.rotation[1]) > 3.0


def test_alone_or_together_in_any_number(folder: Path) -> None:
    engine, some = open_image_engine(folder), faces(7)
    together = engine.estimate(some * 40)  # more than go through at once
    alone = [engine.estimate([face]) for face in some]
    for index, one in enumerate(alone):
        assert geodesic_degrees(together.rotation[index::7], one.rotation[0]).max() < 0.1
    nothing = engine.estimate([])
    assert nothing.rotation.shape == (0, 3, 3)
    assert nothing.sigma.shape == (0, 3)


def test_crops_of_a_face_together_or_apart(photo: RgbImage) -> None:
    """The answer is the same, whether the caller has other work meanwhile or not."""
    engine = ImageEngine(SHIPPED / IMAGE_EYE_FILE)
    faces = [Face(photo, (40.0, 40.0, 160.0, 170.0))]
    apart, together = (engine.begin(faces, beside=beside)() for beside in (False, True))
    for one, other in zip(apart, together, strict=True):
        assert np.allclose(one, other, rtol=1e-6, atol=1e-6)


def test_a_face_without_an_image_or_a_size_has_no_answer_and_disturbs_nobody(folder: Path) -> None:
    seen = faces(2)
    some = [Face(None, seen[0].box), seen[0], Face(seen[1].image, (5.0, 5.0, 5.0, 9.0)), seen[1]]
    found = open_image_engine(folder).estimate(some)
    assert np.isnan(found.rotation).all(axis=(1, 2)).tolist() == [True, False, True, False]
    assert np.isnan(found.covariance).all(axis=(1, 2)).tolist() == [True, False, True, False]
    # Half outside of its image, or just beside it, as a profile's may lie: the border is repeated, with an answer.
    outside = [Face(seen[0].image, (-40.0, -40.0, 20.0, 20.0)), Face(seen[0].image, (81.0, 10.0, 141.0, 70.0))]
    assert np.isfinite(open_image_engine(folder).estimate(outside).rotation).all()


@pytest.mark.parametrize("box", [(1e5, 1e5, 1e5 + 50, 1e5 + 50), (500.0, 0.0, 600.0, 80.0), (0.0, 0.0, 1e300, 1e300)])
def test_crops_that_show_nothing_of_the_image_have_no_answer(folder: Path, box: Box) -> None:
    """They were answered, by the repeated border or one grey pixel: turned by 180 degrees, say."""
    (seen,) = faces(1)
    assert np.isnan(open_image_engine(folder).estimate([Face(seen.image, box)]).rotation).all()
    with HeadPoseEstimator() as estimator, pytest.raises(ValueError, match="1 of 2 faces cannot be answered"):
        estimator.poses([seen, Face(seen.image, box)])


@pytest.mark.parametrize("kind", ["float", "rgba", "grey", "list"])
def test_an_image_of_another_kind_is_refused(photo: RgbImage, kind: str) -> None:
    """As ``detect`` refuses it; floats were answered as if they were nearly black."""
    box = (176.3, 50.7, 272.1, 178.8)
    others: dict[str, Any] = {
        "float": photo / 255,
        "rgba": np.dstack([photo, photo[..., :1]]),
        "grey": photo[..., 0],
        "list": photo.tolist(),
    }
    with HeadPoseEstimator() as estimator:
        assert len(estimator.poses([Face(photo, box)], eye="image")) == 1
        with pytest.raises(ValueError, match="expected an RGB uint8 image"):
            estimator.poses([Face(others[kind], box)], eye="image")


@pytest.mark.parametrize("box", [(1, 2, 3), ("a", "b", "c", "d"), 7, "four", np.zeros((4, 2)), (None, 1, 2, 3)])
def test_a_box_is_four_numbers(box: object) -> None:
    with pytest.raises(ValueError, match=r"^box: expected four numbers"):
        Face(None, box)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^given_box: expected four numbers"):
        Face(None, (0.0, 0.0, 1.0, 1.0), given_box=box)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.int16])
def test_an_array_is_a_box_too(photo: RgbImage, kind: type[np.number]) -> None:
    """As detectors of others give them: such a pose was none of plain numbers, and an area overflowed."""
    box = np.array([176, 50, 376, 250], dtype=kind)
    face = Face(photo, box, given_box=box, placed_box=box)  # type: ignore[arg-type]
    assert face.box == face.given_box == face.placed_box == tuple(box.tolist())
    assert face.area == 40_000.0
    with HeadPoseEstimator() as estimator:
        (pose,) = estimator.poses([face])
    assert json.loads(json.dumps(pose.as_dict()))["box"] == box.tolist()


NO_BOXES = [(8.0, 2.0, 4.0, 6.0), (4.0, 6.0, 8.0, 2.0), (4.0, 2.0, 4.0, 6.0), (4.0, 2.0, np.inf, 6.0), (np.nan,) * 4]


@pytest.mark.parametrize("box", NO_BOXES)
def test_a_given_box_has_a_size(box: Box) -> None:
    """An inverted one was passed over: the landmark eye answered alone, and nobody was told."""
    with pytest.raises(ValueError, match=r"^given_box: expected finite numbers with left < right .* received .* = \("):
        Face(None, (0.0, 0.0, 1.0, 1.0), given_box=box)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("size", value) for value in (None, 0, 48, 1e9, "32")),
        *(("share", value) for value in (None, 0, float("nan"), 1e9)),
        *(("range", value) for value in (None, [], "abc", [[1, 2]], [[1, 0]] * 3, [[-1, float("nan")]] * 3)),
        *(
            ("named_from_own", value)
            for value in (None, [[1]], np.zeros((3, 3)).tolist(), np.diag([1, 1, -1]).tolist())
        ),
        ("network", None),
        ("frame", 3),
    ],
)
def test_a_file_that_does_not_say_what_must_be_known_is_refused(
    folder: Path, tmp_path: Path, name: str, value: object
) -> None:
    model = onnx.load(folder / IMAGE_EYE_FILE)
    about = {**said_of(model), name: value}
    if value is None:
        del about[name]
    onnx.save(saying(model, about), tmp_path / "odd.onnx")
    with pytest.raises(ArtifactError, match=rf"odd\.onnx: .*{'crops' if name == 'size' else name}"):
        ImageEngine(tmp_path / "odd.onnx")


def test_crops_that_fill_the_memory_are_refused(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / IMAGE_EYE_FILE)
    saying(model, {**said_of(model), "size": 60_000})
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = 60_000
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.append(onnx.helper.make_node("Identity", ["crops"], ["rotation"]))
    model.graph.output.append(onnx.ValueInfoProto(name="rotation"))
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ArtifactError, match=r"odd\.onnx: .* crops have 60000 px, of which 1024 are the most"):
        ImageEngine(tmp_path / "odd.onnx")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "cannot be computed .*rotation"),
        ([("Identity", ["crops"], "rotation")], r"says float32 of shape \(\d+, 3, 32, 32\) as its rotation"),
        ([("Shape", ["own"], "rotation")], "says int64 of shape"),
        ([("Shape", ["crops"], "seven"), ("Reshape", ["own", "seven"], "rotation")], "cannot be computed .*Reshape"),
        ([("Sub", ["own", "own"], "zero"), ("Div", ["zero", "zero"], "rotation")], "says NaN"),
    ],
)
def test_a_network_that_answers_something_else_is_named(
    folder: Path, tmp_path: Path, nodes: list[tuple[str, list[str], str]], message: str
) -> None:
    """Its metadata may say anything, and onnxruntime's own errors are of no kind that anybody catches."""
    model = onnx.load(folder / IMAGE_EYE_FILE)
    for names in (each for node in model.graph.node for each in (node.input, node.output)):
        names[:] = ["own" if name == "rotation" else name for name in names]
    model.graph.node.extend(onnx.helper.make_node(kind, taken, [made]) for kind, taken, made in nodes)
    kept = [output for output in model.graph.output if output.name != "rotation"]
    del model.graph.output[:]
    model.graph.output.extend([*kept, *(onnx.ValueInfoProto(name="rotation") for _ in nodes[:1])])
    onnx.save(model, tmp_path / "odd.onnx")
    engine = ImageEngine(tmp_path / "odd.onnx")
    with pytest.raises(ArtifactError, match=message):
        engine.estimate([Face(np.zeros((64, 64, 3), dtype=np.uint8), (10.0, 10.0, 40.0, 40.0))])


def test_the_crop_is_cut_around_the_68_of_the_landmarks() -> None:
    points = np.random.default_rng(0).normal(100, 20, size=(FACEMESH.n_points, 3))
    points[10] = (500, 500, 0)  # the top of the forehead is none of them
    face = Face.from_points(points)
    assert face.box[2] == 500
    assert box_of_68(face)[2] < 200
    assert box_of_68(Face.from_points(points[:68])) == box_of(points[:68])
    assert box_of_68(Face(None, (1, 2, 3, 4), points[:5])) == (1, 2, 3, 4)
    assert box_of_68(replace(face, given_box=(5, 6, 7, 8))) == (5, 6, 7, 8)


def test_the_box_of_landmarks_is_made_larger_towards_profile() -> None:
    points = np.random.default_rng(0).normal(100, 20, size=(FACEMESH.n_points, 3))
    sides = []
    for turn_deg in (0, 45, 90):
        points[33], points[263] = (100, 100, 0), (100 + np.cos(np.radians(turn_deg)), 100, np.sin(np.radians(turn_deg)))
        left, top, right, bottom = box_of_68(Face.from_points(points))
        sides.append((right - left, bottom - top, left + right, top + bottom))
    wider = np.array(sides) / sides[0]
    assert np.allclose(wider[:, :2], np.exp([[0.0], [0.0425], [0.085]]), rtol=1e-6)
    assert np.allclose(wider[:, 2:], 1)  # about the same middle


def test_the_square_of_landmarks_is_that_of_the_labels_points(shared_data: Path) -> None:
    """On photographs that are nearly frontal: within 3% of its side for most; training's jitter allows 18%."""
    from nlml_hpe.detection.detectors import open_detector
    from nlml_hpe.evaluation.datasets import read_dataset
    from nlml_hpe.image_networks.crop import square_around

    samples = [s for s in read_dataset("aflw2000", shared_data / "aflw2000_dev").samples if abs(s.angles[0]) < 30][:12]
    off = []
    with open_detector("facemesh_onnx") as detector:
        for sample in samples:
            assert sample.box is not None
            face = detector.detect_in_box(sample.load(), sample.box)
            assert face is not None
            label, own = square_around(sample.box), square_around(box_of_68(face))
            off.append(np.abs(label - own) / label[2])
    assert np.median(off, axis=0).max() < 0.03


def test_what_is_no_image_eye_is_refused(folder: Path, landmark_eye_alone: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no image_eye; it holds"):
        open_image_engine(landmark_eye_alone)
    with pytest.raises(ArtifactError, match="expected 'nlml-hpe image onnx 1'"):
        ImageEngine(SHIPPED / ONNX_FILE)
    with pytest.raises(ArtifactError, match="is missing"):
        ImageEngine(tmp_path / "none.onnx")
    (tmp_path / "cut.onnx").write_bytes((folder / IMAGE_EYE_FILE).read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="damaged"):
        ImageEngine(tmp_path / "cut.onnx")
    shutil.copytree(folder, tmp_path / "changed")
    with (tmp_path / "changed" / IMAGE_EYE_FILE).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ArtifactError, match="was changed after the model was built"):
        open_image_engine(tmp_path / "changed")
