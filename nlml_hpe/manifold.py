"""The pose manifold: what the decomposition learned, and its exact inverse.

A face is modelled as ``x = W(u, f_yaw, f_pitch, f_roll) + e``: W the core, u the identity, f the
factor rows as cosines of the angles. Given x, the angles minimise the squared error over u and the
angles. It is linear in u, so u is eliminated (variable projection, Golub & Pereyra 1973; Kaufman
1975) and Levenberg-Marquardt runs over three angles, batched over faces, from the best seeds of a
coarse grid. A Gaussian prior on u from the training people and the covariance of e make it the
maximum a posteriori estimate, whose Gauss-Newton Hessian is the covariance of the angles.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nlml_hpe.artifacts import ArtifactError, atomic_path
from nlml_hpe.cosine import Cosines, evaluate, fit_cosines
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotations import AXES, CONVENTION, Angles

FORMAT = "nlml-hpe manifold 1"
MARGIN_DEG = 15.0
"""How far beyond the grid the inverse may answer before an angle is held at the bound."""
OFFICIAL_FEATURE = "facemesh468/official"
_COARSE_STEPS = (7, 5, 5)
_MAX_ITERATIONS = 40
_STEP_TOLERANCE = 1e-8
_CHUNK = 256

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Statistics of training faces: identity rows and the covariance of e in the basis.

    ``identity_mean`` (ri,) and ``identity_covariance`` (ri, ri); ``covariance`` (K, K) of the
    residual; ``sigma_scale`` (3,) by which the Hessian's standard deviations are multiplied.
    """

    identity_mean: FloatArray
    identity_covariance: FloatArray
    covariance: FloatArray
    sigma_scale: FloatArray


@dataclass(frozen=True)
class Inference:
    """Result of ``PoseManifold.infer`` for N faces.

    ``angles`` fields (N,) degrees; ``identity`` (N, ri); ``objective`` (N,) half the squared error
    over all features; ``covariance`` (N, 3, 3) in degrees squared, order yaw, pitch, roll;
    ``at_bound`` (N, 3) where an angle was held at its bound; ``iterations`` (N,).
    """

    angles: Angles
    identity: FloatArray
    objective: FloatArray
    covariance: FloatArray
    at_bound: NDArray[np.bool_]
    iterations: NDArray[np.int64]

    @property
    def sigma(self) -> FloatArray:
        """Standard deviations (N, 3) in degrees, order yaw, pitch, roll."""
        return np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))


@dataclass(frozen=True)
class PoseManifold:
    """Core (ri, ry, rp, rr, K), orthonormal basis (K, F), factors and cosines per axis, and noise."""

    core: FloatArray
    basis: FloatArray
    factors: tuple[FloatArray, FloatArray, FloatArray]
    cosines: tuple[FloatArray, FloatArray, FloatArray]
    grid: PoseGrid
    feature: str
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
        inside = np.einsum("ni,nik->nk", np.asarray(identity), self._identity_design(angles))
        return np.asarray(inside @ self.basis)

    def _identity_design(self, angles: Angles) -> FloatArray:
        """The model matrix of the identity ``(N, ri, K)`` at angles ``(N,)`` in degrees."""
        rows = [self.axis_rows(axis, values) for axis, values in enumerate(angles)]
        return np.einsum("na,nb,nc,iabck->nik", *rows, self.core, optimize=True)

    def infer(
        self,
        features: ArrayLike,
        seeds: Angles | None = None,
        statistical: bool = True,
        margin: float = MARGIN_DEG,
        n_seeds: int = 2,
    ) -> Inference:
        """The exact inverse for features ``(N, F)``.

        ``seeds`` are starting angles (N,) in degrees, for instance the network's; without them the
        ``n_seeds`` best poses of a coarse grid are tried. ``statistical`` uses the identity prior and
        the noise covariance (raises ``ValueError`` where the manifold carries none); without it the
        plain squared error is minimised. Angles stay within ``margin`` degrees beyond the grid.
        An empty batch gives an empty result. Raises ``ValueError`` for another feature length and for
        values that are not finite.
        """
        array = self._checked(features)
        if seeds is not None and seeds.columns().shape != (len(array), 3):
            raise ValueError(f"expected seeds for {len(array)} faces; received shape {seeds.columns().shape}")
        solver = self._solver(statistical)
        starts = None if seeds is None else np.radians(seeds.columns())
        bounds = np.radians(self._bounds(margin))
        pieces = [
            solver.solve(array[i : i + _CHUNK], None if starts is None else starts[i : i + _CHUNK], bounds, n_seeds)
            for i in range(0, max(len(array), 1), _CHUNK)
        ]
        return self._collect(array, pieces)

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

    def _collect(self, features: FloatArray, pieces: list[dict[str, NDArray[Any]]]) -> Inference:
        joined = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        angles = Angles.from_columns(np.degrees(joined["theta"]))
        residual = features - self.synthesize(joined["identity"], angles)
        scale = self.noise.sigma_scale if self.noise is not None else np.ones(3)
        return Inference(
            angles,
            joined["identity"],
            0.5 * (residual**2).sum(axis=1),
            joined["covariance"] * np.degrees(1.0) ** 2 * np.outer(scale, scale),
            joined["at_bound"],
            joined["iterations"],
        )

    def solve_identity(self, features: ArrayLike, angles: Angles) -> FloatArray:
        """Identities (N, ri) of features (N, F) whose angles (N,) are known; least squares."""
        inside = self._checked(features) @ self.basis.T
        design = self._identity_design(angles)
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
        if self.noise is not None:
            for name in Noise.__dataclass_fields__:
                yield name, getattr(self.noise, name)

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
            names = list(Noise.__dataclass_fields__)
            noise = Noise(*(arrays[name] for name in names)) if names[0] in arrays else None
            return cls(
                arrays["core"],
                arrays["basis"].astype(np.float64),
                (arrays["factor_yaw"], arrays["factor_pitch"], arrays["factor_roll"]),
                (arrays["cosine_yaw"], arrays["cosine_pitch"], arrays["cosine_roll"]),
                PoseGrid.from_dict(header["grid"]),
                header["feature"],
                noise,
                header["facts"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is no manifold of this project ({error}); run TD_main again") from error

    @classmethod
    def from_official(cls, trained_data: Path, factor_matrices: Path) -> PoseManifold:
        """The manifold that the method's authors publish (``Trained_data.npz``, ``Factor_Matrices.npz``).

        WARNING: their W was built from landmarks normalised otherwise than their published code (and
        this project) does: features of this project's kinds lie off it by a scale and a shift.
        """
        trained, matrices = _load_npz(trained_data), _load_npz(factor_matrices)
        try:
            weights = np.asarray(trained["W"], dtype=np.float64)
            cosines = _triple(np.asarray(trained[f"optimized_{axis}"], dtype=np.float64) for axis in AXES)
            factors = _triple(np.asarray(matrices[f"U_{axis}"], dtype=np.float64) for axis in AXES)
            identities = np.asarray(matrices["U_id"], dtype=np.float64)
        except KeyError as error:
            raise ArtifactError(f"{trained_data}, {factor_matrices}: {error} is missing") from error
        left, singular, basis = np.linalg.svd(weights.reshape(-1, weights.shape[-1]), full_matrices=False)
        core = (left * singular).reshape(*weights.shape[:-1], -1)
        axes = (tuple(10.0 * (i - (len(f) - 1) / 2) for i in range(len(f))) for f in factors)
        facts = {"people": len(identities), "source": "official"}
        return cls(core, basis, factors, cosines, PoseGrid(*axes), OFFICIAL_FEATURE, None, facts)


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
        whiten = np.eye(size) if noise is None else np.linalg.inv(np.linalg.cholesky(noise.covariance)).T
        self.to_coordinates = torch.from_numpy(manifold.basis.T @ whiten)
        flat = np.moveaxis(core @ whiten, 0, 3).reshape(-1, rank * size)
        self.core = torch.from_numpy(np.ascontiguousarray(flat))
        self.rank, self.size = rank, size
        self.cosines = [torch.from_numpy(np.ascontiguousarray(c.T)) for c in manifold.cosines]
        self.precision = torch.zeros(rank, rank, dtype=torch.float64)
        self.mean = torch.zeros(rank, dtype=torch.float64)
        if noise is not None:
            self.precision = torch.from_numpy(np.linalg.inv(noise.identity_covariance))
            self.mean = torch.from_numpy(noise.identity_mean)
        self.pull = self.precision @ self.mean
        self.coarse, self.projector, self.offset = self._coarse_table(manifold.grid)

    def _coarse_table(self, grid: PoseGrid) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse poses (G, 3) with, for each, what makes its least cost one matrix product away."""
        spans = [np.radians(np.linspace(a[0], a[-1], n)) for a, n in zip(grid.axes, _COARSE_STEPS, strict=True)]
        poses = torch.from_numpy(np.array(list(itertools.product(*spans))))
        design = self._design(poses)[:, 0]
        normal = design @ design.transpose(1, 2) + self.precision
        # A vanishing ridge keeps degenerate poses solvable; it does not move the optimum.
        normal = normal + torch.eye(self.rank, dtype=torch.float64) * 1e-12 * normal.diagonal(dim1=1, dim2=2).mean()
        factor = torch.linalg.cholesky(normal)
        projector = torch.linalg.solve_triangular(factor, design, upper=False)
        offset = torch.linalg.solve_triangular(factor, self.pull.expand(len(poses), -1)[..., None], upper=False)
        return poses, projector.reshape(-1, self.size).T.contiguous(), offset[..., 0]

    def _design(self, theta: Tensor) -> Tensor:
        """(N, 4, ri, K): the model matrix of u at angles (N, 3) rad, and its three derivatives."""
        rows, slopes = [], []
        for axis, (a, b, c, d) in enumerate(self.cosines):
            phase = theta[:, axis : axis + 1] * b + c
            rows.append(a * torch.cos(phase) + d)
            slopes.append(-a * b * torch.sin(phase))
        (y, p, r), (dy, dp, dr) = rows, slopes
        yaws, pitches = torch.stack([y, dy, y, y], 1), torch.stack([p, p, dp, p], 1)
        rolls = torch.stack([r, r, r, dr], 1)
        cells = yaws[..., :, None, None] * pitches[..., None, :, None] * rolls[..., None, None, :]
        return (cells.reshape(4 * len(theta), -1) @ self.core).reshape(len(theta), 4, self.rank, self.size)

    def _state(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cost (N,), identity (N, ri), gradient (N, 3) and Gauss-Newton Hessian (N, 3, 3) at angles."""
        design = self._design(theta)
        model, slopes = design[:, 0], design[:, 1:]
        normal = model @ model.transpose(1, 2) + self.precision
        target = (model @ x[..., None])[..., 0] + self.pull
        identity = torch.linalg.solve(normal, target)
        residual = x - (identity[:, None] @ model)[:, 0]
        deviation = identity - self.mean
        cost = 0.5 * ((residual**2).sum(1) + ((deviation @ self.precision) * deviation).sum(1))
        jacobian = (identity[:, None, None] @ slopes)[:, :, 0]
        gradient = (jacobian @ residual[..., None])[..., 0]
        cross = model @ jacobian.transpose(1, 2)
        hessian = jacobian @ jacobian.transpose(1, 2) - cross.transpose(1, 2) @ torch.linalg.solve(normal, cross)
        return cost, identity, gradient, hessian

    @torch.inference_mode()
    def solve(
        self, features: FloatArray, starts: FloatArray | None, bounds: FloatArray, n_seeds: int
    ) -> dict[str, NDArray[Any]]:
        """Angles (rad) and the rest for features (N, F) from starts (N, 3) rad or the coarse grid."""
        x = torch.from_numpy(features) @ self.to_coordinates
        low, high = torch.from_numpy(bounds[:, 0]), torch.from_numpy(bounds[:, 1])
        if starts is None:
            theta, owner = self._seeds(x, n_seeds)
        else:
            theta, owner = torch.from_numpy(starts), torch.arange(len(x))
        theta, cost, iterations = self._descend(x[owner], theta.clamp(low, high), low, high)
        tried = len(theta) // max(len(x), 1)
        chosen = torch.arange(len(x)) * tried + cost.reshape(len(x), tried).argmin(1) if len(x) else owner
        theta = theta[chosen]
        _, identity, _, hessian = self._state(x, theta)
        return {
            "theta": theta.numpy(),
            "identity": identity.numpy(),
            "covariance": torch.linalg.inv(hessian).numpy(),
            "at_bound": ((theta <= low) | (theta >= high)).numpy(),
            "iterations": iterations[chosen].numpy(),
        }

    def _seeds(self, x: Tensor, n_seeds: int) -> tuple[Tensor, Tensor]:
        explained = (x @ self.projector).reshape(len(x), len(self.coarse), self.rank) + self.offset
        best = (explained**2).sum(2).topk(n_seeds, dim=1).indices
        return self.coarse[best.reshape(-1)], torch.arange(len(x)).repeat_interleave(n_seeds)

    def _descend(self, x: Tensor, theta: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Levenberg-Marquardt over angles (M, 3), held within bounds; converged faces drop out."""
        final, final_cost = theta.clone(), torch.full((len(x),), torch.inf, dtype=torch.float64)
        iterations = torch.zeros(len(x), dtype=torch.long)
        active = torch.arange(len(x))
        cost, _, gradient, hessian = self._state(x, theta)
        damping = torch.full_like(cost, 1e-4)
        for iteration in range(1, _MAX_ITERATIONS + 1):
            damped = hessian + torch.diag_embed(hessian.diagonal(dim1=1, dim2=2) * damping[:, None] + 1e-300)
            proposal = (theta + torch.linalg.solve(damped, gradient)).clamp(low, high)
            step = (proposal - theta).abs().amax(1)
            new_cost, _, new_gradient, new_hessian = self._state(x, proposal)
            better = new_cost <= cost
            theta = torch.where(better[:, None], proposal, theta)
            gradient = torch.where(better[:, None], new_gradient, gradient)
            hessian = torch.where(better[:, None, None], new_hessian, hessian)
            gain = torch.where(better, cost - new_cost, torch.zeros_like(cost))
            cost = torch.where(better, new_cost, cost)
            damping = torch.where(better, damping * 0.1, damping * 10).clamp(1e-12, 1e8)
            done = (step < _STEP_TOLERANCE) | (better & (gain < 1e-14 * cost))
            if done.any() or iteration == _MAX_ITERATIONS:
                final[active], final_cost[active], iterations[active] = theta, cost, iteration
                keep = ~done
                if not keep.any():
                    break
                active, x, theta, cost = active[keep], x[keep], theta[keep], cost[keep]
                gradient, hessian, damping = gradient[keep], hessian[keep], damping[keep]
        return final, final_cost, iterations


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} is damaged or no .npz file ({error})") from error
