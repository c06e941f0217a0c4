"""A TFLite network as ONNX with the same arithmetic: the dozen kinds of layers that MediaPipe's face networks use.

TFLite lays images out as (N, H, W, C), ONNX as (N, C, H, W); weights are turned accordingly and keep their type, so
that float16 weights stay float16 in the file, with a cast in front of the layer that uses them. The batch size is
free. Two things are written otherwise than TFLite has them, because onnxruntime is three times as fast with them:

- Images inside the network have a multiple of 16 channels; those that were added are zero and stay so. A depthwise
  layer of 24 or 42 channels would leave the layout in which onnxruntime is quick, and come back after it.
- PReLU, one number at a time in onnxruntime, is ``x + (1 - slope) * max(-x, 0)``, the same but for its last bits, by
  layers that it has in that layout.

Needs ``tflite`` (the schema's reader) and ``onnx``; inference needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
_BLOCK = 16
"""Channels that onnxruntime keeps together: 16 with AVX-512, else 8."""
_NAMES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
_TYPES = {tflite.TensorType.FLOAT32: "<f4", tflite.TensorType.FLOAT16: "<f2", tflite.TensorType.INT32: "<i4"}


class ConversionError(ValueError):
    """The file holds something that is not converted here; the message says what."""


@dataclass
class _Graph:
    """The TFLite graph that is read and the ONNX nodes and weights that are written."""

    model: Any
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    source_of: dict[int, int] = field(default_factory=dict)
    """Output of a dequantisation: the float16 tensor that it reads."""
    outward: set[int] = field(default_factory=set)
    """Images as they enter the network, and as they leave its image layers."""

    def __post_init__(self) -> None:
        self.graph = self.model.Subgraphs(0)
        operators = [self.graph.Operators(number) for number in range(self.graph.OperatorsLength())]
        shaped = [int(one.Inputs(0)) for one in operators if self.kind(one) == "RESHAPE"]
        self.outward = {*_indices(self.graph.InputsAsNumpy()), *_indices(self.graph.OutputsAsNumpy()), *shaped}

    def kind(self, operator: Any) -> str:
        """The name of an operator's layer."""
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        return _NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]

    def channels(self, index: int) -> int:
        """Channels of an image in the ONNX graph: whole blocks, but where the network begins and ends."""
        own = self.shape(index)[-1]
        return own if index in self.outward else -(-own // _BLOCK) * _BLOCK

    def shape(self, index: int) -> list[int]:
        tensor = self.graph.Tensors(index)
        return [int(size) for size in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []

    def constant(self, index: int) -> NDArray[Any]:
        """A tensor that the file holds, in its own type."""
        index = self.source_of.get(index, index)
        tensor = self.graph.Tensors(index)
        if tensor.Type() not in _TYPES:
            raise ConversionError(
                f"tensor {tensor.Name()!r} has type {tensor.Type()}; expected float32, float16, int32"
            )
        content = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(content, int):
            raise ConversionError(f"tensor {tensor.Name()!r} holds no data")
        return np.frombuffer(content.tobytes(), dtype=_TYPES[tensor.Type()]).reshape(self.shape(index))

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """A constant by name; one of float16 is cast to float32 where it is used."""
        half = value.dtype == np.float16
        stored = f"{name}_f16" if half else name
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), stored))
        return self.add("Cast", [stored], name, to=TensorProto.FLOAT) if half else name


def convert(content: bytes, scale: float, offset: float, outputs: dict[str, tuple[int, ...]]) -> bytes:
    """The ONNX file of a TFLite file.

    Parameters
    ----------
    content
        Bytes of the TFLite file: one image (1, H, W, 3) in, float32.
    scale, offset
        The ONNX graph takes ``image`` (N, H, W, 3) uint8 and gives the network ``scale * image + offset``.
    outputs
        Names of the graph's outputs in the file's order, with the shape of each without the batch size.

    Returns
    -------
    bytes
        Of the ONNX file.

    Raises
    ------
    ConversionError
        Where a layer, an option or a type is not known here.
    """
    work = _Graph(tflite.Model.GetRootAsModel(content, 0))
    graph = work.graph
    (image,) = graph.InputsAsNumpy()
    _input(work, int(image), scale, offset)
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        kind = work.kind(operator)
        if kind not in _LAYERS:
            raise ConversionError(f"layer {kind} is not known here; known are {', '.join(_LAYERS)}")
        _LAYERS[kind](work, operator, _indices(operator.InputsAsNumpy()), int(operator.Outputs(0)))
    for index, (name, shape) in zip(_indices(graph.OutputsAsNumpy()), outputs.items(), strict=True):
        # A spatial output here is 1 x 1, so that its layout does not matter.
        target = work.weight(f"{name}_shape", np.array([-1, *shape], dtype=np.int64))
        work.add("Reshape", [_name(index), target], name)
    return _file(work, work.shape(int(image)), outputs)


def _file(work: _Graph, shape: Sequence[int], outputs: dict[str, tuple[int, ...]]) -> bytes:
    made = helper.make_graph(
        work.nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *shape[1:]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *size]) for name, size in outputs.items()],
        work.weights,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="nlml_hpe")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _input(work: _Graph, index: int, scale: float, offset: float) -> None:
    work.add("Cast", ["image"], "image_float", to=TensorProto.FLOAT)
    scaled = work.add("Mul", ["image_float", work.weight("scale", np.array(scale, dtype=np.float32))], "image_scaled")
    if offset:
        scaled = work.add("Add", [scaled, work.weight("offset", np.array(offset, dtype=np.float32))], "image_moved")
    work.add("Transpose", [scaled], _name(index), perm=[0, 3, 1, 2])


def _name(index: int) -> str:
    return f"t{index}"


def _indices(values: Any) -> list[int]:
    return [int(value) for value in values]


def _options(operator: Any, kind: Any) -> Any:
    table = operator.BuiltinOptions()
    options = kind()
    options.Init(table.Bytes, table.Pos)
    return options


def _require_plain(options: Any) -> None:
    if options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
        raise ConversionError("a layer with a fused activation is not known here")


def _pads(work: _Graph, options: Any, index: int, kernel: Sequence[int]) -> list[int]:
    """Explicit padding (top, left, bottom, right): TFLite's SAME gives the odd pixel to the end."""
    if options.Padding() == tflite.Padding.VALID:
        return [0, 0, 0, 0]
    strides = (options.StrideH(), options.StrideW())
    before, after = [], []
    for size, step, width in zip(work.shape(index)[1:3], strides, kernel, strict=True):
        total = max((-(-size // step) - 1) * step + width - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


def _convolution(work: _Graph, operator: Any, inputs: list[int], output: int, depthwise: bool) -> None:
    options = _options(operator, tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions)
    _require_plain(options)
    kernel = work.constant(inputs[1])
    if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
        raise ConversionError("a dilated convolution is not known here")
    if depthwise and kernel.shape[-1] != work.shape(inputs[0])[-1]:
        raise ConversionError("a depthwise convolution with several outputs a channel is not known here")
    pads = _pads(work, options, inputs[0], kernel.shape[1:3])
    turned = kernel.transpose(3, 0, 1, 2) if depthwise else kernel.transpose(0, 3, 1, 2)
    before, after, name = work.channels(inputs[0]), work.channels(output), _name(output)
    parts = [_name(inputs[0])]
    parts.append(work.weight(f"{name}_kernel", _widened(turned, after, 1 if depthwise else before)))
    parts.append(work.weight(f"{name}_bias", _widened(work.constant(inputs[2]), after)))
    strides = [options.StrideH(), options.StrideW()]
    work.add("Conv", parts, name, pads=pads, strides=strides, group=after if depthwise else 1)


def _widened(array: NDArray[Any], *lengths: int) -> NDArray[Any]:
    """Zeros at the end of the first axes, up to these lengths."""
    more = [length - size for length, size in zip(lengths, array.shape, strict=False)]
    return np.pad(array, [(0, extra) for extra in more] + [(0, 0)] * (array.ndim - len(lengths)))


def _max_pool(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    options = _options(operator, tflite.Pool2DOptions)
    _require_plain(options)
    kernel = [options.FilterHeight(), options.FilterWidth()]
    pads, strides = _pads(work, options, inputs[0], kernel), [options.StrideH(), options.StrideW()]
    work.add("MaxPool", [_name(inputs[0])], _name(output), kernel_shape=kernel, pads=pads, strides=strides)


def _add(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    _require_plain(_options(operator, tflite.AddOptions))
    work.add("Add", [_name(index) for index in inputs], _name(output))


def _pad(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    """Channels of zeros behind those that are there, as far as whole blocks have not added them already."""
    widths = work.constant(inputs[1])
    if widths[:3].any() or widths[3, 0]:
        raise ConversionError(f"padding by {widths.tolist()} is not known here; expected channels behind the others")
    before, after, name = work.channels(inputs[0]), work.channels(output), _name(output)
    if before == after:
        work.add("Identity", [_name(inputs[0])], name)
        return
    kernel = np.eye(after, before, dtype=np.float16).reshape(after, before, 1, 1)
    work.add("Conv", [_name(inputs[0]), work.weight(f"{name}_kernel", kernel)], name)


def _prelu(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    slope = work.constant(inputs[1])
    if slope.shape[:2] != (1, 1):
        raise ConversionError(f"a PReLU with slopes of shape {slope.shape} is not known here; expected (1, 1, C)")
    name, count, image = _name(output), work.channels(output), _name(inputs[0])
    # Half precision has no place for one less a small slope.
    raised = 1 - _widened(slope.reshape(-1).astype(np.float32), count).reshape(count, 1, 1, 1)
    minus = work.weight(f"{name}_minus", np.full(raised.shape, -1, dtype=np.float16))
    negative = work.add("Conv", [image, minus], f"{name}_turned", group=count)
    negative = work.add("Relu", [negative], f"{name}_negative")
    scaled = work.add("Conv", [negative, work.weight(f"{name}_raised", raised)], f"{name}_scaled", group=count)
    work.add("Add", [scaled, image], name)


def _reshape(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    name = _name(output)
    last = work.add("Transpose", [_name(inputs[0])], f"{name}_nhwc", perm=[0, 2, 3, 1])
    target = np.array([-1, *work.shape(output)[1:]], dtype=np.int64)
    work.add("Reshape", [last, work.weight(f"{name}_shape", target)], name)


def _concatenation(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    options = _options(operator, tflite.ConcatenationOptions)
    _require_plain(options)
    if len(work.shape(output)) != 3:
        raise ConversionError("a concatenation of images is not known here; expected (N, rows, columns)")
    work.add("Concat", [_name(index) for index in inputs], _name(output), axis=options.Axis())


def _relu(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    work.add("Relu", [_name(inputs[0])], _name(output))


def _dequantize(work: _Graph, operator: Any, inputs: list[int], output: int) -> None:
    work.source_of[output] = inputs[0]


_LAYERS: dict[str, Callable[[_Graph, Any, list[int], int], None]] = {
    "ADD": _add,
    "CONCATENATION": _concatenation,
    "CONV_2D": partial(_convolution, depthwise=False),
    "DEPTHWISE_CONV_2D": partial(_convolution, depthwise=True),
    "DEQUANTIZE": _dequantize,
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
    "PRELU": _prelu,
    "RELU": _relu,
    "RESHAPE": _reshape,
}
