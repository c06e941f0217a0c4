"""Artefacts: nothing half-written, nothing taken for what it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlml_hpe.files.atomic import ArtifactError, atomic_path, exclusive, fresh_folder, read_json, write_json
from nlml_hpe.files.manifests import MANIFEST, is_current, read_manifest, write_manifest


def make(folder: Path) -> None:
    with fresh_folder(folder) as partial:
        (partial / "data.bin").write_bytes(b"123")
        write_manifest(partial, "thing", {"a": 1}, {"input": "x"})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_artefact_is_current_only_for_its_settings_and_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    assert not is_current(folder, "thing", {"a": 1}, {"input": "x"})
    make(folder)
    assert is_current(folder, "thing", {"a": 1}, {"input": "x"})
    assert not is_current(folder, "thing", {"a": 2}, {"input": "x"})
    assert not is_current(folder, "thing", {"a": 1}, {"input": "y"})
    assert not is_current(folder, "other", {"a": 1}, {"input": "x"})
    (folder / "data.bin").unlink()
    assert not is_current(folder, "thing", {"a": 1}, {"input": "x"})


def test_an_interrupted_folder_is_not_an_artefact(tmp_path: Path) -> None:
    folder = tmp_path / "thing"

    def fail() -> None:
        with fresh_folder(folder) as partial:
            (partial / "data.bin").write_bytes(b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not folder.exists()
    make(folder)
    assert read_manifest(folder, "thing")["files"].keys() == {"data.bin"}


@pytest.mark.parametrize(("key", "value"), [("kind", "other"), ("format_version", 999)])
def test_another_kind_or_version_is_refused(tmp_path: Path, key: str, value: object) -> None:
    make(tmp_path / "thing")
    path = tmp_path / "thing" / MANIFEST
    write_json(path, {**read_json(path), key: value})
    with pytest.raises(ArtifactError, match=f"expected {key}"):
        read_manifest(tmp_path / "thing", "thing")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    make(tmp_path / "thing")
    (tmp_path / "thing" / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError):
        read_manifest(tmp_path / "thing", "thing")


def test_two_runs_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    with exclusive(folder), pytest.raises(ArtifactError, match="another run"), exclusive(folder):
        pass
    with exclusive(folder):
        pass
