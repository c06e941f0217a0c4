"""What a model folder holds: components by kind, each with its settings and the SHA-256 of its files.

``config.json`` of format 3 has a list ``components``; that of format 2, which held a landmark eye and nothing else, is
read as a list of one. Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nlml_hpe.files.atomic import ArtifactError, read_json, write_json
from nlml_hpe.files.manifests import digest_of_file, list_anew, require_digest
from nlml_hpe.model.format import CONFIG_FILE, ONNX_FILE
from nlml_hpe.rotation import CONVENTION

FORMAT, _OLD_FORMAT = "nlml-hpe model 3", "nlml-hpe model 2"
ComponentKind = Literal["landmark_eye", "image_eye", "calibration"]
WEIGHTS_FILE, MANIFOLD_FILE, IMAGE_EYE_FILE = "model.safetensors", "manifold.npz", "image_eye.onnx"
FILES: dict[ComponentKind, tuple[str, ...]] = {
    "landmark_eye": (WEIGHTS_FILE, MANIFOLD_FILE, ONNX_FILE),
    "image_eye": (IMAGE_EYE_FILE,),
    "calibration": (),
}
"""The files that a component of each kind may have. Names come from here: a config does not say what is read. A
calibration is numbers alone: how far off the eyes of this very folder are."""


class Component(NamedTuple):
    """One component: its ``kind``, its ``settings`` as JSON, and the ``sha256`` of its files by their names."""

    kind: ComponentKind
    settings: dict[str, Any]
    sha256: dict[str, str]


def read_components(folder: Path) -> dict[ComponentKind, Component]:
    """The components of a model folder, by kind; their files are not looked at.

    Raises ``ArtifactError`` for a config.json that is missing, damaged, of another version or convention, or that names
    a kind or a file that is not known here.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    form = config.get("format") if isinstance(config, dict) else config
    if form not in (FORMAT, _OLD_FORMAT):
        raise ArtifactError(f"{folder}: expected format {FORMAT!r}, found {form!r}; build the model again")
    if config.get("convention") != CONVENTION:
        raise ArtifactError(
            f"{folder}: expected convention {CONVENTION!r}, found {config.get('convention')!r}; build the model again"
        )
    entries = config.get("components") if form == FORMAT else [{**config, "kind": "landmark_eye"}]
    if not isinstance(entries, list) or not entries:
        raise ArtifactError(f"{path}: expected a list 'components'; build the model again")
    found = [_component(path, entry) for entry in entries]
    if len({component.kind for component in found}) < len(found):
        raise ArtifactError(f"{path}: a kind of component stands there twice; build the model again")
    return {component.kind: component for component in found}


def _component(path: Path, entry: Any) -> Component:
    kind = entry.get("kind") if isinstance(entry, dict) else entry
    if not isinstance(entry, dict) or not isinstance(kind, str) or kind not in FILES:
        raise ArtifactError(f"{path}: unknown kind of component {kind!r}; expected one of {list(FILES)}")
    digests = entry.get("sha256")
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise ArtifactError(f"{path}: {kind}: expected 'sha256', a text for every file; build the model again")
    if unknown := sorted(digests.keys() - set(FILES[kind])):
        raise ArtifactError(f"{path}: {kind}: unknown files {unknown}; expected some of {list(FILES[kind])}")
    settings = {name: value for name, value in entry.items() if name not in ("kind", "sha256", "format", "convention")}
    return Component(kind, settings, digests)


def require_component(folder: Path, kind: ComponentKind) -> Component:
    """The component of this kind, whose files are there and unchanged. Raises ``ArtifactError`` where it is not so."""
    components = read_components(folder)
    if kind not in components:
        raise ArtifactError(f"{folder}: this model has no {kind}; it holds {list(components)}")
    for name, digest in components[kind].sha256.items():
        require_digest(folder / name, digest)
    return components[kind]


def put_component(folder: Path, kind: ComponentKind, settings: Mapping[str, Any]) -> None:
    """Declare files of a model folder as a component, in place of one of the same kind.

    Other components that config.json has stay as they are, but for the calibration, which is of the eyes that were
    there before: with another eye it no longer holds, and is left out. A manifest that lists config.json is kept true.

    Parameters
    ----------
    folder : Path
        The model folder, with the component's files in it.
    kind : str
        One of ``FILES``, which says what its files are called.
    settings : mapping
        What the component's reader must know, as JSON.
    """
    components = read_components(folder) if (folder / CONFIG_FILE).is_file() else {}
    components.pop("calibration", None)
    digests = {name: digest_of_file(folder / name) for name in FILES[kind] if (folder / name).is_file()}
    components[kind] = Component(kind, dict(settings), digests)
    entries = [{"kind": each.kind, **each.settings, "sha256": each.sha256} for each in components.values()]
    write_json(folder / CONFIG_FILE, {"format": FORMAT, "convention": CONVENTION, "components": entries})
    list_anew(folder, CONFIG_FILE)
