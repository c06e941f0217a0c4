"""Looks: the same face seen several times, one answer, and what the scatter of the looks says of its error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from nlml_hpe import HeadPoseEstimator
from nlml_hpe.cli import main
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.facemesh import FaceMeshNetworks
from nlml_hpe.detection.landmarks import FACEMESH, mirrored_points
from nlml_hpe.detection.looks import LOOKS, Look, first_seen, further_looks, seen_again
from nlml_hpe.detection.mediapipe_detectors import MediaPipeFaceMesh
from nlml_hpe.detection.regions import regions_from_landmarks
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import Estimates, OnnxEngine
from nlml_hpe.inference.looks import SCATTER, UNSTATED_DEG, mean_of_looks
from nlml_hpe.model.format import ONNX_FILE, SHIPPED
from nlml_hpe.rotation import (
    Angles,
    covariance_from_sigma,
    geodesic_degrees,
    mean_rotation,
    midpoint,
    rotate_image_points,
    rotation_from_angles,
    rotation_from_vector,
)


@pytest.fixture(scope="module")
def finder() -> Iterator[FaceMeshOnnx]:
    with FaceMeshOnnx(max_faces=16) as opened:
        yield opened


@pytest.fixture(scope="module")
def estimator(landmark_eye_alone: Path) -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator(landmark_eye_alone) as opened:
        yield opened


def turned(face: Face, yaw: float) -> Face:
    """The photograph's landmarks, turned so that the head faces another way; near frontal before."""
    rotation = rotation_from_angles(Angles.from_columns((yaw, 0, 0)))
    return Face.from_points(rotate_image_points(face.landmarks, rotation))


@pytest.mark.parametrize("count", [0, 4, 12, -1, True, 2.5, 3.0, "2", None, [3]])
def test_another_number_of_looks_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match="looks: expected 1, 2, 3, 5 or 11; received"):
        further_looks(count)  # type: ignore[arg-type]


def test_the_numbers_of_looks_are_kept() -> None:
    for count, further in LOOKS.items():
        assert len({Look(1.0, 0.0, False), *further}) in (count, count - 1)
        assert len(further) == count - 1


def test_a_look_shows_the_network_what_the_whole_image_would(finder: FaceMeshOnnx, photo: RgbImage) -> None:
    """A window around the face is cut out first: that must not move the points."""
    (face,) = finder.detect(photo)
    region = regions_from_landmarks(face.landmarks[None])
    networks = FaceMeshNetworks(threads=1)
    for look in (Look(1.0, 0.0, False), Look(1.2, 15.0, False), Look(1.0, -15.0, True)):
        (again,) = finder.look_again([face], [look])
        shown = region * [1, 1, look.side, 1] + [0, 0, 0, np.radians(look.turn)]
        if look.mirrored:
            shown = shown * [-1, 1, 1, -1] + [photo.shape[1], 0, 0, 0]
            ((points,),) = networks.landmarks([np.ascontiguousarray(photo[:, ::-1])], [shown], 0.1)
            points = mirrored_points(points, photo.shape[1], FACEMESH)
        else:
            ((points,),) = networks.landmarks([photo], [shown], 0.1)
        assert again.looks is not None
        # Pixels, of a face 120 pixels wide: the projection is computed from other corners.
        assert np.abs(again.looks[0] - points).max() < 0.05


def test_all_looks_see_the_same_face(finder: FaceMeshOnnx, photo: RgbImage) -> None:
    (face,) = finder.look_again(finder.detect(photo), further_looks(11))
    assert face.looks is not None
    assert face.looks.shape == (10, 468, 3)
    apart = np.median(np.linalg.norm((face.looks - face.landmarks)[..., :2], axis=-1), axis=1)
    # A face that was mirrored or turned the wrong way would lie tens of pixels off.
    assert apart.max() < 0.05 * np.ptp(face.landmarks[:, 0])


def test_a_large_image_is_looked_at_as_it_is_searched(finder: FaceMeshOnnx, photo: RgbImage) -> None:
    times = 3000 / max(photo.shape[:2])
    large = np.asarray(cv2.resize(photo, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    (small,) = finder.look_again(finder.detect(photo), further_looks(2))
    (found,) = finder.look_again(finder.detect(large), further_looks(2))
    assert found.looks is not None
    assert small.looks is not None
    apart = np.linalg.norm((found.looks[0] / times - small.looks[0])[:, :2], axis=1)
    # The larger picture is reduced by a third, and so is sharper than the small one by a little.
    assert np.median(apart) < 0.02 * np.ptp(small.landmarks[:, 0])


def test_a_part_of_an_array_is_looked_at_as_a_copy_of_it(finder: FaceMeshOnnx, photo: RgbImage) -> None:
    """Windows are views, of images that may be views themselves."""
    (face,) = finder.detect(photo)
    alone = finder.look_again([face], further_looks(5))[0]
    for seen in (
        np.pad(photo, ((0, 9), (0, 7), (0, 0)))[:-9, :-7],
        np.ascontiguousarray(photo[::-1, ::-1])[::-1, ::-1],
    ):
        assert not seen.flags.c_contiguous
        (again,) = finder.look_again([replace(face, image=seen)], further_looks(5))
        np.testing.assert_array_equal(again.looks, alone.looks)  # type: ignore[arg-type]


@pytest.mark.parametrize("faces", [1, 3])
def test_threads_do_not_change_an_answer(finder: FaceMeshOnnx, photo: RgbImage, faces: int) -> None:
    """The network's answers to all looks are another thread's, while this one takes the exact step."""
    before, engine = cv2.getNumThreads(), OnnxEngine(SHIPPED / ONNX_FILE)
    seen = finder.look_again(finder.detect(photo), further_looks(5)) * faces
    try:
        answers = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            answers.append(engine.estimate(seen, "refined"))
    finally:
        cv2.setNumThreads(before)
    for alone, shared in zip(*answers, strict=True):
        np.testing.assert_array_equal(alone, shared)


def test_the_mean_of_two_looks_is_their_midpoint_and_one_look_stays_as_it_is() -> None:
    rotations = rotation_from_angles(Angles.from_columns([(10, 5, 0), (16, -3, 4), (70, 0, 0)]))
    unknown = np.full((3, 3, 3), np.nan)
    mean, covariance = mean_of_looks(rotations, unknown, [2, 1])
    np.testing.assert_allclose(mean[0], midpoint(rotations[0], rotations[1]), atol=1e-12)
    np.testing.assert_allclose(mean[1], rotations[2], atol=1e-12)
    assert np.isfinite(covariance[0]).all()
    assert np.isnan(covariance[1]).all()


def test_looks_that_lie_apart_are_less_sure() -> None:
    def sizes(apart: float) -> float:
        rotations = rotation_from_angles(Angles.from_columns([(-apart, 0, 0), (0, apart, 0), (apart, 0, 0)]))
        _, covariance = mean_of_looks(rotations, covariance_from_sigma(rotations, np.full((3, 3), 2.0)), [3])
        np.testing.assert_allclose(covariance, np.swapaxes(covariance, 1, 2))
        assert np.linalg.eigvalsh(covariance[0]).min() > 0
        return float(np.trace(covariance[0]))

    assert sizes(0.0) < sizes(2.0) < sizes(8.0)


def test_the_doubt_of_several_looks_is_what_they_state_and_how_they_scatter() -> None:
    """By hand: a face of three looks, of which one states nothing, beside one of five that state nothing at all."""
    axis, apart = np.array([2.0, -1.0, 2.0]) / 3, np.radians(4.0)
    front = rotation_from_angles(Angles.from_columns((30, 10, -20)))
    three, five = (
        rotation_from_vector(np.array(steps)[:, None] * apart * axis) @ front for steps in ([0, 1, -1], range(-2, 3))
    )
    stated = [np.diag([1e-3, 2e-3, 3e-3]), np.diag([5e-3, 4e-3, 1e-3]), np.full((3, 3), np.nan)]
    looks, covariance = np.concatenate([three, five]), np.concatenate([stated, np.full((5, 3, 3), np.nan)])
    mean, found = mean_of_looks(looks, covariance, [3, 5])
    np.testing.assert_allclose(mean, [front, front], atol=1e-12)
    along = apart**2 * np.outer(axis, axis)
    # Sample variances of -1, 0, 1 and of -2 to 2; of three looks two thirds of what is stated count, of five 0.4.
    by_hand = [
        2 / 3 * np.diag([3e-3, 3e-3, 2e-3]) + SCATTER * along,
        0.4 * np.radians(UNSTATED_DEG) ** 2 * np.eye(3) + SCATTER * 2.5 * along,
    ]
    np.testing.assert_allclose(found, by_hand, atol=1e-12)


@pytest.mark.parametrize("looks", [2, 3, 5, 11])
def test_several_looks_give_one_pose_near_that_of_one(
    estimator: HeadPoseEstimator, photo: RgbImage, looks: int
) -> None:
    (one,), (several,) = estimator.predict(photo, looks=1), estimator.predict(photo, looks=looks)
    assert geodesic_degrees(one.rotation, several.rotation) < 4.0
    assert several.sigma is not None
    assert several.score is not None
    assert 0.0 < several.score < 1.0
    assert several.box == one.box
    (again,) = estimator.poses(estimator.detect(photo, looks))
    assert again.as_dict() == several.as_dict()


def test_faces_seen_more_or_less_often_answer_as_each_does_alone(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    faces = [estimator.detect(photo, looks)[0] for looks in (5, 1, 11, 2)]
    faces.append(turned(faces[1], 52.0))  # the exact step reaches the face, and not its mirror image
    together = estimator.poses(faces)
    assert together[-1].sigma is None
    for face, pose in zip(faces, together, strict=True):
        (alone,) = estimator.poses([face])
        assert geodesic_degrees(alone.rotation, pose.rotation) < 1e-3
        assert pose.sigma == pytest.approx(alone.sigma, abs=1e-3)


def test_both_backends_join_looks_alike(
    estimator: HeadPoseEstimator, landmark_eye_alone: Path, photo: RgbImage
) -> None:
    faces = estimator.detect(photo, 5)
    with HeadPoseEstimator(landmark_eye_alone, backend="torch") as other:
        (first,), (second,) = estimator.poses(faces), other.poses(faces)
        (exact,) = other.poses(faces, "exact")
    assert geodesic_degrees(first.rotation, second.rotation) < 1e-3
    assert first.sigma == pytest.approx(second.sigma, abs=1e-3)
    assert first.score == pytest.approx(second.score, abs=1e-3)
    assert geodesic_degrees(first.rotation, exact.rotation) < 2.0


def test_the_exact_step_is_taken_from_the_mean_landmarks(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    """Where it reaches; far to the side the answer is the mean of the network's answers to the looks."""
    (face,) = estimator.detect(photo, 5)
    assert face.looks is not None
    mean = Face.from_points(np.concatenate([face.landmarks[None], face.looks]).mean(axis=0))
    (found,), (exact,) = (estimator.poses([one], eye="landmarks") for one in (face, mean))
    np.testing.assert_allclose(found.rotation, exact.rotation, atol=1e-9)
    looks = [turned(replace(face, looks=None), yaw) for yaw in (74.0, 78.0, 80.0)]
    side = replace(looks[0], looks=np.stack([look.landmarks for look in looks[1:]]))
    (found,), each = (estimator.poses(some, "network", eye="landmarks") for some in ([side], looks))
    (refined,) = estimator.poses([side], eye="landmarks")
    np.testing.assert_allclose(found.rotation, mean_rotation([pose.rotation for pose in each]), atol=1e-9)
    np.testing.assert_allclose(refined.rotation, found.rotation, atol=1e-9)


def test_a_face_far_to_the_side_has_error_bars_from_two_looks_on(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    """Where the exact step does not reach, one look has none; looks that disagree have larger ones."""
    (face,) = estimator.detect(photo, 1)
    side = turned(face, 75.0)
    near, far = (replace(side, looks=turned(face, 75.0 + by).landmarks[None]) for by in (1.0, 12.0))
    one, sure, unsure = estimator.poses([side, near, far])
    assert one.sigma is None
    assert one.score is None
    assert one.covariance is None
    assert sure.sigma is not None
    assert unsure.sigma is not None
    assert sure.score is not None
    assert unsure.score is not None
    assert max(unsure.sigma) > max(sure.sigma) > 1.0
    assert unsure.score < sure.score


@pytest.mark.parametrize(("most", "found_by"), [(1, ["whole"]), (2, ["box", "whole"]), (9, ["box", "whole", "box"])])
def test_faces_without_landmarks_take_the_room_that_is_left_largest_first(
    photo: RgbImage, finder: FaceMeshOnnx, monkeypatch: pytest.MonkeyPatch, most: int, found_by: list[str]
) -> None:
    """Of the boxes the surest that show none of the faces; a box of a face, or about it, is no further face."""
    face, (left, top, right, bottom) = finder.detect(photo)[0], finder.detect(photo)[0].box
    large, small, around = (300.0, 0.0, 500.0, 200.0), (0.0, 400.0, 9.0, 409.0), (left, top, right + 9, bottom + 9)
    monkeypatch.setattr(finder, "detect_and_place", lambda *_: ([[face]], [[face.box, around, large, small]]))
    monkeypatch.setattr(finder, "_max_faces", most)
    (found,) = first_seen(finder, [photo], turned=False, boxes=True)
    assert [each.found_by for each in found] == found_by
    assert [each.box for each in found if each is not face] == [large, small][: most - 1]


def test_a_detector_that_cannot_look_again_says_so(photo: RgbImage) -> None:
    pytest.importorskip("mediapipe.python.solutions.face_mesh", reason="mediapipe is not installed, or too new")
    with MediaPipeFaceMesh() as detector, HeadPoseEstimator(detector=detector) as other:
        assert len(other.predict(photo)) == 1
        with pytest.raises(ValueError, match="MediaPipeFaceMesh cannot look at a face again; use looks=1"):
            other.predict(photo, looks=2)


def test_a_detector_that_follows_faces_gives_one_look_unless_asked(photo: RgbImage) -> None:
    with FaceMeshOnnx(tracking=True) as detector, HeadPoseEstimator(detector=detector) as video:
        assert video.detect(photo)[0].looks is None
        again = video.detect(photo, 5)[0].looks
        assert again is not None
        assert len(again) == 4


def test_the_number_of_looks_is_judged_before_the_first_image(estimator: HeadPoseEstimator) -> None:
    with pytest.raises(ValueError, match="looks: expected 1, 2, 3, 5 or 11; received 4"):
        estimator.predict(np.zeros((64, 64, 3), dtype=np.uint8), looks=4)


def test_a_face_without_image_cannot_be_looked_at_again(finder: FaceMeshOnnx, photo: RgbImage) -> None:
    (face,) = finder.detect(photo)
    with pytest.raises(ValueError, match="has no image"):
        finder.look_again([replace(face, image=None)], further_looks(2))


def test_faces_that_cannot_be_looked_at_again_stay_as_they_are_and_where_they_are(
    finder: FaceMeshOnnx, photo: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head without landmarks, landmarks of a user without their image; and each look that a face has is kept."""
    (face,) = finder.detect(photo)
    moved = np.roll(photo, 8, axis=1)
    faces = [Face(photo, face.box, None, "box"), face, Face.from_points(face.landmarks), *finder.detect(moved)]
    head, first, alone, second = seen_again(finder, faces, further_looks(3))
    assert (head, alone) == (faces[0], faces[2])
    assert [one.image for one in (first, second)] == [photo, faces[3].image]
    for one, before in ((first, face), (second, faces[3])):
        assert one.looks is not None
        assert len(one.looks) == 2
        assert np.median(np.abs(one.looks - before.landmarks)) < 4
    (again,) = seen_again(finder, [first], further_looks(2))
    assert again.looks is not None
    np.testing.assert_array_equal(again.looks[:2], first.looks)
    assert len(again.looks) == 3
    # Nobody is asked where there is nothing to be seen.
    monkeypatch.setattr(finder, "look_again", None)
    assert seen_again(finder, [faces[0], faces[2]], further_looks(3)) == [faces[0], faces[2]]
    assert seen_again(finder, faces, ()) == faces


@pytest.mark.parametrize("looks", [1, 11])
@pytest.mark.parametrize("shape", [(1, 640), (640, 1), (1, 1), (2, 20_000), (300, 400)])
def test_images_without_a_face_have_no_pose(estimator: HeadPoseEstimator, shape: tuple[int, int], looks: int) -> None:
    """One row, one column, 20,000 pixels, one colour."""
    for colour in (0, 128, 255):
        assert estimator.predict(np.full((*shape, 3), colour, dtype=np.uint8), looks=looks) == []


def test_a_face_half_outside_of_the_image_is_looked_at(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    (whole,) = estimator.detect(photo, 1)
    left, top, right, bottom = (round(edge) for edge in whole.box)
    half = np.ascontiguousarray(photo[top - 40 : bottom, (left + right) // 2 :])
    outside = Face.from_points(whole.landmarks - [(left + right) // 2, top - 40, 0], image=half)
    far = Face.from_points(whole.landmarks - [2000, 2000, 0], image=half)
    for face in estimator.detector.look_again([outside, far], further_looks(11)):  # type: ignore[attr-defined]
        assert face.looks.shape[1:] == (468, 3)
        assert np.isfinite(face.looks).all()


def test_a_hundred_faces_are_looked_at_as_far_as_they_are_found(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    import cv2

    tile = np.asarray(cv2.resize(photo[0:260, 100:360], (100, 100)), dtype=np.uint8)
    poses = estimator.predict(np.tile(tile, (10, 10, 1)), looks=2)
    assert 0 < len(poses) <= 100
    assert all(pose.sigma is not None for pose in poses)


def test_the_command_line_takes_looks(tmp_path, photo: RgbImage, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert main(["predict", str(tmp_path / "photo.png"), "--looks", "5", "--csv"]) == 0
    assert capsys.readouterr().out.count("face") > 0
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(tmp_path / "photo.png"), "--looks", "4"])
    assert "choose from 1, 2, 3, 5, 11" in capsys.readouterr().err


def test_a_face_in_the_turned_image_keeps_its_place_and_pose(
    estimator: HeadPoseEstimator, finder: FaceMeshOnnx, photo: RgbImage
) -> None:
    """What is tried where nothing is found upright; a head that leans by 75 degrees to image left."""
    import cv2

    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 75.0, 1.0)
    leaning = np.asarray(cv2.warpAffine(photo, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8)
    face, *_ = finder.detect_turned(leaning)
    (upright,), (pose,) = estimator.predict(photo, looks=1), estimator.poses([face])
    assert face.found_by == "turned"
    # One look at a head that still leans by 45 degrees: exact to about 12; the wrong way round would be 150.
    assert abs(pose.roll - (upright.roll - 75.0)) < 20.0
    expected = turn @ [*upright.landmarks[1, :2], 1.0]
    assert np.linalg.norm(face.landmarks[1, :2] - expected) < 0.1 * np.ptp(upright.landmarks[:, 0])
    assert finder.detect_turned(np.full((90, 60, 3), 90, dtype=np.uint8)) == []


@pytest.mark.parametrize(("looks", "found_by"), [(None, {"turned"}), (2, {"turned"}), (1, set())])
def test_an_image_without_an_upright_face_is_turned_where_there_is_time_for_further_looks(
    estimator: HeadPoseEstimator,
    photo: RgbImage,
    monkeypatch: pytest.MonkeyPatch,
    looks: int | None,
    found_by: set[str],
) -> None:
    monkeypatch.setattr(estimator.detector, "detect_batch", lambda images: [[] for _ in images])
    assert {face.found_by for face in estimator.detect(photo, looks)} == found_by
    assert bool(estimator.predict(photo, looks=looks)) == bool(found_by)


def test_squares_around_a_box_show_its_face_where_it_is(finder: FaceMeshOnnx, photo: RgbImage) -> None:
    """Every square shows this face: all of them must put it at the same place."""
    (face,) = finder.detect(photo)
    found = finder._in_squares(photo, face.box)
    assert found is not None
    assert found.looks is not None
    assert len(found.looks) > 10
    points = np.concatenate([found.landmarks[None], found.looks])
    apart = np.median(np.linalg.norm((points - face.landmarks)[..., :2], axis=-1), axis=1)
    # A square that was mirrored or turned back the wrong way would lie tens of pixels off.
    assert apart.max() < 0.08 * np.ptp(face.landmarks[:, 0])
    assert finder._in_squares(np.full((300, 300, 3), 90, dtype=np.uint8), (50.0, 50.0, 150.0, 150.0)) is None


def test_what_is_not_known_of_estimates_is_written_apart() -> None:
    """Answers to some of the faces are written into these arrays."""
    nothing, other = (Estimates.of_rotations(np.tile(np.eye(3), (2, 1, 1))) for _ in range(2))
    assert np.isnan(nothing.sigma).all()
    assert np.isnan(nothing.score).all()
    nothing.covariance[:] = np.radians(5.0) ** 2 * np.eye(3)
    np.testing.assert_allclose(nothing.sigma, 5.0)
    np.testing.assert_allclose(nothing.score, 0.5)
    assert np.isnan(other.covariance).all()
