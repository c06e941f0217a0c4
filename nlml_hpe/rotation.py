"""THE angle convention of this project, and nothing else that knows about signs or orders.

Camera frame: x right in the image, y up, z towards the viewer. Head frame: the same axes for a
frontal face. A rotation ``R`` maps head to camera and is built from angles in degrees as the
intrinsic sequence ``XYZ`` of ``(-pitch, -yaw, -roll)``. This is the labelling of AFLW2000-3D and
300W-LP: yaw > 0 turns the face to image left, pitch > 0 lifts the nose, roll > 0 turns the top of
the head to image right. CONVENTIONS.md shows pictures.

WARNING: image axes (x right, y down, z into the scene), in which landmarks live, are the camera
axes turned half about x; ``IMAGE_FROM_CAMERA`` converts, and is its own inverse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONVENTION = "R = from_euler('XYZ', [-pitch, -yaw, -roll] deg), head to camera (x right, y up, z to viewer)"
AXES = ("yaw", "pitch", "roll")
IMAGE_FROM_CAMERA: NDArray[np.float64] = np.diag([1.0, -1.0, -1.0])

MIRROR_SIGNS: NDArray[np.float64] = np.array([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
"""What the mirror multiplies the entries of a rotation by: ``M R M`` with ``M = diag(-1, 1, 1)``."""
_GIMBAL_LOCK = 1e-12
_LARGEST_SUM = 270.0
"""Degrees: what yaw, pitch and roll of one rotation have together, in one of its two triples at most."""
_SMALLEST = 1e-30
_SIGMA_OF_NOTHING = 180 / np.sqrt(3)
"""Standard deviation of an angle that is anything between -180 and 180 degrees."""

FloatArray = NDArray[np.float64]


class Angles(NamedTuple):
    """Head pose angles in degrees; the three fields share one shape.

    Parameters
    ----------
    yaw, pitch, roll : float array (...)
        In degrees; `CONVENTION` says how they make a rotation.

    Examples
    --------
    >>> Angles.from_columns([(30, 20, 10), (-5, 0, 0)]).yaw
    array([30., -5.])
    """

    yaw: FloatArray
    pitch: FloatArray
    roll: FloatArray

    @classmethod
    def from_columns(cls, columns: ArrayLike) -> Angles:
        """Angles from an array ``(..., 3)`` whose last axis is yaw, pitch, roll in degrees."""
        array = np.asarray(columns, dtype=np.float64)
        if array.shape[-1:] != (3,):
            raise ValueError(f"expected (..., 3) columns yaw, pitch, roll; received shape {array.shape}")
        return cls(array[..., 0], array[..., 1], array[..., 2])

    def columns(self) -> FloatArray:
        """The angles as one array ``(..., 3)``, columns yaw, pitch, roll in degrees."""
        return np.stack(np.broadcast_arrays(*self), axis=-1).astype(np.float64)


OWN_FRAME = "own"
"""Name of the head frame of a model's own training heads, which no rotation leads to."""


def check_head_frame(name: str, yaw: float, pitch: float, roll: float) -> None:
    """Raise ``ValueError`` unless the constant rotation to a head frame, in degrees, is finite and has a name.

    Examples
    --------
    >>> check_head_frame("w300lp", 0.1, 1.85, -0.15)
    >>> check_head_frame("own", 0.0, 20.0, 0.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: a rotation leads to a head frame of another name than 'own', which is that of the training heads; ...
    """
    if not np.isfinite([yaw, pitch, roll]).all():
        raise ValueError(f"a head frame needs finite angles; received yaw {yaw:g}, pitch {pitch:g}, roll {roll:g}")
    if not name.strip():
        raise ValueError("a head frame needs a name, for instance w300lp")
    if name == OWN_FRAME and (yaw, pitch, roll) != (0.0, 0.0, 0.0):
        raise ValueError(
            f"a rotation leads to a head frame of another name than {OWN_FRAME!r}, which is that of the training "
            f"heads; give it one, such as 'w300lp' (received yaw {yaw:g}, pitch {pitch:g}, roll {roll:g})"
        )


def rotation_from_angles(angles: Angles) -> FloatArray:
    """Rotations of angles.

    Parameters
    ----------
    angles : Angles
        Yaw, pitch and roll in degrees, each of shape ``(...)``.

    Returns
    -------
    float array (..., 3, 3)
        Rotations that map head to camera.

    Examples
    --------
    >>> nose = rotation_from_angles(Angles.from_columns((90, 0, 0))) @ [0, 0, 1]
    >>> nose.round(6) + 0.0  # yaw > 0 turns the face to image left
    array([-1.,  0.,  0.])
    """
    negated = -np.radians(angles.columns())
    sines, cosines = np.sin(negated), np.cos(negated)
    sin_yaw, sin_pitch, sin_roll = (sines[..., axis] for axis in range(3))
    cos_yaw, cos_pitch, cos_roll = (cosines[..., axis] for axis in range(3))
    # The product of the turns about x by pitch, about y by yaw, about z by roll, multiplied out.
    rotation = np.empty((*negated.shape, 3))
    rotation[..., 0, 0] = cos_yaw * cos_roll
    rotation[..., 0, 1] = -cos_yaw * sin_roll
    rotation[..., 0, 2] = sin_yaw
    rotation[..., 1, 0] = cos_pitch * sin_roll + sin_pitch * sin_yaw * cos_roll
    rotation[..., 1, 1] = cos_pitch * cos_roll - sin_pitch * sin_yaw * sin_roll
    rotation[..., 1, 2] = -sin_pitch * cos_yaw
    rotation[..., 2, 0] = sin_pitch * sin_roll - cos_pitch * sin_yaw * cos_roll
    rotation[..., 2, 1] = sin_pitch * cos_roll + cos_pitch * sin_yaw * sin_roll
    rotation[..., 2, 2] = cos_pitch * cos_yaw
    return rotation


def angles_from_rotation(rotation: ArrayLike, near: Angles | None = None) -> Angles:
    """Angles of rotations, read so that they go on without a jump where yaw passes 90 degrees.

    Two triples have the same rotation: (yaw, pitch, roll) and (180 - yaw, pitch + 180, roll + 180). The answer is the
    one with the smaller angles: their absolute values together are 270 degrees at most. So a head at yaw 85 that turns
    on by 10 degrees is at yaw 95, not at yaw 85 upside down, and a face that hangs upside down has a roll of 180, not a
    yaw of 180. All three angles lie in (-180, 180]. At yaw of exactly +-90 only the sum or the
    difference of pitch and roll is determined (gimbal lock), and roll is zero there: far to the side compare
    rotations, not angles.

    Parameters
    ----------
    rotation : array (..., 3, 3)
        Rotations that map head to camera.
    near : Angles, optional
        Known angles in degrees, for instance those of a label. Of the two triples the one nearer to them is the
        answer, in place of the rule above.

    Returns
    -------
    Angles
        Yaw, pitch and roll in degrees, each of shape ``(...)``.

    Raises
    ------
    ValueError
        For another shape.

    Examples
    --------
    >>> rotation = rotation_from_angles(Angles.from_columns((95, 5, 3)))
    >>> angles_from_rotation(rotation).columns().round(6)
    array([95.,  5.,  3.])
    """
    matrices = np.asarray(rotation, dtype=np.float64)
    if matrices.shape[-2:] != (3, 3):
        raise ValueError(f"expected rotation matrices (..., 3, 3); received shape {matrices.shape}")
    sine = matrices[..., 0, 2]
    across = np.hypot(matrices[..., 0, 0], matrices[..., 0, 1])
    locked = across < _GIMBAL_LOCK
    yaw = np.arctan2(sine, across)
    pitch = np.where(
        locked,
        np.arctan2(matrices[..., 2, 1], matrices[..., 1, 1]),
        np.arctan2(-matrices[..., 1, 2], matrices[..., 2, 2]),
    )
    roll = np.where(locked, 0.0, np.arctan2(-matrices[..., 0, 1], matrices[..., 0, 0]))
    first = _half_open(-np.degrees(np.stack([yaw, pitch, roll], axis=-1)))
    from_first = np.abs(first if near is None else _half_open(first - near.columns())).sum(axis=-1)
    if near is None and (from_first <= _LARGEST_SUM).all():
        return Angles.from_columns(first)
    second = _half_open([180.0, 180.0, 180.0] + np.array([-1.0, 1.0, 1.0]) * first)
    from_second = np.abs(second if near is None else _half_open(second - near.columns())).sum(axis=-1)
    return Angles.from_columns(np.where((from_first <= from_second)[..., None], first, second))


def _half_open(degrees: FloatArray) -> FloatArray:
    """The same angles in (-180, 180]."""
    return -((180.0 - degrees) % 360.0 - 180.0)


def mirrored(rotation: ArrayLike) -> FloatArray:
    """Rotations ``(..., 3, 3)`` of the mirror images of these heads: yaw and roll change their signs.

    The mirror turns x around in the camera frame and in the head's own: ``M R M`` with ``M = diag(-1, 1, 1)``.

    Parameters
    ----------
    rotation : array_like of shape (..., 3, 3)
        Head to camera.

    Returns
    -------
    ndarray of shape (..., 3, 3)
        Head to camera.

    Examples
    --------
    >>> seen = mirrored(rotation_from_angles(Angles.from_columns((30, 20, 10))))
    >>> angles_from_rotation(seen).columns().round(6)
    array([-30.,  20., -10.])
    """
    return np.asarray(np.asarray(rotation, dtype=np.float64) * MIRROR_SIGNS)


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
    """The chordal mean (..., 3, 3) of several rotations: the one nearest to all in the sum of squares of entries.

    The mean of the matrices, projected onto the rotations by a singular value decomposition (Hartley et al. 2013,
    section 5.1). Of two rotations it is ``midpoint``.

    Parameters
    ----------
    rotations : array (..., K, 3, 3)
        Of which each mean is taken over K.
    weights : array (..., K), optional
        How much each counts; zero or more. By default all count alike.

    Examples
    --------
    >>> seen = rotation_from_angles(Angles.from_columns([(10, 0, 0), (20, 0, 0), (30, 0, 0)]))
    >>> round(float(angles_from_rotation(mean_rotation(seen)).yaw), 6)
    20.0
    """
    matrices = np.asarray(rotations, dtype=np.float64)
    counts = np.ones(matrices.shape[:-2]) if weights is None else np.asarray(weights, dtype=np.float64)
    left, _, right = np.linalg.svd((matrices * counts[..., None, None]).sum(axis=-3))
    left[..., :, 2] *= np.sign(np.linalg.det(left @ right))[..., None]
    return np.asarray(left @ right)


def rotation_from_vector(vector: ArrayLike) -> FloatArray:
    """Rotations ``(..., 3, 3)`` of rotation vectors ``(..., 3)`` in radians: axis times angle (Rodrigues' formula).

    Examples
    --------
    >>> rotation_from_vector([0.0, 0.0, np.pi / 2]).round(6) @ [1.0, 0.0, 0.0]
    array([0., 1., 0.])
    """
    vectors = np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = ((zero, -z, y), (z, zero, -x), (-y, x, zero))
    skew = np.stack([np.stack(row, -1) for row in rows], -2)
    # numpy's sinc is that of pi times its argument; both factors stay exact where the angle is zero.
    linear, square = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.asarray(np.eye(3) + linear * skew + square * (skew @ skew))


def vector_from_rotation(rotation: ArrayLike) -> FloatArray:
    """Rotation vectors ``(..., 3)`` in radians, no longer than pi: the inverse of ``rotation_from_vector``.

    Of half a turn there are two, and either is the answer.

    Examples
    --------
    >>> vector_from_rotation(rotation_from_vector([0.1, -0.2, 3.0])).round(6)
    array([ 0.1, -0.2,  3. ])
    """
    matrices = np.asarray(rotation, dtype=np.float64)
    xx, yy, zz = (matrices[..., axis, axis] for axis in range(3))
    x = matrices[..., 2, 1] - matrices[..., 1, 2]
    y = matrices[..., 0, 2] - matrices[..., 2, 0]
    z = matrices[..., 1, 0] - matrices[..., 0, 1]
    xy, xz, yz = (matrices[..., a, b] + matrices[..., b, a] for a, b in ((0, 1), (0, 2), (1, 2)))
    # The quaternion (w, x, y, z) up to its length, four times over; the row that begins with the largest entry is exact
    # where others vanish (Shepperd 1978).
    of_w, of_x = (1 + xx + yy + zz, x, y, z), (x, 1 + xx - yy - zz, xy, xz)
    of_y, of_z = (y, xy, 1 - xx + yy - zz, yz), (z, xz, yz, 1 - xx - yy + zz)
    four = np.stack([np.stack(row, -1) for row in (of_w, of_x, of_y, of_z)], -2)
    largest = np.argmax(np.stack([four[..., n, n] for n in range(4)], -1), -1)
    quaternion = np.take_along_axis(four, largest[..., None, None], -2)[..., 0, :]
    quaternion = quaternion * np.where(quaternion[..., :1] < 0, -1.0, 1.0)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    half = np.arctan2(sine, quaternion[..., :1])
    tiny = sine < _SMALLEST
    return np.asarray(quaternion[..., 1:] * np.where(tiny, 0.0, 2 * half / np.where(tiny, 1.0, sine)))


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
    >>> turned = rotation_from_angles(Angles.from_columns((30, 0, 0)))
    >>> round(float(geodesic_degrees(np.eye(3), turned)), 6)
    30.0
    """
    relative = np.swapaxes(np.asarray(rotation_a, float), -1, -2) @ np.asarray(rotation_b, float)
    return np.asarray(np.degrees(np.linalg.norm(vector_from_rotation(relative), axis=-1)))


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
    bounded = np.minimum(np.asarray(sigma, dtype=np.float64), _SIGMA_OF_NOTHING)
    jacobian = _error_from_angles(rotation) * np.radians(bounded)[..., None, :]
    return np.asarray(jacobian @ np.swapaxes(jacobian, -1, -2))


def sigma_from_covariance(rotation: ArrayLike, covariance: ArrayLike) -> FloatArray:
    """Standard deviations (..., 3) of yaw, pitch and roll in degrees: the inverse of ``covariance_from_sigma``.

    Correlations between the angles are left out. Where yaw is +-90 degrees pitch and roll cannot be told apart: no
    standard deviation is larger than that of an angle of which nothing is known (104 degrees). NaN stays NaN.

    Examples
    --------
    >>> rotation = rotation_from_angles(Angles.from_columns((40, 20, 10)))
    >>> sigma_from_covariance(rotation, covariance_from_sigma(rotation, [3.0, 2.0, 1.0])).round(6).tolist()
    [3.0, 2.0, 1.0]
    """
    yaw, pitch, roll = np.moveaxis(_error_from_angles(rotation), -1, 0)
    # The axis of yaw is at right angles to the other two, which are parallel where the cosine of yaw is zero.
    cosine = np.abs((np.cross(pitch, roll) * yaw).sum(axis=-1, keepdims=True))
    over = 1 / np.maximum(cosine, _GIMBAL_LOCK)
    inverse = np.stack([yaw, np.cross(roll, yaw) * over, np.cross(yaw, pitch) * over], axis=-2)
    variances = ((inverse @ np.asarray(covariance, dtype=np.float64)) * inverse).sum(axis=-1)
    sigma = np.minimum(np.degrees(np.sqrt(np.maximum(variances, 0.0))), _SIGMA_OF_NOTHING)
    sigma[..., 1:] = np.where(cosine < _GIMBAL_LOCK, np.maximum(sigma[..., 1:], _SIGMA_OF_NOTHING), sigma[..., 1:])
    return sigma


def _error_from_angles(rotation: ArrayLike) -> FloatArray:
    """Jacobian (..., 3, 3): the error's rotation vector in the camera frame by errors of yaw, pitch and roll.

    The signs of its columns are not determined, nor needed where errors of the angles are independent.
    """
    matrices = np.asarray(rotation, dtype=np.float64)
    # Each angle turns about its own axis of the sequence: pitch about the camera's x; yaw about that y which pitch has
    # turned; roll about the head's own z, the last column of R.
    along_y, along_z = matrices[..., 2, 2], -matrices[..., 1, 2]
    length = np.hypot(along_y, along_z)
    locked = length < _GIMBAL_LOCK
    if locked.any():  # then roll is taken for zero, and pitch is read off the second column
        along_y, along_z = (np.where(locked, matrices[..., row, 1], free) for row, free in ((1, along_y), (2, along_z)))
        length = np.hypot(along_y, along_z)
    jacobian = np.zeros(matrices.shape)
    jacobian[..., 1, 0], jacobian[..., 2, 0] = along_y / length, along_z / length
    jacobian[..., 0, 1] = 1.0
    jacobian[..., :, 2] = matrices[..., :, 2]
    return jacobian


def rotate_image_points(points: ArrayLike, rotation: ArrayLike) -> FloatArray:
    """Turn points in image axes (x right, y down, z into the scene) as a head turns.

    Parameters
    ----------
    points : array_like of shape (..., N, 3)
        In image axes.
    rotation : array_like of shape (..., 3, 3)
        Head to camera.

    Returns
    -------
    ndarray of shape (..., N, 3)
        In image axes.

    Examples
    --------
    A head that lifts its nose, which lies before it (-z), moves it up (-y):

    >>> lifted = rotation_from_angles(Angles.from_columns((0, 90, 0)))
    >>> rotate_image_points([[0.0, 0.0, -1.0]], lifted).round() + 0.0
    array([[ 0., -1.,  0.]])
    """
    in_image = IMAGE_FROM_CAMERA @ np.asarray(rotation, float) @ IMAGE_FROM_CAMERA
    return np.asarray(points, float) @ np.swapaxes(in_image, -1, -2)


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
        For arrays of other or different shapes.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal(size=(5, 3))
    >>> turn = rotation_from_angles(Angles.from_columns((30, 0, 0)))
    >>> rotation, scale, residual = kabsch(points, 2 * points @ turn.T + 1)
    >>> bool(np.allclose(rotation, turn)), round(scale, 6), round(residual, 6)
    (True, 2.0, 0.0)
    """
    source_array, target_array = np.asarray(source, float), np.asarray(target, float)
    if source_array.shape != target_array.shape or source_array.ndim != 2 or source_array.shape[1] != 3:
        raise ValueError(f"expected two (N, 3) arrays; received {source_array.shape} and {target_array.shape}")
    centred_source = source_array - source_array.mean(axis=0)
    centred_target = target_array - target_array.mean(axis=0)
    left, singular, right = np.linalg.svd(centred_target.T @ centred_source)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * sign) @ right
    scale = float((singular * sign).sum() / (centred_source**2).sum())
    residual = centred_target - scale * centred_source @ rotation.T
    return rotation, scale, float(np.sqrt((residual**2).sum(axis=1).mean()))
