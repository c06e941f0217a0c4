"""One ONNX file from crops to pose: normalisation, image network, head frame and covariance inside.

Input: ``crops`` (N, 3, S, S) float32, RGB in 0..255, cut as ``image_networks.crop`` cuts them; what lies about the face
may be covered inside. Outputs, in the named
head frame: ``rotation`` (N, 3, 3) float32, head to camera; ``angles`` (N, 3), yaw, pitch, roll in degrees, read off
it; ``covariance`` (N, 3, 3), in square radians, of the error's rotation vector in the camera frame, NaN of a network
that gives none. The layers are computed in float32, what follows them in float64. What a reader of the file must
know stands in its metadata, as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
import torch
from spox import Tensor, Var, argument, build, inline
from torch import fx

from nlml_hpe.image_networks.binned import BinnedNetwork
from nlml_hpe.image_networks.crop import SHARE
from nlml_hpe.image_networks.losses import BIN_DEG, BINS, LOWEST_DEG
from nlml_hpe.image_networks.mobilenet import DEGREES, MobileNetV2
from nlml_hpe.image_networks.network import ImageNetwork
from nlml_hpe.image_networks.six_d import FIRST_SIGMA, LEAST_SIGMA, LOG_BOUNDS, SixD
from nlml_hpe.model.folder import HeadFrame
from nlml_hpe.model.format import IMAGE_INPUT, IMAGE_ONNX_FORMAT, IMAGE_OUTPUTS
from nlml_hpe.model.onnx_file import saying, write_onnx
from nlml_hpe.model.onnx_layers import network_outputs
from nlml_hpe.model.onnx_math import (
    columns,
    degrees_from_rotation,
    reduced,
    rotation_from_degrees,
    scaled,
    shaped,
    square,
    transposed,
)
from nlml_hpe.rotation import CONVENTION

Interval = tuple[float, float]


@dataclass(frozen=True)
class ImageEye:
    """An image network and what its user must know.

    Attributes
    ----------
    network : ImageNetwork
        On the CPU.
    name : str
        As ``image_networks.registry`` has it.
    frame : HeadFrame
        The head frame of the answers, beside that of the training data's labels.
    range : three intervals
        Lowest and highest yaw, pitch and roll of the training data, in degrees, in their own frame.
    """

    network: ImageNetwork
    name: str
    frame: HeadFrame
    range: tuple[Interval, Interval, Interval]

    def settings(self) -> dict[str, Any]:
        """What a reader must know, as JSON: network, pixels on a side, share of the crop, what of it is covered, head
        frame and range."""
        return {
            "network": self.name,
            "size": self.network.size,
            "share": SHARE,
            "covered": list(self.network.covered),
            "frame": self.frame.name,
            "named_from_own": self.frame.named_from_own.tolist(),
            "range": [list(interval) for interval in self.range],
        }


def export_image_eye(eye: ImageEye, path: Path, outputs: onnx.ModelProto | None = None) -> Path:
    """Write ``path`` (opset 18 at most: that of the newest of its nodes).

    Parameters
    ----------
    eye : ImageEye
        The network, and what its user must know.
    path : Path
        The file to write.
    outputs : ModelProto, optional
        The network's own outputs in eight bits, as ``outputs_graph`` has them, in place of its layers.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        For a network with a layer or an answer that has no translation.

    Examples
    --------
    >>> import tempfile
    >>> from nlml_hpe.image_networks.registry import build as build_network
    >>> eye = ImageEye(build_network("six_d", 64, width=8), "six_d", HeadFrame(), ((-100, 100), (-90, 90), (-90, 90)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_image_eye(eye, Path(folder) / "image_eye.onnx").stat().st_size < 1_000_000
    True
    """
    size = eye.network.size
    crops = argument(Tensor(np.float32, ("faces", 3, size, size)))
    shown = _shown(crops, eye.network)
    if outputs is None:
        values, precision = network_outputs(eye.network, shown), "float32"
    else:
        (values,), precision = inline(outputs)(shown).values(), "int8"
    about = {"format": IMAGE_ONNX_FORMAT, "convention": CONVENTION, "precision": precision, **eye.settings()}
    return write_onnx(saying(_pose_graph(eye, crops, values), about), path)


def outputs_graph(graph: fx.GraphModule, size: int) -> onnx.ModelProto:
    """The own outputs of a network of crops of ``size`` px that ``image_networks.quantize`` has converted.

    Raises ``ValueError`` for an operation that has no translation.
    """
    crops = argument(Tensor(np.float32, ("faces", 3, size, size)))
    return build({IMAGE_INPUT: crops}, {"outputs": network_outputs(graph, crops)})


def _shown(crops: Var, network: ImageNetwork) -> Var:
    """The crops with their covered borders grey, as ``ImageNetwork.shown``."""
    if not any(network.covered):
        return crops
    hidden = network.shown(torch.zeros(1, 1, network.size, network.size)).numpy()
    return op.add(op.mul(crops, op.const((hidden == 0).astype(np.float32))), op.const(hidden))


def _pose_graph(eye: ImageEye, crops: Var, outputs: Var) -> onnx.ModelProto:
    """The whole graph, from ``crops`` over the network's own ``outputs`` (N, ...) to the pose."""
    rotation, covariance = _posterior(eye.network, op.cast(outputs, to=np.float64))
    rotation = op.matmul(rotation, op.const(eye.frame.named_from_own))
    answers = (rotation, degrees_from_rotation(rotation), covariance)
    return build(
        {IMAGE_INPUT: crops},
        {name: op.cast(value, to=np.float32) for name, value in zip(IMAGE_OUTPUTS, answers, strict=True)},
    )


def _posterior(network: ImageNetwork, outputs: Var) -> tuple[Var, Var]:
    """Rotation and covariance (N, 3, 3); as each network's own ``posterior``."""
    if isinstance(network, SixD):
        factor = _triangle(columns(outputs, 6, 12))
        return _gram_schmidt(columns(outputs, 0, 6)), op.matmul(factor, transposed(factor))
    if isinstance(network, MobileNetV2):
        angles = network.answer == "angles"
        rotation = rotation_from_degrees(scaled(outputs, DEGREES)) if angles else _gram_schmidt(outputs)
    elif isinstance(network, BinnedNetwork):
        rotation = rotation_from_degrees(_expected_angles(outputs))
    else:
        raise ValueError(f"{type(network).__name__} has no answer that is written to ONNX")
    return rotation, op.mul(rotation, op.const(np.nan))


def _gram_schmidt(six: Var) -> Var:
    """Rotations (N, 3, 3) whose first two columns come from the rows of six numbers (N, 6), two in each."""
    matrices = shaped(six, (-1, 3, 2))
    first, second = (columns(matrices, axis, axis + 1, axis=2) for axis in range(2))
    x = _unit(first)
    along = reduced(op.reduce_sum, op.mul(x, second), 1, keep=True)
    y = _unit(op.sub(second, op.mul(along, x)))
    return op.concat([x, y, _cross(x, y)], axis=2)


def _unit(vectors: Var) -> Var:
    """Columns (N, 3, 1) of length one."""
    length = op.sqrt(reduced(op.reduce_sum, square(vectors), 1, keep=True))
    return op.div(vectors, op.max([length, op.const(1e-12)]))


def _cross(x: Var, y: Var) -> Var:
    """Cross products of columns (N, 3, 1)."""
    following, preceding = op.const([1, 2, 0]), op.const([2, 0, 1])
    left = op.mul(op.gather(x, following, axis=1), op.gather(y, preceding, axis=1))
    return op.sub(left, op.mul(op.gather(x, preceding, axis=1), op.gather(y, following, axis=1)))


def _triangle(values: Var) -> Var:
    """``six_d``'s lower triangles (N, 3, 3) of six numbers (N, 6)."""
    low, high = (op.const(np.float64(bound)) for bound in LOG_BOUNDS)
    spread = scaled(op.exp(op.clip(columns(values, 0, 3), low, high)), FIRST_SIGMA)
    diagonal = op.add(spread, op.const(np.float64(LEAST_SIGMA)))
    below = op.mul(columns(values, 3, 6), op.gather(diagonal, op.const([1, 2, 2]), axis=1))
    nine = op.concat([diagonal, below, scaled(columns(values, 0, 1), 0.0)], axis=1)
    # Diagonal 0..2, then rows one and two below it, then nought.
    order = op.const([0, 6, 6, 3, 1, 6, 4, 5, 2])
    return shaped(op.gather(nine, order, axis=1), (-1, 3, 3))


def _expected_angles(logits: Var) -> Var:
    """``losses.expected_angles`` of logits (N, 3, 66)."""
    degrees = np.arange(BINS, dtype=np.float64) * BIN_DEG + LOWEST_DEG
    return reduced(op.reduce_sum, op.mul(op.softmax(logits, axis=2), op.const(degrees)), 2, keep=False)
