"""The shader of crops on shapes whose light is known by hand: a wall, a plate before it, a sheet seen from behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from renderer.camera import Camera
from renderer.crop_shading import Lamps, light_crop
from renderer.rasterizers import get_rasterizer

FloatArray = NDArray[np.float32]
_PX = 96
_WALL_MM = -600.0
_CAMERA = Camera(focal=200.0, centre=(_PX / 2, _PX / 2), distance=0.0)
_SKY = 7.0
"""What the image shows where nothing is."""


def lamps(**changed: object) -> Lamps:
    """White light from straight ahead, of which each test changes something."""
    ahead = np.array([0, 0, 1], dtype=np.float32)
    plain = Lamps(ahead, ahead, 0.2, 0.5, 0.0, np.ones(3, dtype=np.float32), 0.0, 10.0, 0.0)
    return plain._replace(**changed)


def direction(*towards: float) -> FloatArray:
    return (np.array(towards) / np.linalg.norm(towards)).astype(np.float32)


def square(half: float, depth: float, shift: float = 0.0) -> FloatArray:
    """Corners (4, 3) in mm of a square that faces the camera."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    return np.column_stack([corners[:, 0] + shift, corners[:, 1], np.full(4, depth)]).astype(np.float32)


def lit(pieces: list[FloatArray], light: Lamps, facing: Sequence[float] = (0, 0, 1)) -> FloatArray:
    """The image of squares of one grey."""
    vertices = np.concatenate(pieces)
    corners = np.array([(0, 1, 2), (0, 2, 3)])
    faces = np.concatenate([corners + 4 * number for number in range(len(pieces))]).astype(np.int32)
    normals = np.tile(direction(*facing), (len(vertices), 1))
    fragments = get_rasterizer("numba_zbuffer")(vertices, faces, _CAMERA, (_PX, _PX))
    image = np.full((_PX, _PX, 3), _SKY, dtype=np.float32)
    texture = np.full((8, 8, 3), 100, dtype=np.uint8)
    light_crop(fragments, vertices, normals, faces, np.full((len(vertices), 2), 0.5, np.float32), texture, light, image)
    return image


def test_a_wall_is_as_bright_as_its_lamps_say() -> None:
    main, fill = direction(1, 0, 1), direction(0, 3, 4)
    warm = np.array([1.1, 1.0, 0.9], dtype=np.float32)
    image = lit([square(100, _WALL_MM)], lamps(direction=main, fill=fill, second=0.25, color=warm))
    expected = 100 * (0.2 + 0.5 * np.sqrt(0.5) * warm + 0.25 * 0.8)
    np.testing.assert_allclose(image[_PX // 2, _PX // 2], expected, rtol=1e-6)
    np.testing.assert_array_equal(image[0, 0], _SKY)  # the wall ends before the image does


def test_colours_and_normals_lie_between_those_of_the_corners() -> None:
    """A bulging wall in ambient light and a lamp ahead, whose texture grows evenly to the right and downwards."""
    half, texture = 100.0, np.indices((8, 8)).transpose(1, 2, 0) @ [[20.0, 10.0, 3.0], [5.0, 9.0, 17.0]]
    vertices = square(half, _WALL_MM)
    uv = ((vertices[:, :2] * [1, -1] / half + 1) / 2).astype(np.float32)
    normals = (vertices / half * [0.6, 0.3, 0] + [0, 0, 0.8]).astype(np.float32)
    faces = np.array([(0, 1, 2), (0, 2, 3)], dtype=np.int32)
    fragments = get_rasterizer("numba_zbuffer")(vertices, faces, _CAMERA, (_PX, _PX))
    image = np.full((_PX, _PX, 3), _SKY, dtype=np.float32)
    light_crop(fragments, vertices, normals, faces, uv, texture.astype(np.uint8), lamps(), image)
    row, column = np.indices((_PX, _PX)) + 0.5
    x, y = (column - _PX / 2) * -_WALL_MM / 200.0, (_PX / 2 - row) * -_WALL_MM / 200.0
    inside = np.maximum(np.abs(x), np.abs(y)) < 0.85 * half  # half a pixel of the texture and more from its border
    place = np.stack([(1 - y / half) / 2, (1 + x / half) / 2], axis=-1) * 8 - 0.5
    colour = place @ [[20.0, 10.0, 3.0], [5.0, 9.0, 17.0]]
    facing = 0.8 / np.sqrt((0.6 * x / half) ** 2 + (0.3 * y / half) ** 2 + 0.8**2)
    expected = colour * (0.2 + 0.5 * facing)[..., None]
    np.testing.assert_allclose(image[inside], expected[inside], rtol=1e-4, atol=1e-2)
    assert inside.sum() > 2000


def test_gloss_is_what_a_lamp_near_the_viewer_gives() -> None:
    main = direction(0.6, 0, 0.8)
    half_way = direction(0.6, 0, 1.8)
    bare = lit([square(100, _WALL_MM)], lamps(direction=main))
    glossy = lit([square(100, _WALL_MM)], lamps(direction=main, gloss=0.2, sharp=12.0))
    shine = (glossy - bare)[_PX // 2, _PX // 2]
    np.testing.assert_allclose(shine, 0.2 * 255 * float(half_way[2]) ** 12, rtol=1e-4)


def test_a_sheet_is_lit_from_behind_as_from_before() -> None:
    light = lamps(direction=direction(1, 1, 2), gloss=0.1)
    np.testing.assert_array_equal(lit([square(100, _WALL_MM)], light), lit([square(100, _WALL_MM)], light, (0, 0, -1)))


@pytest.mark.parametrize(("away", "side"), [(0.0, 1), (0.1, 1), (0.3, -1)])
def test_a_rim_that_faces_away_a_little_is_no_sheet(away: float, side: int) -> None:
    """Between the corners where a head ends normals face away from the camera a little."""
    facing, main = direction(1, 0, -away), direction(1, 0, 1)
    image = lit([square(100, _WALL_MM)], lamps(direction=main), facing)
    assert image[_PX // 2, _PX // 2, 0] == pytest.approx(100 * (0.2 + 0.5 * max(side * (main @ facing), 0)), rel=1e-5)


def test_nothing_is_brighter_than_white() -> None:
    assert lit([square(100, _WALL_MM)], lamps(ambient=3.0)).max() == 255


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_plate_takes_that_share_of_the_lamp_from_the_wall_behind_it(share: float) -> None:
    # The lamp stands to the image's right, so that the plate, 150 mm before the wall, darkens it 150 mm further left.
    pieces = [square(140, _WALL_MM), square(20, _WALL_MM + 150, shift=75)]
    light = lamps(direction=direction(1, 0, 1), shadow=share, gloss=0.2, color=np.float32([1, 0.5, 1]))
    image = lit(pieces, light)
    x, y = (_CAMERA.project(np.array([(-75.0, 0, _WALL_MM), (0, 90, _WALL_MM)], dtype=np.float32))).astype(int).T
    dark, bright = image[y[0], x[0]], image[y[1], x[1]]
    shine = 0.2 * 255 * float(direction(1, 0, 1 + np.sqrt(2))[2]) ** light.sharp
    of_lamp = (100 * 0.5 * np.sqrt(0.5) + shine) * light.color
    np.testing.assert_allclose(bright, 20 + of_lamp, rtol=1e-5)
    np.testing.assert_allclose(dark, 20 + of_lamp * (1 - share), rtol=1e-5)


def test_a_plate_30_mm_before_a_wall_darkens_it_and_the_wall_itself_does_not() -> None:
    pieces = [square(140, _WALL_MM), square(20, _WALL_MM + 30, shift=15)]
    image = lit(pieces, lamps(direction=direction(1, 0, 2), shadow=1.0))[..., 0]
    x, y = (_CAMERA.project(np.array([(-15.0, 0, _WALL_MM)], dtype=np.float32))[0]).astype(int)
    bright = 100 * (0.2 + 0.5 * 2 / np.sqrt(5))
    assert image[y, x] == pytest.approx(20, rel=1e-5)
    away_from_it = np.delete(image[10:-10], np.s_[25:65], axis=0)
    np.testing.assert_allclose(away_from_it[away_from_it != _SKY], bright, rtol=1e-5)


def test_a_wall_that_the_lamp_does_not_reach_has_ambient_light_alone() -> None:
    image = lit([square(100, _WALL_MM)], lamps(direction=direction(1, 0, -0.5), shadow=1.0))
    assert image[_PX // 2, _PX // 2, 0] == pytest.approx(20, rel=1e-6)
