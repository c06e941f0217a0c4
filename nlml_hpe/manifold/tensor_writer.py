"""Writes the landmark tensor person by person; a run that was killed goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import SEARCHES
from nlml_hpe.files.atomic import OWN_PREFIX, ArtifactError, read_json, record, write_bytes, write_json
from nlml_hpe.files.folders import empty_partial, partial_of, replace_folder, require_replaceable
from nlml_hpe.files.locks import exclusive
from nlml_hpe.files.manifests import digest_of, write_manifest
from nlml_hpe.manifold.tensor import BOXES, DATA, KIND, LandmarkTensor
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import CONVENTION
from nlml_hpe.version import VERSION

_DONE, _IDENTITY = f"{OWN_PREFIX}done_", f"{OWN_PREFIX}identity.json"
"""Markers in an unfinished tensor: people who are written, and what all of it depends on."""
_ZEROS = 1024 * 1024
"""Bytes that are written at once to take space."""


class PersonRows(NamedTuple):
    """One person's features: ``grid`` (yaw, pitch, roll, F), ``random`` (K, F), how each face was found, and its box
    in pixels (..., 4): left, top, right, bottom."""

    grid: NDArray[np.float32]
    routes: NDArray[np.uint8]
    random: NDArray[np.float32]
    random_routes: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    random_boxes: NDArray[np.float32]


class LandmarkTensorWriter:
    """Writes a tensor person by person; a run that was killed goes on where it stopped.

    Space is reserved at the start, so that a full disk is an error then and there. Rows are flushed
    before a person is marked done; the folder takes its final name when all are.
    """

    def __init__(
        self,
        folder: Path,
        people: list[int],
        grid: PoseGrid,
        feature_length: int,
        random_angles: NDArray[np.float64],
        identity: Any,
    ) -> None:
        self.folder, self.people, self.grid = folder, people, grid
        self.feature_length, self.random_angles = feature_length, random_angles
        self._partial = partial_of(folder)
        # With the version: a run that another one began, maybe with other files, is not gone on with.
        self._digest = digest_of([VERSION, identity, [*DATA, *BOXES]])
        self._lock = exclusive(folder)
        self._arrays: dict[str, Any] = {}

    def __enter__(self) -> LandmarkTensorWriter:
        self._lock.__enter__()
        try:
            self._prepare()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        self._arrays = {name: self._open(name, shape) for name, shape, _ in self._layout()}
        return self

    def _prepare(self) -> None:
        """Go on with what an interrupted run of the same settings left; begin anew in place of any other."""
        require_replaceable(self.folder, KIND)
        marker = self._partial / _IDENTITY
        if marker.is_file() and read_json(marker) == self._digest:
            return
        empty_partial(self.folder, KIND)
        record(self._partial, "random_angles.npy", *(f"{name}.npy" for name in (*DATA, *BOXES)))
        for name, shape, kind in self._layout():
            _reserve(self._partial / f"{name}.npy", shape, kind)
        with (self._partial / "random_angles.npy").open("wb") as stream:
            np.save(stream, self.random_angles, allow_pickle=False)
        write_json(marker, self._digest)

    def _open(self, name: str, shape: tuple[int, ...]) -> Any:
        path = self._partial / f"{name}.npy"
        # An empty file cannot be mapped, and has nothing to be written.
        return np.load(path) if 0 in shape else np.lib.format.open_memmap(path, mode="r+")

    def __exit__(self, *details: Any) -> None:
        self._arrays.clear()
        self._lock.__exit__(*details)

    def _layout(self) -> list[tuple[str, tuple[int, ...], str]]:
        count, samples = len(self.people), self.random_angles.shape[1]
        shapes = (
            (count, *self.grid.shape, self.feature_length),
            (count, *self.grid.shape),
            (count, samples, self.feature_length),
            (count, samples),
            (count, *self.grid.shape, 4),
            (count, samples, 4),
        )
        return list(zip((*DATA, *BOXES), shapes, ("<f4", "|u1", "<f4", "|u1", "<f4", "<f4"), strict=True))

    def pending(self) -> list[int]:
        """People whose rows are not written yet."""
        return [person for person in self.people if not (self._partial / f"{_DONE}{person}").is_file()]

    def take_over(self, keys: Mapping[int, str]) -> None:
        """Copy the rows of people that the finished tensor, which this one will replace, holds under the same key.

        Parameters
        ----------
        keys : Mapping from int to str
            By person the digest of all that its rows depend on.
        """
        try:
            old = LandmarkTensor.open(self.folder)
        except ArtifactError:
            return
        parts = (old.features, old.routes, old.random_features, old.random_routes, old.boxes, old.random_boxes)
        if any(
            part is None or part.shape[1:] != shape[1:]
            for part, (_, shape, _) in zip(parts, self._layout(), strict=True)
        ):
            return
        for person in self.pending():
            if person in old.keys and old.keys[person] == keys.get(person):
                row = old.people.index(person)
                self.put(person, PersonRows(*(part[row] for part in parts if part is not None)))

    def put(self, person: int, rows: PersonRows) -> None:
        """Write one person's rows durably."""
        index = self.people.index(person)
        for name, row in zip((*DATA, *BOXES), rows, strict=True):
            self._arrays[name][index] = row
            if isinstance(self._arrays[name], np.memmap):
                self._arrays[name].flush()
        write_bytes(self._partial / f"{_DONE}{person}", b"")

    def finish(self, config: Any, inputs: Mapping[str, str], feature: str, keys: Mapping[int, str]) -> Path:
        """Give the complete tensor its final name.

        Parameters
        ----------
        config, inputs
            As of ``manifests.write_manifest``.
        feature : str
            Name of the feature, see ``PointSet.feature_name``.
        keys : mapping of int to str
            As of ``take_over``.

        Returns
        -------
        Path
            The finished folder.

        Raises
        ------
        ArtifactError
            Where people are missing.
        """
        if self.pending():
            raise ArtifactError(
                f"{self.folder}: {len(self.pending())} people are not written yet: {self.pending()[:5]}"
            )
        # Copies: a view would keep its file mapped, and Windows renames no folder with such a file.
        routes, random_routes = (np.array(self._arrays[name]) for name in ("routes", "random_routes"))
        facts = {
            "grid": self.grid.as_dict(),
            "convention": CONVENTION,
            "feature": feature,
            "feature_length": self.feature_length,
            "people": self.people,
            "keys": {str(person): key for person, key in keys.items()},
            "cells": int(routes.size),
            "cells_missed": int((routes == 0).sum()),
            "routes": list(SEARCHES),
            "random": int(random_routes.size),
            "random_missed": int((random_routes == 0).sum()),
        }
        self._arrays.clear()
        write_manifest(self._partial, KIND, config, inputs, facts)
        replace_folder(self._partial, self.folder, KIND)
        return self.folder


def _reserve(path: Path, shape: tuple[int, ...], kind: str) -> None:
    """Create a zero-filled ``.npy`` whose space is really taken: a sparse file on a full disk kills with SIGBUS."""
    if 0 in shape:
        with path.open("wb") as stream:
            np.save(stream, np.zeros(shape, dtype=kind), allow_pickle=False)
        return
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    try:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(kind), shape=shape)
        with path.open("r+b") as stream:
            _take_space(stream, path.stat().st_size, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"{path}: no room for {size / 1e9:.2f} GB of landmarks ({error.strerror})"
        ) from error


def _take_space(stream: BinaryIO, whole: int, zeros: int) -> None:
    """Take the space of a file of ``whole`` bytes, of which the last ``zeros`` are zero."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, whole)
        return
    stream.seek(whole - zeros)  # macOS has no such call, and takes space where something is written
    for start in range(0, zeros, _ZEROS):
        stream.write(bytes(min(_ZEROS, zeros - start)))
