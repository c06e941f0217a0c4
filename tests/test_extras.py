"""Optional packages that are not installed: which, for what, and the command."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from nlml_hpe import extras
from nlml_hpe.extras import MissingPackageError, needs
from tests.conftest import REPOSITORY

ABSENT = (
    "torch",
    "safetensors",
    "scipy",
    "pydantic",
    "yaml",
    "matplotlib",
    "tensorly",
    "onnx",
    "spox",
    "sklearn",
    "numba",
)
"""What an installation without extras lacks."""
LABELLED = ["--dataset", "aflw2000", "--root", "nowhere"]
WITHOUT = (
    f"import runpy, sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n"
    "sys.argv = sys.argv[1:]\nrunpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""Runs a module as a command, which finds none of these packages."""


def without_extras(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorly", None)
    with pytest.raises(MissingPackageError) as caught, needs("train", "`nlml-hpe evaluate`"):
        importlib.import_module("tensorly")
    assert str(caught.value).startswith("`nlml-hpe evaluate` needs tensorly, which is not installed: pip install ")
    assert str(caught.value).endswith(f"-e '.[train]' in {REPOSITORY}")


def test_outside_of_a_checkout_no_package_is_named_that_anybody_could_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_CHECKOUT", REPOSITORY / "tests")
    command, _, origin = extras.how_to_install("torch").partition(", where ")
    assert command == "pip install 'PLACE[torch]'"
    assert origin.startswith("PLACE is the wheel or checkout")


def test_nothing_says_to_install_this_package_by_its_name() -> None:
    """No index has it, so that whoever registered the name would be installed."""
    kinds = (
        "*.md",
        "*/*.md",
        "benchmarks/*.py",
        "configs/*.yaml",
        "nlml_hpe/**/*.py",
        "renderer/**/*.py",
        "stages/*.py",
    )
    texts = {path: path.read_text(encoding="utf-8") for kind in kinds for path in REPOSITORY.glob(kind)}
    by_name = re.compile(r"pip install[^`\n]*\n?[^`\n]*[ '\"]nlml[-_]hpe\b(?!/)")
    assert [path for path, text in texts.items() if by_name.search(text)] == []


def test_an_error_of_our_own_is_not_taken_for_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name") as caught, needs("train", "this test"):
        importlib.import_module("nlml_hpe.nothing_of_that_name")
    assert not isinstance(caught.value, MissingPackageError)


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["nlml_hpe.cli", "evaluate", *LABELLED], "train"),
        (["nlml_hpe.evaluation.calibration", *LABELLED], "train"),
        (["nlml_hpe.evaluation.scores", *LABELLED], "train"),
        (["nlml_hpe.cli", "predict", "a.jpg", "--backend", "torch"], "torch"),
    ],
    ids=["evaluate", "calibration", "scores", "backend torch"],
)
def test_without_the_packages_of_training_the_extra_is_named(command: list[str], extra: str) -> None:
    done = without_extras(*command)
    assert done.returncode in (1, 2)
    *warnings, line = done.stderr.splitlines()
    assert "Traceback" not in "".join(warnings)
    assert line.startswith("error: ")
    assert line.endswith(f", which is not installed: pip install -e '.[{extra}]' in {REPOSITORY}")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("nlml_hpe.cli", ["evaluate", "--help"]),
        ("nlml_hpe.evaluation.calibration", ["--help"]),
        ("nlml_hpe.evaluation.scores", ["--help"]),
        ("nlml_hpe.evaluation.datasets", ["--help"]),
    ],
)
def test_help_shows_without_the_packages_of_training(module: str, arguments: list[str]) -> None:
    done = without_extras(module, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout
    assert "datasets" in module or all(part in done.stdout for part in ("--root FOLDER", "train extra"))
