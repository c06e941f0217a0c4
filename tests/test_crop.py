"""The crop of a head: one square, whatever cuts it, and what a turn or a mirror does to the rotation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nlml_hpe.face import box_of
from nlml_hpe.image_networks.crop import crop, image_from_crop, sampling, square_around, turned
from nlml_hpe.rotation import Angles, angles_from_rotation, mirrored, rotation_from_angles


def dot(size: int, x: float, y: float) -> np.ndarray:
    """A black image with one soft white dot."""
    row, column = np.mgrid[0:size, 0:size] + 0.5
    value = 255 * np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 4.0**2))
    return np.repeat(value[..., None], 3, axis=2).astype(np.uint8)


def place_of_dot(image: np.ndarray) -> np.ndarray:
    row, column = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] + 0.5
    weight = image[..., 0].astype(float)
    return np.array([(column * weight).sum(), (row * weight).sum()]) / weight.sum()


def test_the_square_is_the_boxes_longer_side_and_a_share_more() -> None:
    np.testing.assert_allclose(square_around([[0, 10, 40, 30], [5, 5, 15, 45]], 1.5), [[20, 20, 60], [10, 25, 60]])


@pytest.mark.parametrize("box", [(10, 10, 10, 40), (0, 0, np.nan, 5), (30, 0, 10, 5)])
def test_a_box_without_a_size_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="without a size"):
        square_around(box)
    with pytest.raises(ValueError, match="left, top, right, bottom"):
        square_around(box[:3])


@pytest.mark.parametrize("size", [32, 64, 160])
@pytest.mark.parametrize("turn", [0.0, 25.0, -110.0])
def test_what_is_cut_lies_where_the_map_says(size: int, turn: float) -> None:
    box = (70.0, 60.0, 130.0, 150.0)
    image = dot(220, 120.0, 90.0)
    matrix = image_from_crop(square_around(box), size, turn)
    in_crop = np.linalg.solve(matrix[:, :2], np.array([120.0, 90.0]) - matrix[:, 2])
    # The dot's middle is known to a tenth of a pixel of the finer of the two.
    np.testing.assert_allclose(place_of_dot(crop(image, box, size, turn_deg=turn)), in_crop, atol=0.15)


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, size=(48, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop(image, (8, 8, 40, 40), 48), image)


def test_a_smaller_crop_averages_what_it_shows() -> None:
    """A chequerboard of single pixels is grey from afar; skipped pixels would leave it black and white."""
    board = np.indices((96, 96)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    np.testing.assert_allclose(crop(image, (16, 16, 80, 80), 24).astype(int), 127, atol=2)


@pytest.mark.parametrize("turn", [0.0, 12.0])
@pytest.mark.parametrize(("size", "side"), [(64, 430.0), (70, 300.0), (224, 700.0), (16, 33.0)])
def test_a_crop_that_is_cut_in_stripes_is_the_one_that_is_cut_whole(size: int, side: float, turn: float) -> None:
    """Byte by byte; the last stripe of 70 rows is a shorter one."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    box = (300 - side / 2, 200 - side / 2, 300 + side / 2, 200 + side / 2)
    matrix, finer = sampling(square_around(box, 1.0), size, turn)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    wide = cv2.warpAffine(image, matrix, (size * finer, size * finer), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    whole = cv2.resize(wide, (size, size), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(crop(image, box, size, 1.0, turn), whole)


def test_beyond_the_image_its_border_goes_on() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, -1] = 200
    assert (crop(image, (30, 10, 60, 30), 16)[:, -4:] == 200).all()


def test_a_turn_of_the_image_is_a_roll_of_a_frontal_head() -> None:
    """Roll is positive where the top of the head goes to the image's right; the turn goes the other way."""
    angles = angles_from_rotation(turned(np.eye(3), 20.0)).columns()
    np.testing.assert_allclose(angles, [0, 0, -20], atol=1e-9)


def test_turn_and_mirror_are_rotations_that_undo_themselves() -> None:
    rotation = rotation_from_angles(Angles.from_columns([[40, -20, 60], [-95, 80, 5]]))
    np.testing.assert_allclose(turned(turned(rotation, [30, 10]), [-30, -10]), rotation, atol=1e-12)
    np.testing.assert_allclose(mirrored(mirrored(rotation)), rotation)
    np.testing.assert_allclose(np.linalg.det(mirrored(rotation)), 1)
    flipped = angles_from_rotation(mirrored(rotation[0])).columns()
    np.testing.assert_allclose(flipped, [-40, -20, -60], atol=1e-9)


def test_the_box_of_points_ignores_depth() -> None:
    assert box_of([[1, 5, 900], [4, 2, -900]]) == (1, 2, 4, 5)
