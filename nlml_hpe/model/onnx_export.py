"""One ONNX file from landmarks to pose: normalisation, network, exact step, head frame and error bars inside.

Inputs: ``landmarks`` (N, P, 3) float32 in pixels, image axes, and ``refine``, a boolean; without it the exact step
is left out. Outputs, all in the model's named head frame: ``network`` and ``refined`` (N, 3) float32, yaw, pitch,
roll in degrees; ``sigma`` (N, 3), the refined angles' standard deviations, and ``score`` (N,), which is that of
``manifold.Inference`` and not ``HeadPose.score``; both NaN where the network's answer stands. As in ``torch_engine``,
answers are the means of those for the face and its mirror image. The exact step is the descent of
``inverse.Solver`` from the network's answer, in float64, until no face moves. ONNX has no linear algebra, so the
small inverses are written out. What a reader of the file must know stands in its metadata, as JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Tensor, Var, argument, build
from torch import nn

from nlml_hpe.detection.landmarks import mirror_of
from nlml_hpe.model.folder import HeadPoseModel
from nlml_hpe.model.format import ONNX_FORMAT, OUTPUTS
from nlml_hpe.model.onnx_descent import refined
from nlml_hpe.model.onnx_file import saying, write_onnx
from nlml_hpe.model.onnx_math import (
    columns,
    degrees_from_rotation,
    mean_with_mirror,
    picked,
    reduced,
    rotation_from_degrees,
    shaped,
    square,
)
from nlml_hpe.rotation import CONVENTION

OPSET = 18


def export_onnx(model: HeadPoseModel, path: Path) -> Path:
    """Write the ONNX file (opset 18) of a model.

    Parameters
    ----------
    model : HeadPoseModel
        With network and noise statistics.
    path : Path
        The file; one that is there is replaced.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        For a model without network or noise statistics.
    OSError
        Where the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import onnx
    >>> from nlml_hpe.model.folder import load_model
    >>> from nlml_hpe.model.format import SHIPPED
    >>> with TemporaryDirectory() as folder:
    ...     path = export_onnx(load_model(SHIPPED), Path(folder) / "pose.onnx")
    ...     [output.name for output in onnx.load(path).graph.output]
    ['network', 'refined', 'sigma', 'score']
    """
    require_exportable(model)
    landmarks, refine = argument(Tensor(np.float32, ("faces", model.point_set.n_points, 3))), argument(Tensor(bool, ()))
    outputs = dict(zip(OUTPUTS, pose(model, landmarks, refine), strict=True))
    proto = build({"landmarks": landmarks, "refine": refine}, outputs)
    return write_onnx(saying(proto, metadata(model)), path)


def metadata(model: HeadPoseModel) -> dict[str, Any]:
    """What the file says of itself."""
    return {
        "format": ONNX_FORMAT,
        "convention": CONVENTION,
        "point_set": model.point_set.name,
        "min_confidence": model.min_confidence,
        "frame": model.frame.name,
        "named_from_own": model.frame.named_from_own.tolist(),
        "range": [[axis[0], axis[-1]] for axis in model.manifold.grid.axes],
    }


def require_exportable(model: HeadPoseModel) -> None:
    """Raise ``ValueError`` for a model without network or noise statistics."""
    if model.network is None or model.manifold.noise is None:
        raise ValueError("a model without a network or without noise statistics cannot be exported")


def pose(model: HeadPoseModel, landmarks: Var, refine: Var) -> list[Var]:
    """From landmarks to the pose within a graph.

    Parameters
    ----------
    model : HeadPoseModel
        One that ``require_exportable`` lets pass.
    landmarks : Var (N, P, 3)
        In pixels and image axes.
    refine : Var ()
        Whether the exact step is added, bool.

    Returns
    -------
    list of Var
        The outputs in order, float32: the network's angles (N, 3) and the answer's (N, 3), in degrees and in the
        named head frame, the standard deviations (N, 3) of the answer's in the own one, and the score (N,).
    """
    assert model.network is not None  # require_exportable has seen to it
    features = _features(model, op.cast(landmarks, to=np.float64))
    if model.is_symmetric:
        features = op.concat([features, _mirrored(model, features)], axis=0)
    network = op.cast(_network(model.network, op.cast(features, to=np.float32)), to=np.float64)
    named = _in_named_frame(model, network)
    unknown = op.mul(named, op.const(np.nan))
    # Each branch ends in the named frame, so that the network alone is turned into it once.
    answer, sigma, score = op.if_(
        refine,
        then_branch=lambda: _refined(model, features, network),
        else_branch=lambda: (op.identity(named), unknown, shaped(columns(unknown, 0, 1), (-1,))),
    )
    return [op.cast(value, to=np.float32) for value in (named, answer, sigma, score)]


def _refined(model: HeadPoseModel, features: Var, network: Var) -> tuple[Var, Var, Var]:
    """The exact step's angles (N, 3) in the named frame, their deviations (N, 3) and the score (N,)."""
    exact, sigma, score = refined(model, features, network)
    if model.is_symmetric:
        sigma, score = _averaged(sigma, 3), shaped(_averaged(shaped(score, (-1, 1)), 1), (-1,))
    return _in_named_frame(model, exact), sigma, score


def _in_named_frame(model: HeadPoseModel, degrees: Var) -> Var:
    """One answer (N, 3) in degrees a face, in the named head frame, of answers in the own one."""
    rotation = rotation_from_degrees(degrees)
    if model.is_symmetric:
        rotation = mean_with_mirror(rotation)
    return degrees_from_rotation(op.matmul(rotation, op.const(model.frame.named_from_own)))


def _features(model: HeadPoseModel, points: Var) -> Var:
    """As ``landmarks.normalize_landmarks``, for points that have been checked."""
    nose, eyes = model.point_set.nose_tip, model.point_set.eye_corners
    if model.normalization == "nose_eye_corners":
        left, right = (picked(points, [corner]) for corner in eyes)
        centred = op.sub(points, picked(points, [nose]))
        scale = op.sqrt(reduced(op.reduce_sum, square(op.sub(left, right)), 2, keep=True))
    else:
        centred = op.sub(points, reduced(op.reduce_mean, points, 1, keep=True))
        spread = reduced(op.reduce_sum, square(centred), 2, keep=True)
        scale = op.sqrt(reduced(op.reduce_mean, spread, 1, keep=True))
    return shaped(op.div(centred, scale), (0, -1))


def _mirrored(model: HeadPoseModel, features: Var) -> Var:
    """As ``landmarks.mirrored_features``."""
    points = shaped(features, (0, model.point_set.n_points, 3))
    ordered = picked(points, mirror_of(model.point_set))
    return shaped(op.mul(ordered, op.const(np.array([-1.0, 1.0, 1.0]))), (0, -1))


def _averaged(both: Var, width: int) -> Var:
    """The means (N, C) of the halves of (2 N, C)."""
    return reduced(op.reduce_mean, shaped(both, (2, -1, width)), 0, keep=False)


def _network(network: nn.Module, features: Var) -> Var:
    """``networks.HeadPoseNetwork`` on features (N, F) float32."""
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    rows = _layers(network.get_submodule("encoder.layers"), features)
    rows = op.add(op.mul(rows, op.const(weights["encoder.row_scale"])), op.const(weights["encoder.row_mean"]))
    angles, first = [], 0
    for axis in range(3):
        mean, scale = weights[f"heads.{axis}.row_mean"], weights[f"heads.{axis}.row_scale"]
        own = op.div(op.sub(columns(rows, first, first + len(mean)), op.const(mean)), op.const(scale))
        answer = _layers(network.get_submodule(f"heads.{axis}.layers"), own)
        angles.append(op.mul(answer, op.const(weights[f"heads.{axis}.angle_scale"])))
        first += len(mean)
    return op.concat(angles, axis=1)


def _layers(layers: nn.Module, x: Var) -> Var:
    for layer in layers.children():
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            x = op.gemm(x, op.const(weight), op.const(bias), transB=1)
        else:
            x = op.tanh(x) if isinstance(layer, nn.Tanh) else op.relu(x)
    return x
