"""Heads that turn on a neck: chin and skull go with the head, shoulders with the body, the neck bends between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.rotation import Angles, rotation_from_angles, rotation_from_vector, vector_from_rotation
from renderer.compiled import compiled
from renderer.smoothstep import smoothstep

FloatArray = NDArray[np.float32]
NECK_MM = np.array([0.0, -118.0, -15.0], dtype=np.float32)
"""Where the neck stands on the shoulders, in the kit's frame: the point that the neck turns about."""
SKULL_MM = np.array([0.0, -20.0, 0.0], dtype=np.float32)
"""Where the skull stands on the neck, a little below and between the ears: the point that the head turns about."""
_JAW_SLOPE, _BACK_MM = 0.65, -20.0
"""The jaw falls from ear to chin by so much of the way ahead; behind this the line is level."""
_FREE_MM, _FIXED_MM = -45.0, -125.0
"""Height over that line from which all goes with the head, and below which all goes with the body."""
_LIMITS_DEG = (75.0, 60.0, 45.0)
"""How far a head turns, nods and tilts on its shoulders."""


class Posed(NamedTuple):
    """``vertices`` (V, 3) in mm from ``NECK_MM`` and unit ``normals`` (V, 3), turned to the camera's frame.

    ``skull`` (3,) is where ``SKULL_MM`` is there.
    """

    vertices: FloatArray
    normals: FloatArray
    skull: FloatArray


def head_share(places: NDArray[np.floating]) -> FloatArray:
    """How far each of the places (V, 3), in mm of the kit's frame, goes with the head: 1 does, 0 goes with the body.

    Examples
    --------
    >>> nose, chin, collar = (0.0, 4.0, 131.0), (0.0, -76.0, 104.0), (0.0, -150.0, 30.0)
    >>> head_share(np.array([nose, chin, collar])).tolist()
    [1.0, 1.0, 0.0]
    """
    level = places[:, 1] + _JAW_SLOPE * np.maximum(places[:, 2], _BACK_MM)
    return smoothstep(level, _FIXED_MM, _FREE_MM)


def posed(
    vertices: FloatArray,
    normals: FloatArray,
    share: FloatArray,
    head: NDArray[np.floating],
    body: NDArray[np.floating],
) -> Posed:
    """A head on its neck and body.

    The neck has half of the rotation between them; what lies between two of the three is the mean of where they would
    take it (linear blend skinning).

    Parameters
    ----------
    vertices, normals : float arrays (V, 3)
        In mm of the kit's frame; normals of unit length.
    share : float array (V,)
        As ``head_share`` gives it.
    head, body : float arrays (3, 3)
        Rotations to the camera's frame.

    Returns
    -------
    Posed
        Where all is and which way it faces.
    """
    middle = body @ rotation_from_vector(vector_from_rotation(body.T @ head) / 2)
    turn, neck, trunk = (rotation.astype(np.float32) for rotation in (head, middle, body))
    skull = (SKULL_MM - NECK_MM) @ neck.T
    # Contiguous, of which products with many rows are twice as fast.
    with_head, with_neck, with_body = (np.ascontiguousarray(rotation.T) for rotation in (turn, neck, trunk))
    places, facing = moved(moved(vertices, -SKULL_MM) @ with_head, skull), normals @ with_head
    moves = np.flatnonzero(share < 1)
    from_foot, own = moved(vertices.take(moves, axis=0), -NECK_MM), normals.take(moves, axis=0)
    _bend(moves, share, places, from_foot @ with_neck, from_foot @ with_body)
    _bend(moves, share, facing, own @ with_neck, own @ with_body)
    _straighten(moves, facing)
    return Posed(places, facing, skull)


@compiled()
def moved(points, by):  # type: ignore[no-untyped-def]
    """Points (V, 3), all moved by the same step (3,): numpy takes ten times as long over rows of three numbers."""
    result = np.empty_like(points)
    for row in range(len(points)):
        for axis in range(3):
            result[row, axis] = points[row, axis] + by[axis]
    return result


@compiled()
def _bend(moves, share, with_head, with_neck, with_body):  # type: ignore[no-untyped-def]
    """Put the mean of where the three would take some rows into ``with_head`` (V, 3), which has all."""
    one, two, none = np.float32(1), np.float32(2), np.float32(0)
    for number, row in enumerate(moves):
        above = min(max(two * share[row] - one, none), one)
        below = min(max(one - two * share[row], none), one)
        for axis in range(3):
            mean = above * with_head[row, axis] + (one - above - below) * with_neck[number, axis]
            with_head[row, axis] = mean + below * with_body[number, axis]


@compiled()
def _straighten(moves, facing):  # type: ignore[no-untyped-def]
    """Some rows of ``facing`` (V, 3) become of unit length."""
    for row in moves:
        x, y, z = facing[row, 0], facing[row, 1], facing[row, 2]
        length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-6))
        for axis in range(3):
            facing[row, axis] /= length


def draw_body(head: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation (3, 3) of the shoulders to the camera that a head (3, 3) can have: they follow it in part."""
    forward, up = head[:, 2], head[:, 1]
    yaw = np.degrees(np.arctan2(-forward[0], forward[2]))
    pitch = np.degrees(np.arcsin(np.clip(forward[1], -1, 1)))
    roll = np.degrees(np.arctan2(up[0], up[1]))
    own = np.array([yaw * rng.uniform(0.1, 1), pitch * rng.uniform(0.6, 1), roll * rng.uniform(0, 1)])
    stray = rng.normal(0, (12, 6, 6))
    on_neck = np.clip(own + stray, -np.array(_LIMITS_DEG), _LIMITS_DEG)
    return rotation_from_angles(Angles.from_columns(np.array([yaw, pitch, roll]) - on_neck))
