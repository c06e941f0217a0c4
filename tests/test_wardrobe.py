"""MakeHuman's hair and clothes on the kit's heads, and necks that bend: what turns with what, and what lies where."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nlml_hpe.rotation import Angles, geodesic_degrees, rotation_from_angles
from renderer.config import CropsConfig, HeadsConfig
from renderer.crop_people import draw_person, small_kit
from renderer.crop_scene import pictures
from renderer.crops import CropSet
from renderer.heads import HeadDataError
from renderer.heads.ict_kit import Kit
from renderer.makehuman import NAPE_MM, Wardrobe, check_wardrobe, open_wardrobe, read_wardrobe
from renderer.neck import NECK_MM, SKULL_MM, draw_body, head_share, posed
from renderer.obj import ObjError
from renderer.skull import CENTRE, Envelope

HAIR, CLOTHES = "hair/short04.obj", "clothes/female_sportsuit01.obj"


@pytest.fixture(scope="module")
def kit(kit_of_few: Path) -> Kit:
    return Kit.open(kit_of_few, kit_of_few.parent / "cache" / "ict_facekit.npz")


@pytest.fixture(scope="module")
def meshes(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few of MakeHuman's meshes, one in a folder of its own, as its repository has them."""
    whole, few = shared_data / "makehuman", tmp_path_factory.mktemp("makehuman")
    (few / "hair" / "short04").mkdir(parents=True)
    (few / "clothes").mkdir()
    shutil.copy(whole / "base.obj", few / "base.obj")
    shutil.copy(whole / HAIR, few / "hair" / "short04" / "short04.obj")
    for name in (CLOTHES, "clothes/fedora.obj"):
        shutil.copy(whole / name, few / name)
    return few


@pytest.fixture(scope="module")
def wardrobe(meshes: Path, kit: Kit) -> Wardrobe:
    return read_wardrobe(meshes, kit.skin)


def test_a_head_that_faces_as_its_body_is_turned_as_a_whole(kit: Kit) -> None:
    turn = rotation_from_angles(Angles.from_columns((30.0, -20.0, 10.0)))
    normals = np.tile(np.array([0, 0, 1], dtype=np.float32), (len(kit.neutral), 1))
    whole = posed(kit.neutral, normals, head_share(kit.neutral), turn, turn)
    # Float32 millimetres of a head.
    np.testing.assert_allclose(whole.vertices, (kit.neutral - NECK_MM) @ turn.T, atol=2e-3)
    np.testing.assert_allclose(whole.normals, normals @ turn.T, atol=1e-6)


def test_the_chin_goes_with_the_head_and_the_shoulders_stay(kit: Kit) -> None:
    turn = rotation_from_angles(Angles.from_columns((50.0, 25.0, 0.0)))
    share = head_share(kit.neutral)
    bent = posed(kit.neutral, np.zeros_like(kit.neutral), share, turn, np.eye(3))
    face = kit.landmarks
    assert share[face].min() == 1
    np.testing.assert_allclose(bent.vertices[face], (kit.neutral[face] - SKULL_MM) @ turn.T + bent.skull, atol=1e-3)
    low = kit.neutral[:, 1] < -170
    np.testing.assert_allclose(bent.vertices[low], kit.neutral[low] - NECK_MM, atol=1e-3)
    # The neck bends and does not tear: neighbours, up to 30 mm apart, stay within half of that of their distance.
    edges = kit.source[kit.faces][:, :2]
    before, after = (np.linalg.norm(np.diff(v[edges], axis=1)[:, 0], axis=1) for v in (kit.neutral, bent.vertices))
    assert np.abs(after - before).max() < 15


def test_what_lies_between_head_neck_and_body_is_their_mean_and_normals_stay_of_unit_length() -> None:
    rng = np.random.default_rng(0)
    share = np.linspace(0, 1, 9).astype(np.float32)
    places, normals = rng.normal(size=(2, 9, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    head, neck, body = (rotation_from_angles(Angles.from_columns((yaw, 0.0, 0.0))) for yaw in (70.0, 40.0, 10.0))
    bent = posed(places, normals, share, head, body)
    np.testing.assert_allclose(bent.skull, neck @ (SKULL_MM - NECK_MM), rtol=1e-5)
    parts = np.stack([np.clip(2 * share - 1, 0, 1), 1 - np.abs(2 * share - 1), np.clip(1 - 2 * share, 0, 1)])
    each = [(places - SKULL_MM) @ head.T + bent.skull, *((places - NECK_MM) @ turn.T for turn in (neck, body))]
    np.testing.assert_allclose(bent.vertices, np.einsum("kv,kvd->vd", parts, each), atol=1e-4)
    facing = np.einsum("kv,kvd->vd", parts, [normals @ turn.T for turn in (head, neck, body)])
    np.testing.assert_allclose(bent.normals, facing / np.linalg.norm(facing, axis=1, keepdims=True), atol=1e-5)


def test_shoulders_are_such_as_a_head_can_have() -> None:
    rng = np.random.default_rng(0)
    level = rotation_from_angles(
        Angles.from_columns(np.column_stack([np.linspace(-180, 180, 200), *np.zeros((2, 200))]))
    )
    bodies = np.array([draw_body(head, rng) for head in level])
    # 75 degrees of yaw with 12 and 12 of what strays from pitch and roll.
    assert geodesic_degrees(level, bodies).max() < 85
    assert np.median(geodesic_degrees(level[90:110], bodies[90:110])) < 25


def test_hair_lies_on_the_skull_and_clothes_below_the_chin(kit: Kit, wardrobe: Wardrobe) -> None:
    assert list(wardrobe.hair) == ["short04"]
    hair = wardrobe.hair["short04"].vertices
    above = hair[hair[:, 1] > NAPE_MM]
    gap = np.linalg.norm(above - CENTRE, axis=1) - Envelope(kit.skin).under(above)
    assert gap.min() > 2
    assert np.median(gap) < 15
    # A hat is of no body, and is left out.
    assert (list(wardrobe.clothes), wardrobe.left_out) == (["female_sportsuit01"], ("fedora",))
    chin = kit.neutral[kit.landmarks[8], 1]
    for piece in (wardrobe.body, *wardrobe.clothes.values()):
        assert piece.vertices[:, 1].max() < chin + 15
        assert np.ptp(piece.vertices[:, 0]) > 350


def test_hair_may_have_more_vertices_than_remap_takes_places(kit: Kit) -> None:
    """As styles of MakeHuman's community have; OpenCV's assertion named no file."""
    reach = Envelope(kit.skin)
    some = kit.skin[:1000]
    np.testing.assert_array_equal(reach.under(np.tile(some, (40, 1))), np.tile(reach.under(some), 40))


def test_dressed_people_are_seeded_and_their_boxes_lie_in_the_middle(meshes: Path, kit_of_few: Path) -> None:
    config = CropsConfig(crops_per_person=3, faces=1, people_per_shard=1, size=48)
    bare, dressed = (
        CropSet(
            HeadsConfig(source="ict_facekit", folder=kit_of_few, makehuman=folder),
            config,
            5,
            "train",
            kit_of_few.parent / "cache",
        )
        for folder in (None, meshes)
    )
    first, again = dressed.of_person(1), dressed.of_person(1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
    assert all((one.image != two.image).any() for one, two in zip(first, bare.of_person(1), strict=True))
    for crop in first:
        np.testing.assert_allclose((crop.box[:2] + crop.box[2:]) / 2, 24, atol=1e-3)
    assert set(dressed.inputs()) - set(bare.inputs()) == {"makehuman"}


def test_people_of_a_wardrobe_are_whole_meshes(kit: Kit, wardrobe: Wardrobe) -> None:
    small, heads = small_kit(kit), HeadsConfig(source="ict_facekit", folder=Path("unused"), expressions=())
    for number in range(6):
        person = draw_person(small, heads, 1, pictures(None), np.random.default_rng(number), wardrobe)
        (take,) = person.takes
        assert len(take.vertices) == len(take.normals) == len(person.uv) == len(person.share) > person.faces.max()
        assert person.uv.min() >= 0
        assert person.uv.max() <= 1


def test_a_folder_without_the_meshes_is_said(meshes: Path, kit: Kit, tmp_path: Path) -> None:
    with pytest.raises(HeadDataError, match=r"missing .*base\.obj"):
        read_wardrobe(tmp_path, kit.skin)
    # In the repository of that name the folder makehuman comes first, as data/README.md says.
    assert " makehuman/data/3dobjs/base.obj of " in "".join(check_wardrobe(tmp_path))
    lines = check_wardrobe(meshes)
    # The hat is no garment of a body.
    assert [line.split()[:2] for line in lines[1:]] == [["found", "1"], ["found", "1"]]
    for part in ("hair", "clothes"):
        (tmp_path / part).mkdir()
        shutil.copy(meshes / CLOTHES, tmp_path / part / "female_some.obj")
    shutil.copy(meshes / "base.obj", tmp_path / "base.obj")
    (tmp_path / "hair" / "cut.obj").write_text("v 0 0 0\n")
    with pytest.raises(ObjError, match="no faces"):
        read_wardrobe(tmp_path, kit.skin)


@pytest.fixture
def own(meshes: Path, tmp_path: Path) -> Path:
    """A copy of the meshes, to be spoilt."""
    return Path(shutil.copytree(meshes, tmp_path / "own"))


def flattened(text: str) -> str:
    return re.sub(r"^v .*$", "v 0 0 0", text, flags=re.MULTILINE)


def far_away(text: str) -> str:
    return re.sub(r"^v .*$", "v 1e38 -1e38 0", text, count=1, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "spoilt", "message"),
    [
        ("base.obj", lambda _: "v 0 0 0\n" * 3 + "vt 0 0\nf 1/1 2/1 3/1\n", "found 3 vertices and 1 triangles"),
        ("base.obj", flattened, "a head of other proportions"),
        ("base.obj", far_away, "a coordinate is beyond 1000"),
        ("hair/short04/short04.obj", far_away, "a coordinate is beyond 1000"),
        (CLOTHES, far_away, "a coordinate is beyond 1000"),
    ],
)
def test_a_mesh_of_something_else_is_named(
    own: Path, kit: Kit, name: str, spoilt: Callable[[str], str], message: str
) -> None:
    path = own / name
    text = path.read_text()
    path.unlink()  # a copy is as write-protected as what it is a copy of
    path.write_text(spoilt(text))
    with pytest.raises(HeadDataError, match=rf"{re.escape(str(path))}: .*{message}"):
        read_wardrobe(own, kit.skin)


def arrays_of(wardrobe: Wardrobe) -> dict[str, list[bytes]]:
    pieces = {**wardrobe.hair, **wardrobe.clothes, "body": wardrobe.body}
    return {name: [array.tobytes() for array in piece] for name, piece in pieces.items()}


def test_the_cache_holds_the_same_and_is_made_again_where_it_does_not_fit(own: Path, kit: Kit, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "makehuman.npz"
    first = open_wardrobe(own, kit.skin, cache)
    made = cache.stat().st_mtime_ns
    again = open_wardrobe(own, kit.skin, cache)
    assert cache.stat().st_mtime_ns == made
    assert arrays_of(again) == arrays_of(first)
    assert (list(again.hair), list(again.clothes)) == (list(first.hair), list(first.clothes))
    assert again.left_out == first.left_out == ("fedora",)
    cache.write_bytes(cache.read_bytes()[:-100])
    assert arrays_of(open_wardrobe(own, kit.skin, cache)) == arrays_of(first)
    with cache.open("wb") as stream:
        np.savez(stream, header=np.frombuffer(b"[1]", dtype=np.uint8))
    assert arrays_of(open_wardrobe(own, kit.skin, cache)) == arrays_of(first)
    larger = open_wardrobe(own, kit.skin * np.float32(1.1), cache)
    assert arrays_of(larger) != arrays_of(first)
    shutil.copy(own / "hair" / "short04" / "short04.obj", own / "hair" / "other.obj")
    assert sorted(open_wardrobe(own, kit.skin, cache).hair) == ["other", "short04"]


def test_two_files_that_are_called_alike_are_both_worn(own: Path, kit: Kit) -> None:
    """One was lost, and the check counted two."""
    for other in ("hair/short04.obj", "clothes/sub/female_sportsuit01.obj"):
        (own / other).parent.mkdir(exist_ok=True)
    shutil.copy(own / "hair" / "short04" / "short04.obj", own / "hair" / "short04.obj")
    shutil.copy(own / CLOTHES, own / "clothes" / "sub" / "female_sportsuit01.obj")
    read = read_wardrobe(own, kit.skin)
    assert sorted(read.hair) == ["short04 (.)", "short04 (short04)"]
    assert sorted(read.clothes) == ["female_sportsuit01 (.)", "female_sportsuit01 (sub)"]
