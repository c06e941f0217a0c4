"""What a head wears or grows beyond its own surface: glasses and long hair, and the volume of hair and cloth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from renderer.looks import Looks
from renderer.painting import Scalp, covering_share, hair_share, mask_share

FloatArray = NDArray[np.float32]
_RIM_SIDES = 6
_LONG_COLUMNS, _LONG_ROWS = 48, 14


class Extra(NamedTuple):
    """A piece of geometry: ``vertices`` (V, 3) mm, ``faces`` (F, 3), ``uv`` (V, 2) in [0, 1] of its own tile."""

    vertices: FloatArray
    faces: NDArray[np.int32]
    uv: FloatArray


def volume(scalp: Scalp, looks: Looks) -> FloatArray:
    """Millimetres (V,) by which hair, cloth and mask stand off the skin at places (V, 3) of the neutral head."""
    neutral = scalp.place
    height = np.zeros(len(neutral), dtype=np.float32)
    if looks.hair != "bald" and looks.covering == "none":
        thin_at_edge = np.clip((neutral[:, 1] + 60) / 120, 0.15, 1.0)
        height = hair_share(scalp, looks) * looks.hair_mm * thin_at_edge
    if looks.covering != "none":
        height = np.maximum(height, 5.0 * covering_share(neutral, looks))
    if looks.face_mask:
        height = np.maximum(height, 4.0 * mask_share(neutral))
    return np.asarray(height, dtype=np.float32)


def glasses(marks: FloatArray, ears: FloatArray, looks: Looks) -> tuple[Extra, Extra]:
    """Frame and lenses that fit a person.

    Parameters
    ----------
    marks : float array (68, 3)
        The 68 landmarks, in millimetres and in the head frame.
    ears : float array (2, 3)
        Image left first.
    looks : Looks
        The person's, which say what the glasses are like.

    Returns
    -------
    tuple of two Extra
        Frame and lenses.
    """
    rng = np.random.default_rng([looks.seed, 1])
    half_width, half_height = rng.uniform(22, 28), rng.uniform(15, 22)
    squareness = rng.uniform(2.0, 4.0)
    turn = np.linspace(0, 2 * np.pi, 29)[:-1]
    unit = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    oval = np.sign(unit) * np.abs(unit) ** (2 / squareness) * [half_width, half_height]
    tubes, lenses = [], []
    for side, eye, ear in ((-1, marks[36:42].mean(axis=0), ears[0]), (1, marks[42:48].mean(axis=0), ears[1])):
        centre = np.array([side * max(abs(eye[0]), half_width + 6), eye[1] - 1, max(eye[2] + 16, marks[27, 2] - 2)])
        # Wrap: the outer edge lies further back, as the face does.
        back = -0.004 * (centre[0] + oval[:, 0]) ** 2 + 0.004 * centre[0] ** 2
        rim = np.column_stack([centre[0] + oval[:, 0], centre[1] + oval[:, 1], centre[2] + back])
        tubes.append(_tube(rim, looks.frame_mm, closed=True))
        lenses.append(Extra(np.vstack([rim, rim.mean(axis=0)]), _fan(len(rim)), np.full((len(rim) + 1, 2), 0.5)))
        hinge = rim[0] if side > 0 else rim[len(rim) // 2]
        over_ear = ear + np.array([side * 1.0, 18, 4])
        tubes.append(_tube(np.linspace(hinge, over_ear, 8), looks.frame_mm * 0.9, closed=False))
    inner = [tubes[0], tubes[2]]
    left, right = (piece.vertices[np.abs(piece.vertices[:, 0]).argmin()] for piece in inner)
    middle = (left + right) / 2 + [0, 2, 3]
    tubes.append(_tube(np.array([left, middle, right]), looks.frame_mm, closed=False))
    return joined(tubes), joined(lenses)


def long_hair(head: FloatArray, looks: Looks) -> Extra:
    """A curtain of hair from temple to temple around the back, down to the neck or the shoulders.

    ``head`` (V, 3) are the vertices of skull and skin, which it clears.
    """
    rng = np.random.default_rng([looks.seed, 2])
    front, length = rng.uniform(62, 88), rng.uniform(60, 190)
    azimuth = np.radians(np.linspace(front, 360 - front, _LONG_COLUMNS))
    skull = head[head[:, 1] > 20]
    reach = np.abs(skull).max(axis=0)[0] + 3 + looks.hair_mm * 0.6
    depth = -skull[:, 2].min() + 3 + looks.hair_mm * 0.6
    drop = np.linspace(0, 1, _LONG_ROWS)[:, None]
    wave = 1 + 0.03 * np.sin(7 * azimuth + rng.uniform(0, 6)) * drop
    x = reach * np.sin(azimuth) * wave * (1 - 0.10 * np.sin(drop * np.pi))
    z = np.where(np.cos(azimuth) > 0, 60 * np.cos(azimuth), depth * np.cos(azimuth)) * wave
    top = 82 - 10 * np.abs(np.cos(azimuth))
    y = top - length * drop + 0 * x
    # Drawn in at the top, so that the curtain begins inside the hair of the crown.
    pinch = 0.80 + 0.20 * np.clip(drop * 4, 0, 1) ** 0.5
    vertices = np.stack([x * pinch, y, z * pinch], axis=-1).reshape(-1, 3)
    u = np.broadcast_to(np.linspace(0, 1, _LONG_COLUMNS), x.shape)
    uv = np.stack([u, np.broadcast_to(drop, x.shape)], axis=-1).reshape(-1, 2)
    return Extra(vertices.astype(np.float32), grid(_LONG_ROWS, _LONG_COLUMNS), uv.astype(np.float32))


def joined(pieces: list[Extra]) -> Extra:
    """Several pieces as one."""
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    return Extra(
        np.concatenate([piece.vertices for piece in pieces]).astype(np.float32),
        np.concatenate([piece.faces + start for piece, start in zip(pieces, starts[:-1], strict=True)]).astype(
            np.int32
        ),
        np.concatenate([piece.uv for piece in pieces]).astype(np.float32),
    )


def _tube(path: NDArray[np.floating], radius: float, closed: bool) -> Extra:
    """A round bar along a path (n, 3) that lies roughly in a plane of constant z, or runs along z."""
    ahead = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    # A direction that no part of a frame runs along: up and outwards of the face.
    first = np.cross(ahead, [0.23, 0.41, 0.88])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(ahead, first)
    turn = np.linspace(0, 2 * np.pi, _RIM_SIDES, endpoint=False)[:, None, None]
    rings = path + radius * (np.cos(turn) * first + np.sin(turn) * second)
    vertices = rings.transpose(1, 0, 2).reshape(-1, 3)
    faces = grid(len(path) + closed, _RIM_SIDES + 1, wrap=(len(path), _RIM_SIDES))
    return Extra(vertices, faces, np.full((len(vertices), 2), 0.5))


def grid(rows: int, columns: int, wrap: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """Triangles of a grid of vertices that are numbered row by row.

    Parameters
    ----------
    rows, columns : int
        Of vertices; between two of each lie two triangles.
    wrap : (int, int), optional
        What indices of rows and columns are taken modulo, of a grid that is closed.

    Returns
    -------
    int array (F, 3)
        Vertices of each.
    """
    row, column = (index.reshape(-1) for index in np.mgrid[0 : rows - 1, 0 : columns - 1])
    height, width = wrap or (rows, columns)

    def at(down: int, right: int) -> NDArray[np.int64]:
        return (row + down) % height * width + (column + right) % width

    first = np.stack([at(0, 0), at(0, 1), at(1, 0)], axis=1)
    second = np.stack([at(0, 1), at(1, 1), at(1, 0)], axis=1)
    return np.concatenate([first, second]).astype(np.int32)


def _fan(count: int) -> NDArray[np.int32]:
    rim = np.arange(count)
    return np.stack([rim, np.roll(rim, -1), np.full(count, count)], axis=1).astype(np.int32)
