"""Cosines through factor columns: a * cos(b * w + c) + d, fitted globally; w in radians.

For a fixed frequency b the curve is linear in (a cos c, -a sin c, d), so the fit is a search over
one bounded number: scan, solve, polish (variable projection, Golub & Pereyra 1973).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from nlml_hpe.pose_grid import PoseGrid

FREQUENCY_BOUNDS = (0.48, 6.0)
"""In rad/rad. A column that bends like a parabola is followed ever so slightly better by an ever
slower cosine of ever larger amplitude with an equal and opposite offset; below 0.48 the rms of such
a column falls by less than 1% more while the amplitude grows without limit. A rigid rotation gives
b = 1. Faster than 6 would oscillate between grid points 10 degrees apart."""
_SCAN = 400

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Cosines:
    """One cosine per factor column.

    Attributes
    ----------
    parameters : ndarray of shape (columns, 4)
        a, b, c, d of ``a cos(b w + c) + d``, w in radians.
    rms : ndarray of shape (columns,)
        Root mean square of what the fit leaves.

    Examples
    --------
    >>> Cosines(np.array([[2.0, 1.0, 0.0, 0.5]]), np.zeros(1))([0.0, 60.0]).round(6)
    array([[2.5],
           [1.5]])
    """

    parameters: FloatArray
    rms: FloatArray

    def __call__(self, angles: ArrayLike) -> FloatArray:
        """Factor rows ``(..., columns)`` at ``angles`` (...) in degrees."""
        return evaluate(self.parameters, np.radians(np.asarray(angles, dtype=np.float64)))


def evaluate(parameters: FloatArray, radians: FloatArray) -> FloatArray:
    """Values of cosines ``a cos(b w + c) + d``.

    Parameters
    ----------
    parameters : ndarray of shape (columns, 4)
        a, b, c, d.
    radians : ndarray of shape (...)
        w.

    Returns
    -------
    ndarray of shape (..., columns)
        The values.

    Examples
    --------
    >>> evaluate(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([0.0, np.pi])).round(6)
    array([[ 1.],
           [-1.]])
    """
    a, b, c, d = parameters.T
    return np.asarray(a * np.cos(b * radians[..., None] + c) + d)


def fit_cosines(degrees: ArrayLike, factor: ArrayLike) -> Cosines:
    """Fit every column of ``factor`` (n, columns) over ``degrees`` (n,) by separable least squares.

    With fewer than four angles a constant (one angle) or a cosine of frequency one through the
    points is returned.

    Parameters
    ----------
    degrees : array_like of shape (n,)
        The angles of an axis of the grid.
    factor : array_like of shape (n, columns)
        The factor's rows at these angles.

    Returns
    -------
    Cosines
        The best cosine of each column, of all frequencies within `FREQUENCY_BOUNDS`.

    Raises
    ------
    ValueError
        For shapes that do not match and for values that are not finite.

    Examples
    --------
    >>> degrees = np.arange(-40.0, 41.0, 10.0)
    >>> column = 0.3 * np.cos(1.5 * np.radians(degrees) + 0.2) + 0.1
    >>> fit_cosines(degrees, column[:, None]).parameters.round(3)
    array([[0.3, 1.5, 0.2, 0.1]])
    """
    radians = np.radians(np.asarray(degrees, dtype=np.float64))
    columns = np.asarray(factor, dtype=np.float64)
    if radians.ndim != 1 or columns.ndim != 2 or len(columns) != len(radians) or not len(radians):
        raise ValueError(f"expected degrees (n,) and factor (n, columns); received {radians.shape} and {columns.shape}")
    if not (np.isfinite(radians).all() and np.isfinite(columns).all()):
        raise ValueError("angles or factor columns hold NaN or infinite values")
    parameters = np.array([_fit_column(radians, column) for column in columns.T])
    rms = np.sqrt(((evaluate(parameters, radians) - columns) ** 2).mean(axis=0))
    return Cosines(parameters, rms)


def fit_axes(grid: PoseGrid, factors: tuple[FloatArray, FloatArray, FloatArray]) -> tuple[Cosines, Cosines, Cosines]:
    """Cosines of the three factor matrices over the grid's axes.

    Parameters
    ----------
    grid : PoseGrid
        Its axes, in degrees.
    factors : tuple of three ndarrays
        Of yaw (Y, ry), pitch (P, rp) and roll (R, rr).

    Returns
    -------
    tuple of three Cosines
        In axis order.

    Examples
    --------
    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (0.0,), (0.0,))
    >>> [fit.parameters.shape for fit in fit_axes(grid, (np.eye(3), np.ones((1, 1)), np.ones((1, 1))))]
    [(3, 4), (1, 4), (1, 4)]
    """
    yaw, pitch, roll = (fit_cosines(axis, factor) for axis, factor in zip(grid.axes, factors, strict=True))
    return yaw, pitch, roll


def _fit_column(radians: FloatArray, column: FloatArray) -> FloatArray:
    if len(radians) == 1:
        return np.array([0.0, 1.0, 0.0, column[0]])
    frequency = 1.0 if len(radians) < 4 else _best_frequency(radians, column)
    (cosine, sine, offset), _ = _solve(radians, column, frequency)
    return np.array([np.hypot(cosine, sine), frequency, np.arctan2(-sine, cosine), offset])


def _best_frequency(radians: FloatArray, column: FloatArray) -> float:
    scan = np.linspace(*FREQUENCY_BOUNDS, _SCAN)
    misfit = [_solve(radians, column, b)[1] for b in scan]
    best = int(np.argmin(misfit))
    bounds = (scan[max(best - 1, 0)], scan[min(best + 1, _SCAN - 1)])
    polished = minimize_scalar(
        lambda b: _solve(radians, column, b)[1], bounds=bounds, method="bounded", options={"xatol": 1e-12}
    )
    return float(polished.x) if polished.fun <= misfit[best] else float(scan[best])


def _solve(radians: FloatArray, column: FloatArray, frequency: float) -> tuple[FloatArray, float]:
    """Best (a cos c, -a sin c, d) at one frequency, and the sum of squares left."""
    design = np.stack([np.cos(frequency * radians), np.sin(frequency * radians), np.ones_like(radians)], axis=1)
    solution = np.linalg.lstsq(design, column, rcond=None)[0]
    return solution, float(((design @ solution - column) ** 2).sum())
