"""The wheel in an environment of its own, outside of the repository: it predicts, and needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from nlml_hpe.files.images import RgbImage
from tests.conftest import REPOSITORY

PROGRAM = """
import importlib.util, json, sys
from nlml_hpe import HeadPoseEstimator
with HeadPoseEstimator.from_pretrained() as estimator:
    (pose,) = estimator.predict("photo.jpg")
absent = [name for name in ("torch", "numba", "pydantic", "pytorch3d") if importlib.util.find_spec(name) is None]
print(json.dumps({**pose.as_dict(), "absent": absent, "where": sys.modules["nlml_hpe"].__file__}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(REPOSITORY),
    ]
    subprocess.run(command, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_library_and_the_checkpoint_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"nlml_hpe"}
    for name in ("model.onnx", "model.safetensors", "manifold.npz", "config.json"):
        assert f"nlml_hpe/checkpoint/{name}" in names
    assert "nlml_hpe/page/page.html" in names
    assert wheel.stat().st_size < 13_000_000


def test_an_installed_wheel_predicts_without_torch(
    wheel: Path, tmp_path: Path, photo: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A path that leads to the checkout would hide the installed package.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        str(REPOSITORY / "constraints.txt"),
        str(wheel),
    ]
    subprocess.run(install, check=True)
    done = subprocess.run([python, "-c", PROGRAM], cwd=tmp_path, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["absent"] == ["torch", "numba", "pydantic", "pytorch3d"]
    assert found["where"].startswith(str(tmp_path))
    assert abs(found["yaw"]) < 15
    assert found["sigma"] is not None
    command = [tmp_path / "venv" / "bin" / "nlml-hpe", "predict", "photo.jpg", "--json"]
    shown = json.loads(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout)
    assert shown[0]["faces"][0]["yaw"] == found["yaw"]
    evaluate = [tmp_path / "venv" / "bin" / "nlml-hpe", "evaluate", "--dataset", "aflw2000", "--root", "."]
    refused = subprocess.run(evaluate, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "is not installed: pip install 'nlml-hpe[train]'" in refused.stderr
