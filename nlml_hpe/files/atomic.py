"""Files written whole or not at all, and JSON read under a bound.

A regular file takes its name by a rename when it is complete. A device, a FIFO or a socket cannot be renamed over
without destroying it: what was written is copied into it at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 * 1024 * 1024
OWN_PREFIX = ".nlml_hpe."
"""How the names of all temporary files of this project begin."""
JOURNAL = f"{OWN_PREFIX}journal"
"""The file in an unfinished folder that lists what was written into it: JSON strings, one a line, its kind first."""


class ArtifactError(RuntimeError):
    """An artefact is missing, unfinished, of another kind or version, or does not fit."""


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that takes its place only if the block succeeds.

    An existing file keeps its mode and a new one has the umask's; of a symbolic link the file that it names is
    replaced, not the link; a device, FIFO or socket is written into.

    Parameters
    ----------
    target : str or Path
        The file to write; missing folders on the way to it are made.

    Yields
    ------
    Path
        The temporary file.

    Raises
    ------
    OSError
        Where the file cannot be written; the message names ``target``, not the temporary file.
    """
    target = Path(target)
    existing = _status(target)
    with _errors_about(target):
        if existing is not None and not stat.S_ISREG(existing.st_mode):
            with tempfile.TemporaryDirectory() as folder:
                yield (temporary := Path(folder) / f"whole{target.suffix}")
                with temporary.open("rb") as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
            return
        place = target.resolve() if target.is_symlink() else target
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_file(place, existing)
        try:
            yield temporary
            if existing is not None:
                temporary.chmod(stat.S_IMODE(existing.st_mode))
            record(place.parent, place.name)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)


def _status(target: Path) -> os.stat_result | None:
    """What ``target`` is, links followed; None where there is nothing yet."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{target} is a folder; name a file to write")
    if not os.access(target, os.W_OK):
        raise PermissionError(f"{target} is write-protected")
    return status


def _new_file(place: Path, existing: os.stat_result | None) -> Path:
    """An empty file beside ``place`` with a name that no other process has."""
    temporary = place.with_name(f"{OWN_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{place.suffix}")
    # The kernel applies the umask, or a folder's default access list, to a new file. What replaces a file that only
    # its owner may read is never readable by others, not for a moment.
    mode = 0o666 if existing is None else stat.S_IMODE(existing.st_mode) | stat.S_IWUSR
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    return temporary


@contextmanager
def _errors_about(target: Path) -> Iterator[None]:
    """Name the file that its user knows in errors of the operating system about a temporary one."""
    try:
        yield
    except OSError as error:
        temporary = error.filename is None or OWN_PREFIX in str(error.filename)
        if error.errno is None or not temporary:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def record(folder: Path, *names: str) -> None:
    """Note in the journal of ``folder``, where it has one, that these of its files are this project's."""
    journal = folder / JOURNAL
    if journal.is_file():
        with journal.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{json.dumps(name)}\n" for name in names)


def write_bytes(target: str | Path, data: bytes) -> None:
    """Write ``data`` atomically; see ``atomic_path``."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_json(target: Path, data: Any) -> None:
    """Write ``data`` as sorted, indented JSON, atomically; see ``atomic_path``."""
    write_bytes(target, (json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises ``ArtifactError`` where the file is absent, too large or not JSON."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ArtifactError(f"{path} is larger than {MAX_JSON_BYTES} bytes; it is no artefact of this project")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    # ValueError: also of bytes that are no text, and of a number of more digits than Python converts.
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not readable JSON ({error}); delete it and run the stage again") from error
