"""The image eye's ONNX file says what torch says, of every network, and what a reader must know."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from nlml_hpe.image_networks.network import ImageNetwork, Posterior
from nlml_hpe.image_networks.registry import build
from nlml_hpe.model.folder import HeadFrame
from nlml_hpe.model.format import IMAGE_ONNX_FORMAT, IMAGE_OUTPUTS, METADATA
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from nlml_hpe.rotation import CONVENTION, Angles, geodesic_degrees, rotation_from_angles
from nlml_hpe.torch_rotation import rotation_from_degrees
from tests.test_image_networks import pictures, poses

RANGE = ((-100.0, 100.0), (-90.0, 90.0), (-90.0, 90.0))
FRAME = HeadFrame("w300lp", 0.5, 2.0, -0.5)
NETWORKS: list[tuple[str, dict[str, object]]] = [
    ("six_d", {"width": 8}),
    ("six_d", {"backbone": "resnet50", "width": 8}),
    ("six_d", {"backbone": "mobilenet_v2", "width": 8}),
    ("mobilenetv2", {"answer": "angles", "width": 8}),
    ("mobilenetv2", {"answer": "six_d", "width": 8}),
    ("custom_cnn", {}),
    ("hopenet", {"width": 8}),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lively(network: ImageNetwork, crops: torch.Tensor) -> ImageNetwork:
    """The network with statistics of its own in every normalisation, and answers that differ from crop to crop."""
    torch.manual_seed(1)
    for layer in network.train().modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
        if isinstance(layer, nn.Linear):
            layer.weight.data.normal_(0, 4 / layer.in_features**0.5)
    with torch.no_grad():
        network(crops)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                # A channel that hardly varies would blow up what float32 leaves of it.
                layer.running_var.clamp_(min=0.05)
    return network.eval()


def exact_of(network: ImageNetwork, crops: torch.Tensor) -> Posterior:
    """The answer with sums in float64."""
    return network.posterior(copy.deepcopy(network).double()(crops.double()).double())


def relative(found: np.ndarray, true: np.ndarray) -> float:
    """The largest difference of matrices (N, 3, 3), over their size."""
    return float((np.linalg.norm(found - true, axis=(1, 2)) / np.linalg.norm(true, axis=(1, 2))).max())


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
def test_the_file_says_what_torch_says(name: str, settings: dict[str, object], tmp_path: Path) -> None:
    crops = pictures(rotation_from_degrees(poses(200)), 32)
    network = lively(build(name, 32, **settings), crops)
    opened = session(export_image_eye(ImageEye(network, name, FRAME, RANGE), tmp_path / "eye.onnx"))
    with torch.inference_mode():
        posterior, exact = network.posterior(network(crops).double()), exact_of(network, crops)
    expected, truth = (one.rotation.numpy() @ FRAME.named_from_own for one in (posterior, exact))
    rotation, angles, covariance = opened.run(list(IMAGE_OUTPUTS), {"crops": crops.numpy()})
    assert np.ptp(geodesic_degrees(truth[0], truth)) > 0.3  # the crops have different answers
    # Random layers blow up what float32 leaves; the file may be no further from exact sums than torch itself is.
    assert geodesic_degrees(rotation, truth).max() < max(1e-3, 3 * geodesic_degrees(expected, truth).max())
    assert geodesic_degrees(rotation_from_angles(Angles.from_columns(angles)), rotation).max() < 1e-3
    if posterior.covariance is None:
        assert np.isnan(covariance).all()
    else:
        assert exact.covariance is not None
        own, read = (relative(one, exact.covariance.numpy()) for one in (posterior.covariance.numpy(), covariance))
        assert read < max(1e-3, 3 * own)
    assert opened.run(None, {"crops": crops.numpy()[:0]})[0].shape == (0, 3, 3)


def test_the_file_says_what_its_reader_must_know(tmp_path: Path) -> None:
    network = build("six_d", 64)
    path = export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), tmp_path / "eye.onnx")
    opened = session(path)
    about = json.loads(opened.get_modelmeta().custom_metadata_map[METADATA])
    assert about["format"] == IMAGE_ONNX_FORMAT
    assert about["convention"] == CONVENTION
    assert (about["network"], about["size"], about["share"], about["frame"]) == ("six_d", 64, 1.5, "w300lp")
    np.testing.assert_allclose(about["named_from_own"], FRAME.named_from_own)
    assert about["range"] == [list(interval) for interval in RANGE]
    assert opened.get_inputs()[0].shape == ["faces", 3, 64, 64]
    # The shipped one is of this size; it may have six megabytes.
    assert path.stat().st_size < 3e6
    first = path.read_bytes()
    assert export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), path).read_bytes() == first


def test_a_layer_without_a_translation_is_named(tmp_path: Path) -> None:
    network = build("six_d", 32, width=8)
    network.backbone[2] = nn.GELU()
    with pytest.raises(ValueError, match=r"GELU.* has no translation to ONNX"):
        export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), tmp_path / "eye.onnx")
    assert not (tmp_path / "eye.onnx").exists()
