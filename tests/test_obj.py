"""OBJ files, whole and damaged."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from renderer.obj import MAX_OBJ_BYTES, ObjError, read_obj, read_obj_vertices, split_by_texture

SQUARE = """mtllib a b.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl skin
f 1/1 2/2 3/3 4/4
usemtl hair
f 1/4/9 2/2/9 3/3/9
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mesh.obj"
    path.write_text(text)
    return path


def test_polygons_become_triangles_of_their_material(tmp_path: Path) -> None:
    mesh = read_obj(written(tmp_path, SQUARE))
    assert mesh.material_file == "a b.mtl"
    assert mesh.vertices.shape == (4, 3)
    assert mesh.triangles["skin"][:, 0].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.triangles["hair"].tolist() == [[[0, 1, 2], [3, 1, 2]]]


def test_negative_indices_count_back_from_the_end(tmp_path: Path) -> None:
    relative = SQUARE.replace("f 1/1 2/2 3/3 4/4", "f -4/-4 -3/-3 -2/-2 -1/-1")
    first, second = (read_obj(written(tmp_path, text)).triangles["skin"] for text in (SQUARE, relative))
    assert (first == second).all()


def test_a_vertex_with_two_places_in_the_texture_becomes_two(tmp_path: Path) -> None:
    mesh = read_obj(written(tmp_path, SQUARE))
    triangles = np.concatenate(list(mesh.triangles.values()))
    source, texture, faces = split_by_texture(triangles)
    assert len(source) == 5
    assert (source[faces] == triangles[:, 0]).all()
    assert (texture[faces] == triangles[:, 1]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SQUARE.replace("2/2 3/3 4/4", "2 3 4"), "no texture coordinate"),
        (SQUARE.replace("4/4", "9/4"), "refers outside the 4 vertices"),
        (SQUARE.replace("4/4", "-9/4"), "refers outside the 4 vertices"),
        (SQUARE.replace("4/4", "0/4"), "refers outside the 4 vertices"),
        (SQUARE.replace("4/4", "x/4"), "is not v/vt"),
        (SQUARE.replace("v 1 0 0", "v 1 0"), "does not hold 3 numbers"),
        (SQUARE.replace("v 1 0 0", "v 1 nan 0"), "not finite"),
        (SQUARE.replace("v 1 0 0", "v 1 1e39 0"), "not finite"),
        (SQUARE[: SQUARE.index("usemtl")], "no faces"),
        (SQUARE[: SQUARE.index("f 1/1") + 9], "a face of 2 corners"),
    ],
)
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ObjError, match=message):
        read_obj(written(tmp_path, text))


def test_a_comment_in_another_encoding_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "mesh.obj").write_bytes(b"# Fran\xe7ois\n" + SQUARE.encode())
    assert len(read_obj(tmp_path / "mesh.obj").vertices) == 4


def test_a_file_takes_little_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    """Rows of texts took seventeen times as much."""
    path = written(tmp_path, SQUARE.replace("usemtl skin", "v 0 0 0\n" * 100_000))
    tracemalloc.start()
    read_obj(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * path.stat().st_size  # 24 bytes a vertex, a copy and its absolute values


def test_a_file_that_is_no_mesh_of_one_head_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "mesh.obj").open("wb") as stream:
        stream.truncate(MAX_OBJ_BYTES + 1)
    with pytest.raises(ObjError, match="larger than"):
        read_obj(tmp_path / "mesh.obj")
    with pytest.raises(ObjError, match="line 1: not a text file"):
        read_obj(written(tmp_path, "v" + " 0" * 40_000))


def test_a_binary_or_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "mesh.obj").write_bytes(b"v \xff\xfe\x00")
    with pytest.raises(ObjError, match="not a text file"):
        read_obj(tmp_path / "mesh.obj")
    with pytest.raises(ObjError, match="no such file"):
        read_obj(tmp_path / "none.obj")


def test_another_number_of_vertices_is_named(tmp_path: Path) -> None:
    with pytest.raises(ObjError, match="4 vertices where the neutral head has 7"):
        read_obj_vertices(written(tmp_path, SQUARE), 7)


@pytest.mark.parametrize("row", ["v 1 0", "v 1 x 0", "v 1 nan 0", "v 1 1e39 0"])
def test_a_damaged_vertex_of_a_kits_file_is_a_clear_error(tmp_path: Path, row: str) -> None:
    with pytest.raises(ObjError, match=rf"{tmp_path}.*(3 numbers.*row|not finite)"):
        read_obj_vertices(written(tmp_path, SQUARE.replace("v 1 0 0", row)), 4)


def test_vertices_are_read_as_with_the_faces(tmp_path: Path) -> None:
    """With tabs, blanks before, and colours after."""
    path = written(tmp_path, SQUARE.replace("v 1 0 0", "  v\t1.25 0 -1e-3 0.5 0.5 0.5"))
    assert (read_obj_vertices(path, 4) == read_obj(path).vertices).all()
