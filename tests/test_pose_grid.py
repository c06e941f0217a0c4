"""Names, order and completeness of rendered folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlml_hpe.pose_grid import (
    PoseGrid,
    RenderFolderError,
    grid_images,
    identity_folders,
    image_stem,
    other_folders,
    parse_image_name,
)

GRID = PoseGrid((-10.0, 0.0, 10.0), (-5.0, 5.0), (0.0,))
hundredths = st.integers(-9900, 9900).map(lambda n: n / 100)


@given(identity=st.integers(0, 9999), yaw=hundredths, pitch=hundredths, roll=hundredths)
def test_names_survive_a_round_trip(identity: int, yaw: float, pitch: float, roll: float) -> None:
    assert parse_image_name(image_stem(identity, yaw, pitch, roll) + ".jpg") == (identity, (yaw, pitch, roll))


def test_names_are_those_the_authors_use() -> None:
    assert image_stem(1, 30.0, 20.0, -10.0) == "ID1_(30_20_-10)"
    assert image_stem(1, -0.0, 0.0, 0.0) == "ID1_(0_0_0)"


@pytest.mark.parametrize("name", ["ID1_(30_20).jpg", "1_(0_0_0).jpg", "ID1_(a_b_c).jpg", "ID1_(0_0_0).txt", ""])
def test_other_names_do_not_parse(name: str) -> None:
    with pytest.raises(RenderFolderError, match="does not parse"):
        parse_image_name(name)


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    folder = tmp_path / "ID1"
    folder.mkdir()
    for pose in GRID.poses():
        (folder / f"{image_stem(1, *pose)}.jpg").touch()
    return folder


def test_images_come_in_grid_order(complete: Path) -> None:
    (complete / ".DS_Store").touch()  # as macOS leaves it behind; the whole person was refused for it
    assert [parse_image_name(p.name)[1] for p in grid_images(complete, 1, GRID)] == GRID.poses()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "ID1_(0_5_0).jpg").unlink(), "1 of 6 poses are missing, first ID1_(0_5_0)"),
        (lambda f: (f / "ID1_(0_5_0).png").touch(), "repeats the pose of"),
        (lambda f: (f / "ID1_(0_7_0).jpg").touch(), "ID1_(0_7_0).jpg is off the grid"),
        (lambda f: (f / "holiday.jpg").touch(), "'holiday.jpg' does not parse"),
        (lambda f: (f / "ID2_(0_5_0).jpg").touch(), "belongs to ID2"),
    ],
)
def test_a_folder_that_is_not_the_grid_is_refused(complete: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    change(complete)
    with pytest.raises(RenderFolderError) as caught:
        grid_images(complete, 1, GRID)
    assert message in str(caught.value)


def test_people_are_found_in_both_layouts(tmp_path: Path) -> None:
    for name in ("ID10", "2", "notes"):
        (tmp_path / name).mkdir()
    assert [n for n, _ in identity_folders(tmp_path)] == [2, 10]
    (tmp_path / "ID2").mkdir()
    with pytest.raises(RenderFolderError, match="both stand for identity 2"):
        identity_folders(tmp_path)


def test_folders_that_are_no_persons_are_told(tmp_path: Path) -> None:
    for name in ("ID1", "id3", "ID_5", "ID4 (copy)", "06", ".cache"):
        (tmp_path / name).mkdir()
    assert [n for n, _ in identity_folders(tmp_path)] == [1, 6]
    assert other_folders(tmp_path) == ["ID4 (copy)", "ID_5", "id3"]


def test_a_root_at_the_wrong_level_is_named(tmp_path: Path) -> None:
    with pytest.raises(RenderFolderError, match="too high or low"):
        identity_folders(tmp_path)


def test_axes_may_be_arrays_and_lists() -> None:
    """An array stopped with numpy's word of ambiguous truth, and a grid of lists equalled no other grid."""
    grid = PoseGrid(np.arange(-10, 11, 10), [-5, 5], np.zeros(1))  # type: ignore[arg-type]
    assert grid == GRID
    assert hash(grid) == hash(GRID)
    assert json.dumps(grid.as_dict()) == json.dumps(GRID.as_dict())


def test_axes_must_ascend() -> None:
    with pytest.raises(ValueError, match="ascending"):
        PoseGrid((10.0, 0.0), (0.0,), (0.0,))


@pytest.mark.parametrize("axis", [(float("nan"),), (0.0, float("nan"), -5.0), (0.0, float("inf"))])
def test_axes_are_finite(axis: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="grid axis pitch: expected ascending finite angles"):
        PoseGrid((0.0,), axis, (0.0,))
