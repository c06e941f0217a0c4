"""Answers as users see them: one ``HeadPose`` for each face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import Face, HeadPose
from nlml_hpe.inference.engines import Engine
from nlml_hpe.inference.eyes import Answer
from nlml_hpe.rotation import angles_from_rotation


def head_poses(faces: Sequence[Face], answer: Answer, engine: Engine) -> list[HeadPose]:
    """The poses of N faces from the answer to them.

    Parameters
    ----------
    faces : sequence of Face
        Which were answered.
    answer : Answer
        To these faces, in their order.
    engine : Engine
        Says how far its training reached.

    Returns
    -------
    list of HeadPose
        In the same order, in the named head frame.

    Raises
    ------
    ValueError
        Where a face has no answer.
    """
    estimates = answer.estimates
    if (missing := int((answer.eye == "").sum())) > 0:
        raise ValueError(
            f"{missing} of {len(faces)} faces cannot be answered: the landmark eye needs landmarks, the image eye an "
            "image and a box in it or at its border (left < right, top < bottom); find faces with a landmark "
            "detector, or leave these out"
        )
    own_rotation = estimates.in_own_frame(engine.named_from_own).rotation
    named, own = angles_from_rotation(np.stack([estimates.rotation, own_rotation])).columns()
    low, high = np.array(engine.range).T
    inside = ((own >= low) & (own <= high)).all(axis=-1)
    sigma, score = estimates.sigma.tolist(), estimates.score.tolist()
    return [_pose(face, named[i], sigma[i], score[i], answer, i, bool(inside[i])) for i, face in enumerate(faces)]


def _pose(
    face: Face,
    angles: NDArray[np.float64],
    sigma: Sequence[float],
    score: float,
    answer: Answer,
    index: int,
    in_range: bool,
) -> HeadPose:
    yaw, pitch, roll = map(float, angles)
    estimates = answer.estimates
    covariance = estimates.covariance[index]
    return HeadPose(
        yaw,
        pitch,
        roll,
        estimates.rotation[index],
        (sigma[0], sigma[1], sigma[2]) if np.isfinite(sigma).all() else None,
        in_range,
        # A copy: whoever writes into it does not change the face, which may be asked about again.
        np.empty((0, 3)) if face.points is None else face.points.copy(),
        face.box,
        score if np.isfinite(score) else None,
        str(answer.eye[index]),
        covariance=covariance if np.isfinite(covariance).all() else None,
    )
