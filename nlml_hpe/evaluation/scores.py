"""What looks and scores are worth: ``python -m nlml_hpe.evaluation.scores --dataset aflw2000 --root FOLDER``.

For each number of looks: faces found, errors, misses charged, how well the score ranks the errors, and how often error
bars hold. Then what the model card states: the mean error of the faces whose score is above a value.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from nlml_hpe.detection.detectors import MAX_FACES, detector_for, open_detector
from nlml_hpe.detection.looks import DEFAULT_LOOKS, LOOKS
from nlml_hpe.evaluation.datasets import LAYOUTS, Dataset, read_dataset
from nlml_hpe.evaluation.evaluate import evaluate
from nlml_hpe.evaluation.faces import Answered, ask, is_known, landmark_route, photographs
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import user_path
from nlml_hpe.inference.engines import DEFAULT_ROUTE, OnnxEngine
from nlml_hpe.model.format import ONNX_FILE, SHIPPED

SCORES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8)
"""Scores above which the mean error is given."""


def answers(engine: OnnxEngine, data: Dataset, looks: int) -> Answered:
    """The default route's answers, each face seen so many times."""
    with open_detector(detector_for(engine.point_set), MAX_FACES, engine.min_confidence) as detector:
        route = landmark_route(engine, DEFAULT_ROUTE)
        return ask(photographs(data, detector, f"{looks} looks,", looks), {DEFAULT_ROUTE: route})


def rank_correlation(score: NDArray[np.float64], error: NDArray[np.float64]) -> float:
    """Spearman's rank correlation of scores (n,) with errors (n,): -1 where the surest face errs least, and so on.

    Faces without a score are left out; NaN where fewer than three remain.

    Examples
    --------
    >>> round(rank_correlation(np.array([0.9, 0.5, 0.1]), np.array([1.0, 2.0, 9.0])), 6)
    -1.0
    """
    known = np.isfinite(score)
    return float(spearmanr(score[known], error[known]).statistic) if known.sum() > 2 else float("nan")


def looks_row(answered: Answered, protocol: str, frame: str) -> str:
    """One row of the table over looks, of the faces that a protocol chooses."""
    chosen = answered.chosen(PROTOCOLS[protocol].includes(answered.labels))
    found = evaluate(chosen, protocol=protocol, frame=frame)
    row, given = found.report["routes"][DEFAULT_ROUTE], chosen.answers[DEFAULT_ROUTE]
    known = is_known(given)
    low, high = row["mae_interval"]["mean"]
    bars = row["within_sigma"]
    held = " / ".join(f"{share:.0%}" for share in bars.get("1.96", []))
    rank = rank_correlation(given.score[known], found.errors[DEFAULT_ROUTE].angle.mean(axis=1))
    return (
        f"{row['n']} of {row['n_total']} | {row['mae']['mean']:.2f} ({low:.2f}..{high:.2f}) | "
        f"{row['mae_all']['mean']:.2f} | {rank:.2f} | {held} of {bars['n']}"
    )


def score_rows(answered: Answered, protocol: str, frame: str) -> Iterator[str]:
    """Rows of the table over scores: share of the faces found, and mean error, of those with a score above a value."""
    chosen = answered.chosen(PROTOCOLS[protocol].includes(answered.labels))
    errors = evaluate(chosen, protocol=protocol, frame=frame).errors[DEFAULT_ROUTE].angle.mean(axis=1)
    given = chosen.answers[DEFAULT_ROUTE]
    score = given.score[is_known(given)]
    for least in SCORES:
        above = score > least
        mean = f"{errors[above].mean():.2f}" if above.any() else "-"
        yield f"{least:g} | {above.mean():.0%} ({above.sum()}) | {mean}"


def main(data: Dataset, engine: OnnxEngine, numbers: Sequence[int]) -> None:
    """Print both tables."""
    protocols = (f"{data.name}-nlml", data.name)
    by_looks = {looks: answers(engine, data, looks) for looks in numbers}
    print("| protocol | looks | found | MAE (95% interval) | misses charged | rank | 1.96 sigma holds |")
    print("|---|---|---|---|---|---|---|")
    for protocol in protocols:
        for looks, answered in by_looks.items():
            print(f"| {protocol} | {looks} | {looks_row(answered, protocol, engine.frame)} |")
    shown = DEFAULT_LOOKS if DEFAULT_LOOKS in by_looks else numbers[-1]
    print(f"\n{shown} looks:\n\n| protocol | score above | faces | MAE |\n|---|---|---|---|")
    for protocol in protocols:
        for row in score_rows(by_looks[shown], protocol, engine.frame):
            print(f"| {protocol} | {row} |")


def command() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(LAYOUTS), required=True, help="how the data set is laid out")
    parser.add_argument("--root", type=user_path, required=True, metavar="FOLDER", help="the data set")
    parser.add_argument("--model", type=user_path, default=SHIPPED, metavar="FOLDER", help="default: the shipped one")
    parser.add_argument(
        "--looks", type=int, nargs="+", choices=sorted(LOOKS), default=sorted(LOOKS), help="default: all numbers"
    )
    given = parser.parse_args()
    model: Path = given.model
    try:
        main(read_dataset(given.dataset, given.root), OnnxEngine(model / ONNX_FILE), given.looks)
    except (ArtifactError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command())
