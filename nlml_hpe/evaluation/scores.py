"""What looks and scores are worth: ``python -m nlml_hpe.evaluation.scores --dataset aflw2000 --root FOLDER``.

For each number of looks: faces found, errors, misses charged, how well the score ranks the errors, and how often error
bars hold. Then what the model card states: the mean error of the faces whose score is above a value.
It needs the train extra.
"""

from __future__ import annotations

import argparse
import sys

from nlml_hpe.detection.looks import LOOKS
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.options import add_subject, exit_code_of
from nlml_hpe.extras import needs
from nlml_hpe.inference.fusion import EYES
from nlml_hpe.inference.opening import open_eyes

_COMMAND = "python -m nlml_hpe.evaluation.scores"


def work(given: argparse.Namespace) -> None:
    """Print the tables that the command line asks for."""
    with needs("train", f"`{_COMMAND}`"):
        from nlml_hpe.evaluation.score_tables import print_tables
    print_tables(read_dataset(given.dataset, given.root), open_eyes(given.model), given.looks, given.eye)


def command() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_subject(parser, required=True)
    parser.add_argument(
        "--looks", type=int, nargs="+", choices=sorted(LOOKS), default=sorted(LOOKS), help="default: all numbers"
    )
    parser.add_argument("--eye", choices=EYES, help="which eye answers (default: all that the model has)")
    return exit_code_of(work, parser.parse_args())


if __name__ == "__main__":
    sys.exit(command())
