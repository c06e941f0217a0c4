"""A YAML file as a checked section: every mistake is named with file, line, and the nearest valid key."""

from __future__ import annotations

import difflib
import itertools
import reprlib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from nlml_hpe.config import Section
from nlml_hpe.words import counted

MAX_CONFIG_BYTES = 1_000_000
_MOST_VALUES = 100_000
"""Of a file with its aliases written out: with a few lines of them it would fill the memory."""
_MOST_PROBLEMS = 20
AnySection = TypeVar("AnySection", bound=Section)


class _Short(reprlib.Repr):
    """Values in errors, shortened."""

    def repr_int(self, x: int, level: int) -> str:
        """Numbers of thousands of digits, which Python does not write: YAML reads them where they are hexadecimal."""
        return super().repr_int(x, level) if x.bit_length() < _MOST_BITS else f"a number of {x.bit_length()} bits"


_MOST_BITS = 10_000
_SHORT = _Short()


class ConfigError(ValueError):
    """A configuration file is missing, not YAML, or holds a key or value that is not valid."""


def read_section(source: Path, section: type[AnySection]) -> AnySection:
    """Read and check a YAML file. Raises ``ConfigError`` with file, line and the nearest valid key."""
    if not source.is_file():
        raise ConfigError(f"{source}: no such configuration file")
    if source.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_CONFIG_BYTES} bytes; this is no configuration file")
    try:
        text = source.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _unfolded(node, {}) > _MOST_VALUES:
            raise ConfigError(
                f"{source}: more than {_MOST_VALUES} values, aliases written out; this is no configuration"
            )
        data = yaml.safe_load(text)
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, a date or a number that is none
        raise ConfigError(f"{source}: not valid YAML ({error})") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply; expected a mapping of sections") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of sections, received {type(data).__name__}")
    lines = _lines(source, node, set())
    try:
        return section.model_validate(data)
    except ValidationError as error:
        entries = _own_errors(error)
        problems = [_problem(source, section, lines, entry) for entry in entries[:_MOST_PROBLEMS]]
        if more := len(entries) - len(problems):
            problems.append(f"{source}: and {counted(more, 'mistake')} more")
        raise ConfigError("\n".join(problems)) from error


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values there are where every alias is written out; one that points to what holds it counts once.

    ``known`` holds the numbers of nodes that were counted.
    """
    if id(node) not in known:
        known[id(node)] = 1
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = itertools.chain(*parts) if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] += sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def _lines(
    source: Path, node: yaml.Node | None, seen: set[int], where: tuple[str, ...] = ()
) -> dict[tuple[str, ...], int]:
    """Line of every key and of every item of a list, by its path.

    A key written twice is an error: YAML would drop the first. ``seen`` holds what was looked at, for an alias may
    point to what holds it.
    """
    found: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode) and id(node) not in seen:
        seen.add(id(node))
        for key, value in node.value:
            path = (*where, str(key.value))
            line = key.start_mark.line + 1
            if path in found:
                raise ConfigError(f"{source}, line {line}: key {'.'.join(path)!r} is already set in line {found[path]}")
            found[path] = line
            found.update(_lines(source, value, seen, path))
    if isinstance(node, yaml.SequenceNode) and id(node) not in seen:
        seen.add(id(node))
        for number, value in enumerate(node.value):
            path = (*where, str(number))
            found[path] = value.start_mark.line + 1
            found.update(_lines(source, value, seen, path))
    return found


def _own_errors(error: ValidationError) -> list[Any]:
    """The mistakes of the file: pydantic also calls a list too short whose items it has dropped for their mistakes."""
    entries = error.errors()
    inside = {entry["loc"][:n] for entry in entries for n in range(len(entry["loc"]))}
    return [entry for entry in entries if entry["type"] != "too_short" or entry["loc"] not in inside]


def _problem(source: Path, section: type[Section], lines: dict[tuple[str, ...], int], entry: Any) -> str:
    path = tuple(str(part) for part in entry["loc"])
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    place = f"{source}, line {line}" if line else f"{source}"
    name = ".".join(path)
    if entry["type"] != "extra_forbidden":
        message = entry["msg"].removeprefix("Value error, ")
        return f"{place}: {name}{': ' if name else ''}{message} (received {_SHORT.repr(entry['input'])})"
    near = difflib.get_close_matches(path[-1], _valid_keys(section, path[:-1]), n=1, cutoff=0.0)
    nearest = f"; the nearest valid key is {'.'.join((*path[:-1], *near))!r}" if near else ""
    return f"{place}: unknown key {name!r}{nearest}"


def _valid_keys(section: type[Section], path: tuple[str, ...]) -> list[str]:
    """Keys of the section at this path, in which numbers are those of items; none where more than one may stand there.

    >>> from stages.config import Config
    >>> _valid_keys(Config, ("image_trainer", "data", "0", "pseudo_labels"))
    ['model', 'agreement_deg', 'every']
    """
    here: type[Section] | None = section
    for part in path:
        if part.isdigit():
            continue
        if here is None or part not in here.model_fields:
            return []
        here = _section_of(here.model_fields[part].annotation)
    return [] if here is None else list(here.model_fields)


def _section_of(annotation: Any) -> type[Section] | None:
    """The one section in a type such as ``tuple[CropsConfig, ...]`` or ``CropsConfig | None``."""
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
    found = [one for part in get_args(annotation) if (one := _section_of(part)) is not None]
    return found[0] if len(found) == 1 else None
