"""Artefacts: nothing half-written, nothing taken for what it is not, nothing lost that is not ours."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlml_hpe.files.atomic import ArtifactError, atomic_path, read_json, write_bytes, write_json
from nlml_hpe.files.folders import fresh_folder, partial_of, require_replaceable
from nlml_hpe.files.locks import await_leases, exclusive, lease
from nlml_hpe.files.manifests import (
    MANIFEST,
    digest_of_file,
    is_current,
    manifest_digest,
    read_manifest,
    write_manifest,
)
from tests.conftest import REPOSITORY, digests


def make(folder: Path) -> None:
    with fresh_folder(folder, "thing") as partial:
        write_bytes(partial / "data.bin", b"123")
        write_manifest(partial, "thing", {"a": 1}, {"input": "x"})


def made_deep(folder: Path) -> Path:
    with fresh_folder(folder, "thing") as partial:
        for name in ("first.bin", "deep/er/second.bin", "last.bin"):
            write_bytes(partial / name, b"123")
        write_manifest(partial, "thing", {}, {})
    return folder


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"],
    ids=["empty", "cut", "bytes", "deep", "digits"],
)
def test_json_that_does_not_read_is_named(tmp_path: Path, content: bytes) -> None:
    """Python refuses to convert a number of thousands of digits, by an error that named no file."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.json is not readable JSON"):
        read_json(tmp_path / "a.json")


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


@pytest.mark.parametrize("size", [3, 4 * 1024 * 1024], ids=["small", "large"])
def test_a_file_that_was_changed_is_seen(tmp_path: Path, size: int) -> None:
    """By its digest where it is small or newer than the manifest, by a sample where a large one has its old time."""
    with fresh_folder(tmp_path / "thing", "thing") as partial:
        write_bytes(partial / "data.bin", bytes(size))
        write_manifest(partial, "thing", {}, {})
    data = tmp_path / "thing" / "data.bin"
    old = data.stat().st_mtime_ns
    for start, time in ((1, old), (size // 2 + 70_000, None), (0, old)):
        content = bytearray(size)
        content[start : start + 49_000] = b"x" * len(content[start : start + 49_000])
        data.write_bytes(content)
        if time:
            os.utime(data, ns=(time, time))
        if start < size:
            assert not is_current(tmp_path / "thing", "thing", {}, {})
            with pytest.raises(ArtifactError, match=r"data\.bin: missing, or changed"):
                manifest_digest(tmp_path / "thing", "thing")
    data.write_bytes(bytes(size))
    assert is_current(tmp_path / "thing", "thing", {}, {})


ENTRY = {"bytes": 4, "sha256": digest_of_file(Path(os.devnull))}


@pytest.mark.parametrize(
    "files",
    [{"data.bin": "0" * 64}, {"data.bin": {"bytes": "x"}}, None, {"../thesis.txt": ENTRY}, {"/thesis.txt": ENTRY}],
)
def test_a_manifest_with_a_damaged_list_is_refused(tmp_path: Path, files: object) -> None:
    make(tmp_path / "thing")
    path = tmp_path / "thing" / MANIFEST
    write_json(path, {**read_json(path), "files": files})
    assert not is_current(tmp_path / "thing", "thing", {"a": 1}, {"input": "x"})
    with pytest.raises(ArtifactError, match="is damaged"):
        manifest_digest(tmp_path / "thing", "thing")


def test_what_a_manifest_names_outside_of_its_folder_is_not_ours(tmp_path: Path) -> None:
    """By ``..``, by a whole path, or beyond a link to another folder, which a replaced folder would lose."""
    folder, home = tmp_path / "thing", tmp_path / "home"
    make(folder)
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    (folder / "linked").symlink_to(home)
    manifest = read_json(folder / MANIFEST)
    outside = ("../home/thesis.txt", str(home / "thesis.txt"), "linked/thesis.txt")
    write_json(folder / MANIFEST, {**manifest, "files": {**manifest["files"], **dict.fromkeys(outside, ENTRY)}})
    with pytest.raises(ArtifactError, match="holds what no 'thing' run has written: linked;"):
        make(folder)
    (folder / "linked").unlink()
    make(folder)
    assert (home / "thesis.txt").read_text() == "mine"


def test_an_interrupted_folder_is_not_an_artefact(tmp_path: Path) -> None:
    folder = tmp_path / "thing"

    def fail() -> None:
        with fresh_folder(folder, "thing") as partial:
            write_bytes(partial / "data.bin", b"1")
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


def test_two_runs_into_one_folder_by_two_links_do_not_mix(tmp_path: Path) -> None:
    """As crops have that lie on another disk: both runs filled the same unfinished folder."""
    (tmp_path / "disk").mkdir()
    for link in (first := tmp_path / "first", second := tmp_path / "second"):
        link.symlink_to(tmp_path / "disk")
    with exclusive(first), pytest.raises(ArtifactError, match="another run"), exclusive(second):
        pass
    with lease(first), pytest.raises(ArtifactError, match="still written by"):
        await_leases(second, seconds=0.05)


@pytest.mark.parametrize(
    "foreign", ["thesis.txt", "data/thesis.txt", ".hidden", "data.bin.bak"], ids=["file", "folder", "hidden", "backup"]
)
@pytest.mark.parametrize("place", ["thing", "thing.partial", "thing.replaced"])
def test_a_folder_with_foreign_files_is_not_replaced(tmp_path: Path, place: str, foreign: str) -> None:
    make(tmp_path / "thing")
    if place != "thing":
        make(tmp_path / place)
    mine = tmp_path / place / foreign
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    before = digests(tmp_path)
    with pytest.raises(ArtifactError, match=f"{place} is not replaced.*{foreign.split('/')[0]}"):
        require_replaceable(tmp_path / "thing", "thing")
    with pytest.raises(ArtifactError, match="is not replaced"):
        make(tmp_path / "thing")
    assert digests(tmp_path) == before


def test_the_names_of_foreign_files_stay_on_one_line(tmp_path: Path) -> None:
    make(tmp_path / "thing")
    (tmp_path / "thing" / "a\n\x1b[31mb.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"has written: a\\x0a\\x1b\[31mb\.txt;"):
        require_replaceable(tmp_path / "thing", "thing")


def test_only_an_artefact_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    """A data set without our manifest, an artefact of another kind, the parent folder, a file."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"jpg")
    with fresh_folder(tmp_path / "other", "other") as partial:
        write_manifest(partial, "other", {}, {})
    (tmp_path / "note").write_text("mine")
    before = digests(tmp_path)
    for name in ("photos", "photos/..", "other", "note"):
        with pytest.raises(ArtifactError, match="name another folder"):
            make(tmp_path / name)
    assert digests(tmp_path) == before
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")
    make(tmp_path / "empty")
    assert sorted(p.name for p in (tmp_path / "empty").iterdir()) == ["data.bin", MANIFEST]


def test_files_that_come_while_a_folder_is_filled_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    make(folder)

    def replace() -> None:
        with fresh_folder(folder, "thing") as partial:
            write_manifest(partial, "thing", {}, {})
            (folder / "thesis.txt").write_text("mine")

    with pytest.raises(ArtifactError, match=r"thesis\.txt"):
        replace()
    assert (folder / "thesis.txt").read_text() == "mine"
    assert (folder / "data.bin").is_file()
    assert not partial_of(folder).exists()


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    make(folder)
    folder.rename(tmp_path / "thing.replaced")

    def fail() -> None:
        with fresh_folder(folder, "thing"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_manifest(folder, "thing")["files"].keys() == {"data.bin"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [".thing.lock", "thing"]


def test_what_a_run_that_was_killed_behind_the_two_renames_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    make(folder)
    shutil.copytree(folder, tmp_path / "thing.replaced")
    make(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".thing.lock", "thing"]


def test_a_removal_that_was_killed_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lists the files goes last: without it what is left would be somebody else's, and never be replaced."""
    folder, remove = tmp_path / "thing", Path.unlink
    shutil.copytree(made_deep(folder), tmp_path / "thing.replaced")
    removed: list[str] = []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "thing.replaced":
            if removed:
                raise KeyboardInterrupt
            removed.append(path.name)
        remove(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            made_deep(folder)
    assert removed
    made_deep(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".thing.lock", "thing"]


def test_what_is_written_into_a_folder_whose_run_was_killed_at_its_end_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of the run stayed in it, listed what came later, and the next run removed that."""
    folder, rename = tmp_path / "thing", os.replace

    def killed(source: Path, target: Path) -> None:
        rename(source, target)
        if target == folder:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            make(folder)
    write_bytes(folder / "poses.csv", b"mine")
    with pytest.raises(ArtifactError, match=r"has written: poses\.csv"):
        make(folder)
    assert (folder / "poses.csv").read_bytes() == b"mine"


def test_a_folder_without_a_manifest_never_takes_its_place(tmp_path: Path) -> None:
    def forget() -> None:
        with fresh_folder(tmp_path / "thing", "thing") as partial:
            write_bytes(partial / "data.bin", b"1")

    with pytest.raises(ArtifactError, match="no finished 'thing'"):
        forget()
    assert not (tmp_path / "thing").exists()


def test_what_a_linked_folder_names_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    make(tmp_path / "disk" / "thing")
    (tmp_path / "thing").symlink_to(tmp_path / "disk" / "thing")
    make(tmp_path / "thing")
    assert (tmp_path / "thing").is_symlink()
    assert is_current(tmp_path / "disk" / "thing", "thing", {"a": 1}, {"input": "x"})


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask that is not the usual one, for this test."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_new_files_follow_the_umask_and_old_ones_keep_their_mode(tmp_path: Path, umask: int) -> None:
    write_bytes(tmp_path / "new", b"1")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    write_bytes(tmp_path / "new", b"2")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604
    assert (tmp_path / "new").read_bytes() == b"2"


def test_what_replaces_a_private_file_is_private_from_the_start(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_text("old")
    target.chmod(0o600)
    with atomic_path(target) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


def test_a_linked_file_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    (tmp_path / "dangling").symlink_to("later")
    write_bytes(tmp_path / "dangling", b"new")
    assert (tmp_path / "later").read_text() == "new"


def test_a_fifo_is_written_into(tmp_path: Path) -> None:
    """As a device is; a copy of the null device can only be made by root."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()), daemon=True)
    reader.start()
    write_bytes(fifo, b"table")
    reader.join(10)
    assert received == [b"table"]
    assert fifo.is_fifo()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_a_device_stays_a_device() -> None:
    """A terminal: nobody can remove one, as code that goes wrong removes the null device of whoever is root."""
    reader, writer = os.openpty()
    try:
        terminal = Path(os.ttyname(writer))
        write_bytes(terminal, b"table")
        assert terminal.is_char_device()
        assert os.read(reader, 16) == b"table"
    finally:
        os.close(reader)
        os.close(writer)


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"/file/table\.csv'") as caught:
        write_bytes(tmp_path / "file" / "table.csv", b"1")
    assert ".nlml_hpe" not in str(caught.value)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_bytes(tmp_path, b"1")
    table, source = tmp_path / "new" / "table.csv", FileNotFoundError(errno.ENOENT, "No such file", "photo.jpg")
    # What fails in a write names no file; what names another one, or has no number, is not about this one.
    full, other = OSError(errno.ENOSPC, "No space left"), OSError("not a video")
    for error, text in ((full, f"No space left: '{table}'"), (source, "photo.jpg"), (other, "not a video")):
        with pytest.raises(OSError, match=f"{text}'?$") as caught, atomic_path(table):
            raise error
        assert (caught.value is error) == (error is not full)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only Linux has a folder that takes no file of anybody's")
def test_a_folder_that_cannot_be_made_is_not_said_to_be_in_use() -> None:
    with (
        pytest.raises(OSError, match=r"cannot be made .*; name another place") as caught,
        exclusive(Path("/proc/self/thing")),
    ):
        pass
    assert caught.value.filename == "/proc/self/thing"


def test_a_run_waits_for_the_workers_of_the_run_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "thing"
    with lease(folder):
        with pytest.raises(ArtifactError, match=f"still written by process {os.getpid()}"):
            await_leases(folder, seconds=0.05)
        assert f"waiting for process {os.getpid()}" in capsys.readouterr().err
    (tmp_path / ".thing.leases").mkdir(exist_ok=True)
    (tmp_path / ".thing.leases" / "host-with-dashes-7-ab.lock").touch()  # of a worker that was killed
    await_leases(folder, seconds=0)
    assert not (tmp_path / ".thing.leases").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files there")
def test_a_lease_ends_where_no_open_file_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    unlink = Path.unlink

    def of_windows(path: Path, missing_ok: bool = False) -> None:
        if str(path) in {os.path.realpath(open_file) for open_file in Path("/proc/self/fd").iterdir()}:
            raise PermissionError(13, "is open", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", of_windows)
    with lease(tmp_path / "thing"):
        (path,) = (tmp_path / ".thing.leases").iterdir()
        with pytest.raises(PermissionError):
            path.unlink()
    assert not path.exists()


def test_the_library_imports_without_fcntl_and_without_a_home_folder() -> None:
    """As on Windows, and as for a user that a container has no name for."""
    program = """
import os, pathlib, sys

def no_home(*_):
    raise RuntimeError("Could not determine home directory.")

sys.modules["fcntl"] = None
pathlib.Path.home = pathlib.Path.expanduser = no_home
import nlml_hpe, nlml_hpe.cli, nlml_hpe.files.folders
"""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
