"""All looks at a face as one answer: the mean, and what their scatter says of its error.

Every look errs in its own way (``detection.looks``). The exact step is taken once, from the mean of their landmarks,
and where it does not reach, the answer is the mean of the network's answers to all looks; other routes answer every
look, and the answer is the mean of all on the rotation group. The covariance has two parts: the error that is stated,
and the scatter of the looks' answers about their mean, which is large where the landmarks are unsure. Few looks measure
their scatter badly, so that the stated part counts in full for two looks and less for more: what looks do not share,
their scatter shows. The four constants were chosen on the development photographs of AFLW2000-3D
(``evaluation.scores`` measures what they give).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.rotation import mean_rotation, vector_from_rotation

LEAST_STATED, FULLY_STATED = 0.4, 2
"""What the stated covariance is multiplied by: all of it for so many looks, falling as one over their number."""
SCATTER = 2.25
"""What the scatter's covariance is multiplied by: the mean errs by more than its looks lie apart."""
UNSTATED_DEG = 4.2
"""Standard deviation about each axis that stands in for the stated part where no look has one: that of poses at the
edge of the exact step's reach, beyond which the answers are the network's alone."""
HALF_SCORE_DEG = 5.0
"""Standard deviation about each axis at which the score is a half."""
Floats = NDArray[np.float64]
Counts = Sequence[int] | NDArray[np.integer]


def mean_of_looks(rotation: Floats, covariance: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """One rotation and its covariance for each of N faces.

    Parameters
    ----------
    rotation : float array (M, 3, 3)
        Of every look, head to camera; those of a face side by side.
    covariance : float array (M, 3, 3)
        Of every look's error as a rotation vector in the camera frame, in square radians; NaN where it is not known.
    counts : sequence of int, or array (N,)
        How many looks there are at each face, one or more; their sum is M.

    Returns
    -------
    rotation : float array (N, 3, 3)
        The chordal mean of each face's looks.
    covariance : float array (N, 3, 3)
        As of the looks; NaN where there is one look alone that has none.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
    >>> looks = rotation_from_angles(Angles.from_columns([(10, 0, 0), (20, 0, 0), (5, 0, 0)]))
    >>> mean, _ = mean_of_looks(looks, np.full((3, 3, 3), np.nan), [2, 1])
    >>> angles_from_rotation(mean).yaw.round(6).tolist()
    [15.0, 5.0]
    """
    mean, scatter = mean_and_scatter(rotation, counts)
    index, is_look = _rows(counts)
    own = _mean_known(covariance[index], is_look)
    return mean, _of_several(own, scatter, counts)


def with_looks(
    rotation: Floats, covariance: Floats, mean: Floats, scatter: Floats, counts: Counts
) -> tuple[Floats, Floats]:
    """Answers to the mean landmarks of all looks, with what the looks themselves say.

    Parameters
    ----------
    rotation : float array (N, 3, 3)
        Of the mean landmarks of N faces, by the exact step.
    covariance : float array (N, 3, 3)
        As it states them; NaN where it does not reach.
    mean, scatter : float arrays (N, 3, 3)
        Of the network's answers to every look, as of ``mean_and_scatter``.
    counts : sequence of int
        How many looks there are at each face.

    Returns
    -------
    rotation, covariance : float arrays (N, 3, 3)
        The answers, and, of faces that were seen once, as they were.
    """
    is_reached = np.isfinite(covariance).all(axis=(-2, -1))
    # At the edge of its reach the exact step may answer a face and not its mirror image: no covariance, but not the
    # network's answer. What a face that was seen once is answered must not depend on how often others were seen.
    is_kept = is_reached | (np.asarray(counts) == 1)
    return np.where(is_kept[:, None, None], rotation, mean), _of_several(covariance, scatter, counts)


def mean_and_scatter(rotation: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """How the looks at each of N faces lie together.

    Parameters
    ----------
    rotation, counts
        As of ``mean_of_looks``.

    Returns
    -------
    mean : float array (N, 3, 3)
        The chordal mean of each face's looks.
    scatter : float array (N, 3, 3)
        The covariance of their rotation vectors about it, in square radians; nought of a face that was seen once.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> looks = rotation_from_angles(Angles.from_columns([(8, 0, 0), (12, 0, 0), (5, 0, 0)]))
    >>> _, scatter = mean_and_scatter(looks, [2, 1])
    >>> np.degrees(np.sqrt(scatter[:, 1, 1])).round(6).tolist()  # about y, of two looks 2 degrees from their mean
    [2.828427, 0.0]
    """
    index, is_look = _rows(counts)
    mean = mean_rotation(rotation[index], is_look)
    away = vector_from_rotation(rotation[index] @ np.swapaxes(mean, -1, -2)[:, None]) * is_look[..., None]
    further = np.maximum(np.asarray(counts) - 1, 1)
    return mean, np.einsum("nki,nkj->nij", away, away) / further[:, None, None]


def _rows(counts: Counts) -> tuple[NDArray[np.int_], NDArray[np.bool_]]:
    """Which rows (N, K) the looks at each face are, of which some repeat, and which of them count."""
    sizes = np.asarray(counts, dtype=int)
    position = np.arange(sizes.max(initial=1))
    is_look = position < sizes[:, None]
    # Rows of one length: a place beyond a face's last look repeats it, and counts nothing.
    return (np.cumsum(sizes) - sizes)[:, None] + np.minimum(position, sizes[:, None] - 1), is_look


def _of_several(stated: Floats, scatter: Floats, counts: Counts) -> Floats:
    """Covariances (N, 3, 3): of one look as stated, of several with their scatter."""
    sizes = np.asarray(counts, dtype=int)
    return np.where((sizes > 1)[:, None, None], _combined(stated, scatter, sizes), stated)


def _mean_known(covariance: Floats, is_look: NDArray[np.bool_]) -> Floats:
    """The mean (N, 3, 3) of those of a face's looks (N, K, 3, 3) that are known; NaN where none is."""
    known = is_look & np.isfinite(covariance).all(axis=(-2, -1))
    total = np.where(known[..., None, None], covariance, 0.0).sum(axis=1)
    return total / np.where(known.any(axis=1), known.sum(axis=1), np.nan)[:, None, None]


def _combined(stated: Floats, scatter: Floats, sizes: NDArray[np.int_]) -> Floats:
    unstated = np.radians(UNSTATED_DEG) ** 2 * np.eye(3)
    share = np.clip(FULLY_STATED / sizes, LEAST_STATED, 1.0)[:, None, None]
    return share * np.where(np.isfinite(stated), stated, unstated) + SCATTER * scatter


def score_of(covariance: Floats) -> Floats:
    """How sure poses are, in 0..1: a half where the standard deviation about each axis is 5 degrees.

    Parameters
    ----------
    covariance : float array (..., 3, 3)
        Of the error's rotation vector, in square radians.

    Returns
    -------
    float array (...)
        One over one plus the mean variance in units of 5 degrees squared; NaN where the covariance is not known.

    Examples
    --------
    >>> score_of(np.radians([0.0, 2.5, 5.0, 15.0])[:, None, None] ** 2 * np.eye(3)).round(3).tolist()
    [1.0, 0.8, 0.5, 0.1]
    """
    variance = np.trace(covariance, axis1=-2, axis2=-1) / 3
    return np.asarray(1 / (1 + variance / np.radians(HALF_SCORE_DEG) ** 2))
