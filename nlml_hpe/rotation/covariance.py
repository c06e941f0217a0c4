"""Covariances of a rotation's error, and the standard deviations of yaw, pitch and roll that they mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.rotation.convention import GIMBAL_LOCK
from nlml_hpe.rotation.group import cross_matrix

SIGMA_OF_NOTHING = 180 / np.sqrt(3)
"""Standard deviation of an angle that is anything between -180 and 180 degrees."""

FloatArray = NDArray[np.float64]


def covariance_from_sigma(rotation: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Covariance of a rotation's error from the standard deviations of its three angles, taken as independent.

    The error is the rotation vector w in the camera frame with ``R(true) = exp([w]) R(estimated)``; to first order it
    is linear in the errors of the angles.

    Parameters
    ----------
    rotation : array (..., 3, 3)
        Rotations that map head to camera.
    sigma : array (..., 3)
        Standard deviations of yaw, pitch and roll in degrees; NaN where they are not known. More than 104 degrees,
        which an angle has of which nothing is known, count as 104.

    Returns
    -------
    float array (..., 3, 3)
        In square radians; NaN where ``sigma`` is. It does not depend on which head frame the rotation is in, as long
        as ``sigma`` is that of the same frame's angles.

    Examples
    --------
    >>> covariance = covariance_from_sigma(np.eye(3), [3.0, 2.0, 1.0])
    >>> np.degrees(np.sqrt(np.diag(covariance))).round(6).tolist()  # about x: pitch, about y: yaw, about z: roll
    [2.0, 3.0, 1.0]
    """
    bounded = np.minimum(np.asarray(sigma, dtype=np.float64), SIGMA_OF_NOTHING)
    jacobian = _error_from_angles(rotation) * np.radians(bounded)[..., None, :]
    return np.asarray(jacobian @ np.swapaxes(jacobian, -1, -2))


def sigma_from_covariance(rotation: ArrayLike, covariance: ArrayLike) -> FloatArray:
    """Standard deviations (..., 3) of yaw, pitch and roll in degrees: the inverse of ``covariance_from_sigma``.

    Correlations between the angles are left out. Where yaw is +-90 degrees pitch and roll cannot be told apart: no
    standard deviation is larger than that of an angle of which nothing is known (104 degrees). NaN stays NaN.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> rotation = rotation_from_angles(Angles.from_columns((40, 20, 10)))
    >>> sigma_from_covariance(rotation, covariance_from_sigma(rotation, [3.0, 2.0, 1.0])).round(6).tolist()
    [3.0, 2.0, 1.0]
    """
    jacobian = _error_from_angles(rotation)
    yaw, pitch, roll = jacobian[..., 0], jacobian[..., 1], jacobian[..., 2]
    # The axis of yaw is at right angles to the other two, which are parallel where the cosine of yaw is zero.
    by_pitch, by_roll = (cross_matrix(yaw) @ axis[..., None] for axis in (pitch, roll))
    cosine = np.abs((by_pitch[..., 0] * roll).sum(axis=-1, keepdims=True))
    over = 1 / np.maximum(cosine, GIMBAL_LOCK)
    inverse = np.stack([yaw, -by_roll[..., 0] * over, by_pitch[..., 0] * over], axis=-2)
    variances = ((inverse @ np.asarray(covariance, dtype=np.float64)) * inverse).sum(axis=-1)
    sigma = np.minimum(np.degrees(np.sqrt(np.maximum(variances, 0.0))), SIGMA_OF_NOTHING)
    sigma[..., 1:] = np.where(cosine < GIMBAL_LOCK, np.maximum(sigma[..., 1:], SIGMA_OF_NOTHING), sigma[..., 1:])
    return sigma


def nose_cone(rotation: ArrayLike, covariance: ArrayLike, content: float = 0.95, count: int = 48) -> FloatArray:
    """Where the nose points, as far as is known: a cone about the head's z axis.

    The error's rotation vector w moves the direction d by ``w x d``, which is normally distributed in the plane at
    right angles to d. The cone's edge is that distribution's ellipse, laid on the sphere by great circles from d.

    Parameters
    ----------
    rotation : array (3, 3)
        Head to camera.
    covariance : array (3, 3)
        Of w, in square radians, as ``covariance_from_sigma``.
    content : float
        How likely the true direction lies within, in 0..1.
    count : int
        Of directions on the edge.

    Returns
    -------
    float array (count, 3)
        Unit vectors in the camera frame, in order around the cone. A doubt beyond all measure ends at the direction
        that is opposite.

    Raises
    ------
    ValueError
        For a covariance that is not finite, and for a content that is no share.

    Examples
    --------
    >>> sure, unsure = (nose_cone(np.eye(3), np.radians(degrees) ** 2 * np.eye(3)) for degrees in (2.0, 10.0))
    >>> [round(float(np.degrees(np.arccos(cone[0, 2]))), 2) for cone in (sure, unsure)]  # half the angle
    [4.9, 24.48]
    """
    if not np.isfinite(covariance).all():
        raise ValueError("expected a covariance of finite numbers: an answer without error bars has no cone")
    if not 0 < content < 1:
        raise ValueError(f"content: expected a share between 0 and 1; received {content!r}")
    direction = np.asarray(rotation, dtype=np.float64)[:, 2]
    # Any two axes across the direction will do; the head's own x and y are such.
    across = np.asarray(rotation, dtype=np.float64)[:, :2]
    moved = np.cross(np.eye(3), direction) @ across  # (3, 2): w to the two components of w x d
    plane = moved.T @ np.asarray(covariance, dtype=np.float64) @ moved
    variances, axes = np.linalg.eigh(plane)
    # Of two normal variables of variance 1 the squared radius within which this share lies.
    radius = np.sqrt(-2 * np.log(1 - content) * np.maximum(variances, 0.0))
    around = np.linspace(0, 2 * np.pi, count, endpoint=False)
    steps = (np.stack([np.cos(around), np.sin(around)], axis=1) * radius) @ axes.T @ across.T
    angle = np.linalg.norm(steps, axis=1, keepdims=True)
    bounded = np.minimum(angle, np.pi)
    return np.asarray(np.cos(bounded) * direction + np.sin(bounded) * steps / np.maximum(angle, 1e-12))


def _error_from_angles(rotation: ArrayLike) -> FloatArray:
    """Jacobian (..., 3, 3): the error's rotation vector in the camera frame by errors of yaw, pitch and roll.

    The signs of its columns are not determined, nor needed where errors of the angles are independent.
    """
    matrices = np.asarray(rotation, dtype=np.float64)
    # Each angle turns about its own axis of the sequence: pitch about the camera's x; yaw about that y which pitch has
    # turned; roll about the head's own z, the last column of R.
    along_y, along_z = matrices[..., 2, 2], -matrices[..., 1, 2]
    length = np.hypot(along_y, along_z)
    locked = length < GIMBAL_LOCK
    if locked.any():  # then roll is taken for zero, and pitch is read off the second column
        along_y, along_z = (np.where(locked, matrices[..., row, 1], free) for row, free in ((1, along_y), (2, along_z)))
        length = np.hypot(along_y, along_z)
    jacobian = np.zeros(matrices.shape)
    jacobian[..., 1, 0], jacobian[..., 2, 0] = along_y / length, along_z / length
    jacobian[..., 0, 1] = 1.0
    jacobian[..., :, 2] = matrices[..., :, 2]
    return jacobian
