"""The demo's promise: on unseen people, off the grid, both routes stay below three degrees."""

from __future__ import annotations

import json

import pytest

from stages.config import Config


@pytest.mark.parametrize("route", ["network", "exact"])
def test_unseen_people_off_the_grid(demo_run: Config, route: str) -> None:
    report = json.loads((demo_run.workdir / "test" / "metrics.json").read_text())["off_grid"]
    assert report["coverage"] >= 0.95
    assert report["routes"][route]["mae"]["mean"] <= 3.0
