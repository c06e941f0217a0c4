"""The pose manifold: what the decomposition learned, and faces made from it.

A face is modelled as ``x = W(u, f_yaw, f_pitch, f_roll) + e``: W the core, u the identity, f the
factor rows as cosines of the angles. ``inverse`` finds the angles of a face,
``manifold_file`` keeps a manifold in a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.manifold.cosines import evaluate
from nlml_hpe.manifold.inverse import MARGIN_DEG, SEEDS, Solver
from nlml_hpe.manifold.statistics import IdentityPrior, Noise
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import Angles

_CHUNK = 256

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Inference:
    """Result of ``PoseManifold.infer`` for N faces.

    Attributes
    ----------
    angles : Angles
        Fields (N,), in degrees.
    identity : ndarray of shape (N, ri)
        The identity that explains each face at its angles.
    objective : ndarray of shape (N,)
        Half the squared error over all features.
    covariance : ndarray of shape (N, 3, 3)
        In degrees squared, order yaw, pitch, roll.
    at_bound : ndarray of shape (N, 3), bool
        Where an angle was held at its bound.
    iterations : ndarray of shape (N,)
        Steps of the descent.
    score : ndarray of shape (N,)
        One for a face on the manifold, a half where its squared Mahalanobis distance from there, under the noise's
        covariance, is the number K of directions; NaN for plain inference. That covariance is drawn towards an even
        one, so that unseen people lie nearer: those by whom the shipped one was measured at 0.38 K on average. How
        exact the angles are it hardly tells; ``covariance`` does.

    Examples
    --------
    >>> one = Inference(
    ...     Angles.from_columns([(13.0, 2.0, -1.0)]), np.ones((1, 5)), np.zeros(1), np.diag([1.0, 4.0, 9.0])[None],
    ...     np.zeros((1, 3), dtype=bool), np.array([4]), np.ones(1)
    ... )
    >>> one.sigma
    array([[1., 2., 3.]])
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
    """What the decomposition learned of faces and poses.

    Attributes
    ----------
    core : ndarray of shape (ri, ry, rp, rr, K)
        Of the decomposition.
    basis : ndarray of shape (K, F)
        Orthonormal rows.
    factors : tuple of three ndarrays
        Of yaw (Y, ry), pitch (P, rp) and roll (R, rr).
    cosines : tuple of three ndarrays of shape (rank, 4)
        a, b, c, d of every factor column.
    grid : PoseGrid
        The training poses.
    feature : str
        Name of the feature; faces of another one do not fit.
    prior : IdentityPrior
        Of the training people.
    noise : Noise or None
        Of unseen people, where it was measured.
    facts : dict
        How the manifold was made.

    Examples
    --------
    Three points, turned to eleven yaws, and found again between two of them:

    >>> from nlml_hpe.manifold.cosines import fit_axes
    >>> from nlml_hpe.manifold.tucker import decompose
    >>> from nlml_hpe.rotation import rotate_image_points, rotation_from_angles
    >>> grid = PoseGrid(tuple(range(-50, 51, 10)), (0.0,), (0.0,))
    >>> points = np.array([[1.0, 0.0, 0.2], [0.0, 1.0, 0.3], [-1.0, 0.0, 0.1]])
    >>> faces = rotate_image_points(points, rotation_from_angles(grid.angles())).reshape(1, *grid.shape, -1)
    >>> model = decompose(faces.astype(np.float32), (1, 3, 1, 1), grid)
    >>> cosines = tuple(fit.parameters for fit in fit_axes(grid, model.factors[1:]))
    >>> prior = IdentityPrior.of_rows(model.factors[0])
    >>> manifold = PoseManifold(model.core, model.basis, model.factors[1:], cosines, grid, "three points", prior)
    >>> face = rotate_image_points(points, rotation_from_angles(Angles.from_columns([(13.0, 0.0, 0.0)])))
    >>> manifold.infer(face.reshape(1, -1)).angles.yaw.round(2)
    array([13.])
    """

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
        """Factor rows of one axis.

        Parameters
        ----------
        axis : int
            0 yaw, 1 pitch, 2 roll.
        degrees : array_like of shape (...)
            Angles.

        Returns
        -------
        ndarray of shape (..., rank)
            The cosines' values.
        """
        return evaluate(self.cosines[axis], np.radians(np.asarray(degrees, dtype=np.float64)))

    def factor_rows(self, angles: Angles) -> FloatArray:
        """Factor rows of all axes side by side.

        Parameters
        ----------
        angles : Angles
            Fields (...), in degrees.

        Returns
        -------
        ndarray of shape (..., ry + rp + rr)
            Rows of yaw, pitch and roll.
        """
        return np.concatenate([self.axis_rows(axis, values) for axis, values in enumerate(angles)], axis=-1)

    def synthesize(self, identity: ArrayLike, angles: Angles) -> FloatArray:
        """Faces of people at poses.

        Parameters
        ----------
        identity : array_like of shape (N, ri)
            The people.
        angles : Angles
            Fields (N,), in degrees.

        Returns
        -------
        ndarray of shape (N, F)
            Features.
        """
        inside = np.asarray(identity)[:, None] @ self.identity_design(angles)
        return np.asarray(inside[:, 0] @ self.basis)

    def identity_design(self, angles: Angles) -> FloatArray:
        """The model matrices of the identity: its product with an identity is a face in the basis of the features.

        Parameters
        ----------
        angles : Angles
            Fields (N,), in degrees.

        Returns
        -------
        ndarray of shape (N, ri, K)
            One matrix per pose; ``basis`` leads from K to the F features.
        """
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
        """The angles that explain faces best, each with the identity that suits it best.

        Parameters
        ----------
        features : array_like of shape (N, F)
            The faces; none give an empty result.
        seeds : Angles, optional
            Fields (N,), in degrees: where to start, for instance from the network's answer. Without them the
            ``n_seeds`` best poses of a coarse grid are tried.
        statistical : bool, optional
            Whether to use the identity prior and the noise covariance; by default where the manifold carries them.
            Without them the plain squared error is minimised, and the covariance is that of white noise of the size
            that is left over, infinite where the face does not determine an angle.
        margin : float
            Degrees beyond the grid within which angles are held; below zero within the grid.
        n_seeds : int
            Coarse poses that are followed, without ``seeds``; all, where there are fewer.
        device : torch.device, optional
            Where it is computed, in double precision; by default the CPU, which for few faces is the fastest.

        Returns
        -------
        Inference
            Angles, identities, covariances.

        Raises
        ------
        ValueError
            For another feature length, features or seeds that are not finite, seeds of another number of faces, no
            coarse pose to follow, a margin that leaves no angles, or where statistics are asked for and the manifold
            has none.
        """
        array = self._checked(features)
        if seeds is not None and seeds.columns().shape != (len(array), 3):
            raise ValueError(f"expected seeds for {len(array)} faces; received shape {seeds.columns().shape}")
        if seeds is not None and not np.isfinite(seeds.columns()).all():
            raise ValueError("seeds hold NaN or infinite angles; give finite ones, or none")
        if n_seeds < 1:
            raise ValueError(f"n_seeds: expected one coarse pose or more; received {n_seeds}")
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
        bounds = np.array([[axis[0] - margin, axis[-1] + margin] for axis in self.grid.axes])
        if not (bounds[:, 0] <= bounds[:, 1]).all():
            raise ValueError(f"margin: expected degrees that leave angles to answer with; received {margin}")
        return bounds

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
        """The identities that explain faces of known pose best, by least squares.

        Parameters
        ----------
        features : array_like of shape (N, F)
            The faces.
        angles : Angles
            Fields (N,), in degrees.

        Returns
        -------
        ndarray of shape (N, ri)
            One identity per face.
        """
        inside = self._checked(features) @ self.basis.T
        design = self.identity_design(angles)
        normal = design @ design.transpose(0, 2, 1)
        return np.asarray(np.linalg.solve(normal, design @ inside[..., None])[..., 0])
