"""The numbers of a ``Calibration``, fitted on labelled faces; few of them, by large differences.

For each range of pose, of the eyes' error vectors in the head's frame:

1. The shared error is what the two eyes' errors have in common: their covariance about each axis of the head, over
   faces that both answer ("three-cornered hat" of two clocks and the labels). How it grows from face to face is not
   fitted (``calibration.GROWTH``).
2. Scale and floor of each eye's own error are the pair of a grid with the largest likelihood of its errors, given the
   shared one; its typical error is the most likely floor without a scale.
3. Widening is what makes intervals of 1.96 standard deviations hold 95% of the errors: out of range those about each
   axis of the head, in range those of each angle. Far to the side an angle says little about one axis.

In 1 and 2 errors are clipped at four of their standard deviations, so that few stray faces do not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.inference.calibration import (
    DEFAULT_CALIBRATION,
    GROWTH,
    HEAD_AXES,
    LIMITS_DEG,
    ON_PHOTOGRAPHS,
    Calibration,
    OwnError,
    RangeName,
    RangeNumbers,
)
from nlml_hpe.inference.fusion import EYES, Eye, Gaussians
from nlml_hpe.rotation import AXES, angles_from_rotation, sigma_from_covariance, vector_from_rotation

LEAST_FACES = 50
"""Fewer faces of a range leave its numbers uncertain by a quarter."""
_LEAST_ANSWERS = 5
_LOST_DEG, _NOTHING_DEG = 45.0, 360.0
"""An eye whose typical error is the first or more knows nothing of such heads, and is weighed by the second: a mean
with it would be drawn aside, and from half a turn apart to the one side or the other."""
_UNKNOWN = OwnError(1.0, 0.0, _NOTHING_DEG)
"""Of an eye that answers hardly any face of a range: what it says there is believed little."""
_SCALES = np.concatenate([[0.0], np.geomspace(0.25, 8.0, 21)])
_FLOORS_DEG = np.concatenate([[0.0], np.geomspace(0.25, 128.0, 37)])
_CLIP, _ONE_DEVIATION = 4.0, 0.683
_HOLD = 0.95
_STANDARD_DEVIATIONS = 1.96
_ROUNDS = 6
"""Of widening by angles, each of which turns about more than one axis of the head where it is not frontal."""
Floats = NDArray[np.float64]


class Labelled(NamedTuple):
    """N faces: true rotations (N, 3, 3), and what the eyes say of them; NaN where an eye has no answer.

    What the image eye says beside the other is ``image``, and ``alone`` where nobody else is asked: then it is shown
    more crops.
    """

    true: Floats
    landmarks: Gaussians
    image: Gaussians
    alone: Gaussians

    def chosen(self, index: NDArray) -> Labelled:
        """Some of the faces, by a mask or by their numbers."""
        parts = (Gaussians(*(values[index] for values in eye)) for eye in self[1:])
        return Labelled(self.true[index], *parts)


def of_range(true: Floats) -> dict[RangeName, NDArray[np.bool_]]:
    """Which labels (N, 3, 3) are of which range."""
    inside = np.asarray((np.abs(angles_from_rotation(true).columns()) <= LIMITS_DEG).all(axis=-1))
    turned = true[:, 2, 2] < 0
    return {"in_range": inside & ~turned, "wide": ~inside & ~turned, "turned": turned}


def fit(
    faces: Labelled, ranges: Sequence[RangeName] = ON_PHOTOGRAPHS, base: Calibration = DEFAULT_CALIBRATION
) -> Calibration:
    """The calibration of a model's eyes.

    Parameters
    ----------
    faces : Labelled
        Labelled faces that the eyes were not trained on. An eye that answers hardly any of a range gets a scale of
        one, no floor, and a typical error of 360 degrees, so that it is hardly believed there.
    ranges : sequence of RangeName
        Which ranges are fitted.
    base : Calibration
        Has the numbers of the other ranges, and the rule of fusion. Where both ranges of photographs are fitted, its
        ``growth`` becomes that of today.

    Returns
    -------
    Calibration
        With the numbers of all ranges.

    Raises
    ------
    ValueError
        Where a range has fewer than ``LEAST_FACES`` faces.
    """
    require_enough(faces.true, ranges)
    parts = {name: faces.chosen(mask) for name, mask in of_range(faces.true).items() if name in ranges}
    # An earlier model's numbers were fitted with its own growth; in turned heads nothing is shared that could grow.
    calibration = replace(base, growth=GROWTH) if {*ON_PHOTOGRAPHS} <= {*ranges} else base
    for name, part in parts.items():
        # Of a head that looks away the landmark eye sees a face that is not there: it shares nothing with the other.
        shared = np.zeros(3) if name == "turned" else shared_variance(part)
        calibration = calibration.with_numbers(name, _numbers(part, shared))
    for name, part in parts.items():
        calibration = calibration.with_numbers(name, _widened(calibration, name, part))
    return calibration


def require_enough(true: Floats, ranges: Sequence[RangeName]) -> None:
    """Raise ``ValueError`` where one of these ranges has fewer than ``LEAST_FACES`` of the true rotations (N, 3, 3)."""
    for name, mask in of_range(true).items():
        if name in ranges and mask.sum() < LEAST_FACES:
            raise ValueError(
                f"a calibration needs {LEAST_FACES} labelled faces or more of each range; {name} has {mask.sum()}"
            )


def _numbers(faces: Labelled, shared: Floats) -> RangeNumbers:
    """Scale and floor of one range, given the variances (3,) of the shared error; nothing is widened."""
    landmarks, image = (own_error(faces.true, each, shared) for each in (faces.landmarks, faces.image))
    deviations = _by_axis(np.degrees(np.sqrt(shared)))
    return RangeNumbers(landmarks, image, deviations, {eye: _by_axis(np.ones(3)) for eye in EYES})


def _by_axis(values: Floats) -> dict[str, float]:
    return dict(zip(HEAD_AXES, map(float, values), strict=True))


def head_errors(true: Floats, estimated: Floats) -> Floats:
    """Error vectors (N, 3) in radians about the head's own axes."""
    in_camera = vector_from_rotation(true @ np.swapaxes(estimated, -1, -2))
    return np.einsum("nji,nj->ni", estimated, in_camera)


def clipped(vectors: Floats) -> Floats:
    """Error vectors (N, 3), none of whose parts is larger than ``_CLIP`` of their deviations."""
    limit = _CLIP * np.quantile(np.abs(vectors), _ONE_DEVIATION, axis=0)
    return np.clip(vectors, -limit, limit)


def shared_variance(faces: Labelled) -> Floats:
    """Variances (3,), in square radians about the head's axes, of the error that both eyes share; never below zero."""
    both = faces.landmarks.is_known & faces.image.is_known
    if both.sum() < LEAST_FACES:
        return np.zeros(3)
    a, b = (clipped(head_errors(faces.true[both], each.rotation[both])) for each in (faces.landmarks, faces.image))
    together = ((a - a.mean(axis=0)) * (b - b.mean(axis=0))).mean(axis=0)
    return np.asarray(np.maximum(together, 0.0))


def own_error(true: Floats, said: Gaussians, shared: Floats) -> OwnError:
    """The most likely scale, floor and typical error of one eye.

    Parameters
    ----------
    true : float array (N, 3, 3)
        True rotations of faces of one range.
    said : Gaussians
        What the eye says of them.
    shared : float array (3,)
        Variances of the shared error about the head's axes, in square radians.

    Returns
    -------
    OwnError
        Of an eye that answers hardly any of them one that is believed little.
    """
    known = said.is_known
    if known.sum() < _LEAST_ANSWERS:
        return _UNKNOWN
    error = clipped(head_errors(true[known], said.rotation[known]))
    back = said.rotation[known]
    stated = np.swapaxes(back, -1, -2) @ said.covariance[known] @ back
    nothing = np.zeros_like(stated)
    floors = np.radians(_FLOORS_DEG) ** 2
    likeliest = np.argmax([_log_likelihood(error, nothing, floor, shared) for floor in floors])
    typical = float(_FLOORS_DEG[likeliest]) if _FLOORS_DEG[likeliest] < _LOST_DEG else _NOTHING_DEG
    has = said.is_weighable[known]
    if not has.any():
        return OwnError(1.0, 0.0, typical)
    grid = [(scale, floor) for scale in _SCALES for floor in floors if scale > 0 or floor > 0]
    likely = [_log_likelihood(error[has], scale**2 * stated[has], floor, shared) for scale, floor in grid]
    scale, floor = grid[int(np.argmax(likely))]
    return OwnError(float(scale), float(np.degrees(np.sqrt(floor))), typical)


def _log_likelihood(error: Floats, covariance: Floats, floor: float, shared: Floats) -> float:
    """Of error vectors (N, 3) under normal distributions with these covariances (N, 3, 3), floor and shared variances
    added; without the constant."""
    whole = covariance + np.diag(np.maximum(floor + shared, np.radians(0.01) ** 2))
    distance = np.einsum("ni,ni->n", error, np.linalg.solve(whole, error[..., None])[..., 0])
    return float(-0.5 * (np.log(np.linalg.det(whole)) + distance).sum())


def _widened(calibration: Calibration, name: RangeName, faces: Labelled) -> RangeNumbers:
    """The range's numbers with the widening that its faces need, for each way to answer them."""
    numbers = calibration.numbers(name)
    for surprise in (_about_head, *([surprises] * _ROUNDS if name == "in_range" else [])):
        at = calibration.with_numbers(name, numbers)
        widening = {}
        for eye in EYES:
            found = surprise(faces.true, answered(at, eye, faces))
            enough = len(found) >= _LEAST_ANSWERS
            factors = np.quantile(found, _HOLD, axis=0) / _STANDARD_DEVIATIONS if enough else np.ones(3)
            # Of an angle that a model knows one value of, deviations are zero: no factor widens those.
            factors = np.where((factors > 0) & np.isfinite(factors), factors, 1.0)
            before = numbers.widening[eye]
            widening[eye] = _by_axis(factors * [before[axis] for axis in HEAD_AXES])
        numbers = replace(numbers, widening=widening)
    return numbers


def _about_head(true: Floats, given: Gaussians) -> Floats:
    """Errors (n, 3) about the head's axes in their standard deviations, of the answers that have some."""
    known = given.is_weighable
    rotation = given.rotation[known]
    about_head = np.swapaxes(rotation, -1, -2) @ given.covariance[known] @ rotation
    deviations = np.sqrt(np.diagonal(about_head, axis1=-2, axis2=-1))
    return _in_deviations(np.abs(head_errors(true[known], rotation)), deviations)


def answered(calibration: Calibration, eye: Eye, faces: Labelled) -> Gaussians:
    """The answers of one eye or of both, as inference gives them.

    Parameters
    ----------
    calibration : Calibration
        By which they are weighed.
    eye : "both", "landmarks" or "image"
        Which one answers.
    faces : Labelled
        N faces.

    Returns
    -------
    Gaussians
        With the covariance of the whole error; NaN where there is no answer.
    """
    nothing = Gaussians(*(np.full_like(faces.true, np.nan) for _ in range(2)))
    pair = {
        "both": (faces.landmarks, faces.image),
        "landmarks": (faces.landmarks, nothing),
        "image": (nothing, faces.alone),
    }
    fused = calibration.answer(*pair[eye])
    return Gaussians(fused.rotation, fused.covariance)


def surprises(true: Floats, given: Gaussians) -> Floats:
    """Errors (n, 3) of pitch, yaw and roll in their standard deviations, of the answers that have some."""
    known = given.is_weighable
    rotation = given.rotation[known]
    deviations = sigma_from_covariance(rotation, given.covariance[known])
    found = _in_deviations(errors(rotation, true[known]).angle, deviations)
    return found[:, [AXES.index(axis) for axis in HEAD_AXES]]


def _in_deviations(error: Floats, deviations: Floats) -> Floats:
    """Errors (n, 3) in their standard deviations: zero where both are, infinite where the deviation alone is."""
    with np.errstate(divide="ignore"):
        return np.divide(error, deviations, out=np.zeros_like(error), where=error > 0)
