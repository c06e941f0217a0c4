"""What ONNX lacks, written with what it has: small inverses, an exact ``atan2``, rotations and their angles.

Every function takes and gives variables of a graph that is being built. Names and arithmetic are those of ``rotation``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import ArrayLike, NDArray
from spox import Var

from nlml_hpe.rotation import MIRROR_SIGNS

QUARTER_TURN = np.pi / 2
"""Added to an angle, its sine is the cosine."""


def _turns() -> NDArray[np.float64]:
    """(6, 27): from cosines and then sines of yaw, pitch and roll to the turns about y, x and z, but for their ones."""
    table = np.zeros((6, 3, 3, 3))
    for turn, (first, second) in enumerate(((2, 0), (1, 2), (0, 1))):
        table[turn, turn, first, first] = table[turn, turn, second, second] = 1.0
        table[turn + 3, turn, second, first], table[turn + 3, turn, first, second] = 1.0, -1.0
    return table.reshape(6, 27)


_TURNS, _STILL = _turns(), np.stack([np.diag(axis) for axis in np.eye(3)[[1, 0, 2]]]).reshape(27)


def rotation_from_degrees(degrees: Var) -> Var:
    """Rotations (N, 3, 3) of yaw, pitch, roll (N, 3) in degrees; as ``rotation.rotation_from_angles``."""
    radians = scaled(degrees, -np.radians(1.0))
    both = op.sin(op.concat([op.add(radians, op.const(QUARTER_TURN)), radians], axis=1))
    turns = shaped(op.add(op.matmul(both, op.const(_TURNS)), op.const(_STILL)), (0, 3, 3, 3))
    about_y, about_x, about_z = (op.gather(turns, op.const(np.int64(turn)), axis=1) for turn in range(3))
    return op.matmul(op.matmul(about_x, about_y), about_z)


def _arguments() -> NDArray[np.float64]:
    """(4, 9, 3): from a rotation's entries to y of ``atan2`` and x, but for a constant, of yaw, pitch and roll; then
    the same where pitch and roll cannot be told apart."""
    entries = {"xx": 0, "xy": 1, "xz": 2, "yy": 4, "yz": 5, "zy": 7, "zz": 8}
    table = np.zeros((4, 9, 3))
    for place, row in enumerate((("xz", "-yz", "-xy"), ("", "zz", "xx"), ("xz", "zy", ""), ("", "yy", ""))):
        for angle, name in enumerate(row):
            if name:
                table[place, entries[name.removeprefix("-")], angle] = -1.0 if name.startswith("-") else 1.0
    return table


_ARGUMENTS = _arguments()


def degrees_from_rotation(rotation: Var) -> Var:
    """Yaw, pitch, roll (N, 3) in degrees of rotations (N, 3, 3); as ``rotation.angles_from_rotation``."""
    flat = shaped(rotation, (0, 9))
    across = op.sqrt(reduced(op.reduce_sum, square(picked(flat, [0, 1])), 1, keep=True))
    locked = op.less(across, op.const(1e-12))
    y, x, y_locked, x_locked = (op.matmul(flat, op.const(table)) for table in _ARGUMENTS)
    x_locked = op.add(x_locked, op.const(np.array([0.0, 0.0, 1.0])))
    x = op.add(op.where(locked, x_locked, x), op.mul(across, op.const(np.array([1.0, 0.0, 0.0]))))
    angles = scaled(atan2(op.where(locked, y_locked, y), x), -np.degrees(1.0))
    # The other triple of the same rotation, where its angles are the smaller ones: yaw has passed 90 degrees.
    beyond = op.greater(reduced(op.reduce_sum, op.abs(angles), 1, keep=True), op.const(270.0))
    half = op.where(op.greater(angles, op.const(0.0)), op.const(180.0), op.const(-180.0))
    other = op.mul(op.sub(angles, half), op.const(np.array([-1.0, 1.0, 1.0])))
    return op.where(beyond, other, angles)


def mean_with_mirror(rotation: Var) -> Var:
    """Rotations (N, 3, 3): the midpoint of each of (2 N, 3, 3) and its mirror image's, which is in the second half.

    As ``rotation.mirrored`` and ``rotation.midpoint``.
    """
    halves = shaped(rotation, (2, -1, 3, 3))
    first, second = (op.gather(halves, op.const(np.int64(half)), axis=0) for half in (0, 1))
    between = op.matmul(transposed(first), op.mul(second, op.const(MIRROR_SIGNS)))
    trace = op.reduce_sum(op.mul(between, op.const(np.eye(3))), op.const([1, 2]), keepdims=1)
    cosine = scaled(op.sqrt(op.max([op.add(trace, op.const(1.0)), op.const(1e-30)])), 0.5)
    skew = op.div(op.sub(between, transposed(between)), scaled(cosine, 4.0))
    bent = op.div(op.matmul(skew, skew), op.add(cosine, op.const(1.0)))
    return op.matmul(first, op.add(op.add(op.const(np.eye(3)), skew), bent))


def inverse(matrices: Var, size: int) -> Var:
    """Inverses of positive definite matrices (N, size, size): of up to three rows by cofactors, of more by blocks."""
    if size == 1:
        return op.div(op.const(1.0), matrices)
    if size > 3:
        return _inverse_by_blocks(matrices, size)
    adjugate = _adjugate(matrices, size)
    return op.div(adjugate, op.matmul(columns(matrices, 0, 1), columns(adjugate, 0, 1, axis=2)))


def _adjugate(matrices: Var, size: int) -> Var:
    """Inverses of matrices (N, size, size) of two or three rows, times their determinants."""
    flat = shaped(matrices, (0, size * size))
    if size == 2:
        return shaped(op.mul(picked(flat, [3, 1, 2, 0]), op.const(np.array([1.0, -1.0, -1.0, 1.0]))), (0, 2, 2))
    row, column = np.divmod(np.arange(9), 3)[::-1]  # transposed
    after = [(row + 1) % 3 * 3, (row + 2) % 3 * 3], [(column + 1) % 3, (column + 2) % 3]
    (down, below), (right, beside) = after
    minor = op.mul(picked(flat, down + right), picked(flat, below + beside))
    return shaped(op.sub(minor, op.mul(picked(flat, down + beside), picked(flat, below + right))), (0, 3, 3))


def _inverse_by_blocks(matrices: Var, size: int) -> Var:
    """By the Schur complement of the first half of the rows."""
    first = (size + 1) // 2
    left = inverse(part(matrices, (0, first), (0, first)), first)
    across, below = part(matrices, (0, first), (first, size)), part(matrices, (first, size), (0, first))
    carried = op.matmul(below, left)
    last = inverse(op.sub(part(matrices, (first, size), (first, size)), op.matmul(carried, across)), size - first)
    corner = op.neg(op.matmul(last, carried))
    left = op.sub(left, op.matmul(op.matmul(left, across), corner))
    upper = op.concat([left, op.transpose(corner, perm=[0, 2, 1])], axis=2)
    return op.concat([upper, op.concat([corner, last], axis=2)], axis=1)


def atan2(y: Var, x: Var) -> Var:
    """The angle of (x, y): by half the angle in float32, for which alone runtimes have ``Atan``, and then polished."""
    radius = op.sqrt(op.add(square(x), square(y)))
    ratio = op.div(y, op.max([op.add(radius, x), op.const(1e-30)]))
    rough = scaled(op.cast(op.atan(op.cast(ratio, to=np.float32)), to=np.float64), 2.0)
    error = op.sub(op.mul(y, cosine(rough)), op.mul(x, op.sin(rough)))
    return op.add(rough, op.div(error, op.max([radius, op.const(1e-30)])))


def cosine(x: Var) -> Var:
    """The cosine of ``x``, float64: by the sine, as onnxruntime before 1.29 computes no other of float64."""
    return op.sin(op.add(x, op.const(QUARTER_TURN)))


def transposed(matrices: Var) -> Var:
    """Matrices (N, a, b) as (N, b, a).

    The reshaping changes nothing: onnxruntime before 1.26 makes one operation of a transposed matrix and the product
    that follows at once, and then has none for float64.
    """
    return shaped(op.transpose(matrices, perm=[0, 2, 1]), (0, 0, 0))


def as_column(row: Var) -> Var:
    """Rows (N, 1, a) as columns (N, a, 1)."""
    return shaped(row, (0, -1, 1))


def as_row(column: Var) -> Var:
    """Columns (N, a, 1) as rows (N, 1, a)."""
    return shaped(column, (0, 1, -1))


def scaled(x: Var, factor: float) -> Var:
    """``x`` times a number."""
    return op.mul(x, op.const(np.float64(factor)))


def square(x: Var) -> Var:
    """``x`` squared."""
    return op.mul(x, x)


def shaped(x: Var, shape: tuple[int, ...]) -> Var:
    """``x`` in another shape; 0 keeps an axis, -1 is what is left."""
    return op.reshape(x, op.const(np.array(shape, dtype=np.int64)))


def columns(x: Var, first: int, last: int, axis: int = 1) -> Var:
    """``x[:, first:last]``, or the same along another axis."""
    return op.slice(x, op.const([first]), op.const([last]), op.const([axis]))


def part(matrices: Var, rows: tuple[int, int], within: tuple[int, int]) -> Var:
    """Some rows and columns of matrices.

    Parameters
    ----------
    matrices : Var (N, a, b)
        In a graph.
    rows, within : (int, int)
        The first row or column, and the one after the last.

    Returns
    -------
    Var (N, rows, columns)
    """
    ends = ([rows[end], within[end]] for end in (0, 1))
    return op.slice(matrices, *(op.const(end) for end in ends), op.const([1, 2]))


def picked(x: Var, indices: ArrayLike, axis: int = 1) -> Var:
    """``x[:, indices]``, or the same along another axis."""
    return op.gather(x, op.const(np.asarray(indices, dtype=np.int64)), axis=axis)


def entry(matrices: Var, row: int, column: int) -> Var:
    """One entry of matrices (N, a, b), as (N, 1)."""
    return shaped(columns(columns(matrices, row, row + 1), column, column + 1, axis=2), (0, 1))


def reduced(reduce: Any, x: Var, axis: int, keep: bool) -> Var:
    """A sum or mean along one axis."""
    return reduce(x, op.const([axis]), keepdims=int(keep))
