"""Networks in eight bits without training, by onnxruntime's static quantisation: the image eye's file, and the head
detector's two.

Weights have seven bits and a scale for each channel: processors without VNNI instructions add products of weights and
activations in pairs, in 16 bits, which larger weights would overflow. Activations have eight bits and one scale for
each tensor, found on inputs like those that the network will see (Jacob et al. 2018, "Quantization and training of
neural networks for efficient integer-arithmetic-only inference"). Layers with weights are rounded, and the sums,
rectifiers and enlargements between them; the layers that answer, and all that is computed of their answers (boxes,
rotation, covariance), are not.

Networks that are trained for eight bits (``image_networks.quantize``) need none of this.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from nlml_hpe.model.onnx_file import said_of, saying, write_onnx

LEAST_CROPS = 16
"""With fewer crops an image eye's ranges are not looked for."""
_WEIGHED = ("Conv", "Gemm")
_ROUNDED = (*_WEIGHED, "Add", "Relu", "Resize")
_BATCH = 16


def quantized_image_eye(network: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    """An image eye's ONNX file in eight bits.

    Parameters
    ----------
    network : ModelProto
        As ``model.image_export`` writes it.
    crops : uint8 array (n, px, px, 3)
        Heads like those that it will see, RGB, in its own size.

    Returns
    -------
    ModelProto
        With the same input and outputs, and metadata in which its ``precision`` is "int8".

    Raises
    ------
    ValueError
        For fewer than ``LEAST_CROPS`` crops, and for a file that is in eight bits already.

    Examples
    --------
    >>> from nlml_hpe.image_networks.registry import build
    >>> from nlml_hpe.model.folder import HeadFrame
    >>> from nlml_hpe.model.image_export import ImageEye, export_image_eye
    >>> eye = ImageEye(build("six_d", 64, width=8), "six_d", HeadFrame(), ((-100, 100), (-90, 90), (-90, 90)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     network = onnx.load(export_image_eye(eye, Path(folder) / "image_eye.onnx"))
    >>> crops = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    >>> precision_of(network), precision_of(quantized_image_eye(network, crops))
    ('float32', 'int8')
    """
    if len(crops) < LEAST_CROPS:
        raise ValueError(
            f"expected {LEAST_CROPS} crops or more to find the ranges of eight bits by; received {len(crops)}"
        )
    if precision_of(network) == "int8":
        raise ValueError("this image eye is in eight bits already; take the file in float32")
    batches = np.array_split(crops, len(crops) // _BATCH)
    made = _quantized(network, (batch.transpose(0, 3, 1, 2).astype(np.float32) for batch in batches))
    return saying(made, {**said_of(network), "precision": "int8"})


def precision_of(network: onnx.ModelProto) -> str:
    """ "float32" or "int8", as an image eye's file says of itself."""
    return str(said_of(network).get("precision", "float32"))


def quantize_head_detector(path: Path, images: Iterable[NDArray[np.uint8]], out: Path) -> Path:
    """Write ``out``: one of the head detector's networks in eight bits, with the same inputs, outputs and metadata.

    Parameters
    ----------
    path : Path
        What ``head_export.export_head_detector`` or ``export_refinement`` wrote.
    images : iterable of uint8 arrays (H, W, 3)
        Pictures like those that it will see, of a size that it takes, by which the ranges of activations are found.
    out : Path
        The file to write; it may be ``path``.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        Where there are no images.

    Examples
    --------
    >>> from nlml_hpe.head_network.network import HeadNetwork
    >>> from nlml_hpe.model.head_export import export_head_detector
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     whole = export_head_detector(HeadNetwork(width=8), Path(folder) / "heads.onnx")
    ...     quantize_head_detector(whole, [np.zeros((64, 64, 3), dtype=np.uint8)], Path(folder) / "small.onnx").name
    'small.onnx'
    """
    pictures = list(images)
    if not pictures:
        raise ValueError("expected some images to find the ranges of activations by; received none")
    return write_onnx(_quantized(onnx.load(path), (picture[None] for picture in pictures)), out)


def _quantized(network: onnx.ModelProto, batches: Iterable[NDArray[Any]]) -> onnx.ModelProto:
    """The network with QuantizeLinear and DequantizeLinear around what is rounded, and the metadata that it had.

    ``batches`` are values of its one input, by whose least and greatest activations the scales are chosen.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain, folded, rounded = (Path(scratch) / f"{name}.onnx" for name in ("plain", "folded", "rounded"))
        onnx.save(network, plain)
        # Normalisation goes into the convolutions, and weights in half precision become single.
        quant_pre_process(plain, folded, skip_symbolic_shape=True, skip_onnx_shape=True)
        quantize_static(
            folded,
            rounded,
            _Reader(batches, network.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_ROUNDED),
            nodes_to_quantize=_rounded_nodes(onnx.load(folded)),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made = onnx.load(rounded)
    onnx.helper.set_model_props(made, {each.key: each.value for each in network.metadata_props})
    onnx.checker.check_model(made)
    return made


def _rounded_nodes(network: onnx.ModelProto) -> list[str]:
    """Names of what is rounded: from the first layer with weights to those that answer, whose outputs no other such
    layer sees."""
    nodes = network.graph.node
    seen, names = set[str](), []
    # Backwards: ``seen`` are the values that lead to a layer with weights.
    for node in reversed(nodes):
        leads = bool(seen.intersection(node.output))
        if leads or node.op_type in _WEIGHED:
            seen.update(node.input)
        if leads and node.op_type in _ROUNDED:
            names.append(node.name)
    first = next(number for number, node in enumerate(nodes) if node.op_type in _WEIGHED)
    before = {node.name for node in nodes[:first]}
    return [name for name in reversed(names) if name not in before]


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Batches of an input one by one, as onnxruntime asks for them."""

    def __init__(self, batches: Iterable[NDArray[Any]], name: str) -> None:
        self._left, self._name = iter(batches), name

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}
