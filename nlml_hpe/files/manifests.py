"""Artefacts on disk: carried by a manifest, checked when read.

An artefact is a folder with a ``manifest.json`` that is written last; a folder without one is
unfinished work. The manifest names the kind of artefact, the format version, a digest of the
configuration and of every input, and a digest of every file, so that a stage can tell whether it
is up to date and a reader can tell whether it fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlml_hpe.files.atomic import ArtifactError, read_json, write_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


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


def digest_of_names_and_sizes(folder: Path) -> str:
    """A quick fingerprint of a folder of many files: relative names and sizes, not contents."""
    files = sorted((str(p.relative_to(folder)), p.stat().st_size) for p in folder.rglob("*") if p.is_file())
    return digest_of(files)


def write_manifest(
    folder: Path, kind: str, config: Any, inputs: Mapping[str, str], facts: Mapping[str, Any] | None = None
) -> Path:
    """Write the manifest that declares ``folder`` finished. Returns its path.

    ``config`` is the JSON form of the settings the artefact depends on, ``inputs`` maps each input
    to its digest, ``facts`` is what readers need to know (grid, feature, counts).
    """
    files = {
        str(p.relative_to(folder)): digest_of_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
    }
    manifest = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "config": config,
        "config_digest": digest_of(config),
        "inputs": dict(inputs),
        "facts": dict(facts or {}),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)
    return folder / MANIFEST


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a finished artefact of this kind.

    Raises ``ArtifactError`` where the artefact is unfinished, or of another kind or version.
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


def is_current(folder: Path, kind: str, config: Any, inputs: Mapping[str, str]) -> bool:
    """Whether ``folder`` holds this artefact, made with this configuration from these inputs."""
    try:
        manifest = read_manifest(folder, kind)
    except ArtifactError:
        return False
    unchanged = manifest["config_digest"] == digest_of(config) and manifest["inputs"] == dict(inputs)
    return unchanged and all((folder / name).is_file() for name in manifest["files"])


def manifest_digest(folder: Path) -> str:
    """Digest by which a later stage names this artefact among its inputs."""
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{folder} holds no finished artefact; run the stage that makes it first")
    return digest_of_file(folder / MANIFEST)


def require_equal(what: str, expected: Any, received: Any, mend: str) -> None:
    """Raise ``ArtifactError`` unless two facts of two artefacts agree."""
    if expected != received:
        raise ArtifactError(f"{what} differs: expected {expected!r}, received {received!r}; {mend}")
