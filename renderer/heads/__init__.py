"""Sources of heads: one reader per file, each giving ``Mesh`` objects by person number."""

from __future__ import annotations

from typing import Protocol

from nlml_hpe.config import HeadsConfig
from renderer.mesh import Mesh


class HeadSource(Protocol):
    """People by number, starting at 1; the same number is always the same person."""

    def describe(self) -> dict[str, object]:
        """Facts for the artefact's manifest: where the heads come from."""
        ...

    def head(self, person: int) -> Mesh:
        """The head of this person."""
        ...


def open_heads(config: HeadsConfig, seed: int) -> HeadSource:
    """The source of heads that the configuration names."""
    from renderer.heads.photo import PhotoHeads

    return PhotoHeads.open(config, seed)
