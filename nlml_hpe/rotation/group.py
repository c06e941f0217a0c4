"""Rotations as such, in any frame: means, rotation vectors, distances, and what best takes points to points."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SMALLEST = 1e-30

FloatArray = NDArray[np.float64]


def _quaternions() -> FloatArray:
    """(9, 16): from a rotation's entries, row by row, to its quaternion four times over, but for ones on the diagonal.

    Row 0 is 4 w (w, x, y, z), row 1 is 4 x of it, and so on.
    """
    made = np.zeros((3, 3, 4, 4))
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        for row, column, sign in ((last, after, 1.0), (after, last, -1.0)):
            made[row, column, 0, axis + 1] = made[row, column, axis + 1, 0] = sign
            made[row, column, after + 1, last + 1] = made[row, column, last + 1, after + 1] = 1.0
        for place in range(4):
            made[axis, axis, place, place] = 1.0 if place in (0, axis + 1) else -1.0
    return made.reshape(9, 16)


_QUATERNIONS, _IDENTITY_4, _FOUR = _quaternions(), np.eye(4).reshape(-1), np.arange(4)
_IDENTITY = np.eye(3)
_SKEW = np.cross(_IDENTITY[:, None], _IDENTITY[None]).swapaxes(1, 2).reshape(3, 9)
"""From a vector to the entries, row by row, of the matrix that multiplies by it crosswise."""


def is_rotation(matrices: ArrayLike, tolerance: float) -> NDArray[np.bool_]:
    """Whether matrices are rotations, to rounding.

    Parameters
    ----------
    matrices : array_like of shape (..., 3, 3)
        Any numbers, NaN among them.
    tolerance : float
        How far a number of the matrix times its transpose may be from the identity's.

    Returns
    -------
    ndarray of bool, shape (...)
        False for a mirror image, too.

    Examples
    --------
    >>> is_rotation([np.eye(3), -np.eye(3), np.zeros((3, 3)), np.full((3, 3), np.nan)], 1e-3).tolist()
    [True, False, False, False]
    """
    given = np.asarray(matrices)
    # Numbers too large to be squared are no rotations either.
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.abs(given @ np.swapaxes(given, -1, -2) - np.eye(3)).max(axis=(-2, -1))
        return np.asarray((apart <= tolerance) & (np.linalg.det(given) > 0))


def midpoint(rotation_a: ArrayLike, rotation_b: ArrayLike) -> FloatArray:
    """The rotations ``(..., 3, 3)`` half-way from ``a`` to ``b``: the mean of two on the rotation group.

    ``a`` times the square root of ``a.T @ b``; the geodesic midpoint and the chordal mean of two rotations are the
    same. Two rotations that are half a turn apart have no single midpoint: then the answer is no rotation.

    Parameters
    ----------
    rotation_a, rotation_b : array_like of shape (..., 3, 3)
        In any order.

    Returns
    -------
    ndarray of shape (..., 3, 3)
        The means.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
    >>> first, second = (rotation_from_angles(Angles.from_columns((yaw, 0, 0))) for yaw in (10, 40))
    >>> round(float(angles_from_rotation(midpoint(first, second)).yaw), 6)
    25.0
    """
    a, b = np.asarray(rotation_a, dtype=np.float64), np.asarray(rotation_b, dtype=np.float64)
    between = np.swapaxes(a, -1, -2) @ b
    # Rodrigues' formula for half the angle, by its cosine alone: no division by the sine of a small angle.
    trace = np.trace(between, axis1=-2, axis2=-1)[..., None, None]
    cosine = np.sqrt(np.maximum(1.0 + trace, _SMALLEST)) / 2
    skew = (between - np.swapaxes(between, -1, -2)) / (4 * cosine)
    return np.asarray(a @ (np.eye(3) + skew + skew @ skew / (1 + cosine)))


def mean_rotation(rotations: ArrayLike, weights: ArrayLike | None = None) -> FloatArray:
    """The chordal mean of several rotations: the one nearest to all in the sum of squares of entries.

    The mean of the matrices, projected onto the rotations by a singular value decomposition (Hartley et al. 2013,
    section 5.1). Of two rotations it is ``midpoint``.

    Parameters
    ----------
    rotations : array (..., K, 3, 3)
        Of which each mean is taken over K.
    weights : array (..., K), optional
        How much each counts; zero or more. By default all count alike.

    Returns
    -------
    float array (..., 3, 3)
        Rotations.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
    >>> seen = rotation_from_angles(Angles.from_columns([(10, 0, 0), (20, 0, 0), (30, 0, 0)]))
    >>> round(float(angles_from_rotation(mean_rotation(seen)).yaw), 6)
    20.0
    """
    matrices = np.asarray(rotations, dtype=np.float64)
    counts = np.ones(matrices.shape[:-2]) if weights is None else np.asarray(weights, dtype=np.float64)
    left, _, right = np.linalg.svd((matrices * counts[..., None, None]).sum(axis=-3))
    left[..., :, 2] *= np.sign(np.linalg.det(left @ right))[..., None]
    return np.asarray(left @ right)


def cross_matrix(vector: FloatArray) -> FloatArray:
    """Matrices ``(..., 3, 3)`` that multiply by vectors ``(..., 3)`` crosswise: ``cross_matrix(a) @ b`` is a x b."""
    return np.asarray((vector @ _SKEW).reshape(*vector.shape, 3))


def inverse_3x3(matrices: FloatArray) -> FloatArray:
    """Inverses of small matrices, written out by cross products of their rows.

    ``numpy.linalg.inv`` wakes a thread of its own even for these, which then waits in a loop for a tenth of a second:
    on a processor of two cores half of what there is.

    Parameters
    ----------
    matrices : float array (..., 3, 3)
        Of any kind.

    Returns
    -------
    float array (..., 3, 3)
        Not finite where a matrix has no inverse.

    Examples
    --------
    >>> inverse_3x3(np.diag([1.0, 2.0, 4.0])).diagonal().tolist()
    [1.0, 0.5, 0.25]
    """
    first, second, third = (matrices[..., row, :] for row in range(3))
    pairs = ((second, third), (third, first), (first, second))
    across = np.stack([(cross_matrix(a) @ b[..., None])[..., 0] for a, b in pairs], axis=-1)
    determinant = (first * across[..., 0]).sum(axis=-1)
    return np.asarray(across / determinant[..., None, None])


def rotation_from_vector(vector: ArrayLike) -> FloatArray:
    """Rotations ``(..., 3, 3)`` of rotation vectors ``(..., 3)`` in radians: axis times angle (Rodrigues' formula).

    Examples
    --------
    >>> rotation_from_vector([0.0, 0.0, np.pi / 2]).round(6) @ [1.0, 0.0, 0.0]
    array([0., 1., 0.])
    """
    vectors = np.asarray(vector, dtype=np.float64)
    angle = np.sqrt((vectors * vectors).sum(axis=-1))[..., None, None]
    skew = cross_matrix(vectors)
    # numpy's sinc is that of pi times its argument; both factors stay exact where the angle is zero.
    linear, square = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.asarray(_IDENTITY + linear * skew + square * (skew @ skew))


def vector_from_rotation(rotation: ArrayLike) -> FloatArray:
    """Rotation vectors ``(..., 3)`` in radians, no longer than pi: the inverse of ``rotation_from_vector``.

    Of half a turn there are two, and either is the answer.

    Examples
    --------
    >>> vector_from_rotation(rotation_from_vector([0.1, -0.2, 3.0])).round(6)
    array([ 0.1, -0.2,  3. ])
    """
    matrices = np.asarray(rotation, dtype=np.float64)
    # The quaternion (w, x, y, z) up to its length, four times over; the row that begins with the largest entry is exact
    # where others vanish (Shepperd 1978).
    four = (matrices.reshape(-1, 9) @ _QUATERNIONS + _IDENTITY_4).reshape(-1, 4, 4)
    rows = np.arange(len(four))
    quaternion = four[rows, four[:, _FOUR, _FOUR].argmax(axis=1)]
    quaternion[quaternion[:, 0] < 0] *= -1.0
    vector = quaternion[:, 1:]
    sine = np.sqrt((vector * vector).sum(axis=1))
    half = np.arctan2(sine, quaternion[:, 0])
    tiny = sine < _SMALLEST
    scale = np.where(tiny, 0.0, 2 * half / np.where(tiny, 1.0, sine))
    return np.asarray((vector * scale[:, None]).reshape(matrices.shape[:-1]))


def geodesic_degrees(rotation_a: ArrayLike, rotation_b: ArrayLike) -> FloatArray:
    """Angle of the rotation that takes one rotation to another.

    Parameters
    ----------
    rotation_a, rotation_b : array_like of shape (..., 3, 3)
        In any order.

    Returns
    -------
    ndarray of shape (...)
        In degrees, 0 to 180.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> turned = rotation_from_angles(Angles.from_columns((30, 0, 0)))
    >>> round(float(geodesic_degrees(np.eye(3), turned)), 6)
    30.0
    """
    relative = np.swapaxes(np.asarray(rotation_a, float), -1, -2) @ np.asarray(rotation_b, float)
    return np.asarray(np.degrees(np.linalg.norm(vector_from_rotation(relative), axis=-1)))


def kabsch(source: ArrayLike, target: ArrayLike) -> tuple[FloatArray, float, float]:
    """Similarity that best takes some points to others (Umeyama 1991, eqs. 40-42).

    Parameters
    ----------
    source, target : array_like of shape (N, 3)
        Points in the same order.

    Returns
    -------
    rotation : ndarray of shape (3, 3)
        Of the points of ``source`` about their mean.
    scale : float
        What they are multiplied by.
    residual : float
        Root mean square of what is left, in the unit of ``target``.

    Raises
    ------
    ValueError
        For arrays of other or different shapes, and where the points of ``source`` coincide, or there are none.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> points = np.random.default_rng(0).normal(size=(5, 3))
    >>> turn = rotation_from_angles(Angles.from_columns((30, 0, 0)))
    >>> rotation, scale, residual = kabsch(points, 2 * points @ turn.T + 1)
    >>> bool(np.allclose(rotation, turn)), round(scale, 6), round(residual, 6)
    (True, 2.0, 0.0)
    """
    source_array, target_array = np.asarray(source, float), np.asarray(target, float)
    if source_array.shape != target_array.shape or source_array.ndim != 2 or source_array.shape[1] != 3:
        raise ValueError(f"expected two (N, 3) arrays; received {source_array.shape} and {target_array.shape}")
    if not len(source_array) or not np.ptp(source_array, axis=0).any():
        raise ValueError(f"expected points that do not coincide; received {len(source_array)} in one place")
    centred_source = source_array - source_array.mean(axis=0)
    centred_target = target_array - target_array.mean(axis=0)
    left, singular, right = np.linalg.svd(centred_target.T @ centred_source)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * sign) @ right
    scale = float((singular * sign).sum() / (centred_source**2).sum())
    residual = centred_target - scale * centred_source @ rotation.T
    return rotation, scale, float(np.sqrt((residual**2).sum(axis=1).mean()))
