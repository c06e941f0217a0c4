"""Calibration of two eyes: the numbers are recovered from drawn errors, and intervals hold on other faces."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nlml_hpe.evaluation.calibration_fit import HEAD_AXES, Labelled, answered, fit, of_range, surprises
from nlml_hpe.inference.calibration import (
    DEFAULT_CALIBRATION,
    GROWTH,
    ON_PHOTOGRAPHS,
    Calibration,
    OwnError,
    RangeNumbers,
    range_shares,
)
from nlml_hpe.inference.fusion import EYES, Eye, Gaussians
from nlml_hpe.rotation import (
    Angles,
    covariance_from_sigma,
    geodesic_degrees,
    rotation_from_angles,
    rotation_from_vector,
    vector_from_rotation,
)

SHARED_DEG = np.array([3.0, 2.0, 1.0])
"""About the head's x, y and z: pitch, yaw, roll."""


def faces(count: int = 1000, seed: int = 0, landmarks_scale: float = 2.0, image_floor_deg: float = 4.0) -> Labelled:
    """Half in range, half beyond. The landmark eye says half of its own error, the image eye nothing of a floor."""
    rng = np.random.default_rng(seed)
    narrow, wide = rng.uniform(-1, 1, (2, count // 2, 3)) * [[[48.0, 38.0, 28.0]], [[25.0, 30.0, 20.0]]]
    wide[:, 0] += np.where(wide[:, 0] < 0, -52, 52)
    true = rotation_from_angles(Angles.from_columns(np.concatenate([narrow, wide])))
    shared = np.einsum("nij,nj->ni", true, rng.normal(size=(count, 3)) * np.radians(SHARED_DEG))
    eyes = []
    for low, high, scale, floor_deg in ((0.5, 2.0, landmarks_scale, 0.0), (0.5, 2.0, 1.0, image_floor_deg)):
        said = np.radians(rng.uniform(low, high, (count, 1, 1))) ** 2 * np.eye(3)
        own = np.sqrt(scale**2 * said[:, 0, :1] + np.radians(floor_deg) ** 2) * rng.normal(size=(count, 3))
        eyes.append(Gaussians(rotation_from_vector(-(own + shared)) @ true, said))
    return Labelled(true, *eyes, eyes[1])


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit(faces())


def test_the_numbers_behind_drawn_errors_are_found(calibration: Calibration) -> None:
    for name in ON_PHOTOGRAPHS:
        numbers = calibration.numbers(name)
        # 500 faces: a covariance of two eyes' errors is known to about a tenth, the grid's steps are a fifth apart.
        found = [numbers.shared_deg[axis] for axis in HEAD_AXES]
        np.testing.assert_allclose(found, SHARED_DEG, atol=0.6)
        assert numbers.landmarks.scale == pytest.approx(2.0, rel=0.35)
        assert numbers.landmarks.floor_deg < 1.5
        assert numbers.image.floor_deg == pytest.approx(4.0, rel=0.25)


def test_the_image_eye_alone_is_calibrated_by_what_it_says_alone(calibration: Calibration) -> None:
    """It is weighed by what it says beside the other eye; alone, here with larger errors, it is widened."""
    labelled = faces()
    away = vector_from_rotation(labelled.image.rotation @ np.swapaxes(labelled.true, -1, -2))
    alone = labelled.image._replace(rotation=rotation_from_vector(1.5 * away) @ labelled.true)
    fitted = fit(labelled._replace(alone=alone))
    for name in ON_PHOTOGRAPHS:
        numbers, before = fitted.numbers(name), calibration.numbers(name)
        assert numbers == replace(before, widening={**before.widening, "image": numbers.widening["image"]})
        for axis in HEAD_AXES:
            assert numbers.widening["image"][axis] > 1.25 * before.widening["image"][axis]


@pytest.mark.parametrize("eye", EYES)
def test_intervals_hold_on_other_faces(calibration: Calibration, eye: Eye) -> None:
    others = faces(4000, seed=1)
    for name in ON_PHOTOGRAPHS:
        part = others.chosen(of_range(others.true)[name])
        held = (surprises(part.true, answered(calibration, eye, part)) < 1.96).mean(axis=0)
        # The 95% quantile of 500 faces is itself known to 1%; 2,000 faces add 0.5%. Out of range it is fitted about
        # the head's axes and measured in angles.
        np.testing.assert_allclose(held, 0.95, atol=0.03 if name == "in_range" else 0.045)


def test_the_fused_answer_is_nearer_than_either_eye(calibration: Calibration) -> None:
    others = faces(2000, seed=2)
    error = {eye: geodesic_degrees(answered(calibration, eye, others).rotation, others.true).mean() for eye in EYES}
    assert error["both"] < min(error["landmarks"], error["image"]) - 0.1


def test_stray_faces_do_not_decide(calibration: Calibration) -> None:
    """Two in a hundred landmark answers off by 60 degrees: the eyes are weighed nearly as without them."""
    labelled = faces()
    lost = np.arange(0, len(labelled.true), 50)
    rotation = labelled.landmarks.rotation.copy()
    rotation[lost] = rotation_from_vector([0, np.pi / 3, 0]) @ rotation[lost]
    strayed = fit(labelled._replace(landmarks=Gaussians(rotation, labelled.landmarks.covariance)))
    for name in ON_PHOTOGRAPHS:
        before, after = calibration.numbers(name), strayed.numbers(name)
        assert after.landmarks.scale <= 2 * before.landmarks.scale
        assert after.image.floor_deg == pytest.approx(before.image.floor_deg, rel=0.25)
    fused = answered(strayed, "both", labelled)
    wrong = geodesic_degrees(fused.rotation[lost], labelled.true[lost])
    # An eye that is off by 60 degrees contradicts the other one; a mean of the two would be off by 20 and more.
    assert np.median(wrong) < 15


def test_an_answer_without_a_covariance_is_weighed_by_how_far_off_such_answers_are() -> None:
    labelled = faces()
    silent = Gaussians(labelled.image.rotation, np.full_like(labelled.image.covariance, np.nan))
    calibration = fit(labelled._replace(image=silent))
    for name in ON_PHOTOGRAPHS:
        # 4 degrees of floor and what the eye would have said, 0.5 to 2.
        assert calibration.numbers(name).image.typical_deg == pytest.approx(4.2, rel=0.25)
    given = answered(calibration, "both", labelled._replace(image=silent))
    assert given.is_weighable.all()


def test_without_an_eye_the_other_one_is_calibrated_alone() -> None:
    labelled = faces()
    nothing = Gaussians(*(np.full_like(labelled.true, np.nan) for _ in range(2)))
    alone = fit(labelled._replace(image=nothing))
    held = (surprises(labelled.true, answered(alone, "landmarks", labelled)) < 1.96).mean(axis=0)
    np.testing.assert_allclose(held, 0.95, atol=0.02)


def test_numbers_survive_a_model_folder_and_damaged_ones_are_refused(calibration: Calibration) -> None:
    written = json.loads(json.dumps(calibration.settings()))
    assert Calibration.from_settings(written) == calibration
    for damage in (
        {"in_range": None},
        {"contradiction": -1.0},
        {"prior": "many"},
        {"growth": 10**400},
        {"wide": {**written["wide"], "shared_deg": {"pitch": 1.0}}},
        {"wide": {**written["wide"], "image": {"scale": float("nan"), "floor_deg": 1.0, "typical_deg": 1.0}}},
    ):
        with pytest.raises(ValueError, match="calibrat"):
            Calibration.from_settings({**written, **damage})


def test_too_few_faces_of_a_range_are_refused() -> None:
    labelled = faces()
    with pytest.raises(ValueError, match="50 labelled faces or more of each range; wide has 0"):
        fit(labelled.chosen(of_range(labelled.true)["in_range"]))


def test_no_answer_jumps_where_a_head_turns_out_of_range() -> None:
    axes = dict.fromkeys(HEAD_AXES, 1.0)
    widening = dict.fromkeys(EYES, axes)
    narrow = RangeNumbers(OwnError(1.0, 1.0, 2.0), OwnError(1.0, 2.0, 3.0), axes, widening)
    wide = RangeNumbers(OwnError(3.0, 5.0, 8.0), OwnError(1.0, 4.0, 6.0), axes, widening)
    calibration = Calibration(narrow, wide, wide)
    yaws = np.linspace(40, 70, 301)
    true = rotation_from_angles(Angles.from_columns(np.stack([yaws, 0 * yaws, 0 * yaws], axis=-1)))
    small = np.radians(0.5) ** 2 * np.tile(np.eye(3), (len(yaws), 1, 1))
    image = Gaussians(rotation_from_vector([0.05, 0.02, 0.0]) @ true, small)
    fused = calibration.answer(Gaussians(true, small), image)
    steps = geodesic_degrees(fused.rotation[1:], fused.rotation[:-1])
    assert steps.max() < 0.2  # a tenth of a degree is the head's own step
    deviations = np.degrees(np.sqrt(np.trace(fused.covariance, axis1=-2, axis2=-1)))
    assert np.abs(np.diff(deviations)).max() < 0.2
    assert deviations[-1] > 1.5 * deviations[0]


def test_a_face_counts_as_wide_where_either_eye_sees_it_so() -> None:
    """An eye that is lost says "frontal" and is sure of it; by its own range it would be believed."""
    axes = dict.fromkeys(HEAD_AXES, 1.0)
    widening = dict.fromkeys(EYES, axes)
    narrow = RangeNumbers(OwnError(0.0, 1.0, 2.0), OwnError(0.0, 0.9, 3.0), axes, widening)
    wide = RangeNumbers(OwnError(0.0, 3.0, 8.0), OwnError(0.0, 6.0, 6.0), axes, widening)
    turned = rotation_from_angles(Angles.from_columns([(70, 0, 0)]))
    small = np.zeros((1, 3, 3))
    answer = Calibration(narrow, wide, wide).answer(Gaussians(turned, small), Gaussians(np.eye(3)[None], small))
    assert answer.eye.tolist() == ["landmarks"]
    assert range_shares(np.eye(3)[None]).tolist() == [[1.0, 0.0, 0.0]]


def test_heads_that_look_away_are_calibrated_on_faces_of_their_own(calibration: Calibration) -> None:
    """The landmark eye finds frontal faces in the backs of heads; the image eye is off by 5 degrees and says so."""
    rng = np.random.default_rng(3)
    yaws = rng.uniform(115, 180, 400) * rng.choice([-1, 1], 400)
    true = rotation_from_angles(Angles.from_columns(np.stack([yaws, *rng.uniform(-20, 20, (2, 400))], axis=-1)))
    said = np.radians(5.0) ** 2 * np.tile(np.eye(3), (400, 1, 1))
    frontal = Gaussians(rotation_from_vector(rng.normal(size=(400, 3)) * 0.1), said / 25)
    image = Gaussians(rotation_from_vector(np.radians(5.0) * rng.normal(size=(400, 3))) @ true, said)
    faces_away = Labelled(true, frontal, image, image)
    assert set(of_range(true)) == {"in_range", "wide", "turned"}
    assert of_range(true)["turned"].all()
    away = fit(faces_away, ("turned",), calibration)
    assert (away.in_range, away.wide) == (calibration.in_range, calibration.wide)
    assert away.turned.image.scale == pytest.approx(1.0, rel=0.3)
    for numbers in (away, Calibration(calibration.in_range, calibration.wide, DEFAULT_CALIBRATION.turned)):
        fused = answered(numbers, "both", faces_away)
        # The image eye's own median is 1.54 * 5 degrees.
        assert np.median(geodesic_degrees(fused.rotation, true)) < 9
    held = (surprises(true, answered(away, "both", faces_away)) < 1.96).mean(axis=0)
    np.testing.assert_allclose(held, 0.95, atol=0.045)
    # The landmark eye knows nothing here: it draws no answer aside, nor to either side from half a turn apart.
    behind = Gaussians(rotation_from_angles(Angles.from_columns([(179.9, 0, 0), (-179.9, 0, 0)])), said[:2])
    frontal = Gaussians(np.tile(np.eye(3), (2, 1, 1)), said[:2])
    assert geodesic_degrees(away.answer(frontal, behind).rotation, behind.rotation).max() < 0.5


def test_an_eye_that_seldom_answers_is_hardly_weighed_however_sure_it_is(calibration: Calibration) -> None:
    """Of 80 heads that look away it sees a face in 3, as a landmark detector does."""
    rng = np.random.default_rng(3)
    yaws = np.concatenate([rng.uniform(120, 180, 40), rng.uniform(-180, -120, 40)])
    true = rotation_from_angles(Angles.from_columns(np.stack([yaws, 0 * yaws, 0 * yaws], axis=1)))
    sure, unsure = (np.tile(np.radians(sigma) ** 2 * np.eye(3), (80, 1, 1)) for sigma in (2.0, 8.0))
    image = Gaussians(rotation_from_vector(np.radians(8.0) * rng.normal(size=(80, 3))) @ true, unsure)
    frontal = np.tile(np.eye(3), (80, 1, 1))
    frontal[3:] = np.nan
    fitted = fit(Labelled(true, Gaussians(frontal, sure), image, image), ("turned",), calibration)
    said = Gaussians(np.eye(3)[None], sure[:1]), Gaussians(true[:1], unsure[:1])
    assert geodesic_degrees(fitted.answer(*said).rotation, true[:1])[0] < 0.5


@pytest.mark.parametrize("pitch", [0.0, 0.1])
def test_an_angle_of_one_value_is_calibrated_too(pitch: float) -> None:
    """Of a grid of one pitch and one roll: no widening could be told, and the model folder was not to be written."""
    yaws = np.random.default_rng(0).uniform(-48, 48, (2, 200)) * [[1.0], [0.05]]
    true, said = (
        rotation_from_angles(Angles.from_columns(np.stack([yaw, turn, 0 * yaw], axis=1)))
        for yaw, turn in ((yaws[0], 0 * yaws[0]), (yaws.sum(axis=0), pitch + 0 * yaws[0]))
    )
    stated = covariance_from_sigma(said, np.tile([2.0, 0.0, 0.0], (200, 1)))
    nothing = np.full_like(true, np.nan)
    labelled = Labelled(true, Gaussians(said, stated), *[Gaussians(nothing, nothing)] * 2)
    fitted = fit(labelled, ("in_range",))
    assert Calibration.from_settings(json.loads(json.dumps(fitted.settings(), allow_nan=False))) == fitted
    inside = surprises(true, answered(fitted, "landmarks", labelled))
    assert (inside[:, HEAD_AXES.index("yaw")] <= 1.96).mean() == pytest.approx(0.95, abs=0.01)


def test_where_an_answer_is_less_sure_so_is_what_both_eyes_share() -> None:
    three, one = dict.fromkeys(HEAD_AXES, 3.0), dict.fromkeys(HEAD_AXES, 1.0)
    numbers = RangeNumbers(OwnError(1.0, 0.0, 2.0), OwnError(1.0, 0.0, 4.0), three, dict.fromkeys(EYES, one))
    calibration = Calibration(numbers, numbers, numbers)
    frontal, unknown = np.tile(np.eye(3), (3, 1, 1)), np.full((3, 3, 3), np.nan)
    said = Gaussians(frontal, np.radians([1.0, 2.0, 8.0])[:, None, None] ** 2 * np.eye(3))
    alone = calibration.answer(said, Gaussians(unknown, unknown))
    # By hand: the variance of 3 degrees, times the own deviation over the eye's typical one, 2 degrees.
    expected = [1 + 9 / 2, 4 + 9, 64 + 9 * 4]
    np.testing.assert_allclose(np.degrees(np.degrees(alone.covariance[:, 0, 0])), expected, rtol=1e-9)
    # Fitted before there was a growth: the same for all.
    earlier = calibration.settings()
    del earlier["growth"]
    even = Calibration.from_settings(earlier).answer(said, Gaussians(unknown, unknown))
    np.testing.assert_allclose(np.degrees(np.degrees(even.covariance[:, 0, 0])), [10, 13, 73], rtol=1e-9)


def test_an_earlier_models_rule_stays_until_its_photographs_are_fitted_anew(calibration: Calibration) -> None:
    earlier = replace(calibration, growth=0.0)
    assert fit(faces(), ("wide",), earlier).growth == 0.0
    assert fit(faces(), base=earlier).growth == GROWTH


def test_a_model_that_knows_two_ranges_is_read(calibration: Calibration) -> None:
    written = calibration.settings()
    del written["turned"]
    assert Calibration.from_settings(written).turned == calibration.wide
