"""Sources of heads: one reader per file, each giving ``Mesh`` objects by person number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from renderer.config import FIRST_VALIDATION_PERSON, HeadsConfig
from renderer.mesh import Mesh


class HeadDataError(ValueError):
    """The data that heads are made of is missing or not what it should be; the message says how to get it."""


EYE_CORNER_DISTANCE_MM = 90.0
"""Distance of the outer eye corners (FaceMesh 33, 263) of an adult, which sets the scale of heads without one."""


class HeadSource(Protocol):
    """People by number: training people from 1, validation people from ``FIRST_VALIDATION_PERSON``.

    The same number is always the same person.
    """

    def describe(self) -> dict[str, object]:
        """Facts for the artefact's manifest: where the heads come from."""
        ...

    def head(self, person: int) -> Mesh:
        """The head of this person."""
        ...


class _Reader(NamedTuple):
    """How the heads of one source are opened, and how it is said what is there of them."""

    open: Callable[[HeadsConfig, int, Path | None], HeadSource]
    check: Callable[[HeadsConfig], list[str]]


def _photo() -> _Reader:
    from renderer.heads.photo import PhotoHeads, check

    return _Reader(lambda config, seed, _: PhotoHeads.open(config, seed), lambda config: check(config.photos))


def _ict_facekit() -> _Reader:
    from renderer.heads.ict_facekit import IctHeads
    from renderer.heads.ict_kit import check
    from renderer.makehuman import check_wardrobe

    def found(config: HeadsConfig) -> list[str]:
        return check(config.source_folder) + ([] if config.makehuman is None else check_wardrobe(config.makehuman))

    return _Reader(IctHeads.open, found)


def _facescape() -> _Reader:
    from renderer.heads.facescape import FaceScapeHeads, check

    return _Reader(
        lambda config, seed, _: FaceScapeHeads.open(config, seed),
        lambda config: check(config.source_folder, config.publishable),
    )


def _scan() -> _Reader:
    from renderer.heads.scan import ScanHeads, check

    return _Reader(lambda config, *_: ScanHeads.open(config), lambda config: check(config.source_folder))


# Loaded on demand: each reader's needs are only those of who chooses it.
_SOURCES: dict[str, Callable[[], _Reader]] = {
    "photo": _photo,
    "ict_facekit": _ict_facekit,
    "facescape": _facescape,
    "scan": _scan,
}


def open_heads(config: HeadsConfig, seed: int, cache: Path | None = None) -> HeadSource:
    """The source of heads that the configuration names.

    Parameters
    ----------
    config : HeadsConfig
        Names the source and its folder.
    seed : int
        By which people are drawn.
    cache : Path, optional
        Folder for what is slow to read.

    Returns
    -------
    HeadSource
        Of training and validation people.

    Raises
    ------
    HeadDataError
        Where the data is missing or damaged, or holds fewer people than are asked for.
    """
    return _SOURCES[config.source]().open(config, seed, cache)


def check_heads(config: HeadsConfig) -> list[str]:
    """What the configured source needs, line by line: ``found`` or ``missing``, and how to get it."""
    return _SOURCES[config.source]().check(config)


def require_people(found: int, config: HeadsConfig, what: str) -> None:
    """Require as many heads as the configuration asks for.

    Parameters
    ----------
    found : int
        How many there are.
    config : HeadsConfig
        How many training and validation people are wanted.
    what : str
        What was looked through, for the message.

    Raises
    ------
    HeadDataError
        Where there are fewer.
    """
    wanted = config.train + config.validation
    if found < wanted:
        raise HeadDataError(
            f"{what}: {found} found, {wanted} asked for (heads.train {config.train} + heads.validation "
            f"{config.validation}); lower these, or see `stages/Render.py --check`"
        )


def place_in_order(person: int, count: int) -> int:
    """Index of a person's head among ``count`` heads in files.

    Training people are taken from the first on, validation people from the last on, so neither depends on how many
    of the others there are.

    >>> place_in_order(1, 10), place_in_order(FIRST_VALIDATION_PERSON, 10)
    (0, 9)
    """
    return person - 1 if person < FIRST_VALIDATION_PERSON else count - 1 - (person - FIRST_VALIDATION_PERSON)
