"""Names for the axes of all tensors of a graph whose only free axis is the number of heads.

onnxruntime gives a tensor the memory of another one that is no longer needed, where it knows that both are of one size.
Where it does not, it looks through ever more of them: a graph of thousands of tensors then takes seconds to load.
"""

from __future__ import annotations

import onnx

_TWO_NUMBERS = (7, 11)
"""Of rows, for which all shapes are worked out: what is as many times the one as the other goes with their number."""
Shapes = dict[str, tuple[onnx.TypeProto, tuple[int, ...]]]


def with_named_axes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with the shapes of its tensors.

    Parameters
    ----------
    proto : ModelProto
        Of one input, whose first axis is free, and which goes into one Concat that makes it one row or more. All that
        has a size depends on what comes out of there.

    Returns
    -------
    ModelProto
        In which each axis has a number, a name that begins with the number of rows, or nothing, if neither is known.
    """
    (put,) = proto.graph.input
    (first,) = (node.output[0] for node in proto.graph.node if node.op_type == "Concat" and put.name in node.input)
    one, other = (_shapes(proto, first, number) for number in _TWO_NUMBERS)
    named = onnx.ModelProto()
    named.CopyFrom(proto)
    for name, (kind, sizes) in one.items():
        if name in other and len(other[name][1]) == len(sizes):
            info = named.graph.value_info.add(name=name, type=kind)
            for dim, *pair in zip(info.type.tensor_type.shape.dim, sizes, other[name][1], strict=True):
                _put(dim, pair)
    return named


def _put(dim: onnx.TensorShapeProto.Dimension, pair: list[int]) -> None:
    """A size, or how many times the number of rows it is; nothing, where it is neither."""
    times, rest = divmod(pair[0], _TWO_NUMBERS[0])
    dim.Clear()
    if pair[0] == pair[1]:
        dim.dim_value = pair[0]
    elif rest == 0 and pair[1] == times * _TWO_NUMBERS[1]:
        # Not the name of the input's axis, which may be nought where this is one.
        dim.dim_param = f"{times} rows"


def _shapes(proto: onnx.ModelProto, first: str, number: int) -> Shapes:
    """Type and shape of all tensors whose shapes follow from so many rows."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = number
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    for node in fixed.graph.node:
        if first in node.output:
            # How many rows it has depends on values, which inference does not know.
            node.CopyFrom(onnx.helper.make_node("Identity", [fixed.graph.input[0].name], [first]))
    found = {}
    for info in onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph.value_info:
        dims = info.type.tensor_type.shape.dim
        if info.type.HasField("tensor_type") and all(dim.HasField("dim_value") for dim in dims):
            found[info.name] = (info.type, tuple(dim.dim_value for dim in dims))
    return found
