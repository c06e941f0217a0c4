"""The page that lists what to call is true, and docstrings say all that a caller must know.

Of what the page lists that is: sections for arguments, answers and errors, and an example that runs (``pytest`` runs
all examples). Whatever else the library and the renderer define has all sections where it has one or takes many
arguments, and no docstring tells of an argument that is not there.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import nlml_hpe
import renderer
from nlml_hpe.detection.heads import HeadDetector
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.inference.heads import HeadSearch
from nlml_hpe.inference.refinement import HeadRefiner
from nlml_hpe.manifold.manifold_file import write_manifold
from nlml_hpe.manifold.tensor import LandmarkTensor, open_array
from nlml_hpe.model.folder import load_model, save_model
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.training_run import History
from nlml_hpe.view.training_plots import plot_measures
from tests.conftest import REPOSITORY

NAMES = re.findall(r"`(nlml_hpe(?:\.\w+)+)`", (REPOSITORY / "docs" / "library.md").read_text())
_MANY = 3
_OPTIONAL = {"renderer.rasterizers.pytorch3d": "pytorch3d"}
"""Modules that need a package which does not install everywhere."""
CLASSES = [name for name in NAMES if name.rsplit(".", 1)[1][0].isupper()]


def sections_of(thing: Any) -> set[str]:
    """Names of the numpydoc sections that a docstring has."""
    return set(re.findall(r"^(\w+)\n-+$", inspect.getdoc(thing) or "", re.MULTILINE))


def sections_needed(function: Any) -> set[str]:
    """Names of the sections that a public function or method must have, whatever its example."""
    signature = inspect.signature(function)
    needed = {"Parameters"} if set(signature.parameters) - {"self", "cls"} else set()
    # A context manager may give nothing to the block below it.
    if signature.return_annotation not in ("None", None, "Iterator[None]"):
        needed.add("Yields" if inspect.isgeneratorfunction(inspect.unwrap(function)) else "Returns")
    return needed | ({"Raises"} if re.search(r"^ +raise ", inspect.getsource(function), re.MULTILINE) else set())


def public_methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Name and function of the class's own public methods; not the properties, which return what they are."""
    for name, member in vars(kind).items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__call__"):
            yield name, function


def modules() -> Iterator[ModuleType]:
    """All modules of the library and of the renderer that can be imported here."""
    for package in (nlml_hpe, renderer):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            needed = _OPTIONAL.get(found.name)
            if not found.name.endswith("__main__") and (needed is None or find_spec(needed)):
                yield import_module(found.name)


def public_things() -> Iterator[tuple[str, Any]]:
    """Name and function or class of all that these modules define for others, methods among them."""
    for module in modules():
        for name, member in vars(module).items():
            is_thing = inspect.isfunction(member) or inspect.isclass(member)
            if is_thing and member.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}.{name}", member
                for method, function in public_methods(member) if inspect.isclass(member) else ():
                    yield f"{module.__name__}.{name}.{method}", function


def arguments_told(thing: Any) -> set[str]:
    """Names in a docstring's section Parameters, which has them at the beginning of a line, alone or with a comma."""
    found = re.search(
        r"^Parameters\n-+\n(.*?)(?=^\w+\n-+$|\Z)", inspect.cleandoc(thing.__doc__ or ""), re.MULTILINE | re.DOTALL
    )
    lines = found[1].splitlines() if found else []
    heads = (line.partition(" : ")[0] for line in lines if line[:1].strip())
    return {name.strip(" *") for head in heads for name in head.split(",")}


def _takes_many(function: Any) -> bool:
    """Whether it takes three arguments or more, and is more than one expression, which says as much as a section."""
    (defined,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(defined, ast.FunctionDef)
    is_expression = len(defined.body) == 2 and isinstance(defined.body[-1], ast.Return)
    return len(set(inspect.signature(function).parameters) - {"self", "cls"}) >= _MANY and not is_expression


def is_told_in_a_line(function: Any) -> bool:
    """Whether a method takes nothing, refuses nothing, and has one line that says what it gives."""
    one_line = len((inspect.getdoc(function) or "").splitlines()) == 1
    return one_line and not sections_needed(function) & {"Parameters", "Raises"}


def test_names_are_many_and_none_is_listed_twice() -> None:
    assert len(NAMES) > 60
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_listed_is_there_and_documented(name: str) -> None:
    module, own_name = name.rsplit(".", 1)
    thing = getattr(import_module(module), own_name)
    text = inspect.getdoc(thing) or ""
    needed = set() if inspect.isclass(thing) else sections_needed(thing)
    assert (needed | {"Examples"}) - sections_of(thing) == set()
    assert ">>> " in text
    if dataclasses.is_dataclass(thing):
        # Each field is told of, in a section or in a sentence.
        assert [field.name for field in dataclasses.fields(thing) if not re.search(rf"\b{field.name}\b", text)] == []


@pytest.mark.parametrize("name", CLASSES)
def test_methods_of_what_is_listed_are_documented(name: str) -> None:
    """The class's example serves its methods; what they take, give and refuse each of them says itself."""
    module, own_name = name.rsplit(".", 1)
    missing = {
        method: sections_needed(function) - sections_of(function)
        for method, function in public_methods(getattr(import_module(module), own_name))
        if not is_told_in_a_line(function)
    }
    assert {method: sections for method, sections in missing.items() if sections} == {}


def test_whoever_takes_many_arguments_or_has_a_section_has_all() -> None:
    functions = {name: thing for name, thing in public_things() if inspect.isfunction(thing)}
    bound = {
        name: sections_needed(function) - sections_of(function)
        for name, function in functions.items()
        if sections_of(function) - {"Examples"} or _takes_many(function)
    }
    assert len(bound) > 200
    assert {name: sections for name, sections in bound.items() if sections} == {}


def test_docstrings_tell_of_the_arguments_that_are_there_and_of_no_others() -> None:
    wrong = {}
    for name, thing in public_things():
        if told := arguments_told(thing):
            taken = {each for each in inspect.signature(thing).parameters if not each.startswith("_")}
            wrong[name] = told ^ (taken - {"self", "cls"})
    assert len(wrong) > 200
    assert {name: names for name, names in wrong.items() if names} == {}


def test_paths_may_be_text(tmp_path: Path) -> None:
    """Half of what reads and writes took text, and the rest stopped at "'str' object has no attribute 'stat'"."""
    model, history, place = load_model(SHIPPED), History([0.5], [0.6], 0, [1e-3]), str(tmp_path)
    save_model(f"{place}/model", model)
    write_manifold(f"{place}/manifold.npz", model.manifold)
    assert plot_measures(history, f"{place}/losses.png") == tmp_path / "losses.png"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["losses.png", "manifold.npz", "model"]
    np.save(f"{place}/numbers.npy", np.arange(3))
    assert open_array(f"{place}/numbers.npy").tolist() == [0, 1, 2]
    for opened in (HeadSearch, HeadDetector, HeadRefiner, LandmarkTensor.open):
        with pytest.raises(ArtifactError, match="nowhere"):
            opened("nowhere")
