"""Lists of faces: one name a line, as 6DRepNet, HopeNet and the method's authors read them, and seeded splits."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nlml_hpe.evaluation.datasets.samples import Dataset, DatasetError, counted_names, is_plain, legible
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.files.images import IMAGE_SUFFIXES

MAX_LIST_BYTES = 64 * 1024 * 1024
"""A list of 300W-LP's 122,450 names has 3 megabytes."""
SPLITS = ("train", "validation", "test")


def write_lists(lists: Mapping[Path, Iterable[str]], replace_existing: bool = False) -> None:
    """Write lists, one name a line; all of them are checked before the first is written.

    Parameters
    ----------
    lists : mapping of Path to names
        What to write where.
    replace_existing : bool
        Whether files that are there already, with another content, are replaced.

    Raises
    ------
    DatasetError
        Where a file cannot be a list, or is there already with another content: it may be somebody's own list; and for
        a name that is not one line of text, which would not be read as it was.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_lists({Path(folder) / "train.txt": ["a", "b"]})
    ...     read_list(Path(folder) / "train.txt")
    ['a', 'b']
    """
    listed = {path: list(names) for path, names in lists.items()}
    for path, names in listed.items():
        if odd := [legible(name) for name in names if not is_plain(name) or not name.strip()]:
            raise DatasetError(f"{path}: expected names of one line of UTF-8 text; received {counted_names(odd)}")
    contents = {path: "".join(f"{name}\n" for name in names).encode() for path, names in listed.items()}
    for path, content in contents.items():
        if path.is_dir():
            raise DatasetError(f"{path} is a folder; expected the name of a file to write the list to")
        if path.suffix.lower() in (*IMAGE_SUFFIXES, ".mat", ".npz", ".bin"):
            raise DatasetError(f"{path}: a list is text; expected a name like files.txt")
        if path.is_file() and not replace_existing and path.read_bytes() != content:
            raise DatasetError(f"{path} is there already and holds something else; --force replaces it")
    for path, content in contents.items():
        write_bytes(path, content)


def read_list(path: str | Path) -> list[str]:
    """Names of a list, in its order and as they stand there: one may begin or end with a space. Empty lines are none.

    Parameters
    ----------
    path : str or Path
        UTF-8 text, a name a line.

    Returns
    -------
    list of str
        One name or more.

    Raises
    ------
    DatasetError
        Where the file is missing, larger than ``MAX_LIST_BYTES``, not UTF-8 text, or names nothing.

    Examples
    --------
    >>> read_list("nowhere.txt")
    Traceback (most recent call last):
        ...
    nlml_hpe.evaluation.datasets.samples.DatasetError: nowhere.txt: the list cannot be read (No such file or directory)
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise DatasetError(f"{path}: the list cannot be read ({error.strerror})") from error
    if len(content) > MAX_LIST_BYTES:
        raise DatasetError(f"{path}: larger than {MAX_LIST_BYTES} bytes; expected a list of names")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected a list of names as UTF-8 text ({error})") from error
    names = [line for line in lines if line.strip()]
    if not names:
        raise DatasetError(f"{path}: the list is empty")
    return names


def chosen_by_list(data: Dataset, path: Path | None) -> Dataset:
    """The faces that a list names, and no others; all of them without a list.

    Names may be spelled in the ways that ``meant`` knows. What the reader left out of the whole data set stays counted.

    Parameters
    ----------
    data : Dataset
        All faces.
    path : Path or None
        The list, one name a line, as ``read_list`` reads it.

    Returns
    -------
    Dataset
        In the order of ``data``.

    Raises
    ------
    DatasetError
        Where a name of the list is no labelled face of the data set, is that of several, or stands there twice; the
        message counts and names them.
    """
    if path is None:
        return data
    names = read_list(path)
    found = meant(names, [sample.name for sample in data.samples])
    unknown = [with_slashes(name.strip()) for name, one in zip(names, found, strict=True) if not one]
    if unknown:
        raise DatasetError(
            f"{path}: of {len(names)} names these are no labelled faces of {data.name} in {data.root}: "
            f"{counted_names(unknown)}; {_why(data, unknown)}"
        )
    wanted = set(each_once(path, found))
    return replace(data, samples=[sample for sample in data.samples if sample.name in wanted])


def meant(names: Iterable[str], known: Iterable[str]) -> list[list[str]]:
    """The known names that each name of a list means.

    A name means itself. Where nothing is called so, it may have spaces about it, begin with ``./`` as in 6DRepNet's own
    lists, have been written on Windows, and lack an image's suffix that the known name has, or have one that it lacks.

    Parameters
    ----------
    names : iterable of str
        Of a list.
    known : iterable of str
        Of what there is.

    Returns
    -------
    list of list of str
        For each name none, one, or several that differ by their suffix alone.

    Examples
    --------
    >>> meant(["a ", "b", "./c.jpg", "d"], ["a", "a ", "b.jpg", "b.png", "c"])
    [['a '], ['b.jpg', 'b.png'], ['c'], []]
    """
    exact: dict[str, list[str]] = {}
    bare: dict[str, list[str]] = {}
    for name in known:
        exact[name] = [name]
        bare.setdefault(bare_name(name), []).append(name)

    def found(name: str) -> list[str]:
        ways = (name, name.strip(), with_slashes(name.strip()))
        places = ((exact, way) for spelled in ways for way in (spelled, bare_name(spelled)))
        loose = ((bare, bare_name(spelled)) for spelled in ways)
        return next((table[way] for table, way in itertools.chain(places, loose) if way in table), [])

    return [found(name) for name in names]


def each_once(path: Path, found: Iterable[Sequence[str]]) -> list[str]:
    """The names that a list means, in its order.

    Parameters
    ----------
    path : Path
        The list, for messages.
    found : iterable of sequence of str
        What ``meant`` gave, each name known.

    Returns
    -------
    list of str
        One for each name of the list.

    Raises
    ------
    DatasetError
        Where a name is that of several, and where two names mean the same.

    Examples
    --------
    >>> each_once(Path("l.txt"), [["b.jpg"], ["a"]])
    ['b.jpg', 'a']
    """
    found = list(found)
    if several := [", ".join(names) for names in found if len(names) > 1]:
        raise DatasetError(f"{path}: write the suffix of names that several photographs have: {counted_names(several)}")
    chosen = [name for (name,) in found]
    if twice := [name for name, count in Counter(chosen).items() if count > 1]:
        raise DatasetError(f"{path}: these names stand in the list more than once: {counted_names(twice)}")
    return chosen


def _why(data: Dataset, unknown: Sequence[str]) -> str:
    """What is known of a name that is no labelled face."""
    for reason, names in data.left_out.items():
        if both := set(map(bare_name, unknown)) & set(map(bare_name, names)):
            return f"{len(both)} of them: {reason}"
    return f"write the list again, or name the folder that it was made of (a name here: {data.samples[0].name})"


def with_slashes(name: str) -> str:
    """A name of a list that was written from inside of the folder (``./AFW/a``) or on Windows (``.\\AFW\\a``)."""
    return name.replace("\\", "/").removeprefix("./")


def bare_name(name: str) -> str:
    """A name without an image's suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def split(data: Dataset, train: float, validation: float, seed: int) -> dict[str, list[str]]:
    """Divide a data set at random, photographs, people and recordings whole.

    Parameters
    ----------
    data : Dataset
        Labelled faces; ``Sample.group`` says which belong together.
    train, validation : float
        Shares of the faces; what remains is the test list. Groups differ in size, so that shares are met closely
        and not exactly.
    seed : int
        The same seed gives the same lists on every machine.

    Returns
    -------
    dict of str to list of str
        Names of ``train``, ``validation`` and ``test``, sorted; a list whose share is zero is not there.

    Raises
    ------
    DatasetError
        For shares that are no shares, and where there are fewer groups than lists.

    Examples
    --------
    >>> from nlml_hpe.evaluation.datasets import Sample
    >>> faces = [Sample(f"{person}/{n}", (0, 0, 0), lambda: None, group=person) for person in "abcd" for n in "12"]
    >>> split(Dataset("biwi", Path("BIWI"), faces), train=0.5, validation=0.25, seed=0)
    {'train': ['a/1', 'a/2', 'c/1', 'c/2'], 'validation': ['b/1', 'b/2'], 'test': ['d/1', 'd/2']}
    """
    rest = 1.0 - train - validation
    if not (0 <= train <= 1 and 0 <= validation <= 1 and rest > -1e-9):
        raise DatasetError(
            f"expected shares of train and validation from 0 to 1, at most 1 together; received {train:g} and "
            f"{validation:g}"
        )
    shares = {name: share for name, share in zip(SPLITS, (train, validation, rest), strict=True) if share > 1e-9}
    groups: dict[str, list[str]] = {}
    for sample in data.samples:
        groups.setdefault(sample.group or sample.name, []).append(sample.name)
    if len(groups) < len(shares):
        raise DatasetError(
            f"{data.root}: {len(groups)} photographs, people or recordings cannot be divided into {len(shares)} lists"
            + ("; an npz file does not say which of its crops belong together" if data.name == "fsanet" else "")
        )
    return _filled(groups, shares, len(data.samples), seed)


def _filled(groups: dict[str, list[str]], shares: dict[str, float], total: int, seed: int) -> dict[str, list[str]]:
    """Groups in random order, each into the list that lacks most of its share; no list stays empty."""
    keys = sorted(groups)
    lists: dict[str, list[str]] = {name: [] for name in shares}
    for position, index in enumerate(np.random.default_rng(seed).permutation(len(keys))):
        left = len(keys) - position
        empty = [name for name in lists if not lists[name]]
        open_lists = empty if left == len(empty) else list(lists)
        lacking = max(open_lists, key=lambda name: shares[name] * total - len(lists[name]))
        lists[lacking] += groups[keys[index]]
    return {name: sorted(names) for name, names in lists.items()}
