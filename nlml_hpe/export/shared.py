"""Weights that stand in a graph several times, once: a network that is used in three places is written three times."""

from __future__ import annotations

from collections.abc import Mapping

import onnx


def with_shared_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, in which constants are initializers, and equal ones are one.

    Examples
    --------
    >>> import numpy as np
    >>> import spox.opset.ai.onnx.v18 as op
    >>> from spox import Tensor, argument, build
    >>> x = argument(Tensor(np.float32, ("N", 1000)))
    >>> def plus(y):
    ...     return op.add(y, op.const(np.ones(1000, np.float32)))
    >>> twice = build({"x": x}, {"y": plus(plus(x))})
    >>> twice.ByteSize() > 8000 > with_shared_weights(twice).ByteSize()
    True
    """
    shared = onnx.ModelProto()
    shared.CopyFrom(proto)
    graph = shared.graph
    names: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    initializers, nodes = [], []
    for tensor in graph.initializer:
        if _put(tensor, tensor.name, names, renamed):
            initializers.append(tensor)
    for node in graph.node:
        value = _value(node)
        if value is None:
            nodes.append(node)
        elif _put(value, node.output[0], names, renamed):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            initializers.append(tensor)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    weights = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in initializers]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
    _rename(graph, renamed)
    return shared


def _value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a constant."""
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name == "value":
            return attribute.t
    return None


def _put(tensor: onnx.TensorProto, name: str, names: dict[bytes, str], renamed: dict[str, str]) -> bool:
    """Whether this tensor is the first of its kind; another one's name is now that of the first."""
    anonymous = onnx.TensorProto()
    anonymous.CopyFrom(tensor)
    anonymous.name = ""
    first = names.setdefault(anonymous.SerializeToString(deterministic=True), name)
    if first != name:
        renamed[name] = first
    return first == name


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Read the first of equal tensors everywhere, also in graphs within nodes."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, renamed)
