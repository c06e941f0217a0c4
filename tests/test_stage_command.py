"""Command lines of stages: folders are judged before the work, Ctrl-C is one line."""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nlml_hpe.extras import MissingPackageError
from nlml_hpe.files.atomic import ArtifactError, write_bytes
from nlml_hpe.files.folders import fresh_folder, require_replaceable
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.parallel import WorkerError
from nlml_hpe.training_error import TrainingError
from stages import ImageTrainer, NLML_HPE_Test, run_pipeline
from stages.common import USER_ERRORS, Plan, Stage, config_of, guarded, run_stage, stage_command, stage_parser
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


@pytest.mark.parametrize("linked", [False, True])
def test_slow_work_that_a_stage_keeps_is_done_again_by_force_alone(tmp_path: Path, linked: bool) -> None:
    """On another disk, too, where the folder is a symbolic link."""
    kept, place = tmp_path / "kept", tmp_path / ("elsewhere" if linked else "kept")
    with fresh_folder(place, "crops") as folder:
        write_bytes(folder / "crops.bin", b"hours")
        write_manifest(folder, "crops", {}, {})
    if linked:
        kept.symlink_to(place)
    there = []

    def main(config: Config) -> Path:
        there.append((kept / "crops.bin").is_file())
        return tmp_path / "made"

    stage = Stage("Keeper", lambda config: Plan((tmp_path / "made",), "thing", {}, kept={kept: "crops"}), main)
    run_stage(stage, Config.model_construct())
    run_stage(stage, Config.model_construct(), force=True)
    assert there == [True, False]


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


@pytest.mark.parametrize(
    ("options", "device", "cluster"),
    [
        ([], "cuda", "tcp://a:1"),
        (["--device", "cpu"], "cpu", "tcp://a:1"),
        (["--cluster", "tcp://b:2"], "cuda", "tcp://b:2"),
    ],
)
def test_what_computes_is_taken_from_the_command_line_in_place_of_the_configuration(
    tmp_path: Path, options: list[str], device: str, cluster: str
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"workdir: {tmp_path}\ndevice: cuda\ncluster: tcp://a:1\n")
    config = config_of(stage_parser(None).parse_args(["--config", str(path), *options]))
    assert (config.device, config.cluster) == (device, cluster)


@pytest.mark.parametrize(
    ("options", "asked"), [([], (False, False)), (["--force"], (True, False)), (["--verify"], (False, True))]
)
def test_a_stage_is_run_as_its_command_line_says(
    tmp_path: Path, options: list[str], asked: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ran = tmp_path / "small.yaml", []
    path.write_text(f"workdir: {tmp_path}\n")
    monkeypatch.setattr("stages.common.run_stage", lambda _, config, *given: ran.append((config.workdir, given)))
    monkeypatch.setattr("sys.argv", ["ImageTrainer", "--config", str(path), *options])
    assert stage_command(ImageTrainer.STAGE, "Train.") == 0
    assert ran == [(tmp_path, asked)]


@pytest.mark.parametrize("error", [TrainingError, WorkerError])
def test_what_ends_a_training_or_its_workers_is_a_line(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def work(given: argparse.Namespace) -> None:
        raise error("too few people")

    assert guarded(work, argparse.Namespace()) == 1
    assert capsys.readouterr().err == "error: too few people\n"


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "m"], "--model needs --dataset; without it the model of --config is evaluated"),
        (["--model", str(SHIPPED)], "--model needs --dataset"),
        (["--output", "o"], "--output needs --dataset"),
        (["--dataset", "aflw2000", "--root", ".", "--config", "c.yaml"], "--config does not go with --dataset"),
        (["--dataset", "aflw2000", "--root", ".", "--config", "configs/demo.yaml"], "--config does not go with"),
        (["--dataset", "aflw2000", "--root", ".", "--eye", "image"], "--eye does not go with --dataset"),
    ],
)
def test_the_evaluation_of_another_model_than_was_named_is_refused(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --dataset and a configuration it gave the shipped model's errors, and without one those of its own model."""
    monkeypatch.setattr("sys.argv", ["NLML_HPE_Test", *options])
    with pytest.raises(SystemExit, match="2"):
        NLML_HPE_Test.command()
    assert message in capsys.readouterr().err


_WIDE = REPOSITORY / "checkpoints" / "image_network" / "wide.safetensors"


@pytest.mark.parametrize(
    ("eye", "text", "message"),
    [
        ("landmarks", "tucker: {ranks: {roll: 8}}", "rank 8 of mode roll exceeds its 7 entries"),
        ("landmarks", "tucker: {ranks: {identity: 25}}", "rank 25 of mode identity exceeds its 24 entries"),
        ("landmarks", "encoder: {held_out_share: 0.99}", r"held_out_share 0\.99 leaves none of 24 people to train on"),
        ("landmarks", "landmarks: {validation_images: gone}", "gone: no such folder of images"),
        ("landmarks", "landmarks: {detector: mediapipe_tasks, bundle: gone.task}", r"gone\.task is missing"),
        ("landmarks", "device: cuda", "device 'cuda' was asked for"),
        ("image", "device: cuda", "device 'cuda' was asked for"),
        ("image", "image_trainer: {data: [{}, {kind: aflw2000, root: gone}]}", "gone: no such file or folder"),
        ("image", "image_trainer: {data: [{}, {kind: aflw2000, root: configs, list: gone}]}", "gone: no such list"),
        ("image", "image_model: {landmark_eye: gone}", r"gone/config\.json"),
        ("heads", "device: cuda", "device 'cuda' was asked for"),
        ("heads", "head_trainer: {weights: gone}", r"gone: no such file; correct head_trainer\.weights"),
        ("heads", f"head_trainer: {{weights: {_WIDE}}}", "weights of another network"),
        ("heads", f"refinement_trainer: {{image_network: {_WIDE}}}", "weights of another network"),
    ],
)
def test_what_a_later_stage_would_refuse_is_said_before_anybody_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eye: str, text: str, message: str
) -> None:
    """It was said after hours of rendering, or of a training."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "c.yaml"
    # There are no heads here: rendering would end with another error.
    path.write_text(f"workdir: {tmp_path}\nheads: {{source: scan, folder: {tmp_path}}}\n{text}\n")
    with pytest.raises(USER_ERRORS, match=message):
        run_pipeline.main(path, None, None, force=False, eye=eye)


@pytest.mark.parametrize(
    ("eye", "section"),
    [
        ("landmarks", "encoder"),
        ("landmarks", "angle_heads"),
        ("image", "image_trainer"),
        ("heads", "head_trainer"),
        ("heads", "refinement_trainer"),
    ],
)
def test_that_tensorboard_is_missing_is_said_before_anybody_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eye: str, section: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"workdir: {tmp_path}\nheads: {{source: scan, folder: {tmp_path}}}\n{section}: {{tensorboard: true}}\n"
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match="tensorboard: true needs"):
        run_pipeline.main(path, None, None, force=False, eye=eye)


def test_too_little_memory_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It was a traceback, whose last line named no reason."""
    for take, reason in ((bytes, ""), (np.empty, r" \(Unable to allocate .*\)")):
        assert guarded(lambda _, take=take: take(2**59), argparse.Namespace()) == 1
        assert re.fullmatch(rf"error: there is not enough memory{reason}\n", capsys.readouterr().err)
