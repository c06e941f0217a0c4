"""Checkpoints of a training: written whole after every epoch, read without running any code of the file."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from nlml_hpe.files.atomic import atomic_path
from nlml_hpe.training_error import TrainingError

SUFFIX = ".checkpoint"
_FORMAT = "nlml-hpe training 1"
NOT_READ = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
)
"""What comes of reading a file of ``torch.save`` that is damaged: torch checks little, so that a wrong byte is noticed
wherever it is used, as a name, an index, a type, or a state that does not fit."""


def write_checkpoint(folder: Path, name: str, identity: str, state: Mapping[str, Any]) -> Path:
    """Write ``folder / NAME.checkpoint`` atomically.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    name : str
        Of the training.
    identity : str
        Digest of all that the training depends on.
    state : mapping
        Tensors, numbers, texts, and lists and dicts of them.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_checkpoint(Path(folder), "line", "digest", {"weight": torch.ones(1)})
    ...     path.name, read_checkpoint(Path(folder), "line", "digest"), read_checkpoint(Path(folder), "line", "other")
    ('line.checkpoint', {'weight': tensor([1.])}, None)
    """
    path = folder / f"{name}{SUFFIX}"
    # By way of memory: torch itself reports a full disk as an error of its own, with text that helps nobody.
    content = BytesIO()
    torch.save({"format": _FORMAT, "identity": identity, "state": dict(state)}, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return path


def read_checkpoint(folder: Path, name: str, identity: str) -> dict[str, Any] | None:
    """The state of a training that was broken off, on the CPU.

    Parameters
    ----------
    folder : Path
        As for `write_checkpoint`.
    name : str
        Of the training.
    identity : str
        Digest of all that the training depends on.

    Returns
    -------
    dict or None
        None where there is no checkpoint, or one of another training, which the next epoch replaces.

    Raises
    ------
    TrainingError
        Where the file is damaged or no checkpoint.
    """
    path = folder / f"{name}{SUFFIX}"
    if not path.is_file():
        return None
    try:
        # Tensors and plain containers only: nothing in the file is run.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except NOT_READ as error:
        # What torch says of it advises to run the file's code.
        raise damaged(folder, name) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("state"), dict):
        raise TrainingError(f"{path} is no checkpoint of this project; move it away, and training starts anew")
    return content["state"] if content.get("identity") == identity else None


def damaged(folder: Path, name: str) -> TrainingError:
    """What is to be said of a checkpoint that does not read, or whose state does not fit."""
    return TrainingError(
        f"{folder / f'{name}{SUFFIX}'} is damaged or no checkpoint; move it away, and training starts anew"
    )
