"""Files and folders written whole or not at all, and JSON read under a bound.

A file takes its name by a rename when it is complete; a folder is filled beside its place and then takes it. A run
holds the folder that it writes, so that a second run into it is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 * 1024 * 1024


class ArtifactError(RuntimeError):
    """An artefact is missing, unfinished, of another kind or version, or does not fit."""


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that takes its place only if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes) -> None:
    """Write ``data`` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_json(target: Path, data: Any) -> None:
    """Write ``data`` as sorted, indented JSON, atomically."""
    write_bytes(target, (json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises ``ArtifactError`` where the file is absent, too large or not JSON."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ArtifactError(f"{path} is larger than {MAX_JSON_BYTES} bytes; it is no artefact of this project")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not readable JSON ({error}); delete it and run the stage again") from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; a second run into it is refused, not mixed in."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f".{folder.name}.lock"
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                f"{folder} is being written by another run; wait for it, or use another workdir"
            ) from None
        yield


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that replaces it if the block succeeds."""
    partial = folder.with_name(f"{folder.name}.partial")
    with exclusive(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        replace_folder(partial, folder)


def replace_folder(partial: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one."""
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
