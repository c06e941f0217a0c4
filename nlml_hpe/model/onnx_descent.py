"""The exact step as a part of an ONNX graph: the descent of ``manifold.inverse.Solver`` from the network's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Var

from nlml_hpe.manifold.inverse import GAUSS_NEWTON_ITERATIONS, MARGIN_DEG, MAX_ITERATIONS, STEP_TOLERANCE
from nlml_hpe.model.folder import HeadPoseModel
from nlml_hpe.model.format import REFINE_MARGIN_DEG
from nlml_hpe.model.onnx_math import (
    QUARTER_TURN,
    as_column,
    as_row,
    columns,
    inverse,
    part,
    picked,
    reduced,
    scaled,
    shaped,
    transposed,
)


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
        score (N,) of ``manifold.Inference``. Far beyond the range of training the network's angles stand, and the
        others are NaN.
    """
    descent = _Descent(model)
    low, high = (np.array([axis[end] for axis in model.manifold.grid.axes]) for end in (0, -1))
    # The basis was stored in single precision, so nothing is lost by storing it so again.
    basis = op.cast(op.const(model.manifold.basis.astype(np.float32)), to=np.float64)
    # A runtime finds this product once. On the left it is read as it lies; on the right it would be copied each time.
    whitened = op.matmul(op.const(descent.whiten.T), basis)
    x = op.matmul(whitened, shaped(op.transpose(features, perm=[1, 0]), (0, 0)))  # why: ``onnx_math.transposed``
    theta, hessian, misfit = descent.from_start(op.transpose(x, perm=[1, 0]), scaled(network, np.radians(1.0)))
    inside = op.and_(
        op.greater_or_equal(network, op.const(low - REFINE_MARGIN_DEG)),
        op.less_or_equal(network, op.const(high + REFINE_MARGIN_DEG)),
    )
    near = op.equal(reduced(op.reduce_min, op.cast(inside, to=np.int32), 1, keep=True), op.const(np.int32(1)))
    angles = op.where(near, scaled(shaped(theta, (0, 3)), np.degrees(1.0)), network)
    variance = picked(shaped(inverse(descent.determined(hessian), 3), (0, 9)), [0, 4, 8])
    deviation = op.mul(op.sqrt(op.max([variance, op.const(0.0)])), op.const(descent.sigma_scale))
    sigma = op.where(near, deviation, op.const(np.nan))
    fit = op.div(op.const(1.0), op.add(op.const(1.0), scaled(shaped(misfit, (0, 1)), 1 / descent.size)))
    return angles, sigma, shaped(op.where(near, fit, op.const(np.nan)), (-1,))


_FLOOR = 1e-6
"""Curvature, which is nought otherwise, of an angle of which the grid has one."""


class _State(NamedTuple):
    """As ``inverse._State``: angles (N, 1, 3), twice the cost (N, 1, 1), minus its gradient (N, 1, 3), and so on.

    Vectors are rows, and all have three axes, so that they meet without being reshaped: a runtime spends its time on
    the number of operations here, not on the arithmetic.
    """

    theta: Var
    cost: Var
    gradient: Var
    hessian: Var
    curvature: Var
    misfit: Var


class _Face(NamedTuple):
    """What is looked for: the whitened features as a column (N, K, 1) and as the first of four rows (N, 4, K)."""

    column: Var
    rows: Var


class _Descent:
    """Levenberg-Marquardt on the statistical cost; see ``inverse.Solver`` for the arithmetic."""

    def __init__(self, model: HeadPoseModel) -> None:
        manifold, noise = model.manifold, model.manifold.noise
        assert noise is not None  # export_onnx has seen to it
        self.rank, self.size = manifold.core.shape[0], manifold.core.shape[-1]
        self.whiten = noise.whitening.T
        self.core = np.moveaxis(manifold.core @ self.whiten, 0, -1).reshape(-1, self.size * self.rank)
        row_lengths = [len(cosines) for cosines in manifold.cosines]
        factor, frequency, phase, offset = np.concatenate(manifold.cosines).T
        turning = frequency * np.eye(3)[np.repeat(np.arange(3), row_lengths)].T
        # Rows of the factors and then their slopes, both as sines.
        self.turning, self.phase = np.tile(turning, 2), np.concatenate([phase + QUARTER_TURN, phase + np.pi])
        self.height, self.offset = np.concatenate([factor, factor * frequency]), np.concatenate([offset, 0 * offset])
        self.cells = _cells(row_lengths)
        self.precision, self.mean = np.linalg.inv(manifold.prior.covariance), manifold.prior.mean[:, None]
        low, high = (np.array([axis[end] for axis in manifold.grid.axes]) for end in (0, -1))
        self.low, self.high = np.radians(low - MARGIN_DEG), np.radians(high + MARGIN_DEG)
        self.sigma_scale = np.degrees(noise.sigma_scale)
        self.floor = np.diag([_FLOOR if len(axis) == 1 else 0.0 for axis in manifold.grid.axes])

    def from_start(self, x: Var, start: Var) -> tuple[Var, Var, Var]:
        """Angles (N, 1, 3) rad, Hessian (N, 3, 3) and squared whitened misfit (N, 1, 1) that the descent ends with."""
        column = op.unsqueeze(x, op.const([2]))
        face = _Face(column, op.mul(as_row(column), op.const(np.eye(4)[:, :1])))
        damping = op.add(scaled(columns(column, 0, 1), 0.0), op.const(1e-4))
        state = self._state(face, self._bounded(op.unsqueeze(start, op.const([1]))))

        def step(iteration: Var, _: Var, damping: Var, *carried: Var) -> Sequence[Var]:
            """One damped step, taken where it lowers the cost; the loop's condition first, then damping and state."""
            old = _State(*carried)
            theta = self._bounded(op.add(old.theta, self._move(old, damping)))
            trial = self._state(face, theta)
            late = op.greater_or_equal(iteration, op.const(np.int64(GAUSS_NEWTON_ITERATIONS)))
            trial = trial._replace(curvature=_bfgs(old, trial, late))
            better = op.less_or_equal(trial.cost, old.cost)
            damping = op.mul(damping, op.where(better, op.const(0.1), op.const(10.0)))
            moved = op.reduce_max(op.abs(op.sub(theta, old.theta)), keepdims=0)
            new = [op.where(better, a, b) for a, b in zip(trial, old, strict=True)]
            bounded = op.clip(damping, op.const(1e-12), op.const(1e8))
            return [op.greater(moved, op.const(STEP_TOLERANCE)), bounded, *new]

        most = op.const(np.int64(MAX_ITERATIONS))
        final = _State(*op.loop(most, None, v_initial=[damping, *state], body=step)[1:])
        return final.theta, final.hessian, final.misfit

    def _move(self, state: _State, damping: Var) -> Var:
        """The damped step (N, 1, 3); an angle that would leave its bound stays, as in ``inverse.Solver._step``."""
        outward = op.less(state.gradient, op.const(0.0))
        room = op.where(outward, op.sub(state.theta, op.const(self.low)), op.sub(op.const(self.high), state.theta))
        free = op.greater(room, op.const(0.0))
        among = op.where(op.and_(free, as_column(free)), state.curvature, op.const(np.eye(3)))
        damped = op.mul(self.determined(among), op.add(op.mul(damping, op.const(np.eye(3))), op.const(1.0)))
        return op.matmul(op.where(free, state.gradient, op.const(0.0)), inverse(damped, 3))

    def determined(self, curvature: Var) -> Var:
        """Curvatures (N, 3, 3) that have an inverse: an angle of which the grid has one stays where it is."""
        return op.add(curvature, op.const(self.floor)) if self.floor.any() else curvature

    def _bounded(self, theta: Var) -> Var:
        return op.min([op.max([theta, op.const(self.low)]), op.const(self.high)])

    def _state(self, face: _Face, theta: Var) -> _State:
        stacked = shaped(self._design(theta), (0, 4 * self.size, self.rank))
        model = columns(stacked, 0, self.size)
        across = transposed(model)
        solved = inverse(op.add(op.matmul(across, model), op.const(self.precision)), self.rank)
        pull = op.const(self.precision @ self.mean)
        identity = op.matmul(solved, op.add(op.matmul(across, face.column), pull))
        fitted = shaped(op.matmul(stacked, identity), (0, 4, self.size))
        # The residual, and below it the Jacobian: their products are the misfit, the gradient and most of the Hessian.
        rows = op.add(face.rows, op.mul(fitted, op.const(np.array([[-1.0], [1.0], [1.0], [1.0]]))))
        below = transposed(rows)
        products, cross = op.matmul(rows, below), op.matmul(rows, model)
        taken = op.matmul(op.matmul(cross, solved), op.matmul(across, below))
        hessian = part(op.sub(products, taken), (1, 4), (1, 4))
        misfit, gradient = part(products, (0, 1), (0, 1)), part(products, (0, 1), (1, 4))
        deviation = op.sub(identity, op.const(self.mean))
        far = op.matmul(as_row(deviation), op.matmul(op.const(self.precision), deviation))
        return _State(theta, op.add(misfit, far), gradient, hessian, hessian, misfit)

    def _design(self, theta: Var) -> Var:
        """(N, 1, 4, K * ri): the model matrix of the identity and its three derivatives."""
        phase = op.add(op.matmul(theta, op.const(self.turning)), op.const(self.phase))
        both = op.add(op.mul(op.sin(phase), op.const(self.height)), op.const(self.offset))
        yaw, pitch, roll = (picked(both, cells, axis=2) for cells in self.cells)
        return op.matmul(op.mul(op.mul(yaw, pitch), roll), op.const(self.core))


def _cells(row_lengths: Sequence[int]) -> NDArray[np.int64]:
    """Which entries of rows and then of slopes, of all three axes, are multiplied: (axis, 4, cells).

    The four are the model itself and its derivatives by each of the angles.
    """
    count, first = sum(row_lengths), np.cumsum([0, *row_lengths[:-1]])
    entries = np.stack(np.meshgrid(*map(np.arange, row_lengths), indexing="ij")).reshape(3, 1, -1)
    slope = np.arange(4) == np.arange(1, 4)[:, None]
    return np.asarray(entries + first[:, None, None] + count * slope[..., None], dtype=np.int64)


def _bfgs(old: _State, new: _State, late: Var) -> Var:
    """``inverse._bfgs``, once it is ``late``: curvature (N, 3, 3) corrected by how the gradient changed."""
    step, change = op.sub(new.theta, old.theta), op.sub(old.gradient, new.gradient)
    both = op.concat([change, op.matmul(step, old.curvature)], axis=1)
    lengths = op.matmul(both, as_column(step))
    along, bend = columns(lengths, 0, 1), columns(lengths, 1, 2)
    update = op.matmul(transposed(both), op.mul(op.div(both, lengths), op.const(np.array([[1.0], [-1.0]]))))
    sound = op.and_(op.greater(along, scaled(bend, 1e-3)), op.greater(bend, op.const(0.0)))
    return op.where(op.and_(sound, late), op.add(old.curvature, update), new.hessian)
