"""Space for a landmark tensor is taken before the first face is looked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nlml_hpe.files.folders import partial_of, replace_folder
from nlml_hpe.manifold import tensor_writer
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
