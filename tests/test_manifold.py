"""The exact inverse: it finds what was synthesised, beats Powell, and knows how wrong it may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.inverse import drawn_faces
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.manifold.cosines import fit_axes
from nlml_hpe.manifold.inverse import MARGIN_DEG
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.manifold_file import read_manifold, write_manifold
from nlml_hpe.manifold.official import official_manifold
from nlml_hpe.manifold.powell import infer_powell
from nlml_hpe.manifold.statistics import IdentityPrior
from nlml_hpe.manifold.tucker import decompose
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import Angles, rotate_image_points, rotation_from_angles
from stages.common import Workdir
from stages.config import Config


@pytest.fixture(scope="module")
def official(shared_data: Path) -> PoseManifold:
    folder = shared_data / "nlml_hpe_official"
    return official_manifold(folder / "Trained_data.npz", folder / "Factor_Matrices.npz")


@pytest.fixture(scope="module")
def tiny(tiny_run: Config) -> PoseManifold:
    return read_manifold(Workdir(tiny_run.workdir).model / "manifold.npz")


@pytest.fixture(scope="module")
def plain(tiny: PoseManifold) -> PoseManifold:
    """A manifold without noise statistics: the squared error alone."""
    return replace(tiny, noise=None)


@pytest.mark.parametrize("name", ["official", "tiny"])
def test_a_synthesised_face_returns_its_angles(name: str, request: pytest.FixtureRequest) -> None:
    manifold: PoseManifold = request.getfixturevalue(name)
    features, angles = drawn_faces(manifold, 200, noise=0.0)
    found = manifold.infer(features, statistical=False)
    assert np.abs(found.angles.columns() - angles.columns()).max() < 0.01
    assert not found.at_bound.any()


@pytest.mark.filterwarnings("error")
def test_faces_may_lie_in_memory_in_any_way() -> None:
    """Rows in reverse stopped at torch, which has no negative strides, and a write-protected array with a warning."""
    manifold = read_manifold(SHIPPED / "manifold.npz")
    features, _ = drawn_faces(manifold, 3, noise=0.01)
    expected = manifold.infer(features).angles.columns()
    protected = features.copy()
    protected.flags.writeable = False
    for given in (protected, features.astype(features.dtype.newbyteorder()), np.asfortranarray(features)):
        np.testing.assert_array_equal(manifold.infer(given).angles.columns(), expected)
    np.testing.assert_allclose(manifold.infer(features[::-1]).angles.columns()[::-1], expected, atol=1e-6)


@pytest.mark.parametrize("margin", [MARGIN_DEG, -20.0])
def test_a_statistical_answer_is_the_likeliest_and_as_sure_as_its_curvature(margin: float) -> None:
    """Angles and identity together, under the noise and the prior; derivatives are differences here."""
    manifold = read_manifold(SHIPPED / "manifold.npz")
    noise, prior = manifold.noise, manifold.prior
    assert noise is not None
    features, _ = drawn_faces(manifold, 12, noise=0.01)
    found = manifold.infer(features, margin=margin)
    lowest, highest = ([axis[end] + sign * margin for axis in manifold.grid.axes] for end, sign in ((0, -1), (-1, 1)))
    held = [np.isclose(found.angles.columns(), bound, rtol=0, atol=1e-9) for bound in (lowest, highest)]
    np.testing.assert_array_equal(found.at_bound, held[0] | held[1])
    assert [one.any() for one in held] == [margin < 0] * 2
    weight, rank = np.linalg.inv(noise.covariance), manifold.ranks[0]
    pull = np.zeros((3 + rank, 3 + rank))
    pull[3:, 3:] = np.linalg.inv(prior.covariance)
    for feature, at, identity, covariance, bound in zip(
        features, found.angles.columns(), found.identity, found.covariance, found.at_bound, strict=True
    ):
        designs = manifold.identity_design(
            Angles.from_columns(at + 0.01 * np.r_[np.eye(3), -np.eye(3), np.zeros((1, 3))])
        )
        jacobian = np.r_[identity @ (designs[:3] - designs[3:6]) / 0.02, designs[6]]
        hessian = jacobian @ weight @ jacobian.T + pull
        residual = manifold.basis @ feature - identity @ designs[6]
        gradient = jacobian @ weight @ residual - pull @ np.r_[np.zeros(3), identity - prior.mean]
        free = np.r_[~bound, np.ones(rank, dtype=bool)]
        assert np.abs(np.linalg.solve(hessian[free][:, free], gradient[free])).max() < 1e-3  # degrees
        expected = np.linalg.inv(hessian)[:3, :3] * np.outer(noise.sigma_scale, noise.sigma_scale)
        np.testing.assert_allclose(covariance, expected, atol=1e-4 * np.trace(expected))
    left = features - manifold.synthesize(found.identity, found.angles)
    np.testing.assert_allclose(found.objective, 0.5 * (left**2).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("margin", [-60.0, np.nan])
def test_a_margin_that_leaves_no_angles_is_refused(margin: float) -> None:
    """The answer was an angle beyond the bounds, or NaN."""
    manifold = read_manifold(SHIPPED / "manifold.npz")
    with pytest.raises(ValueError, match="margin: expected degrees"):
        manifold.infer(drawn_faces(manifold, 1, noise=0.0)[0], margin=margin)


@pytest.mark.parametrize("name", ["official", "plain"])
def test_the_minimum_is_at_or_below_powells(name: str, request: pytest.FixtureRequest) -> None:
    manifold: PoseManifold = request.getfixturevalue(name)
    features, _ = drawn_faces(manifold, 12, noise=0.02)
    found = manifold.infer(features, statistical=False, margin=90.0)
    reference = np.array([infer_powell(manifold, feature).objective for feature in features])
    assert (found.objective <= reference * (1 + 1e-6)).all()


def test_results_do_not_depend_on_the_batch(plain: PoseManifold) -> None:
    features, _ = drawn_faces(plain, 300, noise=0.02)
    whole = plain.infer(features, statistical=False).angles.columns()
    alone = np.concatenate([plain.infer(features[i : i + 1], statistical=False).angles.columns() for i in range(20)])
    # Products are summed in another order; the minimum is flat to 1e-6 radians.
    np.testing.assert_allclose(alone, whole[:20], atol=1e-3)


def test_seeds_lead_to_the_same_minimum(plain: PoseManifold) -> None:
    features, angles = drawn_faces(plain, 50, noise=0.02)
    near = Angles.from_columns(angles.columns() + np.random.default_rng(1).normal(scale=3.0, size=(50, 3)))
    seeded, unseeded = (plain.infer(features, seeds=seeds, statistical=False) for seeds in (near, None))
    np.testing.assert_allclose(seeded.angles.columns(), unseeded.angles.columns(), atol=1e-2)
    again = plain.infer(features, seeds=unseeded.angles, statistical=False)
    assert again.iterations.max() < unseeded.iterations.min()


def test_an_angle_beyond_the_bounds_is_flagged(tiny: PoseManifold) -> None:
    far = tiny.synthesize(tiny.prior.mean[None], Angles.from_columns([(50.0, 0.0, 0.0)]))
    found = tiny.infer(far, margin=5.0)
    assert found.at_bound[0].tolist() == [True, False, False]
    assert found.angles.yaw[0] == pytest.approx(tiny.grid.yaw[-1] + 5.0, abs=1e-9)


def test_an_empty_batch_gives_an_empty_answer(plain: PoseManifold) -> None:
    found = plain.infer(np.empty((0, 1404)), statistical=False)
    assert found.angles.columns().shape == (0, 3)
    assert found.covariance.shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((2, 204)), r"\(N, 1404\)"),
        (np.zeros(1404), r"\(N, 1404\)"),
        (np.full((1, 1404), np.nan), "NaN or infinite"),
    ],
)
def test_bad_features_are_refused(plain: PoseManifold, features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain.infer(features, statistical=False)


def test_a_manifold_without_noise_says_so(plain: PoseManifold) -> None:
    with pytest.raises(ValueError, match="no noise statistics"):
        plain.infer(np.zeros((1, 1404)), statistical=True)


def test_an_axis_of_one_bin_stays_where_it_is() -> None:
    grid = PoseGrid((-40.0, -20.0, 0.0, 20.0, 40.0), (-20.0, -10.0, 0.0, 10.0, 20.0), (0.0,))
    points = np.random.default_rng(0).normal(size=(30, 3))
    rotations = rotation_from_angles(grid.angles()).reshape(-1, 3, 3)
    tensor = rotate_image_points(points, rotations).reshape(1, *grid.shape, -1).astype(np.float32)
    model = decompose(tensor, (1, 3, 3, 1), grid)
    yaw, pitch, roll = (fit.parameters for fit in fit_axes(grid, model.factors[1:]))
    prior = IdentityPrior.of_rows(model.factors[0])
    manifold = PoseManifold(model.core, model.basis, model.factors[1:], (yaw, pitch, roll), grid, "points", prior)
    turned = rotate_image_points(points, rotation_from_angles(Angles.from_columns([(13.0, -7.0, 0.0)])))
    found = manifold.infer(turned.reshape(1, -1))
    np.testing.assert_allclose(found.angles.columns(), [[13.0, -7.0, 0.0]], atol=0.01)
    assert found.sigma[0, 2] > 100 * found.sigma[0, :2].max()


def test_a_feature_that_determines_no_angle_has_no_error_bar(plain: PoseManifold) -> None:
    assert np.isinf(plain.infer(np.zeros((1, 1404))).sigma).all()


def test_more_seeds_than_there_are_coarse_poses_are_all_of_them(plain: PoseManifold) -> None:
    features = plain.synthesize(plain.prior.mean[None], Angles.from_columns([(10.0, -5.0, 5.0)]))
    many, all_of_them = (plain.infer(features, n_seeds=count, statistical=False) for count in (10_000, 100_000))
    np.testing.assert_array_equal(many.angles.columns(), all_of_them.angles.columns())
    with pytest.raises(ValueError, match="one coarse pose or more"):
        plain.infer(features, n_seeds=0, statistical=False)


def test_seeds_must_match_the_faces(plain: PoseManifold) -> None:
    with pytest.raises(ValueError, match="expected seeds for 2"):
        plain.infer(np.ones((2, 1404)), seeds=Angles.from_columns(np.zeros((3, 3))), statistical=False)


@pytest.mark.parametrize("angle", [np.nan, np.inf])
def test_seeds_that_are_no_angles_are_refused(plain: PoseManifold, angle: float) -> None:
    with pytest.raises(ValueError, match="seeds hold NaN or infinite angles"):
        plain.infer(np.ones((1, 1404)), seeds=Angles.from_columns([(angle, 0.0, 0.0)]), statistical=False)


def test_a_manifold_survives_its_file(tiny: PoseManifold, tmp_path: Path) -> None:
    write_manifold(tmp_path / "manifold.npz", tiny)
    again = read_manifold(tmp_path / "manifold.npz")
    features, _ = drawn_faces(tiny, 5, noise=0.01)
    assert (again.infer(features).angles.columns() == tiny.infer(features).angles.columns()).all()
    write_manifold(tmp_path / "bare.npz", replace(tiny, noise=None))
    assert read_manifold(tmp_path / "bare.npz").noise is None


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "other"])
def test_a_damaged_manifold_is_refused(tiny: PoseManifold, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "manifold.npz"
    if damage == "truncated":
        write_manifold(path, tiny)
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "text":
        path.write_text("no manifold")
    elif damage == "other":
        np.savez(path, core=np.zeros(3))
    with pytest.raises(ArtifactError, match="manifold"):
        read_manifold(path)


@pytest.mark.parametrize("damage", ["longer", "number", "nan", "truth"])
@pytest.mark.parametrize("array", ["core", "basis", "factor_yaw", "cosine_pitch", "identity_mean", "noise_covariance"])
def test_arrays_of_a_manifold_that_do_not_fit_are_refused(
    tiny: PoseManifold, tmp_path: Path, array: str, damage: str
) -> None:
    """It was taken for a model, and the first face that it was shown ended in a traceback."""
    path = tmp_path / "manifold.npz"
    write_manifold(path, tiny)
    with np.load(path) as file:
        arrays = dict(file)
    whole = arrays[array]
    changed = {"longer": np.concatenate([whole, whole]), "number": 1.0, "nan": whole * np.nan, "truth": whole > 0}
    np.savez(path, **{**arrays, array: changed[damage]})
    with pytest.raises(ArtifactError, match=r"manifold\.npz is no manifold .*expected .* found "):
        read_manifold(path)


def test_the_published_manifold_gives_the_faces_of_its_arrays_at_the_other_roll(tmp_path: Path) -> None:
    rng, axes = np.random.default_rng(0), ("yaw", "pitch", "roll")
    core, people = rng.normal(size=(5, 3, 4, 2, 12)), rng.normal(size=(8, 5))
    cosines = {axis: rng.normal(size=(rank, 4)) for axis, rank in zip(axes, core.shape[1:4], strict=True)}
    factors = {f"U_{axis}": rng.normal(size=(n, len(cosines[axis]))) for axis, n in zip(axes, (11, 9, 7), strict=True)}
    np.savez(tmp_path / "t.npz", W=core, **{f"optimized_{axis}": rows for axis, rows in cosines.items()})
    np.savez(tmp_path / "f.npz", U_id=people, **factors)
    manifold = official_manifold(tmp_path / "t.npz", tmp_path / "f.npz")
    rows = []
    for axis, degrees in zip(axes, (20.0, -10.0, -5.0), strict=True):
        a, b, c, d = cosines[axis].T
        rows.append(a * np.cos(b * np.radians(degrees) + c) + d)
    face = np.einsum("iyprf,i,y,p,r->f", core, people[2], *rows)
    np.testing.assert_allclose(manifold.synthesize(people[2:3], Angles.from_columns([(20.0, -10.0, 5.0)]))[0], face)
    np.testing.assert_allclose(manifold.prior.mean, people.mean(axis=0))
    np.testing.assert_array_equal(manifold.factors[2], factors["U_roll"][::-1])


@pytest.mark.parametrize("array", ["W", "optimized_roll", "U_roll", "U_id"])
def test_published_arrays_that_do_not_fit_one_another_are_refused(tmp_path: Path, array: str) -> None:
    trained = {"W": np.ones((5, 3, 3, 2, 12)), **{f"optimized_{axis}": np.ones((3, 4)) for axis in ("yaw", "pitch")}}
    matrices = {"U_id": np.ones((8, 5)), "U_yaw": np.ones((11, 3)), "U_pitch": np.ones((9, 3)), "U_roll": np.eye(7, 2)}
    trained["optimized_roll"] = np.ones((2, 4))
    held = trained if array in trained else matrices
    held[array] = held[array][..., 0]
    np.savez(tmp_path / "Trained_data.npz", **trained)
    np.savez(tmp_path / "Factor_Matrices.npz", **matrices)
    with pytest.raises(ArtifactError, match=r"Trained_data.*expected, with W of shape .*; found"):
        official_manifold(tmp_path / "Trained_data.npz", tmp_path / "Factor_Matrices.npz")
