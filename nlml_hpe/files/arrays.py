"""Files of arrays, which may be damaged: ``.npy`` memory-mapped, ``.npz`` read under a bound.

A few kilobytes of an ``.npz`` file can unpack to any number of gigabytes.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nlml_hpe.files.atomic import ArtifactError, write_bytes

MAX_NPZ_BYTES = 4 * 1024**3
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED_HEADER = (
    tokenize.TokenError,
    SyntaxError,
    OverflowError,
    LookupError,
    TypeError,
    RecursionError,
    MemoryError,  # Python's parser, of what is nested too deeply
)
"""What numpy's parser of headers raises, beside ValueError, where they are no headers."""
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path, names: Sequence[str] | None = None, max_bytes: int = MAX_NPZ_BYTES) -> dict[str, NDArray[Any]]:
    """Arrays of an ``.npz`` file; nothing is unpickled.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str, optional
        The arrays to read; by default all of them.
    max_bytes : int
        What the arrays may take in memory together.

    Returns
    -------
    dict of str to ndarray
        By name, in the order of ``names`` or of the file.

    Raises
    ------
    ArtifactError
        Where the file is missing, damaged, no ``.npz`` file, lacks one of ``names``, or unpacks to more. The message
        begins with ``path`` and a colon.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "a.npz", x=np.arange(3))
    ...     read_npz(Path(folder) / "a.npz")["x"].tolist()
    [0, 1, 2]
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            stored = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            chosen = {name: stored[name] for name in (stored if names is None else names)}
            for member in chosen.values():
                if member.compress_type not in _COMPRESSIONS:
                    raise ValueError(f"{member.filename} is compressed in a way that numpy does not write")
            if sum(member.file_size for member in chosen.values()) > max_bytes:
                raise ArtifactError(f"{path}: more than {max_bytes} bytes when unpacked")
            return {name: _array(archive, member) for name, member in chosen.items()}
    except KeyError as error:
        raise ArtifactError(f"{path}: the array {error} is missing") from error
    except ArtifactError:
        raise
    # RuntimeError: encrypted.
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{path}: damaged or no .npz file ({error})") from error


def write_npz(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by their names as an ``.npz`` file, atomically; see ``atomic.atomic_path``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_npz(Path(folder) / "a.npz", {"x": np.arange(3)})
    ...     read_npz(Path(folder) / "a.npz")["x"].tolist()
    [0, 1, 2]
    """
    # By way of memory: a disk that fills has Python's archive print a traceback of its own beside the error.
    content = BytesIO()
    np.savez(content, **dict(arrays))
    write_bytes(path, content.getvalue())


def map_npy(path: Path, mode: Literal["r", "c"]) -> NDArray[Any]:
    """Memory-map a ``.npy`` file; an empty array, which cannot be mapped, is read.

    Parameters
    ----------
    path : Path
        The file.
    mode : {"r", "c"}
        Read only, or copy on write: then what is written into the array stays in memory.

    Returns
    -------
    ndarray
        Its array, read from the file where it is looked at.

    Raises
    ------
    OSError
        Where the file does not open.
    ValueError
        Where it is damaged, holds objects, or is shorter than its header says.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "numbers.npy", np.arange(3))
    ...     map_npy(Path(folder) / "numbers.npy", "r").tolist()
    [0, 1, 2]
    """
    try:
        with path.open("rb") as stream:
            npy.read_magic(stream)
            shape, _, _ = npy.read_array_header_1_0(stream)
        return np.asanyarray(np.load(path, mmap_mode=mode if math.prod(shape) else None, allow_pickle=False))
    except (EOFError, *_DAMAGED_HEADER) as error:
        raise ValueError(f"a damaged header: {error}") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """numpy makes room for what an array's own header says, so that is first compared with what is stored.

    All that is stored is read, for only at its end is its checksum looked at.
    """
    try:
        with archive.open(member) as stream:
            version = npy.read_magic(stream)
            if version not in _HEADERS:
                raise ValueError(f"{member.filename} is an array of an unknown version {version}")
            shape, _, dtype = _HEADERS[version](stream)
            announced = stream.tell() + math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and announced != member.file_size:
            raise ValueError(f"{member.filename} has {member.file_size} bytes; its header announces {announced}")
        with archive.open(member) as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False))
    except _DAMAGED_HEADER as error:
        raise ValueError(f"{member.filename} has a damaged header ({error})") from error
