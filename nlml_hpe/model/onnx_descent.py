"""The exact step as a part of an ONNX graph: the descent of ``manifold.inverse.Solver`` from the network's answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from nlml_hpe.manifold.inverse import GAUSS_NEWTON_ITERATIONS, MARGIN_DEG, MAX_ITERATIONS, STEP_TOLERANCE
from nlml_hpe.model.folder import HeadPoseModel
from nlml_hpe.model.format import REFINE_MARGIN_DEG
from nlml_hpe.model.onnx_math import columns, entry, inverse, reduced, scaled, shaped, square, transposed


def refined(model: HeadPoseModel, features: Var, network: Var) -> tuple[Var, Var, Var]:
    """The exact inverse within a graph, started from the network's answer.

    Parameters
    ----------
    model : HeadPoseModel
        Its manifold becomes constants of the graph.
    features : Var (N, F)
        Float64.
    network : Var (N, 3)
        The network's angles in degrees.

    Returns
    -------
    tuple of three Var
        Refined angles (N, 3) and their standard deviations (N, 3) in degrees, in the model's own frame, and the
        score (N,). Far beyond the range of training the network's angles stand, and the others are NaN.
    """
    descent = _Descent(model)
    low, high = (np.array([axis[end] for axis in model.manifold.grid.axes]) for end in (0, -1))
    # The basis was stored in single precision, so nothing is lost by storing it so again.
    basis = op.cast(op.const(descent.basis), to=np.float64)
    x = op.matmul(op.matmul(features, basis), op.const(descent.whiten))
    theta, hessian, misfit = descent.from_start(x, scaled(network, np.radians(1.0)))
    inside = op.and_(
        op.greater_or_equal(network, op.const(low - REFINE_MARGIN_DEG)),
        op.less_or_equal(network, op.const(high + REFINE_MARGIN_DEG)),
    )
    near = op.equal(reduced(op.reduce_min, op.cast(inside, to=np.int32), 1, keep=True), op.const(np.int32(1)))
    angles = op.where(near, scaled(theta, np.degrees(1.0)), network)
    covariance = inverse(hessian, 3)
    variance = op.concat([entry(covariance, axis, axis) for axis in range(3)], axis=1)
    deviation = op.mul(op.sqrt(op.max([variance, op.const(0.0)])), op.const(descent.sigma_scale))
    sigma = op.where(near, deviation, op.const(np.nan))
    fit = op.div(op.const(1.0), op.add(op.const(1.0), scaled(misfit, 1 / descent.size)))
    return angles, sigma, shaped(op.where(near, fit, op.const(np.nan)), (-1,))


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
        rest = op.mul(columns(x, 0, 1), op.const(0.0))
        state = self._state(x, self._bounded(start), op.add(rest, op.const(1e-4)))

        def step(iteration: Var, _: Var, *carried: Var) -> Sequence[Var]:
            """One damped step, taken where it lowers the cost; the loop's condition first, then its state."""
            old = _State(*carried)
            free = self._free(old)
            among = op.mul(op.mul(old.curvature, free), transposed(free))
            curvature = op.add(among, op.mul(op.const(np.eye(3)), op.sub(op.const(1.0), free)))
            damped = op.mul(op.mul(curvature, op.const(np.eye(3))), op.unsqueeze(old.damping, op.const([2])))
            move = op.matmul(inverse(op.add(curvature, damped), 3), op.mul(old.gradient, free))
            theta = self._bounded(op.add(old.theta, shaped(move, (0, 3))))
            trial = self._state(x, theta, op.max([scaled(old.damping, 0.1), op.const(1e-12)]))
            late = op.greater_or_equal(iteration, op.const(np.int64(GAUSS_NEWTON_ITERATIONS)))
            trial = trial._replace(curvature=op.where(late, _bfgs(old, trial), trial.hessian))
            better = op.less_or_equal(trial.cost, old.cost)
            refused = old._replace(damping=op.min([scaled(old.damping, 10.0), op.const(1e8)]))
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
        model = shaped(columns(design, 0, 1), (0, self.size, self.rank))
        across = transposed(model)
        solved = inverse(op.add(op.matmul(across, model), op.const(self.precision)), self.rank)
        pull = op.const((self.precision @ self.mean)[:, None])
        identity = op.matmul(solved, op.add(op.matmul(across, op.unsqueeze(x, op.const([2]))), pull))
        stacked = shaped(design, (0, 4 * self.size, self.rank))
        fitted = shaped(op.matmul(stacked, identity), (0, 4, self.size))
        residual = op.sub(x, shaped(columns(fitted, 0, 1), (0, self.size)))
        jacobian = columns(fitted, 1, 4)
        deviation = op.sub(shaped(identity, (0, self.rank)), op.const(self.mean))
        misfit = reduced(op.reduce_sum, square(residual), 1, keep=True)
        far = op.mul(op.matmul(deviation, op.const(self.precision)), deviation)
        cost = scaled(op.add(misfit, reduced(op.reduce_sum, far, 1, keep=True)), 0.5)
        cross = op.matmul(jacobian, model)
        taken = op.matmul(op.matmul(cross, solved), transposed(cross))
        hessian = op.sub(op.matmul(jacobian, transposed(jacobian)), taken)
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
            plain, slope = columns(rows, first, last), columns(slopes, first, last)
            four = [slope if place == axis + 1 else plain for place in range(4)]
            stacks.append(op.concat([op.unsqueeze(part, op.const([1])) for part in four], axis=1))
        yaw, pitch, roll = (
            op.unsqueeze(part, op.const([i for i in (2, 3, 4) if i != axis + 2])) for axis, part in enumerate(stacks)
        )
        cells = shaped(op.mul(op.mul(yaw, pitch), roll), (0, 4, -1))
        return op.matmul(cells, op.const(self.core))


def _bfgs(old: _State, new: _State) -> Var:
    """``inverse._bfgs``: curvature (N, 3, 3) corrected by how the gradient changed over the step."""
    step, change = op.unsqueeze(op.sub(new.theta, old.theta), op.const([2])), op.sub(old.gradient, new.gradient)
    pushed = op.matmul(old.curvature, step)
    along, bend = op.matmul(transposed(step), change), op.matmul(transposed(step), pushed)
    gained = op.div(op.matmul(change, transposed(change)), along)
    lost = op.div(op.matmul(pushed, transposed(pushed)), bend)
    sound = op.and_(op.greater(along, scaled(bend, 1e-3)), op.greater(bend, op.const(0.0)))
    return op.where(sound, op.sub(op.add(old.curvature, gained), lost), new.hessian)


def _chosen(better: Var, new: Var, old: Var) -> Var:
    """``new`` for the faces (N, 1) that are better, whatever the number of axes behind."""
    rank = len(new.unwrap_tensor().shape or ())
    mask = op.unsqueeze(better, op.const(list(range(2, rank)))) if rank > 2 else better
    return op.where(mask, new, old)
