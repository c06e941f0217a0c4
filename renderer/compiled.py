"""Functions that numba compiles, kept on disk for the next process where there is a place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that has a function compiled when it is first called, which then runs beside Python's lock.

    Parameters
    ----------
    **options
        Others of ``numba.njit``.

    Returns
    -------
    callable
        The decorator.

    Examples
    --------
    >>> @compiled()
    ... def doubled(number):
    ...     return 2 * number
    >>> doubled(21)
    42
    """

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        # Neither beside the code nor in the user's cache can be written, as in a container: each process compiles anew.
        except RuntimeError:
            return numba.njit(nogil=True, **options)(function)

    return decorated
