"""Error measures against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nlml_hpe.evaluation.metrics import (
    Errors,
    constant_rotation,
    errors,
    mae_interval,
    per_interval,
    summary,
    within_sigma,
)
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.rotation import Angles, angles_from_rotation, geodesic_degrees, rotation_from_angles
from nlml_hpe.view.draw import AXIS_COLORS, draw_axes


def test_a_pure_yaw_error_is_the_same_in_every_measure() -> None:
    true, found = Angles.from_columns([(0, 0, 0)]), Angles.from_columns([(10, 0, 0)])
    result = summary(errors(rotation_from_angles(found), rotation_from_angles(true)))
    assert result["mae"] == pytest.approx({"yaw": 10, "pitch": 0, "roll": 0, "mean": 10 / 3})
    assert result["maev"] == pytest.approx({"left": 10, "down": 0, "front": 10, "mean": 20 / 3}, abs=1e-6)
    assert result["geodesic"] == pytest.approx({"mean": 10, "median": 10})


def test_the_axes_of_a_head_are_compared_and_means_are_over_faces() -> None:
    """A turn about one of the head's own axes leaves that one where it is, wherever the head looks."""
    true = rotation_from_angles(Angles.from_columns([(40, 20, 10), (-70, 5, 30), (10, -30, -20)]))
    turn = Rotation.from_rotvec(np.diag([5.0, 10.0, 30.0]), degrees=True).as_matrix()
    found = errors(true @ turn, true)
    np.testing.assert_allclose(found.vector, [[0, 5, 5], [10, 0, 10], [30, 30, 0]], atol=1e-6)
    np.testing.assert_allclose(found.geodesic, [5, 10, 30], atol=1e-9)
    result = summary(found)
    assert result["maev"] == pytest.approx({"left": 40 / 3, "down": 35 / 3, "front": 5, "mean": 10}, abs=1e-6)
    assert result["geodesic"] == pytest.approx({"mean": 15, "median": 10})


def test_angles_wrap_at_half_a_turn() -> None:
    found = errors(*(rotation_from_angles(Angles.from_columns([(0, 0, roll)])) for roll in (179, -179)))
    assert found.angle[0, 2] == pytest.approx(2)


def test_beyond_90_degrees_of_yaw_errors_do_not_depend_on_how_a_rotation_is_written() -> None:
    """Own 93, 5, 3 is read back as 87, -175, -177: a fold, and no error of 180 degrees."""
    label = np.array([[93.0, 5.0, 3.0], [-96.0, -20.0, 12.0], [88.0, 10.0, -4.0], [99.0, 60.0, 40.0]])
    offset = np.array([[-4.0, 2.0, 1.0], [9.0, 1.0, -2.0], [4.0, -3.0, 2.0], [-12.0, 3.0, 1.0]])
    true, found = (rotation_from_angles(Angles.from_columns(columns)) for columns in (label, label + offset))
    np.testing.assert_allclose(errors(found, true).angle, np.abs(offset), atol=1e-6)
    np.testing.assert_allclose(errors(true, found).angle, np.abs(offset), atol=1e-6)


def test_the_interval_of_the_mae_holds_what_it_should() -> None:
    """Of draws from a known distribution 95% of the intervals hold the true mean; the same seed gives the same."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        drawn = rng.exponential(3.0, size=(150, 3))
        found = Errors(drawn, drawn, drawn[:, 0])
        low, high = mae_interval(found, resamples=200)["mean"]
        held += low <= 3.0 <= high
    # 200 trials of 95%: within three standard deviations (1.5% each), and bootstrap intervals are a little narrow.
    assert 0.89 <= held / 200 <= 0.99
    assert mae_interval(found) == mae_interval(found)
    assert mae_interval(found)["yaw"][0] < found.angle[:, 0].mean() < mae_interval(found)["yaw"][1]


def test_error_bars_are_counted_where_there_are_any() -> None:
    found = Errors(np.array([[1.0, 3.0, 0.5], [9, 9, 9]]), np.zeros((2, 3)), np.zeros(2))
    shares = within_sigma(found, np.array([[2.0, 2.0, 2.0], [np.nan] * 3]))
    assert shares == {"n": 1, "1.0": [1.0, 0.0, 1.0], "1.96": [1.0, 1.0, 1.0]}
    assert within_sigma(found, np.full((2, 3), np.nan)) == {"n": 0}
    # Of a grid of one pitch, which is answered without an error and a doubt.
    exact = Errors(np.array([[1.0, 0.0, 0.5]]), np.zeros((1, 3)), np.zeros(1))
    assert within_sigma(exact, np.array([[2.0, 0.0, 0.0]]))["1.0"] == [1.0, 1.0, 0.0]


def test_a_constant_rotation_is_found_in_spite_of_stray_faces() -> None:
    rng = np.random.default_rng(0)
    seen = rotation_from_angles(Angles.from_columns(rng.uniform(-40, 40, (200, 3))))
    frame = rotation_from_angles(Angles.from_columns((1.0, -2.5, 0.5)))
    labels = angles_from_rotation(seen @ frame).columns() + rng.normal(0, 1.0, (200, 3))
    labels[:10] += 60
    true = rotation_from_angles(Angles.from_columns(labels))
    assert geodesic_degrees(constant_rotation(seen, true), frame) < 0.5
    # Weights of zero take faces out.
    clean = constant_rotation(seen, true, (np.arange(200) >= 10).astype(float))
    assert geodesic_degrees(clean, constant_rotation(seen[10:], true[10:])) < 1e-6


def test_a_protocol_holds_its_limits_of_each_angle() -> None:
    """Rendered grids end at the paper's very limits."""
    limits = np.array([50.0, 40.0, 30.0])
    on_them = limits * np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    assert PROTOCOLS["rendered-nlml"].includes(Angles.from_columns(on_them)).all()
    beyond = np.diag(limits + 0.1)
    assert not PROTOCOLS["rendered-nlml"].includes(Angles.from_columns(np.concatenate([beyond, -beyond]))).any()


def test_no_face_has_no_mean() -> None:
    empty = np.empty((0, 3, 3))
    assert summary(errors(empty, empty)) == {"n": 0}


def test_intervals_count_every_face_once_and_have_their_own_errors() -> None:
    true = Angles.from_columns(np.random.default_rng(0).uniform(-50, 50, size=(200, 3)))
    # The error of a face grows with its interval: 1 degree from -50 to -40, 2 from there to -30, and so on.
    error = np.floor(true.columns() / 10.0) + 6
    for rows in per_interval(Errors(error, error, error[:, 0]), true, 10.0).values():
        assert sum(row["n"] for row in rows) == 200
        assert [row["from"] for row in rows] == list(range(-50, 50, 10))
        assert [row["to"] - row["from"] for row in rows] == [10] * 10
        assert [row["mae"] for row in rows] == pytest.approx(list(range(1, 11)))


@pytest.mark.parametrize("width", [0.0, -10.0, np.nan])
def test_intervals_have_a_width(width: float) -> None:
    """Of none there were intervals of numbers that meant nothing, and a warning of numpy's."""
    with pytest.raises(ValueError, match="width: expected degrees above zero"):
        per_interval(Errors(np.ones((1, 3)), np.ones((1, 3)), np.ones(1)), Angles.from_columns([(1, 2, 3)]), width)


def test_a_constant_rotation_is_of_faces_with_an_answer() -> None:
    """NaN, which an eye answers to what it does not see, stopped with "SVD did not converge"."""
    estimated = np.stack([np.eye(3), np.full((3, 3), np.nan)])
    with pytest.raises(ValueError, match="leave out the faces that have no answer"):
        constant_rotation(estimated, np.stack([np.eye(3)] * 2))


def test_the_drawn_nose_points_where_the_face_does() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    drawn = draw_axes(image, rotation_from_angles(Angles.from_columns((60, 0, 0))), (100, 100), 80)
    blue = (drawn == AXIS_COLORS[2]).all(axis=2)
    assert blue[:, :95].sum() > blue[:, 105:].sum(), "yaw > 0 turns the face to image left"
    up = draw_axes(image, rotation_from_angles(Angles.from_columns((0, 50, 0))), (100, 100), 80)
    blue = (up == AXIS_COLORS[2]).all(axis=2)
    assert blue[:95].sum() > blue[105:].sum(), "pitch > 0 lifts the nose"
    assert (image == 0).all(), "the input is not drawn on"
