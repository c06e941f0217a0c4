"""What was read from mesh files, kept in one ``.npz`` file: reading that takes a hundredth of the time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.arrays import read_npz, write_npz
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import digest_of_names_and_sizes

Arrays = dict[str, NDArray[Any]]
_FACTS = "header"


def digest_of_meshes(folder: Path) -> str:
    """Of the names, sizes and times of a folder's files, without hidden ones.

    Times as well, unlike the digest that a stage compares: a stage that is forced reads a mesh that kept its size.
    """
    return digest_of_names_and_sizes(folder, times=True)


def write_cache(path: Path, digest: str, facts: Mapping[str, Any], arrays: Arrays) -> None:
    """Keep arrays, and facts beside them.

    Parameters
    ----------
    path : Path
        The file, replaced as a whole.
    digest : str
        Of all that they were made from.
    facts : mapping
        What JSON can say.
    arrays : dict of str to array
        By names other than "header".
    """
    header = np.frombuffer(json.dumps({**facts, "digest": digest}).encode(), dtype=np.uint8)
    write_npz(path, {_FACTS: header, **arrays})


def read_cache(path: Path, digest: str) -> tuple[dict[str, Any], Arrays] | None:
    """What ``write_cache`` kept.

    Parameters
    ----------
    path : Path
        The file.
    digest : str
        Of what is there today.

    Returns
    -------
    facts, arrays
        None where the file is missing, does not read, or was made from something else: then it is made again.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_cache(Path(folder) / "a.npz", "today", {"names": ["one"]}, {"x": np.arange(2)})
    ...     facts, arrays = read_cache(Path(folder) / "a.npz", "today")
    ...     read_cache(Path(folder) / "a.npz", "tomorrow")
    >>> facts["names"], arrays["x"].tolist()
    (['one'], [0, 1])
    """
    try:
        arrays = read_npz(path)
        facts = json.loads(arrays.pop(_FACTS).tobytes())
        return (facts, arrays) if facts["digest"] == digest else None
    except (ArtifactError, ValueError, KeyError, TypeError, RecursionError):
        return None
