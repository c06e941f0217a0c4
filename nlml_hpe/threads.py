"""Work of a few milliseconds, shared out among the threads of one pool for the whole process.

Networks and OpenCV let go of Python's lock while they compute, so that threads compute at the same time. Several steps
may share out work at once and within one another, and nothing waits for a thread that is not there: whoever wants the
results does what no other thread has begun, from the end, while the pool's threads come from the front. Once the main
thread has ended, Python begins nothing in other threads any more: those that still run do all their work themselves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Generic, TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_count() -> int:
    """How many threads may compute at once: as many as OpenCV may use here, which is one in worker processes."""
    # Where OpenCV leaves its threads to the system, it names a number beyond all processors.
    return max(1, min(cv2.getNumThreads(), _processors()))


def idle_threads() -> int:
    """How many of these threads have nothing to do, that of the caller included: one or more.

    Where others are at work, parts of work that cost less together are better left together.

    Examples
    --------
    >>> 1 <= idle_threads() <= thread_count()
    True
    """
    return max(1, thread_count() - len(_at_work(os.getpid())))


@cache
def _processors() -> int:
    """How many the system has; to ask takes 0.04 ms, and an answer asks five times."""
    return os.cpu_count() or 1


def usable_cores() -> int:
    """How many processor cores this process may use; all that there are where the system does not say (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Begun(Generic[Result]):
    """Work that other threads may have begun; ``begin`` makes it."""

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> None:
        self._tasks = [partial(work, item) for item in items]
        self._futures: list[Future[Result]] = []
        for task in self._tasks if threads > 1 else ():
            future = submitted(_pool(os.getpid(), threads - 1), task)
            if future is None:
                break
            self._futures.append(future)
            at_work = _at_work(os.getpid())
            at_work.add(future)
            future.add_done_callback(at_work.discard)

    def results(self) -> list[Result]:
        """What ``work`` gave for each item, in their order; raises what it raised.

        Examples
        --------
        >>> begin(abs, [-1, 2]).results()
        [1, 2]
        """
        if not self._futures:
            return [task() for task in self._tasks]
        own: dict[int, Result] = {}
        try:
            for index in reversed(range(len(self._tasks))):
                if index >= len(self._futures) or self._futures[index].cancel():
                    own[index] = self._tasks[index]()
            return [own[index] if index in own else self._futures[index].result() for index in range(len(self._tasks))]
        finally:
            for future in self._futures:  # where something was raised, nothing more is begun
                future.cancel()


def begin(work: Callable[[Item], Result], items: Sequence[Item], threads: int | None = None) -> Begun[Result]:
    """Have ``work`` done for each of the items, by whichever thread comes first.

    Parameters
    ----------
    work : callable
        What is done for an item; called in any thread, and in several at once.
    items : sequence
        What it is done for.
    threads : int, optional
        How many threads may take part, that of the caller included; by default ``thread_count``. With one, nothing is
        begun before the results are asked for.

    Returns
    -------
    Begun
        Whose ``results`` may be asked for once; what was raised is lost where nobody asks.

    Examples
    --------
    >>> squares = begin(lambda number: number * number, range(5))
    >>> squares.results()
    [0, 1, 4, 9, 16]
    """
    return Begun(work, items, thread_count() if threads is None else threads)


def submitted(pool: Executor, task: Callable[[], Result]) -> Future[Result] | None:
    """A task handed to the threads of a pool; None where no thread can begin it, so that the caller has to do it.

    Parameters
    ----------
    pool : concurrent.futures.Executor
        Which is not shut down by whoever has it.
    task : callable
        What is to be done.

    Returns
    -------
    Future or None
        None once the main thread has ended, and where the system has no further thread.

    Examples
    --------
    >>> with ThreadPoolExecutor(1) as pool:
    ...     submitted(pool, partial(abs, -1)).result()
    1
    """
    is_left = threading.Event()
    try:
        return pool.submit(_unless, is_left, task)
    except RuntimeError:
        # The pool puts it into its queue before it asks for a thread: one that starts later is not to do it again.
        is_left.set()
        return None


def _unless(is_left: threading.Event, task: Callable[[], Result]) -> Result:
    """The task's result; of one that was left to its caller nobody has the future."""
    if is_left.is_set():
        raise CancelledError
    return task()


@cache
def _at_work(process: int) -> set[Future[Any]]:
    """What a process has begun and not done yet."""
    return set()


@cache
def _pool(process: int, helpers: int) -> ThreadPoolExecutor:
    """The threads beside the caller's; those of a process do not live on in one that was forked from it."""
    return ThreadPoolExecutor(helpers, "nlml_hpe")
