"""Imported first by every script here and in ``benchmarks``: missing packages and data are a line, not a traceback."""

from __future__ import annotations

import sys
from types import TracebackType

from nlml_hpe.extras import how_to_install

_OWN = ("nlml_hpe", "renderer", "stages", "benchmarks")
_EXTRAS = {"embreex": "benchmarks", "mediapipe": "mediapipe", "torchao": "quantize", "vtk": "benchmarks"}
"""Which extra brings a package, where it is not ``train``."""


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python calls with an error that nobody caught; the exit code is 1."""
    if kind.__module__.partition(".")[0] in _OWN:  # which say to a user what is wrong, and what to do
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in _OWN:
        extra = _EXTRAS.get(error.name.partition(".")[0], "train")
        text = f"{sys.argv[0]} needs {error.name}, which is not installed: {how_to_install(extra)}"
        print(f"error: {text}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say
