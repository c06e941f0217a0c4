"""Command lines of stages: folders are judged before the work, Ctrl-C is one line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.folders import require_replaceable
from stages.common import Plan, Stage, guarded, run_stage
from stages.config import Config


def test_a_folder_of_the_user_is_refused_before_the_work(tmp_path: Path) -> None:
    """The second folder of a stage too: ``Landmarks`` comes to it hours later."""
    second = tmp_path / "validation"
    second.mkdir()
    (second / "thesis.txt").write_text("mine")
    worked = []

    def main(config: Config) -> Path:
        worked.append(config)
        return second

    stage = Stage("Two", lambda config: Plan((tmp_path / "train", second), "thing", {}), main)
    with pytest.raises(ArtifactError, match=r"thesis\.txt"):
        run_stage(stage, Config.model_construct())
    assert not worked


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="no folder that you may write into"):
        require_replaceable(tmp_path / "file" / "model", "thing")


@pytest.mark.parametrize("said", ["", "stopped before the end; nothing was written to here"])
def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str], said: str) -> None:
    def work(given: argparse.Namespace) -> None:
        raise KeyboardInterrupt(*([said] if said else []))

    assert guarded(work, argparse.Namespace()) == 130
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert said in printed[0]
