"""The decomposition: exact where it must be, as good as tensorly's, with and without missing cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorly as tl
from tensorly.decomposition import tucker

from nlml_hpe.config import GridConfig
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.manifold.blocks import TensorError
from nlml_hpe.manifold.fill import LowRankFill, rotation_tensor
from nlml_hpe.manifold.passes import largest_angle
from nlml_hpe.manifold.tensor import open_array
from nlml_hpe.manifold.tucker import decompose
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import rotate_image_points, rotation_from_angles

GRID = GridConfig().pose_grid()
SMALL = PoseGrid((-20.0, 0.0, 20.0, 40.0), (-15.0, 0.0, 15.0), (-10.0, 0.0, 10.0))


def rotated(points: np.ndarray, grid: PoseGrid) -> np.ndarray:
    """The features (Y, P, R, F) of points (N, 3) rigidly turned to every pose."""
    turned = rotate_image_points(points, rotation_from_angles(grid.angles()).reshape(-1, 3, 3))
    return turned.reshape(*grid.shape, -1).astype(np.float32)


def smooth_people(people: int, grid: PoseGrid) -> np.ndarray:
    """People whose points vary in five ways and bend a little, smoothly, with the pose."""
    rng = np.random.default_rng(0)
    modes = rng.normal(size=(6, 60, 3)) * np.array([1, 0.2, 0.15, 0.1, 0.1, 0.05])[:, None, None]
    weights = np.c_[np.ones(people), rng.normal(size=(people, 5))]
    tensor = np.stack([rotated(np.tensordot(w, modes, axes=1), grid) for w in weights])
    yaw, pitch, roll = (a / 50 for a in grid.angles())
    bends = np.stack([yaw**2, yaw * pitch, pitch**2, roll * yaw], axis=-1)
    return tensor + (0.05 * bends @ rng.normal(size=(4, 180))).astype(np.float32)


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    return smooth_people(20, GRID)


def test_purely_rotated_points_are_reproduced_exactly() -> None:
    points = np.random.default_rng(1).normal(size=(468, 3))
    tensor = rotated(points, GRID)[None]
    model = decompose(tensor, (1, 3, 3, 3), GRID)
    # float32 holds the tensor to 1e-7; points lie within 4 of the origin.
    assert np.abs(model.reconstruct(0) - tensor[0]).max() < 2e-5


def test_the_reconstruction_is_at_least_as_good_as_tensorlys(people: np.ndarray) -> None:
    ranks = (4, 2, 2, 2)
    model = decompose(people, ranks, GRID, hooi_sweeps=3)
    ours = np.linalg.norm(np.stack([model.reconstruct(i) for i in range(len(people))]) - people)
    # More than the product of the other ranks adds nothing to the feature mode.
    core, factors = tucker(people.astype(np.float64), rank=[*ranks, int(np.prod(ranks))])
    theirs = np.linalg.norm(tl.tucker_to_tensor((core, factors)) - people)
    assert ours <= theirs * (1 + 1e-6)
    assert model.relative_error == pytest.approx(ours / np.linalg.norm(people), rel=1e-4)


def test_the_basis_of_the_feature_mode_is_orthonormal_and_small(people: np.ndarray) -> None:
    model = decompose(people, (3, 3, 3, 3), GRID)
    assert len(model.basis) <= 3 * 3 * 3 * 3
    np.testing.assert_allclose(model.basis @ model.basis.T, np.eye(len(model.basis)), atol=1e-10)
    for factor in model.factors:
        np.testing.assert_allclose(factor.T @ factor, np.eye(factor.shape[1]), atol=1e-6)


def test_the_result_does_not_depend_on_the_order_of_people(people: np.ndarray) -> None:
    order = np.random.default_rng(2).permutation(len(people))
    first, second = (decompose(tensor, (3, 3, 3, 3), GRID) for tensor in (people, people[order]))
    for mode in (1, 2, 3):
        np.testing.assert_allclose(second.factors[mode], first.factors[mode], atol=1e-6)
    np.testing.assert_allclose(second.reconstruct(0), first.reconstruct(order[0]), atol=1e-4)


def test_shards_give_what_the_whole_gives(people: np.ndarray, tmp_path: Path) -> None:
    whole = decompose(people, (3, 3, 3, 3), GRID)
    for number, part in enumerate(np.split(people, [1, 8])):
        np.save(tmp_path / f"{number}.npy", part)
    sharded = decompose([open_array(tmp_path / f"{number}.npy") for number in range(3)], (3, 3, 3, 3), GRID)
    assert (sharded.core == whole.core).all()
    with pytest.raises(TensorError, match="shards of one shape"):
        decompose([people[:3], people[:3, :5]], (3, 3, 3, 3), GRID)


def test_a_mapped_file_gives_what_memory_gives(people: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "tensor.npy", people)
    mapped = decompose(open_array(tmp_path / "tensor.npy"), (3, 3, 3, 3), GRID)
    loaded = decompose(people, (3, 3, 3, 3), GRID)
    assert (mapped.core == loaded.core).all()


def test_features_of_another_type_are_taken_for_what_they_are_or_refused(people: np.ndarray, tmp_path: Path) -> None:
    """The bytes of a mapped float64 file were read as float32, and whole numbers overflowed without a word."""
    wide = people.astype(np.float64)
    np.save(tmp_path / "tensor.npy", wide)
    for mode in ("r", "c"):
        mapped = decompose(np.load(tmp_path / "tensor.npy", mmap_mode=mode), (3, 3, 3, 3), GRID)
        assert (mapped.core == decompose(wide, (3, 3, 3, 3), GRID).core).all()
    for kind in ("i4", ">f4", "f2"):
        with pytest.raises(TensorError, match="expected features of float32; received"):
            decompose((100 * people).astype(kind), (3, 3, 3, 3), GRID)


def test_missing_corners_hardly_turn_the_subspaces(people: np.ndarray) -> None:
    """15% of cells gone by pattern, whole corners of the grid as detectors leave them."""
    rng = np.random.default_rng(3)
    steep = sum(np.abs(a) / a.max() for a in GRID.angles())
    detected = np.stack([(hard := steep + rng.uniform(0, 0.4)) < np.quantile(hard, 0.85) for _ in people])
    assert 0.13 < (~detected).mean() < 0.17
    broken = np.where(detected[..., None], people, 0).astype(np.float32)
    complete = decompose(people, (5, 3, 3, 3), GRID)
    filled = decompose(broken, (5, 3, 3, 3), GRID, detected)
    assert filled.filled == (~detected).sum()
    for one, other in zip(complete.factors, filled.factors, strict=True):
        assert np.degrees(largest_angle(one, other)) < 1.0
    naive = decompose(broken, (5, 3, 3, 3), GRID)
    assert np.degrees(largest_angle(complete.factors[2], naive.factors[2])) > 1.0, "zeros in the holes must show"


def test_a_person_whose_few_cells_leave_an_identity_open_is_filled_with_numbers() -> None:
    """The second identity is seen at the second yaw alone, where this person was not found."""
    core = np.eye(2).reshape(2, 2, 1, 1, 1)
    seen = np.array([True, False]).reshape(2, 1, 1)
    filled = LowRankFill([np.eye(2), np.eye(1), np.eye(1)], core)(np.ones((2, 1, 1, 1), dtype=np.float32), seen)
    np.testing.assert_array_equal(filled, [[0.0]])


def test_the_rotation_tensor_turns_the_frontal_face(people: np.ndarray) -> None:
    made = rotation_tensor(people, np.ones(people.shape[:4], dtype=bool), GRID)
    centre = tuple(n // 2 for n in GRID.shape)
    np.testing.assert_allclose(made[0][centre], people[0][centre], atol=1e-6)
    assert decompose(made[:1], (1, 3, 3, 3), GRID).relative_error < 1e-3  # squares in float32: sqrt(1e-7)


def test_one_bin_of_an_axis_is_a_defined_case() -> None:
    grid = PoseGrid(SMALL.yaw, SMALL.pitch, (0.0,))
    model = decompose(smooth_people(6, grid), (3, 3, 3, 1), grid)
    assert model.factors[3].shape == (1, 1)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [((9, 3, 3, 3), "rank 9 of mode identity exceeds its 6"), ((3, 3, 4, 3), "tucker.ranks.pitch to 3")],
)
def test_ranks_that_do_not_fit_are_named(ranks: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(TensorError, match=message):
        decompose(smooth_people(6, SMALL), ranks, SMALL)


@pytest.mark.parametrize("ranks", [(0, 3, 3, 3), (3, 3, 3)])
def test_ranks_that_are_none_are_named(ranks: tuple) -> None:
    with pytest.raises(TensorError, match="expected ranks of identity, yaw, pitch and roll, 1 or more each"):
        decompose(smooth_people(6, SMALL), ranks, SMALL)


@pytest.mark.parametrize("kind", ["u1", "f8"])
def test_a_mask_of_numbers_is_refused(kind: str) -> None:
    """As ``routes`` are: the complement of one is 254, which was taken for a cell's place."""
    seen = np.ones((6, *SMALL.shape), dtype=kind)
    seen[1, 0, 0, 0] = 0
    with pytest.raises(TensorError, match=r"expected a mask of shape \(6, .*bool; received"):
        decompose(smooth_people(6, SMALL), (3, 3, 3, 3), SMALL, seen)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    tensor = smooth_people(6, SMALL)
    tensor[2, 1, 1, 1, 7] = value
    with pytest.raises(TensorError, match="NaN or infinite"):
        decompose(tensor, (3, 3, 3, 3), SMALL)


@pytest.mark.parametrize(
    ("index", "named"), [((2,), "of person 2"), ((slice(None), 1), "at yaw 0"), ((..., 0), "at roll -10")]
)
def test_a_slice_without_any_face_is_named(index: tuple, named: str) -> None:
    tensor = smooth_people(6, SMALL)
    detected = np.ones(tensor.shape[:4], dtype=bool)
    detected[index] = False
    with pytest.raises(TensorError, match=f"no face was found {named}:"):
        decompose(tensor, (3, 3, 3, 3), SMALL, detected)


def test_another_shape_is_refused() -> None:
    with pytest.raises(TensorError, match="expected features"):
        decompose(smooth_people(6, SMALL), (3, 3, 3, 3), GRID)
    with pytest.raises(TensorError, match="expected features"):
        decompose(smooth_people(6, SMALL)[:0], (3, 3, 3, 3), SMALL)


def test_a_file_shorter_than_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npy"
    np.save(path, smooth_people(6, SMALL))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match="shorter than its header"):
        open_array(path)
    with pytest.raises(ArtifactError, match="is missing"):
        open_array(tmp_path / "none.npy")
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(ArtifactError, match="damaged"):
        open_array(path)
