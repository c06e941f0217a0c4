"""The README's examples, verbatim, and its table of the eyes beside the stored results."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from nlml_hpe.files.images import RgbImage
from tests.conftest import REPOSITORY

BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [
    line.split("  #")[0].strip()
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if line.startswith("nlml-hpe")
]
# A server does not end, and a benchmark is not there.
RUN = [command for command in COMMANDS if command.split()[1] in ("predict", "video", "info")]


@pytest.fixture
def desk(tmp_path: Path, photo: RgbImage) -> Path:
    """A folder with the files that the examples name."""
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    cv2.imwrite(str(tmp_path / "photo.jpg"), photo[..., ::-1])
    writer = cv2.VideoWriter(str(tmp_path / "talk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, photo.shape[1::-1])
    for shift in range(5):
        writer.write(np.roll(photo, 3 * shift, axis=1)[..., ::-1])
    writer.release()
    return tmp_path


@pytest.mark.parametrize("program", PYTHON)
def test_python_examples_run(program: str, desk: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=desk, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "yaw" in done.stdout


@pytest.mark.parametrize("command", RUN)
def test_commands_run(command: str, desk: Path) -> None:
    program, *rest = shlex.split(command)
    own = Path(sys.executable).with_name(program)
    done = subprocess.run([own, *rest], cwd=desk, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_is_there() -> None:
    assert len(PYTHON) >= 1
    assert {command.split()[1] for command in COMMANDS} >= {"predict", "video", "evaluate", "demo"}


PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "data/*.md", "checkpoints/**/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
]


def anchors_of(page: Path) -> set[str]:
    """The headings of a page as they are linked: small letters, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_file_and_heading_that_is_shown_or_linked_is_there(page: Path) -> None:
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors_of(target), f"{name}#{anchor}"


@pytest.mark.parametrize("places", ["benchmarks/*.py", "configs/*.yaml", "docs/pipeline.md", "docs/speed.md"])
def test_extras_of_scripts_are_installed_with_e(places: str) -> None:
    """Without it pip puts the library alone in the editable install's place, and `stages` is found no more."""
    for path in REPOSITORY.glob(places):
        assert not re.search(r"pip install\s+'\.\[", path.read_text(encoding="utf-8")), path.name


def stored(name: str) -> dict[tuple[str, str], tuple[str, str]]:
    """What `benchmarks/results` has: by faces and eye the MAE and its interval, as they are written there."""
    results = REPOSITORY / "benchmarks/results"
    found = {}
    for line in (results / f"compare_{name}.txt").read_text().splitlines():
        if line.startswith(name) and " w300lp " in line:
            route, mae, interval = re.findall(r"/(\w+).*?([\d.]+)\s+([\d.]+\.\.[\d.]+)", line)[0]
            found[line.split()[1], route] = (mae, interval)
    for line in (results / f"calibration_{name}.txt").read_text().splitlines():
        for faces, protocol in (("in range", "aflw2000-nlml"), ("all", "aflw2000")):
            if line.startswith("both ") and (row := re.search(rf" {faces} .*? of \d+\s+([\d.]+)\s+(\S+)", line)):
                found[protocol, "boxes found"] = (row[1], row[2])
    return found


@pytest.mark.parametrize(("name", "place"), [("aflw2000_dev", 0), ("aflw2000_check", 1)])
def test_figures_of_the_eyes_are_the_stored_ones(name: str, place: int) -> None:
    """In the order of the table's rows: the landmark eye, the image eye, both, both in the boxes that are found."""
    text = (REPOSITORY / "README.md").read_text()
    rows = text.partition("| trained here, shipped;")[2].splitlines()[2:6]
    figures = stored(name)
    for row, route in zip(rows, ("refined", "image", "fused", "boxes found"), strict=True):
        cells = [cell.replace("*", "").strip() for cell in row.split("|")[2:6]]
        for cell, protocol in ((cells[place], "aflw2000-nlml"), (cells[place + 2], "aflw2000")):
            mae, interval = figures[protocol, route]
            assert re.findall(r"[\d.]+", cell)[0] == mae, (route, protocol)
            assert interval in cell or "(" not in cell, (route, protocol)
