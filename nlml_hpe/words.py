"""Words and bars that the command line shows."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

BAR_DELAY_SECONDS = 1.0
"""How long a progress bar waits before it is drawn: what the detector's libraries print at their first image would
tear it."""
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text for a terminal: control characters, by which a file's name could write over others, as ``\\xNN``; line feeds
    stay.

    Examples
    --------
    >>> print(printable("a\\x1b[31m\\rb"))
    a\\x1b[31m\\x0db
    """
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def on_one_line(text: str) -> str:
    """As ``printable``, and line feeds, which a file's name may have, as ``\\x0a``.

    Examples
    --------
    >>> print(on_one_line("a\\nb.jpg"))
    a\\x0ab.jpg
    """
    return printable(text).replace("\n", "\\x0a")


def said_of(error: BaseException) -> str:
    """What an error says; Python's own of memory says nothing, and numpy's names an array.

    Examples
    --------
    >>> said_of(ValueError("no model")), said_of(MemoryError())
    ('no model', 'there is not enough memory')
    """
    if not isinstance(error, MemoryError):
        return str(error)
    return f"there is not enough memory ({error})" if str(error) else "there is not enough memory"


def show_all_letters() -> None:
    """Have both standard streams show letters that their encoding lacks as codes, which is better than an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s unless there is one.

    Examples
    --------
    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def why_no_file(path: Path, wanted: str) -> str:
    """What is wrong with a path that is no regular file.

    Parameters
    ----------
    path : Path
        For which ``is_file()`` is false.
    wanted : str
        What it should have been, such as ``"image file"``.

    Returns
    -------
    str
        That it is not there, or what it is.

    Examples
    --------
    >>> why_no_file(Path("nowhere.jpg"), "image file"), why_no_file(Path("."), "image file")
    ('no such image file', 'a folder, where an image file is wanted')
    """
    if not path.exists():
        return f"no such {wanted}"
    kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
    return f"{kind}, where {'an' if wanted[0] in 'aeiou' else 'a'} {wanted} is wanted"
