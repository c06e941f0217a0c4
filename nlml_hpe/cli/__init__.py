"""``nlml-hpe``: head pose of images, folders, videos and a webcam. Results go to stdout, messages to stderr.

Exit codes: 0 all is well, 1 something could not be done (the message says what), 2 the command is not valid, 130
Ctrl-C or SIGTERM ended the work (the message says what is kept: after the first one all that was done).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence

from PIL import Image

from nlml_hpe import __version__
from nlml_hpe.cli import other, predict, video
from nlml_hpe.cli.interrupt import STOPPED
from nlml_hpe.cli.streams import say_error, standard_streams
from nlml_hpe.evaluation.options import ERRORS
from nlml_hpe.words import said_of

_EXAMPLES = """examples:
  nlml-hpe predict photo.jpg
  nlml-hpe predict photos/ --csv poses.csv --draw drawn/
  nlml-hpe predict 'photos/*.png' --largest --json
  nlml-hpe video talk.mp4 drawn.mp4 --smooth
  nlml-hpe video --webcam 0
  nlml-hpe demo
  nlml-hpe info
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        The exit code; see the top of this module. A command that is not valid raises ``SystemExit`` (2).

    Examples
    --------
    >>> main(["export", "model.txt"])
    1
    """
    try:
        with standard_streams(), warnings.catch_warnings():
            # Pillow's advice on large images, which are refused here with a reason, would be a line more. How warnings
            # are taken belongs to the whole process, all its threads: it is a program's to say, not the library's.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            given = parser().parse_args(arguments)
            work: Callable[[argparse.Namespace], int] = given.work
            return work(given)
    except ERRORS as error:
        say_error(said_of(error))
        return 1
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped by Ctrl-C; what was not written until then is lost", file=sys.stderr)
        return STOPPED


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    whole = argparse.ArgumentParser(
        prog="nlml-hpe",
        description="Head pose: yaw, pitch and roll in degrees, with error bars.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"nlml-hpe {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    predict.add_parser(commands)
    video.add_parser(commands)
    other.add_parsers(commands)
    return whole
