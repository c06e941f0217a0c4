"""One run at a time in a folder: the run holds a lock on it, and each of its workers a lease.

A worker may outlive its run for a moment, on a cluster for longer. So a run that takes over a folder waits for the
leases of the run before.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nlml_hpe.files.atomic import ArtifactError

_LEASE_SECONDS = 60.0
"""How long a run waits for a worker of the run before, which ends within a second, or on a cluster with its image."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, below a ``with``.

    Parameters
    ----------
    folder : Path
        Which may be still to be made; the lock lies beside it, of a symbolic link beside the folder that it names.

    Raises
    ------
    ArtifactError
        Where another run holds it.
    OSError
        Where nothing can be made beside it.
    """
    path = _beside(folder, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of a place that takes no file, the lock itself only says that it was not to be had.
        path.touch()
    except OSError as error:
        raise OSError(error.errno, f"cannot be made ({error.strerror}); name another place", str(folder)) from error
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ArtifactError(f"{folder} is being written by another run; wait for it, or use another workdir") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Hold a lease on the folder while this process writes into it for a run; it ends with the process."""
    leases = _leases(folder)
    leases.mkdir(parents=True, exist_ok=True)
    path = leases / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.lock"
    try:
        with FileLock(path):
            yield
    finally:
        # Once it is closed, for Windows removes no open file. A run that waited may have it open, and removes it then.
        with suppress(PermissionError):
            path.unlink(missing_ok=True)


def await_leases(folder: Path, seconds: float = _LEASE_SECONDS) -> None:
    """Wait until no worker of an earlier run holds a lease on the folder.

    Raises ``ArtifactError`` that names host and process of a worker that does not end within ``seconds``.
    """
    leases = _leases(folder)
    for path in sorted(leases.glob("*.lock")):
        host, pid, _ = path.stem.rsplit("-", 2)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for process {pid} on {host}, which an earlier run left in {folder}", file=sys.stderr)
            try:
                lock.acquire(timeout=seconds)
            except Timeout:
                raise ArtifactError(
                    f"{folder} is still written by process {pid} on {host}, which an earlier run left; end that "
                    "process and run the same command again"
                ) from None
        lock.release()
        path.unlink(missing_ok=True)
    with suppress(OSError):  # absent, or a worker has just come
        leases.rmdir()


def _leases(folder: Path) -> Path:
    return _beside(folder, "leases")


def _beside(folder: Path, ending: str) -> Path:
    """A place beside the folder itself, which several links may name."""
    place = Path(os.path.realpath(folder))
    return place.with_name(f".{place.name}.{ending}")
