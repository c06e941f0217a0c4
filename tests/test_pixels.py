"""Pixels read at other places: what OpenCV 4 gives, by whatever OpenCV is installed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from nlml_hpe import pixels
from nlml_hpe.files.images import RgbImage
from nlml_hpe.pixels import warp

SIZE = (120, 90)


@pytest.fixture(autouse=True, params=[False, True], ids=["by our positions", "by OpenCV's own"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the same bytes; OpenCV's own where it is one that rounds."""
    if request.param and not pixels._ROUNDS:
        pytest.skip(f"OpenCV {cv2.__version__} does not round positions")
    monkeypatch.setattr(pixels, "_ROUNDS", request.param)


def matrices(count: int) -> list[NDArray[np.float64]]:
    """Turns, sizes and places, some beyond the image; a third with many positions half-way between two steps."""
    rng = np.random.default_rng(0)
    turn, scale = rng.uniform(-3, 3, count), rng.uniform(0.3, 4, count)
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    x, y = rng.uniform(-100, 600, (2, count))
    made = np.moveaxis(np.array([[cos, -sin, x], [sin, cos, y]]), -1, 0)
    made[::3] = np.rint(64 * made[::3]) / 64
    return list(made)


def expected(image: RgbImage, matrix: NDArray[np.float64], once: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The warp in whole numbers, as OpenCV 4 computes it, and where all that it reads lies in the image."""
    column, row = np.meshgrid(*map(np.arange, SIZE))
    values = []
    for of_column, of_row, offset in matrix:
        along, down = of_column * column, of_row * row + offset
        fine = np.rint(1024 * along) + np.rint(1024 * down)
        values.append((np.rint(32 * (along + down)) if once else np.floor((fine + 16) / 32)).astype(np.int64))
    x, y = values
    left, top = x >> 5, y >> 5
    inside = (left >= 0) & (top >= 0) & (left < image.shape[1] - 1) & (top < image.shape[0] - 1)
    left, top = np.where(inside, left, 0), np.where(inside, top, 0)
    right, low = (x & 31)[..., None], (y & 31)[..., None]
    wide = image.astype(np.int64)
    above = (32 - right) * wide[top, left] + right * wide[top, left + 1]
    below = (32 - right) * wide[top + 1, left] + right * wide[top + 1, left + 1]
    return ((32 - low) * above + low * below + 512) >> 10, inside


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("far", [0, 7_000, 32_000])
def test_values_are_those_of_whole_numbers(photo: RgbImage, once: bool, far: int) -> None:
    """In the middle of an image, and at the end of one that is as wide as OpenCV can read."""
    image = np.zeros((256, far + 512, 3), np.uint8)
    image[:, far:] = photo[:256]
    compared = 0
    for matrix in matrices(60):
        matrix[0, 2] += far
        found = warp(image, matrix, SIZE, cv2.BORDER_REPLICATE, once)
        values, inside = expected(image, matrix, once)
        np.testing.assert_array_equal(found[inside], values[inside])
        compared += int(inside.sum())
    assert compared > 50_000


@pytest.mark.skipif(not pixels._ROUNDS, reason="this OpenCV does not round positions")
@pytest.mark.parametrize("border", [cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT])
@pytest.mark.parametrize("once", [False, True])
def test_beyond_the_image_both_ways_have_the_same_bytes(
    photo: RgbImage, border: int, once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for matrix in matrices(60):
        found = []
        for own in (False, True):
            monkeypatch.setattr(pixels, "_ROUNDS", own)
            found.append(warp(photo, matrix, SIZE, border, once))
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("far", [4e4, 1e6])
@pytest.mark.parametrize("once", [False, True])
def test_far_beyond_the_image_its_border_goes_on(photo: RgbImage, far: float, once: bool) -> None:
    for x, y, corner in ((far, far, photo[-1, -1]), (-far, far, photo[-1, 0]), (far, -far, photo[0, -1])):
        matrix = np.array([[1.0, 0, x], [0, 1, y]])
        assert (warp(photo, matrix, (8, 8), cv2.BORDER_REPLICATE, once) == corner).all()


def test_a_place_for_the_result_is_filled(photo: RgbImage) -> None:
    matrix = matrices(1)[0]
    made = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    warp(photo, matrix, SIZE, cv2.BORDER_REPLICATE, made=made)
    np.testing.assert_array_equal(made, warp(photo, matrix, SIZE, cv2.BORDER_REPLICATE))
