"""The tables that ``python -m nlml_hpe.evaluation.scores`` prints: errors by the number of looks, and by scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from nlml_hpe.detection.detectors import open_detector_for
from nlml_hpe.detection.looks import DEFAULT_LOOKS
from nlml_hpe.evaluation.datasets import Dataset
from nlml_hpe.evaluation.evaluate import evaluate
from nlml_hpe.evaluation.faces import Answered, ask, is_known, photographs
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.face import Face
from nlml_hpe.inference.engines import Estimates
from nlml_hpe.inference.eyes import Eyes
from nlml_hpe.inference.fusion import Eye
from nlml_hpe.inference.opening import engine_of
from nlml_hpe.model.folder import HeadFrame

SCORES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75)
"""Scores above which the mean error is given."""
_ROUTE = "answer"


def answers(eyes: Eyes, data: Dataset, looks: int, eye: Eye | None = None) -> Answered:
    """What users are answered.

    Parameters
    ----------
    eyes : Eyes
        The model's.
    data : Dataset
        Labelled faces.
    looks : int
        How often each face is looked at.
    eye : "both", "landmarks" or "image", optional
        Which one answers, by default all that there are.

    Returns
    -------
    Answered
        Of one route, in the named head frame, of rendered people in that of their labels.
    """
    engine = engine_of(eyes)

    def answer(faces: Sequence[Face]) -> Estimates:
        return eyes.answer(faces, eye=eye, own_frame=data.is_in_own_frame).estimates

    with open_detector_for(engine.point_set, engine.min_confidence) as detector:
        return ask(photographs(data, detector, f"{looks} looks,", looks), {_ROUTE: answer})


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
    """One row of the table over looks, of the faces that a protocol chooses.

    Parameters
    ----------
    answered : Answered
        What ``answers`` gave.
    protocol : str
        One of ``PROTOCOLS``.
    frame : str
        Name of the answers' head frame.

    Returns
    -------
    str
        Markdown, without the row's first two columns.
    """
    chosen = answered.chosen(PROTOCOLS[protocol].includes(answered.labels))
    found = evaluate(chosen, protocol=protocol, frame=frame)
    row, given = found.report["routes"][_ROUTE], chosen.answers[_ROUTE]
    if not row["n"]:
        return f"0 of {row['n_total']} | no answer | - | - | -"
    known = is_known(given)
    low, high = row["mae_interval"]["mean"]
    bars = row["within_sigma"]
    held = " / ".join(f"{share:.0%}" for share in bars.get("1.96", []))
    rank = rank_correlation(given.score[known], found.errors[_ROUTE].angle.mean(axis=1))
    return (
        f"{row['n']} of {row['n_total']} | {row['mae']['mean']:.2f} ({low:.2f}..{high:.2f}) | "
        f"{row['mae_all']['mean']:.2f} | {rank:.2f} | {held} of {bars['n']}"
    )


def score_rows(answered: Answered, protocol: str, frame: str) -> Iterator[str]:
    """Rows of the table over scores: share of the faces found, and mean error, of those with a score above a value.

    Parameters
    ----------
    answered, protocol, frame
        As of ``looks_row``.

    Yields
    ------
    str
        Of each of ``SCORES``; Markdown, without the row's first column. None where no face was answered.
    """
    chosen = answered.chosen(PROTOCOLS[protocol].includes(answered.labels))
    errors = evaluate(chosen, protocol=protocol, frame=frame).errors[_ROUTE].angle.mean(axis=1)
    given = chosen.answers[_ROUTE]
    score = given.score[is_known(given)]
    if not len(score):
        return
    for least in SCORES:
        above = score > least
        mean = f"{errors[above].mean():.2f}" if above.any() else "-"
        yield f"{least:g} | {above.mean():.0%} ({above.sum()}) | {mean}"


def print_tables(data: Dataset, eyes: Eyes, numbers: Sequence[int], eye: Eye | None = None) -> None:
    """Print both tables; a protocol of which there is no face is named and left out.

    Parameters
    ----------
    data : Dataset
        Labelled faces.
    eyes : Eyes
        The model's.
    numbers : sequence of int
        Of looks; one row each.
    eye : "both", "landmarks" or "image", optional
        As of ``answers``.

    Raises
    ------
    ValueError
        For an eye that the model does not have, and where no label lies in the range of a protocol.
    """
    frame = HeadFrame().name if data.is_in_own_frame else engine_of(eyes).frame
    eyes.chosen(eye)
    protocols = _protocols(data)
    by_looks = {looks: answers(eyes, data, looks, eye) for looks in numbers}
    print("| protocol | looks | found | MAE (95% interval) | misses charged | rank | 1.96 sigma holds |")
    print("|---|---|---|---|---|---|---|")
    for protocol in protocols:
        for looks, answered in by_looks.items():
            print(f"| {protocol} | {looks} | {looks_row(answered, protocol, frame)} |")
    shown = DEFAULT_LOOKS if DEFAULT_LOOKS in by_looks else numbers[-1]
    print(f"\n{shown} looks:\n\n| protocol | score above | faces | MAE |\n|---|---|---|---|")
    for protocol in protocols:
        for row in score_rows(by_looks[shown], protocol, frame):
            print(f"| {protocol} | {row} |")


def _protocols(data: Dataset) -> list[str]:
    """Those of the data set's protocols that hold a face."""
    protocols = [f"{data.name}-nlml", data.name]
    empty = [name for name in protocols if not PROTOCOLS[name].includes(data.angles).any()]
    said = [f"{name}: {PROTOCOLS[name].leaves_none_of(len(data.samples))}" for name in empty]
    if empty == protocols:
        raise ValueError(said[-1])
    for line in said:
        print(f"{line}\n")
    return [name for name in protocols if name not in empty]
