"""Sources of heads: one reader per file, each giving ``Mesh`` objects by person number."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from nlml_hpe.config import HeadsConfig
from renderer.mesh import Mesh


class HeadDataError(ValueError):
    """The data that heads are made of is missing or not what it should be; the message says how to get it."""


class HeadSource(Protocol):
    """People by number, starting at 1; the same number is always the same person."""

    def describe(self) -> dict[str, object]:
        """Facts for the artefact's manifest: where the heads come from."""
        ...

    def head(self, person: int) -> Mesh:
        """The head of this person."""
        ...


def open_heads(config: HeadsConfig, seed: int, cache: Path | None = None) -> HeadSource:
    """The source of heads that the configuration names; ``cache`` is a folder for what is slow to read."""
    # Imported on demand: each reader's needs are only those of who chooses it.
    if config.source == "ict_facekit":
        from renderer.heads.ict_facekit import IctHeads

        return IctHeads.open(config, seed, cache)
    if config.source == "facescape":
        from renderer.heads.facescape import FaceScapeHeads

        return FaceScapeHeads.open(config, seed)
    from renderer.heads.photo import PhotoHeads

    return PhotoHeads.open(config, seed)
