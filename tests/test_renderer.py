"""Camera, rasteriser, shader and heads: what is drawn is what geometry says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from PIL import Image
from scipy.spatial import ConvexHull

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, Angles, angles_from_rotation, kabsch, rotation_from_angles
from renderer.appearance import FIXED_LIGHT, draw_scene
from renderer.camera import Camera
from renderer.compiled import compiled
from renderer.config import AppearanceConfig, HeadsConfig, RenderConfig
from renderer.drawing import HEAD_EXTENT_MM, render_pose
from renderer.heads.photo import PhotoHeads
from renderer.heads.photo_mesh import HeadPhotoError, _texture, _topology, head_from_photo
from renderer.mesh import Mesh, orient_outwards, vertex_normals
from renderer.rasterizers import get_rasterizer
from renderer.rasterizers.numba_zbuffer import _rasterize, rasterize_flat
from renderer.shading import _shade

CAMERA = Camera(focal=60.0, centre=(20.0, 16.0), distance=100.0)
SIZE = (32, 40)


@pytest.fixture(scope="module")
def heads() -> PhotoHeads:
    return PhotoHeads.open(HeadsConfig(), seed=5)


def brute_force(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest face and its distance at every pixel by intersecting rays with planes, in float64."""
    row, column = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    rays = np.stack([(column - 20) / 60, -(row - 16) / 60, -np.ones(SIZE)], axis=-1).reshape(-1, 3)
    nearest, owner = np.full(len(rays), np.inf), np.full(len(rays), -1)
    for index, (a, b, c) in enumerate(vertices[faces].astype(np.float64)):
        weights = np.linalg.solve(np.stack([a, b, c], axis=1), rays.T).T
        inside = (weights > 0).all(axis=1)
        distance = np.where(inside, 1 / weights.sum(axis=1), np.inf)
        closer = distance < nearest
        nearest[closer], owner[closer] = distance[closer], index
    return owner.reshape(SIZE), nearest.reshape(SIZE)


def test_the_rasteriser_sees_what_rays_hit() -> None:
    rng = np.random.default_rng(0)
    vertices = (rng.uniform(-30, 30, size=(60, 3)) - [0, 0, 100]).astype(np.float32)
    faces = rng.permutation(60).reshape(20, 3).astype(np.int32)
    fragments = get_rasterizer("numba_zbuffer")(vertices, faces, CAMERA, SIZE)
    owner, distance = brute_force(vertices, faces)
    same = fragments.pix_to_face == owner
    # Pixels whose centre lies on an edge may fall either way in float32.
    assert same.mean() > 0.995
    seen = same & (owner >= 0)
    np.testing.assert_allclose(fragments.depth[seen], distance[seen], rtol=1e-4)
    points = np.einsum("pk,pkd->pd", fragments.barycentrics[seen], vertices[faces[owner[seen]]])
    np.testing.assert_allclose(-points[:, 2], distance[seen], rtol=1e-4)
    np.testing.assert_allclose(fragments.barycentrics[seen].sum(axis=1), 1, atol=1e-5)
    assert (fragments.barycentrics[fragments.pix_to_face < 0] == 0).all()
    assert np.isinf(fragments.depth[fragments.pix_to_face < 0]).all()


def test_a_face_seen_from_its_edge_shows_what_lies_between_its_corners() -> None:
    """In single precision its area was other than nothing: weights of a hundred, a depth far off its corners', NaN."""
    rng, seen = np.random.default_rng(0), 0
    for _ in range(3000):
        centre, step = rng.integers(0, 30, size=2) + 0.5, rng.integers(-9, 10, size=2) / rng.integers(1, 9)
        line = (centre + rng.uniform(-8, 8, size=(3, 1)) * step).astype(np.float32)
        distance = rng.uniform(100, 900, size=3).astype(np.float32)
        fragments = _rasterize(line, distance, np.array([[0, 1, 2]], np.int32), SIZE)
        shown = fragments.pix_to_face >= 0
        weights, depth = fragments.barycentrics[shown], fragments.depth[shown]
        assert ((weights > -1e-3) & (weights < 1 + 1e-3)).all()
        assert ((depth > distance.min() * 0.999) & (depth < distance.max() * 1.001)).all()
        seen += shown.sum()
    assert seen > 500  # those corners are rounded, so that some faces are a hair wide


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    """Places (V, 3) on a sphere of radius 1, evenly, and its faces."""
    number = np.arange(4000)
    height, turn = 1 - (2 * number + 1) / 4000, number * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - height**2)
    places = np.stack([flat * np.cos(turn), height, flat * np.sin(turn)], axis=1).astype(np.float32)
    return places, orient_outwards(places, ConvexHull(places).simplices.astype(np.int32), np.zeros(3))


def test_a_ball_is_seen_where_and_as_large_as_perspective_has_it(ball: tuple[np.ndarray, np.ndarray]) -> None:
    """Off the axis it is an ellipse, longer than wide, whose middle lies further out than that of the ball."""
    places, faces = ball
    camera, radius, across, down, away = Camera(400.0, (60.0, 50.0), 500.0), 50.0, 110.0, -80.0, 500.0
    vertices = camera.view(radius * places + np.float32([across, down, 0]), np.eye(3))
    fragments = get_rasterizer("numba_zbuffer")(vertices, faces, camera, (220, 240))
    rows, columns = np.nonzero(fragments.pix_to_face >= 0)
    flat = away**2 - radius**2
    area = np.pi * (400 * radius) ** 2 * np.sqrt(across**2 + down**2 + flat) / flat**1.5
    assert len(rows) == pytest.approx(area, rel=0.005)
    middle = 400 * away / flat * np.array([across, -down]) + camera.centre
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], middle, atol=0.05)


def test_normals_of_a_ball_point_away_from_its_middle(ball: tuple[np.ndarray, np.ndarray]) -> None:
    places, faces = ball
    np.testing.assert_allclose(vertex_normals(places, faces), places, atol=0.03)
    # Away from the origin, too, of which most faces of this ball are seen from the same side; and what came is kept.
    inwards, away = np.ascontiguousarray(faces[:, ::-1]), np.array([0.0, 0.0, 5.0])
    outwards = orient_outwards(places + away, inwards, away)
    np.testing.assert_allclose(vertex_normals(places.astype(np.float64), outwards), places, atol=0.03)
    np.testing.assert_array_equal(inwards, faces[:, ::-1])


def test_larger_faces_count_more_in_a_normal() -> None:
    corners = np.array([(0, 0, 0), (3, 0, 0), (0, 3, 0), (0, 0, -4), (9, 9, 9)], dtype=np.float32)
    normals = vertex_normals(corners, np.array([(0, 1, 2), (0, 1, 3)], np.int32))
    np.testing.assert_allclose(normals[0], np.array([0, 12, 9]) / 15, atol=1e-6)
    assert not normals[4].any()  # a corner of no face, as scans have


def test_where_faces_meet_nothing_is_left_open_and_of_equal_ones_the_first_is_seen() -> None:
    """Edges and diagonals through the middle of pixels."""
    corners = np.array([(4.5, 4.5), (20.5, 4.5), (20.5, 20.5), (4.5, 20.5)], dtype=np.float32)
    faces = np.array([(0, 1, 2), (0, 2, 3), (2, 1, 0), (3, 2, 0)], dtype=np.int32)
    seen = rasterize_flat(corners, faces, SIZE).pix_to_face
    expected = np.full(SIZE, -1)
    expected[4:21, 4:21] = np.tril(np.ones((17, 17)), -1)
    np.testing.assert_array_equal(seen, expected)


def test_a_vertex_behind_the_camera_is_refused() -> None:
    vertices = np.array([[0, 0, -50], [1, 0, -50], [0, 1, 5]], dtype=np.float32)
    with pytest.raises(ValueError, match="behind the camera"):
        get_rasterizer("numba_zbuffer")(vertices, np.array([[0, 1, 2]], dtype=np.int32), CAMERA, SIZE)


def test_an_unknown_rasteriser_is_named() -> None:
    with pytest.raises(ValueError, match="numba_zbuffer"):
        get_rasterizer("crayon")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"faces": np.array([[0, 1, 3]], np.int32)}, r"0\.\.3 of 3"),
        ({"faces": np.array([[0, -1, 2]], np.int32)}, r"-1\.\.2 of 3"),
        ({"faces": np.array([[0, 1]], np.int32)}, r"faces \(F, 3\); received .* \(1, 2\)"),
        ({"uv": np.zeros((2, 2), np.float32)}, r"uv \(V, 2\).* received .* \(2, 2\)"),
        ({"uv": np.full((3, 2), np.nan, np.float32)}, "texture coordinates hold NaN"),
        ({"vertices": np.full((3, 3), np.inf, np.float32)}, "vertices hold NaN or infinite"),
    ],
)
def test_a_mesh_refuses_what_compiled_code_would_read_beyond_its_arrays(
    changes: dict[str, np.ndarray], said: str
) -> None:
    good = {
        "vertices": np.zeros((3, 3), np.float32),
        "faces": np.array([[0, 1, 2]], np.int32),
        "uv": np.zeros((3, 2), np.float32),
        "texture": np.zeros((2, 2, 3), np.uint8),
    }
    with pytest.raises(ValueError, match=said):
        Mesh(**{**good, **changes})


def test_a_mesh_needs_a_texture() -> None:
    three = np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32), np.zeros((3, 2), np.float32)
    for shape in ((0, 0, 3), (2, 2), (2, 2, 4)):
        with pytest.raises(ValueError, match="expected a texture"):
            Mesh(*three, np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_a_texture_may_be_a_pixel_wide(shape: tuple[int, int]) -> None:
    """Compiled, the shader reads whatever lies behind a texture; as Python it says that there is nothing."""
    faces, uv = np.array([[0, 1, 2]], np.int32), np.array([[0, 0], [1, 0], [1, 1]], np.float32)
    texture, image = np.full((*shape, 3), 200, np.uint8), np.zeros((4, 4, 3), np.uint8)
    seen, weights = np.zeros((4, 4), np.int32), np.full((4, 4, 3), 1 / 3, np.float32)
    normals = np.tile(np.float32([0, 0, 1]), (3, 1))
    _shade.py_func(seen, weights, faces, uv, texture, normals, np.float32([0, 0, 1]), 0.3, np.ones(3), image)
    assert (image == 200).all()
    # Normals that cancel each other out have no side that light could come from.
    _shade.py_func(seen, weights, faces, uv, texture, 0 * normals, np.float32([0, 0, 1]), 0.3, np.ones(3), image)
    assert (image == 60).all()


@pytest.mark.parametrize("pose", [(0, 0, 0), (50, -40, 30), (-50, 40, -30), (90, 0, 0), (180, 0, 0), (0, 60, 0)])
def test_no_pose_shows_a_hollow_mask(heads: PhotoHeads, pose: tuple[float, float, float]) -> None:
    """Whatever is nearest faces the viewer: nowhere does one look into the head."""
    mesh = heads.head(1)
    rotation = rotation_from_angles(Angles.from_columns(pose)).astype(np.float32)
    camera = Camera.framing(200, HEAD_EXTENT_MM, 0.6, 1000.0)
    vertices = camera.view(mesh.vertices, rotation)
    seen = get_rasterizer("numba_zbuffer")(vertices, mesh.faces, camera, (200, 200)).pix_to_face
    corners = vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards_viewer = (normals * -corners.mean(axis=1)).sum(axis=1) > 0
    visible = towards_viewer[seen[seen >= 0]]
    assert visible.size > 2000
    # Creases (lips, nostrils) fold over themselves by a few pixels at the steepest poses.
    assert visible.mean() > 0.99


def test_the_head_is_closed(heads: PhotoHeads) -> None:
    """Every edge of the skull belongs to two faces, once vertices at one place are taken as one."""
    mesh = heads.head(2)
    _, place = np.unique(np.round(mesh.vertices, 3), axis=0, return_inverse=True)
    faces = place[mesh.faces]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    edges, uses = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_counts=True)
    # The neck's upper rim, inside the skull, is the one opening.
    assert (uses == 1).sum() == 36
    assert (uses > 2).sum() == 0
    assert len(edges) > 2000


def test_people_are_seeded_and_differ(heads: PhotoHeads) -> None:
    again = PhotoHeads.open(HeadsConfig(), seed=5)
    assert (again.head(3).vertices == heads.head(3).vertices).all()
    assert (again.head(3).texture == heads.head(3).texture).all()
    difference = np.abs(heads.head(3).vertices - heads.head(4).vertices)[:468]
    assert 1.0 < difference.mean() < 15.0


@pytest.mark.parametrize("pose", [(40.0, 0.0, 0.0), (-40.0, 0.0, 0.0), (0.0, 25.0, 0.0), (0.0, -25.0, 0.0)])
def test_a_rendered_turn_looks_like_a_real_one(
    heads: PhotoHeads, detector: FaceMeshOnnx, pose: tuple[float, float, float]
) -> None:
    """A detector trained on photographs sees the rendered head turn by the angle that was rendered."""
    mesh = heads.base[0]
    normals = vertex_normals(mesh.vertices, mesh.faces)
    config = RenderConfig(appearance=AppearanceConfig(vary=False))
    images = [render_pose(mesh, normals, p, config, np.random.default_rng(0)) for p in ((0.0, 0.0, 0.0), pose)]
    frontal, turned = (detector.detect(image)[0].points @ IMAGE_FROM_CAMERA for image in images)
    seen = angles_from_rotation(kabsch(frontal, turned)[0]).columns()
    # The detector's own error at such poses is 3 to 5 degrees; a depth off by a fifth costs more than 6.
    np.testing.assert_allclose(seen, pose, atol=6.0)


def test_images_differ_or_not_as_the_config_says() -> None:
    varied, fixed = AppearanceConfig(), AppearanceConfig(vary=False)
    one, two = (draw_scene(varied, 64, np.random.default_rng(seed)) for seed in (1, 2))
    assert one.distance != two.distance
    assert one.light != two.light
    first, second = (draw_scene(fixed, 64, np.random.default_rng(seed)) for seed in (1, 2))
    assert (first.distance, first.fraction, first.light) == (second.distance, second.fraction, second.light)
    assert (first.background == second.background).all()


def test_where_nothing_varies_every_range_is_at_its_middle() -> None:
    ranges = {"distance_mm": (700, 900), "head_fraction": (0.5, 0.7), "ambient": (0.1, 0.3), "blur_px": (1, 3)}
    config = AppearanceConfig(vary=False, **ranges, noise=(4, 8))
    scene = draw_scene(config, 64, np.random.default_rng(0))
    found = (scene.distance, scene.fraction, scene.light.ambient, scene.blur, scene.noise)
    assert found == pytest.approx((800, 0.6, 0.2, 2, 6))
    assert draw_scene(AppearanceConfig(vary=False), 64, np.random.default_rng(0)).light == FIXED_LIGHT


@pytest.mark.parametrize("faces", [0, 2])
def test_a_photo_without_one_face_is_refused(detector: FaceMeshOnnx, photo: RgbImage, faces: int) -> None:
    head = photo[0:260, 100:360]
    image = np.hstack([head, head]) if faces else np.full((200, 200, 3), 90, dtype=np.uint8)
    with pytest.raises(HeadPhotoError, match="2 faces" if faces else "no face"):
        head_from_photo(image, "photo", detector)


def test_a_photo_that_lies_on_its_side_is_refused(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    """Of some the head was turned inside out, of others hair and neck lay on the sides of the head."""
    head = photo[0:260, 100:360]
    for turns, lean in ((1, -90), (3, 90)):
        with pytest.raises(HeadPhotoError, match=r"photo: the face leans by -?\d+ degrees") as caught:
            head_from_photo(np.ascontiguousarray(np.rot90(head, turns)), "photo", detector)
        assert abs(int(str(caught.value).split()[5]) - lean) < 15


def test_a_large_photo_is_reduced_by_its_means(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    """Single pixels of it were taken: the noise of a sensor stayed as it was, and fine hair became stripes."""
    side = 2600
    large = np.asarray(Image.fromarray(photo[0:260, 100:360]).resize((side, side)), dtype=np.int16)
    checks = np.where(np.indices((side, side)).sum(axis=0) % 2, 40, -40)[..., None]
    smooth, checked = (np.clip(image, 40, 215).astype(np.uint8) for image in (large, large))
    checked = (checked + checks).astype(np.uint8)
    points = detector.detect(smooth)[0].landmarks
    textures = [_texture(image, points, _topology())[0].astype(float) for image in (smooth, checked)]
    assert np.abs(textures[0] - textures[1]).mean() < 1


def test_a_folder_of_photos_works_as_the_embedded_one(tmp_path: Path, photo: RgbImage) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(np.ascontiguousarray(photo[:, ::-1])).save(tmp_path / "b.jpg")
    heads = PhotoHeads.open(HeadsConfig(photos=tmp_path), seed=1)
    assert heads.names == ("a.png", "b.jpg")
    assert heads.head(1).texture.shape == heads.head(2).texture.shape
    with pytest.raises(HeadPhotoError, match="no such folder"):
        PhotoHeads.open(HeadsConfig(photos=tmp_path / "none"), seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(HeadPhotoError, match="no photographs"):
        PhotoHeads.open(HeadsConfig(photos=tmp_path / "empty"), seed=1)


def test_code_is_compiled_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, by a user without a home, no stage of a checkout that root had installed could be imported."""
    (no_folder := tmp_path / "file").touch()
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(no_folder))
    functions: dict[str, Any] = {}
    exec(compile("def doubled(number):\n    return 2 * number", str(no_folder / "module.py"), "exec"), functions)
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(functions["doubled"])
    assert compiled()(functions["doubled"])(21) == 42
