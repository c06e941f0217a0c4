"""``rotation`` written with what ONNX has: means of rotations, rotation vectors, and covariances of their errors.

ONNX has no singular value decomposition. Means and vectors go by quaternions in its place: a rotation's is the one row
of ``4 q q'`` up to its length, and the mean of several is the largest eigenvector of the sum of these matrices (Markley
et al. 2007), which is the chordal mean. Every function takes and gives variables of a graph, in float64.
"""

from __future__ import annotations

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from nlml_hpe.model.onnx_math import atan2, columns, entry, reduced, scaled, shaped, square, transposed
from nlml_hpe.rotation.convention import GIMBAL_LOCK
from nlml_hpe.rotation.covariance import SIGMA_OF_NOTHING

_SQUARINGS = 14
"""Of the sum of ``q q'``: an eigenvalue counts nothing where it is a thousandth smaller than the largest."""
_TINY = 1e-30


def _table(rows: list[list[dict[int, float]]]) -> np.ndarray:
    """A matrix (entries of a rotation and a one, entries) of rows of ``{index: factor}``."""
    flat = [entry_of for row in rows for entry_of in row]
    table = np.zeros((10, len(flat)))
    for place, factors in enumerate(flat):
        for index, factor in factors.items():
            table[index, place] = factor
    return table


def _quaternion_table() -> np.ndarray:
    """From the nine entries of a rotation, row by row, and a one to the sixteen of ``4 q q'``, q = (w, x, y, z)."""
    xx, xy, xz, yx, yy, yz, zx, zy, zz, one = range(10)
    diagonal = [
        {one: 1.0, xx: a, yy: b, zz: c} for a, b, c in ((1.0, 1, 1), (1, -1.0, -1.0), (-1.0, 1, -1.0), (-1.0, -1.0, 1))
    ]
    x, y, z = {zy: 1.0, yz: -1.0}, {xz: 1.0, zx: -1.0}, {yx: 1.0, xy: -1.0}
    of_xy, of_xz, of_yz = ({a: 1.0, b: 1.0} for a, b in ((xy, yx), (xz, zx), (yz, zy)))
    return _table(
        [
            [diagonal[0], x, y, z],
            [x, diagonal[1], of_xy, of_xz],
            [y, of_xy, diagonal[2], of_yz],
            [z, of_xz, of_yz, diagonal[3]],
        ]
    )


_QUATERNIONS = _quaternion_table()
_SKEW = np.zeros((3, 9))
_SKEW[[0, 0, 1, 1, 2, 2], [5, 7, 2, 6, 1, 3]] = [-1, 1, 1, -1, -1, 1]


def _products(rotation: Var, weight: Var) -> Var:
    """``4 w q q'`` (N, 4, 4) of rotations (N, 3, 3) times their weights (N, 1), and sums of such."""
    return shaped(op.matmul(op.concat([shaped(rotation, (0, 9)), weight], axis=1), op.const(_QUATERNIONS)), (0, 4, 4))


def _quaternion(products: Var) -> Var:
    """Quaternions (N, 4), w first and not below zero, up to their length: rows with the largest entry (Shepperd)."""
    diagonal = reduced(op.reduce_sum, op.mul(products, op.const(np.eye(4))), 2, keep=False)
    largest = op.arg_max(diagonal, axis=1, keepdims=1)
    chosen = op.cast(op.equal(largest, op.const(np.arange(4))), to=np.float64)
    row = shaped(op.matmul(op.unsqueeze(chosen, op.const([1])), products), (0, 4))
    return op.where(op.less(columns(row, 0, 1), op.const(0.0)), op.neg(row), row)


def mean_rotation(total: Var, weight: Var) -> Var:
    """The chordal means (N, 3, 3) of which the weighted sums (N, 3, 3) and the sums of weights (N, 1) are given.

    As ``rotation.mean_rotation``.
    """
    power = _products(total, weight)
    for _ in range(_SQUARINGS):
        trace = reduced(op.reduce_sum, op.mul(power, op.const(np.eye(4))), 2, keep=False)
        power = op.div(power, op.unsqueeze(reduced(op.reduce_sum, trace, 1, keep=True), op.const([2])))
        power = op.matmul(power, power)
    four = _quaternion(power)
    unit = op.div(four, op.sqrt(reduced(op.reduce_sum, square(four), 1, keep=True)))
    bent = skewed(columns(unit, 1, 4))
    turn = op.mul(bent, scaled(op.unsqueeze(columns(unit, 0, 1), op.const([2])), 2.0))
    return op.add(op.add(op.const(np.eye(3)), turn), scaled(op.matmul(bent, bent), 2.0))


def skewed(vector: Var) -> Var:
    """Matrices (N, 3, 3) of the cross products with vectors (N, 3)."""
    return shaped(op.matmul(vector, op.const(_SKEW)), (0, 3, 3))


def rotation_from_vector(vector: Var) -> Var:
    """Rotations (N, 3, 3) of rotation vectors (N, 3) in radians; as ``rotation.rotation_from_vector``."""
    angle = op.max([_length(vector), op.const(1e-12)])
    half = op.div(op.sin(scaled(angle, 0.5)), angle)
    linear, bend = (op.unsqueeze(part, op.const([2])) for part in (op.div(op.sin(angle), angle), square(half)))
    skew = skewed(vector)
    return op.add(op.add(op.const(np.eye(3)), op.mul(linear, skew)), op.mul(scaled(bend, 2.0), op.matmul(skew, skew)))


def vector_from_rotation(rotation: Var) -> Var:
    """Rotation vectors (N, 3) in radians; as ``rotation.vector_from_rotation``."""
    one = op.add(scaled(entry(rotation, 0, 0), 0.0), op.const(1.0))
    quaternion = _quaternion(_products(rotation, one))
    axis = columns(quaternion, 1, 4)
    sine = _length(axis)
    half = atan2(sine, columns(quaternion, 0, 1))
    return op.mul(axis, op.div(scaled(half, 2.0), op.max([sine, op.const(_TINY)])))


def outer(vector: Var) -> Var:
    """Products ``v v'`` (N, a, a) of vectors (N, a)."""
    return op.matmul(op.unsqueeze(vector, op.const([2])), op.unsqueeze(vector, op.const([1])))


def about(rotation: Var, covariance: Var) -> Var:
    """Covariances ``R C R'`` (N, 3, 3)."""
    return op.matmul(op.matmul(rotation, covariance), transposed(rotation))


def covariance_from_sigma(rotation: Var, sigma: Var) -> Var:
    """Covariances (N, 3, 3) of rotations' errors from sigma (N, 3) in degrees; as in ``rotation``; NaN stays NaN."""
    bounded = op.where(op.greater(sigma, op.const(SIGMA_OF_NOTHING)), op.const(SIGMA_OF_NOTHING), sigma)
    jacobian = op.mul(_error_from_angles(rotation), op.unsqueeze(scaled(bounded, np.radians(1.0)), op.const([1])))
    return op.matmul(jacobian, transposed(jacobian))


def sigma_from_covariance(rotation: Var, covariance: Var) -> Var:
    """Standard deviations (N, 3) of yaw, pitch and roll in degrees; as ``rotation.sigma_from_covariance``."""
    jacobian = _error_from_angles(rotation)
    yaw, pitch, roll = (shaped(columns(jacobian, axis, axis + 1, axis=2), (0, 3)) for axis in range(3))
    cosine = op.abs(reduced(op.reduce_sum, op.mul(_cross(pitch, roll), yaw), 1, keep=True))
    over = op.max([cosine, op.const(GIMBAL_LOCK)])
    rows = [yaw, op.div(_cross(roll, yaw), over), op.div(_cross(yaw, pitch), over)]
    inverse = op.concat([op.unsqueeze(row, op.const([1])) for row in rows], axis=1)
    variances = reduced(op.reduce_sum, op.mul(op.matmul(inverse, covariance), inverse), 2, keep=False)
    degrees = scaled(op.sqrt(op.where(op.less(variances, op.const(0.0)), op.const(0.0), variances)), np.degrees(1.0))
    known = op.where(op.greater(degrees, op.const(SIGMA_OF_NOTHING)), op.const(SIGMA_OF_NOTHING), degrees)
    locked = op.and_(op.less(cosine, op.const(GIMBAL_LOCK)), op.const(np.array([[False, True, True]])))
    return op.where(locked, op.const(SIGMA_OF_NOTHING), known)


def _error_from_angles(rotation: Var) -> Var:
    """As ``rotation.covariance._error_from_angles``."""
    y, z = entry(rotation, 2, 2), op.neg(entry(rotation, 1, 2))
    locked = op.less(op.sqrt(op.add(square(y), square(z))), op.const(GIMBAL_LOCK))
    y, z = op.where(locked, entry(rotation, 1, 1), y), op.where(locked, entry(rotation, 2, 1), z)
    length = op.sqrt(op.add(square(y), square(z)))
    zero = scaled(y, 0.0)
    parts = [zero, op.div(y, length), op.div(z, length), op.add(zero, op.const(1.0)), zero, zero]
    first = transposed(shaped(op.concat(parts, axis=1), (0, 2, 3)))
    return op.concat([first, columns(rotation, 2, 3, axis=2)], axis=2)


def _cross(a: Var, b: Var) -> Var:
    """Cross products (N, 3) of vectors (N, 3)."""
    return shaped(op.matmul(skewed(a), op.unsqueeze(b, op.const([2]))), (0, 3))


def _length(vectors: Var) -> Var:
    """Lengths (N, 1) of vectors (N, 3)."""
    return op.sqrt(reduced(op.reduce_sum, square(vectors), 1, keep=True))
