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


def fitted(found: np.ndarray, rotated: bool = False, pose_rank: int = 3) -> FittedManifold:
    """The manifold of eight people of twenty points, where ``found`` (people, yaw, pitch, roll) is not zero."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(20, 3)) + 0.1 * rng.normal(size=(8, 20, 3))
    turned = np.stack([rotate_image_points(points, rotation_from_angles(GRID.angles())) for points in people])
    features = turned.reshape(8, *GRID.shape, -1) + 0.01 * rng.normal(size=(8, *GRID.shape, 60))
    features[found == 0] = 0
    none = np.zeros((8, 0, 60), np.float32), np.zeros((8, 0), np.uint8), np.zeros((8, 0, 3))
    tensor = LandmarkTensor(GRID, "twenty points", PEOPLE, features.astype(np.float32), found, *none)
    ranks = RanksConfig(identity=3, yaw=pose_rank, pitch=pose_rank, roll=pose_rank)
    return fit_manifold(tensor, TuckerConfig(ranks=ranks, use_rotation_features=rotated), seed=0)


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


def test_the_only_person_seen_at_a_yaw_is_not_held_out(found: np.ndarray) -> None:
    found[:, 4] = 0
    found[5, 4, 1, 1] = 1
    made = fitted(found)
    assert PEOPLE[5] in made.never_held_out
    assert len(made.never_held_out) == 2  # a fold
    assert "noise measured without 2 of 8 people" in made.summary()
    assert made.manifold.noise is not None


def test_where_everybody_is_needed_all_are_explained_by_all(found: np.ndarray) -> None:
    found[:] = 0
    found[:, 0, 0, :2] = 1
    for person, line in enumerate([(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (0, 1, 0), (0, 2, 0), (0, 0, 2)]):
        found[person, *line] = 1
    made = fitted(found)
    assert made.never_held_out == ()
    assert made.manifold.noise is not None


def test_the_noise_of_a_whole_tensor_is_measured_by_everybody(found: np.ndarray) -> None:
    assert fitted(found).never_held_out == ()


def test_angles_that_nothing_determines_have_no_narrow_error_bars(found: np.ndarray) -> None:
    """With one column an angle, which scales the face alone, deviations of 0.0 were stated."""
    manifold = fitted(found, pose_rank=1).manifold
    face = manifold.synthesize(manifold.prior.mean[None], Angles.from_columns([(10.0, 5.0, 0.0)]))
    assert (manifold.infer(face).sigma > 90).all()
    assert (fitted(found).manifold.infer(face).sigma < 30).all()
