"""Tasks, one per person, in worker processes of this machine or of a Dask cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import cv2
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from nlml_hpe.extras import needs

_CONNECT_SECONDS = 15
_WATCH_SECONDS = 0.2
Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """Workers died or cannot be reached; the message says what to do."""


def run_tasks(
    task: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    label: str,
    workers: int,
    cluster: str | None = None,
) -> Iterator[Result]:
    """Results of ``task(*a)`` for every a, as they are finished, under a progress bar.

    Processes here end with this one, however it ends. A cluster does again what a dead worker had begun; its workers
    must be able to import this project and read the data under the same paths.

    Parameters
    ----------
    task : callable
        What is done; it travels to other processes, and so does what it gives.
    arguments : sequence of tuples
        One tuple for each call.
    label : str
        Of the progress bar, and of errors.
    workers : int
        Processes on this machine; 1 does all in this one.
    cluster : str, optional
        ``tcp://HOST:PORT`` of a Dask scheduler, to work there in place of here.

    Yields
    ------
    Result
        What a call gave, in the order in which they are finished.

    Raises
    ------
    WorkerError
        Where the cluster does not answer or a worker process of this machine dies.
    MissingPackageError
        For a cluster where Dask is not installed.

    Examples
    --------
    >>> sorted(run_tasks(pow, [(2, 3), (3, 2)], "powers", workers=1))
    [8, 9]
    """
    with _backend(workers, cluster) as jobs:
        # Arrays travel to the workers as they are, not by way of temporary files.
        pool = Parallel(n_jobs=jobs, return_as="generator_unordered", max_nbytes=None)
        results = pool(delayed(_alone)(task, a) for a in arguments)
        try:
            yield from tqdm(results, total=len(arguments), desc=label, unit="part")
        except BrokenProcessPool as error:
            raise WorkerError(
                f"{label}: a worker process died ({error}); out of memory is the usual reason: lower `workers`. "
                "What is finished is kept, so run the same command again"
            ) from error


def _alone(task: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """The task with one OpenCV thread: the processes are what runs in parallel."""
    cv2.setNumThreads(1)
    return task(*arguments)


def _start_worker(parent: int) -> None:
    """Prepare a worker process: it ends when its parent does, and leaves Ctrl-C to it."""
    # A terminal sends Ctrl-C to all its processes. The parent answers it, in one line, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process as soon as it has another parent, which it gets when its own was killed."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


@contextmanager
def _backend(workers: int, cluster: str | None) -> Iterator[int]:
    if cluster is None:
        with parallel_config(backend="loky", initializer=_start_worker, initargs=(os.getpid(),)):
            yield workers
        return
    with needs("cluster", "a cluster"):
        from dask.distributed import Client
    try:
        client = Client(cluster, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"no Dask scheduler answers at {cluster} ({error}); start one with `dask scheduler`"
        ) from error
    with client, parallel_config(backend="dask", wait_for_workers_timeout=_CONNECT_SECONDS):
        yield -1
