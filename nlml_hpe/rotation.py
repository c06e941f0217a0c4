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
from scipy.spatial.transform import Rotation

CONVENTION = "R = from_euler('XYZ', [-pitch, -yaw, -roll] deg), head to camera (x right, y up, z to viewer)"
AXES = ("yaw", "pitch", "roll")
IMAGE_FROM_CAMERA: NDArray[np.float64] = np.diag([1.0, -1.0, -1.0])

FloatArray = NDArray[np.float64]


class Angles(NamedTuple):
    """Head pose angles in degrees; the three fields share one shape."""

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
    """Rotation matrices ``(..., 3, 3)``, head to camera, of angles in degrees of shape ``(...)``."""
    columns = angles.columns()
    sequence = -columns[..., [1, 0, 2]].reshape(-1, 3)
    return Rotation.from_euler("XYZ", sequence, degrees=True).as_matrix().reshape(*columns.shape[:-1], 3, 3)


def angles_from_rotation(rotation: ArrayLike) -> Angles:
    """Angles in degrees of rotation matrices ``(..., 3, 3)``, head to camera.

    Yaw lies in [-90, 90]; at exactly +-90 pitch and roll are not separable (gimbal lock).
    """
    matrices = np.asarray(rotation, dtype=np.float64)
    if matrices.shape[-2:] != (3, 3):
        raise ValueError(f"expected rotation matrices (..., 3, 3); received shape {matrices.shape}")
    sequence = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_euler("XYZ", degrees=True)
    return Angles.from_columns(-sequence[:, [1, 0, 2]].reshape(*matrices.shape[:-2], 3))


def geodesic_degrees(rotation_a: ArrayLike, rotation_b: ArrayLike) -> FloatArray:
    """Angle in degrees, shape ``(...)``, of the rotation that takes ``a`` to ``b`` (both ``(..., 3, 3)``)."""
    relative = np.swapaxes(np.asarray(rotation_a, float), -1, -2) @ np.asarray(rotation_b, float)
    flat = Rotation.from_matrix(relative.reshape(-1, 3, 3)).magnitude()
    return np.degrees(flat).reshape(relative.shape[:-2])


def rotate_image_points(points: ArrayLike, rotation: ArrayLike) -> FloatArray:
    """Rotate points ``(..., N, 3)`` given in image axes by head-to-camera rotations ``(..., 3, 3)``."""
    in_image = IMAGE_FROM_CAMERA @ np.asarray(rotation, float) @ IMAGE_FROM_CAMERA
    return np.asarray(points, float) @ np.swapaxes(in_image, -1, -2)


def kabsch(source: ArrayLike, target: ArrayLike) -> tuple[FloatArray, float, float]:
    """Similarity that best takes ``source`` to ``target``, both ``(N, 3)`` (Umeyama 1991, eqs. 40-42).

    Returns the rotation ``(3, 3)``, the scale, and the rms residual in the unit of ``target``.
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
