"""The manifold of a tensor in which faces are missing."""

from __future__ import annotations

import numpy as np
import pytest

from nlml_hpe.config import RanksConfig, TuckerConfig
from nlml_hpe.manifold.blocks import TensorError
from nlml_hpe.manifold.fit import FittedManifold, fit_manifold
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import Angles, rotate_image_points, rotation_from_angles

GRID = PoseGrid((-30.0, -15.0, 0.0, 15.0, 30.0), (-20.0, 0.0, 20.0), (-10.0, 0.0, 10.0))
PEOPLE = tuple(range(11, 19))


def faces(count: int, seed: int) -> np.ndarray:
    """Features (count, *GRID.shape, 60) of people of twenty points, with noise."""
    mean, rng = np.random.default_rng(0).normal(size=(20, 3)), np.random.default_rng(seed)
    people = mean + 0.1 * rng.normal(size=(count, 20, 3))
    turned = np.stack([rotate_image_points(points, rotation_from_angles(GRID.angles())) for points in people])
    return turned.reshape(count, *GRID.shape, -1) + 0.01 * rng.normal(size=(count, *GRID.shape, 60))


def fitted(found: np.ndarray, rotated: bool = False, pose_rank: int = 3, prior_scale: float = 1.0) -> FittedManifold:
    """The manifold of people of twenty points, where ``found`` (people, yaw, pitch, roll) is not zero."""
    count = len(found)
    features = np.where(found[..., None] > 0, faces(count, seed=1), 0).astype(np.float32)
    none = np.zeros((count, 0, 60), np.float32), np.zeros((count, 0), np.uint8), np.zeros((count, 0, 3))
    people = tuple(range(11, 11 + count))
    tensor = LandmarkTensor(GRID, "twenty points", people, features, found, *none)
    ranks = RanksConfig(identity=3, yaw=pose_rank, pitch=pose_rank, roll=pose_rank)
    config = TuckerConfig(ranks=ranks, use_rotation_features=rotated, prior_scale=prior_scale)
    return fit_manifold(tensor, config, seed=0)


@pytest.fixture
def found() -> np.ndarray:
    return np.ones((8, *GRID.shape), dtype=np.uint8)


@pytest.mark.parametrize("rotated", [False, True])
def test_a_person_who_was_never_found_is_named(found: np.ndarray, rotated: bool) -> None:
    found[2] = 0
    with pytest.raises(TensorError, match="no face was found of person 13"):
        fitted(found, rotated)


def test_a_yaw_at_which_nobody_was_found_is_named(found: np.ndarray) -> None:
    found[:, 4] = 0
    with pytest.raises(TensorError, match="no face was found at yaw 30"):
        fitted(found)
    assert fitted(found, rotated=True).never_held_out == ()  # turned there from other poses


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_the_only_person_seen_at_an_angle_is_not_held_out(found: np.ndarray, axis: int) -> None:
    np.moveaxis(found, axis, 0)[-1] = 0
    np.moveaxis(found, axis, 0)[-1, 5, 1, 1] = 1
    made = fitted(found)
    assert PEOPLE[5] in made.never_held_out
    assert len(made.never_held_out) == 2  # a fold
    assert "noise measured without 2 of 8 people" in made.summary()
    assert "cosine rms of U_yaw: 0.0" in made.summary()
    assert made.manifold.noise is not None


def test_where_everybody_is_needed_all_are_explained_by_all(found: np.ndarray) -> None:
    found[:] = 0
    found[:, 0, 0, :2] = 1
    for person, line in enumerate([(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (0, 1, 0), (0, 2, 0), (0, 0, 2)]):
        found[person, *line] = 1
    made = fitted(found)
    assert made.never_held_out == PEOPLE
    assert "noise measured on the faces learned from" in made.summary()
    assert made.manifold.noise is not None


def test_the_noise_of_a_whole_tensor_is_measured_by_everybody(found: np.ndarray) -> None:
    made = fitted(found)
    assert made.never_held_out == ()
    assert "noise measured without" not in made.summary()


@pytest.mark.parametrize("people", [8, 24])
def test_the_noise_is_that_of_people_who_were_not_seen(people: int) -> None:
    """Of few people the error bars were too narrow by up to ten times: errors were weighed by their own covariance."""
    manifold = fitted(np.ones((people, *GRID.shape), dtype=np.uint8)).manifold
    noise = manifold.noise
    assert noise is not None
    angles = Angles.from_columns(np.tile(GRID.angles().columns().reshape(-1, 3), (20, 1)))
    others = faces(20, seed=2).reshape(len(angles.yaw), -1)
    answer = manifold.infer(others)
    scores = np.quantile(np.abs(answer.angles.columns() - angles.columns()) / answer.sigma, 0.6827, axis=0)
    assert (scores > 0.4).all()
    assert (scores < 2.5).all()
    left = (others - manifold.synthesize(manifold.solve_identity(others, angles), angles)) @ manifold.basis.T
    assert np.trace(noise.covariance) == pytest.approx((left**2).sum(axis=1).mean(), rel=0.25)
    # Of no direction so little is left that it is trusted without limit, and few hold most of it.
    spread = np.linalg.eigvalsh(noise.covariance)
    assert spread[0] > 0.019 * spread.mean()
    assert spread[-1] > 2 * spread.mean()


def test_as_many_people_as_identities_are_all_learned_from() -> None:
    made = fitted(np.ones((3, *GRID.shape), dtype=np.uint8))
    assert made.never_held_out == PEOPLE[:3]
    assert made.manifold.noise is not None


def test_the_prior_is_as_wide_as_it_is_set_to_be(found: np.ndarray) -> None:
    one, four = (fitted(found, prior_scale=scale).manifold.prior for scale in (1.0, 4.0))
    np.testing.assert_allclose(four.covariance, 4 * one.covariance)


def test_angles_that_nothing_determines_have_no_narrow_error_bars(found: np.ndarray) -> None:
    """With one column an angle, which scales the face alone, deviations of 0.0 were stated."""
    manifold = fitted(found, pose_rank=1).manifold
    face = manifold.synthesize(manifold.prior.mean[None], Angles.from_columns([(10.0, 5.0, 0.0)]))
    assert (manifold.infer(face).sigma > 90).all()
    assert (fitted(found).manifold.infer(face).sigma < 30).all()
