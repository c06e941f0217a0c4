"""What ONNX lacks, written with what it has: small inverses, an exact ``atan2``, rotations and their angles.

Every function takes and gives variables of a graph that is being built. Names and arithmetic are those of ``rotation``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from nlml_hpe.rotation import MIRROR_SIGNS


def rotation_from_degrees(degrees: Var) -> Var:
    """Rotations (N, 3, 3) of yaw, pitch, roll (N, 3) in degrees; as ``rotation.rotation_from_angles``."""
    radians = scaled(degrees, -np.radians(1.0))
    cos, sin = op.cos(radians), op.sin(radians)
    (cy, cp, cr), (sy, sp, sr) = ([columns(part, axis, axis + 1) for axis in range(3)] for part in (cos, sin))
    left, right = op.mul(sp, sy), op.mul(cp, sy)
    rows = [
        [op.mul(cy, cr), op.neg(op.mul(cy, sr)), sy],
        [op.add(op.mul(cp, sr), op.mul(left, cr)), op.sub(op.mul(cp, cr), op.mul(left, sr)), op.neg(op.mul(sp, cy))],
        [op.sub(op.mul(sp, sr), op.mul(right, cr)), op.add(op.mul(sp, cr), op.mul(right, sr)), op.mul(cp, cy)],
    ]
    return shaped(op.concat([entry for row in rows for entry in row], axis=1), (-1, 3, 3))


def degrees_from_rotation(rotation: Var) -> Var:
    """Yaw, pitch, roll (N, 3) in degrees of rotations (N, 3, 3); as ``rotation.angles_from_rotation``."""
    (xx, xy, xz), (_, yy, yz), (_, zy, zz) = ([entry(rotation, row, column) for column in range(3)] for row in range(3))
    across = op.sqrt(op.add(square(xx), square(xy)))
    locked = op.less(across, op.const(1e-12))
    yaw = atan2(xz, across)
    pitch = op.where(locked, atan2(zy, yy), atan2(op.neg(yz), zz))
    roll = op.where(locked, op.const(0.0), atan2(op.neg(xy), xx))
    yaw, pitch, roll = (scaled(angle, -np.degrees(1.0)) for angle in (yaw, pitch, roll))
    # The other triple of the same rotation, where its angles are the smaller ones: yaw has passed 90 degrees.
    beyond = op.greater(op.add(op.add(op.abs(yaw), op.abs(pitch)), op.abs(roll)), op.const(270.0))
    half = [
        op.where(op.greater(angle, op.const(0.0)), op.const(180.0), op.const(-180.0)) for angle in (yaw, pitch, roll)
    ]
    other = (op.sub(half[0], yaw), op.sub(pitch, half[1]), op.sub(roll, half[2]))
    return op.concat([op.where(beyond, b, a) for a, b in zip((yaw, pitch, roll), other, strict=True)], axis=1)


def mean_with_mirror(rotation: Var) -> Var:
    """Rotations (N, 3, 3): the midpoint of each of (2 N, 3, 3) and its mirror image's, which is in the second half.

    As ``rotation.mirrored`` and ``rotation.midpoint``.
    """
    halves = shaped(rotation, (2, -1, 3, 3))
    first, second = (op.gather(halves, op.const(np.int64(half)), axis=0) for half in (0, 1))
    between = op.matmul(transposed(first), op.mul(second, op.const(MIRROR_SIGNS)))
    diagonal = op.mul(between, op.const(np.eye(3)))
    trace = reduced(op.reduce_sum, reduced(op.reduce_sum, diagonal, 1, keep=True), 2, keep=True)
    cosine = scaled(op.sqrt(op.max([op.add(trace, op.const(1.0)), op.const(1e-30)])), 0.5)
    skew = op.div(op.sub(between, transposed(between)), scaled(cosine, 4.0))
    bent = op.div(op.matmul(skew, skew), op.add(cosine, op.const(1.0)))
    return op.matmul(first, op.add(op.add(op.const(np.eye(3)), skew), bent))


def inverse(matrices: Var, size: int) -> Var:
    """Inverses of positive definite matrices (N, size, size) by Gauss-Jordan elimination without pivots."""
    work = op.concat([matrices, op.add(op.mul(matrices, op.const(0.0)), op.const(np.eye(size)))], axis=2)
    for k in range(size):
        row = columns(work, k, k + 1)
        pivot = op.div(row, columns(row, k, k + 1, axis=2))
        keep = np.ones((size, 1))
        keep[k] = 0
        rest = op.sub(work, op.mul(columns(work, k, k + 1, axis=2), pivot))
        work = op.add(op.mul(rest, op.const(keep)), op.mul(pivot, op.const(1 - keep)))
    return columns(work, size, 2 * size, axis=2)


def atan2(y: Var, x: Var) -> Var:
    """The angle of (x, y): by half the angle in float32, for which alone runtimes have ``Atan``, and then polished."""
    radius = op.sqrt(op.add(square(x), square(y)))
    ratio = op.div(y, op.max([op.add(radius, x), op.const(1e-30)]))
    rough = scaled(op.cast(op.atan(op.cast(ratio, to=np.float32)), to=np.float64), 2.0)
    error = op.sub(op.mul(y, op.cos(rough)), op.mul(x, op.sin(rough)))
    return op.add(rough, op.div(error, op.max([radius, op.const(1e-30)])))


def transposed(matrices: Var) -> Var:
    """Matrices (N, a, b) as (N, b, a)."""
    return op.transpose(matrices, perm=[0, 2, 1])


def scaled(x: Var, factor: float) -> Var:
    """``x`` times a number."""
    return op.mul(x, op.const(np.float64(factor)))


def square(x: Var) -> Var:
    """``x`` squared."""
    return op.mul(x, x)


def shaped(x: Var, shape: tuple[int, ...]) -> Var:
    """``x`` in another shape; 0 keeps an axis, -1 is what is left."""
    return op.reshape(x, op.const(np.array(shape, dtype=np.int64)))


def gathered(points: Var, index: int) -> Var:
    """One of the points (N, P, 3), as (N, 1, 3)."""
    return op.gather(points, op.const(np.array([index], dtype=np.int64)), axis=1)


def columns(x: Var, first: int, last: int, axis: int = 1) -> Var:
    """``x[:, first:last]``, or the same along another axis."""
    return op.slice(x, op.const([first]), op.const([last]), op.const([axis]))


def entry(matrices: Var, row: int, column: int) -> Var:
    """One entry of matrices (N, a, b), as (N, 1)."""
    return shaped(columns(columns(matrices, row, row + 1), column, column + 1, axis=2), (0, 1))


def reduced(reduce: Any, x: Var, axis: int, keep: bool) -> Var:
    """A sum or mean along one axis."""
    return reduce(x, op.const([axis]), keepdims=int(keep))
