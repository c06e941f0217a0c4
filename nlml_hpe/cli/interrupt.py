"""Ctrl-C once ends the work after the image in hand and keeps what is done; twice ends it at once.

So does SIGTERM, by which a service or a container is stopped.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

STOPPED = 130
"""Exit code of what Ctrl-C or SIGTERM ended: 128 and the number of SIGINT, as shells have it."""

Handler = Callable[[int, FrameType | None], Any]
_USUAL: dict[signal.Signals, Handler | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
"""How a program that was started as usual takes signals."""


def stopping(stop: Callable[[], None]) -> AbstractContextManager[None]:
    """Within the block the first Ctrl-C or SIGTERM calls ``stop``, and another one does what it usually does.

    Outside of the main thread nothing is changed, nor of a signal that is ignored or handled by somebody else.
    """
    taken = _not_taken(_USUAL)

    def first(number: int, frame: FrameType | None) -> None:
        _give_back(taken)
        tqdm.write("stopping after this image; Ctrl-C again stops at once", file=sys.stderr)
        stop()

    return _handled(taken, first)


def ended_by_sigterm() -> AbstractContextManager[None]:
    """Within the block SIGTERM raises ``KeyboardInterrupt``, as Ctrl-C does, but where ``stopping`` changes nothing.

    By itself it would not end a container's first process.
    """
    return _handled(_not_taken([signal.SIGTERM]), signal.default_int_handler)


def _not_taken(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Those of these signals that do what they usually do, if this is the thread that may take them."""
    is_main = threading.current_thread() is threading.main_thread()
    return [number for number in numbers if is_main and signal.getsignal(number) == _USUAL[number]]


@contextmanager
def _handled(taken: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        _give_back(taken)


def _give_back(taken: Sequence[signal.Signals]) -> None:
    for number in taken:
        signal.signal(number, _USUAL[number])
