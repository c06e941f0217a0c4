"""Standard output and standard error of the commands: where one is missing, full or broken off, and what they show."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from nlml_hpe.words import printable, show_all_letters


class _Missing(io.TextIOBase):
    """In place of a standard output that the process was started without (``>&-``): what is written is lost."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "cannot be written (it is closed)", "standard output")


class _Nowhere(io.TextIOBase):
    """In place of such a standard error: nobody wants the messages."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Within the block both streams are there and show all letters; at its end all that was written has arrived.

    Where that is not so, nothing is left for Python to write at its own end, which it would answer by a code and a
    message of its own. Raises ``OSError`` where standard output cannot be written, as on a full disk.
    """
    _open_missing()
    with _buffered_stdout():
        show_all_letters()
        try:
            yield
        finally:
            try:
                sys.stdout.flush()
            except OSError as error:
                _drop_stdout()
                raise _about_stdout(error) from error


def write_out(text: str) -> None:
    """Write text to standard output, where it is at once. Raises ``OSError`` that names it, as ``standard_streams``."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of a missing one, which names itself
            raise
        _drop_stdout()
        raise _about_stdout(error) from error


def say_error(problem: object) -> None:
    """A message about what could not be done, on standard error, above any progress bar."""
    tqdm.write(f"error: {printable(str(problem))}", file=sys.stderr)


def _open_missing() -> None:
    """Streams in place of those that are None, as Python has them where a process was started without."""
    if sys.stdout is not None and sys.stderr is not None:
        return
    # The next file that is opened would have the free number, and what libraries print there would be written into it.
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    # To print to None is to print to standard output, where messages do not belong.
    sys.stderr = sys.stderr or _Nowhere()
    sys.stdout = sys.stdout or _Missing()


@contextmanager
def _buffered_stdout() -> Iterator[None]:
    """Within the block standard output has a buffer, also with PYTHONUNBUFFERED=1, as containers have it.

    Without one Python writes each text once: where a disk takes a part of it, the rest is lost without a word.
    """
    given = sys.stdout
    raw = getattr(given, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        yield
        return
    buffered = io.BufferedWriter(raw)
    sys.stdout = whole = io.TextIOWrapper(buffered, given.encoding, given.errors, line_buffering=True)
    try:
        yield
    finally:
        whole.detach()
        buffered.detach()  # lest what was given is closed with them
        sys.stdout = given


def _about_stdout(error: OSError) -> OSError:
    return OSError(error.errno, f"cannot be written ({error.strerror})", "standard output")


def _drop_stdout() -> None:
    """What is still to be written there, and all that follows, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
