"""The page that lists what to call is true: each name is there, and its docstring says all that a caller must know."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib import import_module
from typing import Any

import pytest

from tests.conftest import REPOSITORY

NAMES = re.findall(r"`(nlml_hpe(?:\.\w+)+)`", (REPOSITORY / "docs" / "library.md").read_text())


def sections_needed(thing: Any) -> set[str]:
    """Names of the numpydoc sections that a public function or class must have."""
    if inspect.isclass(thing):
        return {"Examples"}
    signature = inspect.signature(thing)
    needed = {"Examples"} | ({"Parameters"} if signature.parameters else set())
    if signature.return_annotation not in ("None", None):
        needed.add("Yields" if inspect.isgeneratorfunction(thing) else "Returns")
    return needed | ({"Raises"} if re.search(r"^ +raise ", inspect.getsource(thing), re.MULTILINE) else set())


def test_names_are_many_and_none_is_listed_twice() -> None:
    assert len(NAMES) > 60
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_listed_is_there_and_documented(name: str) -> None:
    module, own_name = name.rsplit(".", 1)
    thing = getattr(import_module(module), own_name)
    text = inspect.getdoc(thing) or ""
    headed = set(re.findall(r"^(\w+)\n-+$", text, re.MULTILINE))
    assert sections_needed(thing) - headed == set()
    assert ">>> " in text
    if dataclasses.is_dataclass(thing):
        # Each field is told of, in a section or in a sentence.
        assert [field.name for field in dataclasses.fields(thing) if not re.search(rf"\b{field.name}\b", text)] == []
