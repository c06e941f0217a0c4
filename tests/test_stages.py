"""Stages: killed, starved of disk or fed with what does not fit, and run again."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nlml_hpe import cli
from nlml_hpe.config import LandmarksConfig
from nlml_hpe.evaluation.datasets.__main__ import main as datasets_command
from nlml_hpe.files.atomic import ArtifactError, write_bytes
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import read_manifest, write_manifest
from nlml_hpe.manifold.blocks import TensorError
from nlml_hpe.manifold.tensor import LandmarkTensor, misses
from nlml_hpe.model.card import model_card
from nlml_hpe.model.folder import load_model, official_model
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.pose_grid import RenderFolderError
from renderer import grid
from renderer.heads.photo import embedded_photo
from stages import (
    EncoderTrainer,
    Landmarks,
    MLPHeadsTrainer,
    ModelBuilder,
    NLML_HPE_Test,
    Render,
    TD_Inference,
    TD_main,
    run_pipeline,
)
from stages.common import Plan, Stage, Workdir, run_stage, training_run
from stages.config import Config, load_config
from tests.conftest import REPOSITORY, TINY, digests, write_config


def test_a_model_of_before_its_parts_is_named(
    tiny_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures would pass for those of the parts that lie beside it."""
    config = load_config(copy_of(tiny_run, tmp_path))
    run_stage(NLML_HPE_Test.STAGE, config)
    assert "was made before" not in capsys.readouterr().out
    trained = config.model_copy(update={"angle_heads": config.angle_heads.model_copy(update={"epochs": 1})})
    run_stage(MLPHeadsTrainer.STAGE, trained)
    run_stage(NLML_HPE_Test.STAGE, config)
    work = Workdir(config.workdir)
    said = f"NLML_HPE_Test: {work.model} was made before the heads beside it; to use that, make model again"
    assert said in capsys.readouterr().out.splitlines()


def test_parts_of_other_settings_are_named(
    tiny_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that was changed is in none of the figures until its own stage is run again."""
    config = load_config(copy_of(tiny_run, tmp_path))
    ranks = config.tucker.model_copy(update={"hooi_sweeps": config.tucker.hooi_sweeps + 1})
    changed = config.model_copy(update={"tucker": ranks})
    for stage in (MLPHeadsTrainer.STAGE, Landmarks.STAGE):
        run_stage(stage, changed)
    lines = capsys.readouterr().out.splitlines()
    manifold = Workdir(config.workdir).manifold
    assert [line for line in lines if "other settings" in line] == [
        f"MLPHeadsTrainer: {manifold} was made with other settings of tucker than the configuration has; to use these, "
        "make manifold again"
    ]


def copy_of(run: Config, folder: Path) -> Path:
    """A config whose workdir holds a copy of a finished run's artefacts."""
    path = write_config(folder)
    shutil.copytree(run.workdir, folder / "work")
    return path


def test_every_stage_leaves_its_artefact(tiny_run: Config) -> None:
    root = tiny_run.workdir
    for name in (
        "renders/train/ID1/ID1_(-30_-20_-10).jpg",
        "renders/renders.json",
        "renders_sheet.jpg",
        "landmarks_train/landmarks.npy",
        "landmarks_train_misses.png",
        "manifold/manifold.npz",
        "manifold/factors.png",
        "manifold/energy.png",
        "encoder/encoder.safetensors",
        "encoder/losses.png",
        "heads/heads.safetensors",
        "model/model.safetensors",
        "model/README.md",
        "test/metrics.json",
        "test/metrics.csv",
        "test/predictions_off_grid.csv",
        "test/mae_per_interval_on_grid.png",
    ):
        assert (root / name).is_file(), name
    card = (root / "model" / "README.md").read_text()
    assert "5 people for training" in card
    tensor = LandmarkTensor.open(root / "landmarks_train")
    assert tensor.features.shape == (5, 4, 3, 3, 1404)
    assert tensor.features.dtype == np.float32
    validation = LandmarkTensor.open(root / "landmarks_validation")
    assert set(tensor.people).isdisjoint(validation.people)
    assert validation.random_angles.shape == (2, 8, 3)


def test_the_table_counts_what_was_missed(tiny_run: Config) -> None:
    report = json.loads((tiny_run.workdir / "test" / "metrics.json").read_text())
    for part in report.values():
        assert part["n_detected"] + part["n_missed"] == part["n_total"]
        assert set(part["routes"]) == set(NLML_HPE_Test.ROUTES)
    summary = list(csv.DictReader((tiny_run.workdir / "test" / "metrics.csv").open()))
    expected = {(kind, route) for kind in report for route in NLML_HPE_Test.ROUTES}
    assert {(row["faces"], row["route"]) for row in summary} == expected
    rows = (tiny_run.workdir / "test" / "predictions_off_grid.csv").read_text().splitlines()
    assert len(rows) == 1 + report["off_grid"]["n_total"]


def test_misses_are_counted_by_axis_and_pose(tiny_run: Config, tmp_path: Path) -> None:
    tensor = LandmarkTensor.open(tiny_run.workdir / "landmarks_train")
    routes = np.ones_like(tensor.routes)
    routes[:3, 0, 2, 1] = 0
    lines = misses(dataclasses.replace(tensor, routes=routes))
    assert lines[0].startswith(f"3 of {routes.size} grid faces not found")
    assert "-30: 3" in lines[2]
    assert "(-30 20 0): 3" in lines[-1]


def test_a_second_run_does_nothing(tiny_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy_of(tiny_run, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*") if p.is_file()}
    run_pipeline.main(path, "Render", "NLML_HPE_Test", force=False)
    assert capsys.readouterr().out.count("up to date") == 7
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*") if p.is_file()}


def test_another_photograph_makes_render_run_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(embedded_photo()).save(photos / "one.png")
    grid = {axis: {"min": 0, "max": 0, "step": 10} for axis in ("yaw", "pitch", "roll")}
    heads = {"train": 1, "validation": 1, "photos": str(photos)}
    config = load_config(write_config(tmp_path, grid=grid, heads=heads, render={"random_poses_validation": 1}))
    run_stage(Render.STAGE, config)
    assert Render.plan(config).is_current()
    Image.fromarray(np.ascontiguousarray(embedded_photo()[:, ::-1])).save(photos / "one.png")
    assert not Render.plan(config).is_current()


def test_a_changed_section_runs_its_stage_and_those_behind_it(
    tiny_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(tiny_run, tmp_path)
    heads = {**TINY["angle_heads"], "epochs": 2}  # type: ignore[dict-item]
    path = write_config(tmp_path, angle_heads=heads)
    run_pipeline.main(path, "Render", "NLML_HPE_Test", force=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "wrote" in line]
    assert [line.split()[0] for line in lines] == ["MLPHeadsTrainer", "ModelBuilder", "NLML_HPE_Test"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, cwd=REPOSITORY, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


# What a stage leaves behind while it is at work; killed as soon as it appears.
TRACES = {
    "Render": "renders/train/ID1/*.jpg",
    "Landmarks": "landmarks_train.partial/.nlml_hpe.done_*",
    "TD_main": "manifold.partial/*",
    "EncoderTrainer": "encoder.partial/*",
    "MLPHeadsTrainer": "heads.partial/*",
    "ModelBuilder": "model.partial/*",
    "NLML_HPE_Test": "test.partial/*",
}


def long_config(folder: Path, size: int) -> Path:
    """A configuration whose rendering takes long enough to be disturbed."""
    grid = {**TINY["grid"], "yaw": {"min": -30, "max": 30, "step": 10}}  # type: ignore[dict-item]
    return write_config(folder, grid=grid, render={"size": size, "random_poses_validation": 2})


def wait_for_images(process: subprocess.Popen[str], folder: Path) -> None:
    while process.poll() is None and not list(folder.glob("work/renders/train/ID2/*.jpg")):
        time.sleep(0.002)
    assert process.poll() is None


def test_a_run_after_a_killed_one_meets_none_of_its_workers(tmp_path: Path) -> None:
    """Only the parent is killed, as by a lack of memory; the same folder is rendered at once at another size."""
    killed = start([sys.executable, "stages/Render.py", "--config", str(long_config(tmp_path, 200))])
    wait_for_images(killed, tmp_path)
    killed.kill()
    again = start([sys.executable, "stages/Render.py", "--config", str(long_config(tmp_path, 96))])
    _, message = again.communicate()
    assert again.returncode == 0, message
    killed.communicate()  # returns when all who hold its pipes have ended: its workers
    images = list((tmp_path / "work" / "renders").rglob("ID*.jpg"))
    assert len(images) == 7 * 7 * 9 + 2 * 2
    assert {Image.open(path).size for path in images} == {(96, 96)}
    assert not list((tmp_path / "work").rglob(".nlml_hpe*"))


def test_what_a_killed_worker_was_writing_is_cleared_away(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    folder = tmp_path / "work" / "renders"
    process = start([sys.executable, "stages/Render.py", "--config", str(tmp_path / "tiny.yaml")])
    wait_for_images(process, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    half = folder / "train" / "ID2" / ".nlml_hpe.1-0a.jpg"
    half.write_bytes(b"")
    run_stage(Render.STAGE, config)
    assert not half.exists()
    Landmarks.main(config)


def test_ctrl_c_in_a_stage_is_one_line_and_the_images_are_kept(tmp_path: Path) -> None:
    process = start([sys.executable, "stages/Render.py", "--config", str(long_config(tmp_path, 200))])
    wait_for_images(process, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in message
    # Not always the last one: joblib's process that clears up after the workers may speak later, in two lines.
    (own,) = (line for line in message.splitlines() if line.startswith("interrupted"))
    assert own.startswith("interrupted: finished stages, people and images are kept")
    assert list((tmp_path / "work" / "renders").rglob("ID*.jpg"))


def chain_until(path: Path, stage: str) -> None:
    """The chain up to this stage, in a session of its own with its workers."""
    os.setsid()
    run_pipeline.main(path, None, stage, force=False)


FIGURES = {"test/metrics.json", "test/manifest.json"}
"""Figures of an evaluation are the same but for their last bits: BLAS sums as an array lies in memory."""


def test_who_brings_all_images_renders_nobody(tiny_run: Config, tmp_path: Path) -> None:
    """The chain rendered all people of the configuration, whom no later stage read."""
    renders = Workdir(tiny_run.workdir).renders
    own = {"train_images": str(renders / "train"), "validation_images": str(renders / "validation")}
    path = write_config(tmp_path, landmarks=own)
    run_pipeline.main(path, None, "Landmarks", force=False)
    work = Workdir(load_config(path).workdir)
    assert work.landmarks_train.is_dir()
    assert not work.renders.exists()
    # Of one split they are still to be made.
    part = write_config(tmp_path, landmarks={"train_images": own["train_images"]})
    assert "Render" in run_pipeline.needed(run_pipeline.CHAINS["landmarks"], load_config(part))


def test_a_list_beside_own_images_is_no_change_of_them(tmp_path: Path) -> None:
    """All landmarks were looked for again after `datasets list` had written files.txt."""
    own = {f"{split}_images": tmp_path / split for split in Landmarks.SPLITS}
    for folder in own.values():
        (folder / "ID1").mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "ID1" / "ID1_(0_0_0).png")
    config = load_config(write_config(tmp_path, landmarks={name: str(folder) for name, folder in own.items()}))
    before = Landmarks.plan(config).inputs
    assert datasets_command(["list", str(own["train_images"])]) == 0
    assert (own["train_images"] / "files.txt").is_file()
    assert Landmarks.plan(config).inputs == before
    Image.new("RGB", (32, 32)).save(own["train_images"] / "ID1" / "ID1_(10_0_0).png")
    assert Landmarks.plan(config).inputs != before


def test_a_kill_in_any_stage_loses_nothing(tiny_run: Config, tmp_path: Path) -> None:
    """SIGKILL in the middle of each stage in turn; the last run completes, byte for byte as undisturbed."""
    path = write_config(tmp_path)
    # Forked off one process that has loaded all they need, which takes seconds.
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(
        [__name__, "stages.EncoderTrainer", "nlml_hpe.manifold.encoder_training", "torch._dynamo"]
    )
    killed = []
    for stage, trace in TRACES.items():
        process = forks.Process(target=chain_until, args=(path, stage))
        process.start()
        while process.is_alive() and not list((tmp_path / "work").glob(trace)):
            time.sleep(0.002)
        if process.is_alive():
            process.kill()
            subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
            killed.append(stage)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    # Writing the smaller artefacts takes milliseconds, and on a busy machine the kill comes too late for some of them.
    assert "Render" in killed
    assert len(killed) >= 3
    run_pipeline.main(path, None, None, force=False)
    expected, found = digests(tiny_run.workdir), digests(tmp_path / "work")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name] and name not in FIGURES] == []
    ours, theirs = (
        json.loads((root / "test" / "metrics.json").read_text()) for root in (tiny_run.workdir, tmp_path / "work")
    )
    for split in ours:
        for route, row in ours[split]["routes"].items():
            assert theirs[split]["routes"][route]["mae"] == pytest.approx(row["mae"], rel=1e-6)


@pytest.mark.parametrize(("stage", "limit"), [("Render", 2_000), ("Landmarks", 60_000), ("EncoderTrainer", 20_000)])
def test_a_full_disk_is_a_clear_error_and_a_rerun_completes(
    tiny_run: Config, tmp_path: Path, stage: str, limit: int
) -> None:
    """The limit on file size stands in for a full disk: writes fail with an OSError in the middle."""
    path = copy_of(tiny_run, tmp_path)
    command = [sys.executable, f"stages/{stage}.py", "--config", str(path), "--force"]
    process = start(["prlimit", f"--fsize={limit}", *command])
    _, message = process.communicate()
    assert process.returncode == 1
    assert "error: " in message
    assert "File too large" in message
    assert "Traceback" not in message
    run_pipeline.main(path, None, None, force=False)
    expected, found = digests(tiny_run.workdir), digests(tmp_path / "work")
    assert [name for name in expected if found.get(name) != expected[name] and name not in FIGURES] == []


def test_a_folder_of_renders_can_stand_in_for_render(
    tiny_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The authors' layout: people as bare numbers, nothing but the grid's images."""
    images = {}
    for split in Landmarks.SPLITS:
        images[split] = tmp_path / split
        for person in (tiny_run.workdir / "renders" / split).iterdir():
            target = images[split] / person.name.removeprefix("ID")
            shutil.copytree(person, target, ignore=shutil.ignore_patterns("random"))
    (images["train"] / "1 (copy)").mkdir()
    landmarks = {f"{split}_images": str(folder) for split, folder in images.items()}
    config = load_config(write_config(tmp_path, landmarks=landmarks))
    made = LandmarkTensor.open(run_stage(Landmarks.STAGE, config))
    original = LandmarkTensor.open(tiny_run.workdir / "landmarks_train")
    assert (made.features == original.features).all()
    assert "train: 1 folder left out, whose name is not ID1, ID2, ...: 1 (copy)" in capsys.readouterr().out


@pytest.mark.parametrize("own", [{"train": "train", "validation": "link"}, {"train": "validation"}])
def test_the_same_images_for_both_splits_are_refused(tiny_run: Config, tmp_path: Path, own: dict[str, str]) -> None:
    renders = tiny_run.workdir / "renders"
    (tmp_path / "link").symlink_to(renders / "train")
    place = {"link": tmp_path / "link", "train": renders / "train", "validation": renders / "validation"}
    landmarks = LandmarksConfig.model_validate({f"{split}_images": place[name] for split, name in own.items()})
    with pytest.raises(ValueError, match="is the folder of images of both splits"):
        Landmarks.plan(tiny_run.model_copy(update={"landmarks": landmarks}))


def test_the_card_tells_what_the_model_was_made_of(tiny_run: Config, tmp_path: Path) -> None:
    """Not what the configuration of today says of heads and seed."""
    copy_of(tiny_run, tmp_path)
    heads = {**TINY["heads"], "source": "scan", "folder": str(tmp_path)}  # type: ignore[dict-item]
    config = load_config(write_config(tmp_path, seed=4, heads=heads))
    card = (ModelBuilder.main(config) / "README.md").read_text()
    assert "| heads | source `photo`, 5 people for training, no person in two splits |" in card
    assert "Heads made of one photograph" in card
    assert "| seed | 3 |" in card
    shutil.rmtree(tmp_path / "work" / "renders")
    card = (ModelBuilder.main(config) / "README.md").read_text()
    assert "| heads | rendered, of a source that is not recorded any more, 5 people for training" in card
    assert "photo" not in card


def test_the_card_calls_own_images_own(tiny_run: Config) -> None:
    work = Workdir(tiny_run.workdir)
    folders = {**ModelBuilder.plan(tiny_run).reads, work.renders: Render.KIND}
    manifests = {folder.name: read_manifest(folder, kind) for folder, kind in folders.items()}
    manifests["landmarks_train"]["config"]["landmarks"]["train_images"] = "mine"
    manifests["encoder"]["config"]["seed"] = 5
    card = model_card(load_model(work.model), manifests)
    assert "| heads | own images, 5 people for training |" in card
    assert "photograph" not in card
    assert "| seed | manifold 3, encoder 5, heads 3 |" in card


@pytest.mark.parametrize("damage", ["missing", "foreign", "truncated"])
def test_a_damaged_render_folder_is_refused(tiny_run: Config, tmp_path: Path, damage: str) -> None:
    config = load_config(copy_of(tiny_run, tmp_path))
    image = tmp_path / "work" / "renders" / "train" / "ID2" / "ID2_(-10_0_0).jpg"
    if damage == "missing":
        image.unlink()
    elif damage == "foreign":
        Image.new("RGB", (9, 9)).save(image.with_name("ID2_(3_0_0).jpg"))
    else:
        image.write_bytes(image.read_bytes()[:200])
    expected = RenderFolderError if damage == "foreign" else ArtifactError
    with pytest.raises(expected, match=r"ID2_\((-10|3)_0_0\)\.jpg"):
        run_stage(Landmarks.STAGE, config, force=True)


def test_a_damaged_render_is_rendered_again_and_no_other(tiny_run: Config, tmp_path: Path) -> None:
    config = load_config(copy_of(tiny_run, tmp_path))
    renders = tmp_path / "work" / "renders"
    image = renders / "train" / "ID2" / "ID2_(-10_0_0).jpg"
    image.write_bytes(image.read_bytes()[:200])
    times = {path: path.stat().st_mtime_ns for path in renders.rglob("ID*.jpg")}
    run_stage(Render.STAGE, config)
    assert digests(renders) == digests(tiny_run.workdir / "renders")
    assert [path for path, time in times.items() if path.stat().st_mtime_ns != time] == [image]
    run_stage(Render.STAGE, config, force=True)
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())


def test_renders_whose_run_was_stopped_at_its_very_end_are_finished(
    tiny_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their run's mark stayed: by it a damaged image was taken for a good one, and --force rendered nothing."""
    config = load_config(write_config(tmp_path))
    renders, done = tmp_path / "work" / "renders", tiny_run.workdir / "renders"

    def stopped(*arguments: Any) -> None:
        write_manifest(*arguments)
        (renders / ".nlml_hpe.1-0a.json").write_bytes(b"")  # what the manifest took its name from
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grid, "write_manifest", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_stage(Render.STAGE, config)
    mark = (renders / ".nlml_hpe.run.json").read_text()
    image = renders / "train" / "ID2" / "ID2_(-10_0_0).jpg"
    content = image.read_bytes()
    image.write_bytes(content[:-100] + bytes(100))
    times = {path: path.stat().st_mtime_ns for path in renders.rglob("ID*.jpg")}
    run_stage(Render.STAGE, config)
    assert digests(renders) == digests(done)
    assert not list(renders.rglob(".nlml_hpe*"))
    assert [path for path, time in times.items() if path.stat().st_mtime_ns != time] == [image]
    (renders / ".nlml_hpe.run.json").write_text(mark)
    run_stage(Render.STAGE, config, force=True)
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())


@pytest.mark.parametrize("stage", [Render.STAGE, Landmarks.STAGE])
def test_pictures_that_a_killed_run_did_not_come_to_are_drawn(
    tiny_run: Config, tmp_path: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """They lie beside the artefact, which is up to date without them: they never came, or stayed those of others."""
    config = load_config(copy_of(tiny_run, tmp_path))
    pictures = stage.plan(config).pictures

    def stopped(_: Config) -> Path:
        raise KeyboardInterrupt

    def read_only(_: Config) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(KeyboardInterrupt):
        run_stage(dataclasses.replace(stage, main=stopped), config, force=True)
    assert pictures
    assert not any(path.exists() for path in pictures)
    for path in pictures[:-1]:  # and it may have come to some
        path.write_bytes(b"")
    run_stage(dataclasses.replace(stage, draw=read_only), config)
    assert "is missing: [Errno 30] Read-only" in capsys.readouterr().err
    run_stage(stage, config)
    assert "up to date" in capsys.readouterr().out
    assert [path.read_bytes() for path in pictures] == [
        (tiny_run.workdir / path.name).read_bytes() for path in pictures
    ]


def test_a_tensor_that_was_damaged_is_not_used(tiny_run: Config, tmp_path: Path) -> None:
    config = load_config(copy_of(tiny_run, tmp_path))
    tensor = tmp_path / "work" / "landmarks_train" / "landmarks.npy"
    with tensor.open("r+b") as stream:
        stream.seek(200_000)
        stream.write(bytes(49_000))
    assert not Landmarks.plan(config).is_current()
    for read in (lambda: run_stage(TD_main.STAGE, config), lambda: LandmarkTensor.open(tensor.parent)):
        with pytest.raises(ArtifactError, match=r"landmarks\.npy: missing, or changed"):
            read()


def test_verify_reads_what_a_sample_leaves_out(tiny_run: Config, tmp_path: Path) -> None:
    """One byte of a large file, between the blocks of the sample, in a file whose time was put back."""
    large = tmp_path / "thing" / "large.bin"
    with fresh_folder(large.parent, "thing") as folder:
        write_bytes(folder / "large.bin", bytes(4 * 1024 * 1024))
        write_manifest(folder, "thing", {}, {})
    before = large.stat()
    with large.open("r+b") as stream:
        stream.seek(100_000)
        stream.write(b"x")
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    stage = Stage("Reader", lambda _: Plan((tmp_path / "made",), "made", {}, {large.parent: "thing"}), lambda _: large)
    assert run_stage(stage, tiny_run) == large
    with pytest.raises(ArtifactError, match=r"large\.bin: missing, or changed"):
        run_stage(stage, tiny_run, verify=True)
    # A stage's own artefact is read in full, too, before it is called up to date.
    made = []
    maker = Stage("Maker", lambda _: Plan((large.parent,), "thing", {}), lambda _: made.append(1) or large)
    run_stage(maker, tiny_run)
    assert not made
    run_stage(maker, tiny_run, verify=True)
    assert made


def test_artefacts_depend_on_versions_and_not_on_the_machine(tiny_run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tiny_run.model_copy(update={"workers": 1, "cluster": "tcp://127.0.0.1:1"})
    stages = {name: run_pipeline.stage_of(name, "landmarks") for name in run_pipeline.CHAINS["landmarks"]}
    assert all(stage.plan(machine).is_current() for stage in stages.values())
    monkeypatch.setattr("stages.Landmarks.version_of", lambda _: "0.0.1")
    current = [name for name, stage in stages.items() if stage.plan(machine).is_current()]
    assert current == [name for name in stages if name != "Landmarks"]
    monkeypatch.setattr("nlml_hpe.files.manifests.VERSION", "0.0.1")
    assert not any(stage.plan(machine).is_current() for stage in stages.values())


@pytest.mark.parametrize(
    ("section", "change", "part"),
    [
        ("landmarks", {"normalization": "centroid_rms"}, "landmarks_train"),
        ("encoder", {**TINY["encoder"], "hidden": [24, 16]}, "encoder"),  # type: ignore[dict-item]
        ("encoder", {**TINY["encoder"], "epochs": 4}, "encoder"),  # type: ignore[dict-item]
        ("angle_heads", {**TINY["angle_heads"], "hidden": [8]}, "heads"),  # type: ignore[dict-item]
    ],
)
def test_a_model_is_not_built_of_parts_made_with_other_settings(
    tiny_run: Config, tmp_path: Path, section: str, change: dict[str, object], part: str
) -> None:
    copy_of(tiny_run, tmp_path)
    config = load_config(write_config(tmp_path, **{section: change}))
    with pytest.raises(ArtifactError, match=f"section '{section}' of the configuration and of {part} differs"):
        ModelBuilder.main(config)


def test_artefacts_made_of_another_version_of_each_other_are_refused(tiny_run: Config, tmp_path: Path) -> None:
    copy_of(tiny_run, tmp_path)
    config = load_config(write_config(tmp_path, tucker={"ranks": {"identity": 2}}))
    run_stage(TD_main.STAGE, config)
    with pytest.raises(ArtifactError, match=r"(encoder|heads) was made from another manifold"):
        ModelBuilder.main(config)


def test_the_manifest_says_how_many_epochs_were_run(tiny_run: Config, tmp_path: Path) -> None:
    """Training stops early after an epoch without gain: then there are fewer than the configuration allows."""
    copy_of(tiny_run, tmp_path)
    heads = {**TINY["angle_heads"], "epochs": 500, "patience": 1, "learning_rate": 0.05}  # type: ignore[dict-item]
    folder = run_stage(MLPHeadsTrainer.STAGE, load_config(write_config(tmp_path, angle_heads=heads)))
    history = json.loads((folder / "history.json").read_text())
    for axis, epochs in read_manifest(folder, MLPHeadsTrainer.KIND)["facts"]["epochs_run"].items():
        assert epochs == len(history[axis]["validation"]) < 500


def test_artefacts_of_another_grid_are_refused(tiny_run: Config, tmp_path: Path) -> None:
    copy_of(tiny_run, tmp_path)
    grid = {**TINY["grid"], "roll": {"min": -20, "max": 20, "step": 20}}  # type: ignore[dict-item]
    config = load_config(write_config(tmp_path, grid=grid))
    with pytest.raises(ArtifactError, match="grid of config and landmark tensor differs"):
        TD_main.main(config)
    with pytest.raises(RenderFolderError):
        Landmarks.main(config)


def test_artefacts_of_another_feature_are_refused(tiny_run: Config, tmp_path: Path) -> None:
    config = load_config(copy_of(tiny_run, tmp_path))
    manifest = tmp_path / "work" / "landmarks_validation" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("facemesh468/nose_eye_corners", "facemesh468/centroid_rms"))
    with pytest.raises(ArtifactError, match="feature of model and tensor differs"):
        NLML_HPE_Test.main(config)


def test_a_missing_artefact_says_what_to_run(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    with pytest.raises(ArtifactError, match="run the stage that makes it first"):
        run_stage(TD_main.STAGE, config)


def test_a_training_whose_folder_is_refused_its_place_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user looks at the folder of before in a file manager, which leaves a file of its own there."""
    work = Workdir(tmp_path)
    with fresh_folder(work.manifold, TD_main.KIND) as folder:
        shutil.copy(SHIPPED / "manifold.npz", folder / "manifold.npz")
        write_manifest(folder, TD_main.KIND, {}, {})
    settings = {"workdir": tmp_path, "workers": 1, "device": "cpu", "angle_heads": TINY["angle_heads"]}
    config = Config.model_validate(settings)
    run_stage(MLPHeadsTrainer.STAGE, config)
    written, mine = digests(work.heads), work.heads / ".DS_Store"
    real = MLPHeadsTrainer.train_heads

    def disturbed(*arguments: Any) -> Any:
        result = real(*arguments)
        mine.touch()
        return result

    monkeypatch.setattr(MLPHeadsTrainer, "train_heads", disturbed)
    with pytest.raises(ArtifactError, match=r"\.DS_Store"):
        run_stage(MLPHeadsTrainer.STAGE, config, force=True)
    monkeypatch.setattr(MLPHeadsTrainer, "train_heads", real)
    checkpoints = work.root / "heads.training"
    assert len(list(checkpoints.iterdir())) == 3
    mine.unlink()
    run_stage(MLPHeadsTrainer.STAGE, config, force=True)
    assert digests(work.heads) == written
    assert not checkpoints.exists()


def test_curves_can_be_asked_for_in_the_middle_of_a_training(tiny_run: Config) -> None:
    """A training that was killed began anew, and one that was over was done again, for a setting that changes none."""
    sections = {name: getattr(tiny_run, name) for name in ("encoder", "angle_heads")}
    drawn = {name: section.model_copy(update={"tensorboard": True}) for name, section in sections.items()}
    config = tiny_run.model_copy(update=drawn)
    for module in (EncoderTrainer, MLPHeadsTrainer, ModelBuilder):
        plans = [module.plan(each) for each in (tiny_run, config)]
        assert plans[1].is_current()
        one, other = (training_run(tiny_run, plan.folders[0], plan).inputs for plan in plans)
        assert one == other


def test_a_training_goes_on_from_checkpoints_of_its_own_settings_and_data_alone(tiny_run: Config) -> None:
    plan, folder = EncoderTrainer.plan(tiny_run), tiny_run.workdir / "encoder"
    runs = [
        training_run(tiny_run, folder, each)
        for each in (
            plan,
            dataclasses.replace(plan, settings={**plan.settings, "seed": 4}),
            dataclasses.replace(plan, others={**plan.others, "weights": "0"}),
        )
    ]
    assert len({run.inputs for run in runs}) == 3
    assert {run.checkpoints for run in runs} == {tiny_run.workdir / "encoder.training"}
    # Its curves lie beside those of the other stages.
    assert {(run.workers, run.log_folder) for run in runs} == {(tiny_run.n_workers, tiny_run.workdir)}


def test_render_does_not_clear_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    keepsake = tmp_path / "work" / "renders" / "holiday.txt"
    keepsake.parent.mkdir(parents=True)
    keepsake.write_text("mine")
    with pytest.raises(ArtifactError, match=r"is not replaced.*holiday"):
        Render.main(config)
    assert keepsake.read_text() == "mine"


@pytest.mark.parametrize("stage", [TD_main, ModelBuilder, NLML_HPE_Test])
def test_a_stage_does_not_replace_a_folder_with_foreign_files(
    tiny_run: Config, tmp_path: Path, stage: types.ModuleType
) -> None:
    config = load_config(copy_of(tiny_run, tmp_path))
    keepsake = stage.plan(config).folders[0] / "thesis.txt"
    keepsake.write_text("mine")
    with pytest.raises(ArtifactError, match=r"thesis\.txt"):
        run_stage(stage.STAGE, config, force=True)
    assert keepsake.read_text() == "mine"


@pytest.mark.parametrize("output", ["../results", "../photos", ".."])
def test_an_evaluation_replaces_no_folder_but_an_evaluation(
    tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """README's own example with a thesis in the way, the data set itself, the parent folder."""
    for name in ("results", "photos", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main(["evaluate", "--dataset", "aflw2000", "--root", "../photos", "--output", output]) == 1
    assert "is not replaced" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.rglob("thesis.txt")) == ["thesis.txt"] * 3


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """Below /proc not even root may write."""
    path = write_config(tmp_path, workdir="/proc/nlml_hpe")
    command = [sys.executable, "stages/Render.py", "--config", str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "/proc/nlml_hpe" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_few_people_for_the_rank_are_named(tiny_run: Config, tmp_path: Path) -> None:
    copy_of(tiny_run, tmp_path)
    config = load_config(write_config(tmp_path, tucker={"ranks": {"identity": 6}}))
    with pytest.raises(TensorError, match="rank 6 of mode identity exceeds its 5"):
        TD_main.main(config)


def test_rotation_features_build_a_manifold(tiny_run: Config, tmp_path: Path) -> None:
    copy_of(tiny_run, tmp_path)
    config = load_config(write_config(tmp_path, tucker={"ranks": {"identity": 3}, "use_rotation_features": True}))
    TD_main.main(config)
    facts = json.loads((tmp_path / "work" / "manifold" / "manifest.json").read_text())["facts"]
    # Rigidly turned points are reproduced but for people's differences beyond rank 3.
    assert facts["relative_error"] < 0.03
    assert max(map(max, facts["cosine_rms"])) < 0.02


def test_inference_gives_named_angles_by_every_route(tiny_run: Config, tmp_path: Path) -> None:
    model = Workdir(tiny_run.workdir).model
    results = TD_Inference.main(None, load_model(model), TD_Inference.METHODS)
    assert [row["method"] for row in results] == ["powell", "exact", "network"]
    for row in results:
        assert {"yaw", "pitch", "roll", "milliseconds"} <= row.keys()
    exact = next(row for row in results if row["method"] == "exact")
    # The photograph looks at the camera, leaning a little; a tiny model is a rough one.
    assert max(abs(exact[axis]) for axis in ("yaw", "pitch", "roll")) < 25
    command = [sys.executable, "stages/TD_Inference.py", "--model", str(model), "--method", "network", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0]["method"] == "network"
    empty = tmp_path / "empty.jpg"
    empty.touch()
    done = subprocess.run(
        [*command, "--image_path", str(empty)], check=False, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the file is empty" in done.stderr


def test_the_authors_artefacts_give_angles_in_our_convention(shared_data: Path, tmp_path: Path) -> None:
    """Signs only: their W wants another normalisation. The photograph is turned by known image rotations."""
    model = official_model(shared_data / "nlml_hpe_official")
    rolls = []
    for lean in (-15, 15):
        turned = tmp_path / f"{lean}.png"
        # PIL turns counter-clockwise; a head leaning to image right has positive roll.
        Image.fromarray(embedded_photo()).rotate(-lean, center=(225, 115)).save(turned)
        (row,) = TD_Inference.main(turned, model, ("exact",))
        assert row["sigma"] is not None
        rolls.append(row["roll"])
    assert rolls[0] < rolls[1]
    with pytest.raises(ValueError, match="no network"):
        TD_Inference.main(None, model, ("network",))
    with pytest.raises(ArtifactError, match="there is no such file"):
        official_model(tmp_path)


def test_an_image_without_a_face_gives_no_pose(tiny_run: Config, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.new("L", (64, 48), 90).save(grey)
    assert TD_Inference.main(grey, load_model(Workdir(tiny_run.workdir).model), TD_Inference.METHODS) == []


def test_the_order_of_from_and_until_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="comes after"):
        run_pipeline.main(write_config(tmp_path), "TD_main", "Render", force=False)


def test_a_model_reads_back(tiny_run: Config) -> None:
    model = load_model(Workdir(tiny_run.workdir).model)
    assert model.manifold.grid == tiny_run.grid.pose_grid()
    assert model.manifold.noise is not None
