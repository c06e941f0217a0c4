"""Measure how far a model's error bars can be trusted, or fit them: ``python -m nlml_hpe.evaluation.calibration``.

``--dataset D --root R`` prints for a labelled set how often intervals of 50, 80 and 95% hold, for each eye of the
model, each angle and each range of pose, and how the error falls with the share of the surest faces. ``--fit`` first
fits the numbers of ``inference.calibration`` on this set and writes them into the model folder; figures on the same set
are then those of a fit, and what holds elsewhere is for another set to say. ``--fit turned`` does so for heads that
look away, which rendered people have (``--dataset crops``), and leaves the numbers of photographs as they are. The
scatter of more looks says more surely how far each is off: the shipped numbers were fitted by ``--looks 5``.
"""

from __future__ import annotations

import argparse
import sys

from nlml_hpe.detection.looks import LOOKS, LOOKS_HELP
from nlml_hpe.evaluation.options import add_subject, exit_code_of
from nlml_hpe.extras import needs
from nlml_hpe.files.images import user_path
from nlml_hpe.inference.calibration import ON_PHOTOGRAPHS, RANGES

_COMMAND = "python -m nlml_hpe.evaluation.calibration"


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog=_COMMAND, description="Measure or fit a model's error bars (needs the train extra)."
    )
    add_subject(made, required=True)
    made.add_argument("--list", type=user_path, metavar="FILE", help="only the faces whose names stand in this file")
    made.add_argument(
        "--fit",
        nargs="*",
        choices=RANGES,
        metavar="RANGE",
        help=f"fit the numbers of these ranges of {', '.join(RANGES)} on these faces and write them into the model "
        f"folder; without a name those of {', '.join(ON_PHOTOGRAPHS)}",
    )
    made.add_argument("--looks", type=int, choices=sorted(LOOKS), help=LOOKS_HELP)
    made.add_argument(
        "--output",
        type=user_path,
        metavar="FOLDER",
        help="where figures and plots go; an earlier calibration is replaced",
    )
    return made


def work(given: argparse.Namespace) -> None:
    """Measure or fit as the command line says."""
    with needs("train", f"`{_COMMAND}`"):
        from nlml_hpe.evaluation.calibration_run import run
    run(given)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code_of(work, parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
