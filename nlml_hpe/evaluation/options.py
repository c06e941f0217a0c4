"""Options of an evaluation on labelled photographs, and how its commands end; importing them needs no extra, so that
help always shows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from nlml_hpe.detection.looks import LOOKS, LOOKS_HELP
from nlml_hpe.detection.search import DetectorError
from nlml_hpe.device import DEVICE_HELP, DEVICES
from nlml_hpe.evaluation.datasets import LAYOUTS
from nlml_hpe.evaluation.protocols import LEAST_FACES, PROTOCOLS
from nlml_hpe.extras import MissingPackageError
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import user_path
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.words import printable, said_of, show_all_letters

ERRORS = (ArtifactError, DetectorError, MissingPackageError, MemoryError, OSError, ValueError)
"""The user's to mend: OSError is a full disk or a missing permission, MemoryError a machine that is too small, the
others are this project's own or say what was wrong with a value."""


def exit_code_of(
    work: Callable[[argparse.Namespace], object],
    given: argparse.Namespace,
    errors: tuple[type[Exception], ...] = ERRORS,
    stopped: str = "stopped by Ctrl-C before the end",
) -> int:
    """Do the work of a command.

    Parameters
    ----------
    work : callable
        What the command does.
    given : Namespace
        Its options.
    errors : tuple of exception types
        Which are the user's to mend.
    stopped : str
        What is said after Ctrl-C that says nothing itself.

    Returns
    -------
    int
        0; 1 after an error that is the user's to mend, and 130 after Ctrl-C, of which one line on stderr says what it
        was.

    Examples
    --------
    >>> exit_code_of(print, argparse.Namespace(looks=3))
    Namespace(looks=3)
    0
    """
    show_all_letters()
    try:
        work(given)
    except errors as error:
        print(f"error: {printable(said_of(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(str(stop) or stopped, file=sys.stderr)
        return 130
    return 0


def add_subject(parser: argparse._ActionsContainer, required: bool = False) -> None:
    """Add ``--dataset``, ``--root`` and ``--model``: which model is asked about which faces.

    Parameters
    ----------
    parser : ArgumentParser, or a group of its arguments
        What they are added to.
    required : bool
        Whether the data set must be named.
    """
    text = "which data set it is, and so how it is laid out"
    parser.add_argument("--dataset", choices=sorted(LAYOUTS), required=required, help=text)
    text = "the data set, as it is distributed"
    parser.add_argument("--root", type=user_path, required=required, metavar="FOLDER", help=text)
    text = "the model (default: the one that is shipped)"
    parser.add_argument("--model", type=user_path, default=SHIPPED, metavar="FOLDER", help=text)


def add_arguments(parser: argparse.ArgumentParser, device: bool = True) -> None:
    """Add the options of an evaluation on labelled photographs; ``--device`` where the parser has none.

    What is parsed has the parser as ``command``, which says what is missing.
    """
    parser.set_defaults(command=parser)
    group = parser.add_argument_group("labelled photographs")
    add_subject(group)
    group.add_argument(
        "--protocol",
        metavar="NAME",
        help="which faces count: the data set's name for all within 99 degrees (the default), NAME-nlml for those of "
        f"the paper's range; known: {', '.join(sorted(PROTOCOLS))}",
    )
    group.add_argument("--list", type=user_path, metavar="FILE", help="only the faces whose names stand in this file")
    group.add_argument(
        "--output",
        type=user_path,
        default=Path("data/test"),
        metavar="FOLDER",
        help="where metrics.json, tables and plots go; an earlier evaluation there is replaced, and nothing else "
        "(default: %(default)s)",
    )
    if device:
        group.add_argument("--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
    group.add_argument("--looks", type=int, choices=sorted(LOOKS), help=LOOKS_HELP)
    group.add_argument(
        "--align-on",
        type=user_path,
        metavar="FOLDER",
        help=f"another data set of this layout, with {LEAST_FACES} faces or more: figures are also given in the head "
        "frame of its labels, which is printed",
    )
