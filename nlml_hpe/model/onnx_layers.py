"""A torch network as an ONNX graph: torch.fx says which layers follow one another, and each is written by spox.

What is translated is what ``image_networks`` are made of, and what torchao makes of them for eight bits, where each
operation stands between QuantizeLinear and DequantizeLinear; anything else is refused by its name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
import torch
from numpy.typing import NDArray
from spox import Var
from torch import fx, nn


def network_outputs(network: nn.Module, inputs: Var) -> Var:
    """What a network in evaluation mode answers to its one input, as a variable of a graph that is being built.

    Parameters
    ----------
    network : nn.Module
        On the CPU; a graph that torchao has converted is taken as it is.
    inputs : Var
        float32, of the shape that the network takes.

    Returns
    -------
    Var
        The answer.

    Raises
    ------
    ValueError
        For a layer or an operation that has no translation here.
    """
    traced = network if isinstance(network, fx.GraphModule) else fx.symbolic_trace(network.eval())
    values: dict[str, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            values[node.name] = inputs
        elif node.op != "output" and not node.users:
            continue  # what torch.export checks on the way
        elif node.op == "output":
            # An exported graph gives a tuple of one.
            last = node.args[0][0] if isinstance(node.args[0], tuple | list) else node.args[0]
            answer: Var = values[last.name]
            return answer
        else:
            arguments = [_value(argument, values) for argument in node.args]
            values[node.name] = _translated(traced, node, arguments)
    raise ValueError("the network has no output")


def _value(argument: Any, values: dict[str, Any]) -> Any:
    """An argument of a node, with variables in place of the nodes in it."""
    if isinstance(argument, list | tuple):
        return [_value(part, values) for part in argument]
    return values[argument.name] if isinstance(argument, fx.Node) else argument


def _translated(traced: fx.GraphModule, node: fx.Node, arguments: list[Any]) -> Any:
    if node.op == "get_attr":
        return operator.attrgetter(str(node.target))(traced).detach().cpu().numpy()
    if node.op == "call_module":
        layer = traced.get_submodule(str(node.target))
        key: Any = type(layer)
        translation = _LAYERS.get(key)
        if translation is not None:
            return translation(layer, arguments[0])
    else:
        key = node.target
        # Those of eight bits by name: they are known to torch once torchao is imported.
        operation = _OPERATIONS.get(key) or _OPERATIONS.get(str(key))
        if operation is not None:
            return operation(*arguments, **node.kwargs)
    raise ValueError(f"{node.name}: {key} has no translation to ONNX")


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(one) for one in value]


def _require(layer: nn.Module, **expected: Any) -> None:
    """Raise ``ValueError`` for a setting of a layer that its translation would leave out."""
    for name, wanted in expected.items():
        if (found := getattr(layer, name)) not in (wanted, (wanted, wanted)):
            kind = type(layer).__name__
            raise ValueError(f"nn.{kind} with {name} {found!r} has no translation to ONNX; expected {wanted!r}")


def _convolution(layer: nn.Conv2d, x: Var) -> Var:
    _require(layer, padding_mode="zeros")
    if isinstance(layer.padding, str):
        raise ValueError(f"nn.Conv2d with padding {layer.padding!r} has no translation to ONNX; expected numbers")
    bias = None if layer.bias is None else _array(layer.bias)
    return _convolved(x, _array(layer.weight), bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _normalisation(layer: nn.BatchNorm2d, x: Var) -> Var:
    """A constant scale and shift of every channel, which runtimes fold into the convolution before it."""
    _require(layer, affine=True, track_running_stats=True)
    mean, variance, weight, bias = (
        _array(one).astype(np.float64)
        for one in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        if one is not None
    )
    scale = weight / np.sqrt(variance + layer.eps)
    shift = bias - mean * scale
    factor, offset = (op.const(one.astype(np.float32)[:, None, None]) for one in (scale, shift))
    return op.add(op.mul(x, factor), offset)


def _linear(layer: nn.Linear, x: Var) -> Var:
    return _product(x, _array(layer.weight), None if layer.bias is None else _array(layer.bias))


def _max_pool(layer: nn.MaxPool2d, x: Var) -> Var:
    _require(layer, ceil_mode=False, dilation=1)
    return _largest(x, layer.kernel_size, layer.stride, layer.padding)


def _largest(x: Var, kernel: Any, stride: Any, padding: Any = 0) -> Var:
    largest, _ = op.max_pool(x, kernel_shape=_pair(kernel), strides=_pair(stride), pads=_pair(padding) * 2)
    return largest


def _flatten(layer: nn.Flatten, x: Var) -> Var:
    _require(layer, start_dim=1, end_dim=-1)
    return op.flatten(x)


def _upsample(layer: nn.Upsample, x: Var) -> Var:
    """Every pixel ``scale_factor`` times in each direction."""
    if layer.mode != "nearest" or layer.scale_factor is None:
        raise ValueError(f"nn.Upsample of mode {layer.mode!r}; expected 'nearest' and a scale_factor")
    factor = _array(torch.as_tensor(layer.scale_factor))
    scales = np.array([1, 1, *np.broadcast_to(factor, 2)], dtype=np.float32)
    return op.resize(
        x, scales=op.const(scales), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


_LAYERS: dict[type[nn.Module], Callable[[Any, Var], Var]] = {
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _normalisation,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: lambda _, x: op.relu(x),
    nn.ReLU6: lambda _, x: op.clip(x, op.const(np.float32(0)), op.const(np.float32(6))),
    nn.Upsample: _upsample,
    nn.Flatten: _flatten,
    # Of training alone.
    nn.Dropout: lambda _, x: x,
}


def _elementwise(operation: Callable[[Var, Var], Var]) -> Callable[[Any, Any], Var]:
    """The operation on variables or plain numbers."""

    def apply(first: Any, second: Any) -> Var:
        both = (first, second)
        return operation(*(part if isinstance(part, Var) else op.const(np.float32(part)) for part in both))

    return apply


def _stack(parts: list[Var], dim: int) -> Var:
    return op.concat([op.unsqueeze(part, op.const([dim])) for part in parts], axis=dim)


def _variable(value: Any) -> Var:
    """A variable, of an array a constant one; what a graph stores is in float32 but for eight bits."""
    if isinstance(value, Var):
        return value
    return op.const(value if value.dtype in (np.int8, np.uint8) else np.asarray(value, dtype=np.float32))


def _convolved(
    x: Var, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Var:
    shape = {"strides": _pair(stride), "pads": _pair(padding) * 2, "dilations": _pair(dilation)}
    return op.conv(x, _variable(weight), None if bias is None else _variable(bias), group=groups, **shape)


def _product(x: Var, weight: Any, bias: Any = None) -> Var:
    return op.gemm(x, _variable(weight), None if bias is None else _variable(bias), transB=1)


def _flattened(x: Var, start: int, _: int = -1) -> Var:
    return op.flatten(x, axis=start)


def _quantized(x: Var, scale: float, zero: int, low: int, high: int, kind: torch.dtype) -> Var:
    """Rounded to eight bits with one scale; ``low`` and ``high`` are those of the kind."""
    _require_full_range(low, high, kind)
    return op.quantize_linear(x, op.const(np.float32(scale)), op.const(_KINDS[kind](zero)))


def _dequantized(x: Any, scale: float, zero: int, low: int, high: int, kind: torch.dtype, out_dtype: Any = None) -> Var:
    return op.dequantize_linear(_variable(x), op.const(np.float32(scale)), op.const(_KINDS[kind](zero)))


def _dequantized_channels(
    x: Any, scales: Any, zeros: Any, axis: int, low: int, high: int, kind: torch.dtype, out_dtype: Any = None
) -> Var:
    scale, zero = op.const(scales.astype(np.float32)), op.const(zeros.astype(_KINDS[kind]))
    return op.dequantize_linear(_variable(x), scale, zero, axis=axis)


def _require_full_range(low: int, high: int, kind: torch.dtype) -> None:
    """Raise ``ValueError`` unless these are the bounds of the kind of number: ONNX has no others."""
    bounds = np.iinfo(_KINDS[kind])
    if (low, high) != (bounds.min, bounds.max):
        raise ValueError(f"quantised to {low}..{high}; ONNX quantises to all of {bounds.min}..{bounds.max}")


_KINDS: dict[torch.dtype, Any] = {torch.uint8: np.uint8, torch.int8: np.int8}
_OPERATIONS: dict[Any, Callable[..., Any]] = {
    operator.add: _elementwise(op.add),
    operator.sub: _elementwise(op.sub),
    operator.truediv: _elementwise(op.div),
    nn.functional.relu: lambda x, inplace=False: op.relu(x),
    torch.cat: lambda parts, dim: op.concat(parts, axis=dim),
    torch.stack: _stack,
    "mean": lambda x, dim: op.reduce_mean(x, op.const(list(dim)), keepdims=0),
    "view": lambda x, *shape: op.reshape(x, op.const(np.array(shape, dtype=np.int64))),
    # All is computed in float32, and nothing is learned.
    "float": lambda x: x,
    "detach": lambda x: x,
}
_aten = torch.ops.aten
_OPERATIONS |= {
    _aten.conv2d.default: _convolved,
    _aten.linear.default: _product,
    _aten.max_pool2d.default: _largest,
    _aten.relu.default: op.relu,
    _aten.hardtanh.default: lambda x, low, high: op.clip(x, op.const(np.float32(low)), op.const(np.float32(high))),
    _aten.add.Tensor: _elementwise(op.add),
    _aten.sub.Tensor: _elementwise(op.sub),
    _aten.div.Tensor: _elementwise(op.div),
    _aten.mean.dim: lambda x, dim: op.reduce_mean(x, op.const(list(dim)), keepdims=0),
    _aten.flatten.using_ints: _flattened,
    _aten.cat.default: lambda parts, dim: op.concat(parts, axis=dim),
    _aten.stack.default: _stack,
    _aten.view.default: lambda x, shape: op.reshape(x, op.const(np.array(shape, dtype=np.int64))),
    # Of training alone, or of float32 to float32.
    _aten.dropout.default: lambda x, share, training: x,
    _aten.to.dtype: lambda x, kind: x,
    _aten.detach.default: lambda x: x,
    "quantized_decomposed.quantize_per_tensor.default": _quantized,
    "quantized_decomposed.dequantize_per_tensor.default": _dequantized,
    "quantized_decomposed.dequantize_per_channel.default": _dequantized_channels,
}
