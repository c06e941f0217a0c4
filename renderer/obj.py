"""Wavefront OBJ as head kits use it: vertices, texture coordinates, polygons, a material per part.

General readers split vertices where their texture coordinates differ and may reorder them; a
morphable head needs the file's own vertices in the file's own order, so the file is read here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_OBJ_BYTES = 32 * 1024 * 1024
"""Twelve times the largest file of ICT-FaceKit, eighteen times MakeHuman's."""
_LONGEST_LINE = 64 * 1024
"""Characters: a polygon of thousands of corners."""


class ObjError(ValueError):
    """An OBJ file is missing, damaged, or lacks what a head needs; the message says what."""


@dataclass(frozen=True)
class ObjMesh:
    """``vertices`` (V, 3) and ``uv`` (T, 2; v = 0 at the bottom) in file order, triangles by material.

    ``triangles`` maps a material to (F, 2, 3) int32: vertex indices, then texture indices, counted
    from zero; polygons are cut into fans. ``material_file`` is the name after ``mtllib``, where there is one.
    """

    vertices: NDArray[np.float32]
    uv: NDArray[np.float32]
    triangles: dict[str, NDArray[np.int32]]
    material_file: str | None


def read_obj(path: Path) -> ObjMesh:
    """Read one OBJ file with texture coordinates.

    Raises ``ObjError`` for a file that is missing, too large, no text, cut off in the middle of a line,
    without faces or texture coordinates, or whose faces refer to what is not there. Indices that count back
    from the end (negative ones) are resolved as the format defines them; bytes that are not UTF-8, as in a
    comment, are no obstacle.
    """
    vertices, uv = array("d"), array("d")
    parts: dict[str, array[int]] = {}
    material, material_file = "", None
    for number, line in _lines(path):
        words = line.split() or [""]
        if words[0] == "v":
            vertices.extend(_numbers(path, number, words, 3))
        elif words[0] == "vt":
            uv.extend(_numbers(path, number, words, 2))
        elif words[0] == "f":
            polygon = [_corner(path, number, word, len(vertices) // 3, len(uv) // 2) for word in words[1:]]
            if len(polygon) < 3:
                raise ObjError(f"{path}, line {number}: a face of {len(polygon)} corners; the file may be cut off")
            fan = parts.setdefault(material, array("i"))
            for second, third in pairwise(polygon[1:]):
                fan.extend((*polygon[0], *second, *third))
        elif words[0] == "usemtl" and len(words) > 1:
            material = words[1]
        elif words[0] == "mtllib" and len(words) > 1:
            material_file = " ".join(words[1:])
    if not parts:
        raise ObjError(f"{path}: no faces; the file may be cut off ({len(vertices) // 3} vertices were read)")
    triangles = {name: np.array(fan, np.int32).reshape(-1, 3, 2).transpose(0, 2, 1) for name, fan in parts.items()}
    vertex_table, uv_table = (np.array(numbers).reshape(-1, width) for numbers, width in ((vertices, 3), (uv, 2)))
    return ObjMesh(_single(path, vertex_table), _single(path, uv_table), triangles, material_file)


def read_obj_vertices(path: Path, count: int) -> NDArray[np.float32]:
    """Only the vertices ``(count, 3)`` of an OBJ file, in file order.

    Raises ``ObjError`` where there are more or fewer: the file belongs to another mesh, or is cut off; and for a vertex
    without three numbers.
    """
    # A kit has a hundred files of one mesh, so their lines are read by numpy, in half the time.
    rows = [line for _, line in _lines(path) if line.lstrip().startswith(("v ", "v\t"))]
    try:
        table = np.loadtxt(rows, usecols=(1, 2, 3), comments=None, ndmin=2) if rows else np.empty((0, 3))
    except ValueError as error:
        raise ObjError(f"{path}: a 'v' line that does not hold 3 numbers, counted among these lines: {error}") from None
    if len(table) != count:
        raise ObjError(
            f"{path}: {len(table)} vertices where the neutral head has {count}; "
            "the file belongs to another version of the kit or is cut off"
        )
    return _single(path, table)


def split_by_texture(
    triangles: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """A vertex for every pair of vertex and texture index that ``triangles`` (F, 2, 3) use.

    Returns their vertex indices (A,), their texture indices (A,) and faces (F, 3) of them.
    """
    pairs, inverse = np.unique(triangles.transpose(0, 2, 1).reshape(-1, 2), axis=0, return_inverse=True)
    return pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), inverse.reshape(-1, 3).astype(np.int32)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise ObjError(f"{path}: no such file")
    if path.stat().st_size > MAX_OBJ_BYTES:
        raise ObjError(f"{path}: larger than {MAX_OBJ_BYTES} bytes; this is no mesh of one head")
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            if "\0" in line or len(line) > _LONGEST_LINE:
                raise ObjError(f"{path}, line {number}: not a text file of a mesh")
            yield number, line


def _corner(path: Path, number: int, word: str, n_vertices: int, n_uv: int) -> tuple[int, int]:
    """Vertex and texture index, from zero, of one corner ``v/vt`` or ``v/vt/vn``."""
    fields = word.split("/")
    if len(fields) < 2 or not fields[1]:
        raise ObjError(f"{path}, line {number}: corner {word!r} has no texture coordinate (expected v/vt)")
    try:
        vertex, texture = int(fields[0]), int(fields[1])
    except ValueError:
        raise ObjError(f"{path}, line {number}: corner {word!r} is not v/vt") from None
    vertex = vertex - 1 if vertex > 0 else n_vertices + vertex
    texture = texture - 1 if texture > 0 else n_uv + texture
    if not (0 <= vertex < n_vertices and 0 <= texture < n_uv):
        raise ObjError(
            f"{path}, line {number}: corner {word!r} refers outside the {n_vertices} vertices and {n_uv} "
            "texture coordinates read so far; the file is damaged or cut off"
        )
    return vertex, texture


def _numbers(path: Path, number: int, words: list[str], width: int) -> list[float]:
    """The first numbers of a line, after its keyword."""
    try:
        numbers = [float(word) for word in words[1 : width + 1]]
    except ValueError:
        numbers = []
    if len(numbers) != width:
        raise ObjError(f"{path}, line {number}: a {words[0]!r} line that does not hold {width} numbers")
    return numbers


def _single(path: Path, table: NDArray[np.float64]) -> NDArray[np.float32]:
    """A table of numbers in single precision."""
    if not (np.abs(table) <= np.finfo(np.float32).max).all():
        raise ObjError(f"{path}: a 'v' or 'vt' line holds a number that is not finite in single precision")
    return table.astype(np.float32)
