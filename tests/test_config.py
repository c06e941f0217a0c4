"""The configuration: one home for every default, and errors that say what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlml_hpe.config import GridConfig
from stages.config import load_config
from stages.yaml_file import ConfigError
from tests.conftest import REPOSITORY


def load(folder: Path, text: str) -> object:
    path = folder / "some.yaml"
    path.write_text(text)
    return load_config(path)


def test_every_shipped_config_reads() -> None:
    configs = sorted((REPOSITORY / "configs").glob("*.yaml"))
    assert configs
    for path in configs:
        load_config(path)


def test_the_default_grid_is_the_papers() -> None:
    assert GridConfig().pose_grid().shape == (11, 9, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workdir: w\nrender:\n  sise: 3\n", ["some.yaml, line 3", "'render.sise'", "'render.size'"]),
        ("workdir: w\nrendr: {}\n", ["line 2", "'rendr'", "'render'"]),
        ("workdir: w\nheads: {train: many}\n", ["line 2", "heads.train", "'many'"]),
        ("workdir: w\ngrid:\n  yaw: {min: -50, max: 50, step: 15}\n", ["line 3", "step 15 does not divide", "-50..50"]),
        ("workdir: w\nseed: 1\nseed: 2\n", ["line 3", "'seed'", "line 2"]),
        ("seed: 1\n", ["workdir", "required"]),
        ("- a\n- b\n", ["expected a mapping"]),
        ("a: [\n", ["not valid YAML"]),
        ("workdir: w\nrender: {appearance: {ambient: [0.9, 0.2]}}\n", ["ambient", "low <= high"]),
        ("workdir: w\nworkdir_: !!python/object:os.system x\n", ["not valid YAML"]),
    ],
)
def test_a_mistake_is_named_with_file_line_and_remedy(tmp_path: Path, text: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    for part in expected:
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "none.yaml")
