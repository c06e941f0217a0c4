"""The head detector's two stages as ONNX files; the rest is numpy.

First stage: an image in, scores and boxes of all cells out. Input: ``images`` (N, H, W, 3) uint8 RGB, sides a multiple
of 32. Outputs: ``scores`` (N, h, w) in 0..1, nought where a neighbouring cell has a greater one; ``boxes`` of heads and
``face_boxes`` of their 68 points, each (N, h, w, 4): left, top, right, bottom in pixels of the image.

Second stage: crops of proposals in, a score and a box of each out. Input: ``images`` (N, 64, 64, 3) uint8 RGB. Outputs:
``scores`` (N,) in 0..1, and ``boxes`` (N, 4): left, top, right, bottom in sides of the crop.

The weights are stored in half precision and computed with in single.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from onnx import numpy_helper
from spox import Tensor, Var, argument, build

from nlml_hpe.detection.heads import HEADS_FORMAT, HEADS_INPUT, HEADS_OUTPUTS
from nlml_hpe.head_network.network import ANSWERS, MULTIPLE, STRIDE, HeadNetwork
from nlml_hpe.head_network.network import LOG_BOUNDS as CELL_LOG_BOUNDS
from nlml_hpe.head_network.proposals import (
    PROPOSAL_PX,
    PROPOSAL_SHARE,
    REFINEMENT_FORMAT,
    REFINEMENT_INPUT,
    REFINEMENT_OUTPUTS,
)
from nlml_hpe.head_network.refinement import LOG_BOUNDS, RefinementNetwork
from nlml_hpe.model.onnx_file import saying, write_onnx
from nlml_hpe.model.onnx_layers import network_outputs
from nlml_hpe.model.onnx_math import columns

_LEAST_HALVED = 1000
"""Weights of fewer numbers stay in single precision."""


def export_head_detector(network: HeadNetwork, path: Path) -> Path:
    """Write ``path`` (opset 18 at most: that of the newest of its nodes).

    Parameters
    ----------
    network : HeadNetwork
        On the CPU.
    path : Path
        The file to write.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_head_detector(HeadNetwork(width=8), Path(folder) / "heads.onnx").stat().st_size < 1_000_000
    True
    """
    images = argument(Tensor(np.uint8, ("images", "height", "width", 3)))
    outputs = network_outputs(network, _planes(images))
    logits, right, down, wide, high, *face = (columns(outputs, number, number + 1) for number in range(ANSWERS))
    largest, _ = op.max_pool(logits, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    scores = op.mul(op.sigmoid(logits), op.cast(op.equal(logits, largest), to=np.float32))
    half_wide, half_high = (_half(side, CELL_LOG_BOUNDS) for side in (wide, high))
    x, y = op.add(right, _middles(right, 3)), op.add(down, _middles(down, 2))
    face_x, face_y = (
        op.add(middle, op.mul(op.mul(way, half), op.const(np.float32(2))))
        for middle, way, half in ((x, face[0], half_wide), (y, face[1], half_high))
    )
    face_half = [
        op.mul(op.mul(_half(side, CELL_LOG_BOUNDS), half), op.const(np.float32(2)))
        for side, half in ((face[2], half_wide), (face[3], half_high))
    ]
    answers = (
        op.squeeze(scores, op.const([1])),
        _cell_boxes(x, y, half_wide, half_high),
        _cell_boxes(face_x, face_y, *face_half),
    )
    outputs_by_name = dict(zip(HEADS_OUTPUTS, answers, strict=True))
    about = {"format": HEADS_FORMAT, "stride": STRIDE, "multiple": MULTIPLE}
    return _written(build({HEADS_INPUT: images}, outputs_by_name), about, path)


def export_refinement(network: RefinementNetwork, path: Path) -> Path:
    """Write the second stage to ``path`` (opset 18 at most: that of the newest of its nodes).

    Parameters
    ----------
    network : RefinementNetwork
        On the CPU.
    path : Path
        The file to write.

    Returns
    -------
    Path
        ``path``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_refinement(RefinementNetwork(width=8), Path(folder) / "refinement.onnx").stat().st_size < 600_000
    True
    """
    images = argument(Tensor(np.uint8, ("images", PROPOSAL_PX, PROPOSAL_PX, 3)))
    outputs = network_outputs(network, _planes(images))
    logits, right, down, wide, high = (columns(outputs, number, number + 1) for number in range(5))
    half_wide, half_high = (_half(side, LOG_BOUNDS) for side in (wide, high))
    corners = [op.sub(right, half_wide), op.sub(down, half_high), op.add(right, half_wide), op.add(down, half_high)]
    within = op.div(op.concat(corners, axis=1), op.const(np.float32(PROPOSAL_SHARE)))
    answers = op.squeeze(op.sigmoid(logits), op.const([1])), op.add(within, op.const(np.float32(0.5)))
    about = {"format": REFINEMENT_FORMAT}
    return _written(build({REFINEMENT_INPUT: images}, dict(zip(REFINEMENT_OUTPUTS, answers, strict=True))), about, path)


def _planes(images: Var) -> Var:
    return op.cast(op.transpose(images, perm=[0, 3, 1, 2]), to=np.float32)


def _written(proto: onnx.ModelProto, about: dict[str, Any], path: Path) -> Path:
    """Write a network, checked, with what is to be known about it."""
    _halve(proto)
    return write_onnx(saying(proto, about), path)


def _cell_boxes(x: Var, y: Var, half_wide: Var, half_high: Var) -> Var:
    """Boxes (N, h, w, 4) in pixels, of their middles and halves of their sides (N, 1, h, w) in cells."""
    corners = [op.sub(x, half_wide), op.sub(y, half_high), op.add(x, half_wide), op.add(y, half_high)]
    return op.mul(op.transpose(op.concat(corners, axis=1), perm=[0, 2, 3, 1]), op.const(np.float32(STRIDE)))


def _half(side: Var, bounds: tuple[float, float]) -> Var:
    """Half a side of its logarithm."""
    low, high = (op.const(np.float32(bound)) for bound in bounds)
    return op.mul(op.exp(op.clip(side, low, high)), op.const(np.float32(0.5)))


def _middles(plane: Var, axis: int) -> Var:
    """Cells' middles along an axis of (N, 1, h, w), in cells."""
    count = op.squeeze(op.slice(op.shape(plane), op.const([axis]), op.const([axis + 1])), op.const([0]))
    places = op.add(op.cast(op.range(op.const(0), count, op.const(1)), to=np.float32), op.const(np.float32(0.5)))
    return op.unsqueeze(places, op.const([0, 1, 2] if axis == 3 else [0, 1, 3]))


def _halve(proto: onnx.ModelProto) -> None:
    """Store large weights in half precision, each with a cast before its use, which a runtime does once."""
    graph = proto.graph
    casts = []
    for node in graph.node:
        if node.op_type != "Constant":
            continue
        value = node.attribute[0].t
        array = numpy_helper.to_array(value) if node.attribute[0].HasField("t") else np.empty(0)
        if array.dtype == np.float32 and array.size >= _LEAST_HALVED:
            name = node.output[0]
            node.output[0] = f"{name}_half"
            value.CopyFrom(numpy_helper.from_array(array.astype(np.float16)))
            casts.append((name, onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)))
    for name, cast in casts:
        place = next(index for index, node in enumerate(graph.node) if node.output[0] == f"{name}_half")
        graph.node.insert(place + 1, cast)
