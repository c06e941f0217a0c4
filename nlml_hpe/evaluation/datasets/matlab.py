"""Numeric arrays out of MATLAB 5 files, which is what the labels of AFLW2000-3D and 300W-LP are.

Labels come from anywhere, and some are damaged. ``scipy.io.loadmat`` is no reader for those: with a few bytes
changed it ends the whole process (a segmentation fault, scipy 1.17), and it does not bound what it decompresses.
Here every length is checked before it is used, and whatever does not fit is a ``LabelError``.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_LABEL_BYTES = 16 * 1024 * 1024
"""Larger files, and files that unpack to more in all, are no labels: those of AFLW2000-3D have 2 kilobytes."""
MAX_ELEMENTS = 1000
"""Of a file, the parts of its matrices among them: those of 300W-LP have some fifty."""
_HEADER, _TAG = 128, 8
_COMPRESSED, _MATRIX = 15, 14
_CODES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = range(6, 16)
_CLASSES = {1: "a cell array", 2: "a struct", 3: "an object", 4: "text", 5: "a sparse array"}
_COMPLEX = 0x800


class LabelError(ValueError):
    """A label does not read; the message is the reason, in a few words that are the same for every such file."""


@dataclass
class _Budget:
    """How many bytes a file may still unpack to, and how many elements it may still have."""

    size: int = MAX_LABEL_BYTES
    elements: int = MAX_ELEMENTS


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """Read the named variables of a MATLAB 5 file, as float64.

    Parameters
    ----------
    path : Path
        The ``.mat`` file.
    names : collection of str
        Which variables are wanted. Others are not looked at, and may be of any kind.

    Returns
    -------
    dict of str to ndarray
        The wanted variables that the file holds, in MATLAB's shapes.

    Raises
    ------
    LabelError
        Where the file cannot be opened, is or unpacks to more than ``MAX_LABEL_BYTES``, has more than ``MAX_ELEMENTS``,
        is damaged or of another format, or where a wanted variable is no real numeric array.

    Examples
    --------
    >>> import tempfile
    >>> from scipy.io import savemat
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     savemat(f"{folder}/a.mat", {"Pose_Para": [[0.1, 0.2, 0.3]], "other": "text"})
    ...     read_arrays(Path(folder) / "a.mat", ["Pose_Para"])
    {'Pose_Para': array([[0.1, 0.2, 0.3]])}
    """
    content = read_bounded(path)
    if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
        raise LabelError("not a MATLAB 5 file")
    order = "<" if content[126:128] == b"IM" else ">"
    found: dict[str, NDArray[np.float64]] = {}
    budget = _Budget()
    for kind, data in _elements(content[_HEADER:], order, budget):
        # What is compressed is one matrix in its own frame.
        whole = _elements(_unpacked(data, budget), order, budget) if kind == _COMPRESSED else [(kind, data)]
        found |= dict(_wanted(whole, order, names, budget))
    return found


def read_bounded(path: Path) -> bytes:
    """Bytes of a label file. Raises ``LabelError`` where it cannot be opened or is too large."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_LABEL_BYTES + 1)
    except OSError as error:
        raise LabelError(error.strerror or type(error).__name__) from error
    if len(content) > MAX_LABEL_BYTES:
        raise LabelError(f"larger than {MAX_LABEL_BYTES} bytes")
    return content


def _wanted(
    elements: Iterable[tuple[int, bytes]], order: str, names: Collection[str], budget: _Budget
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    for kind, data in elements:
        if kind == _MATRIX:
            parts = list(_elements(data, order, budget))
            name = _name(parts)
            if name in names:
                yield name, _array(parts, order)


def _unpacked(data: bytes, budget: _Budget) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, budget.size + 1)
    except zlib.error as error:
        raise LabelError("damaged") from error
    budget.size -= len(content)
    if budget.size < 0:
        raise LabelError(f"unpacks to more than {MAX_LABEL_BYTES} bytes")
    if not stream.eof:
        raise LabelError("cut short")
    return content


def _elements(data: bytes, order: str, budget: _Budget) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of the elements that lie one after the other; each is padded to eight bytes."""
    position = 0
    while position < len(data):
        budget.elements -= 1
        if budget.elements < 0:
            raise LabelError(f"more than {MAX_ELEMENTS} elements")
        if len(data) - position < _TAG:
            raise LabelError("cut short")
        kind, length = struct.unpack(f"{order}II", data[position : position + _TAG])
        start = position + _TAG
        if kind >> 16:  # the small form: kind, length and up to four bytes in one
            kind, length, start = kind & 0xFFFF, kind >> 16, position + 4
            if length > 4:
                raise LabelError("damaged")
        if start + length > len(data):
            raise LabelError("cut short")
        yield kind, data[start : start + length]
        padded = length if kind == _COMPRESSED else length + -(start + length) % 8
        position = start + padded


def _name(parts: list[tuple[int, bytes]]) -> str:
    if len(parts) < 3:
        raise LabelError("damaged")
    return parts[2][1].decode("latin-1")


def _array(parts: list[tuple[int, bytes]], order: str) -> NDArray[np.float64]:
    """The values of a matrix: its parts are flags, dimensions, name and real part."""
    flags = int(_numbers(parts[0], order)[:1].sum())
    kind = flags & 0xFF
    if kind not in _NUMERIC:
        raise LabelError(f"{_CLASSES[kind]} in place of numbers" if kind in _CLASSES else "damaged")
    if flags & _COMPLEX:
        raise LabelError("complex numbers")
    shape = [int(size) for size in _numbers(parts[1], order)]
    values = _numbers(parts[3], order) if len(parts) > 3 else np.empty(0)
    # A product in Python's integers, which no damaged dimension overflows.
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) != len(values):
        raise LabelError("damaged")
    return values.reshape(shape, order="F")


def _numbers(part: tuple[int, bytes], order: str) -> NDArray[np.float64]:
    kind, data = part
    if kind not in _CODES or len(data) % np.dtype(_CODES[kind]).itemsize:
        raise LabelError("damaged")
    return np.frombuffer(data, dtype=order + _CODES[kind]).astype(np.float64)
