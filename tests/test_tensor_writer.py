"""Space for a landmark tensor is taken before the first face is looked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nlml_hpe.files.folders import partial_of
from nlml_hpe.manifold.tensor_writer import LandmarkTensorWriter
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
