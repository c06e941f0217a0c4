"""Optional packages: what is missing is said with the command that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]
ORIGIN = "where PLACE is the wheel or checkout that it was installed from; no package index has nlml-hpe"
"""What follows a command of pip's for an installed package: a name that nobody has there could be anybody's."""


class MissingPackageError(ImportError):
    """An optional package is not installed; the message says which one, for what, and how to install it."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Imports of optional packages, below a ``with``.

    Parameters
    ----------
    extra : str
        The name in pyproject.toml under which the packages are installed: torch, train, cluster.
    what : str
        What needs them, as its user calls it.

    Raises
    ------
    MissingPackageError
        Where one of them is not installed.

    Examples
    --------
    >>> try:
    ...     with needs("train", "`nlml-hpe export`"):
    ...         import a_package_that_is_not_there
    ... except MissingPackageError as error:
    ...     print(str(error).partition(":")[0])
    `nlml-hpe export` needs a_package_that_is_not_there, which is not installed
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "nlml_hpe":
            raise
        text = f"{what} needs {error.name}, which is not installed: {how_to_install(extra)}"
        raise MissingPackageError(text, name=error.name) from error


def how_to_install(extra: str) -> str:
    """The command that installs an extra, of a checkout where this is one."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        # Without -e the checkout's stages would be importable no more.
        return f"pip install -e '.[{extra}]' in {_CHECKOUT}"
    return f"pip install 'PLACE[{extra}]', {ORIGIN}"
