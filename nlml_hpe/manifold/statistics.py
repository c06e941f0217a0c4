"""Gaussians that the manifold carries: of people's identities, and of what the model leaves of unseen faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
