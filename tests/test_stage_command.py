"""Command lines of stages: folders are judged before the work, Ctrl-C is one line."""

from __future__ import annotations

import argparse
import ast
import io
import sys
from pathlib import Path

import pytest
import torch

from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.folders import require_replaceable
from stages import ImageTrainer, NLML_HPE_Test, run_pipeline
from stages.common import Plan, Stage, config_of, guarded, run_stage, stage_command, stage_parser
from stages.config import Config
from tests.conftest import REPOSITORY


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


def test_a_terminal_of_few_letters_shows_the_others_as_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of a model whose folder has an accent ended in an error, after all the work."""
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert guarded(lambda given: print("mod\xe8le", flush=True), argparse.Namespace()) == 0
    assert terminal.buffer.getvalue().split() == [b"mod\\xe8le"]  # type: ignore[attr-defined]


def test_texts_are_read_and_written_in_utf_8_in_every_locale() -> None:
    """In that of most Windows machines the tables of CompareModels were shown with other letters, or not at all."""
    rooms = ("nlml_hpe", "renderer", "stages", "benchmarks")
    for path in (path for room in rooms for path in (REPOSITORY / room).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ("read_text", "write_text"):
                assert any(given.arg == "encoding" for given in call.keywords), f"{path}:{call.lineno}"


@pytest.mark.parametrize(("options", "device"), [([], "cuda"), (["--device", "cpu"], "cpu")])
def test_a_device_on_the_command_line_is_taken_in_place_of_the_configurations(
    tmp_path: Path, options: list[str], device: str
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"workdir: {tmp_path}\ndevice: cuda\n")
    given = stage_parser(None).parse_args(["--config", str(path), *options])
    assert config_of(given).device == device


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that this machine has")
@pytest.mark.parametrize("name", ["ImageTrainer", "run_pipeline", "NLML_HPE_Test"])
def test_a_device_that_is_not_there_is_said_before_the_first_stage(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"workdir: {tmp_path / 'work'}\n")
    monkeypatch.setattr("sys.argv", [name, "--config", str(path), "--device", "cuda"])
    commands = {
        "ImageTrainer": lambda: stage_command(ImageTrainer.STAGE, "Train."),
        "run_pipeline": run_pipeline.command,
        "NLML_HPE_Test": NLML_HPE_Test.command,
    }
    assert commands[name]() == 1
    assert "device 'cuda' was asked for" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
