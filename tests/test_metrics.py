"""Error measures against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from nlml_hpe.evaluation.metrics import errors, per_interval, summary
from nlml_hpe.rotation import Angles, rotation_from_angles
from nlml_hpe.view.draw import AXIS_COLORS, draw_axes


def test_a_pure_yaw_error_is_the_same_in_every_measure() -> None:
    true, found = Angles.from_columns([(0, 0, 0)]), Angles.from_columns([(10, 0, 0)])
    result = summary(errors(found, true))
    assert result["mae"] == pytest.approx({"yaw": 10, "pitch": 0, "roll": 0, "mean": 10 / 3})
    assert result["maev"] == pytest.approx({"left": 10, "down": 0, "front": 10, "mean": 20 / 3}, abs=1e-6)
    assert result["geodesic"] == pytest.approx({"mean": 10, "median": 10})


def test_angles_wrap_at_half_a_turn() -> None:
    found = errors(Angles.from_columns([(0, 0, 179)]), Angles.from_columns([(0, 0, -179)]))
    assert found.angle[0, 2] == pytest.approx(2)


def test_no_face_has_no_mean() -> None:
    empty = Angles.from_columns(np.empty((0, 3)))
    assert summary(errors(empty, empty)) == {"n": 0}


def test_intervals_count_every_face_once() -> None:
    rng = np.random.default_rng(0)
    true = Angles.from_columns(rng.uniform(-50, 50, size=(200, 3)))
    found = errors(Angles.from_columns(true.columns() + 1), true)
    for rows in per_interval(found, true, 10.0).values():
        assert sum(row["n"] for row in rows) == 200
        assert all(row["mae"] == pytest.approx(1) for row in rows)


def test_the_drawn_nose_points_where_the_face_does() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    drawn = draw_axes(image, rotation_from_angles(Angles.from_columns((60, 0, 0))), (100, 100), 80)
    blue = (drawn == AXIS_COLORS[2]).all(axis=2)
    assert blue[:, :95].sum() > blue[:, 105:].sum(), "yaw > 0 turns the face to image left"
    up = draw_axes(image, rotation_from_angles(Angles.from_columns((0, 50, 0))), (100, 100), 80)
    blue = (up == AXIS_COLORS[2]).all(axis=2)
    assert blue[:95].sum() > blue[105:].sum(), "pitch > 0 lifts the nose"
    assert (image == 0).all(), "the input is not drawn on"
