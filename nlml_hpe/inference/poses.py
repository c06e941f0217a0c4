"""Estimates as what users see: one ``HeadPose`` for each face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import Face, HeadPose
from nlml_hpe.inference.engines import Engine, Estimates
from nlml_hpe.rotation import angles_from_rotation


def head_poses(faces: Sequence[Face], answer: Estimates, engine: Engine) -> list[HeadPose]:
    """The poses of N faces from an engine's answer to them."""
    named = angles_from_rotation(answer.rotation).columns()
    own = angles_from_rotation(answer.rotation @ engine.named_from_own.T).columns()
    low, high = np.array(engine.range).T
    inside = ((own >= low) & (own <= high)).all(axis=-1)
    return [_pose(face, named[i], answer, i, bool(inside[i])) for i, face in enumerate(faces)]


def _pose(face: Face, angles: NDArray[np.float64], answer: Estimates, index: int, in_range: bool) -> HeadPose:
    yaw, pitch, roll = map(float, angles)
    sigma, score = tuple(map(float, answer.sigma[index])), float(answer.score[index])
    return HeadPose(
        yaw,
        pitch,
        roll,
        answer.rotation[index],
        (sigma[0], sigma[1], sigma[2]) if np.isfinite(sigma).all() else None,
        in_range,
        np.empty((0, 3)) if face.points is None else face.points,
        face.box,
        score if np.isfinite(score) else None,
    )
