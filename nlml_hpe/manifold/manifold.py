"""The pose manifold: what the decomposition learned, faces made from it, and its file.

A face is modelled as ``x = W(u, f_yaw, f_pitch, f_roll) + e``: W the core, u the identity, f the
factor rows as cosines of the angles. ``inverse`` finds the angles of a face.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.files.arrays import read_npz
from nlml_hpe.files.atomic import ArtifactError, atomic_path
from nlml_hpe.manifold.cosines import evaluate
from nlml_hpe.manifold.inverse import MARGIN_DEG, SEEDS, Solver
from nlml_hpe.manifold.statistics import IdentityPrior, Noise
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES, CONVENTION, Angles

FORMAT = "nlml-hpe manifold 1"
_CHUNK = 256

FloatArray = NDArray[np.float64]


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
        n_seeds: int = SEEDS,
        device: torch.device | None = None,
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
        solver = self._solver(statistical, device or torch.device("cpu"))
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

    def _solver(self, statistical: bool, device: torch.device) -> Solver:
        if statistical and self.noise is None:
            raise ValueError("this manifold carries no noise statistics; use statistical=False")
        if (statistical, device) not in self._solvers:
            noise = self.noise if statistical else None
            solver = Solver(self.core, self.basis, self.cosines, self.grid, self.prior, noise, device)
            self._solvers[statistical, device] = solver
        return self._solvers[statistical, device]

    @cached_property
    def _solvers(self) -> dict[tuple[bool, torch.device], Solver]:
        """The solvers that were needed so far: with and without the statistics, on each device."""
        return {}

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
        arrays = read_npz(path)
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
