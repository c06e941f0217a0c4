"""The cone of doubt: how often it holds, which way it is wide, and how it is drawn; axes and cube beside it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from nlml_hpe.face import HeadPose
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import (
    IMAGE_FROM_CAMERA,
    Angles,
    covariance_from_sigma,
    nose_cone,
    rotation_from_angles,
    rotation_from_vector,
)
from nlml_hpe.view.draw import AXIS_COLORS, draw_axes, draw_cone, draw_cube, draw_pose, draw_poses, draw_text


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> NDArray[np.float64]:
    return rotation_from_angles(Angles.from_columns((yaw, pitch, roll)))


@pytest.mark.parametrize("yaw", [0.0, 40.0, 90.0, 170.0])
@pytest.mark.parametrize("content", [0.5, 0.95])
def test_the_cone_holds_as_often_as_it_says(yaw: float, content: float) -> None:
    rng = np.random.default_rng(0)
    spread = np.radians([2.0, 6.0, 4.0])
    mixed = rotation(20, 30, 40) @ np.diag(spread)
    errors = rng.standard_normal((20_000, 3)) @ mixed.T
    pose = rotation(yaw, 10, -20)
    noses = (rotation_from_vector(errors) @ pose)[:, :, 2]
    edge = nose_cone(pose, mixed @ mixed.T, content, 360)
    # Seen along the nose the cone is an ellipse, and a direction within it is nearer than the edge on that side.
    flat = [points @ pose[:, :2] for points in (noses, edge)]
    bearing = [np.arctan2(points[:, 1], points[:, 0]) for points in flat]
    order = np.argsort(bearing[1])
    reach = np.interp(bearing[0], bearing[1][order], np.linalg.norm(flat[1], axis=1)[order], period=2 * np.pi)
    # 20,000 draws are within 0.5% of a share; the curved sphere adds as much again.
    assert (np.linalg.norm(flat[0], axis=1) < reach).mean() == pytest.approx(content, abs=0.012)


def test_the_cone_is_wide_where_the_doubt_is() -> None:
    about_y = np.diag(np.radians([1.0, 10.0, 1.0]) ** 2)
    edge = nose_cone(np.eye(3), about_y)
    assert np.ptp(edge[:, 0]) > 8 * np.ptp(edge[:, 1])
    # About the nose itself nothing moves it.
    np.testing.assert_allclose(nose_cone(np.eye(3), np.diag([0, 0, 1.0])), np.tile([0.0, 0, 1], (48, 1)), atol=1e-9)
    # Doubt about one angle alone has rounded variances a little below nought in the others.
    for yaw in range(-80, 90, 10):
        cone = nose_cone(rotation(yaw, 10, -20), covariance_from_sigma(rotation(yaw, 10, -20), [3.0, 0.0, 0.0]))
        np.testing.assert_allclose(np.linalg.norm(cone, axis=1), 1)


def test_doubt_beyond_all_measure_is_drawn_too() -> None:
    edge = nose_cone(rotation(30), 100 * np.eye(3))
    np.testing.assert_allclose(edge, np.tile(-rotation(30)[:, 2], (48, 1)), atol=1e-9)
    drawn = draw_cone(np.full((50, 50, 3), 128, dtype=np.uint8), rotation(30), 100 * np.eye(3), (25, 25), 20)
    assert drawn.shape == (50, 50, 3)


@pytest.mark.parametrize(("covariance", "content"), [(np.full((3, 3), np.nan), 0.95), (np.eye(3), 1.0)])
def test_what_has_no_cone_is_said(covariance: NDArray[np.float64], content: float) -> None:
    with pytest.raises(ValueError, match=r"expected a (covariance|share)"):
        nose_cone(np.eye(3), covariance, content)


def test_a_pose_without_error_bars_is_drawn_without_a_cone() -> None:
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    known = HeadPose(
        *(40.0, 0.0, 0.0, rotation(40), (9.0, 9.0, 9.0), True, np.empty((0, 3)), (30.0, 30.0, 70.0, 70.0), 0.3),
        covariance=np.radians(9.0) ** 2 * np.eye(3),
    )
    unknown = HeadPose(*(40.0, 0.0, 0.0, rotation(40), None, True, np.empty((0, 3)), known.box, None))
    assert (draw_pose(grey, unknown, cone=True) == draw_pose(grey, unknown)).all()
    plain, with_cone = draw_poses(grey, [known]), draw_poses(grey, [known], cone=True)
    changed = (plain != with_cone).any(axis=-1)
    # To image left, where the nose points, and the colour of the nose's axis.
    assert changed[:, :50].sum() > 10 * changed[:, 52:].sum()
    blue = np.argmax(AXIS_COLORS[2])
    assert (with_cone[changed][:, blue] >= plain[changed][:, blue]).mean() > 0.9


@pytest.mark.parametrize(("side", "left"), [(450, 330.0), (450, -20.0), (200, 80.0), (100, -10.0)])
def test_angles_are_not_cut_off_by_the_pictures_edge(side: int, left: float) -> None:
    """Of a head at the right edge they were."""

    def letters(side: int, left: float) -> int:
        box = (left, 20.0, left + 110.0, 140.0)
        pose = HeadPose(12.0, -13.0, 8.0, np.eye(3), (3.0, 4.0, 2.0), True, np.empty((0, 3)), box, None)
        drawn = draw_pose(np.full((side, side, 3), 128, dtype=np.uint8), pose)
        white = (drawn > 180).all(axis=-1)
        assert not white[:, [0, -1]].any()
        return int(white.sum())

    expected = letters(450, 100.0)
    assert letters(side, left) == expected if side == 450 else 0 < letters(side, left) < expected


def posed(left: float, top: float, side: float, yaw: float = 40.0) -> HeadPose:
    """A head that looks to image left by ``yaw`` degrees, in a square box."""
    box = (left, top, left + side, top + side)
    return HeadPose(*(yaw, -0.4, 0.3, rotation(yaw), (8.0, 8.0, 8.0), True, np.empty((0, 3)), box, 0.3))


def white(image: RgbImage) -> NDArray[np.bool_]:
    return np.asarray((image > 240).all(axis=-1))


def texts(monkeypatch: pytest.MonkeyPatch, side: int, poses: list[HeadPose]) -> list[str]:
    """What is written on a picture of this many pixels, the last head's first."""
    written: list[str] = []
    monkeypatch.setattr("nlml_hpe.view.draw._put_text", lambda drawn, text, place, size: written.append(text))
    draw_poses(np.full((side, side, 3), 128, dtype=np.uint8), poses)
    return written


def test_angles_of_heads_side_by_side_do_not_lie_over_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of 180 pixels had four long texts, each over the next head's and its own text: none could be read."""
    beside = [posed(20.0 + 300 * number, 100.0, 180.0) for number in range(4)]
    assert texts(monkeypatch, 1200, beside) == ["+40 +0 +0"] * 4
    alone = "yaw +40 pitch +0 roll +0 (+-8)"
    assert texts(monkeypatch, 1200, beside[:1]) == [alone]
    # Of one below another each has room for its own, and where the other lies to the right or the left of the text.
    for left, others in ((20, (20, 600)), (20, (900, 250)), (500, (20, 250))):
        assert texts(monkeypatch, 1200, [posed(left, 100, 180), posed(*others, 180)]) == [alone] * 2


GREY = np.full((200, 200, 3), 128, dtype=np.uint8)
TINT = np.round(0.65 * GREY[0, 0] + 0.35 * np.array(AXIS_COLORS[2]))
"""Of a face of a cube that is filled, and of a cone, on grey."""


@pytest.mark.parametrize(("yaw", "x", "nearer"), [(-45.0, 120, 2), (135.0, 80, 0)])
def test_the_nearer_axis_is_drawn_over_the_farther_one(yaw: float, x: int, nearer: int) -> None:
    """Half way to the side both lie on one line: the nose is nearer, or of a head from behind its right side."""
    assert draw_axes(GREY, rotation(yaw), (100, 100), 80)[100, x].tolist() == list(AXIS_COLORS[nearer])


def test_the_filled_side_of_a_cube_is_the_face_and_from_behind_there_is_none() -> None:
    for yaw, pitch in ((35.0, 25.0), (-35.0, -25.0), (145.0, 25.0), (-145.0, -25.0)):
        drawn = draw_cube(GREY, rotation(yaw, pitch), (100, 100), 120)
        out = 60 * (IMAGE_FROM_CAMERA @ rotation(yaw, pitch))  # from the middle to those of three sides, as columns
        (fx, fy), (bx, by) = (np.rint(100 + sign * out[:2, 2]).astype(int) for sign in (1, -1))
        np.testing.assert_allclose(drawn[fy, fx], TINT if abs(yaw) < 90 else GREY[0, 0], atol=1)
        assert (drawn[by, bx] == 128).all() or abs(yaw) > 90
        # The middle of a side has no line through it, the middle of an edge its axis' colour.
        for first, second, along in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                x, y = np.rint(100 + signs[0] * out[:2, first] + signs[1] * out[:2, second]).astype(int)
                assert drawn[y, x].tolist() == list(AXIS_COLORS[along])


@pytest.mark.parametrize(("yaw", "pitch", "x"), [(35, 25, 115), (-35, 25, 85), (-35, -25, 115), (35, -25, 85)])
def test_the_nearer_edge_of_a_cube_is_drawn_over_the_farther_one(yaw: float, pitch: float, x: int) -> None:
    """Edges along x and y cross in two places; in the upper one that along y is nearer where the face looks up."""
    drawn = draw_cube(GREY, rotation(yaw, pitch), (100, 100), 120)
    upper, lower = (1, 0) if pitch > 0 else (0, 1)
    assert drawn[72, x].tolist() == list(AXIS_COLORS[upper])
    assert drawn[128, 200 - x].tolist() == list(AXIS_COLORS[lower])


@pytest.mark.parametrize(("yaw", "pitch", "x", "y"), [(0, 60, 100, 57), (0, -60, 100, 143), (60, 0, 57, 100)])
def test_the_cone_lies_where_the_nose_points_and_has_an_edge(yaw: float, pitch: float, x: int, y: int) -> None:
    drawn = draw_cone(GREY, rotation(yaw, pitch), np.radians(8) ** 2 * np.eye(3), (100, 100), 80)
    np.testing.assert_allclose(drawn[y, x], TINT, atol=1)
    # Its edge, which is stronger, goes around the nose's end.
    edge = np.argwhere(drawn[..., 2] > 195)
    end = 100 + 80 * (IMAGE_FROM_CAMERA @ rotation(yaw, pitch))[[1, 0], 2]
    away = np.linalg.norm(edge - end, axis=1)
    assert len(edge) > 20
    assert away.min() > 5
    assert away.max() < 40
    assert (drawn[100 - (y - 100), 100 - (x - 100)] == 128).all()


def test_a_drawing_that_the_picture_cuts_off_is_the_same_inside() -> None:
    wide = np.full((600, 600, 3), 128, dtype=np.uint8)
    covariance = np.radians(12) ** 2 * np.eye(3)
    for x, y in ((0, 0), (199, 5), (5, 199), (199, 199), (-90, 100), (100, 290)):
        for turned in (rotation(70), rotation(-70), rotation(0, 70), rotation(0, -70)):
            for inside, whole in (
                [draw_cone(image, turned, covariance, (x + by, y + by), 90) for image, by in ((GREY, 0), (wide, 200))],
                [draw_cube(image, turned, (x + by, y + by), 90) for image, by in ((GREY, 0), (wide, 200))],
            ):
                # OpenCV smooths a line otherwise where the picture ends.
                assert (inside != whole[200:400, 200:400]).any(axis=-1).sum() < 30


def test_a_pose_is_drawn_as_axes_from_the_middle_of_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    pose = posed(50, 60, 80)
    monkeypatch.setattr("nlml_hpe.view.draw._put_text", lambda *_: None)
    assert (draw_pose(GREY, pose) == draw_axes(GREY, pose.rotation, (90, 100), 0.7 * 80)).all()


def test_a_head_of_a_video_has_its_number_before_long_angles_and_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = [replace(posed(20.0 + 300 * number, 100.0, 180.0), track=number + 1) for number in range(2)]
    assert texts(monkeypatch, 1200, followed) == ["#2 +40 +0 +0", "#1 +40 +0 +0"]
    assert texts(monkeypatch, 1200, followed[:1]) == ["#1 yaw +40 pitch +0 roll +0 (+-8)"]


def test_short_angles_of_a_small_head_in_a_large_picture_are_not_smaller_than_it_needs() -> None:
    heights = []
    for side in (60, 240):
        beside = [posed(100.0 + 2 * number * side, 1000, side) for number in range(3)]
        rows = np.flatnonzero(white(draw_poses(np.full((3000, 4000, 3), 128, dtype=np.uint8), beside)).any(axis=1))
        heights.append(np.ptp(rows))
    assert heights[1] > 2 * heights[0]


@pytest.mark.parametrize("side", [16, 32, 48, 64, 80, 100])
def test_no_number_is_cut_off_in_a_tiny_picture(side: int) -> None:
    """Of -18 and of +0 only -1 and + were seen: another answer. What has no room is not written."""
    drawn = draw_pose(np.full((side, side, 3), 128, dtype=np.uint8), posed(side / 4, side / 4, side / 2))
    assert not white(drawn)[:, [0, 1, -2, -1]].any()
    assert white(drawn).any() == (side >= 80)


def test_letters_in_a_large_picture_are_as_bold_as_in_a_small_one() -> None:
    """They were a pixel wide: in a photograph of twelve megapixels one could not read them."""
    shares = []
    for scale in (1, 8):
        picture = np.full((500 * scale, 500 * scale, 3), 128, dtype=np.uint8)
        drawn = white(draw_pose(picture, posed(200.0 * scale, 150.0 * scale, 90.0 * scale)))
        shares.append(drawn.sum() / scale**2)
    assert shares[1] > 0.6 * shares[0]


@pytest.mark.parametrize("side", [480, 1080, 2160])
def test_text_at_the_upper_edge_is_whole(side: int) -> None:
    """Of the milliseconds on a webcam's frame of 2160 rows the upper half was missing."""
    picture = np.full((side, side, 3), 128, dtype=np.uint8)
    at_edge, below = (white(draw_text(picture, "30 fps", (8, line))) for line in (22, 200))
    assert at_edge.sum() == below.sum()


def test_an_image_is_copied_once_for_all_its_heads() -> None:
    """It was copied two or three times for each: 24 megapixels with 30 heads took 1.4 s. What is drawn is the same."""
    image = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    before = image.copy()
    # One of them is cut off by the image.
    poses = [
        HeadPose(
            *(40.0, 0.0, 0.0, rotation(40), (8.0, 8.0, 8.0), True, np.empty((0, 3)), (x, 20.0, x + 60.0, 80.0), 0.3),
            covariance=np.radians(8.0) ** 2 * np.eye(3),
        )
        for x in (-20.0, 60.0, 180.0)
    ]
    tracemalloc.start()
    drawn = draw_poses(image, poses, cone=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * image.nbytes
    one_by_one = image
    for each in reversed(poses):
        one_by_one = draw_pose(one_by_one, each, cone=True)
    assert (drawn == one_by_one).all()
    assert (image == before).all()
    assert draw_poses(image, []) is not image
