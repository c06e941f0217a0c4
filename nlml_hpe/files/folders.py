"""Folders written whole or not at all, of which nothing is ever removed that this project did not write.

A folder is filled beside its place, under the name ``<folder>.partial``, and takes its place by a rename. What it
replaces is renamed aside, to ``<folder>.replaced``, and of that only the files are removed that our own manifest of the
same kind lists. A folder that holds anything else is not replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nlml_hpe.files.atomic import JOURNAL, OWN_PREFIX, ArtifactError, read_json, write_bytes, write_json
from nlml_hpe.files.locks import exclusive
from nlml_hpe.files.manifests import MANIFEST, read_manifest
from nlml_hpe.version import VERSION
from nlml_hpe.words import on_one_line

_MOST_NAMED = 5
_BEGUN = f"{OWN_PREFIX}identity.json"
"""The mark in an unfinished folder that says which run it is of."""


@contextmanager
def fresh_folder(folder: Path, kind: str) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` if the block succeeds.

    Parameters
    ----------
    folder : Path
        Where the finished folder is to lie; of a symbolic link the folder that it names is replaced.
    kind : str
        The kind in the manifest that the block writes (``manifests.write_manifest``).

    Yields
    ------
    Path
        The folder to fill. It is emptied again where the block fails.

    Raises
    ------
    ArtifactError
        Before the block where ``folder`` exists and is not a finished folder of this kind and nothing else; after it
        where the block wrote no manifest.
    """
    with exclusive(folder):
        partial = empty_partial(folder, kind)
        try:
            yield partial
            replace_folder(partial, folder, kind)
        except BaseException:
            with suppress(ArtifactError, OSError):
                remove_own(partial, kind)
            raise


def require_replaceable(folder: Path, kind: str) -> None:
    """Raise ``ArtifactError`` unless ``folder`` may be written: absent, empty, or ours of this kind and nothing else.

    What stands beside it from a run that was killed (``<folder>.partial``) is judged in the same way. Call it before
    hours of work; ``fresh_folder`` calls it too.
    """
    for path in (place_of(folder), partial_of(folder), _aside_of(folder)):
        if path.exists() and not path.is_dir():
            raise ArtifactError(f"{path} is a file, where a folder is to be written; name another folder")
        foreign = foreign_entries(path, kind)
        if foreign:
            named = ", ".join(map(on_one_line, foreign[:_MOST_NAMED])) + (" ..." if len(foreign) > _MOST_NAMED else "")
            raise ArtifactError(
                f"{path} is not replaced, for it holds what no {kind!r} run has written: {named}; "
                "name another folder, or move these away"
            )
    parent = next(path for path in place_of(folder).parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ArtifactError(f"{folder} cannot be written, for {parent} is no folder that you may write into")


def partial_of(folder: Path) -> Path:
    """Where ``folder`` is filled until it is finished."""
    place = place_of(folder)
    return place.with_name(f"{place.name}.partial")


def _aside_of(folder: Path) -> Path:
    place = place_of(folder)
    return place.with_name(f"{place.name}.replaced")


def place_of(folder: Path) -> Path:
    """The folder itself, of a symbolic link the one that it names, of ``..`` the one that has a name."""
    return Path(os.path.realpath(folder))


def empty_partial(folder: Path, kind: str) -> Path:
    """Make the empty folder beside ``folder`` that is to be filled, with a journal of what is written into it.

    Raises ``ArtifactError`` as ``require_replaceable`` does.
    """
    partial, aside = partial_of(folder), _aside_of(folder)
    require_replaceable(folder, kind)
    if aside.exists() and not folder.exists():
        os.replace(aside, place_of(folder))  # killed between the two renames
    remove_own(aside, kind)
    remove_own(partial, kind)
    partial.mkdir(parents=True)
    write_bytes(partial / JOURNAL, f"{json.dumps(kind)}\n".encode())
    return partial


def begun_folder(folder: Path, kind: str, digest: str) -> Path:
    """The unfinished folder of a run that was interrupted, to go on with, or an empty one.

    Parameters
    ----------
    folder : Path
        Where the finished folder is to lie.
    kind : str
        As of ``fresh_folder``.
    digest : str
        Of all that the run depends on but for this package; what one with another digest, or of another version,
        began is not gone on with.

    Returns
    -------
    Path
        The folder beside ``folder``, with a mark that has version and digest. ``replace_folder`` removes the mark once
        the folder is in its place, so that a run that is stopped just before is gone on with, too.

    Raises
    ------
    ArtifactError
        As ``require_replaceable`` does.
    """
    partial = partial_of(folder)
    if not _is_begun(partial, digest):
        partial = empty_partial(folder, kind)
        write_json(partial / _BEGUN, [VERSION, digest])
    return partial


def require_begun(folder: Path, digest: str) -> None:
    """Raise ``ArtifactError`` unless ``folder`` is being filled by a run of this digest, as of ``begun_folder``.

    Workers ask before they write: one that outlives its run must leave nothing in the folder of the next.
    """
    if not _is_begun(partial_of(folder), digest):
        raise ArtifactError(f"{folder} was taken over by another run, or is finished")


def _is_begun(partial: Path, digest: str) -> bool:
    begun = partial / _BEGUN
    return begun.is_file() and read_json(begun) == [VERSION, digest]


def replace_folder(partial: Path, folder: Path, kind: str) -> None:
    """Put a finished folder in the place of an older one of its kind.

    Parameters
    ----------
    partial : Path
        The finished folder, with its manifest.
    folder : Path
        Its place; of a symbolic link the folder that it names is replaced.
    kind : str
        The kind in both manifests.

    Raises
    ------
    ArtifactError
        Where ``partial`` has no manifest, or where ``folder`` holds what is not ours; both then stay as they are.
    """
    read_manifest(partial, kind)
    require_replaceable(folder, kind)
    place, aside = place_of(folder), _aside_of(folder)
    # The manifest lists all of it; by a journal in the finished folder what its user writes there would count as ours.
    (partial / JOURNAL).unlink(missing_ok=True)
    if place.exists():
        os.replace(place, aside)
    os.replace(partial, place)
    # Last, for by these marks a run that is killed before knows what is done; and what a killed one was writing.
    for path in place.rglob(f"{OWN_PREFIX}*"):
        path.unlink(missing_ok=True)
    remove_own(aside, kind)


def foreign_entries(folder: Path, kind: str) -> list[str]:
    """Names, relative to ``folder``, of all in it that is neither in our manifest of this kind nor in our journal."""
    own = set(own_entries(folder, kind))
    return sorted(name for name in _entries(folder) if name not in own and not _is_temporary(name))


def remove_own(folder: Path, kind: str) -> None:
    """Remove what this project wrote into ``folder``, and the folder with it.

    Raises ``ArtifactError`` where something else is in it, which stays.
    """
    if not folder.is_dir():
        return
    own, entries = set(own_entries(folder, kind)), _entries(folder)
    # The lists last: a removal that is killed can be taken up again.
    for name in sorted(entries, key=lambda name: name in (MANIFEST, JOURNAL)):
        path = folder / name
        if name in own and path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif name in own or _is_temporary(name):
            path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        raise ArtifactError(f"{folder} is kept, for it holds what this project did not write") from error


def own_entries(folder: Path, kind: str) -> list[str]:
    """Relative names of what lies in ``folder`` and is ours, the deepest first.

    That is what manifest or journal of this kind list, and the folders that it lies in. Anybody may have changed these
    lists: what they name outside of ``folder``, by ``..`` or beyond a link to another folder, is not ours.
    """
    listed = _listed(folder, kind)
    return [name for name in _entries(folder) if name in listed and not _is_linked_folder(folder / name)]


def _listed(folder: Path, kind: str) -> set[str]:
    names = set()
    with suppress(ArtifactError):
        manifest = read_json(folder / MANIFEST)
        if isinstance(manifest, dict) and manifest.get("kind") == kind and isinstance(manifest.get("files"), dict):
            names |= {MANIFEST, *manifest["files"]}
    journal = _journal(folder)
    if journal and journal[0] == kind:
        names |= {JOURNAL, *journal[1:]}
    return names | {parent.as_posix() for name in names for parent in Path(name).parents}


def _journal(folder: Path) -> list[str]:
    names: list[str] = []
    with suppress(OSError, ValueError):  # none, or a last line that a full disk cut short
        for line in (folder / JOURNAL).read_text(encoding="utf-8").splitlines():
            names.append(str(json.loads(line)))
    return names


def _entries(folder: Path) -> list[str]:
    """Relative names of all files, links and folders below ``folder``, the deepest first; links are not followed."""
    found = []
    for root, folders, files in os.walk(folder, topdown=False):
        found += [(Path(root) / name).relative_to(folder).as_posix() for name in (*files, *folders)]
    return found


def _is_linked_folder(path: Path) -> bool:
    return path.is_symlink() and path.is_dir()


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(OWN_PREFIX)
