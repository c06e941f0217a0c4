"""Rotations (..., 3, 3), head to camera, which is what travels: THE angle convention, means and distances, covariances.

Import from here. ``convention`` has the signs and orders, which CONVENTIONS.md shows in pictures; ``group`` knows no
angles.
"""

from nlml_hpe.rotation.convention import (
    AXES,
    CONVENTION,
    IMAGE_FROM_CAMERA,
    MIRROR_SIGNS,
    OWN_FRAME,
    Angles,
    angles_from_rotation,
    check_head_frame,
    mirrored,
    rotate_image_points,
    rotation_from_angles,
)
from nlml_hpe.rotation.covariance import covariance_from_sigma, nose_cone, sigma_from_covariance
from nlml_hpe.rotation.group import (
    geodesic_degrees,
    inverse_3x3,
    is_rotation,
    kabsch,
    mean_rotation,
    midpoint,
    rotation_from_vector,
    vector_from_rotation,
)

__all__ = [
    "AXES",
    "CONVENTION",
    "IMAGE_FROM_CAMERA",
    "MIRROR_SIGNS",
    "OWN_FRAME",
    "Angles",
    "angles_from_rotation",
    "check_head_frame",
    "covariance_from_sigma",
    "geodesic_degrees",
    "inverse_3x3",
    "is_rotation",
    "kabsch",
    "mean_rotation",
    "midpoint",
    "mirrored",
    "nose_cone",
    "rotate_image_points",
    "rotation_from_angles",
    "rotation_from_vector",
    "sigma_from_covariance",
    "vector_from_rotation",
]
