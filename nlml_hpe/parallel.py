"""Tasks, one per person, in worker processes of this machine or of a Dask cluster."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from nlml_hpe.extras import needs
from nlml_hpe.version import VERSION

if TYPE_CHECKING:
    from dask.distributed import Client, Future

_CONNECT_SECONDS = 15
_WORKER_SECONDS = 60
"""How long a cluster may be without workers: who restarts those that died needs a while."""
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
        Where a worker process of this machine dies, the cluster does not answer or has no workers, or several of its
        workers die at one task or one has another version of this package.
    MissingPackageError
        For a cluster where Dask is not installed.

    Examples
    --------
    >>> sorted(run_tasks(pow, [(2, 3), (3, 2)], "powers", workers=1))
    [8, 9]
    """
    results = _here(task, arguments, label, workers) if cluster is None else _there(task, arguments, label, cluster)
    yield from tqdm(results, total=len(arguments), desc=label, unit="part")


def _alone(task: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """The task with one OpenCV thread: the processes are what runs in parallel."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return task(*arguments)
    finally:
        # With one worker this process goes on with other work.
        cv2.setNumThreads(before)


def _of_version(version: str, task: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """The task by a cluster's worker, which outlives installations of this package: artefacts name their version."""
    if version != VERSION:
        raise WorkerError(
            f"a worker on {socket.gethostname()} runs version {VERSION} of this package, expected {version}: start the "
            "cluster's workers again, with that version"
        )
    return _alone(task, arguments)


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


def _here(
    task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], label: str, workers: int
) -> Iterator[Result]:
    with parallel_config(backend="loky", initializer=_start_worker, initargs=(os.getpid(),)):
        # Arrays travel to the workers as they are, not by way of temporary files.
        pool = Parallel(n_jobs=workers, return_as="generator_unordered", max_nbytes=None)
        try:
            yield from pool(delayed(_alone)(task, a) for a in arguments)
        except BrokenProcessPool as error:
            raise WorkerError(
                f"{label}: a worker process died ({error}); out of memory is the usual reason: lower `workers`. "
                "What is finished is kept, so run the same command again"
            ) from error


def _there(
    task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], label: str, cluster: str
) -> Iterator[Result]:
    """By Dask's own client: joblib's waits for ever for tasks that the scheduler gave up."""
    with needs("cluster", "a cluster"):
        from dask.distributed import Client, KilledWorker
        from distributed.comm.core import CommClosedError
    try:
        client = Client(cluster, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"no Dask scheduler answers at {cluster} ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        _require_readable(client, cluster, task, arguments)
        # Whole in one object: Dask looks into arguments for tasks and results of its own.
        todo = (client.submit(partial(_of_version, VERSION, task, a), pure=False) for a in arguments)
        pending = set(islice(todo, _in_flight(client, cluster)))
        try:
            while pending:
                done = _next_done(client, cluster, pending)
                pending -= done
                yield from (future.result() for future in done)
                pending.update(islice(todo, max(0, _in_flight(client, cluster) - len(pending))))
        except KilledWorker as error:
            raise WorkerError(
                f"{label}: workers of the cluster died again and again at one task; out of memory is the usual reason: "
                "give them more, or start fewer on a machine. Those that cannot import this project die, too: start "
                "them in its folder. What is finished is kept, so run the same command again"
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise WorkerError(
                f"{label}: the Dask scheduler at {cluster} was lost ({error}). What is finished is kept, so start it "
                "and its workers, and run the same command again"
            ) from error


def _version_of_reader(*_: Any) -> str:
    """The version of this package in the process that has read these tasks."""
    return VERSION


def _require_readable(client: Client, cluster: str, task: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Raise ``WorkerError`` where the scheduler, which reads every task before a worker does, cannot read them."""
    try:
        version = client.run_on_scheduler(_version_of_reader, task, *arguments[:1])
    except (ImportError, AttributeError) as error:
        raise WorkerError(
            f"the Dask scheduler at {cluster} cannot import this project ({error}); start it in this project's folder "
            "and environment, as its workers"
        ) from error
    if version != VERSION:
        raise WorkerError(
            f"the Dask scheduler at {cluster} runs version {version} of this package, expected {VERSION}: start it and "
            "its workers again"
        )


def _in_flight(client: Client, cluster: str) -> int:
    """How many tasks the cluster is given at a time: a second one lies ready for each thread of a worker.

    Raises ``WorkerError`` where no worker comes.
    """
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError as error:
        raise WorkerError(
            f"the Dask scheduler at {cluster} has had no worker for {_WORKER_SECONDS} seconds; start some with "
            f"`dask worker {cluster}` in this project's folder. What is finished is kept, so run the same command again"
        ) from error
    # The last worker may be lost in between; what was not given out yet must not be taken for done.
    return max(1, 2 * sum(client.nthreads().values()))


def _next_done(client: Client, cluster: str, pending: set[Future]) -> set[Future]:
    """Those that are done as soon as there is one. Raises ``WorkerError`` where there is no worker any more."""
    from dask.distributed import wait

    while True:
        try:
            return wait(pending, timeout=_WORKER_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            _in_flight(client, cluster)
