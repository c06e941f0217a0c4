"""The command line as users type it: results on stdout, messages on stderr, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image

from nlml_hpe import __version__
from nlml_hpe.cli import main, parser
from nlml_hpe.cli.options import open_estimator
from nlml_hpe.cli.rows import RowTable
from nlml_hpe.cli.video import _has_windows
from nlml_hpe.detection.search import CascadeDetector
from nlml_hpe.detection.weights import FOLDER_VARIABLE, default_folder
from nlml_hpe.files.images import RgbImage, read_image
from nlml_hpe.inference.engines import OnnxEngine
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.video_files import VideoSource
from nlml_hpe.model.format import ONNX_FILE, SHIPPED
from nlml_hpe.model.onnx_file import said_of, saying
from tests.conftest import REPOSITORY

COMMANDS = ("predict", "video", "evaluate", "export", "info")


@pytest.fixture
def folder(tmp_path: Path, photo: RgbImage) -> Path:
    """Two faces, one picture without a face, one file that is no image, one that is none of ours."""
    place = tmp_path / "photos"
    place.mkdir()
    Image.fromarray(photo).save(place / "a.jpg")
    Image.fromarray(photo[:, ::-1]).save(place / "b.PNG")
    Image.new("RGB", (60, 60)).save(place / "c.webp")
    (place / "d.jpg").write_text("no image")
    (place / "notes.txt").write_text("text")
    return place


def test_a_folder_gives_one_entry_for_every_image(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drawn = tmp_path / "drawn"
    assert main(["predict", str(folder), "--json", "--draw", str(drawn)]) == 1
    out, err = capfd.readouterr()
    rows = json.loads(out)
    assert [Path(row["image"]).name for row in rows] == ["a.jpg", "b.PNG", "c.webp", "d.jpg"]
    assert [len(row["faces"]) for row in rows] == [1, 1, 0, 0]
    assert [row["status"] for row in rows] == ["face", "face", "no face", "unreadable"]
    assert "not an image" in rows[3]["error"]
    assert "d.jpg: not an image" in err
    assert "3 images, 1 without a face, 1 not readable; skipped: 1 other file (notes.txt)" in err
    assert rows[0]["faces"][0]["yaw"] == pytest.approx(-rows[1]["faces"][0]["yaw"], abs=4)
    assert {read_image(path).shape for path in drawn.iterdir()} == {(512, 512, 3), (60, 60, 3)}
    assert len(list(drawn.iterdir())) == 3


def test_a_pattern_gives_a_table(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(folder / "[ab].*"), "--csv", str(tmp_path / "poses.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "poses.csv").read_text())))
    assert len(rows) == 2
    assert all(abs(float(row["yaw"])) < 20 and float(row["sigma_pitch"]) > 0 for row in rows)
    assert capfd.readouterr().out == ""
    assert main(["predict", str(folder / "a.jpg"), "--no-refine"]) == 0
    assert "yaw" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict", "nowhere/*.jpg"], "no such image"),
        (["predict", "README.md", "--model", "nowhere"], "is missing"),
        (["video", "README.md"], "cannot be opened"),
        (["video", "--webcam", "97"], "camera 97"),
        (["video", "a.mp4", "--webcam", "97"], "camera 97"),  # a.mp4 is what is recorded
        (["predict", ""], "the name is empty"),
        (["predict", "tests"], "a folder without images"),
        (["predict", "docs/photograph.jpg", "--json", ""], "--json: the name is empty"),
        (["video", "a.mp4", "--csv", ""], "--csv: the name is empty"),
        (["export", "out.onnx", "--model", "nowhere"], "no such model folder"),
        (["export", "noext"], "ends in .onnx"),
        (["demo", "--port", "99999"], "expected 0 to 65535"),
        (["info", "--model", "README.md"], "README.md is no model: expected a model folder"),
        (["predict", "docs/demo.jpg", "--backend", "torch", "--model", "README.md"], "README.md is a file"),
        (["predict", os.devnull], "a pipe, a socket or a device, where an image file is wanted"),
        (["video", "docs"], "docs: a folder, where a video file is wanted"),
        (["evaluate", "--dataset", "aflw2000", "--root", "nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_done_is_said(command: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    out, err = capfd.readouterr()
    assert "error: " in err
    assert message in err
    assert out == ""


@pytest.mark.parametrize("command", [[], ["predict"], ["predict", "a.jpg", "--json", "--csv"], ["dance"]])
def test_a_command_that_is_not_valid_gives_two(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(command)
    assert left.value.code == 2
    assert "usage:" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict", "docs/photograph.jpg", "--cone"], "--cone is for --draw DIR, which is missing"),
        (["predict", "docs/photograph.jpg", "--bundle", "a.task"], "--bundle is for --detector mediapipe_tasks"),
        (["video", "talk.mp4", "drawn.mp4", "--smoother", "kalman"], "--smoother is for --smooth, which is missing"),
        (["video", "talk.mp4", "--cone"], "--cone is for a copy; name OUT"),
        (["export", "out.onnx", "--int8"], "--int8 is for --crop PX, which is missing"),
        (["export", "out.onnx", "--crop", "224", "--int8-crops", "x"], "--int8-crops is for --int8, which is missing"),
        (["evaluate", "--root", "x"], "--root needs --dataset"),
        (["video"], "expected a video file or --webcam N"),
        (["video", "a.mp4", "b.mp4", "--webcam", "0"], "not both"),
        (["export", "out.onnx", "--crop", "224", "--from", "image"], "--from and --crop name different files"),
        (["evaluate"], "--dataset is required"),
        (["evaluate", "--dataset", "aflw2000"], "--dataset needs --root"),
    ],
)
def test_options_without_effect_missing_or_at_odds_are_not_valid(
    command: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """``--smoother kalman`` alone did nothing, and said nothing; a missing option had the exit code of failed work."""
    with pytest.raises(SystemExit) as left:
        main(command)
    assert left.value.code == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("command", ["predict", "video"])
def test_heads_by_landmarks_alone_are_not_valid(
    command: str, clip: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They were looked for in vain: nobody answers them."""
    source = {"predict": folder / "a.jpg", "video": clip}[command]
    with pytest.raises(SystemExit) as left:
        main([command, str(source), "--heads", "--eye", "landmarks"])
    assert left.value.code == 2
    assert f"nlml-hpe {command}: error: --heads: heads that show no face have no landmarks" in capfd.readouterr().err


def test_help_has_examples_and_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capfd.readouterr().out
    assert "nlml-hpe predict photo.jpg" in out
    assert all(command in out for command in COMMANDS)


def test_the_installed_command_says_what_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    command = Path(sys.executable).with_name("nlml-hpe")
    done = subprocess.run([command, "info"], capture_output=True, text=True, check=True)
    assert str(SHIPPED) in done.stdout
    assert "w300lp" in done.stdout


@pytest.mark.parametrize("module", ["nlml_hpe", "nlml_hpe.cli"])
def test_the_package_is_a_command_where_its_script_is_not_on_the_path(module: str) -> None:
    command = [sys.executable, "-m", module, "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"nlml-hpe {__version__}\n"


def test_the_version_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, capfd.readouterr().out) == (0, f"nlml-hpe {__version__}\n")


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_a_table_does_not_replace_a_photograph(folder: Path, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    """``predict --json a.jpg b.PNG`` and ``predict --csv *`` take the first image for the table's name."""
    before = (folder / "a.jpg").read_bytes()
    assert main(["predict", form, str(folder / "a.jpg"), str(folder / "b.PNG")]) == 1
    assert "a table is not written under the name of a picture" in capfd.readouterr().err
    assert (folder / "a.jpg").read_bytes() == before


@pytest.mark.parametrize("suffix", [".JPG", ".heic", ".mp4", ".jfif", ".avi"])
def test_a_table_is_not_written_under_a_pictures_name(folder: Path, suffix: str) -> None:
    assert main(["predict", str(folder / "a.jpg"), "--csv", str(folder / f"new{suffix}")]) == 1
    assert not (folder / f"new{suffix}").exists()


def test_an_output_that_is_an_input_is_refused(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By any name that it has: the photograph here has no suffix, and the table's name is a link to it."""
    (folder / "a.jpg").rename(folder / "scan")
    before = (folder / "scan").read_bytes()
    (tmp_path / "poses.csv").symlink_to(folder / "scan")
    for name in (folder / "scan", folder / ".." / "photos" / "scan", tmp_path / "poses.csv"):
        assert main(["predict", str(folder / "scan"), "--csv", str(name)]) == 1
        assert "this file is an input" in capfd.readouterr().err
    (folder / "00000_scan.jpg").write_bytes(before)
    inputs = [str(folder / "scan"), str(folder / "00000_scan.jpg")]
    assert main(["predict", *inputs, "--draw", str(folder)]) == 1
    assert "is an input" in capfd.readouterr().err
    assert (folder / "scan").read_bytes() == (folder / "00000_scan.jpg").read_bytes() == before


def test_outputs_that_cannot_be_written_are_known_before_the_work(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    image = str(folder / "a.jpg")
    for output, message in (
        (["--csv", str(tmp_path / "file" / "poses.csv")], "poses.csv"),
        (["--json", str(folder)], "is a folder"),
        (["--csv", str(tmp_path / ("long" * 100))], "name too long"),
        (["--draw", str(tmp_path / "file")], "is a file; name a folder"),
    ):
        # The model that is not there is looked for after the outputs.
        assert main(["predict", image, *output, "--model", "nowhere"]) == 1
        err = capfd.readouterr().err
        assert message in err
        assert "nowhere" not in err
        assert "tmp" not in err.replace(str(tmp_path), "")
    assert (tmp_path / "file").read_text() == "no folder"


def test_an_output_in_a_working_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for options in (["--csv", "poses.csv"], ["--draw", "drawn"]):
        assert main(["predict", str(REPOSITORY / "docs" / "photograph.jpg"), *options, "--model", "nowhere"]) == 1
        err = capfd.readouterr().err
        assert "the working folder was removed" in err
        assert options[1] in err


def test_one_missing_image_does_not_end_the_work(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["a.jpg", "missing.jpg", f"{'a' * 300}.jpg"]
    assert main(["predict", *(str(folder / name) for name in names), "--csv"]) == 1
    out, err = capfd.readouterr()
    assert [row["status"] for row in csv.DictReader(io.StringIO(out))] == ["face", "unreadable", "unreadable"]
    assert "missing.jpg: no such image" in err
    assert "a.jpg: File name too long" in err
    assert "1 image, 0 without a face, 2 not readable" in err


def test_a_link_that_leads_nowhere_is_one_image_that_is_not_readable(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to("nowhere")
    Image.new("RGB", (60, 60)).save(tmp_path / "y.jpg")
    table = tmp_path / "poses.csv"
    assert main(["predict", str(tmp_path), "--csv", str(table), "--draw", str(tmp_path / "drawn")]) == 1
    assert [line.split(",")[1] for line in table.read_text().splitlines()] == ["status", "unreadable", "no face"]


def test_what_is_skipped_in_a_folder_is_counted_and_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "d.jpg").unlink()
    (folder / "dir.jpg").mkdir()
    for name in (".hidden.jpg", ".DS_Store", "phone.heic"):
        (folder / name).touch()
    (folder / "a.jpg").rename(folder / "a.jfif")
    assert main(["predict", str(folder), "--csv"]) == 0
    out, err = capfd.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(Path(row["image"]).name, row["status"], row["face"]) for row in rows] == [
        ("a.jfif", "face", "1"),
        ("b.PNG", "face", "1"),
        ("c.webp", "no face", ""),
    ]
    assert "skipped: 2 hidden files (.DS_Store, .hidden.jpg), 1 folder (dir.jpg)" in err
    assert "2 other files (notes.txt, phone.heic)" in err


def test_all_faces_by_default_and_the_largest_alone_on_demand(
    tmp_path: Path, photo: RgbImage, capfd: pytest.CaptureFixture[str]
) -> None:
    face = photo[20:260, 110:350]
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(tmp_path / "two.png")
    found = []
    for more in ([], ["--largest"]):
        assert main(["predict", str(tmp_path / "two.png"), "--json", *more]) == 0
        (row,) = json.loads(capfd.readouterr().out)
        found.append((row["faces_found"], len(row["faces"])))
    assert found == [(2, 2), (2, 1)]


def test_a_tilde_is_the_home_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The user's cache is below the home folder.
    monkeypatch.setenv(FOLDER_VARIABLE, str(default_folder()))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["predict", "~/photos/a.jpg", "~/photos/[b].PNG", "--csv", "~/poses.csv"]) == 0
    assert len((tmp_path / "poses.csv").read_text().splitlines()) == 3


def test_a_name_that_is_not_utf8_is_said_and_answered(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = folder / "caf\udce9.jpg"
    try:
        (folder / "a.jpg").rename(odd)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes names in UTF-8 alone")
    for form in ("csv", "json"):
        table = folder / f"poses.{form}"
        assert main(["predict", str(odd), f"--{form}", str(table)]) == 0
        assert "not UTF-8" in capfd.readouterr().err
        assert "caf\\xe9.jpg" in table.read_text().replace("\\\\", "\\")
    assert main(["predict", str(odd)]) == 0
    assert "caf\\xe9.jpg  yaw" in capfd.readouterr().out
    odd.write_bytes(b"")
    assert main(["predict", str(odd), "--json", str(table)]) == 1
    # Half of a pair of surrogates in JSON is refused by other readers than Python's.
    assert json.loads(table.read_text())[0]["error"].encode().endswith(b"caf\\xe9.jpg: the file is empty")


@pytest.mark.skipif(os.name == "nt", reason="there names are text, whatever the locale")
def test_names_of_other_letters_than_the_locale_s_are_answered(folder: Path) -> None:
    """The answers were lost: a name that had been decoded for the table was taken for a file's once more."""
    (folder / "a.jpg").rename(folder / "\u00e9.jpg")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "nlml_hpe.cli", "predict", str(folder / "\u00e9.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "\\xe9.jpg  yaw" in done.stdout


def test_control_characters_in_names_reach_tables_and_no_terminal(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [str(folder / name) for name in ("one\rtwo.jpg", "red\x1b[31m.jpg", 'three\n, "four".jpg')]
    for name in names:
        shutil.copyfile(folder / "a.jpg", name)
    bad = str(folder / "bad\x1b[2J\n.jpg")
    shutil.copyfile(folder / "d.jpg", bad)
    table = folder / "poses.csv"
    assert main(["predict", *names, bad, "--csv", str(table)]) == 1
    with table.open(newline="") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == [*names, bad]
    assert table.read_bytes().count(b"\r") == 1
    assert f"error: {folder}/bad\\x1b[2J\\x0a.jpg: not an image" in capfd.readouterr().err
    assert main(["predict", *names]) == 0
    shown = [line.split("  ")[0] for line in capfd.readouterr().out.splitlines()]
    assert shown == [f"{folder}/{name}" for name in (r"one\x0dtwo.jpg", r"red\x1b[31m.jpg", r'three\x0a, "four".jpg')]
    assert main(["predict", str(folder / "no\x1b[31m.jpg"), "--model", str(folder / "no\x1b[31m")]) == 1
    assert "\x1b" not in capfd.readouterr().err


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, photo: RgbImage) -> None:
    """The real program, which gets its signal while it reads the second image: what was read by then is answered."""
    table, images = tmp_path / "poses.csv", tmp_path / "images"
    images.mkdir()
    for number in range(200):
        Image.fromarray(photo[:80, :80]).save(images / f"{number:03}.jpg")
    program = (
        "import sys, os, signal, nlml_hpe.cli.predict as p\n"
        "read = p.read_image\n"
        "def slow(path):\n"
        "    image = read(path)\n"
        "    os.kill(os.getpid(), signal.SIGINT) if path.name == '001.jpg' else None\n"
        "    return image\n"
        "p.read_image = slow\n"
        "from nlml_hpe.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "predict", str(images), "--csv", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    # As many as there are processors are read at once.
    answered = len(table.read_text().splitlines()) - 1
    assert 2 <= answered < 200
    assert f"stopped after {answered} of 200 images; the answers until then are kept" in done.stderr


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "spox", None)
    monkeypatch.delitem(sys.modules, "nlml_hpe.model.onnx_export", raising=False)
    assert main(["export", "out.onnx"]) == 1
    assert "needs spox, which is not installed: pip install -e '.[train]'" in capfd.readouterr().err


def test_the_backend_torch_works_without_the_packages_of_training(folder: Path) -> None:
    """torch, safetensors and scipy are all that the torch extra brings."""
    absent = ("pydantic", "yaml", "tensorly", "onnx", "spox", "sklearn", "numba", "joblib", "roma", "mediapipe")
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"
        "from nlml_hpe.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "predict", str(folder / "a.jpg"), "--backend", "torch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "yaw" in done.stdout) == (0, True), done.stderr


def test_help_says_every_default(capfd: pytest.CaptureFixture[str]) -> None:
    for command, words in (("predict", "(default: all)"), ("video", "(default: 1"), ("demo", "(default: 8000)")):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert words in capfd.readouterr().out


@pytest.fixture
def clip(tmp_path: Path, photo: RgbImage) -> Path:
    """Four frames with a face."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (256, 256))
    for _ in range(4):
        writer.write(cv2.resize(photo, (256, 256))[..., ::-1])
    writer.release()
    return tmp_path / "clip.mp4"


def test_a_video_is_never_written_over(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``video x.mp4 x.mp4`` lost the original, and ``video *.mp4`` of two videos the second one."""
    before = clip.read_bytes()
    (tmp_path / "other.mp4").write_bytes(before)
    (tmp_path / "link.mp4").symlink_to(clip)
    for output in (["clip.mp4"], ["link.mp4"], ["other.mp4"], ["new.mp4", "--csv", str(clip)], ["new.avi"]):
        assert main(["video", str(clip), str(tmp_path / output[0]), *output[1:], "--model", "nowhere"]) == 1
        err = capfd.readouterr().err
        assert "error: " in err
        assert "nowhere" not in err
    assert clip.read_bytes() == (tmp_path / "other.mp4").read_bytes() == before
    assert main(["video", str(clip), str(tmp_path / "other.mp4"), "--overwrite"]) == 0
    assert (tmp_path / "other.mp4").read_bytes() != before


def test_every_frame_has_a_row(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["video", str(clip), "--csv", str(tmp_path / "rows.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [(row["frame"], row["status"]) for row in rows] == [(str(n), "face") for n in range(4)]
    assert "4 frames, 4 with a face" in capfd.readouterr().err


def interrupted(clip: Path, outputs: list[str], at_frame_1: str) -> subprocess.CompletedProcess[str]:
    """``nlml-hpe video``, in which this is done in the second frame."""
    program = (
        "import sys, os, signal, nlml_hpe.cli.video as v\n"
        "rows = v._frame_rows\n"
        "def disturbed(result):\n"
        "    if result.frame.number == 1:\n"
        f"        {at_frame_1}\n"
        "    return rows(result)\n"
        "v._frame_rows = disturbed\n"
        "from nlml_hpe.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "video", str(clip), *outputs]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_in_a_video_keeps_what_is_done(clip: Path, tmp_path: Path, name: str) -> None:
    outputs = [str(tmp_path / "copy.mp4"), "--csv", str(tmp_path / "rows.csv")]
    done = interrupted(clip, outputs, f"os.kill(os.getpid(), signal.{name})")
    assert done.returncode == 130, done.stderr
    assert "stopped after 2 of 4; what was done until then is kept" in done.stderr
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3
    with VideoSource(tmp_path / "copy.mp4") as copy:
        assert len(list(copy)) == 2


def test_ctrl_c_twice_says_nothing_of_a_copy_that_is_there(clip: Path, tmp_path: Path) -> None:
    """It was said that no video was written."""
    table = ["--csv", str(tmp_path / "rows.csv")]
    done = interrupted(clip, [str(tmp_path / "copy.mp4"), *table], "raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C; what was not written until then is lost\n")
    with VideoSource(tmp_path / "copy.mp4") as copy:
        assert len(list(copy)) == 1
    twice = "[os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]"
    done = interrupted(clip, [str(tmp_path / "other.mp4"), *table], twice)
    assert (done.returncode, "without" in done.stderr) == (130, False)
    assert (tmp_path / "other.mp4").exists()


def test_rows_of_a_video_are_written_as_they_come(clip: Path, tmp_path: Path) -> None:
    """Of a camera they were kept in memory until it ended, and a signal that ends the program at once lost them."""
    done = interrupted(clip, [], "os.kill(os.getpid(), signal.SIGKILL)")
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["frame", "0"]
    os.mkfifo(tmp_path / "pipe.csv")
    with subprocess.Popen(["cat", tmp_path / "pipe.csv"], stdout=subprocess.PIPE, text=True) as reader:
        interrupted(clip, ["--csv", str(tmp_path / "pipe.csv")], "os.kill(os.getpid(), signal.SIGKILL)")
        assert [line.split(",")[0] for line in reader.communicate()[0].splitlines()] == ["frame", "0"]


def test_a_video_that_fails_keeps_the_rows_before(clip: Path, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    outputs = [str(tmp_path / "copy.mp4"), "--csv", str(table)]
    done = interrupted(clip, outputs, "raise ValueError('torn')")
    assert (done.returncode, done.stderr) == (1, "error: torn\n")
    assert [row["frame"] for row in csv.DictReader(table.open())] == ["0"]
    # Before the first row, and after a second Ctrl-C, nothing takes the place of what is there.
    table.write_text("of before\n")
    assert "is lost" in interrupted(clip, ["--csv", str(table)], "raise KeyboardInterrupt").stderr
    assert main(["video", str(clip), "--csv", str(table), "--model", "nowhere"]) == 1
    assert table.read_text() == "of before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "copy.mp4", "rows.csv"]


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="this system does not say what a process has taken")
def test_an_image_too_large_for_the_memory_costs_no_answer_of_the_others(tmp_path: Path) -> None:
    """It ended in a traceback, and no table was written."""
    shutil.copy("docs/photograph.jpg", tmp_path / "a.jpg")
    Image.new("RGB", (6000, 6000)).save(tmp_path / "b.png", compress_level=1)
    program = (
        "import resource, sys\nfrom nlml_hpe.cli import main\n"
        "main(['predict', sys.argv[1] + '/a.jpg'])\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 120 * 2**20,) * 2)\n"
        "sys.exit(main(['predict', sys.argv[1], '--csv', sys.argv[1] + '/poses.csv']))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"error: {tmp_path}/b.png: there is not enough memory" in done.stderr
    rows = list(csv.DictReader((tmp_path / "poses.csv").open()))
    assert [(row["image"], row["status"]) for row in rows] == [
        (str(tmp_path / "a.jpg"), "face"),
        (str(tmp_path / "b.png"), "unreadable"),
    ]


def test_a_disk_that_fills_costs_the_copy_and_not_the_rows(clip: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
        "from nlml_hpe.cli import main\n"
        "sys.exit(main(sys.argv[2:]))\n"
    )
    table = tmp_path / "rows.csv"
    for limit in (4096, 256):
        command = [sys.executable, "-c", program, str(limit), "video", str(clip), str(tmp_path / "copy.mp4")]
        done = subprocess.run([*command, "--csv", str(table)], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "copy.mp4: 0 of 4 frames were written; is the disk full?" in done.stderr
        assert table.exists() == (limit == 4096)
        rows = list(csv.DictReader(io.StringIO(table.read_text() if table.exists() else done.stdout)))
        assert [row["frame"] for row in rows] == ["0", "1", "2", "3"]
        assert all(row["bottom"] for row in rows)
        table.unlink(missing_ok=True)
    assert "rows.csv: File too large; the table follows on stdout" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_table_that_nobody_takes_goes_to_stdout_and_its_name_to_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "a\x1b[31m.csv"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with RowTable(("frame",), pipe) as table:
        os.close(reader)
        table.put([{"frame": 0}])
    out, err = capfd.readouterr()
    assert (out, table.is_written) == ("frame\n0\n", False)
    assert err == f"error: {tmp_path}/a\\x1b[31m.csv: Broken pipe; the table follows on stdout\n"


def test_a_window_needs_a_display(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Without one OpenCV ends the program: `video --webcam` over ssh did."""
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert not _has_windows()
    assert "no window: there is no display" in capfd.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    assert _has_windows()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_close_the_page(stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "nlml_hpe.cli", "demo", "--host", "localhost", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith("http://")
        program.send_signal(stop)
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (0, "the page is closed\n"), err


@pytest.mark.parametrize(("option", "query"), [("--heads", ""), ("", "?heads"), ("", "")])
def test_the_page_shows_heads_without_faces_where_it_is_asked_to(option: str, query: str) -> None:
    """Of the picture's rendered heads eleven are found by their faces alone, 66 as heads: by the option, or by the
    query, which an image has that is no frame of a webcam."""
    command = [sys.executable, "-m", "nlml_hpe.cli", "demo", *filter(None, [option]), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        place = f"{program.stdout.readline().split()[0]}predict{query}"
        body = (REPOSITORY / "docs" / "renders.jpg").read_bytes()
        request = urllib.request.Request(place, body, {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=60) as response:
            faces = json.load(response)["faces"]
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=60)
    assert (len(faces) > 40) == bool(option or query)


def test_the_page_finds_no_heads_without_an_image_eye(
    landmark_eye_alone: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--heads", "--port", "0", "--model", str(landmark_eye_alone)]) == 1
    assert "heads: this model has no image eye" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full on this system")
def test_answers_outlive_a_full_disk(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(folder / "a.jpg"), "--csv", "/dev/full"]) == 1
    out, err = capfd.readouterr()
    assert "No space left" in err
    assert "the table follows on stdout" in err
    assert [row["status"] for row in csv.DictReader(io.StringIO(out))] == ["face"]
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize("options", [[], ["--json"], ["--csv"]])
@pytest.mark.parametrize("into", [">/dev/full", "| true"])
def test_a_standard_output_that_cannot_be_written_is_an_error(into: str, options: list[str], folder: Path) -> None:
    """Python's own end wrote what was left, and said so by a code and a message of its own."""
    code, _, err = in_a_shell(["predict", str(folder / "a.jpg"), *options], into)
    assert code == 1
    assert re.search(
        r"^error: .*cannot be written \((No space left|Broken pipe).*'standard output'$", err, re.MULTILINE
    )
    assert "Exception" not in err


def test_a_table_larger_than_the_buffer_names_what_does_not_take_it(folder: Path) -> None:
    """Of such a table nothing is left for the end, where standard output was named."""
    images = [str(folder / "a.jpg")] * 16
    code, _, err = in_a_shell(["predict", *images, "--json"], ">/dev/full")
    assert code == 1
    assert err.endswith("error: [Errno 28] cannot be written (No space left on device): 'standard output'\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_table_of_which_standard_output_takes_a_part_is_an_error(unbuffered: str, folder: Path) -> None:
    """Without a buffer, as containers have it, the rest was lost and all was said to be well."""
    resource = pytest.importorskip("resource")
    images, part = [str(folder / "a.jpg")] * 4, 1024
    with (folder / "poses.json").open("wb") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "nlml_hpe.cli", "predict", *images, "--json"],
            stdout=sink,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            cwd=REPOSITORY,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (part, part)),
        )
    assert (folder / "poses.json").stat().st_size == part
    assert done.returncode == 1
    assert done.stderr.endswith("error: [Errno 27] cannot be written (File too large): 'standard output'\n")


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["info"]])
def test_words_that_do_not_arrive_are_an_error(command: list[str]) -> None:
    code, _, err = in_a_shell(command, ">/dev/full")
    assert (code, err) == (1, "error: [Errno 28] cannot be written (No space left on device): 'standard output'\n")


@pytest.mark.parametrize("options", [[], ["--json"], ["--csv"]])
def test_a_closed_standard_output_is_an_error_where_it_is_needed(options: list[str], folder: Path) -> None:
    code, _, err = in_a_shell(["predict", str(folder / "a.jpg"), *options], ">&-")
    assert code == 1
    assert "error: [Errno 9] cannot be written (it is closed): 'standard output'" in err
    assert "Traceback" not in err
    table = folder / "poses.csv"
    assert in_a_shell(["predict", str(folder / "a.jpg"), "--csv", str(table)], ">&-")[0] == 0
    assert len(table.read_text().splitlines()) == 2


def test_messages_do_not_enter_a_table(folder: Path) -> None:
    """Where standard error is closed: they went to standard output."""
    code, out, _ = in_a_shell(["predict", str(folder / "a.jpg"), str(folder / "nowhere.jpg"), "--json"], "2>&-")
    assert code == 1
    assert [row["status"] for row in json.loads(out)] == ["face", "unreadable"]


def in_a_shell(arguments: list[str], redirected: str) -> tuple[int, str, str]:
    """Code, standard output and standard error of a command whose streams are redirected."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    # What is printed must lie in a buffer when the work ends, as it does by default.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    script = f"set -o pipefail; {shlex.join([sys.executable, '-m', 'nlml_hpe.cli', *arguments])} {redirected}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY
    )
    return done.returncode, done.stdout, done.stderr


def test_lines_of_a_detector_come_before_the_bar(folder: Path) -> None:
    """MediaPipe's come with its first image, and tore a bar that was drawn before."""
    pytest.importorskip("mediapipe")
    command = [sys.executable, "-m", "nlml_hpe.cli", "predict", str(folder), "--detector", "mediapipe_facemesh"]
    err = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    before, bar, after = err.partition("Predict:")
    assert bar
    assert "W0000" in before
    assert not re.search("INFO|WARNING|W0000", after)


def test_a_named_detector_has_the_models_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the model's file is opened once."""
    model = onnx.load(SHIPPED / ONNX_FILE)
    onnx.save(saying(model, {**said_of(model), "min_confidence": 0.31}), tmp_path / "other.onnx")
    given = parser().parse_args(
        ["predict", "a.jpg", "--model", str(tmp_path / "other.onnx"), "--detector", "mediapipe_facemesh"]
    )
    opened: list[Path] = []
    opens = OnnxEngine.__init__

    def counted(engine: OnnxEngine, path: Path) -> None:
        opened.append(path)
        opens(engine, path)

    monkeypatch.setattr(OnnxEngine, "__init__", counted)
    with open_estimator(given, 1, tracking=False) as estimator:
        detector = estimator.detector
        assert isinstance(detector, CascadeDetector)
        assert detector._min_confidence == 0.31
    assert opened == [tmp_path / "other.onnx"]


def test_a_file_is_exported_that_answers_as_the_shipped_one(tmp_path: Path, photo: RgbImage) -> None:
    assert main(["export", str(tmp_path / "again.onnx")]) == 0
    # Its constants come out of LAPACK, which differs in the last bits from one processor to the next; test_onnx_export
    # compares graph and constants.
    with HeadPoseEstimator() as estimator:
        faces = estimator.detect(photo)
    answers = [OnnxEngine(path).estimate(faces, "refined") for path in (tmp_path / "again.onnx", SHIPPED / ONNX_FILE)]
    np.testing.assert_allclose(answers[0].rotation, answers[1].rotation, atol=1e-6)


@pytest.mark.parametrize("name", ["thesis.tex", "points.npy", "notes"])
def test_a_file_that_is_no_table_is_not_replaced_by_one(
    tmp_path: Path, photo: RgbImage, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    (tmp_path / name).write_text("mine")
    assert main(["predict", str(tmp_path / "photo.jpg"), "--csv", str(tmp_path / name)]) == 1
    assert (tmp_path / name).read_text() == "mine"
    assert "it is no table" in capsys.readouterr().err


def test_the_model_in_use_is_not_written_over(
    tmp_path: Path, photo: RgbImage, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    model = shutil.copytree(SHIPPED, tmp_path / "model")
    for given in (model, model / "model.onnx"):
        before = given / "config.json" if given.is_dir() else given
        content = before.read_bytes()
        command = ["predict", str(tmp_path / "photo.jpg"), "--model", str(given), "--json", str(before)]
        assert main(command) == 1
        assert before.read_bytes() == content
        assert "is an input" in capsys.readouterr().err
    assert main(["export", str(model / "model.onnx")]) == 1
    assert "--overwrite" in capsys.readouterr().err
