"""Ctrl-C once ends the work after the image in hand and keeps what is done; twice ends it at once.

So does SIGTERM, by which a service or a container is stopped.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

STOPPED = 130
"""Exit code of what Ctrl-C or SIGTERM ended: 128 and the number of SIGINT, as shells have it."""

_USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""How a program that was started as usual takes signals."""


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block the first Ctrl-C or SIGTERM calls ``stop``, and another one does what it usually does.

    Outside of the main thread nothing is changed, nor of a signal that is ignored or handled by somebody else.
    """
    is_main = threading.current_thread() is threading.main_thread()
    usual = {number: usually for number, usually in _USUAL.items() if is_main and signal.getsignal(number) == usually}

    def first(number: int, frame: FrameType | None) -> None:
        restore()
        tqdm.write("stopping after this image; Ctrl-C again stops at once", file=sys.stderr)
        stop()

    def restore() -> None:
        for number, usually in usual.items():
            signal.signal(number, usually)

    for number in usual:
        signal.signal(number, first)
    try:
        yield
    finally:
        restore()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM raises ``KeyboardInterrupt``, as Ctrl-C does, but where ``stopping`` changes nothing.

    By itself it would not end a container's first process.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
