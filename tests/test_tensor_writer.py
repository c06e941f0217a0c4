"""Space for a landmark tensor is taken before the first face is looked for; what is opened is what was written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.folders import partial_of, replace_folder
from nlml_hpe.files.manifests import read_manifest, write_manifest
from nlml_hpe.manifold import tensor_writer
from nlml_hpe.manifold.tensor import KIND, LandmarkTensor, misses
from nlml_hpe.manifold.tensor_writer import LandmarkTensorWriter, PersonRows
from nlml_hpe.pose_grid import PoseGrid

GRID = PoseGrid((-10.0, 0.0, 10.0), (0.0, 10.0), (0.0,))


@pytest.mark.parametrize("system", ["this one", "macOS"])
def test_space_is_really_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    if system == "macOS":
        monkeypatch.delattr(os, "posix_fallocate")
    people = list(range(1, 101))
    with LandmarkTensorWriter(tmp_path / "tensor", people, GRID, 1404, np.zeros((100, 0, 3)), "settings") as writer:
        assert writer.pending() == people
        path = partial_of(tmp_path / "tensor") / "landmarks.npy"
        assert path.stat().st_blocks * 512 >= path.stat().st_size > 100 * 6 * 1404 * 4
        landmarks = np.load(path)
        assert landmarks.shape == (100, 3, 2, 1, 1404)
        assert not landmarks.any()


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="this system does not list mapped files there")
def test_nothing_is_mapped_where_the_folder_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows renames no folder with a file in it that is open or mapped."""
    mapped = []

    def replace(partial: Path, folder: Path, kind: str) -> None:
        mapped.extend(line for line in Path("/proc/self/maps").read_text().splitlines() if str(partial) in line)
        replace_folder(partial, folder, kind)

    monkeypatch.setattr(tensor_writer, "replace_folder", replace)
    shape = GRID.shape
    rows = PersonRows(
        np.zeros((*shape, 1404)),
        np.ones(shape),
        np.zeros((1, 1404)),
        np.ones(1),
        np.zeros((*shape, 4)),
        np.zeros((1, 4)),
    )
    with LandmarkTensorWriter(tmp_path / "tensor", [7], GRID, 1404, np.zeros((1, 1, 3)), "settings") as writer:
        writer.put(7, rows)
        writer.finish({}, {}, "facemesh468/nose_eye_corners", {7: "key"})
    assert mapped == []


def test_a_tensor_of_other_angles_or_of_another_shape_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    zeros = [np.zeros((*GRID.shape, 3)), np.ones(GRID.shape), np.zeros((1, 3)), np.ones(1)]
    rows = PersonRows(*zeros, np.zeros((*GRID.shape, 4)), np.zeros((1, 4)))
    with LandmarkTensorWriter(tmp_path / "tensor", [7], GRID, 3, np.zeros((1, 1, 3)), "settings") as writer:
        writer.put(7, rows)
        writer.finish({}, {}, "one point", {7: "key"})
    folder = tmp_path / "tensor"
    facts = read_manifest(folder, KIND)["facts"]
    assert LandmarkTensor.open(folder).keys == {7: "key"}
    write_manifest(folder, KIND, {}, {}, {**facts, "convention": "another"})
    with pytest.raises(ArtifactError, match="angles follow 'another', expected"):
        LandmarkTensor.open(folder)
    write_manifest(folder, KIND, {}, {}, {**facts, "feature_length": 6})
    with pytest.raises(ArtifactError, match=r"expected landmarks of shape \(1, 3, 2, 1, 6\), found \(1, 3, 2, 1, 3\)"):
        LandmarkTensor.open(folder)
    np.save(folder / "routes.npy", np.ones((1, 3, 2, 2), dtype=np.uint8))
    write_manifest(folder, KIND, {}, {}, facts)
    with pytest.raises(ArtifactError, match=r"with routes \(1, 3, 2, 2\); run Landmarks again"):
        LandmarkTensor.open(folder)


def test_what_was_not_found_is_said_by_route_angle_and_pose() -> None:
    routes = np.ones((2, *GRID.shape), dtype=np.uint8)
    routes[:, 0, 1], routes[1, 2, 0], routes[0, 1, 0] = 0, 0, 2
    off_grid = np.zeros((2, 2, 3), np.float32), np.array([[1, 0], [3, 1]], np.uint8), np.zeros((2, 2, 3))
    tensor = LandmarkTensor(GRID, "one point", (1, 2), np.zeros((*routes.shape, 3), np.float32), routes, *off_grid)
    assert misses(tensor) == [
        "3 of 12 grid faces not found (25.0%); off the grid 1 of 4 (25.0%)",
        "found by route: whole: 8  mirrored: 1",
        "not found by yaw  : -10: 2  0: 0  10: 1",
        "not found by pitch: 0: 1  10: 2",
        "not found by roll : 0: 3",
        "most often at (yaw pitch roll), of 2 people: (-10 10 0): 2  (10 0 0): 1",
    ]
    none = np.zeros((2, 0, 3), np.float32), np.zeros((2, 0), np.uint8), np.zeros((2, 0, 3))
    whole = LandmarkTensor(GRID, "one point", (1, 2), tensor.features, np.ones_like(routes), *none)
    assert misses(whole)[0] == "0 of 12 grid faces not found (0.0%)"
    assert len(misses(whole)) == 5
    assert whole.first(2).people == (1, 2)
    for people in (0, 3):
        with pytest.raises(ValueError, match=f"expected 1 to 2 people; received {people}"):
            whole.first(people)
