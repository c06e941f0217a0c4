"""Errors of head pose: MAE per angle, MAEV, geodesic distance, per interval, and coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nlml_hpe.rotation import AXES, Angles, angles_from_rotation, geodesic_degrees, rotation_from_angles

VECTORS = ("left", "down", "front")
"""The head's axes whose turning MAEV measures (Cao et al. 2021): columns of R, up to sign."""


@dataclass(frozen=True)
class Errors:
    """Absolute errors of n faces: ``angle`` (n, 3) yaw, pitch, roll; ``vector`` (n, 3); ``geodesic`` (n,); degrees."""

    angle: NDArray[np.float64]
    vector: NDArray[np.float64]
    geodesic: NDArray[np.float64]


def errors(estimated: Angles, true: Angles) -> Errors:
    """Errors of estimated against true angles, both (n,) degrees; angle differences are taken modulo 360."""
    difference = np.abs((estimated.columns() - true.columns() + 180.0) % 360.0 - 180.0)
    first, second = rotation_from_angles(estimated), rotation_from_angles(true)
    cosine = np.clip((first * second).sum(axis=-2), -1.0, 1.0)
    return Errors(difference, np.degrees(np.arccos(cosine)), geodesic_degrees(first, second))


def summary(found: Errors) -> dict[str, Any]:
    """Means as plain numbers: ``mae`` and ``maev`` with their mean, ``geodesic`` mean and median."""
    if not len(found.angle):
        return {"n": 0}
    mae, maev = found.angle.mean(axis=0), found.vector.mean(axis=0)
    return {
        "n": len(found.angle),
        "mae": {**dict(zip(AXES, map(float, mae), strict=True)), "mean": float(mae.mean())},
        "maev": {**dict(zip(VECTORS, map(float, maev), strict=True)), "mean": float(maev.mean())},
        "geodesic": {"mean": float(found.geodesic.mean()), "median": float(np.median(found.geodesic))},
    }


def per_interval(found: Errors, true: Angles, width: float) -> dict[str, list[dict[str, float]]]:
    """MAE of each angle in intervals of ``width`` degrees of its own true value, with the count of each."""
    table: dict[str, list[dict[str, float]]] = {}
    for axis, (name, values) in enumerate(zip(AXES, true, strict=True)):
        bins = np.floor(np.asarray(values) / width).astype(int)
        table[name] = [
            {
                "from": b * width,
                "to": (b + 1) * width,
                "n": int((bins == b).sum()),
                "mae": float(found.angle[bins == b, axis].mean()),
            }
            for b in np.unique(bins)
        ]
    return table


def constant_rotation(estimated: Angles, true: Angles) -> Angles:
    """The rotation C, as angles in degrees, for which ``R(estimated) C`` is nearest to ``R(true)`` over n faces.

    It turns one definition of a frontal head into another. Nearest in the sum of angles, not of their
    squares (iteratively reweighted chordal means, Hartley et al. 2013, section 5.3), so that stray faces
    do not move it. Raises ``ValueError`` where there are no faces.
    """
    if not len(np.asarray(estimated.yaw)):
        raise ValueError("expected at least one face to estimate a rotation from")
    between = np.swapaxes(rotation_from_angles(estimated), -1, -2) @ rotation_from_angles(true)
    relative = Rotation.from_matrix(between)
    mean = relative.mean()
    for _ in range(20):
        mean = relative.mean(1 / np.maximum((mean.inv() * relative).magnitude(), np.radians(1.0)))
    return angles_from_rotation(mean.as_matrix())


def turned(angles: Angles, rotation: Angles) -> Angles:
    """Angles (n,) of the same heads after a constant ``rotation`` of the head's own frame: ``R(angles) C``."""
    return angles_from_rotation(rotation_from_angles(angles) @ rotation_from_angles(rotation))
