"""The command line as users type it: results on stdout, messages on stderr, exit codes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from nlml_hpe.cli import main
from nlml_hpe.files.images import RgbImage, read_image
from nlml_hpe.inference.engines import SHIPPED

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
    assert [Path(row["image"]).name for row in rows] == ["a.jpg", "b.PNG", "c.webp"]
    assert [len(row["faces"]) for row in rows] == [1, 1, 0]
    assert "d.jpg: not an image" in err
    assert "3 images, 1 without a face, 1 not readable" in err
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
        (["video"], "--webcam"),
        (["video", "README.md"], "cannot be opened"),
        (["video", "--webcam", "97"], "camera 97"),
        (["video", "a.mp4", "--webcam", "0"], "not both"),
        (["export", "out.onnx", "--model", "nowhere"], "no such model folder"),
        (["info", "--model", "README.md"], "is missing"),
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


def test_the_shipped_onnx_file_is_that_of_the_shipped_model(tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == (SHIPPED / "model.onnx").read_bytes()
