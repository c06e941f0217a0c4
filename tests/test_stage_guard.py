"""A stage without the packages of the extra ``train`` says in one line what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

_FOLDERS = (REPOSITORY / "stages", REPOSITORY / "benchmarks")
_SCRIPTS = sorted(path for folder in _FOLDERS for path in folder.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("package", ["pydantic", "yaml", "torch", "tensorly"])
def test_the_chain_names_the_missing_package(package: str) -> None:
    code = (
        "import runpy, sys; "
        f"sys.modules[{package!r}] = None; sys.argv = ['stages/run_pipeline.py']; "
        "runpy.run_path('stages/run_pipeline.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: stages/run_pipeline.py needs ")
    assert package in line
    assert "'.[train]'" in line


@pytest.mark.parametrize(
    ("script", "package", "extra"),
    [
        ("latency", "numpy", "train"),
        ("crops", "yaml", "train"),
        ("peers", "mediapipe", "mediapipe"),
        ("render", "vtk", "benchmarks"),
    ],
)
def test_a_benchmarks_help_names_the_missing_package(script: str, package: str, extra: str) -> None:
    code = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv = ['benchmarks/{script}.py', '--help']; "
        f"runpy.run_path('benchmarks/{script}.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: benchmarks/{script}.py needs {package}")
    assert f"'.[{extra}]'" in line


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("latency_parts.py", "--root"), "nowhere: no such folder"),
        (("landmark_boxes.py", "--crops"), "nowhere holds no crops"),
        (("smoothing.py", "--kit"), "nowhere"),
    ],
)
def test_a_benchmark_without_its_data_says_so_without_a_traceback(command: tuple[str, str], message: str) -> None:
    script, option = command
    words = [sys.executable, f"benchmarks/{script}", option, "nowhere"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line


def test_every_script_has_the_guard_before_other_packages() -> None:
    assert len(_SCRIPTS) > 10
    for path in _SCRIPTS:
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        first = next(line for line in imports if line.split()[1].partition(".")[0] not in sys.stdlib_module_names)
        assert first.startswith("import stages.guard"), path.name
