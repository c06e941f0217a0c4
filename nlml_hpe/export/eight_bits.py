"""An image eye in eight bits, by onnxruntime's static quantisation: no training, but crops by which ranges are found.

Weights have seven bits and a scale for each channel: processors without VNNI instructions add products in pairs, in 16
bits, which larger ones would overflow. Activations have one scale for each tensor. The layers that answer are in single
precision, and what follows them (rotation and covariance) stays in float64. Networks trained for eight bits
(``image_networks.quantize``) need none of this: their files are in eight bits already.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import IMAGE_SUFFIXES, RgbImage, read_image
from nlml_hpe.image_networks.crop import SHARE, crop
from nlml_hpe.image_networks.shards import gathered, read_shards
from nlml_hpe.model.format import IMAGE_INPUT, METADATA

MOST_CROPS, LEAST_CROPS = 256, 16
"""Crops that are used, drawn evenly from those that are there, and with how few it is not tried."""
_WEIGHED, _ROUNDED = ("Conv", "Gemm"), ("Conv", "Gemm", "Add", "Relu")
_BATCH = 16


def read_crops(folder: Path, px: int) -> NDArray[np.uint8]:
    """Crops out of a folder, drawn evenly from all that are there.

    Parameters
    ----------
    folder : Path
        What the stage ``Crops`` wrote, or pictures of one head each, cut as the file that is exported takes them.
    px : int
        Pixels on a side.

    Returns
    -------
    RGB uint8 array (n, px, px, 3)
        ``MOST_CROPS`` at most.

    Raises
    ------
    ArtifactError
        For a folder that holds neither.
    ImageReadError
        For a picture that does not read.
    """
    if any(folder.glob("people_*.npy")):
        shards = read_shards(folder)
        some = gathered(shards, _evenly(sum(map(len, shards))))
        return np.stack([crop(image, box, px) for image, box in zip(some.images, some.boxes, strict=True)])
    paths = (
        sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []
    )
    if not paths:
        raise ArtifactError(f"{folder} holds no crops of heads: expected what Crops wrote, or pictures of a head each")
    return np.stack([_whole(read_image(paths[index]), px) for index in _evenly(len(paths))])


def _evenly(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_CROPS)).astype(np.int64))


def _whole(image: RgbImage, px: int) -> NDArray[np.uint8]:
    """The whole picture as a crop."""
    height, width = image.shape[:2]
    half = max(height, width) / SHARE / 2
    return crop(image, (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half), px)


def precision_of(network: onnx.ModelProto) -> str:
    """ "float32" or "int8", as an image eye's file says of itself."""
    return str(_said(network).get("precision", "float32"))


def _said(network: onnx.ModelProto) -> dict[str, Any]:
    properties = {entry.key: entry.value for entry in network.metadata_props}
    said: dict[str, Any] = json.loads(properties[METADATA])
    return said


def quantized(network: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    """An image eye's ONNX file in eight bits, with QuantizeLinear and DequantizeLinear around its layers.

    Parameters
    ----------
    network : ModelProto
        As ``model.image_export`` writes it.
    crops : uint8 array (n, px, px, 3)
        Heads like those that it will see, RGB, in its own size.

    Returns
    -------
    ModelProto
        With the same input and outputs.

    Raises
    ------
    ValueError
        For fewer than ``LEAST_CROPS`` crops.
    """
    if len(crops) < LEAST_CROPS:
        raise ValueError(
            f"expected {LEAST_CROPS} crops or more to find the ranges of eight bits by; received {len(crops)}"
        )
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as scratch:
        folded, rounded = _folded(network, Path(scratch) / "plain.onnx"), Path(scratch) / "rounded.onnx"
        quantize_static(
            folded,
            rounded,
            _Reader(crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_ROUNDED),
            nodes_to_quantize=_rounded(folded),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        made = onnx.load(rounded)
    about = {**_said(network), "precision": "int8"}
    onnx.helper.set_model_props(made, {METADATA: json.dumps(about, sort_keys=True)})
    return made


def _rounded(network: onnx.ModelProto) -> list[str]:
    """Names of the layers that are rounded: from the first one to those that answer, which no rectifier follows."""
    nodes = network.graph.node
    rectified = {name for node in nodes if node.op_type == "Relu" for name in node.input}
    begun, after = False, set[str]()
    names = []
    for node in nodes:
        begun = begun or node.op_type in _WEIGHED
        answers = node.op_type == "Gemm" and not rectified.intersection(node.output)
        if answers or after.intersection(node.input):
            after.update(node.output)
        elif begun and node.op_type in _ROUNDED:
            names.append(node.name)
    return names


def _folded(network: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The network with its normalisations folded into its convolutions; ``path`` is scratch."""
    import onnxruntime
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(path)
    add_pre_process_metadata(folded)
    return folded


class _Reader:
    """Hands crops to onnxruntime, some at a time."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(np.array_split(crops, max(1, len(crops) // _BATCH)))

    def get_next(self) -> dict[str, Any] | None:
        """The next input, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {IMAGE_INPUT: batch.transpose(0, 3, 1, 2).astype(np.float32)}
