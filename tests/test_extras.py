"""Optional packages that are not installed: which, for what, and the command."""

from __future__ import annotations

import importlib
import sys

import pytest

from nlml_hpe import extras
from nlml_hpe.extras import MissingPackageError, needs
from tests.conftest import REPOSITORY


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorly", None)
    with pytest.raises(MissingPackageError) as caught, needs("train", "`nlml-hpe evaluate`"):
        importlib.import_module("tensorly")
    assert str(caught.value).startswith("`nlml-hpe evaluate` needs tensorly, which is not installed: pip install ")
    assert str(caught.value).endswith(f"'.[train]' in {REPOSITORY}")


def test_outside_of_a_checkout_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_CHECKOUT", REPOSITORY / "tests")
    assert extras.how_to_install("torch") == "pip install 'nlml-hpe[torch]'"


def test_an_error_of_our_own_is_not_taken_for_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name") as caught, needs("train", "this test"):
        importlib.import_module("nlml_hpe.nothing_of_that_name")
    assert not isinstance(caught.value, MissingPackageError)
