"""Errors of head pose: MAE per angle, MAEV, geodesic distance, per interval, and how sure a mean of them is.

Everything is computed of rotations (n, 3, 3), head to camera. Angles are read off them only to be compared with the
labels' own, and then in the reading that is nearer to the label: beyond 90 degrees of yaw, (93, 5, 3) and
(87, -175, -177) are the same rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nlml_hpe.rotation import AXES, Angles, angles_from_rotation, geodesic_degrees

VECTORS = ("left", "down", "front")
"""The head's axes whose turning MAEV measures (Cao et al. 2021): columns of R, up to sign."""
RESAMPLES = 1000
_SEED = 0
_ROUNDS = 20
Rotations = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Errors:
    """Absolute errors of n faces in degrees.

    Attributes
    ----------
    angle : ndarray
        (n, 3), of yaw, pitch and roll.
    vector : ndarray
        (n, 3), the angles by which the head's three axes are off.
    geodesic : ndarray
        (n,), the angle of the rotation between estimate and truth.

    Examples
    --------
    >>> one = Errors(angle=np.array([[2.0, 1.0, 0.0]]), vector=np.zeros((1, 3)), geodesic=np.array([2.2]))
    >>> float(one.angle.mean())
    1.0
    """

    angle: NDArray[np.float64]
    vector: NDArray[np.float64]
    geodesic: NDArray[np.float64]


def errors(estimated: Rotations, true: Rotations, label: Angles | None = None) -> Errors:
    """Errors of estimated against true rotations.

    Parameters
    ----------
    estimated, true : ndarray
        (n, 3, 3), head to camera, in the same head frame.
    label : Angles, optional
        (n,) in degrees, those of ``true`` as the labels have them. At yaw of exactly +-90 a rotation does not tell
        pitch from roll, and without them roll is taken for zero there.

    Returns
    -------
    Errors
        Angle errors are taken modulo 360; elsewhere they do not depend on how either rotation is written as angles.

    Examples
    --------
    >>> from nlml_hpe.rotation import rotation_from_angles
    >>> seen = rotation_from_angles(Angles.from_columns([(93, 5, 3)]))
    >>> label = rotation_from_angles(Angles.from_columns([(95, 6, 3)]))
    >>> errors(seen, label).angle.round(6).tolist()
    [[2.0, 1.0, 0.0]]
    """
    cosine = np.clip((estimated * true).sum(axis=-2), -1.0, 1.0)
    angle = _angle_errors(estimated, angles_from_rotation(true) if label is None else label)
    return Errors(angle, np.degrees(np.arccos(cosine)), geodesic_degrees(estimated, true))


def _angle_errors(estimated: Rotations, label: Angles) -> NDArray[np.float64]:
    """Differences (n, 3) of the angles; of the two triples that are one rotation, the one nearer to the label's."""
    difference = angles_from_rotation(estimated, near=label).columns() - label.columns()
    return np.abs((difference + 180.0) % 360.0 - 180.0)


def summary(found: Errors) -> dict[str, Any]:
    """Means as plain numbers, for a report.

    Parameters
    ----------
    found : Errors
        Of any number of faces.

    Returns
    -------
    dict
        ``n``; ``mae`` and ``maev`` with their mean; ``mae_interval``, the 95% bootstrap interval of every ``mae``;
        ``geodesic`` mean and median; all in degrees. Of no face there is ``n`` alone.

    Examples
    --------
    >>> one = Errors(angle=np.array([[2.0, 1.0, 0.0]]), vector=np.zeros((1, 3)), geodesic=np.array([2.2]))
    >>> summary(one)["mae"]
    {'yaw': 2.0, 'pitch': 1.0, 'roll': 0.0, 'mean': 1.0}
    """
    if not len(found.angle):
        return {"n": 0}
    mae, maev = found.angle.mean(axis=0), found.vector.mean(axis=0)
    return {
        "n": len(found.angle),
        "mae": {**dict(zip(AXES, map(float, mae), strict=True)), "mean": float(mae.mean())},
        "mae_interval": mae_interval(found),
        "maev": {**dict(zip(VECTORS, map(float, maev), strict=True)), "mean": float(maev.mean())},
        "geodesic": {"mean": float(found.geodesic.mean()), "median": float(np.median(found.geodesic))},
    }


def mae_interval(found: Errors, resamples: int = RESAMPLES, seed: int = _SEED) -> dict[str, list[float]]:
    """The 95% bootstrap interval of the MAE over faces, per angle and of their mean.

    Faces are drawn anew, with replacement, ``resamples`` times; the interval is that of the middle 95% of the means.
    It says how far the MAE would move with other faces of the same kind, not how exact the labels are. The same seed
    draws the same faces for every route, so that two intervals of the same faces can be compared.

    Parameters
    ----------
    found : Errors
        Of n faces, one or more.
    resamples, seed : int
        How often, and by which numbers.

    Returns
    -------
    dict of str to list of float
        ``yaw``, ``pitch``, ``roll`` and ``mean`` -> [low, high] in degrees.

    Examples
    --------
    >>> mae_interval(Errors(np.full((50, 3), 2.0), np.zeros((50, 3)), np.zeros(50)))["mean"]
    [2.0, 2.0]
    """
    rng, count = np.random.default_rng(seed), len(found.angle)
    means = np.array([found.angle[rng.integers(count, size=count)].mean(axis=0) for _ in range(resamples)])
    columns = np.column_stack([means, means.mean(axis=1)])
    low, high = np.percentile(columns, (2.5, 97.5), axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate((*AXES, "mean"))}


def per_interval(found: Errors, true: Angles, width: float) -> dict[str, list[dict[str, float]]]:
    """MAE of each angle in intervals of its own true value.

    Parameters
    ----------
    found : Errors
        Of n faces.
    true : Angles
        The labels (n,) in degrees.
    width : float
        Of an interval, in degrees.

    Returns
    -------
    dict of str to list of dict
        Per angle the intervals that hold a face: ``from``, ``to``, ``n`` and ``mae``.

    Raises
    ------
    ValueError
        For a width that is not above zero.

    Examples
    --------
    >>> label = Angles.from_columns([(-3, 0, 0), (4, 0, 0)])
    >>> per_interval(Errors(np.ones((2, 3)), np.ones((2, 3)), np.ones(2)), label, 10.0)["yaw"]
    [{'from': -10.0, 'to': 0.0, 'n': 1, 'mae': 1.0}, {'from': 0.0, 'to': 10.0, 'n': 1, 'mae': 1.0}]
    """
    if not width > 0:
        raise ValueError(f"width: expected degrees above zero; received {width}")
    table: dict[str, list[dict[str, float]]] = {}
    for axis, (name, values) in enumerate(zip(AXES, true, strict=True)):
        bins = np.floor(np.asarray(values) / width).astype(int)
        table[name] = [
            {
                "from": float(b * width),
                "to": float((b + 1) * width),
                "n": int((bins == b).sum()),
                "mae": float(found.angle[bins == b, axis].mean()),
            }
            for b in np.unique(bins)
        ]
    return table


def within_sigma(found: Errors, sigma: NDArray[np.float64]) -> dict[str, Any]:
    """Share of the errors within 1 and 1.96 of the stated standard deviations.

    Parameters
    ----------
    found : Errors
        Of n faces.
    sigma : ndarray
        (n, 3) in degrees, NaN where an answer has none.

    Returns
    -------
    dict
        ``n``, the faces that have error bars, and where there are any ``"1.0"`` and ``"1.96"``: shares of yaw, pitch,
        roll. Good error bars have 0.68 and 0.95.

    Examples
    --------
    >>> two = Errors(np.array([[0.5, 1.5, 3.0], [0.5, 1.5, 3.0]]), np.zeros((2, 3)), np.zeros(2))
    >>> within_sigma(two, np.array([[1.0, 1.0, 1.0], [np.nan, np.nan, np.nan]]))
    {'n': 1, '1.0': [1.0, 0.0, 0.0], '1.96': [1.0, 1.0, 0.0]}
    """
    known = np.isfinite(sigma).all(axis=1)
    # No quotient: of an angle that a model knows one value of, error and deviation may both be zero.
    within = {k: found.angle[known] <= k * sigma[known] for k in (1.0, 1.96)}
    shares = {str(k): held.mean(axis=0).tolist() for k, held in within.items()} if known.any() else {}
    return {"n": int(known.sum()), **shares}


def constant_rotation(
    estimated: Rotations, true: Rotations, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The rotation C for which ``R(estimated) C`` is nearest to ``R(true)``.

    It takes one definition of a frontal head to another. Nearest in the sum of angles, not of their squares
    (iteratively reweighted chordal means, Hartley et al. 2013, section 5.3), so that stray faces do not move it.

    Parameters
    ----------
    estimated, true : ndarray
        (n, 3, 3), head to camera.
    weights : ndarray, optional
        (n,) how much each face counts.

    Returns
    -------
    ndarray
        (3, 3).

    Raises
    ------
    ValueError
        Where there are no faces, and where a rotation is not finite, as that of a face without an answer.

    Examples
    --------
    >>> from nlml_hpe.rotation import rotation_from_angles
    >>> seen = rotation_from_angles(Angles.from_columns([(30, 0, 0), (-20, 10, 5)]))
    >>> c = rotation_from_angles(Angles.from_columns((0, 2, 0)))
    >>> bool(np.allclose(constant_rotation(seen, seen @ c), c))
    True
    """
    if not len(estimated):
        raise ValueError("expected at least one face to estimate a rotation from")
    if not (np.isfinite(estimated).all() and np.isfinite(true).all()):
        raise ValueError("expected rotations of finite numbers; leave out the faces that have no answer")
    counts = np.ones(len(estimated)) if weights is None else weights
    relative = Rotation.from_matrix(np.swapaxes(estimated, -1, -2) @ true)
    mean = relative.mean(counts)
    for _ in range(_ROUNDS):
        mean = relative.mean(counts / np.maximum((mean.inv() * relative).magnitude(), np.radians(1.0)))
    return np.asarray(mean.as_matrix())
