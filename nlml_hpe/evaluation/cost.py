"""What an answer costs: parameters, multiplications, bytes of the files behind it, and milliseconds a face."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import onnx
from google.protobuf.message import DecodeError
from onnx import shape_inference

from nlml_hpe.files.atomic import ArtifactError

_WARM_UP = 3
Item = TypeVar("Item")
_CHANNEL = {"Conv": 1, "Gemm": -1, "MatMul": -1}
"""Nodes with weights, and where in the shape of their output the channels stand."""
_PASSED = ("DequantizeLinear", "Transpose", "Cast", "Identity")
_NUMBERS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


@dataclass(frozen=True)
class Cost:
    """What one route of a model costs; None where it is not known, or where it depends on the face.

    Attributes
    ----------
    parameters : int
        Numbers that were learned.
    macs : int
        Multiplications with an addition, of all passes of the networks that see a face once it is found.
    bytes : int
        Of the files that it needs.
    ms : float
        Milliseconds a face, one by one, after detection: the median of some faces.
    detect_ms : float
        The same of finding its landmarks; zero of a route that needs none.
    """

    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    ms: float | None = None
    detect_ms: float | None = None

    def __add__(self, other: Cost) -> Cost:
        """Of both together, for a route that asks both; times are measured and not added."""
        return Cost(_sum(self.parameters, other.parameters), _sum(self.macs, other.macs), _sum(self.bytes, other.bytes))

    def passes(self, count: int) -> Cost:
        """Of a network of which this is one pass, where a face takes so many.

        >>> Cost(parameters=10, macs=7, bytes=40).passes(3).macs
        21
        """
        return replace(self, macs=None if self.macs is None else count * self.macs)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def cost_of_onnx(path: Path) -> Cost:
    """Parameters, MACs and bytes of an ONNX file.

    Constants that are arrays are taken for parameters; MACs are those of convolutions and of products with constants,
    for one face.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.

    Returns
    -------
    Cost
        Without times, which ``timed`` measures.

    Raises
    ------
    ArtifactError
        Where the file does not read.
    """
    try:
        model = onnx.load(str(path))
    except (OSError, ValueError, DecodeError) as error:
        raise ArtifactError(f"{path} is damaged or no ONNX file ({error})") from error
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.dims}
    constants |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    sizes = {name: math.prod(tensor.dims) for name, tensor in constants.items() if tensor.dims}
    learned = sum(size for name, size in sizes.items() if constants[name].data_type in _NUMBERS)
    return Cost(learned, _macs(model, sizes), path.stat().st_size)


def _macs(model: onnx.ModelProto, sizes: dict[str, int]) -> int | None:
    """MACs for a batch of one; None where a shape is not known before the file is run."""
    for dimension in model.graph.input[0].type.tensor_type.shape.dim:
        if not dimension.dim_value:
            dimension.dim_value = 1
    graph = shape_inference.infer_shapes(model).graph
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    shapes |= {value.name: [d.dim_value or 1 for d in value.type.tensor_type.shape.dim] for value in graph.output}
    total = 0
    for node in graph.node:
        if node.op_type in _PASSED and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]  # a weight on its way to its layer
        weights = [sizes[name] for name in node.input[:2] if name in sizes]
        if node.op_type not in _CHANNEL or not weights:
            continue
        shape = shapes.get(node.output[0], [])
        if not shape or not all(shape):
            return None
        # Every number of the output is a sum of as many products as its channel has weights.
        total += math.prod(shape) * weights[-1] // shape[_CHANNEL[node.op_type]]
    return total


def cost_of_layers(network: Any, files: Sequence[Path]) -> Cost:
    """Of a torch network whose linear layers are run once for a face, and of the files that it was read from."""
    linear = [layer.weight.numel() for layer in network.modules() if type(layer).__name__ == "Linear"]
    return Cost(sum(p.numel() for p in network.parameters()), sum(linear), bytes_of(files))


def bytes_of(files: Iterable[Path]) -> int:
    """How large files are together."""
    return sum(path.stat().st_size for path in files)


def timed(work: Callable[[Item], object], items: Sequence[Item]) -> float:
    """Milliseconds an item, one by one: the median. The first few are asked twice: libraries plan their work on them.

    Examples
    --------
    >>> 0 <= timed(abs, [3, -4, 5]) < 50
    True
    """
    times = []
    for item in (*items[:_WARM_UP], *items):
        start = time.perf_counter()
        work(item)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[min(_WARM_UP, len(items)) :])
