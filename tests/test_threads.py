"""Work shared out among threads: order, nesting, errors, and processes without the threads of their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from nlml_hpe.inference.video_files import VideoWriter
from nlml_hpe.threads import begin, idle_threads, submitted, thread_count
from stages.config import Config
from tests.conftest import REPOSITORY

_IDLE = """
import time
import numpy as np
from skimage import data
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.kalman import KalmanFilter
with HeadPoseEstimator(heads=True) as estimator:
    for _ in range(2):
        (pose, *_) = estimator.predict(data.astronaut())
    smooth = KalmanFilter()
    for frame in range(3):
        smooth(pose.rotation, frame / 25, pose.covariance)
    start = time.process_time()
    time.sleep(0.3)
    print(pose.eye, time.process_time() - start)
"""
_LATE = """
import sys
import threading
from pathlib import Path
from skimage import data
import cv2
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.video_files import VideoSource
cv2.setNumThreads(2)
def late():
    with HeadPoseEstimator() as estimator, VideoSource(Path(sys.argv[1])) as source:
        frames = iter(source)
        seen = [len(estimator.predict(data.astronaut())), next(frames).number]
        threading.main_thread().join()
        seen += [len(estimator.predict(data.astronaut())), *(frame.number for frame in frames)]
        with VideoSource(Path(sys.argv[1])) as again:
            seen += [frame.number for frame in again]
    print(*seen)
threading.Thread(target=late).start()
"""


def test_results_come_in_the_order_of_the_items() -> None:
    """Whoever does which: slow items come first."""

    def slow_first(number: int) -> int:
        time.sleep(0.01 if number < 2 else 0.0)
        return number * number

    assert begin(slow_first, range(20), threads=4).results() == [number * number for number in range(20)]
    assert begin(slow_first, [], threads=4).results() == []


def test_work_is_begun_before_its_results_are_asked_for() -> None:
    """By another thread; with one thread nothing is."""
    done = threading.Event()
    begun = begin(lambda _: done.set(), [0], threads=2)
    assert done.wait(10)
    assert begun.results() == [None]
    done.clear()
    begun = begin(lambda _: done.set(), [0], threads=1)
    assert not done.wait(0.05)
    begun.results()
    assert done.is_set()


def test_work_within_work_waits_for_nobody() -> None:
    """More levels than threads: each caller does what no other thread has begun."""

    def tree(depth: int) -> int:
        return 1 if depth == 0 else sum(begin(tree, [depth - 1] * 3, threads=2).results())

    found: list[int] = []
    caller = threading.Thread(target=lambda: found.append(tree(5)), daemon=True)
    caller.start()
    caller.join(60)
    assert found == [3**5]


def test_an_error_is_raised_where_the_results_are_asked_for() -> None:
    """And what was not begun by then never is."""
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)
        raise ValueError(f"item {number}")

    with pytest.raises(ValueError, match="item"):
        begin(work, range(1000), threads=2).results()
    count = len(begun)
    time.sleep(0.05)
    # Some were done while the others were handed out, on a busy machine more of them.
    assert len(begun) == count < 1000


def test_as_many_threads_as_opencv_may_use() -> None:
    """Which is one in worker processes, and never more than there are processors."""
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        assert thread_count() == 1
        cv2.setNumThreads(1000)
        assert thread_count() == (os.cpu_count() or 1)
    finally:
        cv2.setNumThreads(before)


def test_threads_that_are_at_work_are_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """From when work is begun until it is done, or taken back by whoever wants its result."""
    monkeypatch.setattr("nlml_hpe.threads.thread_count", lambda: 2)
    leave = threading.Event()
    assert idle_threads() == 2
    begun = begin(lambda _: leave.wait(10), range(3), threads=2)
    assert idle_threads() == 1  # the caller is one of them, whatever is left to do
    leave.set()
    assert begun.results() == [True] * 3
    deadline = time.monotonic() + 10
    while idle_threads() < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert idle_threads() == 2


def test_cores_are_counted_where_the_system_does_not_say_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert Config(workdir=Path("unused")).n_workers == os.cpu_count()


def test_what_no_thread_could_begin_is_not_begun_later() -> None:
    """It stays in the pool's queue: a frame of a video that was read so was another one's, and lost."""
    done: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        before = threading.stack_size(2**62)  # no thread starts with such a stack
        try:
            assert submitted(pool, lambda: done.append("by its caller")) is None
        finally:
            threading.stack_size(before)
        following = submitted(pool, lambda: done.append("by the pool"))
        assert following is not None
        following.result()
    assert done == ["by the pool"]


def test_what_no_further_thread_can_begin_is_done_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a system refuses a thread after it has started some: the results of what was left were not there."""
    starts = iter([True, True, False])
    monkeypatch.setattr("nlml_hpe.threads.submitted", lambda *what: submitted(*what) if next(starts) else None)
    assert begin(abs, [-1, -2, -3, -4], threads=2).results() == [1, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """The parent's do not live on in it."""
    assert begin(abs, [-1, -2], threads=2).results() == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(0 if begin(abs, [-1, -2], threads=2).results() == [1, 2] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nothing_waits_in_a_loop_for_the_next_image() -> None:
    """Threads of onnxruntime or BLAS that do take a whole core from those that compute: 0.3 s here."""
    done = subprocess.run([sys.executable, "-c", _IDLE], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    eye, seconds = done.stdout.split()
    assert eye == "both"
    assert float(seconds) < 0.05


def test_a_thread_that_outlives_the_main_one_goes_on(tmp_path: Path) -> None:
    """By itself: Python refuses to begin anything in other threads, which was an error of every answer and video."""
    path = tmp_path / "short.mp4"
    with VideoWriter(path, 25.0) as writer:
        for number in range(4):
            writer.put(np.zeros((64, 64, 3), dtype=np.uint8), number / 25)
    command = [sys.executable, "-c", _LATE, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr == ""
    assert done.stdout.split() == ["1", "0", "1", "1", "2", "3", *"0123"]
