"""A stage without the packages of the extra ``train`` says in one line what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

_SCRIPTS = sorted(path for path in (REPOSITORY / "stages").glob("*.py") if "__main__" in path.read_text())


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


def test_every_script_has_the_guard_before_other_packages() -> None:
    assert len(_SCRIPTS) > 10
    for path in _SCRIPTS:
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        first = next(line for line in imports if line.split()[1].partition(".")[0] not in sys.stdlib_module_names)
        assert first.startswith("import stages.guard"), path.name
