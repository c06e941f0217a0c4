"""The version of this package, and of others, as they are installed."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed

NOT_INSTALLED = "not installed"


def version_of(package: str) -> str:
    """The version of an installed distribution, ``NOT_INSTALLED`` where there is none.

    >>> version_of("no-such-package")
    'not installed'
    """
    try:
        return _installed(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


VERSION = version_of("nlml-hpe")
"""``NOT_INSTALLED`` for a checkout that is on the path but was never installed."""
