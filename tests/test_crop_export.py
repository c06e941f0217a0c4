"""The file from a face's picture to its pose, against the library's own way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from nlml_hpe.cli import main
from nlml_hpe.detection.facemesh import LANDMARKS_PX, FaceMeshNetworks
from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.detection.regions import warped
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import Estimates, OnnxEngine
from nlml_hpe.model.crop_export import export_crop_onnx
from nlml_hpe.model.folder import load_model
from nlml_hpe.model.format import ONNX_FILE, SHIPPED
from nlml_hpe.model.onnx_export import OPSET
from nlml_hpe.model.onnx_file import said_of
from nlml_hpe.rotation import AXES, Angles, geodesic_degrees, rotation_from_angles

PARITY_DEG = 0.01
"""What the issue asks for."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the command writes it."""
    made = tmp_path_factory.mktemp("export") / "face.onnx"
    assert main(["export", str(made), "--from", "image"]) == 0
    return made


def regions_around(region: np.ndarray) -> list[np.ndarray]:
    """The region itself, turned, shifted, smaller and greater ones."""
    changes = [(0, 0, 1, 0), (0, 0, 1, 0.4), (0, 0, 1, -0.5), (8, -5, 1.1, 0), (-6, 6, 0.9, 0.1), (0, 0, 1.6, 0)]
    return [np.array([region[0] + x, region[1] + y, region[2] * k, region[3] + t]) for x, y, k, t in changes]


def crops_of(photo: RgbImage, regions: list[np.ndarray]) -> list[RgbImage]:
    return [warped(photo, region, LANDMARKS_PX, cv2.BORDER_REPLICATE) for region in regions]


def opened(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answers(session: onnxruntime.InferenceSession, crops: list[RgbImage]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    images = np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32)
    return dict(zip(names, session.run(names, {"crops": images}), strict=True))


def rotation_of(found: dict[str, np.ndarray]) -> np.ndarray:
    return rotation_from_angles(
        Angles.from_columns(np.stack([found[name] for name in AXES], axis=1).astype(np.float64))
    )


def of_library(networks: FaceMeshNetworks, crops: list[RgbImage]) -> Estimates:
    """Landmarks of the crops as whole images, then the shipped file."""
    whole = np.array([[LANDMARKS_PX / 2, LANDMARKS_PX / 2, LANDMARKS_PX, 0.0]])
    found = networks.landmarks(crops, [whole] * len(crops), 0.5)
    return OnnxEngine(SHIPPED / ONNX_FILE).estimate([Face.from_points(points) for (points,) in found], "refined")


def test_it_gives_what_the_library_gives(path: Path, networks: FaceMeshNetworks, photo: RgbImage) -> None:
    regions = networks.detections([photo])[0].regions(1, 0.3)
    crops = crops_of(photo, regions_around(regions[0]))
    found, expected = answers(opened(path), crops), of_library(networks, crops)
    assert geodesic_degrees(rotation_of(found), expected.rotation).max() < PARITY_DEG
    np.testing.assert_allclose(found["sigma"], expected.sigma, atol=PARITY_DEG)
    assert found["landmarks"].shape == (len(crops), 468, 3)
    assert found["presence"].min() > 0.9


def test_a_picture_without_a_face_has_no_presence(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (LANDMARKS_PX, LANDMARKS_PX, 3), dtype=np.uint8)
    grey = np.full_like(noise, 128)
    assert answers(opened(path), [noise, grey])["presence"].max() < 0.1


def test_a_turned_crop_is_turned_back_as_the_text_says(path: Path, networks: FaceMeshNetworks, photo: RgbImage) -> None:
    """Against the library's answer in the image, whose landmarks it turns back before it asks the model."""
    regions = networks.detections([photo])[0].regions(1, 0.3)
    turn = np.degrees(regions[0, 3])
    assert turn > 5
    found = answers(opened(path), crops_of(photo, [regions[0]]))
    ((points,),) = networks.landmarks([photo], [regions], 0.5)
    in_image = OnnxEngine(SHIPPED / ONNX_FILE).estimate([Face.from_points(points)], "refined").rotation
    # The model's answer does not turn quite as its landmarks do; turned the wrong way it would be 18 degrees off.
    back = rotation_from_angles(Angles.from_columns(np.array([0, 0, turn])))
    assert geodesic_degrees(back @ rotation_of(found), in_image).max() < 2


def test_the_file_says_what_it_is_and_is_no_model_of_landmarks(path: Path) -> None:
    made = onnx.load(path)
    assert [entry.version for entry in made.opset_import if not entry.domain] == [OPSET]
    about = said_of(made)
    assert (about["size"], about["frame"], about["format"]) == (192, "w300lp", "nlml-hpe crop onnx 1")
    with pytest.raises(ArtifactError, match=r"takes pictures \('nlml-hpe crop onnx 1'\)"):
        OnnxEngine(path)


def test_models_and_networks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = load_model(SHIPPED)
    with pytest.raises(ArtifactError, match=r"nlml_hpe\.detection\.weights"):
        export_crop_onnx(model, tmp_path / "face.onnx", tmp_path)
    points = dataclasses.replace(FACEMESH, name="other468")
    manifold = dataclasses.replace(model.manifold, feature=points.feature_name(model.normalization))
    other = dataclasses.replace(model, point_set=points, manifold=manifold)
    with pytest.raises(ValueError, match="the model needs other468"):
        export_crop_onnx(other, tmp_path / "face.onnx")
    assert list(tmp_path.iterdir()) == []
