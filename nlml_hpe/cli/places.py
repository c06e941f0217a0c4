"""Which images are meant, and whether outputs can be written, both known before the work begins."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from nlml_hpe.files.images import IMAGE_SUFFIXES, user_path
from nlml_hpe.words import counted, on_one_line, why_no_file

_VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts")
_UNREAD_IMAGE_SUFFIXES = (".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".svg")
_TABLE_SUFFIXES = (".csv", ".json", ".tsv", ".txt")
_SHOWN = 3
STDOUT = "-"
"""The name that stands for standard output."""


class Entry(NamedTuple):
    """A file to read, or what is wrong with the name of it."""

    path: Path
    problem: str = ""


@dataclass
class Inputs:
    """What was asked for: files in order, and what was skipped in folders, reason -> names."""

    entries: list[Entry] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """Those that are there."""
        return [entry.path for entry in self.entries if not entry.problem]

    def skip(self, reason: str, path: Path) -> None:
        """Count a file that is not read."""
        self.skipped.setdefault(reason, []).append(shown(path.name))

    def skipped_text(self) -> str:
        """What was skipped, counted and named; empty where nothing was."""
        parts = []
        for reason, names in self.skipped.items():
            more = ", ..." if len(names) > _SHOWN else ""
            parts.append(f"{counted(len(names), reason)} ({', '.join(names[:_SHOWN])}{more})")
        return f"skipped: {', '.join(parts)}" if parts else ""


def expand(names: Sequence[str]) -> Inputs:
    """Image files of paths, folders and patterns, in order; a leading ``~`` is the home folder.

    Examples
    --------
    >>> [entry.problem for entry in expand([""]).entries]
    ['the name is empty']
    """
    inputs = Inputs()
    for name in names:
        place = os.path.expanduser(name)
        try:
            _expand(place, inputs)
        except OSError as error:  # of a name that is too long, or a folder that may not be read
            inputs.entries.append(Entry(Path(place), error.strerror or str(error)))
    return inputs


def _expand(name: str, inputs: Inputs) -> None:
    place = Path(name)
    if not name:
        inputs.entries.append(Entry(Path("''"), "the name is empty"))
    elif place.is_dir():
        found = _images_of(place, inputs)
        inputs.entries += [Entry(path) for path in found] or [Entry(place, "a folder without images")]
    elif place.is_file():
        inputs.entries.append(Entry(place))
    else:
        matches = sorted(map(Path, glob.glob(name, recursive=True)))
        for path in matches:
            if path.is_dir():
                inputs.skip("folder", path)
        files = [path for path in matches if path.is_file()]
        problem = "no such image, folder with images, or pattern that fits any file"
        if place.exists():
            problem = why_no_file(place, "image file")
        inputs.entries += [Entry(path) for path in files] or [Entry(place, problem)]


def _images_of(folder: Path, inputs: Inputs) -> list[Path]:
    """Images of a folder, not of those below it, by their names."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            inputs.skip("hidden file", path)
        elif path.is_dir():
            inputs.skip("folder", path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        else:
            inputs.skip("other file", path)
    return found


def in_table(path: Path | str) -> str:
    """A file's name as text, for tables; bytes that are not UTF-8 are written as ``\\xNN``.

    Examples
    --------
    >>> in_table("caf\\udce9.jpg")
    'caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def shown(path: Path | str) -> str:
    """A file's name as text on one line of a terminal; control characters, too, are written as ``\\xNN``.

    Examples
    --------
    >>> print(shown("caf\\udce9\\x1b[31m\\n.jpg"))
    caf\\xe9\\x1b[31m\\x0a.jpg
    """
    return on_one_line(in_table(path))


def table_place(option: str, name: str | None) -> Path | None:
    """Where a table goes; None is standard output. Raises ``ValueError`` for an empty name, as of an unset variable.

    Examples
    --------
    >>> table_place("--csv", "-"), table_place("--csv", "poses.csv").name
    (None, 'poses.csv')
    """
    if name == "":
        raise ValueError(f"{option}: the name is empty; expected a file's name, or - for standard output")
    return None if name in (None, STDOUT) else user_path(name)


def require_table(option: str, target: Path, inputs: Sequence[Path]) -> None:
    """Require that a table may and can be written.

    Parameters
    ----------
    option : str
        That named the file, for the message.
    target : Path
        The file; by its name no picture or video, and where it is there already by its name a table.
    inputs : sequence of Path
        Files that are read.

    Raises
    ------
    ValueError, OSError
        As ``require_output`` does, and ``ValueError`` for another kind of name.
    """
    pictures = {*IMAGE_SUFFIXES, *_UNREAD_IMAGE_SUFFIXES, *_VIDEO_SUFFIXES, *Image.registered_extensions()}
    if target.suffix.lower() in pictures:
        raise ValueError(
            f"{option} {shown(target)}: a table is not written under the name of a picture or video; name the table, "
            f"for instance poses.csv, or write the images before {option}"
        )
    require_output(option, target, inputs)
    if target.is_file() and target.suffix.lower() not in _TABLE_SUFFIXES:
        raise ValueError(
            f"{option} {shown(target)} is there already, and by its name it is no table, so that it is not replaced; "
            f"name a file that ends in one of {', '.join(_TABLE_SUFFIXES)}"
        )


def require_output(option: str, target: Path, inputs: Sequence[Path]) -> None:
    """Require that a file may and can be written.

    Parameters
    ----------
    option : str
        That named the file, for the message.
    target : Path
        The file.
    inputs : sequence of Path
        Files that are read.

    Raises
    ------
    ValueError
        Where it is one of the inputs, by whatever name.
    OSError
        Where it is a folder, is write-protected, or cannot be made.
    """
    status = _status(target)
    if status is None:
        _require_room(target)
        return
    if any(os.path.samestat(status, path.stat()) for path in inputs if path.exists()):
        raise ValueError(f"{option} {shown(target)}: this file is an input, which is never written over")
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{option} {shown(target)} is a folder; name a file")
    if not os.access(target, os.W_OK):
        raise PermissionError(f"{option} {shown(target)} is write-protected")
    # What is no regular file is written into, not replaced.
    if stat.S_ISREG(status.st_mode):
        _require_room(target)


def require_drawings(folder: Path, names: Sequence[str], inputs: Sequence[Path]) -> None:
    """Require that drawings may and can be written into a folder.

    Parameters
    ----------
    folder : Path
        The folder, which may have to be made.
    names : sequence of str
        Of the files to write there.
    inputs : sequence of Path
        Files that are read, or are to be: a link that leads nowhere is no output's input.

    Raises
    ------
    ValueError
        Where a drawing would be written over an input.
    OSError
        Where the folder is a file, or cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--draw {shown(folder)} is a file; name a folder")
    _require_room(folder / "drawing.jpg")
    taken = {(status.st_dev, status.st_ino) for status in map(_status, inputs) if status is not None}
    for path in (folder / name for name in names):
        status = _status(path)
        if status is not None and (status.st_dev, status.st_ino) in taken:
            raise ValueError(f"--draw {shown(folder)}: {shown(path)} is an input, which is never written over")


def _status(target: Path) -> os.stat_result | None:
    try:
        return target.stat()
    except FileNotFoundError:
        return None


def _require_room(target: Path) -> None:
    """Whether a file can be made beside ``target``, or in the nearest folder above that is there."""
    try:
        place = target.resolve() if target.is_symlink() else target.absolute()
    except FileNotFoundError as error:
        raise OSError(error.errno, "cannot be written (the working folder was removed)", shown(target)) from error
    folder = next(above for above in place.parents if above.exists())
    try:
        # Without a name where the system can, and gone at once.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", shown(target)) from error
