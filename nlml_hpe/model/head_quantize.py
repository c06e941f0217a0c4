"""The head detector's ONNX files in eight bits, by onnxruntime's own static quantisation: a third of the time.

Convolutions, the sums of residuals and the second stage's wide linear layer are rounded; the last layer, whose numbers
are boxes, and what comes after it stay in single precision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from nlml_hpe.files.atomic import write_bytes

_WEIGHED = ("Conv", "Gemm")
_ROUNDED = (*_WEIGHED, "Add", "Relu", "Resize")


def quantize_head_detector(path: Path, images: Iterable[NDArray[np.uint8]], out: Path) -> Path:
    """Write ``out``: the same network in eight bits, with the same inputs, outputs and metadata.

    Weights have seven bits, one scale for each channel: processors without VNNI instructions add products of
    activations and weights in pairs, in 16 bits, which larger ones would overflow. No training goes on (Jacob et al.
    2018 are the source of the arithmetic).

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
    about = onnx.load(path).metadata_props
    with tempfile.TemporaryDirectory() as scratch:
        folded, rounded = Path(scratch) / "folded.onnx", Path(scratch) / "rounded.onnx"
        # Normalisation goes into the convolutions, and weights in half precision become single.
        quant_pre_process(path, folded, skip_symbolic_shape=True, skip_onnx_shape=True)
        quantize_static(
            folded,
            rounded,
            _Pictures(pictures, onnx.load(folded).graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_ROUNDED),
            nodes_to_exclude=_last_nodes(onnx.load(folded)),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        proto = onnx.load(rounded)
    onnx.helper.set_model_props(proto, {each.key: each.value for each in about})
    onnx.checker.check_model(proto)
    write_bytes(out, proto.SerializeToString(deterministic=True))
    return out


class _Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Images one by one, as onnxruntime asks for them."""

    def __init__(self, images: Iterable[NDArray[np.uint8]], name: str) -> None:
        self._left, self._name = iter(images), name

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._left, None)
        return None if image is None else {self._name: image[None]}


def _last_nodes(proto: onnx.ModelProto) -> list[str]:
    """Names of the last layer with weights and of all that follows from it."""
    nodes = proto.graph.node
    last = [node for node in nodes if node.op_type in _WEIGHED][-1]
    names, known = [last.name], set(last.output)
    for node in nodes:
        if known.intersection(node.input):
            known.update(node.output)
            names.append(node.name)
    return names
