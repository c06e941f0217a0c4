"""Artefacts on disk: carried by a manifest, checked when read.

An artefact is a folder with a ``manifest.json`` that is written last; a folder without one is
unfinished work. The manifest names the kind of artefact, the version of its format and of this package,
a digest of the configuration and of every input, and one of every file, so that a stage can tell whether it
is up to date and a reader can tell whether it fits and is still what was written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlml_hpe.files.atomic import ArtifactError, read_json, write_json
from nlml_hpe.version import VERSION

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_MIB = 1024 * 1024
_LARGE_BYTES = _MIB
"""Larger files are compared by size, time and a sample, as long as not all is to be read."""
_SAMPLE_BLOCKS, _BLOCK_BYTES = 16, 64 * 1024
_BUDGET_BYTES = 64 * _MIB
"""How much of an artefact's small files is read at each check; of more of them, every second or third and so on is."""


def digest_of(data: Any) -> str:
    """SHA-256 of the canonical JSON form of ``data``."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_digest(path: Path, digest: str) -> None:
    """Raise ``ArtifactError`` unless this file of a model is there and has this SHA-256."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; build the model again")
    if digest_of_file(path) != digest:
        raise ArtifactError(f"{path} was changed after the model was built (SHA-256 differs); build it again")


def files_below(folder: Path) -> list[Path]:
    """Files of a folder and of those in it, by their paths, without hidden ones, which systems leave beside others.

    Nor is anything in a hidden folder looked at: thumbnails, what was thrown away, a repository's own files. Links are
    followed, as where a data set lies on several disks, and each folder is looked at once: by its own name, else
    by that of the first link to it. Raises ``OSError`` where a folder does not read, but for want of permission.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as name:
    ...     for file in ("b.jpg", "c/a.jpg", "c/._a.jpg", ".Trash-1000/files/d.jpg"):
    ...         (path := Path(name, file)).parent.mkdir(parents=True, exist_ok=True)
    ...         path.touch()
    ...     [path.relative_to(name).as_posix() for path in files_below(Path(name))]
    ['b.jpg', 'c/a.jpg']
    """
    found: list[Path] = []
    starts, seen = [folder], set[str]()
    for start in starts:  # to which links to folders are added
        for place, folders, files in os.walk(start, onerror=_unless_forbidden):
            if (own := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(own)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += [path for path in (Path(place, name) for name in folders) if path.is_symlink()]
            found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _unless_forbidden(error: OSError) -> None:
    """A folder that may not be read, such as lost+found, or is none, is left out; a disk that fails ends the list."""
    if not isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError):
        raise error


def digest_of_names_and_sizes(folder: Path, without: str | None = None, times: bool = False) -> str:
    """A quick fingerprint of a folder of many files, as ``files_below``: relative names and sizes, not contents.

    Parameters
    ----------
    folder : Path
        Looked through with the folders in it.
    without : str, optional
        A suffix with its dot; files that have it are not looked at.
    times : bool
        Whether the digest is another one where a file was written again with the same size, too.

    Returns
    -------
    str
        A hexadecimal digest.
    """
    files = (path for path in files_below(folder) if path.suffix != without)
    stats = ((path.relative_to(folder).as_posix(), path.stat()) for path in files)
    return digest_of(sorted((name, stat.st_size, *([stat.st_mtime_ns] if times else ())) for name, stat in stats))


def write_manifest(
    folder: Path, kind: str, config: Any, inputs: Mapping[str, str], facts: Mapping[str, Any] | None = None
) -> Path:
    """Write the manifest that declares a folder finished.

    Parameters
    ----------
    folder : Path
        With all its files; hidden ones are not listed.
    kind : str
        What the artefact is.
    config : JSON
        The settings that it depends on.
    inputs : mapping of str to str
        By name the digest of each input.
    facts : mapping, optional
        What readers need to know, as JSON (grid, feature, counts).

    Returns
    -------
    Path
        Of the manifest.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     _ = (folder / "poses.csv").write_text("yaw,pitch,roll")
    ...     _ = write_manifest(folder, "poses", {"step": 10}, {}, {"rows": 0})
    ...     read_manifest(folder, "poses")["facts"], is_current(folder, "poses", {"step": 10}, {})
    ({'rows': 0}, True)
    """
    files = {
        p.relative_to(folder).as_posix(): _entry(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
    }
    manifest = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "package_version": VERSION,
        "config": config,
        "config_digest": digest_of(config),
        "inputs": dict(inputs),
        "facts": dict(facts or {}),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)
    return folder / MANIFEST


def list_anew(folder: Path, name: str) -> None:
    """Let the manifest of a finished artefact list a file as it is now, which we changed after it was written.

    Nothing happens where there is no manifest, or where it does not list the file.
    """
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if isinstance(files, dict) and name in files:
        files[name] = _entry(folder / name)
        write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a finished artefact of this kind.

    Parameters
    ----------
    folder : Path
        The artefact.
    kind : str
        As ``write_manifest`` was told.

    Returns
    -------
    dict
        What ``write_manifest`` wrote: ``kind``, ``config``, ``inputs``, ``facts``, ``files`` and the versions.

    Raises
    ------
    ArtifactError
        Where the artefact is unfinished, or of another kind or version.
    """
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{folder} holds no finished {kind!r} artefact; run the stage that makes it first")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{folder / MANIFEST}: expected a JSON object; run the stage that makes it again")
    for key, expected in (("kind", kind), ("format_version", FORMAT_VERSION)):
        if manifest.get(key) != expected:
            raise ArtifactError(
                f"{folder}: expected {key} {expected!r}, found {manifest.get(key)!r}; run the stage that makes it again"
            )
    return manifest


def _entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file: its size, its digest, and of a large one that of a sample, too."""
    size = path.stat().st_size
    entry: dict[str, Any] = {"bytes": size, "sha256": digest_of_file(path)}
    return entry | {"sample": _sample(path, size)} if size > _LARGE_BYTES else entry


def _sample(path: Path, size: int) -> str:
    """SHA-256 of blocks that lie evenly over the file, its beginning and end among them."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in range(_SAMPLE_BLOCKS):
            stream.seek((size - _BLOCK_BYTES) * block // (_SAMPLE_BLOCKS - 1))
            digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()


def changed_files(folder: Path, manifest: Mapping[str, Any], full: bool = False) -> list[str]:
    """Names of the files that are missing or are not what the manifest of ``folder`` lists.

    Parameters
    ----------
    folder : Path
        A finished artefact.
    manifest : Mapping
        What ``read_manifest`` gave for it.
    full : bool
        Read every file in full. Otherwise all sizes are compared; files that are newer than the manifest are read in
        full; of the others, those up to 1 MiB are read in full, only each of so many where they have more than 64 MiB
        together, and larger ones in samples.

    Returns
    -------
    list of str
        Paths below ``folder``, in their order; none where all is as it was written.

    Raises
    ------
    ArtifactError
        Where the manifest itself is damaged.
    """
    try:
        files, written = dict(manifest["files"]), (folder / MANIFEST).stat().st_mtime_ns
        for name in files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} does not lie in the folder")
        total = sum(entry["bytes"] for entry in files.values() if entry["bytes"] <= _LARGE_BYTES)
        step = 1 if full else max(1, math.ceil(total / _BUDGET_BYTES))
        return [
            name
            for number, (name, entry) in enumerate(sorted(files.items()))
            if not _is_intact(folder / name, entry, full, written, skip=number % step != 0)
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged ({error!r}); run the stage that makes it again") from error


def _is_intact(path: Path, entry: Mapping[str, Any], full: bool, written: int, skip: bool) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    if full or path.stat().st_mtime_ns > written:
        return bool(digest_of_file(path) == entry["sha256"])
    if entry["bytes"] > _LARGE_BYTES:
        return bool(_sample(path, entry["bytes"]) == entry["sample"])
    return skip or bool(digest_of_file(path) == entry["sha256"])


def require_intact(folder: Path, kind: str, full: bool = False) -> dict[str, Any]:
    """The manifest of a finished artefact of this kind whose files are what it lists.

    Parameters
    ----------
    folder, kind
        As of ``read_manifest``.
    full : bool
        Read every file in full; see ``changed_files``.

    Returns
    -------
    dict
        As of ``read_manifest``.

    Raises
    ------
    ArtifactError
        As ``read_manifest`` does, and one that names the file where it is missing or was changed.
    """
    manifest = read_manifest(folder, kind)
    changed = changed_files(folder, manifest, full)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ArtifactError(
            f"{folder / changed[0]}{more}: missing, or changed after it was written ({MANIFEST} lists another digest); "
            "delete what is left of it and run the stage that makes it again"
        )
    return manifest


def is_made_from(manifest: Mapping[str, Any], config: Any, inputs: Mapping[str, str]) -> bool:
    """Whether an artefact was made by this version of the package with this configuration from these inputs.

    Parameters
    ----------
    manifest : mapping
        What ``read_manifest`` gave for it.
    config, inputs
        As of ``write_manifest``.

    Returns
    -------
    bool
        Its files are not looked at; ``is_current`` does.
    """
    expected = {"package_version": VERSION, "config_digest": digest_of(config), "inputs": dict(inputs)}
    return all(manifest.get(name) == value for name, value in expected.items())


def is_current(folder: Path, kind: str, config: Any, inputs: Mapping[str, str], full: bool = False) -> bool:
    """Whether a folder holds this artefact, made by this version from these settings and inputs, and unchanged.

    Parameters
    ----------
    folder, kind, config, inputs
        As of ``write_manifest``.
    full : bool
        Read every file in full; see ``changed_files``.

    Returns
    -------
    bool
        False also where there is no such folder, or nothing finished in it.
    """
    try:
        manifest = read_manifest(folder, kind)
        return is_made_from(manifest, config, inputs) and not changed_files(folder, manifest, full)
    except ArtifactError:
        return False


def manifest_digest(folder: Path, kind: str) -> str:
    """Digest by which a later stage names this artefact among its inputs.

    Raises ``ArtifactError`` where it is unfinished, of another kind, or was changed after it was written.
    """
    require_intact(folder, kind)
    return digest_of_file(folder / MANIFEST)


def require_equal(what: str, expected: Any, received: Any, mend: str) -> None:
    """Require that two facts of two artefacts agree.

    Parameters
    ----------
    what : str
        What they are about.
    expected, received
        The two, compared by ``==``.
    mend : str
        What to do where they differ.

    Raises
    ------
    ArtifactError
        Where they do.

    Examples
    --------
    >>> require_equal("crop size", 128, 128, "run ImageModelBuilder again")
    """
    if expected != received:
        raise ArtifactError(f"{what} differs: expected {expected!r}, received {received!r}; {mend}")
