"""What is loaded, and when: the package alone loads nothing, and a prediction by ONNX no package of the training."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

import nlml_hpe
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.video_files import VideoWriter
from tests.conftest import REPOSITORY

TRAINING = ("torch", "pydantic", "yaml", "scipy", "tensorly", "sklearn", "joblib", "numba", "onnx", "safetensors")
OTHER = ("mediapipe", "matplotlib", "tflite")


def modules_after(program: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after a program."""
    code = f"import json, sys\n{program}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_alone_loads_nothing() -> None:
    loaded = modules_after("import nlml_hpe")
    assert {name for name in loaded if name.startswith("nlml_hpe")} == {"nlml_hpe"}
    # numpy alone takes ten times as long as the package.
    assert not loaded & {"numpy", "cv2", "PIL", "onnxruntime", *TRAINING, *OTHER}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_nobody_is_told_of_a_prediction(tmp_path: Path) -> None:
    """onnxruntime reported each use over the network, from a thread for which a forked child waited for ever."""
    program = (
        "import os, nlml_hpe.sessions as sessions\nfrom nlml_hpe.model.format import ONNX_FILE, SHIPPED\n"
        "sessions.open_session(SHIPPED / ONNX_FILE)\nchild = os.fork()\nif child:\n    os.waitpid(child, 0)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=60) == 0
    finally:
        with suppress(ProcessLookupError):  # the child too, which has its group
            os.killpg(process.pid, signal.SIGKILL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_who_lets_onnxruntime_report_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    program = "import os, nlml_hpe\nsys.modules[os.environ['ORT_DISABLE_TELEMETRY']] = os"
    assert "0" in modules_after(program)


def test_a_type_checker_sees_which_names_there_are(tmp_path: Path) -> None:
    """Every misspelt name was one that is there, of any type."""
    pytest.importorskip("mypy", reason="mypy is not installed (it is in the dev extra)")
    program = tmp_path / "program.py"
    program.write_text("import nlml_hpe\nfrom nlml_hpe import HeadPoseEstimator, Misspelt\nnlml_hpe.Gone\n")
    command = [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "--follow-imports", "skip", "--strict"]
    files = [program, Path(nlml_hpe.__file__)]
    done = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith(program.name)]
    assert len(told) == 2, done.stdout + done.stderr
    assert '"Misspelt"' in told[0]
    assert '"Gone"' in told[1]


def test_what_is_said_to_need_no_extra_loads_no_training_package() -> None:
    page = (REPOSITORY / "docs" / "library.md").read_text()
    first, _, rest = page.partition("| decompose it")
    (labelled,) = re.findall(r"^\| read labelled data.*$", rest, re.MULTILINE)
    modules = sorted(set(re.findall(r"`(nlml_hpe[\w.]+)\.\w+`", first.partition("| You want to")[2] + labelled)))
    assert {"nlml_hpe.inference.video", "nlml_hpe.manifold.tensor", "nlml_hpe.evaluation.datasets"} <= set(modules)
    assert not modules_after(f"import {', '.join(modules)}") & {*TRAINING, *OTHER}


COMMANDS = {
    "predict": ["predict", "photo.png", "--json"],
    "video": ["video", "walk.mp4", "drawn.mp4", "--csv", "poses.csv", "--smooth"],
    "info": ["info"],
    "help": ["--help"],
}


def run_in(folder: Path, program: str) -> set[str]:
    """Names of all modules that a program in a folder loads."""
    return modules_after(f"import os\nos.chdir({str(folder)!r})\n{program}")


def test_a_prediction_by_onnx_loads_no_training_package(photo: RgbImage, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    loaded = run_in(
        tmp_path,
        "from PIL import Image\nfrom nlml_hpe import HeadPoseEstimator\n"
        "with HeadPoseEstimator.from_pretrained() as estimator:\n"
        "    assert len(estimator.predict(Image.open('photo.png'))) == 1",
    )
    assert "onnxruntime" in loaded
    assert not loaded & {*TRAINING, *OTHER}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_loads_no_training_package(command: str, photo: RgbImage, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with VideoWriter(tmp_path / "walk.mp4", 25.0) as writer:
        for number in range(3):
            writer.put(photo, number / 25)
    # `--help` ends with an exit of its own.
    program = (
        "from nlml_hpe.cli import main\ntry:\n    code = main({})\nexcept SystemExit as ended:\n    code = ended.code"
    )
    loaded = run_in(tmp_path, program.format(COMMANDS[command]) + "\nassert not code, code")
    assert {"nlml_hpe.cli", "numpy"} <= loaded
    assert not loaded & {*TRAINING, *OTHER}
    if command == "video":
        assert len((tmp_path / "poses.csv").read_text().splitlines()) == 4


def test_the_image_eye_needs_no_training_package() -> None:
    loaded = modules_after("import nlml_hpe.inference.image_engine")
    assert not loaded & {"matplotlib", *TRAINING}


def test_public_names_are_found_and_others_are_not() -> None:
    assert set(nlml_hpe.__all__) <= set(dir(nlml_hpe))
    assert all(hasattr(nlml_hpe, name) for name in nlml_hpe.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        nlml_hpe.no_such_name  # noqa: B018


def test_rendering_crops_loads_no_torch() -> None:
    """It takes a second, which each run of the stage and each of its workers would wait."""
    loaded = modules_after("import stages.Crops\nfrom renderer.crop_scene import pictures\npictures(None)")
    assert not loaded & {"torch", "sklearn", "matplotlib", "onnxruntime"}
