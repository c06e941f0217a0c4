"""One ONNX file from landmarks to pose: normalisation, network, exact step, head frame and error bars inside.

Inputs: ``landmarks`` (N, P, 3) float32 in pixels, image axes, and ``refine``, a boolean; without it the exact step
is left out. Outputs, all in the model's named head frame: ``network`` and ``refined`` (N, 3) float32, yaw, pitch,
roll in degrees; ``sigma`` (N, 3), the refined angles' standard deviations, and ``score`` (N,), see
``engines.Estimates``; both NaN where the network's answer stands. As in ``torch_engine``, answers are the means of
those for the face and its mirror image. The exact step is the descent of
``inverse.Solver`` from the network's answer, in float64, until no face moves. ONNX has no linear algebra, so the
small inverses are written out. What a reader of the file must know stands in its metadata, as JSON.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Tensor, Var, argument, build
from torch import nn

from nlml_hpe.detection.landmarks import mirror_of
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.inference.engines import FORMAT, METADATA, MIRRORED_SIGNS, OUTPUTS, REFINE_MARGIN_DEG
from nlml_hpe.manifold.inverse import GAUSS_NEWTON_ITERATIONS, MARGIN_DEG, MAX_ITERATIONS, STEP_TOLERANCE
from nlml_hpe.model.folder import HeadPoseModel
from nlml_hpe.rotation import CONVENTION, rotation_from_angles

OPSET = 18


def export_onnx(model: HeadPoseModel, path: Path) -> Path:
    """Write ``path`` (opset 18). Raises ``ValueError`` for a model without network or noise statistics."""
    if model.network is None or model.manifold.noise is None:
        raise ValueError("a model without a network or without noise statistics cannot be exported")
    landmarks, refine = argument(Tensor(np.float32, ("faces", model.point_set.n_points, 3))), argument(Tensor(bool, ()))
    outputs = dict(zip(OUTPUTS, _pose(model, landmarks, refine), strict=True))
    proto = build({"landmarks": landmarks, "refine": refine}, outputs)
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(metadata(model), sort_keys=True)})
    onnx.checker.check_model(proto)
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return path


def metadata(model: HeadPoseModel) -> dict[str, Any]:
    """What the file says of itself."""
    return {
        "format": FORMAT,
        "convention": CONVENTION,
        "point_set": model.point_set.name,
        "min_confidence": model.min_confidence,
        "frame": model.frame.name,
        "range": [[axis[0], axis[-1]] for axis in model.manifold.grid.axes],
    }


def _pose(model: HeadPoseModel, landmarks: Var, refine: Var) -> list[Var]:
    """The outputs, in order."""
    assert model.network is not None  # export_onnx has seen to it
    features = _features(model, op.cast(landmarks, to=np.float64))
    if model.is_symmetric:
        features = op.concat([features, _mirrored(model, features)], axis=0)
    network = op.cast(_network(model.network, op.cast(features, to=np.float32)), to=np.float64)
    unknown = op.mul(network, op.const(np.nan))
    refined, sigma, score = op.if_(
        refine,
        then_branch=lambda: _refined(model, features, network),
        else_branch=lambda: (op.identity(network), unknown, _shaped(_columns(unknown, 0, 1), (-1,))),
    )
    if model.is_symmetric:
        network, refined = _averaged(network, MIRRORED_SIGNS), _averaged(refined, MIRRORED_SIGNS)
        sigma, score = _averaged(sigma, (1.0,) * 3), _shaped(_averaged(_shaped(score, (-1, 1)), (1.0,)), (-1,))
    turn = rotation_from_angles(model.frame.rotation)
    found = (_in_frame(network, turn), _in_frame(refined, turn), sigma, score)
    return [op.cast(value, to=np.float32) for value in found]


def _refined(model: HeadPoseModel, features: Var, network: Var) -> tuple[Var, Var, Var]:
    """Refined angles (N, 3), their deviations (N, 3) and the score (N,), in the model's own frame."""
    descent = _Descent(model)
    low, high = (np.array([axis[end] for axis in model.manifold.grid.axes]) for end in (0, -1))
    # The basis was stored in single precision, so nothing is lost by storing it so again.
    basis = op.cast(op.const(descent.basis), to=np.float64)
    x = op.matmul(op.matmul(features, basis), op.const(descent.whiten))
    theta, hessian, misfit = descent.from_start(x, _scaled(network, np.radians(1.0)))
    inside = op.and_(
        op.greater_or_equal(network, op.const(low - REFINE_MARGIN_DEG)),
        op.less_or_equal(network, op.const(high + REFINE_MARGIN_DEG)),
    )
    near = op.equal(_reduced(op.reduce_min, op.cast(inside, to=np.int32), 1, keep=True), op.const(np.int32(1)))
    refined = op.where(near, _scaled(theta, np.degrees(1.0)), network)
    inverse = _inverse(hessian, 3)
    variance = op.concat([_entry(inverse, axis, axis) for axis in range(3)], axis=1)
    deviation = op.mul(op.sqrt(op.max([variance, op.const(0.0)])), op.const(descent.sigma_scale))
    sigma = op.where(near, deviation, op.const(np.nan))
    fit = op.div(op.const(1.0), op.add(op.const(1.0), _scaled(misfit, 1 / descent.size)))
    return refined, sigma, _shaped(op.where(near, fit, op.const(np.nan)), (-1,))


def _features(model: HeadPoseModel, points: Var) -> Var:
    """As ``landmarks.normalize_landmarks``, for points that have been checked."""
    nose, eyes = model.point_set.nose_tip, model.point_set.eye_corners
    if model.normalization == "nose_eye_corners":
        left, right = (_gathered(points, corner) for corner in eyes)
        centred = op.sub(points, _gathered(points, nose))
        scale = op.sqrt(_reduced(op.reduce_sum, _square(op.sub(left, right)), 2, keep=True))
    else:
        centred = op.sub(points, _reduced(op.reduce_mean, points, 1, keep=True))
        spread = _reduced(op.reduce_sum, _square(centred), 2, keep=True)
        scale = op.sqrt(_reduced(op.reduce_mean, spread, 1, keep=True))
    return _shaped(op.div(centred, scale), (0, -1))


def _mirrored(model: HeadPoseModel, features: Var) -> Var:
    """As ``landmarks.mirrored_features``."""
    points = _shaped(features, (0, model.point_set.n_points, 3))
    ordered = op.gather(points, op.const(mirror_of(model.point_set).astype(np.int64)), axis=1)
    return _shaped(op.mul(ordered, op.const(np.array([-1.0, 1.0, 1.0]))), (0, -1))


def _averaged(both: Var, signs: Sequence[float]) -> Var:
    """The mean of faces (2 N, C) and, in the second half, their mirror images, whose columns have these signs."""
    halves = _shaped(both, (2, -1, len(signs)))
    kept = op.mul(halves, op.const(np.array([[[1.0] * len(signs)], [list(signs)]])))
    return _reduced(op.reduce_mean, kept, 0, keep=False)


def _network(network: nn.Module, features: Var) -> Var:
    """``networks.HeadPoseNetwork`` on features (N, F) float32."""
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    rows = _layers(network.get_submodule("encoder.layers"), features)
    rows = op.add(op.mul(rows, op.const(weights["encoder.row_scale"])), op.const(weights["encoder.row_mean"]))
    angles, first = [], 0
    for axis in range(3):
        mean, scale = weights[f"heads.{axis}.row_mean"], weights[f"heads.{axis}.row_scale"]
        own = op.div(op.sub(_columns(rows, first, first + len(mean)), op.const(mean)), op.const(scale))
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


class _State(NamedTuple):
    """As ``inverse._State``: angles (N, 3), cost (N, 1), minus its gradient (N, 3, 1), and so on."""

    theta: Var
    cost: Var
    gradient: Var
    hessian: Var
    curvature: Var
    damping: Var
    misfit: Var


class _Descent:
    """Levenberg-Marquardt on the statistical cost; see ``inverse.Solver`` for the arithmetic."""

    def __init__(self, model: HeadPoseModel) -> None:
        manifold, noise = model.manifold, model.manifold.noise
        assert noise is not None  # export_onnx has seen to it
        self.rank, self.size = manifold.core.shape[0], manifold.core.shape[-1]
        self.whiten = noise.whitening.T
        self.basis = manifold.basis.T.astype(np.float32)
        self.core = np.moveaxis(manifold.core @ self.whiten, 0, -1).reshape(-1, self.size * self.rank)
        self.row_lengths = [len(cosines) for cosines in manifold.cosines]
        self.cosines = np.concatenate(manifold.cosines).T
        self.axis_of = np.eye(3)[np.repeat(np.arange(3), self.row_lengths)].T
        self.precision, self.mean = np.linalg.inv(manifold.prior.covariance), manifold.prior.mean
        low, high = (np.array([axis[end] for axis in manifold.grid.axes]) for end in (0, -1))
        self.low, self.high = np.radians(low - MARGIN_DEG), np.radians(high + MARGIN_DEG)
        self.sigma_scale = np.degrees(noise.sigma_scale)

    def from_start(self, x: Var, start: Var) -> tuple[Var, Var, Var]:
        """Angles (N, 3) rad, Hessian (N, 3, 3) and squared whitened misfit (N, 1) that the descent ends with."""
        rest = op.mul(_columns(x, 0, 1), op.const(0.0))
        state = self._state(x, self._bounded(start), op.add(rest, op.const(1e-4)))

        def step(iteration: Var, _: Var, *carried: Var) -> Sequence[Var]:
            old = _State(*carried)
            free = self._free(old)
            among = op.mul(op.mul(old.curvature, free), _turned(free))
            curvature = op.add(among, op.mul(op.const(np.eye(3)), op.sub(op.const(1.0), free)))
            damped = op.mul(op.mul(curvature, op.const(np.eye(3))), op.unsqueeze(old.damping, op.const([2])))
            move = op.matmul(_inverse(op.add(curvature, damped), 3), op.mul(old.gradient, free))
            theta = self._bounded(op.add(old.theta, _shaped(move, (0, 3))))
            trial = self._state(x, theta, op.max([_scaled(old.damping, 0.1), op.const(1e-12)]))
            late = op.greater_or_equal(iteration, op.const(np.int64(GAUSS_NEWTON_ITERATIONS)))
            trial = trial._replace(curvature=op.where(late, _bfgs(old, trial), trial.hessian))
            better = op.less_or_equal(trial.cost, old.cost)
            refused = old._replace(damping=op.min([_scaled(old.damping, 10.0), op.const(1e8)]))
            moved = op.reduce_max(op.abs(op.sub(theta, old.theta)), keepdims=0)
            new = [_chosen(better, a, b) for a, b in zip(trial, refused, strict=True)]
            return [op.greater(moved, op.const(STEP_TOLERANCE)), *new]

        final = _State(*op.loop(op.const(np.int64(MAX_ITERATIONS)), None, v_initial=list(state), body=step))
        return final.theta, final.hessian, final.misfit

    def _free(self, state: _State) -> Var:
        """One (N, 3, 1) for every angle but those that would leave their bound, as in ``inverse.Solver._step``."""
        theta, zero = op.unsqueeze(state.theta, op.const([2])), op.const(0.0)
        low, high = op.const(self.low[:, None]), op.const(self.high[:, None])
        below = op.and_(op.less_or_equal(theta, low), op.less(state.gradient, zero))
        above = op.and_(op.greater_or_equal(theta, high), op.greater(state.gradient, zero))
        return op.cast(op.not_(op.or_(below, above)), to=np.float64)

    def _bounded(self, theta: Var) -> Var:
        return op.min([op.max([theta, op.const(self.low)]), op.const(self.high)])

    def _state(self, x: Var, theta: Var, damping: Var) -> _State:
        design = self._design(theta)
        model = _shaped(_columns(design, 0, 1), (0, self.size, self.rank))
        turned = _turned(model)
        inverse = _inverse(op.add(op.matmul(turned, model), op.const(self.precision)), self.rank)
        pull = op.const((self.precision @ self.mean)[:, None])
        identity = op.matmul(inverse, op.add(op.matmul(turned, op.unsqueeze(x, op.const([2]))), pull))
        stacked = _shaped(design, (0, 4 * self.size, self.rank))
        fitted = _shaped(op.matmul(stacked, identity), (0, 4, self.size))
        residual = op.sub(x, _shaped(_columns(fitted, 0, 1), (0, self.size)))
        jacobian = _columns(fitted, 1, 4)
        deviation = op.sub(_shaped(identity, (0, self.rank)), op.const(self.mean))
        misfit = _reduced(op.reduce_sum, _square(residual), 1, keep=True)
        far = op.mul(op.matmul(deviation, op.const(self.precision)), deviation)
        cost = _scaled(op.add(misfit, _reduced(op.reduce_sum, far, 1, keep=True)), 0.5)
        cross = op.matmul(jacobian, model)
        taken = op.matmul(op.matmul(cross, inverse), _turned(cross))
        hessian = op.sub(op.matmul(jacobian, _turned(jacobian)), taken)
        gradient = op.matmul(jacobian, op.unsqueeze(residual, op.const([2])))
        return _State(theta, cost, gradient, hessian, hessian, damping, misfit)

    def _design(self, theta: Var) -> Var:
        """(N, 4, K * ri): the model matrix of the identity and its three derivatives."""
        a, b, c, d = (op.const(row) for row in self.cosines)
        phase = op.add(op.mul(op.matmul(theta, op.const(self.axis_of)), b), c)
        rows = op.add(op.mul(a, op.cos(phase)), d)
        slopes = op.neg(op.mul(op.mul(a, b), op.sin(phase)))
        ends = np.cumsum([0, *self.row_lengths]).tolist()
        stacks = []
        for axis, (first, last) in enumerate(itertools.pairwise(ends)):
            plain, slope = _columns(rows, first, last), _columns(slopes, first, last)
            four = [slope if place == axis + 1 else plain for place in range(4)]
            stacks.append(op.concat([op.unsqueeze(part, op.const([1])) for part in four], axis=1))
        yaw, pitch, roll = (
            op.unsqueeze(part, op.const([i for i in (2, 3, 4) if i != axis + 2])) for axis, part in enumerate(stacks)
        )
        cells = _shaped(op.mul(op.mul(yaw, pitch), roll), (0, 4, -1))
        return op.matmul(cells, op.const(self.core))


def _bfgs(old: _State, new: _State) -> Var:
    """``inverse._bfgs``: curvature (N, 3, 3) corrected by how the gradient changed over the step."""
    step, change = op.unsqueeze(op.sub(new.theta, old.theta), op.const([2])), op.sub(old.gradient, new.gradient)
    pushed = op.matmul(old.curvature, step)
    along, bend = op.matmul(_turned(step), change), op.matmul(_turned(step), pushed)
    gained = op.div(op.matmul(change, _turned(change)), along)
    lost = op.div(op.matmul(pushed, _turned(pushed)), bend)
    sound = op.and_(op.greater(along, _scaled(bend, 1e-3)), op.greater(bend, op.const(0.0)))
    return op.where(sound, op.sub(op.add(old.curvature, gained), lost), new.hessian)


def _inverse(matrices: Var, size: int) -> Var:
    """Inverses of positive definite matrices (N, size, size) by Gauss-Jordan elimination without pivots."""
    work = op.concat([matrices, op.add(op.mul(matrices, op.const(0.0)), op.const(np.eye(size)))], axis=2)
    for k in range(size):
        row = _columns(work, k, k + 1)
        pivot = op.div(row, _columns(row, k, k + 1, axis=2))
        keep = np.ones((size, 1))
        keep[k] = 0
        rest = op.sub(work, op.mul(_columns(work, k, k + 1, axis=2), pivot))
        work = op.add(op.mul(rest, op.const(keep)), op.mul(pivot, op.const(1 - keep)))
    return _columns(work, size, 2 * size, axis=2)


def _in_frame(degrees: Var, frame: NDArray[np.float64]) -> Var:
    """Angles (N, 3) in degrees of ``R(degrees) C``; the convention of ``rotations``, in what ONNX has."""
    radians = _scaled(degrees, -np.radians(1.0))
    cos, sin = op.cos(radians), op.sin(radians)
    (cy, cp, cr), (sy, sp, sr) = ([_columns(part, axis, axis + 1) for axis in range(3)] for part in (cos, sin))
    left, right = op.mul(sp, sy), op.mul(cp, sy)
    rows = [
        [op.mul(cy, cr), op.neg(op.mul(cy, sr)), sy],
        [op.add(op.mul(cp, sr), op.mul(left, cr)), op.sub(op.mul(cp, cr), op.mul(left, sr)), op.neg(op.mul(sp, cy))],
        [op.sub(op.mul(sp, sr), op.mul(right, cr)), op.add(op.mul(sp, cr), op.mul(right, sr)), op.mul(cp, cy)],
    ]
    (xx, xy, xz), (_, _, yz), (_, _, zz) = (
        [_columns(turned, column, column + 1) for column in range(3)]
        for turned in (op.matmul(op.concat(row, axis=1), op.const(frame)) for row in rows)
    )
    across = op.sqrt(op.add(_square(xx), _square(xy)))
    found = [_atan2(xz, across), _atan2(op.neg(yz), zz), _atan2(op.neg(xy), xx)]
    return _scaled(op.concat(found, axis=1), -np.degrees(1.0))


def _atan2(y: Var, x: Var) -> Var:
    """The angle of (x, y): by half the angle in float32, for which alone runtimes have ``Atan``, and then polished."""
    radius = op.sqrt(op.add(_square(x), _square(y)))
    ratio = op.div(y, op.max([op.add(radius, x), op.const(1e-30)]))
    rough = _scaled(op.cast(op.atan(op.cast(ratio, to=np.float32)), to=np.float64), 2.0)
    error = op.sub(op.mul(y, op.cos(rough)), op.mul(x, op.sin(rough)))
    return op.add(rough, op.div(error, op.max([radius, op.const(1e-30)])))


def _chosen(better: Var, new: Var, old: Var) -> Var:
    """``new`` for the faces (N, 1) that are better, whatever the number of axes behind."""
    rank = len(new.unwrap_tensor().shape or ())
    mask = op.unsqueeze(better, op.const(list(range(2, rank)))) if rank > 2 else better
    return op.where(mask, new, old)


def _turned(matrices: Var) -> Var:
    return op.transpose(matrices, perm=[0, 2, 1])


def _scaled(x: Var, factor: float) -> Var:
    return op.mul(x, op.const(np.float64(factor)))


def _square(x: Var) -> Var:
    return op.mul(x, x)


def _shaped(x: Var, shape: tuple[int, ...]) -> Var:
    return op.reshape(x, op.const(np.array(shape, dtype=np.int64)))


def _gathered(points: Var, index: int) -> Var:
    return op.gather(points, op.const(np.array([index], dtype=np.int64)), axis=1)


def _columns(x: Var, first: int, last: int, axis: int = 1) -> Var:
    return op.slice(x, op.const([first]), op.const([last]), op.const([axis]))


def _entry(matrices: Var, row: int, column: int) -> Var:
    return _shaped(_columns(_columns(matrices, row, row + 1), column, column + 1, axis=2), (0, 1))


def _reduced(reduce: Any, x: Var, axis: int, keep: bool) -> Var:
    return reduce(x, op.const([axis]), keepdims=int(keep))
