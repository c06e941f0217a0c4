"""The exact inverse of the pose manifold: variable projection and Levenberg-Marquardt, batched over faces.

A face is modelled as ``x = W(u, f_yaw, f_pitch, f_roll) + e``: W the core, u the identity, f the
factor rows as cosines of the angles. Given x, the angles minimise the squared error over u and the
angles. It is linear in u, so u is eliminated (variable projection, Golub & Pereyra 1973; Kaufman
1975) and Levenberg-Marquardt runs over three angles, batched over faces, from the best seeds of a
coarse grid. A Gaussian prior on u from the training people and the covariance of e make it the
maximum a posteriori estimate, and the inverse of its Gauss-Newton Hessian, with u eliminated, the
covariance of the angles.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlml_hpe.device import double_device
from nlml_hpe.manifold.statistics import IdentityPrior, Noise
from nlml_hpe.pose_grid import PoseGrid

MARGIN_DEG = 15.0
"""How far beyond the grid the inverse may answer before an angle is held at the bound."""
_COARSE_STEPS = (9, 7, 5)
MAX_ITERATIONS = 40
STEP_TOLERANCE = 1e-6
"""Radians: far below a thousandth of a degree, also where steps shrink slowly."""
GAUSS_NEWTON_ITERATIONS = 2
"""Before steps follow how the gradient changed. With 8, faces of photographs take a quarter more steps to the same
answers: of 2,551 looks two end elsewhere, beyond the range, and with 2 nearer to the landmarks."""
SEEDS = 4
"""Coarse poses tried per face. With two, 2 of 473 photographs (aflw2000_dev) end above Powell's minimum on
the authors' manifold, with four none."""
_TRIAL_ITERATIONS = 3
_SEED_PRIOR = 1e-3
"""Weight of the identity prior, as a share of a face's squared norm, when coarse poses are ranked: without
it a wrong pose with an impossible identity ranks first for 15 of 1,024 faces drawn from that manifold."""

FloatArray = NDArray[np.float64]


class Solver:
    """Variable projection and Levenberg-Marquardt in whitened coordinates of the basis (float64)."""

    def __init__(
        self,
        core: FloatArray,
        basis: FloatArray,
        cosines: tuple[FloatArray, FloatArray, FloatArray],
        grid: PoseGrid,
        prior: IdentityPrior,
        noise: Noise | None,
        device: torch.device,
    ) -> None:
        rank, size = core.shape[0], core.shape[-1]
        # Arithmetic stays with torch: numpy's own thread pool beside torch's costs milliseconds a call.
        self.device = double_device(device)
        self.basis = self._tensor(basis.T)
        colour = np.eye(size) if noise is None else np.linalg.cholesky(noise.covariance)
        whiten = np.eye(size) if noise is None else noise.whitening.T
        self.whiten, self.colour = self._tensor(whiten), self._tensor(colour.T)
        # Identity last: one face's design is then a stack of (K, ri) matrices that multiply u as they lie.
        flat = np.moveaxis(core @ whiten, 0, -1).reshape(-1, size * rank)
        self.core = self._tensor(flat)
        self.rank, self.size = rank, size
        self.row_lengths = [len(c) for c in cosines]
        self.axis_of = self._tensor(np.repeat(np.arange(3), self.row_lengths))
        self.cosines = self._tensor(np.concatenate(cosines).T)
        prior_precision = self._tensor(np.linalg.inv(prior.covariance))
        self.precision = torch.zeros_like(prior_precision)
        self.mean = self._tensor(prior.mean)
        if noise is not None:
            self.precision = prior_precision
        self.pull = self.precision @ self.mean
        self.coarse, self.projector, self.offset = self._coarse_table(grid, prior_precision)
        # Seeds are told apart in single precision, which halves the cost; the answer is found in double.
        self.rough = copy.copy(self)
        for name in ("core", "cosines", "precision", "mean", "pull", "coarse", "projector", "offset"):
            setattr(self.rough, name, getattr(self, name).float())

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """A copy in row-major order on the solver's device: torch takes no array that is turned or write-protected."""
        return torch.from_numpy(np.array(array, order="C")).to(self.device)

    def _coarse_table(self, grid: PoseGrid, prior_precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse poses (G, 3) with, for each, what makes its least cost one matrix product away."""
        spans = [np.radians(np.linspace(a[0], a[-1], n)) for a, n in zip(grid.axes, _COARSE_STEPS, strict=True)]
        poses = self._tensor(np.array(list(itertools.product(*spans))))
        design = self._design(poses)[:, 0]
        typical = (design @ self.mean).square().sum(1).median()
        precision = prior_precision * (1.0 if self.precision.any() else _SEED_PRIOR * typical)
        normal = design.transpose(1, 2) @ design + precision
        factor = torch.linalg.cholesky(normal)
        projector = torch.linalg.solve_triangular(factor, design.transpose(1, 2), upper=False)
        pull = (precision @ self.mean).expand(len(poses), -1)[..., None]
        offset = torch.linalg.solve_triangular(factor, pull, upper=False)
        return poses, projector.reshape(-1, self.size).T.contiguous(), offset[..., 0]

    def _design(self, theta: Tensor) -> Tensor:
        """(N, 4, K, ri): the model matrix of u at angles (N, 3) rad, and its three derivatives."""
        a, b, c, d = self.cosines
        phase = theta[:, self.axis_of] * b + c
        y, p, r = (a * torch.cos(phase) + d).split(self.row_lengths, dim=1)
        dy, dp, dr = (-a * b * torch.sin(phase)).split(self.row_lengths, dim=1)
        yaws, pitches, rolls = (
            torch.stack([y, dy, y, y], 1),
            torch.stack([p, p, dp, p], 1),
            torch.stack([r, r, r, dr], 1),
        )
        cells = yaws[..., :, None, None] * pitches[..., None, :, None] * rolls[..., None, None, :]
        return (cells.reshape(4 * len(theta), len(self.core)) @ self.core).reshape(len(theta), 4, self.size, self.rank)

    def _state(self, x: Tensor, theta: Tensor, damping: Tensor) -> _State:
        """Everything the descent needs to know at angles (N, 3) of faces (N, K)."""
        design = self._design(theta)
        model = design[:, 0]
        inverse = torch.linalg.inv_ex(model.transpose(1, 2) @ model + self.precision)[0]
        identity = inverse @ (model.transpose(1, 2) @ x[..., None] + self.pull[:, None])
        fitted = (design.reshape(len(x), 4 * self.size, self.rank) @ identity).reshape(len(x), 4, self.size)
        residual, jacobian = x - fitted[:, 0], fitted[:, 1:]
        deviation = identity[..., 0] - self.mean
        cost = 0.5 * ((residual * residual).sum(1) + ((deviation @ self.precision) * deviation).sum(1))
        gradient = (jacobian @ residual[..., None])[..., 0]
        cross = jacobian @ model
        hessian = jacobian @ jacobian.transpose(1, 2) - cross @ inverse @ cross.transpose(1, 2)
        return _State(theta, cost, identity[..., 0], gradient, hessian, hessian, damping)

    @torch.inference_mode()
    def solve(
        self, features: FloatArray, starts: FloatArray | None, bounds: FloatArray, n_seeds: int
    ) -> dict[str, NDArray[Any]]:
        """The angles of faces, all in radians.

        Parameters
        ----------
        features : float array (N, F)
            The faces.
        starts : float array (N, 3) or None
            Where to start, in radians; without them from the best poses of the coarse grid.
        bounds : float array (3, 2)
            Lowest and highest yaw, pitch and roll, in radians.
        n_seeds : int
            Coarse poses that are followed, without ``starts``.

        Returns
        -------
        dict of str to ndarray
            What ``manifold.Inference`` is made of, of N faces.
        """
        faces = self._tensor(features)
        inside = faces @ self.basis
        x = inside @ self.whiten
        low, high = self._tensor(bounds[:, 0]), self._tensor(bounds[:, 1])
        if starts is not None:
            state = self._start(x, self._tensor(starts).clamp(low, high))
            tried = 0
        else:
            seeds = self.rough.best_seeds(x.float(), low.float(), high.float(), n_seeds)
            # In single precision a bound is another number, and an angle beyond it would never be let go.
            state, tried = self._start(x, seeds.double().clamp(low, high)), _TRIAL_ITERATIONS
        state, iterations = self._descend(x, state, low, high)
        answer = {
            "theta": state.theta,
            "identity": state.identity,
            **self._misfits(faces, inside, x, state),
            "covariance": _covariance(state.hessian),
            "at_bound": (state.theta <= low) | (state.theta >= high),
            "iterations": iterations + tried,
        }
        return {name: value.cpu().numpy() for name, value in answer.items()}

    def _misfits(self, faces: Tensor, inside: Tensor, x: Tensor, state: _State) -> dict[str, Tensor]:
        """``misfit`` (N,): the squared error as it was minimised; ``objective`` (N,): half of it over all features,
        inside the basis and what lies outside of it."""
        model = self._design(state.theta)[:, 0] @ state.identity[..., None]
        residual = x - model[..., 0]
        outside = (faces.square().sum(1) - inside.square().sum(1)).clamp_min(0.0)
        objective = 0.5 * ((residual @ self.colour).square().sum(1) + outside)
        return {"misfit": residual.square().sum(1), "objective": objective}

    def best_seeds(self, x: Tensor, low: Tensor, high: Tensor, n_seeds: int) -> Tensor:
        """Where to start: the best coarse poses, each followed for a few steps, and the best of those.

        Parameters
        ----------
        x : Tensor (N, K)
            The faces in the core's basis, whitened.
        low, high : Tensor (3,)
            Bounds of yaw, pitch and roll, in radians.
        n_seeds : int
            How many coarse poses are followed; all, where there are fewer.

        Returns
        -------
        Tensor (N, 3)
            Radians.
        """
        n_seeds = min(n_seeds, len(self.coarse))
        explained = ((x @ self.projector).reshape(len(x), len(self.coarse), self.rank) + self.offset).square().sum(2)
        seeds = self.coarse[explained.topk(n_seeds, dim=1).indices.reshape(-1)].clamp(low, high)
        repeated = x.repeat_interleave(n_seeds, dim=0)
        state = self._start(repeated, seeds)
        for iteration in range(1, _TRIAL_ITERATIONS + 1):
            state, _ = self._step(repeated, state, low, high, iteration)
        return state.theta[
            torch.arange(len(x), device=x.device) * n_seeds + state.cost.reshape(len(x), n_seeds).argmin(1)
        ]

    def _start(self, x: Tensor, theta: Tensor) -> _State:
        return self._state(x, theta, torch.full((len(x),), 1e-4, dtype=x.dtype, device=x.device))

    def _step(self, x: Tensor, state: _State, low: Tensor, high: Tensor, iteration: int) -> tuple[_State, Tensor]:
        """One step of Levenberg-Marquardt within bounds, taken where the cost falls; and which faces still move."""
        # An angle that would leave its bound stays there, and the others are solved for without it.
        outward = ((state.theta <= low) & (state.gradient < 0)) | ((state.theta >= high) & (state.gradient > 0))
        free = (~outward).to(x.dtype)
        curvature = state.curvature * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
        damped = torch.linalg.inv_ex(_determined(curvature, state.damping))[0]
        theta = (state.theta + (damped @ (state.gradient * free)[..., None])[..., 0]).clamp(low, high)
        trial = self._state(x, theta, (state.damping * 0.1).clamp_min(1e-12))
        if iteration > GAUSS_NEWTON_ITERATIONS:
            trial = trial._replace(curvature=_bfgs(state, trial))
        moving = (theta - state.theta).abs().amax(1) >= STEP_TOLERANCE
        better = trial.cost <= state.cost
        if better.all():
            return trial, moving
        return trial.where(better, state._replace(damping=(state.damping * 10).clamp_max(1e8))), moving

    def _descend(self, x: Tensor, state: _State, low: Tensor, high: Tensor) -> tuple[_State, Tensor]:
        """Steps until no face moves; those that rest drop out of the work. Also the steps each face took."""
        final = _State(*(tensor.clone() for tensor in state))
        active = torch.arange(len(x), device=x.device)
        iterations = torch.zeros_like(active)
        for iteration in range(1, MAX_ITERATIONS + 1):
            state, moving = self._step(x, state, low, high, iteration)
            if iteration < MAX_ITERATIONS and moving.all():
                continue
            final.put(active, state)
            iterations[active] = iteration
            if not moving.any():
                break
            active, x, state = active[moving], x[moving], state.of(moving)
        return final, iterations


class _State(NamedTuple):
    """A point of the descent, of N faces.

    ``theta`` (N, 3) rad, ``cost`` (N,), ``identity`` (N, ri), ``gradient`` (N, 3) of minus the cost,
    ``hessian`` (N, 3, 3) of Gauss-Newton, ``curvature`` (N, 3, 3) that steps are made with, ``damping`` (N,).
    """

    theta: Tensor
    cost: Tensor
    identity: Tensor
    gradient: Tensor
    hessian: Tensor
    curvature: Tensor
    damping: Tensor

    def of(self, chosen: Tensor) -> _State:
        """The state of some of the faces."""
        return _State(*(tensor[chosen] for tensor in self))

    def where(self, chosen: Tensor, other: _State) -> _State:
        """This state for the chosen faces, the other for the rest."""
        pairs = ((a, b, chosen.view(-1, *[1] * (a.dim() - 1))) for a, b in zip(self, other, strict=True))
        return _State(*(torch.where(mask, a, b) for a, b, mask in pairs))

    def put(self, places: Tensor, other: _State) -> None:
        """Overwrite the faces at these places."""
        for mine, theirs in zip(self, other, strict=True):
            mine[places] = theirs


def _bfgs(old: _State, new: _State) -> Tensor:
    """Curvature (N, 3, 3) corrected by how the gradient changed over the step (Nocedal & Wright, eq. 6.19).

    Faces far off the model leave large residuals, on which Gauss-Newton creeps; this does not.
    """
    step, change = (new.theta - old.theta)[..., None], (old.gradient - new.gradient)[..., None]
    pushed = old.curvature @ step
    along, bend = (step.transpose(1, 2) @ change), (step.transpose(1, 2) @ pushed)
    updated = old.curvature + change @ change.transpose(1, 2) / along - pushed @ pushed.transpose(1, 2) / bend
    return torch.where((along > 1e-3 * bend) & (bend > 0), updated, new.hessian)


def _determined(hessian: Tensor, damping: Tensor | float) -> Tensor:
    """Hessians (N, 3, 3) with Marquardt's damping (N,) and a floor: an angle of one bin stays where it is."""
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    weight = damping[:, None] if isinstance(damping, Tensor) else damping
    return hessian + torch.diag_embed(diagonal * weight + 1e-12 * diagonal.amax(1, keepdim=True))


def _covariance(hessian: Tensor) -> Tensor:
    """Inverse of Hessians (N, 3, 3); infinite where no angle is determined."""
    inverse, failed = torch.linalg.inv_ex(_determined(hessian, 0.0))
    undetermined = (failed != 0) | (inverse.diagonal(dim1=1, dim2=2) <= 0).any(1)
    return torch.where(undetermined[:, None, None], torch.inf, inverse)
