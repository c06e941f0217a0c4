"""Two eyes' answers as one, within a graph: ``inference.calibration`` and ``inference.fusion`` with their numbers."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from nlml_hpe.export.image_graph import Said
from nlml_hpe.export.landmark_graph import Seen
from nlml_hpe.inference.calibration import (
    BLEND,
    HEAD_AXES,
    LIMITS_DEG,
    RANGES,
    TURNED_DEG,
    Calibration,
    OwnError,
    RangeName,
)
from nlml_hpe.inference.fusion import CHOSEN_WRONGLY, EYES, LEAST_VARIANCE
from nlml_hpe.model.onnx_math import (
    atan2,
    degrees_from_rotation,
    entry,
    reduced,
    scaled,
    shaped,
    square,
    transposed,
)
from nlml_hpe.model.onnx_rotation import about, outer, rotation_from_vector, vector_from_rotation

Single = Literal["landmarks", "image"]


class Answer(NamedTuple):
    """Rotation and covariance (N, 3, 3) of N heads, and the index (N,) in ``fusion.EYES`` of the eye that answers."""

    rotation: Var
    covariance: Var
    eye: Var


def fused(landmarks: Seen, image: Said, calibration: Calibration) -> Answer:
    """One answer from both eyes, as ``Calibration.answer``; that of the image eye where the landmark eye has none.

    Parameters
    ----------
    landmarks : Seen
        What ``landmark_graph.landmark_eye`` gives for N heads.
    image : Said
        What ``image_graph.image_eye`` gives for the same heads, in the same head frame.
    calibration : Calibration
        Its numbers become constants of the graph.

    Returns
    -------
    Answer
        Of N heads.
    """
    known = op.unsqueeze(landmarks.is_known, op.const([2]))
    first = Said(op.where(known, landmarks.said.rotation, image.rotation), landmarks.said.covariance)
    shares = _range_shares(first.rotation, image.rotation)
    own, other = _own("landmarks", first, calibration, shares), _own("image", image, calibration, shares)
    first_variance = _weighed_by("landmarks", own, calibration, shares)
    second_variance = _weighed_by("image", other, calibration, shares)
    mean, covariance, apart, distance = _weighted(own, other, first_variance, second_variance)
    agree = op.less_or_equal(distance, op.const(calibration.contradiction))
    surer = op.less_or_equal(_trace(own.covariance), _trace(other.covariance))
    chosen = op.where(agree, _index("both"), op.where(surer, _index("landmarks"), _index("image")))
    eye = op.where(landmarks.is_known, chosen, _index("image"))
    if np.isfinite(calibration.prior):
        bounded = op.min([distance, op.const(calibration.contradiction)])
        factor = op.div(op.add(bounded, op.const(calibration.prior)), op.const(calibration.prior + 3))
    else:
        factor = op.const(np.ones((1, 1)))
    grown = op.where(landmarks.is_known, factor, op.const(1.0))
    rotation = _of_eye(eye, mean, own.rotation, other.rotation)
    covariance = op.mul(_of_eye(eye, covariance, own.covariance, other.covariance), op.unsqueeze(grown, op.const([2])))
    doubtful = op.and_(landmarks.is_known, op.not_(agree))
    doubt = op.mul(outer(apart), op.const(CHOSEN_WRONGLY))
    covariance = op.where(op.unsqueeze(doubtful, op.const([2])), op.add(covariance, doubt), covariance)
    return Answer(rotation, _finished(rotation, covariance, eye, calibration, shares), shaped(eye, (-1,)))


def single(eye: Single, said: Said, calibration: Calibration | None) -> Answer:
    """The answer of one eye alone.

    Parameters
    ----------
    eye : "landmarks" or "image"
        Which one.
    said : Said
        What it says of N heads.
    calibration : Calibration or None
        Without one the covariance is what the eye says.

    Returns
    -------
    Answer
        Of N heads.
    """
    every = op.less_or_equal(_trace(said.rotation), op.const(3.0))  # as many as there are heads
    index = op.where(every, _index(eye), _index(eye))
    covariance = said.covariance
    if calibration is not None:
        shares = _range_shares(said.rotation)
        own = _own(eye, said, calibration, shares)
        covariance = _finished(said.rotation, own.covariance, index, calibration, shares)
    return Answer(said.rotation, covariance, shaped(index, (-1,)))


def _weighed_by(eye: Single, own: Said, calibration: Calibration, shares: Var) -> Var:
    """Variances (N, 1) by which an eye is weighed; ``fusion._fused``."""
    least = op.max([_typical(eye, calibration, shares), op.const(LEAST_VARIANCE)])
    return op.max([scaled(_trace(own.covariance), 1 / 3), least])


def _weighted(a: Said, b: Said, first: Var, second: Var) -> tuple[Var, Var, Var, Var]:
    """Weighted mean and its covariance (N, 3, 3), the rotation vectors (N, 3) from a to b and the squared Mahalanobis
    distance (N, 1); ``fusion._fused``."""
    together = op.add(first, second)
    gain = op.div(first, together)
    apart = vector_from_rotation(op.matmul(b.rotation, transposed(a.rotation)))
    distance = op.div(reduced(op.reduce_sum, square(apart), 1, keep=True), together)
    mean = op.matmul(rotation_from_vector(op.mul(gain, apart)), a.rotation)
    share, rest = (op.unsqueeze(square(each), op.const([2])) for each in (gain, op.sub(op.const(1.0), gain)))
    return mean, op.add(op.mul(rest, a.covariance), op.mul(share, b.covariance)), apart, distance


def _range_shares(*rotations: Var) -> Var:
    """As ``calibration.range_shares``."""
    wide, turned = (op.max([share(rotation) for rotation in rotations]) for share in (_wide, _turned))
    ahead = op.sub(op.const(1.0), turned)
    return op.concat([op.mul(op.sub(op.const(1.0), wide), ahead), op.mul(wide, ahead), turned], axis=1)


def _wide(rotation: Var) -> Var:
    """As ``calibration._wide``, (N, 1)."""
    beyond = op.div(op.abs(degrees_from_rotation(rotation)), op.const(np.array(LIMITS_DEG)))
    return _between(reduced(op.reduce_max, beyond, 1, keep=True), 1.0, 1.0 + BLEND)


def _turned(rotation: Var) -> Var:
    """As ``calibration._turned``, (N, 1)."""
    # Of exactly half a turn ``atan2`` knows no half's tangent.
    cosine = op.clip(entry(rotation, 2, 2), op.const(-1.0 + 1e-12), op.const(1.0))
    sine = op.sqrt(op.sub(op.const(1.0), square(cosine)))
    return _between(scaled(atan2(sine, cosine), np.degrees(1.0)), *TURNED_DEG)


def _between(values: Var, low: float, high: float) -> Var:
    """0 up to ``low``, 1 from ``high`` on."""
    return op.clip(scaled(op.sub(values, op.const(low)), 1 / (high - low)), op.const(0.0), op.const(1.0))


def _own(eye: Single, said: Said, calibration: Calibration, shares: Var) -> Said:
    """As ``Calibration.own``."""
    parts = {}
    for name in RANGES:
        error = _error(eye, calibration, name)
        floor = op.const(np.radians(error.floor_deg) ** 2 * np.eye(3))
        parts[name] = op.add(scaled(said.covariance, error.scale**2), floor)
    total = reduced(op.reduce_sum, shaped(said.covariance, (-1, 9)), 1, keep=True)
    unknown = op.unsqueeze(op.or_(op.isnan(total), op.isinf(total)), op.const([2]))
    typical = op.mul(op.unsqueeze(_typical(eye, calibration, shares), op.const([2])), op.const(np.eye(3)))
    return Said(said.rotation, op.where(unknown, typical, _blended(shares, parts)))


def _typical(eye: Single, calibration: Calibration, shares: Var) -> Var:
    """As ``Calibration.typical``, (N, 1)."""
    variances = [[np.radians(_error(eye, calibration, name).typical_deg) ** 2] for name in RANGES]
    return op.matmul(shares, op.const(np.array(variances)))


def _finished(rotation: Var, covariance: Var, eye: Var, calibration: Calibration, shares: Var) -> Var:
    """As ``Calibration.finished``; ``eye`` is (N, 1)."""
    about_head, parts = about(transposed(rotation), covariance), {}
    grown = _grown(covariance, eye, calibration, shares)
    for name in RANGES:
        numbers = calibration.numbers(name)
        shared = np.radians([numbers.shared_deg[axis] for axis in HEAD_AXES]) ** 2
        table = np.array([[numbers.widening[each][axis] for axis in HEAD_AXES] for each in EYES])
        factors = outer(op.gather(op.const(table), shaped(eye, (-1,)), axis=0))
        parts[name] = op.mul(factors, op.add(about_head, op.mul(grown, op.const(np.diag(shared)))))
    return about(rotation, _blended(shares, parts))


def _grown(covariance: Var, eye: Var, calibration: Calibration, shares: Var) -> Var:
    """As ``Calibration._grown``; ``eye`` is (N, 1)."""
    landmarks, image = (
        op.max([_typical(each, calibration, shares), op.const(LEAST_VARIANCE)]) for each in ("landmarks", "image")
    )
    both = op.div(op.mul(landmarks, image), op.add(landmarks, image))
    typical = op.where(op.equal(eye, _index("landmarks")), landmarks, image)
    typical = op.where(op.equal(eye, _index("both")), both, typical)
    ratio = op.div(scaled(_trace(covariance), 1 / 3), typical)
    return op.unsqueeze(op.pow(ratio, op.const(calibration.growth)), op.const([2]))


def _blended(shares: Var, parts: dict[RangeName, Var]) -> Var:
    """Each head's mean of the ranges' matrices (N, 3, 3), by its shares of them."""
    each = op.split(op.unsqueeze(shares, op.const([2])), num_outputs=len(RANGES), axis=1)
    return op.sum([op.mul(share, parts[name]) for share, name in zip(each, RANGES, strict=True)])


def _error(eye: Single, calibration: Calibration, name: RangeName) -> OwnError:
    error: OwnError = getattr(calibration.numbers(name), eye)
    return error


def _of_eye(eye: Var, both: Var, landmarks: Var, image: Var) -> Var:
    """Matrices (N, 3, 3) by the index (N, 1) of the eye that answers."""
    index = op.unsqueeze(eye, op.const([2]))
    of_one = op.where(op.equal(index, _index("landmarks")), landmarks, image)
    return op.where(op.equal(index, _index("both")), both, of_one)


def _index(eye: Literal["both", "landmarks", "image"]) -> Var:
    return op.const(np.array([[EYES.index(eye)]], dtype=np.int64))


def _trace(matrices: Var) -> Var:
    """Traces (N, 1) of (N, 3, 3)."""
    rows = reduced(op.reduce_sum, op.mul(matrices, op.const(np.eye(3))), 2, keep=False)
    return reduced(op.reduce_sum, rows, 1, keep=True)
