"""The image eye's ONNX file says what torch says, of every network, and what a reader must know."""

from __future__ import annotations

import copy
import json
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
from nlml_hpe.model.image_export import ImageEye, export_image_eye, outputs_graph
from nlml_hpe.rotation import CONVENTION, Angles, geodesic_degrees, rotation_from_angles
from nlml_hpe.torch_rotation import rotation_from_degrees
from tests.test_image_networks import pictures, poses

pytestmark = pytest.mark.usefixtures("one_thread")
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
    # The shipped one is of this size.
    assert path.stat().st_size < 6e6
    first = path.read_bytes()
    assert export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), path).read_bytes() == first


def test_what_lies_about_a_face_is_covered_inside_the_file(tmp_path: Path) -> None:
    crops = pictures(rotation_from_degrees(poses(8)), 32).numpy()
    network = lively(build("six_d", 32, width=8), torch.from_numpy(crops))
    whole = session(export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), tmp_path / "eye.onnx"))
    network.covered = (0.125, 0.0, 0.25, 0.0625)
    covered = session(export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), tmp_path / "eye.onnx"))
    grey = np.full_like(crops, 127.5)
    grey[:, :, :30, 4:24] = crops[:, :, :30, 4:24]
    assert torch.equal(network.shown(torch.from_numpy(crops)), torch.from_numpy(grey))
    said = [one.run(["rotation"], {"crops": given})[0] for one, given in ((covered, crops), (whole, grey))]
    assert geodesic_degrees(*said).max() < 1e-3
    assert geodesic_degrees(said[0], whole.run(["rotation"], {"crops": crops})[0]).max() > 0.1
    about = json.loads(covered.get_modelmeta().custom_metadata_map[METADATA])
    assert about["covered"] == [0.125, 0.0, 0.25, 0.0625]


class Rounded(nn.Module):
    """What torchao leaves of a convolution with ReLU6, written by hand: eight bits before, in and after it."""

    def __init__(self) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed

        # Seven bits, as `quantize` has them: without VNNI instructions products of larger weights overflow 16 bits.
        weights = torch.randint(-64, 64, (4, 3, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
        self.register_buffer("weights", weights)
        self.register_buffer("scales", torch.rand(4, generator=torch.Generator().manual_seed(1)) * 0.02 + 0.004)
        self.register_buffer("zeros", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("bias", torch.tensor([0.5, -0.2, 0.1, 0.0]))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        eight, aten = torch.ops.quantized_decomposed, torch.ops.aten
        crops = aten.sub.Tensor(aten.div.Tensor(crops, 127.5), 1)
        crops = eight.quantize_per_tensor.default(crops, 1 / 127, 128, 0, 255, torch.uint8)
        crops = eight.dequantize_per_tensor.default(crops, 1 / 127, 128, 0, 255, torch.uint8)
        weight = eight.dequantize_per_channel.default(self.weights, self.scales, self.zeros, 0, -128, 127, torch.int8)
        maps = aten.conv2d.default(crops, weight, self.bias, [2, 2], [1, 1])
        maps = aten.hardtanh.default(maps, 0.0, 6.0)
        maps = eight.quantize_per_tensor.default(maps, 6 / 255, 0, 0, 255, torch.uint8)
        maps = eight.dequantize_per_tensor.default(maps, 6 / 255, 0, 0, 255, torch.uint8)
        return aten.mean.dim(maps, [2, 3])


class BufferTracer(torch.fx.Tracer):
    """Leaves buffers as they are stored, as torch.export does."""

    proxy_buffer_attributes = True


def test_roundings_to_eight_bits_are_written_as_they_are_computed() -> None:
    module = Rounded()
    traced = torch.fx.GraphModule(module, BufferTracer().trace(module))
    proto = outputs_graph(traced, 16)
    kinds = [node.op_type for node in proto.graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (2, 3)
    crops = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 255
    opened = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (written,) = opened.run(None, {"crops": crops.numpy()})
    # Fused to integer operations a value may fall to the other side of a rounding: one step in 64 positions.
    np.testing.assert_allclose(written, traced(crops).numpy(), atol=2 * 6 / 255 / 64 + 1e-3)
    bounded = traced.graph.find_nodes(
        op="call_function", target=torch.ops.quantized_decomposed.quantize_per_tensor.default
    )
    bounded[0].args = (*bounded[0].args[:3], 0, 127, torch.uint8)
    with pytest.raises(ValueError, match=r"quantised to 0\.\.127; ONNX quantises to all of 0\.\.255"):
        outputs_graph(traced, 16)


def test_a_layer_without_a_translation_is_named(tmp_path: Path) -> None:
    network = build("six_d", 32, width=8)
    network.backbone[2] = nn.GELU()
    with pytest.raises(ValueError, match=r"GELU.* has no translation to ONNX"):
        export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), tmp_path / "eye.onnx")
    assert not (tmp_path / "eye.onnx").exists()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), "Conv2d with padding_mode 'reflect'"),
        (nn.Conv2d(8, 8, 3, padding="same"), "Conv2d with padding 'same'"),
        (nn.MaxPool2d(2, ceil_mode=True), "MaxPool2d with ceil_mode True"),
        (nn.MaxPool2d(2, dilation=(2, 2)), r"MaxPool2d with dilation \(2, 2\)"),
        (nn.BatchNorm2d(8, affine=False), "BatchNorm2d with affine False"),
        (nn.Flatten(2), "Flatten with start_dim 2"),
    ],
)
def test_settings_that_a_translation_leaves_out_are_refused(layer: nn.Module, message: str, tmp_path: Path) -> None:
    """In a network of one's own: the file padded by zeros and pooled by whole windows, and answered something else."""
    network = build("six_d", 32, width=8)
    network.backbone[2] = layer
    with pytest.raises(ValueError, match=f"{message} has no translation to ONNX; expected"):
        export_image_eye(ImageEye(network, "six_d", FRAME, RANGE), tmp_path / "eye.onnx")


def test_a_linear_layer_without_a_bias_is_written(tmp_path: Path) -> None:
    crops = pictures(rotation_from_degrees(poses(8)), 32)
    network = build("custom_cnn", 32)
    network.heads = nn.Linear(network.heads.in_features, network.heads.out_features, bias=False)
    network = lively(network, crops)
    written = session(export_image_eye(ImageEye(network, "custom_cnn", HeadFrame(), RANGE), tmp_path / "eye.onnx"))
    (rotation,) = written.run(["rotation"], {"crops": crops.numpy()})
    assert geodesic_degrees(rotation, exact_of(network, crops).rotation.detach().numpy()).max() < 0.1
