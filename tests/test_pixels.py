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


def exact(image: RgbImage, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Linear interpolation without any rounding, and where all that it reads lies in the image."""
    column, row = np.meshgrid(*map(np.arange, SIZE))
    x, y = np.moveaxis(np.stack([column, row, np.ones_like(row)], -1) @ matrix.T, -1, 0)
    inside = (x > 1) & (y > 1) & (x < image.shape[1] - 2) & (y < image.shape[0] - 2)
    left, top = (np.where(inside, np.floor(axis), 1).astype(int) for axis in (x, y))
    right, down = (x - left)[..., None], (y - top)[..., None]
    rows = [(1 - right) * image[below, left] + right * image[below, left + 1] for below in (top, top + 1)]
    return np.asarray((1 - down) * rows[0] + down * rows[1]), inside


@pytest.mark.skipif(not pixels._ROUNDS, reason="this OpenCV does not round positions")
@pytest.mark.parametrize("border", [cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT])
def test_bytes_are_those_of_opencv_4(photo: RgbImage, border: int) -> None:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for matrix in matrices(60):
        affine = cv2.warpAffine(photo, matrix, SIZE, flags=flags, borderMode=border)
        np.testing.assert_array_equal(warp(photo, matrix, SIZE, border), affine)
        projected = cv2.warpPerspective(photo, np.vstack([matrix, [0, 0, 1]]), SIZE, flags=flags, borderMode=border)
        np.testing.assert_array_equal(warp(photo, matrix, SIZE, border, once=True), projected)


@pytest.mark.parametrize("once", [False, True])
def test_values_lie_linearly_between_pixels(photo: RgbImage, once: bool) -> None:
    smooth = cv2.GaussianBlur(photo, (0, 0), 3)
    steepest = max(np.abs(np.diff(smooth.astype(float), axis=axis)).max() for axis in (0, 1))
    compared = 0
    for matrix in matrices(60):
        expected, inside = exact(smooth, matrix)
        found = warp(smooth, matrix, SIZE, cv2.BORDER_REPLICATE, once)
        # Half a grey level, and half a step or a little more in each axis.
        assert np.abs(found - expected)[inside].max(initial=0) <= 0.5 + 2 * steepest * 0.55 / 32
        compared += int(inside.sum())
    assert compared > 100_000


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
