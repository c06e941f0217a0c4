"""Answers as lines, JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nlml_hpe.cli.streams import say_error, write_out
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.rotation import AXES

COLUMNS = (
    "status",
    "face",
    *AXES,
    *(f"sigma_{axis}" for axis in AXES),
    "in_range",
    "score",
    "eye",
    "facing",
    "left",
    "top",
    "right",
    "bottom",
)
"""What a row says of a face; ``status`` is one of the three words below."""
FACE, NO_FACE, UNREADABLE = "face", "no face", "unreadable"


def face_rows(faces: Sequence[dict[str, Any]], status: str = NO_FACE) -> Iterator[dict[str, Any]]:
    """Faces as rows of a table, by the names in ``COLUMNS``; without any one row with ``status`` alone.

    Parameters
    ----------
    faces : sequence of dict
        As ``HeadPose.as_dict`` gives them.
    status : str
        Why there is none.

    Yields
    ------
    dict
        One row; what has no value is missing or empty.

    Examples
    --------
    >>> list(face_rows([]))
    [{'status': 'no face'}]
    """
    if not faces:
        yield {"status": status}
    for number, face in enumerate(faces, start=1):
        sigma = face["sigma"] or ["", "", ""]
        yield {
            "status": FACE,
            "face": number,
            **{axis: round(face[axis], 4) for axis in AXES},
            **{f"sigma_{axis}": s if s == "" else round(s, 4) for axis, s in zip(AXES, sigma, strict=True)},
            "in_range": face["in_range"],
            "score": "" if face["score"] is None else round(face["score"], 4),
            "eye": face["eye"],
            "facing": face["facing"],
            **dict(zip(("left", "top", "right", "bottom"), (round(v, 1) for v in face["box"]), strict=True)),
        }


def face_line(face: dict[str, Any]) -> str:
    """One face in words."""
    named = "  ".join(f"{axis} {face[axis]:+7.2f}" for axis in AXES)
    spread = "" if face["sigma"] is None else "  +- " + ", ".join(f"{s:.1f}" for s in face["sigma"])
    # The image eye has seen heads all the way round; the range is the landmark eye's.
    note = "" if face["in_range"] else "  (outside the landmark eye's range of training)"
    note = "  (by the image eye alone)" if face["eye"] == "image" else note
    return f"{named} degrees{spread}{note}"


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as JSON."""
    return json.dumps(rows, indent=2) + "\n"


def as_csv(columns: Sequence[str], rows: Iterable[dict[str, Any]], with_header: bool = True) -> str:
    """Rows as CSV; what a row does not say is left empty.

    Parameters
    ----------
    columns : sequence of str
        Their names, in order.
    rows : iterable of dict
        By these names.
    with_header : bool
        Whether a line with the names comes first.

    Returns
    -------
    str
        One line for each row, with its end.

    Examples
    --------
    >>> print(as_csv(("a", "b"), [{"a": 1}, {"a": 2, "b": 3}]), end="")
    a,b
    1,
    2,3
    """
    lines = _Lines()
    # Python before 3.13 quotes a carriage return, as a file's name may hold, where lines end in one.
    writer = csv.DictWriter(lines, columns, restval="", lineterminator="\r\n")
    if with_header:
        writer.writeheader()
    writer.writerows(rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


class _Lines(list[str]):
    """What a csv writer writes, row by row."""

    write = list.append


def write_table(text: str, target: Path | None) -> bool:
    """Write a table to a file, or to stdout without one; a table that the disk does not take goes to stdout.

    Returns whether it is where it should be.
    """
    if target is not None:
        try:
            write_bytes(target, text.encode())
        except OSError as error:
            say_error(f"{error}; the table follows on stdout")
        else:
            return True
    write_out(text)
    return target is None
