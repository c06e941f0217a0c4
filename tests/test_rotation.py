"""The angle convention: round trips, signs, and agreement with real annotated photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.io import loadmat
from scipy.spatial.transform import Rotation

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import normalize_landmarks
from nlml_hpe.files.images import read_image
from nlml_hpe.rotation import (
    IMAGE_FROM_CAMERA,
    Angles,
    angles_from_rotation,
    check_head_frame,
    covariance_from_sigma,
    geodesic_degrees,
    kabsch,
    mean_rotation,
    midpoint,
    mirrored,
    rotate_image_points,
    rotation_from_angles,
    rotation_from_vector,
    sigma_from_covariance,
    vector_from_rotation,
)

yaws = st.floats(-85, 85) | st.floats(95, 179) | st.floats(-179, -95)


@given(yaw=yaws, pitch=st.floats(-179, 179), roll=st.floats(-179, 179))
def test_angles_survive_a_round_trip(yaw: float, pitch: float, roll: float) -> None:
    # At 270 degrees together both triples of a rotation are as large.
    assume(abs(yaw) + abs(pitch) + abs(roll) < 269.999)
    angles = Angles.from_columns((yaw, pitch, roll))
    back = angles_from_rotation(rotation_from_angles(angles))
    # Near 90 degrees of yaw the other two are ill-conditioned: 1e-15 / cos(85 deg) stays below 1e-9.
    np.testing.assert_allclose(back.columns(), angles.columns(), atol=1e-9)


def test_angles_do_not_fold_where_yaw_passes_ninety_degrees() -> None:
    """A head that turns on keeps its pitch and roll; a fold would show them half a turn away."""
    yaws = np.append(np.arange(-121.0, 121.0, 8.0), [93.0, -93.0])
    turning = Angles.from_columns([(yaw, 5, 3) for yaw in yaws])
    np.testing.assert_allclose(
        angles_from_rotation(rotation_from_angles(turning)).columns(), turning.columns(), atol=1e-9
    )


@given(yaw=yaws, pitch=st.floats(-179, 179), roll=st.floats(-179, 179))
@example(yaw=10.0, pitch=-179.0, roll=178.0)
@example(yaw=170.0, pitch=-179.0, roll=178.0)
def test_angles_are_read_near_known_ones(yaw: float, pitch: float, roll: float) -> None:
    angles = Angles.from_columns((yaw, pitch, roll))
    known = np.array([4.0, -3.0, 5.0]) + angles.columns()
    # 180 and -180 are the same angle, for the known ones too.
    for near in (known, (known + 180) % 360 - 180):
        back = angles_from_rotation(rotation_from_angles(angles), Angles.from_columns(near)).columns()
        np.testing.assert_allclose((back - angles.columns() + 180) % 360 - 180, 0, atol=1e-9)


@pytest.mark.parametrize("yaw", [90.0, -90.0])
def test_gimbal_lock_keeps_the_rotation(yaw: float) -> None:
    rotation = rotation_from_angles(Angles.from_columns((yaw, 20, -35)))
    again = rotation_from_angles(angles_from_rotation(rotation))
    np.testing.assert_allclose(again, rotation, atol=1e-12)
    # The others of the same call have a roll of their own.
    label = Angles.from_columns([(yaw, 20, -35), (yaw, -170, 60), (yaw / 2, 20, -35)])
    np.testing.assert_allclose(
        angles_from_rotation(rotation_from_angles(label), near=label).columns(), label.columns(), atol=1e-9
    )


@pytest.mark.parametrize("short_of", [1e-7, 1e-6, 1e-5, 1e-3])
def test_near_gimbal_lock_the_angles_of_a_rounded_rotation_still_make_it(short_of: float) -> None:
    """As float32 rounds it; 0.0001 degrees before 90 pitch and roll, each read by itself, were off by degrees."""
    rng = np.random.default_rng(0)
    columns = rng.uniform(-40, 40, (200, 3))
    columns[:, 0] = rng.choice([-1, 1], 200) * (90 - np.degrees(short_of))
    rotation = rotation_from_angles(Angles.from_columns(columns)) + 3e-8 * rng.normal(size=(200, 3, 3))
    label = Angles.from_columns(columns)
    for angles in (angles_from_rotation(rotation), angles_from_rotation(rotation, near=label)):
        assert geodesic_degrees(rotation_from_angles(angles), rotation).max() < 2e-5


def test_the_mirror_turns_yaw_and_roll_around() -> None:
    columns = np.random.default_rng(3).uniform(-80, 80, (20, 3))
    seen = angles_from_rotation(mirrored(rotation_from_angles(Angles.from_columns(columns))))
    np.testing.assert_allclose(seen.columns(), columns * [-1, 1, -1], atol=1e-9)


def test_the_midpoint_is_the_mean_on_the_group() -> None:
    rng = np.random.default_rng(4)
    first, second = (Rotation.random(50, random_state=rng).as_matrix() for _ in range(2))
    first[0] = second[0]
    expected = [Rotation.from_matrix(pair).mean().as_matrix() for pair in zip(first, second, strict=True)]
    # Rotations half a turn apart have no midpoint; the random ones come within a degree of it, where 1e-16 grows.
    np.testing.assert_allclose(midpoint(first, second), expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_batches_keep_their_shape(shape: tuple[int, ...]) -> None:
    angles = Angles(*np.random.default_rng(0).uniform(-60, 60, size=(3, *shape)))
    rotation = rotation_from_angles(angles)
    assert rotation.shape == (*shape, 3, 3)
    np.testing.assert_allclose(angles_from_rotation(rotation).columns(), angles.columns(), atol=1e-9)


def test_positive_angles_turn_the_way_the_convention_says() -> None:
    nose, crown = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    assert (rotation_from_angles(Angles.from_columns((30, 0, 0))) @ nose)[0] < 0, "yaw > 0 turns to image left"
    assert (rotation_from_angles(Angles.from_columns((0, 30, 0))) @ nose)[1] > 0, "pitch > 0 lifts the nose"
    assert (rotation_from_angles(Angles.from_columns((0, 0, 30))) @ crown)[0] > 0, "roll > 0 leans to image right"


def test_image_points_turn_as_camera_points_do() -> None:
    points = np.random.default_rng(1).normal(size=(5, 3))
    rotation = rotation_from_angles(Angles.from_columns((20, -30, 10)))
    expected = (points @ IMAGE_FROM_CAMERA) @ rotation.T @ IMAGE_FROM_CAMERA
    np.testing.assert_allclose(rotate_image_points(points, rotation), expected, atol=1e-12)


def test_geodesic_distance_is_the_angle_of_the_difference() -> None:
    first = rotation_from_angles(Angles.from_columns((10, 0, 0)))
    second = rotation_from_angles(Angles.from_columns((35, 0, 0)))
    assert geodesic_degrees(first, second) == pytest.approx(25.0, abs=1e-9)


def test_kabsch_finds_rotation_and_scale() -> None:
    points = np.random.default_rng(2).normal(size=(30, 3))
    rotation = rotation_from_angles(Angles.from_columns((20, 10, -15)))
    found, scale, rms = kabsch(points, 2.5 * points @ rotation.T + [1, 2, 3])
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    assert scale == pytest.approx(2.5)
    assert rms == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_kabsch_fits_points_that_do_not_agree_as_scipy_does(mirror: float) -> None:
    """A mirror image is fitted by a rotation, too."""
    rng = np.random.default_rng(8)
    source = rng.normal(size=(40, 3)) * [3.0, 2.0, 1.0]
    target = source @ Rotation.random(random_state=rng).as_matrix().T * [1.0, 1.0, mirror] + rng.normal(size=(40, 3))
    rotation, scale, rms = kabsch(source, target)
    centred_source, centred_target = source - source.mean(axis=0), target - target.mean(axis=0)
    best, _ = Rotation.align_vectors(centred_target, centred_source)
    np.testing.assert_allclose(rotation, best.as_matrix(), atol=1e-9)
    turned = best.apply(centred_source)
    assert scale == pytest.approx((turned * centred_target).sum() / (turned**2).sum())
    assert rms == pytest.approx(np.sqrt(((scale * turned - centred_target) ** 2).sum() / 40))


@pytest.mark.parametrize("count", [0, 1, 4])
def test_kabsch_refuses_points_in_one_place(count: int) -> None:
    """The scale was NaN, and the rotation one of all that there are."""
    with pytest.raises(ValueError, match="points that do not coincide"):
        kabsch(np.ones((count, 3)), np.ones((count, 3)))


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros(5)])
def test_other_shapes_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        angles_from_rotation(bad)
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 3\) columns"):
        Angles.from_columns(bad)


@pytest.mark.parametrize(
    ("name", "angles", "said"),
    [
        ("w300lp", (0.0, np.nan, 0.0), "finite angles"),
        (" ", (0.0, 1.0, 0.0), "needs a name"),
        ("own", (0.0, 0.0, 1.0), "another name than 'own'"),
    ],
)
def test_head_frames_that_mean_nothing_are_refused(name: str, angles: tuple[float, float, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_head_frame(name, *angles)


def test_the_convention_is_that_of_real_labels(shared_data: Path, detector: FaceMeshOnnx) -> None:
    """Rigid alignment to the mean frontal shape reproduces AFLW2000-3D labels, signs and order included."""
    features, labels = [], []
    for picture in sorted((shared_data / "aflw2000_dev").glob("*.jpg"))[:200]:
        pitch, yaw, roll = np.degrees(loadmat(picture.with_suffix(".mat"))["Pose_Para"][0][:3])
        faces = detector.detect(read_image(picture)) if max(abs(yaw) - 50, abs(pitch) - 40, abs(roll) - 30) <= 0 else []
        if len(faces) == 1:
            features.append(normalize_landmarks(faces[0].points).reshape(-1, 3))
            labels.append((yaw, pitch, roll))
    angles = Angles.from_columns(labels)
    upright = rotate_image_points(np.array(features), np.swapaxes(rotation_from_angles(angles), 1, 2))
    mean = np.median(upright, axis=0) @ IMAGE_FROM_CAMERA
    found = np.array([kabsch(mean, feature @ IMAGE_FROM_CAMERA)[0] for feature in features])
    error = np.abs(angles_from_rotation(found).columns() - angles.columns())
    assert len(features) >= 100
    # 2.6 degrees over all such images; a swapped sign or order costs more than 10.
    assert np.median(error, axis=0).max() < 3.0


def test_rotation_vectors_are_scipys() -> None:
    """From a millionth of a degree to half a turn, about axes that lie along a coordinate too."""
    rng = np.random.default_rng(0)
    axes = np.concatenate([rng.normal(size=(200, 3)), np.eye(3), -np.eye(3)])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for angle in (0.0, 1e-8, 1e-3, 1.0, np.pi / 2, 3.0, np.pi - 1e-6, np.pi):
        vectors = angle * axes
        rotation = Rotation.from_rotvec(vectors).as_matrix()
        np.testing.assert_allclose(rotation_from_vector(vectors), rotation, atol=1e-14)
        # At half a turn the opposite vector is the same rotation.
        np.testing.assert_allclose(rotation_from_vector(vector_from_rotation(rotation)), rotation, atol=1e-9)
        if angle < np.pi:
            np.testing.assert_allclose(vector_from_rotation(rotation), vectors, atol=1e-9)


def test_rotations_of_angles_are_scipys() -> None:
    """All around, with yaw past 90 degrees and at gimbal lock: what used to be computed by scipy."""
    rng = np.random.default_rng(5)
    columns = np.concatenate([rng.uniform(-360, 360, (500, 3)), rng.uniform(-90, 90, (500, 3))])
    columns[::10, 0] = rng.choice([-90.0, 90.0, 180.0, 0.0], 100)
    rotation = Rotation.from_euler("XYZ", -columns[:, [1, 0, 2]], degrees=True)
    np.testing.assert_allclose(
        rotation_from_angles(Angles.from_columns(columns)), rotation.as_matrix(), rtol=0, atol=1e-14
    )
    clear = np.abs(np.abs(np.sin(np.radians(columns[:, 0]))) - 1) > 1e-4
    read = angles_from_rotation(rotation.as_matrix()[clear])
    # scipy reads the triple with |yaw| <= 90; here that choice is asked for.
    theirs = Angles.from_columns(-rotation[clear].as_euler("XYZ", degrees=True)[:, [1, 0, 2]])
    near = angles_from_rotation(rotation.as_matrix()[clear], theirs).columns()
    # An error of 1e-16 in the sine grows by 1 / cos(yaw), up to 70 here, and by 180 / pi.
    np.testing.assert_allclose((near - theirs.columns() + 180) % 360 - 180, 0, atol=1e-9)
    assert (np.abs(read.columns()).sum(axis=1) <= 270).all()


def test_a_face_upside_down_is_not_said_to_look_backwards() -> None:
    """The three angles together decide: of (5, 20, 170) and (175, -160, -10) the first."""
    columns = np.array([(5.0, 20.0, 170.0), (-40.0, -30.0, 180.0), (95.0, 5.0, 3.0), (-120.0, 40.0, -80.0)])
    read = angles_from_rotation(rotation_from_angles(Angles.from_columns(columns)))
    np.testing.assert_allclose(read.columns(), columns, atol=1e-9)


def test_half_a_turn_is_180_degrees_and_never_minus_180() -> None:
    """With zeros of either sign, as a mirrored rotation has them."""
    for axis, expected in zip(np.eye(3), [(0.0, 180.0, 0.0), (180.0, 0.0, 0.0), (0.0, 0.0, 180.0)], strict=True):
        half = np.diag(2 * axis - 1)
        for rotation in (half, mirrored(half)):
            np.testing.assert_array_equal(angles_from_rotation(rotation).columns(), expected)


def test_geodesic_distances_are_scipys() -> None:
    """From nothing to half a turn, where the arc cosine of a trace would lose half of the digits."""
    rng = np.random.default_rng(6)
    first = Rotation.random(400, random_state=rng)
    axes = rng.normal(size=(400, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    turn = np.concatenate([rng.uniform(0, np.pi, 200), np.pi - np.logspace(-9, -1, 100), np.logspace(-9, -1, 100)])
    second = first * Rotation.from_rotvec(turn[:, None] * axes)
    found = geodesic_degrees(first.as_matrix(), second.as_matrix())
    np.testing.assert_allclose(found, np.degrees(turn), rtol=0, atol=1e-12 * 180)
    assert geodesic_degrees(np.empty((0, 3, 3)), np.empty((0, 3, 3))).shape == (0,)


def test_means_of_rotations_are_scipys() -> None:
    """Far apart too, where the sum of the matrices is nearer to a mirror image than to any rotation."""
    rng = np.random.default_rng(9)
    rotations, weights = Rotation.random(400, random_state=rng).as_matrix().reshape(100, 4, 3, 3), rng.random((100, 4))
    assert (np.linalg.det((rotations * weights[..., None, None]).sum(axis=1)) < 0).any()
    for counts in (None, weights):
        each = [None] * 100 if counts is None else counts
        theirs = [Rotation.from_matrix(some).mean(w).as_matrix() for some, w in zip(rotations, each, strict=True)]
        np.testing.assert_allclose(mean_rotation(rotations, counts), theirs, atol=1e-9)


def test_one_of_many_is_computed_as_one_alone() -> None:
    """To the bit: a person's poses must not depend on how many are computed together."""
    columns = np.random.default_rng(7).uniform(-180, 180, (37, 3))
    together = rotation_from_angles(Angles.from_columns(columns))
    np.testing.assert_array_equal(together, [rotation_from_angles(Angles.from_columns(row)) for row in columns])


def test_rotation_vectors_keep_shapes_and_nan() -> None:
    assert vector_from_rotation(np.broadcast_to(np.eye(3), (2, 5, 3, 3))).shape == (2, 5, 3)
    assert rotation_from_vector(np.zeros((0, 3))).shape == (0, 3, 3)
    assert np.isnan(vector_from_rotation(np.full((1, 3, 3), np.nan))).all()


@given(yaw=yaws, pitch=st.floats(-89, 89), roll=st.floats(-89, 89))
def test_an_error_of_an_angle_turns_the_camera_frame_as_the_covariance_says(
    yaw: float, pitch: float, roll: float
) -> None:
    """Against differences of rotations: each angle alone is off by a thousandth of a degree."""
    angles, step = np.array([yaw, pitch, roll]), 1e-3
    rotation = rotation_from_angles(Angles.from_columns(angles))
    for axis in range(3):
        moved = rotation_from_angles(Angles.from_columns(angles + step * np.eye(3)[axis]))
        error = Rotation.from_matrix(moved @ rotation.T).as_rotvec() / np.radians(step)
        sigma = np.degrees(np.eye(3)[axis])
        # To second order in the step, 2e-5 radians.
        np.testing.assert_allclose(covariance_from_sigma(rotation, sigma), np.outer(error, error), atol=1e-4)


@given(yaw=yaws, pitch=st.floats(-89, 89), roll=st.floats(-89, 89))
def test_sigma_survives_a_round_trip(yaw: float, pitch: float, roll: float) -> None:
    rotation = rotation_from_angles(Angles.from_columns([(yaw, pitch, roll)]))
    # Where an angle has one value alone, rounding leaves a variance a little above nought, or below.
    for sigma in ([[3.0, 2.0, 1.0]], [[3.0, 0.0, 0.0]]):
        again = sigma_from_covariance(rotation, covariance_from_sigma(rotation, sigma))
        np.testing.assert_allclose(again, sigma, atol=1e-5)


def test_the_error_bars_of_angles_that_cannot_be_told_apart_are_bounded() -> None:
    rotation = rotation_from_angles(Angles.from_columns([(90.0, 20.0, 0.0), (10.0, 0.0, 0.0), (10.0, 0.0, 0.0)]))
    covariance = covariance_from_sigma(rotation, np.array([[3.0, 3.0, 3.0], [np.inf, 1.0, 1.0], [np.nan, 1.0, 1.0]]))
    sigma = sigma_from_covariance(rotation, covariance)
    nothing_known = 180 / np.sqrt(3)
    np.testing.assert_allclose(sigma[0], [3.0, nothing_known, nothing_known], rtol=1e-6)
    np.testing.assert_allclose(sigma[1], [nothing_known, 1.0, 1.0], rtol=1e-6)
    assert np.isnan(covariance[2]).any()


@pytest.mark.parametrize("turn", [np.eye(3), np.diag([-1.0, -1.0, 1.0])])
def test_error_bars_of_a_quarter_turn_without_rounding_are_numbers(turn: np.ndarray) -> None:
    """Its cosine is zero to the bit, where a rotation of angles has 6e-17."""
    side = turn @ np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    expected = [3.0, 180 / np.sqrt(3), 180 / np.sqrt(3)]
    for covariance in (covariance_from_sigma(side, [3.0, 2.0, 1.0]), np.radians(3.0) ** 2 * np.eye(3)):
        np.testing.assert_allclose(sigma_from_covariance(side, covariance), expected)
    # Who is sure of the rotation knows no pitch and no roll either, and who says nothing is not said to say that.
    np.testing.assert_allclose(sigma_from_covariance(side, np.zeros((3, 3))), [0.0, *expected[1:]])
    assert np.isnan(sigma_from_covariance(side, np.full((3, 3), np.nan))).all()
