"""Ctrl-C once ends the work after the image in hand and keeps what is done; twice ends it at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

STOPPED = 130
"""Exit code of what Ctrl-C ended: 128 and the signal's number, as shells have it."""


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block the first Ctrl-C calls ``stop``, and another one raises ``KeyboardInterrupt`` as usual.

    Outside of the main thread, and where Ctrl-C is ignored or handled by somebody else, nothing is changed.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, usual)
        tqdm.write("stopping after this image; Ctrl-C again stops at once, without a table or a video", file=sys.stderr)
        stop()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
