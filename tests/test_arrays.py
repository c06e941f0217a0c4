"""``.npz`` files under a bound: small, large when unpacked, lying, damaged."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nlml_hpe.files.arrays import map_npy, read_npz
from nlml_hpe.files.atomic import ArtifactError
from tests.conftest import REPOSITORY


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(6.0).reshape(2, 3), text=np.array("word"))
    found = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["x"], np.arange(6.0).reshape(2, 3))
    assert str(found["text"]) == "word"
    assert list(read_npz(tmp_path / "a.npz", ["x"])) == ["x"]
    with pytest.raises(ArtifactError, match="'y' is missing"):
        read_npz(tmp_path / "a.npz", ["y"])


def test_a_disk_that_fills_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    """Beside it stood a traceback: Python's archive was closed after its file, where nothing could be written."""
    program = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from nlml_hpe.manifold.manifold_file import read_manifold, write_manifold\n"
        "from nlml_hpe.model.format import SHIPPED\nmanifold = read_manifold(SHIPPED / 'manifold.npz')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n    write_manifold(Path(sys.argv[1]), manifold)\nexcept OSError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "m.npz")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (done.stdout.count("File too large"), done.stderr) == (1, "")
    assert not list(tmp_path.iterdir())


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(1_000_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(ArtifactError, match=r"bomb\.npz: more than 1000000 bytes when unpacked"):
        read_npz(path, max_bytes=1_000_000)


def test_a_header_that_announces_more_than_is_stored_asks_for_no_memory(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue())
    with pytest.raises(ArtifactError, match="its header announces 80000000000128"):
        read_npz(tmp_path / "lies.npz")


@pytest.mark.parametrize("damage", ["missing", "cut", "text", "bits", "objects"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npz"
    values = np.array([{}]) if damage == "objects" else np.random.default_rng(0).normal(size=500)
    np.savez_compressed(path, x=values)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-200])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "bits":
        path.write_bytes(content[:300] + bytes(b ^ 255 for b in content[300:400]) + content[400:])
    with pytest.raises(ArtifactError, match=r"a\.npz: "):
        read_npz(path)


def test_an_array_with_a_damaged_byte_is_refused_or_as_it_was(tmp_path: Path) -> None:
    """Headers that are none, others that read and announce less than is stored, and numbers that were changed."""
    path, values = tmp_path / "a.npz", np.arange(300, dtype=np.float32).reshape(100, 3)
    np.savez(path, x=values)
    content, refused = path.read_bytes(), 0
    for place in range(content.index(b"NUMPY") - 1, len(content) - 120):
        for changed in (0, 0x28, 0x36, 0xF6):
            path.write_bytes(content[:place] + bytes([changed]) + content[place + 1 :])
            try:
                np.testing.assert_array_equal(read_npz(path)["x"], values)
            except ArtifactError:
                refused += 1
    assert refused > 3000


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_is_not_numpys_is_refused(tmp_path: Path, compression: int) -> None:
    """Each has an error of its own where it is damaged."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        stream = io.BytesIO()
        np.save(stream, np.arange(200.0))
        archive.writestr("x.npy", stream.getvalue())
    content = path.read_bytes()
    for damage in (content, content[:60] + bytes(b ^ 255 for b in content[60:80]) + content[80:]):
        path.write_bytes(damage)
        with pytest.raises(ArtifactError, match=r"a\.npz: .*compressed in a way that numpy does not write"):
            read_npz(path)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': ','",
        "{'descr': ('|u1',)",
        "{'shape': (0, 10**30)",
        "[",
        "{'x': " + "(" * 90,
        "-" * 9000 + "1",
        "a" + ".a" * 4000,
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    header = text.encode().ljust(118) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ArtifactError, match=r"a\.npz: damaged"):
        read_npz(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="header"):
        map_npy(tmp_path / "a.npy", "r")


def test_a_file_with_any_wrong_byte_in_its_header_is_refused_or_read(tmp_path: Path) -> None:
    """What numpy's parser of headers makes of a wrong byte is no traceback of the tokenizer."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    content, refused = path.read_bytes(), 0
    for position in range(128):
        for byte in b"()\"'9-\n L\x00\xff":
            path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
            try:
                map_npy(path, "r")
            except ValueError:
                refused += 1
    assert refused > 500
    with pytest.raises(FileNotFoundError):
        map_npy(tmp_path / "none.npy", "r")


def test_an_empty_array_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros((0, 3), np.float32))
    assert map_npy(tmp_path / "empty.npy", "c").shape == (0, 3)


@pytest.mark.parametrize("count", [0, 2])
def test_an_array_of_objects_is_not_unpickled(tmp_path: Path, count: int) -> None:
    """An empty one is not mapped but read, by what would unpickle it; whose pickle it is nobody knows."""
    np.save(tmp_path / "objects.npy", np.array([{}] * count, dtype=object))
    with pytest.raises(ValueError, match=r"objects|allow_pickle"):
        map_npy(tmp_path / "objects.npy", "r")


def test_an_array_is_mapped_and_what_is_written_into_a_copy_stays_in_memory(tmp_path: Path) -> None:
    path, values = tmp_path / "a.npy", np.arange(6.0)
    np.save(path, values)
    seen, copied = map_npy(path, "r"), map_npy(path, "c")
    assert isinstance(seen, np.memmap)
    assert not seen.flags.writeable
    copied[:] = 0
    np.testing.assert_array_equal(map_npy(path, "r"), values)
