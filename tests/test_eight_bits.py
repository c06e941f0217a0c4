"""Static quantisation: which layers it rounds, and how far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from nlml_hpe.head_network.network import HeadNetwork
from nlml_hpe.head_network.refinement import RefinementNetwork
from nlml_hpe.image_networks.registry import build
from nlml_hpe.model.eight_bits import LEAST_CROPS, quantize_head_detector, quantized_image_eye
from nlml_hpe.model.folder import HeadFrame
from nlml_hpe.model.head_export import export_head_detector, export_refinement
from nlml_hpe.model.image_export import ImageEye, export_image_eye

RANGE = ((-100.0, 100.0), (-90.0, 90.0), (-90.0, 90.0))
IMAGES = np.random.default_rng(0).integers(0, 256, (LEAST_CROPS, 64, 64, 3), dtype=np.uint8)


def in_eight_bits(name: str, folder: Path) -> onnx.ModelProto:
    """A network with random weights, as narrow as it can be."""
    path = folder / "network.onnx"
    if name == "heads":
        return onnx.load(quantize_head_detector(export_head_detector(HeadNetwork(width=8), path), IMAGES, path))
    if name == "refinement":
        return onnx.load(quantize_head_detector(export_refinement(RefinementNetwork(width=8), path), IMAGES, path))
    settings = {"six_d": {"width": 8}, "mobilenetv2": {"width": 16}}.get(name, {})
    eye = ImageEye(build(name, 64, **settings).eval(), name, HeadFrame(), RANGE)
    return quantized_image_eye(onnx.load(export_image_eye(eye, path)), IMAGES)


@pytest.mark.parametrize(
    ("name", "answering"),
    # six_d answers by two layers: the rotation's, and the second of the covariance's.
    [("heads", 1), ("refinement", 1), ("six_d", 2), ("custom_cnn", 1), ("mobilenetv2", 1)],
)
def test_all_layers_have_seven_bits_but_those_that_answer(name: str, answering: int, tmp_path: Path) -> None:
    graph = in_eight_bits(name, tmp_path).graph
    made_by = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    whole = [node for node in layers if node.input[1] in stored]
    assert len(whole) == answering
    for node in layers:
        if node in whole:
            continue
        weights = made_by[node.input[1]]
        assert weights.op_type == "DequantizeLinear"
        numbers, scales = (stored[each] for each in weights.input[:2])
        assert numbers.dtype == np.int8
        assert np.abs(numbers.astype(int)).max() <= 64
        assert len(scales) == numbers.shape[_channels(node)]
    # What is computed of the answers, boxes and poses, is never rounded.
    later: set[str] = {output for node in whole for output in node.output}
    for node in graph.node:
        if later.intersection(node.input):
            later.update(node.output)
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")


def _channels(node: onnx.NodeProto) -> int:
    """Axis of a layer's weights along which its outputs lie."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    eye = ImageEye(build("six_d", 64, width=8).eval(), "six_d", HeadFrame(), RANGE)
    network = onnx.load(export_image_eye(eye, tmp_path / "eye.onnx"))
    with pytest.raises(ValueError, match="expected 16 crops or more to find the ranges of eight bits by; received 15"):
        quantized_image_eye(network, IMAGES[1:])
    whole = export_head_detector(HeadNetwork(width=8), tmp_path / "heads.onnx")
    with pytest.raises(ValueError, match="expected some images to find the ranges of activations by; received none"):
        quantize_head_detector(whole, [], tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()
