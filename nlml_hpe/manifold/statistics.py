"""Gaussians that the manifold carries: of people's identities, and of what the model leaves of unseen faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class IdentityPrior:
    """Gaussian of the training people's identity rows.

    Attributes
    ----------
    mean : ndarray of shape (ri,)
        Mean of the rows.
    covariance : ndarray of shape (ri, ri)
        Their covariance, with a floor that keeps it invertible.

    Examples
    --------
    >>> prior = IdentityPrior.of_rows(np.array([[1.0, 0.5], [1.0, -0.5]]))
    >>> prior.mean, prior.covariance.round(6)
    (array([1., 0.]), array([[0.000625, 0.      ],
           [0.      , 0.500625]]))
    """

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

    Attributes
    ----------
    covariance : ndarray of shape (K, K)
        Of what the model leaves of such a face, in the manifold's basis.
    sigma_scale : ndarray of shape (3,)
        By which the standard deviations of yaw, pitch and roll that follow from it are multiplied.

    Examples
    --------
    >>> Noise(np.diag([4.0, 1.0]), np.ones(3)).whitening.round(6) + 0.0
    array([[0.5, 0. ],
           [0. , 1. ]])
    """

    covariance: FloatArray
    sigma_scale: FloatArray

    @property
    def whitening(self) -> FloatArray:
        """The matrix (K, K) after which e is white: the inverse of the covariance's Cholesky factor."""
        return np.asarray(np.linalg.inv(np.linalg.cholesky(self.covariance)))
