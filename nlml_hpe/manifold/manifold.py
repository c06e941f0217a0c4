"""The pose manifold: what the decomposition learned, and its exact inverse.

A face is modelled as ``x = W(u, f_yaw, f_pitch, f_roll) + e``: W the core, u the identity, f the
factor rows as cosines of the angles. Given x, the angles minimise the squared error over u and the
angles. It is linear in u, so u is eliminated (variable projection, Golub & Pereyra 1973; Kaufman
1975) and Levenberg-Marquardt runs over three angles, batched over faces, from the best seeds of a
coarse grid. A Gaussian prior on u from the training people and the covariance of e make it the
maximum a posteriori estimate, whose Gauss-Newton Hessian is the covariance of the angles.
"""

from __future__ import annotations

import copy
import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nlml_hpe.files.atomic import ArtifactError, atomic_path
from nlml_hpe.manifold.cosines import Cosines, evaluate, fit_cosines
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES, CONVENTION, Angles

FORMAT = "nlml-hpe manifold 1"
MARGIN_DEG = 15.0
"""How far beyond the grid the inverse may answer before an angle is held at the bound."""
OFFICIAL_FEATURE = "facemesh468/official"
_COARSE_STEPS = (9, 7, 5)
_CHUNK = 256
MAX_ITERATIONS = 40
STEP_TOLERANCE = 1e-6
"""Radians: far below a thousandth of a degree, also where steps shrink slowly."""
GAUSS_NEWTON_ITERATIONS = 8
_SEEDS = 4
"""Coarse poses tried per face. With two, 2 of 473 photographs (aflw2000_dev) end above Powell's minimum on
the authors' manifold, with four none."""
_TRIAL_ITERATIONS = 3
_SEED_PRIOR = 1e-3
"""Weight of the identity prior, as a share of a face's squared norm, when coarse poses are ranked: without
it a wrong pose with an impossible identity ranks first for 15 of 1,024 faces drawn from that manifold."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class IdentityPrior:
    """Gaussian of the training people's identity rows: ``mean`` (ri,) and ``covariance`` (ri, ri)."""

    mean: FloatArray
    covariance: FloatArray

    @classmethod
    def of_rows(cls, rows: FloatArray) -> IdentityPrior:
        """The prior of identity rows (I, ri)."""
        rank = rows.shape[1]
        spread = np.cov(rows.T).reshape(rank, rank) if len(rows) > 1 else np.zeros((rank, rank))
        # The leading identity column is nearly constant: a floor keeps the prior invertible.
        return cls(rows.mean(axis=0), spread + np.eye(rank) * 1e-3 * (rows**2).mean())


@dataclass(frozen=True)
class Noise:
    """Statistics of faces that the model has not seen.

    ``covariance`` (K, K) of e in the basis; ``sigma_scale`` (3,) by which the Hessian's standard
    deviations of yaw, pitch and roll are multiplied.
    """

    covariance: FloatArray
    sigma_scale: FloatArray

    @property
    def whitening(self) -> FloatArray:
        """The matrix (K, K) after which e is white: the inverse of the covariance's Cholesky factor."""
        return np.asarray(np.linalg.inv(np.linalg.cholesky(self.covariance)))


@dataclass(frozen=True)
class Inference:
    """Result of ``PoseManifold.infer`` for N faces.

    ``angles`` fields (N,) degrees; ``identity`` (N, ri); ``objective`` (N,) half the squared error
    over all features; ``covariance`` (N, 3, 3) in degrees squared, order yaw, pitch, roll;
    ``at_bound`` (N, 3) where an angle was held at its bound; ``iterations`` (N,); ``score`` (N,), one for a
    face on the manifold, a half for one as far from it as unseen training people are on average (Mahalanobis
    distance under the noise's covariance), NaN for plain inference.
    """

    angles: Angles
    identity: FloatArray
    objective: FloatArray
    covariance: FloatArray
    at_bound: NDArray[np.bool_]
    iterations: NDArray[np.int64]
    score: FloatArray

    @property
    def sigma(self) -> FloatArray:
        """Standard deviations (N, 3) in degrees, order yaw, pitch, roll."""
        return np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))


@dataclass(frozen=True)
class PoseManifold:
    """Core (ri, ry, rp, rr, K), orthonormal basis (K, F), factors and cosines per axis, prior and noise."""

    core: FloatArray
    basis: FloatArray
    factors: tuple[FloatArray, FloatArray, FloatArray]
    cosines: tuple[FloatArray, FloatArray, FloatArray]
    grid: PoseGrid
    feature: str
    prior: IdentityPrior
    noise: Noise | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def feature_length(self) -> int:
        """Number of features F."""
        return int(self.basis.shape[1])

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of identity, yaw, pitch and roll."""
        return self.core.shape[:4]

    def axis_rows(self, axis: int, degrees: ArrayLike) -> FloatArray:
        """Factor rows ``(..., rank)`` of one axis (0 yaw, 1 pitch, 2 roll) at angles ``(...)`` in degrees."""
        return evaluate(self.cosines[axis], np.radians(np.asarray(degrees, dtype=np.float64)))

    def factor_rows(self, angles: Angles) -> FloatArray:
        """Factor rows of all axes side by side ``(..., ry + rp + rr)`` at angles ``(...)`` in degrees."""
        return np.concatenate([self.axis_rows(axis, values) for axis, values in enumerate(angles)], axis=-1)

    def synthesize(self, identity: ArrayLike, angles: Angles) -> FloatArray:
        """Features ``(N, F)`` of identities ``(N, ri)`` at angles ``(N,)`` in degrees."""
        inside = np.asarray(identity)[:, None] @ self.identity_design(angles)
        return np.asarray(inside[:, 0] @ self.basis)

    def identity_design(self, angles: Angles) -> FloatArray:
        """The model matrix of the identity ``(N, ri, K)`` at angles ``(N,)`` in degrees."""
        yaw, pitch, roll = (self.axis_rows(axis, values) for axis, values in enumerate(angles))
        cells = yaw[:, :, None, None] * pitch[:, None, :, None] * roll[:, None, None, :]
        flat = np.moveaxis(self.core, 0, 3).reshape(-1, self.core.shape[0] * self.core.shape[-1])
        return np.asarray(
            (cells.reshape(len(cells), len(flat)) @ flat).reshape(len(cells), self.core.shape[0], self.core.shape[-1])
        )

    def infer(
        self,
        features: ArrayLike,
        seeds: Angles | None = None,
        statistical: bool | None = None,
        margin: float = MARGIN_DEG,
        n_seeds: int = _SEEDS,
    ) -> Inference:
        """The exact inverse for features ``(N, F)``.

        ``seeds`` are starting angles (N,) in degrees, for instance the network's; without them the
        ``n_seeds`` best poses of a coarse grid are tried. ``statistical`` uses the identity prior and
        the noise covariance, by default where the manifold carries them (and raises ``ValueError`` where
        it is asked for and they are not there); without them the plain squared error is minimised, and
        the covariance is that of white noise of the size that is left over, infinite where the face does
        not determine an angle. Angles stay within ``margin`` degrees beyond the grid. An empty batch gives
        an empty result. Raises ``ValueError`` for another feature length and for values that are not finite.
        """
        array = self._checked(features)
        if seeds is not None and seeds.columns().shape != (len(array), 3):
            raise ValueError(f"expected seeds for {len(array)} faces; received shape {seeds.columns().shape}")
        statistical = self.noise is not None if statistical is None else statistical
        solver = self._solver(statistical)
        starts = None if seeds is None else np.radians(seeds.columns())
        bounds = np.radians(self._bounds(margin))
        pieces = [
            solver.solve(array[i : i + _CHUNK], None if starts is None else starts[i : i + _CHUNK], bounds, n_seeds)
            for i in range(0, max(len(array), 1), _CHUNK)
        ]
        return self._collect(pieces, statistical)

    def _checked(self, features: ArrayLike) -> FloatArray:
        array = np.asarray(features, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != self.feature_length:
            raise ValueError(
                f"expected features (N, {self.feature_length}) of kind {self.feature!r}; received shape {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError("features hold NaN or infinite values")
        return array

    def _bounds(self, margin: float) -> FloatArray:
        return np.array([[axis[0] - margin, axis[-1] + margin] for axis in self.grid.axes])

    def _solver(self, statistical: bool) -> _Solver:
        if not statistical:
            return self._plain_solver
        if self.noise is None:
            raise ValueError("this manifold carries no noise statistics; use statistical=False")
        return self._statistical_solver

    @cached_property
    def _plain_solver(self) -> _Solver:
        return _Solver(self, None)

    @cached_property
    def _statistical_solver(self) -> _Solver:
        return _Solver(self, self.noise)

    def _collect(self, pieces: list[dict[str, NDArray[Any]]], statistical: bool) -> Inference:
        joined = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        objective = joined["objective"]
        if statistical and self.noise is not None:
            scale = np.outer(self.noise.sigma_scale, self.noise.sigma_scale)[None]
        else:
            unknowns = self.core.shape[0] + 3
            left_over = 2 * objective / max(self.feature_length - unknowns, 1)
            scale = np.maximum(left_over, np.finfo(float).tiny)[:, None, None]
        return Inference(
            Angles.from_columns(np.degrees(joined["theta"])),
            joined["identity"],
            objective,
            joined["covariance"] * np.degrees(1.0) ** 2 * scale,
            joined["at_bound"],
            joined["iterations"],
            1 / (1 + joined["misfit"] / self.core.shape[-1]) if statistical else np.full(len(objective), np.nan),
        )

    def solve_identity(self, features: ArrayLike, angles: Angles) -> FloatArray:
        """Identities (N, ri) of features (N, F) whose angles (N,) are known; least squares."""
        inside = self._checked(features) @ self.basis.T
        design = self.identity_design(angles)
        normal = design @ design.transpose(0, 2, 1)
        return np.asarray(np.linalg.solve(normal, design @ inside[..., None])[..., 0])

    def save(self, path: Path) -> None:
        """Write ``manifold.npz`` atomically; arrays only, nothing is pickled."""
        arrays = dict(self._arrays())
        header = {"format": FORMAT, "convention": CONVENTION, "feature": self.feature, "grid": self.grid.as_dict()}
        text = np.frombuffer(json.dumps({**header, "facts": self.facts}, sort_keys=True).encode(), dtype=np.uint8)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, header=text, **arrays)

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        yield "core", self.core
        yield "basis", self.basis.astype(np.float32)
        for axis, factor, cosines in zip(AXES, self.factors, self.cosines, strict=True):
            yield f"factor_{axis}", factor
            yield f"cosine_{axis}", cosines
        yield "identity_mean", self.prior.mean
        yield "identity_covariance", self.prior.covariance
        if self.noise is not None:
            yield "noise_covariance", self.noise.covariance
            yield "sigma_scale", self.noise.sigma_scale

    @classmethod
    def load(cls, path: Path) -> PoseManifold:
        """Read ``manifold.npz``. Raises ``ArtifactError`` where it is missing, damaged or of another version."""
        arrays = _load_npz(path)
        try:
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT or header["convention"] != CONVENTION:
                raise ArtifactError(
                    f"{path}: expected {FORMAT!r} with {CONVENTION!r}; found {header['format']!r} with "
                    f"{header['convention']!r}; run TD_main again"
                )
            known = "noise_covariance" in arrays
            noise = Noise(arrays["noise_covariance"], arrays["sigma_scale"]) if known else None
            return cls(
                arrays["core"],
                arrays["basis"].astype(np.float64),
                (arrays["factor_yaw"], arrays["factor_pitch"], arrays["factor_roll"]),
                (arrays["cosine_yaw"], arrays["cosine_pitch"], arrays["cosine_roll"]),
                PoseGrid.from_dict(header["grid"]),
                header["feature"],
                IdentityPrior(arrays["identity_mean"], arrays["identity_covariance"]),
                noise,
                header["facts"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is no manifold of this project ({error}); run TD_main again") from error

    @classmethod
    def from_official(cls, trained_data: Path, factor_matrices: Path) -> PoseManifold:
        """The manifold that the method's authors publish (``Trained_data.npz``, ``Factor_Matrices.npz``).

        WARNING: their roll has the other sign (found on aflw2000_dev: correlation -0.86 with the labels);
        it is turned here, so that this project's convention holds. Their W was built from landmarks that
        were shifted to the nose tip but not divided by the distance of the eye corners, as their published
        code and this project do; a scale is taken up by the identity, so only plain inference fits it.
        """
        trained, matrices = _load_npz(trained_data), _load_npz(factor_matrices)
        try:
            weights = np.asarray(trained["W"], dtype=np.float64)
            cosines = _triple(np.asarray(trained[f"optimized_{axis}"], dtype=np.float64) for axis in AXES)
            factors = _triple(np.asarray(matrices[f"U_{axis}"], dtype=np.float64) for axis in AXES)
            identities = np.asarray(matrices["U_id"], dtype=np.float64)
        except KeyError as error:
            raise ArtifactError(f"{trained_data}, {factor_matrices}: {error} is missing") from error
        # cos(b (-w) + c) = cos(b w - c): the mirrored axis, its rows in ascending order again.
        cosines[2][:, 2] *= -1
        factors = (factors[0], factors[1], factors[2][::-1])
        left, singular, basis = np.linalg.svd(weights.reshape(-1, weights.shape[-1]), full_matrices=False)
        core = (left * singular).reshape(*weights.shape[:-1], -1)
        axes = (tuple(10.0 * (i - (len(f) - 1) / 2) for i in range(len(f))) for f in factors)
        facts = {"people": len(identities), "source": "official"}
        prior = IdentityPrior.of_rows(identities)
        return cls(core, basis, factors, cosines, PoseGrid(*axes), OFFICIAL_FEATURE, prior, None, facts)


def _triple(arrays: Iterable[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    yaw, pitch, roll = arrays
    return yaw, pitch, roll


def fit_axes(grid: PoseGrid, factors: tuple[FloatArray, FloatArray, FloatArray]) -> tuple[Cosines, Cosines, Cosines]:
    """Cosines of the three factor matrices over the grid's axes."""
    yaw, pitch, roll = (fit_cosines(axis, factor) for axis, factor in zip(grid.axes, factors, strict=True))
    return yaw, pitch, roll


class _Solver:
    """Variable projection and Levenberg-Marquardt in whitened coordinates of the basis (float64)."""

    def __init__(self, manifold: PoseManifold, noise: Noise | None) -> None:
        core = manifold.core
        rank, size = core.shape[0], core.shape[-1]
        # Arithmetic stays with torch: numpy's own thread pool beside torch's costs milliseconds a call.
        self.basis = torch.from_numpy(np.ascontiguousarray(manifold.basis.T))
        colour = np.eye(size) if noise is None else np.linalg.cholesky(noise.covariance)
        whiten = np.eye(size) if noise is None else noise.whitening.T
        self.whiten, self.colour = torch.from_numpy(whiten.copy()), torch.from_numpy(colour.T.copy())
        # Identity last: one face's design is then a stack of (K, ri) matrices that multiply u as they lie.
        flat = np.moveaxis(core @ whiten, 0, -1).reshape(-1, size * rank)
        self.core = torch.from_numpy(np.ascontiguousarray(flat))
        self.rank, self.size = rank, size
        self.row_lengths = [len(c) for c in manifold.cosines]
        self.axis_of = torch.repeat_interleave(torch.arange(3), torch.tensor(self.row_lengths))
        self.cosines = torch.from_numpy(np.concatenate(manifold.cosines).T.copy())
        self.precision = torch.zeros(rank, rank, dtype=torch.float64)
        prior_precision = torch.from_numpy(np.linalg.inv(manifold.prior.covariance))
        self.mean = torch.from_numpy(manifold.prior.mean)
        if noise is not None:
            self.precision = prior_precision
        self.pull = self.precision @ self.mean
        self.coarse, self.projector, self.offset = self._coarse_table(manifold.grid, prior_precision)
        # Seeds are told apart in single precision, which halves the cost; the answer is found in double.
        self.rough = copy.copy(self)
        for name in ("core", "cosines", "precision", "mean", "pull", "coarse", "projector", "offset"):
            setattr(self.rough, name, getattr(self, name).float())

    def _coarse_table(self, grid: PoseGrid, prior_precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse poses (G, 3) with, for each, what makes its least cost one matrix product away."""
        spans = [np.radians(np.linspace(a[0], a[-1], n)) for a, n in zip(grid.axes, _COARSE_STEPS, strict=True)]
        poses = torch.from_numpy(np.array(list(itertools.product(*spans))))
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
        """Angles (rad) and the rest for features (N, F) from starts (N, 3) rad or the coarse grid."""
        given = torch.from_numpy(features)
        inside = given @ self.basis
        x = inside @ self.whiten
        low, high = torch.from_numpy(bounds[:, 0]), torch.from_numpy(bounds[:, 1])
        if starts is not None:
            state = self._start(x, torch.from_numpy(starts).clamp(low, high))
            tried = 0
        else:
            seeds = self.rough.best_seeds(x.float(), low.float(), high.float(), n_seeds)
            state, tried = self._start(x, seeds.double()), _TRIAL_ITERATIONS
        state, iterations = self._descend(x, state, low, high)
        return {
            "theta": state.theta.numpy(),
            "identity": state.identity.numpy(),
            **self._misfits(given, inside, x, state),
            "covariance": _covariance(state.hessian).numpy(),
            "at_bound": ((state.theta <= low) | (state.theta >= high)).numpy(),
            "iterations": (iterations + tried).numpy(),
        }

    def _misfits(self, given: Tensor, inside: Tensor, x: Tensor, state: _State) -> dict[str, NDArray[Any]]:
        """``misfit`` (N,): the squared error as it was minimised; ``objective`` (N,): half of it over all features,
        inside the basis and what lies outside of it."""
        model = self._design(state.theta)[:, 0] @ state.identity[..., None]
        residual = x - model[..., 0]
        outside = (given.square().sum(1) - inside.square().sum(1)).clamp_min(0.0)
        objective = 0.5 * ((residual @ self.colour).square().sum(1) + outside)
        return {"misfit": residual.square().sum(1).numpy(), "objective": objective.numpy()}

    def best_seeds(self, x: Tensor, low: Tensor, high: Tensor, n_seeds: int) -> Tensor:
        """Starting angles (N, 3): the best coarse poses, each followed for a few steps, and the best of those."""
        explained = ((x @ self.projector).reshape(len(x), len(self.coarse), self.rank) + self.offset).square().sum(2)
        seeds = self.coarse[explained.topk(n_seeds, dim=1).indices.reshape(-1)].clamp(low, high)
        repeated = x.repeat_interleave(n_seeds, dim=0)
        state = self._start(repeated, seeds)
        for iteration in range(1, _TRIAL_ITERATIONS + 1):
            state, _ = self._step(repeated, state, low, high, iteration)
        return state.theta[torch.arange(len(x)) * n_seeds + state.cost.reshape(len(x), n_seeds).argmin(1)]

    def _start(self, x: Tensor, theta: Tensor) -> _State:
        return self._state(x, theta, torch.full((len(x),), 1e-4, dtype=x.dtype))

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
        iterations = torch.zeros(len(x), dtype=torch.long)
        active = torch.arange(len(x))
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


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} is damaged or no .npz file ({error})") from error
