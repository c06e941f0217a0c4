"""THE angle convention of this project: signs, orders and axes.

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
IMAGE_FROM_CAMERA.flags.writeable = MIRROR_SIGNS.flags.writeable = False
GIMBAL_LOCK = 1e-12
"""Cosine of yaw below which pitch and roll are not told apart."""
_LARGEST_SUM = 270.0
"""Degrees: what yaw, pitch and roll of one rotation have together, in one of its two triples at most."""

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
        """Angles from one array.

        Parameters
        ----------
        columns : array_like of shape (..., 3)
            Yaw, pitch and roll along the last axis, in degrees.

        Returns
        -------
        Angles
            Each field of shape (...), float64.

        Raises
        ------
        ValueError
            Where the last axis has another length.
        """
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
    """Require that the constant rotation to a head frame is finite and has a name.

    Parameters
    ----------
    name : str
        Of the head frame.
    yaw, pitch, roll : float
        Of the rotation from the own frame, in degrees.

    Raises
    ------
    ValueError
        Where it is not, and where a rotation is given to the own frame.

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
    rotations, not angles. The three together always make the rotation that was given, to its rounding.

    Parameters
    ----------
    rotation : array (..., 3, 3)
        Rotations that map head to camera.
    near : Angles, optional
        Known angles in degrees, for instance those of a label. Of the two triples the one nearer to them is the
        answer, in place of the rule above, and in gimbal lock roll is theirs.

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
    first = _within_ninety(matrices, near)
    from_first = np.abs(first if near is None else _half_open(first - near.columns())).sum(axis=-1)
    if near is None and (from_first <= _LARGEST_SUM).all():
        return Angles.from_columns(first)
    second = _half_open([180.0, 180.0, 180.0] + np.array([-1.0, 1.0, 1.0]) * first)
    from_second = np.abs(second if near is None else _half_open(second - near.columns())).sum(axis=-1)
    return Angles.from_columns(np.where((from_first <= from_second)[..., None], first, second))


def _within_ninety(matrices: FloatArray, near: Angles | None) -> FloatArray:
    """Of the two triples of each rotation the one (..., 3) whose yaw lies within 90 degrees."""
    across = np.hypot(matrices[..., 0, 0], matrices[..., 0, 1])
    locked = across < GIMBAL_LOCK
    yaw = np.arctan2(matrices[..., 0, 2], across)
    pitch = np.where(
        locked,
        np.arctan2(matrices[..., 2, 1], matrices[..., 1, 1]),
        np.arctan2(-matrices[..., 1, 2], matrices[..., 2, 2]),
    )
    # What is left once pitch is undone. Near yaw +-90 a rounded rotation does not tell pitch well: roll then makes up
    # for it, where one read by itself would be off on its own.
    cosine, sine = np.cos(pitch)[..., None], np.sin(pitch)[..., None]
    rest = cosine * matrices[..., 1, :2] + sine * matrices[..., 2, :2]
    roll = np.arctan2(rest[..., 0], rest[..., 1])
    angles = _half_open(-np.degrees(np.stack([yaw, pitch, roll], axis=-1)))
    if near is not None and locked.any():
        # Any roll will do, with the pitch that goes with it.
        free = np.where(locked, near.roll, 0.0)
        angles = _half_open(angles + np.stack([0.0 * free, np.sign(angles[..., 0]) * free, free], axis=-1))
    return angles


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
