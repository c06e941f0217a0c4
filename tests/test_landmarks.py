"""The real detector, the mesh it gives, and the normalisation of its points."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from nlml_hpe.config import LandmarksConfig
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import (
    FACEMESH,
    IBUG68,
    SEARCHES,
    Normalization,
    PointSet,
    boundary_loops,
    canonical_68,
    facemesh_canonical,
    facemesh_mirror,
    facemesh_triangles,
    mirror_of,
    mirrored_features,
    normalize_landmarks,
)
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import read_json, write_json
from nlml_hpe.files.images import RgbImage
from nlml_hpe.files.manifests import MANIFEST
from nlml_hpe.manifold.extraction import Extraction, extract, person_rows
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.pose_grid import PoseGrid, RenderFolderError
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, MIRROR_SIGNS, Angles, rotate_image_points, rotation_from_angles
from stages.config import Config


def test_one_face_is_found_in_the_photo(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    (face,) = detector.detect(photo)
    left, top, right, bottom = face.box
    assert face.points.shape == (468, 3)
    assert 0 < left < right < photo.shape[1]
    assert 0 < top < bottom < photo.shape[0]


def test_landmarks_are_pixels_of_images_that_are_not_square(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    wide = np.pad(photo, ((0, 0), (60, 90), (0, 0)))
    (face,), (moved,) = detector.detect(photo), detector.detect(wide)
    shift = moved.points - face.points
    # The detector crops afresh, so points move by a few pixels; x/W, y/H fed raw would stretch the face by a quarter.
    np.testing.assert_allclose(shift[:, 0], 60, atol=6)
    np.testing.assert_allclose(shift[:, 1], 0, atol=6)


def test_several_faces_come_largest_first(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    head = photo[0:260, 100:360]
    pair = np.full((260, 480, 3), 128, dtype=np.uint8)
    pair[:, :260] = head
    pair[60:190, 320:450] = head[::2, ::2]
    faces = detector.detect(pair)
    assert len(faces) == 2
    assert faces[0].area > faces[1].area


def test_no_face_is_an_empty_list(detector: FaceMeshOnnx) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(120, 160, 3), dtype=np.uint8)
    assert detector.detect(noise) == []
    assert detector.detect(np.zeros((1, 1, 3), dtype=np.uint8)) == []


def test_a_very_wide_image_is_searched_at_reduced_size(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    large = np.repeat(np.repeat(photo[:300, 60:400], 8, axis=0), 8, axis=1)
    assert large.shape[1] > 2048
    (face,) = detector.detect(large)
    (small,) = detector.detect(photo[:300, 60:400].copy())
    np.testing.assert_allclose(face.points[:, :2] / 8, small.points[:, :2], atol=4)
    assert isinstance(detector.detect(np.zeros((30, 20_000, 3), dtype=np.uint8)), list)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), dtype=np.uint8),
        np.zeros((10, 10, 4), dtype=np.uint8),
        np.zeros((10, 10, 3), dtype=np.float32),
        np.zeros((0, 10, 3), dtype=np.uint8),
    ],
)
def test_arrays_that_are_no_rgb_image_are_refused(detector: FaceMeshOnnx, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        detector.detect(image)


def test_the_tessellation_is_a_face_with_four_openings() -> None:
    triangles = facemesh_triangles()
    assert triangles.shape == (852, 3)
    assert [len(loop) for loop in boundary_loops(triangles)] == [36, 20, 16, 16]


def test_the_tables_are_those_of_mediapipe(shared_data: Path) -> None:
    """Its tessellation has exactly the edges of our triangles; its canonical face is the one of its bundle."""
    connections = pytest.importorskip(
        "mediapipe.python.solutions.face_mesh_connections", reason="mediapipe is not installed, or too new"
    )
    sides = facemesh_triangles()[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    published = {tuple(sorted(edge)) for edge in connections.FACEMESH_TESSELATION}
    assert {tuple(sorted(edge)) for edge in sides.tolist()} == published
    from mediapipe.modules.face_geometry.protos.geometry_pipeline_metadata_pb2 import GeometryPipelineMetadata

    metadata = GeometryPipelineMetadata()
    with zipfile.ZipFile(shared_data / "face_landmarker" / "face_landmarker.task") as archive:
        name = next(n for n in archive.namelist() if n.startswith("geometry_pipeline_metadata"))
        metadata.ParseFromString(archive.read(name))
    canonical = np.array(metadata.canonical_mesh.vertex_buffer).reshape(468, 5)[:, :3]
    # The bundle holds float32 of numbers that are published with six decimals.
    np.testing.assert_allclose(facemesh_canonical(), canonical, atol=1e-6)


def test_nothing_asks_mediapipe_for_the_tables() -> None:
    program = "import sys; from nlml_hpe.detection import landmarks; landmarks.facemesh_triangles(); "
    program += "landmarks.facemesh_mirror(); landmarks.facemesh_canonical(); "
    program += "print('mediapipe' in sys.modules, 'scipy.optimize' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "kept",
    [
        *(facemesh_triangles(), facemesh_canonical(), mirror_of(FACEMESH), mirror_of(IBUG68)),
        *(IMAGE_FROM_CAMERA, MIRROR_SIGNS),
    ],
)
def test_who_is_given_a_table_cannot_change_that_of_all_others(kept: np.ndarray) -> None:
    """They are kept for the whole process: ``facemesh_canonical()[:] *= 10`` changed every later answer."""
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = kept[0]


def test_the_canonical_face_is_its_own_mirror_image() -> None:
    mirror, canonical = facemesh_mirror(), facemesh_canonical()
    np.testing.assert_array_equal(canonical[mirror] * [-1, 1, 1], canonical)


@pytest.mark.parametrize("points", [FACEMESH, IBUG68], ids=lambda points: points.name)
def test_what_features_refer_to_is_its_own_mirror_image(points: PointSet) -> None:
    mirror, (first, second) = mirror_of(points), points.eye_corners
    assert (mirror[first], mirror[second], mirror[points.nose_tip]) == (second, first, points.nose_tip)


def test_the_68_of_facemesh_s_points_mirror_one_another_as_the_68_do() -> None:
    np.testing.assert_array_equal(canonical_68()[mirror_of(IBUG68)] * [-1, 1, 1], canonical_68())
    _, chin = np.argmin(canonical_68(), axis=0)[:2]
    assert chin == 8


def test_the_mirror_is_an_involution_that_agrees_with_a_real_face(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    mirror = facemesh_mirror()
    assert (mirror[mirror] == np.arange(468)).all()
    assert mirror[33] == 263
    (face,), (flipped,) = detector.detect(photo), detector.detect(np.ascontiguousarray(photo[:, ::-1]))
    back = flipped.points[mirror] * [-1, 1, 1] + [photo.shape[1], 0, 0]
    size = face.box[2] - face.box[0]
    # A wrong pair of points would lie a tenth of the face or more apart.
    assert np.linalg.norm((back - face.points)[:, :2], axis=1).max() < 0.1 * size


@pytest.mark.parametrize("normalization", ["nose_eye_corners", "centroid_rms"])
def test_features_ignore_place_and_size_and_turn_with_the_face(normalization: str) -> None:
    points = np.random.default_rng(0).normal(size=(468, 3))
    feature = normalize_landmarks(points, FACEMESH, normalization)
    np.testing.assert_allclose(normalize_landmarks(7 * points + [3, 4, 5], FACEMESH, normalization), feature, atol=1e-5)
    rotation = rotation_from_angles(Angles.from_columns((30, -20, 10)))
    turned = normalize_landmarks(rotate_image_points(points, rotation), FACEMESH, normalization)
    expected = rotate_image_points(feature.reshape(468, 3), rotation).reshape(-1)
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_normalisation_refuses_what_has_no_pose() -> None:
    with pytest.raises(ValueError, match="468, 3"):
        normalize_landmarks(np.zeros((67, 3)))
    with pytest.raises(ValueError, match="without size"):
        normalize_landmarks(np.ones((468, 3)))
    with pytest.raises(ValueError, match="NaN"):
        normalize_landmarks(np.full((468, 3), np.nan))


def test_a_misspelt_normalization_is_refused() -> None:
    """Anything but the first name was taken for the second: another feature, and no word about it."""
    points = np.random.default_rng(0).normal(size=(468, 3))
    with pytest.raises(ValueError, match=r"'nose_eye_corner'; expected one of \['nose_eye_corners', 'centroid_rms'\]"):
        normalize_landmarks(points, FACEMESH, "nose_eye_corner")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1404,), (2, 1401), (1, 2, 1404)])
def test_only_rows_of_features_are_mirrored(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected features \(N, 1404\); received shape \("):
        mirrored_features(np.zeros(shape, dtype=np.float32), FACEMESH)


@pytest.mark.parametrize("points", [np.zeros((0, 3)), [], [1, 2, 3], [[1, 2], [3, 4]]])
def test_a_face_of_other_points_is_refused(points: object) -> None:
    """numpy's own words said nothing of landmarks, and a face of (N, 2) failed later on."""
    with pytest.raises(ValueError, match=r"expected landmarks \(N, 3\) of one point or more; received shape"):
        Face.from_points(points)  # type: ignore[arg-type]


def test_the_tensor_keeps_each_face_s_box(tiny_run: Config, tmp_path: Path) -> None:
    """In pixels of its image, zeros where none was found; a tensor without them, as before, is read."""
    folder = tiny_run.workdir / "landmarks_train"
    tensor = LandmarkTensor.open(folder)
    assert tensor.boxes is not None
    assert tensor.random_boxes is not None
    assert tensor.boxes.shape == (*tensor.detected.shape, 4)
    assert tensor.random_boxes.shape == (*tensor.random_detected.shape, 4)
    left, top, right, bottom = np.moveaxis(tensor.boxes[tensor.detected], -1, 0)
    size = tiny_run.render.size
    assert (tensor.boxes[~tensor.detected] == 0).all()
    assert ((right - left > size / 8) & (bottom - top > size / 8) & (right - left < size)).all()
    assert ((left > -size / 4) & (top > -size / 4) & (right < 1.25 * size) & (bottom < 1.25 * size)).all()
    older = shutil.copytree(folder, tmp_path / "older", ignore=shutil.ignore_patterns("*boxes.npy"))
    manifest = read_json(older / MANIFEST)
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if not name.endswith("boxes.npy")}
    write_json(older / MANIFEST, manifest)
    assert LandmarkTensor.open(older).first(2).boxes is None
    assert tensor.first(2).boxes.shape[0] == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ID1_(1_2_3).jpg", "ID1_(4_5_6).png"), r"ID1_\(4_5_6\)\.png belongs to ID1, not ID2"),
        (("ID1_(1_2_3).jpg",), r"different numbers of off-grid images \(\[0, 1\]\); render again"),
    ],
)
def test_images_off_the_grid_are_each_person_s_own_and_as_many(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    """Another's would be learned from as this one's, and poses that people lack have no place in the tensor."""
    for person in (1, 2):
        (tmp_path / f"images/ID{person}/random").mkdir(parents=True)
        (tmp_path / f"images/ID{person}/ID{person}_(0_0_0).jpg").touch()
    for person, name in enumerate(names, start=1):
        (tmp_path / f"images/ID{person}/random" / name).touch()
    grid = PoseGrid((0.0,), (0.0,), (0.0,))
    with pytest.raises(RenderFolderError, match=message):
        extract(tmp_path / "images", tmp_path / "tensor", Extraction(grid, LandmarksConfig(), {}, {}))


def test_the_tensor_s_settings_reach_the_detector_and_the_features(photo: RgbImage, detector: FaceMeshOnnx) -> None:
    """What the detector is not sure enough of at once is found in a closer crop."""
    middle = np.pad(photo, ((100, 0), (0, 0), (0, 0)), mode="edge")
    (face,) = detector.detect(middle)
    for normalization in get_args(Normalization):
        rows = person_rows([middle], [], (1, 1, 1), LandmarksConfig(normalization=normalization))
        expected = normalize_landmarks(face.landmarks, FACEMESH, normalization)
        np.testing.assert_allclose(rows.grid[0, 0, 0], expected, atol=1e-6)
        assert rows.routes.item() == SEARCHES.index("whole")
    rows = person_rows([middle], [], (1, 1, 1), LandmarksConfig(min_confidence=0.99999999))
    assert rows.routes.item() == SEARCHES.index("crop")
