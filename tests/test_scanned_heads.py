"""Heads that come with their own textures: FaceScape's layout, and scans."""

from __future__ import annotations

import io
import json
import shutil
import struct
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, angles_from_rotation, kabsch
from renderer.config import HeadsConfig, RenderConfig
from renderer.drawing import render_pose
from renderer.heads import HeadDataError, check_heads, open_heads
from renderer.heads.facescape import _texture_path, check
from renderer.heads.photo import PhotoHeads
from renderer.heads.placement import placed_by_face
from renderer.heads.scan import read_glb
from renderer.mesh import Mesh, vertex_normals
from renderer.obj import ObjError
from renderer.rasterizers import RasterizerError
from stages import Render
from stages.config import Config

EXPRESSIONS = ("1_neutral", "2_smile", "20_brow_lower")


@pytest.fixture(scope="module")
def facescape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people in FaceScape's layout, with three expressions each; made of the embedded photograph."""
    root = tmp_path_factory.mktemp("facescape")
    heads = PhotoHeads.open(HeadsConfig(), seed=5)
    for identity in (1, 2, 10, 333):
        for number, name in enumerate(EXPRESSIONS):
            mesh = heads.head(3 * identity + number)
            folder = root / str(identity) / "models_reg"
            folder.mkdir(parents=True, exist_ok=True)
            write_model(folder / f"{name}.obj", mesh)
    (root / "publishable.txt").write_text("1, 2\r\n10 122 212\n")
    return root


def write_model(path: Path, mesh: Mesh) -> None:
    """The mesh as FaceScape stores it: OBJ, MTL and JPG of one name; here in centimetres, off centre."""
    vertices = mesh.vertices / 10 + [3, 150, -2]
    lines = [f"mtllib {path.stem}.mtl", *(f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices)]
    lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in mesh.uv]
    lines += ["usemtl material_0", *(f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in mesh.faces + 1)]
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".mtl").write_text(f"newmtl material_0\nmap_Kd {path.stem}.jpg\n")
    Image.fromarray(mesh.texture).save(path.with_suffix(".jpg"), quality=95)


def config(folder: Path, **changes: object) -> HeadsConfig:
    return HeadsConfig.model_validate({"source": "facescape", "folder": folder, "train": 2, "validation": 1, **changes})


def test_people_are_the_publishable_identities_in_order(facescape: Path) -> None:
    listed = open_heads(config(facescape, publishable=facescape / "publishable.txt"), seed=1)
    assert listed.describe()["identities"] == [1, 2, 10]
    assert open_heads(config(facescape), seed=1).describe()["identities"] == [1, 2, 10, 333]
    with pytest.raises(HeadDataError, match="3 found, 9 asked for"):
        open_heads(config(facescape, publishable=facescape / "publishable.txt", train=8), seed=1)


def test_each_person_has_one_expression_drawn_by_the_seed(facescape: Path) -> None:
    first, again, other = (open_heads(config(facescape), seed=seed) for seed in (1, 1, 2))
    assert (first.head(2).vertices == again.head(2).vertices).all()
    drawn = [tuple(heads.head(person).vertices.mean(axis=0)) for heads in (first, other) for person in (1, 2, 3)]
    assert len(set(drawn)) > 3


def test_a_model_is_drawn_as_the_head_it_was_written_from(facescape: Path, detector: FaceMeshOnnx) -> None:
    """Unit and origin do not matter, and a turn is seen as the turn it is."""
    mesh = open_heads(config(facescape), seed=1).head(1)
    assert 200 < np.ptp(mesh.vertices[:, 1]) < 420
    normals = vertex_normals(mesh.vertices, mesh.faces)
    images = [
        render_pose(mesh, normals, pose, RenderConfig(), np.random.default_rng(1))
        for pose in ((0.0, 0.0, 0.0), (30.0, 0.0, 0.0))
    ]
    frontal, turned = (detector.detect(image)[0].points @ IMAGE_FROM_CAMERA for image in images)
    seen = angles_from_rotation(kabsch(frontal, turned)[0]).columns()
    np.testing.assert_allclose(seen, [30, 0, 0], atol=6)


def test_a_missing_texture_is_named(facescape: Path, tmp_path: Path) -> None:
    shutil.copytree(facescape / "1", tmp_path / "1")
    for image in (tmp_path / "1" / "models_reg").glob("*.jpg"):
        image.unlink()
    assert sum(line.startswith("missing") for line in check(tmp_path, None)) == len(EXPRESSIONS)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    with pytest.raises(HeadDataError, match=r"its texture .*\.jpg is missing"):
        open_heads(config(tmp_path, train=1), seed=1).head(1)


def test_a_material_cannot_lead_out_of_its_folder(facescape: Path, tmp_path: Path) -> None:
    for identity in ("1", "2"):
        shutil.copytree(facescape / "1", tmp_path / identity)
    for material in (tmp_path / "1" / "models_reg").glob("*.mtl"):
        material.write_text("map_Kd ../../../../etc/passwd\n")
    with pytest.raises(HeadDataError, match="its texture passwd is missing"):
        open_heads(config(tmp_path, train=1), seed=1).head(1)


def test_the_check_says_what_to_do(tmp_path: Path, facescape: Path) -> None:
    assert check(tmp_path / "none", None)[0].startswith("missing")
    assert "facescape.nju.edu.cn" in "\n".join(check(tmp_path, None))
    assert check(facescape, None) == ["found    4 identities with 12 models"]


def checked(folder: Path, heads: HeadsConfig, **render: object) -> None:
    settings = RenderConfig.model_validate(render)
    Render.require_renderable(Config(workdir=folder / "work", heads=heads, render=settings))


def test_the_check_refuses_what_rendering_refuses(facescape: Path, tmp_path: Path) -> None:
    """The check of the data alone passed all of these."""
    own = tmp_path / "work" / "renders"
    checked(tmp_path, config(facescape, train=1))
    assert not own.parent.exists()
    with pytest.raises(HeadDataError, match=r"4 found, 9 asked for"):
        checked(tmp_path, config(facescape, train=8))
    shutil.copytree(facescape, tmp_path / "damaged")
    last = tmp_path / "damaged" / "333"  # the one validation person
    for model in last.rglob("*.obj"):
        model.write_text("v 0 0 0\n")
    with pytest.raises((HeadDataError, ObjError), match=str(last)):
        checked(tmp_path, config(tmp_path / "damaged", train=1))
    blank = tmp_path / "photos"
    blank.mkdir()
    Image.fromarray(np.full((64, 64, 3), 90, dtype=np.uint8)).save(blank / "wall.png")
    with pytest.raises(HeadDataError, match="no face found"):
        checked(tmp_path, HeadsConfig(photos=blank))
    own.mkdir(parents=True)
    (own / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not replaced"):
        checked(tmp_path, HeadsConfig())
    if find_spec("pytorch3d") is None:
        with pytest.raises(RasterizerError, match=r"INSTALL\.md"):
            checked(blank, HeadsConfig(), rasterizer="pytorch3d")


def test_a_real_scan_is_placed_by_its_face(shared_data: Path, detector: FaceMeshOnnx) -> None:
    mesh = read_glb(shared_data / "lee_perry_smith" / "LeePerrySmith.glb")
    placed = placed_by_face(mesh, "scan", detector)
    # The tip of an adult's nose lies some 11 cm before the point between the ears, about which heads turn.
    np.testing.assert_allclose(placed.vertices[placed.vertices[:, 2].argmax()], (0, -18, 110), atol=10)
    normals = vertex_normals(placed.vertices, placed.faces)
    image = render_pose(placed, normals, (-30.0, 10.0, 0.0), RenderConfig(), np.random.default_rng(1))
    assert len(detector.detect(image)) == 1
    backwards = Mesh(placed.vertices * np.float32([1, 1, -1]), placed.faces, placed.uv, placed.texture)
    with pytest.raises(HeadDataError, match="looks along"):
        placed_by_face(backwards, "scan", detector)


def test_a_scan_that_reaches_behind_the_camera_is_named(shared_data: Path, tmp_path: Path) -> None:
    """As of a whole person: hours into a run a vertex of nobody's lay behind the camera, and the check had passed."""
    described, binary = scan(shared_data)
    accessor = described["accessors"][described["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    start = described["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
    places = np.frombuffer(binary, np.float32, 3 * accessor["count"], start).reshape(-1, 3).copy()
    low = places[:, 1] < np.quantile(places[:, 1], 0.3)
    places[low, 1] -= 5 * (places[low, 1].max() - places[low, 1])
    binary[start : start + places.nbytes] = places.tobytes()
    for name in ("a", "b"):
        write_glb(tmp_path / "scans" / name / "a.glb", described, binary)
        shutil.copy(shared_data / "lee_perry_smith" / "Map-COL.jpg", tmp_path / "scans" / name)
    heads = HeadsConfig(source="scan", folder=tmp_path / "scans", train=1, validation=1)
    with pytest.raises(HeadDataError, match=r"person 1: at .* the mesh reaches \d+ mm .*distance_mm"):
        checked(tmp_path, heads)
    people = Config(workdir=tmp_path / "work", heads=heads).people()
    assert len(list(people.cells(1, [0]))) == 1  # at this pose it does not
    with pytest.raises(HeadDataError, match="person 1: at"):
        list(people.images(1, reversed(people.on_grid())))
    checked(tmp_path, heads, appearance={"distance_mm": (3000, 4000)})


def test_scans_are_found_however_their_suffix_is_written(tmp_path: Path) -> None:
    for name in ("b.glb", "a/A.GLB", "a/._A.GLB"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    heads = open_heads(HeadsConfig(source="scan", folder=tmp_path, train=1, validation=1), seed=1)
    assert heads.describe()["scans"] == ["A.GLB", "b.glb"]
    assert len(check_heads(HeadsConfig(source="scan", folder=tmp_path))) == 2
    with pytest.raises(HeadDataError, match="0 found, 2 asked for"):
        open_heads(HeadsConfig(source="scan", folder=tmp_path / "none", train=1, validation=1), seed=1)


def test_a_broken_scan_is_a_clear_error(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "lee_perry_smith" / "LeePerrySmith.glb"
    (tmp_path / "a.glb").write_bytes(source.read_bytes()[:1000])
    with pytest.raises(HeadDataError, match="not a readable"):
        read_glb(tmp_path / "a.glb")
    shutil.copy(source, tmp_path / "a.glb")
    with pytest.raises(HeadDataError, match="0 images beside it"):
        read_glb(tmp_path / "a.glb")


def scan(shared_data: Path) -> tuple[dict[str, Any], bytearray]:
    """The real scan's JSON and its binary part."""
    content = (shared_data / "lee_perry_smith" / "LeePerrySmith.glb").read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    return json.loads(content[20 : 20 + length]), bytearray(content[28 + length :])


def write_glb(path: Path, described: dict[str, Any], binary: bytes) -> None:
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


@pytest.mark.parametrize(("kind", "value"), [("TEXCOORD_0", np.nan), ("TEXCOORD_0", np.inf), ("POSITION", np.nan)])
def test_a_scan_with_coordinates_that_are_no_numbers_is_refused(
    shared_data: Path, tmp_path: Path, kind: str, value: float
) -> None:
    """The interpreter ended when such a head was drawn."""
    described, binary = scan(shared_data)
    accessor = described["accessors"][described["meshes"][0]["primitives"][0]["attributes"][kind]]
    start = described["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
    struct.pack_into("<f", binary, start, value)
    write_glb(tmp_path / "a.glb", described, binary)
    shutil.copy(shared_data / "lee_perry_smith" / "Map-COL.jpg", tmp_path)
    with pytest.raises(HeadDataError, match=r"a\.glb: .* hold NaN or infinite values"):
        read_glb(tmp_path / "a.glb")


def test_a_scan_that_the_parser_stumbles_over_is_named(shared_data: Path, tmp_path: Path) -> None:
    described, binary = scan(shared_data)
    described["buffer_views"] = described.pop("bufferViews")
    write_glb(tmp_path / "a.glb", described, binary)
    with pytest.raises(HeadDataError, match=r"a\.glb: not a readable"):
        read_glb(tmp_path / "a.glb")


@pytest.mark.parametrize(
    "text",
    ["\n" * 999_000, "map_Kd" + " " * 999_000, "map_Kd /\n", " map_Kd \t b/a c.jpg \r\n"],
    ids=["lines", "spaces", "no name", "a name"],
)
def test_a_material_of_any_kind_is_read_at_once(tmp_path: Path, text: str) -> None:
    """Of a megabyte of empty lines the pattern for a texture's name went back over them for an hour."""
    (tmp_path / "1.mtl").write_text(text)
    start = time.monotonic()
    assert _texture_path(tmp_path / "1.obj", "/").name == ("a c.jpg" if "c.jpg" in text else "1.jpg")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["zeros", "instances"])
def test_a_scan_that_fills_the_memory_is_refused(shared_data: Path, tmp_path: Path, kind: str) -> None:
    """What an accessor without a view announces is zeros, and a part may be shown by many nodes."""
    described, binary = scan(shared_data)
    if kind == "zeros":
        described["accessors"].append({"componentType": 5126, "count": 10**8, "type": "SCALAR"})
    else:
        described["nodes"] += [{"mesh": 0}] * 2000
        described["scenes"][0]["nodes"] = list(range(len(described["nodes"])))
    write_glb(tmp_path / "a.glb", described, binary)
    shutil.copy(shared_data / "lee_perry_smith" / "Map-COL.jpg", tmp_path)
    with pytest.raises(HeadDataError, match=r"a\.glb: not a readable .* far more numbers than it holds"):
        read_glb(tmp_path / "a.glb")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("form", "side"), [("EPS", 8), ("PNG", 9500)])
def test_a_scan_whose_image_is_none_that_is_read_is_refused(
    shared_data: Path, tmp_path: Path, form: str, side: int
) -> None:
    """For EPS Pillow runs another program, and a vast image of one colour has a few kilobytes."""
    described, binary = scan(shared_data)
    stream = io.BytesIO()
    Image.new("L", (side, side)).save(stream, form)
    described["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(stream.getvalue())})
    described["images"], described["textures"] = [{"bufferView": len(described["bufferViews"]) - 1}], [{"source": 0}]
    described["materials"][0]["pbrMetallicRoughness"] = {"baseColorTexture": {"index": 0}}
    write_glb(tmp_path / "a.glb", described, bytes(binary) + stream.getvalue() + bytes(-len(stream.getvalue()) % 4))
    with pytest.raises(HeadDataError, match=rf"its baseColorTexture is {form} of {side} x {side}"):
        read_glb(tmp_path / "a.glb")


@pytest.mark.parametrize(("shift", "stretch"), [((1, -2), 1), ((0, 0), 2), ((-0.25, 0), 1.5)])
def test_a_texture_is_repeated_as_gltf_repeats_it(
    shared_data: Path, tmp_path: Path, shift: tuple[float, float], stretch: float
) -> None:
    """The head had the colour of the texture's edge all over."""
    plain = read_glb(shared_data / "lee_perry_smith" / "LeePerrySmith.glb")
    moved = (plain.uv * stretch + np.float32(shift)).astype(np.float32)
    _write_uv(shared_data, tmp_path, moved)
    read = read_glb(tmp_path / "a.glb")
    assert 0 <= read.uv.min() <= read.uv.max() <= 1
    rows, columns = plain.texture.shape[:2]
    for uv, own in zip(moved[::97], read.uv[::97], strict=True):
        x, y = (uv % 1 * [columns, rows]).astype(int)
        column, row = (own * [read.texture.shape[1], read.texture.shape[0]]).astype(int)
        assert np.abs(np.subtract([column % columns, row % rows], [x, y])).max() <= 1
    _write_uv(shared_data, tmp_path, plain.uv * 40)
    with pytest.raises(HeadDataError, match=r"a\.glb: texture coordinates from .* expected at most 16"):
        read_glb(tmp_path / "a.glb")


def _write_uv(shared_data: Path, folder: Path, uv: np.ndarray) -> None:
    """The real scan with other texture coordinates, counted from the top row, and its image beside it."""
    described, binary = scan(shared_data)
    accessor = described["accessors"][described["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]]
    start = described["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
    # Beside the file: trimesh turns glTF's v, and then none is turned back.
    struct.pack_into(f"<{2 * len(uv)}f", binary, start, *(uv * [1, -1] + [0, 1]).ravel())
    write_glb(folder / "a.glb", described, binary)
    shutil.copy(shared_data / "lee_perry_smith" / "Map-COL.jpg", folder)
