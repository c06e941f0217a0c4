"""ICT-FaceKit: people made of the kit's own files, found by a real detector, and damaged kits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nlml_hpe.manifold.extraction import person_rows
from renderer.config import HeadsConfig, LooksConfig
from renderer.crop_people import draw_person
from renderer.crop_people import small_kit as crop_kit
from renderer.heads import HeadDataError, open_heads
from renderer.heads.ict_facekit import IctHeads
from renderer.heads.ict_kit import LANDMARKS, NEUTRAL, Kit, check
from renderer.looks import draw_looks
from renderer.obj import ObjError
from stages.config import Config

FEW = ("identity000.obj", "identity001.obj", "jawOpen.obj", "mouthSmile_L.obj", "mouthSmile_R.obj")


@pytest.fixture(scope="module")
def kit_folder(shared_data: Path) -> Path:
    return shared_data / "ict_facekit" / "FaceXModel"


@pytest.fixture(scope="module")
def config(kit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    heads = HeadsConfig(source="ict_facekit", folder=kit_folder)
    return Config(workdir=tmp_path_factory.mktemp("ict"), seed=1, heads=heads)


@pytest.fixture(scope="module")
def heads(config: Config) -> IctHeads:
    opened = config.people().open_heads()
    assert isinstance(opened, IctHeads)
    return opened


def heads_facing(config: Config, facing: str) -> IctHeads:
    heads = config.heads.model_copy(update={"facing": facing})
    opened = config.model_copy(update={"heads": heads}).people().open_heads()
    assert isinstance(opened, IctHeads)
    return opened


@pytest.fixture
def small_kit(kit_folder: Path, tmp_path: Path) -> Path:
    """A kit with two identity modes and three expressions."""
    kit = tmp_path / "FaceXModel"  # what a test writes beside it makes no other kit of it
    kit.mkdir()
    for name in (NEUTRAL, LANDMARKS, *FEW):
        shutil.copy(kit_folder / name, kit / name)
    return kit


def test_it_says_which_modes_it_found(heads: IctHeads, small_kit: Path) -> None:
    facts = heads.describe()
    assert len(facts["identity_modes"]) == 24  # type: ignore[arg-type]
    assert len(facts["expressions"]) == 8  # type: ignore[arg-type]
    said = "\n".join(check(heads.config.folder or Path()))
    assert "found    24 of 100 identity modes" in said
    assert "found    57 expressions (53 are published): " in said  # not 57 of 53
    (small_kit / "._identity000.obj").write_bytes(b"\0\5\x16\7")  # as a Mac leaves beside copies
    few = open_heads(HeadsConfig(source="ict_facekit", folder=small_kit), seed=1)
    assert few.describe()["identity_modes"] == ["identity000", "identity001"]
    assert few.head(1).vertices.shape[1] == 3


@pytest.mark.parametrize("name", ["mouthSmlie", "mouthSmile_L"])
def test_an_expression_that_the_kit_has_not_is_named(small_kit: Path, name: str) -> None:
    """People had kept a neutral face, and nobody was told."""
    config = HeadsConfig(source="ict_facekit", folder=small_kit, expressions=("jawOpen", name))
    with pytest.raises(HeadDataError, match=f"the kit has no {name}; it has jawOpen, mouthSmile$"):
        open_heads(config, seed=1)
    kit, rng = crop_kit(Kit.open(small_kit, None)), np.random.default_rng(0)
    with pytest.raises(HeadDataError, match=f"the kit has no {name}"):
        draw_person(kit, config, 1, [], rng)


def test_people_are_seeded_and_the_cache_changes_nothing(heads: IctHeads, small_kit: Path, tmp_path: Path) -> None:
    config = HeadsConfig(source="ict_facekit", folder=small_kit)
    fresh, written, cached = (IctHeads.open(config, 4, c) for c in (None, tmp_path / "cache", tmp_path / "cache"))
    assert (tmp_path / "cache" / "ict_facekit.npz").is_file()
    for other in (written, cached):
        first, second = fresh.head(2), other.head(2)
        assert (first.vertices == second.vertices).all()
        assert (first.texture == second.texture).all()
        # Of some people a texel differed: what is computed of an array depends on how it lies in memory.
        for name in ("part", "position", "normal", "openness"):
            assert getattr(fresh.kit.texels, name).strides == getattr(other.kit.texels, name).strides
    difference = np.abs(heads.head(3).vertices[:5000] - heads.head(4).vertices[:5000])
    assert 0.5 < difference.mean() < 15.0


def test_a_head_is_the_neutral_one_and_its_modes(heads: IctHeads) -> None:
    """Twice the first mode, read from the kit's file by other means."""
    kit = heads.kit
    weights = np.zeros(len(kit.identity))
    weights[0] = 2.0
    rows = [
        np.array([line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")], dtype=float)
        for path in (heads.config.folder / name for name in (NEUTRAL, "identity000.obj"))  # type: ignore[operator]
    ]
    np.testing.assert_allclose(kit.shape(weights, {}), 10 * (2 * rows[1] - rows[0]), atol=1e-3)


def test_people_can_be_made_to_face_the_same_way(config: Config) -> None:
    """The rotation from the mean head's 68 points to those of a person, whose mouth is closed."""
    turns = {}
    for facing in ("own", "mean"):
        heads = heads_facing(config, facing)
        mean, rng = heads.kit.neutral[heads.kit.landmarks].astype(np.float64), np.random.default_rng(5)
        drawn = rng.normal(size=(40, len(heads.kit.identity))).clip(-2.5, 2.5)
        marks = [heads.kit.shape(weights, {})[heads.kit.landmarks].astype(np.float64) for weights in drawn]
        fits = [Rotation.align_vectors(each - each.mean(axis=0), mean - mean.mean(axis=0))[0] for each in marks]
        turns[facing] = np.degrees([fit.magnitude() for fit in fits])
    assert turns["mean"].max() < 1e-3  # of float32
    assert np.median(turns["own"]) > 0.8


def test_weights_and_strengths_out_of_range_are_refused(heads: IctHeads) -> None:
    count = len(heads.kit.identity)
    with pytest.raises(ValueError, match="within 5 standard deviations"):
        heads.kit.shape(np.full(count, 9.0), {})
    with pytest.raises(ValueError, match="expected 24 identity weights"):
        heads.kit.shape(np.zeros(3), {})
    with pytest.raises(ValueError, match=r"strengths in 0\.\.1"):
        heads.kit.shape(np.zeros(count), {"jawOpen": 1.5})
    with pytest.raises(ValueError, match="expected expressions among"):
        heads.kit.shape(np.zeros(count), {"wink": 0.5})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "no neutral",
            r"missing  generic_neutral_mesh\.obj(.*\n)*to get   git clone https://github.com/USC-ICT/ICT-FaceKit",
        ),
        ("short mode", "vertices where the neutral head has 26719"),
        ("cut mode", "a 'v' line that does not hold 3 numbers"),
        ("other mesh", "no faces with usemtl"),
        ("no landmarks", "expected 68 vertex indices"),
        ("ragged landmarks", r"vertex_indices\.json: expected 68 vertex indices"),
    ],
)
def test_a_damaged_kit_is_a_clear_error(small_kit: Path, damage: str, message: str) -> None:
    mode = small_kit / "identity001.obj"
    if damage == "no neutral":
        (small_kit / NEUTRAL).unlink()
    elif damage == "short mode":
        mode.write_bytes(b"\n".join(mode.read_bytes()[:400_000].split(b"\n")[:-1]))
    elif damage == "cut mode":
        mode.write_bytes(mode.read_bytes().replace(b"\nv ", b"\nv 1.0 2.0 # ", 1))
    elif damage == "other mesh":
        (small_kit / NEUTRAL).write_text("v 0 0 0\nvt 0 0\nf 1/1 1/1 1/1\n")
    else:
        text = "{}" if damage == "no landmarks" else '{"idx_to_landmark_verts": [[1], [2, 3]]}'
        (small_kit / LANDMARKS).write_text(text)
    with pytest.raises((HeadDataError, ObjError), match=message):
        open_heads(HeadsConfig(source="ict_facekit", folder=small_kit), seed=1)


def test_a_damaged_cache_is_made_again(small_kit: Path, tmp_path: Path) -> None:
    kit = Kit.open(small_kit, tmp_path / "kit.npz")
    (tmp_path / "kit.npz").write_bytes(b"PK\x03\x04 cut off")
    assert (Kit.open(small_kit, tmp_path / "kit.npz").neutral == kit.neutral).all()


def test_a_mesh_that_kept_its_size_is_read_again(small_kit: Path, tmp_path: Path) -> None:
    """A forced stage drew the heads of before: the cache knew names and sizes alone."""
    kit = Kit.open(small_kit, tmp_path / "kit.npz")
    mesh = small_kit / FEW[0]
    lines = mesh.read_bytes().splitlines(keepends=True)
    at = [number for number, line in enumerate(lines) if line.startswith(b"v ")]
    for number in at:  # every vertex a little further to one side, in as many letters
        x = lines[number].split()[1]
        lines[number] = lines[number].replace(x, x[:-1] + (b"1" if x.endswith(b"2") else b"2"), 1)
    size = mesh.stat().st_size
    mesh.write_bytes(b"".join(lines))
    assert mesh.stat().st_size == size
    assert (Kit.open(small_kit, tmp_path / "kit.npz").identity != kit.identity).any()


def test_looks_cover_what_the_configuration_allows() -> None:
    everything = [draw_looks(LooksConfig(), np.random.default_rng(seed)) for seed in range(400)]
    assert {looks.hair for looks in everything} == {"bald", "short", "full", "long"}
    assert {looks.covering for looks in everything} == {"none", "cap", "scarf"}
    assert {looks.eyewear for looks in everything} >= {"none", "glasses"}
    assert any(looks.beard for looks in everything)
    assert any(looks.face_mask for looks in everything)
    plain = LooksConfig(bald=1, long_hair=0, beard=0, glasses=0, sunglasses=0, head_covering=0, face_mask=0)
    bare = [draw_looks(plain, np.random.default_rng(seed)) for seed in range(100)]
    assert not any(looks.beard or looks.face_mask for looks in bare)
    assert {looks.eyewear for looks in bare} == {"none"}


def test_every_look_can_be_painted(heads: IctHeads) -> None:
    """What is worn changes what is seen: no two of these textures or shapes are alike."""
    shape = heads.kit.shape(np.zeros(len(heads.kit.identity)), {})
    plain = LooksConfig(bald=1, long_hair=0, beard=0, makeup=0, glasses=0, sunglasses=0, head_covering=0, face_mask=0)
    worn = [{"bald": 0}, {"bald": 0, "long_hair": 1}, {"glasses": 1}, {"sunglasses": 1}, {"head_covering": 1}]
    worn += [{"face_mask": 1}]
    bald = heads.kit.mesh(shape, draw_looks(plain, np.random.default_rng(8)))
    for change in worn:
        # The generator is the same, so what differs is what is worn.
        mesh = heads.kit.mesh(shape, draw_looks(plain.model_copy(update=change), np.random.default_rng(8)))
        other = mesh.vertices.shape != bald.vertices.shape or np.abs(mesh.vertices - bald.vertices).max() > 1
        assert other or (mesh.texture != bald.texture).mean() > 0.005, change


def changed(heads: IctHeads, **looks: object) -> np.ndarray:
    """Texels (H, W) of the face that look different where these looks are put on a plain face."""
    drawn = draw_looks(LooksConfig(), np.random.default_rng(8))
    # Without hair, folds and stubble: these take from the same generator, after the beard.
    bare = {"hair": "bald", "age": 0.1, "beard": 0.0, "stubble": 0.0, "eye_makeup": 0.0}
    plain = replace(drawn, **bare, covering="none", face_mask=False)
    before, after = (heads.kit.canvas.paint(person).astype(int) for person in (plain, replace(plain, **looks)))
    difference: np.ndarray = np.abs(after - before).max(axis=-1) > 12
    return difference


def test_a_beard_is_painted_on_the_jaw_and_nowhere_else(heads: IctHeads) -> None:
    canvas = heads.kit.canvas
    height, marks = canvas.texels.position[..., 1], canvas.anatomy.landmarks
    bearded = changed(heads, beard=0.9)
    assert bearded.sum() > 5000
    # Nothing above the middle of the eyes; the chin all over (mark 8 is its tip, 57 the lower lip's edge).
    assert height[bearded].max() < marks[36:48, 1].mean()
    chin = np.linalg.norm(canvas.texels.position - (marks[8] + marks[57]) / 2, axis=-1) < 8
    assert chin.sum() > 100
    assert bearded[chin].mean() > 0.9
    assert not changed(heads, beard=0.0).any()


def test_makeup_is_painted_around_the_eyes(heads: IctHeads) -> None:
    canvas = heads.kit.canvas
    made_up = changed(heads, eye_makeup=1.0)
    assert made_up.sum() > 300
    marks = canvas.anatomy.landmarks
    from_eyes = np.linalg.norm(canvas.texels.position[made_up][:, None] - marks[36:48], axis=-1).min(axis=1)
    # Shadow reaches from the lashes towards the brow, which is 20 to 25 mm away.
    assert from_eyes.max() < 20


def test_the_detector_finds_these_faces_on_the_whole_grid(config: Config) -> None:
    """The limit of 97% on the default grid, here on a third of its cells; and alike on both sides."""
    grid = config.grid.pose_grid()
    cells = range(1, grid.size, 3)
    found = [
        person_rows(config.people().cells(person, cells), [], (len(cells),), config.landmarks).routes > 0
        for person in (1, 2, 3)
    ]
    rate = np.mean(found, axis=0)
    assert rate.mean() >= 0.97
    yaw = grid.angles().columns().reshape(-1, 3)[list(cells), 0]
    # A lopsided rate is a sign of a lopsided head; these are some 250 faces a side.
    assert abs(rate[yaw > 0].mean() - rate[yaw < 0].mean()) < 0.03
