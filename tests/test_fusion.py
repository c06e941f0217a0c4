"""Fusion of two eyes' answers: the weighted mean, agreement, contradiction, and an eye that does not answer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import chi2

from nlml_hpe.inference.fusion import CONTRADICTION, PRIOR, Fused, Gaussians, fuse
from nlml_hpe.inference.kalman import KalmanFilter
from nlml_hpe.rotation import (
    Angles,
    geodesic_degrees,
    midpoint,
    rotation_from_angles,
    rotation_from_vector,
    vector_from_rotation,
)

Floats = NDArray[np.float64]
FIRM = float("inf")
"""A prior with which whether two answers agree changes nothing: the plain product of two normal densities."""


def covariances(rng: np.random.Generator, count: int, high_deg: float = 6.0) -> Floats:
    """Positive definite covariances (count, 3, 3) with axes at random."""
    axes = rotation_from_vector(rng.normal(size=(count, 3)))
    return axes * np.radians(rng.uniform(1.0, high_deg, (count, 1, 3))) ** 2 @ np.swapaxes(axes, -1, -2)


def drawn(rng: np.random.Generator, rotation: Floats, covariance: Floats) -> Gaussians:
    """Answers whose errors have these covariances: R(true) = exp(w) R(answer)."""
    w = np.einsum("nij,nj->ni", np.linalg.cholesky(covariance), rng.normal(size=(len(rotation), 3)))
    return Gaussians(rotation_from_vector(-w) @ rotation, covariance)


def pair(count: int = 200, seed: int = 0) -> tuple[Floats, Gaussians, Gaussians]:
    """True rotations of every kind, and two eyes' answers to them."""
    rng = np.random.default_rng(seed)
    true = rotation_from_vector(rng.normal(size=(count, 3)))
    first, second = (drawn(rng, true, covariances(rng, count)) for _ in range(2))
    return true, first, second


def test_two_equal_covariances_give_the_midpoint_and_half_the_variance() -> None:
    _, a, b = pair()
    b = Gaussians(b.rotation, a.covariance)
    fused = fuse(a, b, contradiction=1e9, prior=FIRM)
    np.testing.assert_allclose(fused.rotation, midpoint(a.rotation, b.rotation), atol=1e-9)
    np.testing.assert_allclose(fused.covariance, a.covariance / 2, atol=1e-12)
    assert set(fused.eye) == {"both"}


def test_the_mean_is_where_both_eyes_are_least_surprised() -> None:
    """By the mean variances of both, about all axes alike, by which they are weighed."""
    _, a, b = pair(20)
    fused = fuse(a, b, contradiction=1e9, prior=FIRM)
    variances = [np.trace(each.covariance, axis1=1, axis2=2) / 3 for each in (a, b)]
    for i in range(20):

        def surprise(w: Floats, i: int = i) -> float:
            at = rotation_from_vector(w) @ fused.rotation[i]
            away = [vector_from_rotation(at @ each.rotation[i].T) for each in (a, b)]
            return float(sum(v @ v / variance[i] for v, variance in zip(away, variances, strict=True)))

        # To what the search leaves: the mean on the way from one to the other is exact.
        assert np.degrees(np.linalg.norm(minimize(surprise, np.zeros(3), tol=1e-10).x)) < 0.01


def test_the_eyes_may_change_places() -> None:
    _, a, b = pair()
    ab, ba = fuse(a, b), fuse(b, a)
    np.testing.assert_allclose(ab.rotation, ba.rotation, atol=1e-9)
    np.testing.assert_allclose(ab.covariance, ba.covariance, atol=1e-12)
    names = {"both": "both", "landmarks": "image", "image": "landmarks"}
    assert [names[name] for name in ab.eye] == list(ba.eye)


def test_turning_the_camera_or_naming_another_head_frame_turns_the_answer_alike() -> None:
    _, a, b = pair()
    turn = rotation_from_vector([0.4, -0.9, 0.3])
    plain = fuse(a, b)
    turned = fuse(*(Gaussians(turn @ each.rotation, turn @ each.covariance @ turn.T) for each in (a, b)))
    np.testing.assert_allclose(turned.rotation, turn @ plain.rotation, atol=1e-9)
    np.testing.assert_allclose(turned.covariance, turn @ plain.covariance @ turn.T, atol=1e-12)
    framed = fuse(*(Gaussians(each.rotation @ turn, each.covariance) for each in (a, b)))
    np.testing.assert_allclose(framed.rotation, plain.rotation @ turn, atol=1e-9)
    np.testing.assert_allclose(framed.covariance, plain.covariance, atol=1e-12)


def test_intervals_of_the_mean_hold_as_often_as_they_say() -> None:
    true, a, b = pair(20_000)
    fused = fuse(a, b, contradiction=1e9, prior=FIRM)
    error = vector_from_rotation(true @ np.swapaxes(fused.rotation, -1, -2))
    surprise = np.einsum("ni,nij,nj->n", error, np.linalg.inv(fused.covariance), error)
    for share in (0.5, 0.8, 0.95):
        # Three standard errors of a share among 20,000 are at most 0.011.
        assert np.mean(surprise < chi2.ppf(share, 3)) == pytest.approx(share, abs=0.011)
    np.testing.assert_allclose(np.mean(fused.distance), 3.0, atol=0.06)


def test_answers_that_agree_are_surer_than_answers_that_do_not() -> None:
    size = np.radians(3.0)
    count = 30
    a = Gaussians(np.tile(np.eye(3), (count, 1, 1)), np.tile(size**2 * np.eye(3), (count, 1, 1)))
    apart = np.zeros((count, 3))
    apart[:, 1] = np.linspace(0, size * np.sqrt(2 * CONTRADICTION) * 0.999, count)
    fused = fuse(a, Gaussians(rotation_from_vector(apart), a.covariance))
    assert set(fused.eye) == {"both"}
    factor = fused.covariance[:, 0, 0] / (size**2 / 2)
    assert (np.diff(factor) > 0).all()
    assert factor[0] == pytest.approx(PRIOR / (PRIOR + 3))
    np.testing.assert_allclose(factor, (PRIOR + fused.distance) / (PRIOR + 3))


def yaws(degrees: list[float], sigma_deg: list[float]) -> Gaussians:
    rotation = rotation_from_angles(Angles.from_columns([(yaw, 0, 0) for yaw in degrees]))
    return Gaussians(rotation, np.radians(sigma_deg)[:, None, None] ** 2 * np.eye(3))


def test_eyes_that_contradict_each_other_are_not_averaged_but_the_surer_one_is_chosen() -> None:
    limit = np.sqrt(CONTRADICTION * 5)  # standard deviations of 1 and 2 degrees
    a = yaws([0, 0, 0], [1, 1, 2])
    b = yaws([limit - 0.01, limit + 0.01, limit + 0.01], [2, 2, 1])
    fused = fuse(a, b)
    assert fused.eye.tolist() == ["both", "landmarks", "image"]
    np.testing.assert_array_equal(fused.rotation[1], a.rotation[1])
    np.testing.assert_array_equal(fused.rotation[2], b.rotation[2])
    grown = (PRIOR + CONTRADICTION) / (PRIOR + 3)
    # It may be the wrong one, and then errs by what lies between the two: about the axis of yaw, the camera's y.
    doubt = np.zeros((3, 3))
    doubt[1, 1] = np.radians(limit + 0.01) ** 2 / 2
    np.testing.assert_allclose(fused.covariance[1], grown * a.covariance[1] + doubt, atol=1e-15)
    np.testing.assert_allclose(fused.covariance[2], grown * b.covariance[2] + doubt, atol=1e-15)
    # The chosen eye is less sure than it would be of a face that the other eye does not see.
    alone = fuse(a, yaws([np.nan] * 3, [np.nan] * 3))
    assert (np.trace(fused.covariance[1]) > np.trace(alone.covariance[1])).all()


def test_a_video_in_which_the_chosen_eye_alternates_does_not_flicker_with_it() -> None:
    """The landmark eye is off by 40 degrees in every third frame, and says that it is the surer one."""
    smooth, worst = KalmanFilter(), 0.0
    for frame in range(60):
        a, b = yaws([40.0 if frame % 3 == 0 else 0.0], [2.5 if frame % 3 == 0 else 4.0]), yaws([0.0], [3.0])
        fused = fuse(a, b)
        assert (fused.eye[0] == "landmarks") == (frame % 3 == 0)
        found = smooth(fused.rotation[0], frame / 25, fused.covariance[0])
        worst = max(worst, float(geodesic_degrees(found, np.eye(3)))) if frame >= 30 else worst
    assert worst < 1  # 4.9 degrees where the covariance did not know of the other eye


def test_an_eye_without_an_answer_leaves_the_other_ones() -> None:
    nan = float("nan")
    a = yaws([10, nan, nan, 10, 10, 10], [2, nan, nan, nan, nan, 2])
    b = yaws([nan, 20, nan, 20, 20, 20], [nan, 3, nan, 3, nan, nan])
    fused = fuse(a, b)
    assert fused.eye.tolist() == ["landmarks", "image", "image", "image", "landmarks", "landmarks"]
    for row, each in ((0, a), (1, b), (3, b), (4, a), (5, a)):
        np.testing.assert_array_equal(fused.rotation[row], each.rotation[row])
        np.testing.assert_array_equal(fused.covariance[row], each.covariance[row])
    assert np.isnan(fused.rotation[2]).all()
    assert np.isnan(fused.distance).all()


def test_the_mean_doubt_about_all_axes_weighs_and_each_axis_keeps_its_own() -> None:
    a, b = yaws([0], [1]), yaws([3], [1])
    about_axes = (np.diag([1.0, 4.0, 7.0]), np.diag([3.0, 0.0, 0.0]))  # square degrees, 4 and 1 on average
    a, b = (
        Gaussians(each.rotation, np.radians(1) ** 2 * said[None]) for each, said in zip((a, b), about_axes, strict=True)
    )
    fused = fuse(a, b, prior=FIRM)
    assert geodesic_degrees(fused.rotation, a.rotation)[0] == pytest.approx(3 * 4 / (4 + 1))
    expected = 0.2**2 * about_axes[0] + 0.8**2 * about_axes[1]
    np.testing.assert_allclose(fused.covariance[0], np.radians(1) ** 2 * expected, atol=1e-12)
    assert fused.distance[0] == pytest.approx(9 / (4 + 1))


def test_no_answer_is_weighed_by_less_than_the_typical_error() -> None:
    """The first eye is surer of the first face than it should be; of the second it is less sure than usual."""
    a, b = yaws([0, 0], [1, 4]), yaws([3, 3], [1, 1])
    typical = np.radians([[2.0, 2.0], [1.0, 1.0]]) ** 2
    fused = fuse(a, b, (typical[0], typical[1]), prior=FIRM)
    np.testing.assert_allclose(geodesic_degrees(fused.rotation, a.rotation), [3 * 4 / (4 + 1), 3 * 16 / (16 + 1)])
    deviations = np.degrees(np.sqrt(fused.covariance[:, 0, 0]))
    np.testing.assert_allclose(deviations, [np.hypot(0.2, 0.8), np.hypot(4 / 17, 16 / 17)])


def test_two_certain_answers_that_agree_are_one_and_none_is_none() -> None:
    certain = Gaussians(np.eye(3)[None], np.zeros((1, 3, 3)))
    np.testing.assert_array_equal(fuse(certain, certain).rotation, np.eye(3)[None])
    nothing = Gaussians(np.full((1, 3, 3), np.nan), np.eye(3)[None])
    assert np.isnan(fuse(nothing, nothing).covariance).all()


def test_no_face_at_all() -> None:
    nothing = Gaussians(np.empty((0, 3, 3)), np.empty((0, 3, 3)))
    fused = fuse(nothing, nothing)
    assert isinstance(fused, Fused)
    assert fused.rotation.shape == (0, 3, 3)


def test_answers_to_other_faces_and_settings_without_a_meaning_are_refused() -> None:
    _, a, b = pair(4)
    with pytest.raises(ValueError, match="of the same N faces; received"):
        fuse(a, Gaussians(b.rotation[:2], b.covariance[:2]))
    for settings in ({"contradiction": 0.0}, {"prior": -1.0}, {"prior": float("nan")}):
        with pytest.raises(ValueError, match="above zero"):
            fuse(a, b, **settings)


def test_the_mean_of_answers_far_apart_is_between_them() -> None:
    a, b = yaws([0], [10]), yaws([120], [20])
    fused = fuse(a, b, contradiction=1e9)
    assert geodesic_degrees(fused.rotation, a.rotation)[0] == pytest.approx(24.0, abs=1e-6)
