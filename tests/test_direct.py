"""Rendering and detecting in one go, and on a cluster: the same tensor by every way."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from nlml_hpe import parallel
from nlml_hpe.files.images import IMAGE_SUFFIXES
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.parallel import WorkerError, run_tasks
from renderer.config import CropsConfig, HeadsConfig
from renderer.crops import CropSet, render_splits
from stages import Landmarks, Render, TD_main
from stages.common import Workdir, run_stage
from stages.config import Config, load_config
from tests.conftest import REPOSITORY, TINY, write_config

DIRECT = {"render": {**TINY["render"], "keep_images": False, "image_format": "png"}}  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = load_config(write_config(tmp_path_factory.mktemp("direct"), **DIRECT))
    run_stage(Render.STAGE, config)
    run_stage(Landmarks.STAGE, config)
    return config


def tensors(config: Config) -> Iterator[LandmarkTensor]:
    work = Workdir(config.workdir)
    yield from (LandmarkTensor.open(folder) for folder in (work.landmarks_train, work.landmarks_validation))


def assert_same(first: Config, second: Config) -> None:
    for one, other in zip(tensors(first), tensors(second), strict=True):
        for name in ("features", "routes", "random_features", "random_routes", "random_angles"):
            assert (np.asarray(getattr(one, name)) == np.asarray(getattr(other, name))).all(), name


def test_no_image_touches_the_disk_and_the_tensor_is_that_of_lossless_files(direct: Config, tmp_path: Path) -> None:
    images = {path.name for path in direct.workdir.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    assert images == {"renders_sheet.jpg", "landmarks_train_misses.png", "landmarks_validation_misses.png"}
    kept = {"render": {**DIRECT["render"], "keep_images": True}}
    config = load_config(write_config(tmp_path, **kept))
    run_stage(Render.STAGE, config)
    run_stage(Landmarks.STAGE, config)
    assert len(list((config.workdir / "renders").rglob("ID*.png"))) == 5 * 36 + 2 * (36 + 8)
    assert_same(direct, config)


def test_a_killed_direct_run_goes_on_where_it_stopped(direct: Config, tmp_path: Path) -> None:
    path = write_config(tmp_path, **DIRECT)
    run_stage(Render.STAGE, load_config(path))
    command = [sys.executable, "stages/Landmarks.py", "--config", str(path)]
    done = tmp_path / "work" / "landmarks_train.partial"
    with subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True) as process:
        wait_for(lambda: any(done.glob(".nlml_hpe.done_*")) or process.poll() is not None)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
    finished = {p.name: p.stat().st_mtime_ns for p in done.glob(".nlml_hpe.done_*")}
    assert finished
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    assert_same(direct, load_config(path))


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    with scheduler_process(tmp_path / "scheduler.log") as (address, _):
        yield address


@contextmanager
def scheduler_process(log: Path, *program: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    program = program or ("-m", "distributed.cli.dask_scheduler")
    command = [sys.executable, *program, "--no-dashboard", "--host", address]
    process = started(command, log)
    try:
        yield address, process
    finally:
        process.kill()
        process.wait()


def started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=stream, stderr=stream)


@contextmanager
def worker_process(scheduler: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--no-nanny", "--nthreads", "1"]
    process = started([*command, "--no-dashboard", "--local-directory", str(log.parent)], log)
    try:
        wait_for(lambda: "Registered to" in log.read_text())
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: object) -> None:
    until = time.monotonic() + 90
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def test_a_cluster_loses_a_worker_and_nothing_else(direct: Config, tmp_path: Path, scheduler: str) -> None:
    """A real scheduler and two real worker processes, one killed in the middle of the work."""
    path = write_config(tmp_path, **DIRECT)
    run_stage(Render.STAGE, load_config(path))
    command = [sys.executable, "stages/Landmarks.py", "--config", str(path), "--cluster", scheduler]
    first, second = (worker_process(scheduler, tmp_path / f"worker{number}.log") for number in range(2))
    with first as doomed, second, subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as process:
        done = tmp_path / "work" / "landmarks_train.partial"
        wait_for(lambda: any(done.glob(".nlml_hpe.done_*")))
        doomed.kill()
        assert process.poll() is None
        assert process.wait(timeout=300) == 0
    assert_same(direct, load_config(path))


def test_a_cluster_sums_the_grams(direct: Config, tmp_path: Path, scheduler: str) -> None:
    """The passes of the decomposition as tasks: Grams and projections come back, the manifold is the local one."""
    local = run_stage(TD_main.STAGE, direct) / "manifold.npz"
    expected = local.read_bytes()
    with worker_process(scheduler, tmp_path / "worker.log"):
        again = run_stage(TD_main.STAGE, direct.model_copy(update={"cluster": scheduler}), force=True)
    assert (again / "manifold.npz").read_bytes() == expected


def test_crops_of_a_cluster_are_those_of_one_process(kit_of_few: Path, tmp_path: Path, scheduler: str) -> None:
    heads = HeadsConfig(source="ict_facekit", folder=kit_of_few, train=3, expressions=())
    config = CropsConfig(size=48, crops_per_person=2, people_per_shard=1)
    people = CropSet(heads, config, 5, "train", kit_of_few.parent / "cache")
    folders = [tmp_path / "alone", tmp_path / "shared"]
    render_splits([(people, folders[0])], workers=1)
    with worker_process(scheduler, tmp_path / "worker.log"):
        render_splits([(people, folders[1])], workers=1, cluster=scheduler)
    alone, shared = ({path.name: path.read_bytes() for path in folder.glob("*.npy")} for folder in folders)
    assert "images_00002.npy" in alone
    assert shared == alone


def test_one_worker_has_one_opencv_thread_and_leaves_the_process_as_many_as_it_had() -> None:
    """Stages that followed in the same process, and their timings, had one thread."""
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        assert list(run_tasks(cv2.getNumThreads, [()], "threads", 1)) == [1]
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_CONNECT_SECONDS", 1)
    with pytest.raises(WorkerError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        list(run_tasks(abs, [(1,)], "nothing", 1, "tcp://127.0.0.1:1"))
    # Nor at what is no address.
    with pytest.raises(WorkerError, match="no Dask scheduler answers at nowhere"):
        list(run_tasks(abs, [(1,)], "nothing", 1, "nowhere"))


def test_a_worker_that_dies_is_a_clear_error() -> None:
    with pytest.raises(WorkerError, match="a worker process died"):
        list(run_tasks(os._exit, [(9,), (9,)], "dying", 2))


def test_the_work_of_a_cluster_is_done_by_its_one_worker(tmp_path: Path, scheduler: str) -> None:
    """By joblib's backend a single thread of a cluster did nothing, and the client all of it."""
    with worker_process(scheduler, tmp_path / "worker.log") as worker:
        ran = list(run_tasks(os.getpid, [()] * 7, "who", 1, scheduler))
        assert ran == [worker.pid] * 7
        with pytest.raises(ValueError, match="math domain error"):
            list(run_tasks(math.sqrt, [(1.0,), (-1.0,)], "roots", 1, scheduler))


def test_a_scheduler_that_cannot_import_the_project_is_named(tmp_path: Path) -> None:
    """As one that was started elsewhere: Dask's traceback of a task graph was all that was said."""
    hidden = tmp_path / "hidden.py"
    lines = (
        "import sys",
        "sys.modules['nlml_hpe'] = None",
        "from distributed.cli.dask_scheduler import main",
        "main()",
    )
    hidden.write_text("\n".join(lines))
    with (
        scheduler_process(tmp_path / "scheduler.log", str(hidden)) as (address, _),
        pytest.raises(WorkerError, match=rf"scheduler at {address} cannot import this project .* in this project's"),
    ):
        list(run_tasks(abs, [(-1,)], "sizes", 1, address))


def test_a_worker_of_another_version_is_refused(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that it drew were declared the client's version's."""
    with worker_process(scheduler, tmp_path / "worker.log"):
        monkeypatch.setattr(parallel, "VERSION", "9.9")
        with pytest.raises(WorkerError, match=r"the Dask scheduler at .* runs version .* expected 9\.9: start it"):
            list(run_tasks(abs, [(-1,)], "sizes", 1, scheduler))
        monkeypatch.setattr(parallel, "_require_readable", lambda *_: None)
        with pytest.raises(WorkerError, match=r"a worker on .* runs version .* expected 9\.9: start .* again"):
            list(run_tasks(abs, [(-1,)], "sizes", 1, scheduler))


def test_a_task_that_kills_its_workers_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    with (
        scheduler_process(tmp_path / "scheduler.log") as (scheduler, _),
        worker_process(scheduler, tmp_path / "worker.log"),
        pytest.raises(WorkerError, match="dying: workers of the cluster died again and again"),
    ):
        list(run_tasks(os._exit, [(9,)], "dying", 1, scheduler))


def test_a_cluster_that_lost_all_workers_or_its_scheduler_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_WORKER_SECONDS", 1)
    with scheduler_process(tmp_path / "scheduler.log") as (scheduler, process):
        with pytest.raises(WorkerError, match="has had no worker for 1 seconds"):
            list(run_tasks(abs, [(1,)], "nothing", 1, scheduler))
        with (
            worker_process(scheduler, tmp_path / "first.log"),
            pytest.raises(WorkerError, match="has had no worker for 1 seconds"),
        ):
            list(run_tasks(os._exit, [(9,)], "dying", 1, scheduler))
        with worker_process(scheduler, tmp_path / "second.log"):
            results = run_tasks(time.sleep, [(0.1,), (60,)], "lost", 1, scheduler)
            next(results)
            process.kill()
            with pytest.raises(WorkerError, match=r"lost: the Dask scheduler at .* was lost"):
                list(results)
