"""THE evaluation: any routes on labelled faces, rendered or photographed, with coverage and misses charged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.evaluation.faces import Answered, is_known
from nlml_hpe.evaluation.frames import FrameEstimate
from nlml_hpe.evaluation.metrics import Errors, constant_rotation, errors, per_interval, summary, within_sigma
from nlml_hpe.inference.engines import DEFAULT_ROUTE, Estimates, Route

ROUTES: tuple[Route, ...] = ("network", "exact", "refined")
"""The landmark eye's routes that are evaluated; Powell takes seconds a face."""

IMAGE_ROUTE = "image"
"""The image eye, which has one route."""
BESIDE_ROUTE = "image beside landmarks"
"""What the fused route has of the image eye, which is shown fewer crops of a face that the other eye answers, too."""
FUSED_ROUTE = "fused"
"""Both eyes as one, as ``HeadPoseEstimator`` answers by default where a model has both."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation says: the ``report`` for metrics.json, the faces that counted with all answers, and of every
    route the raw errors on those it answered."""

    report: dict[str, Any]
    answered: Answered
    errors: Mapping[str, Errors]


def evaluate(
    answered: Answered,
    *,
    protocol: str,
    frame: str,
    default_route: str = DEFAULT_ROUTE,
    own: Mapping[str, Estimates] | None = None,
    aligned: FrameEstimate | None = None,
    n_total: int | None = None,
    left_out: Mapping[str, Sequence[str]] | None = None,
    interval: float = 10.0,
    fitted: bool = False,
) -> Evaluation:
    """Compare every route's answers with the labels.

    Raw figures come first: those of the answers as they are, in the model's named head frame. The same in the model's
    own frame are called ``unaligned``; those in a frame that was estimated on other labelled faces ``aligned``.

    Parameters
    ----------
    answered : Answered
        The faces that count, and every route's answers to them.
    protocol : str
        What the choice of faces is called.
    frame : str
        Name of the head frame of the answers.
    default_route : str
        The route that users get; tables mark it.
    own : mapping, optional
        Every route's answers to the same faces in the model's own head frame; with them figures in that frame are
        reported, too.
    aligned : FrameEstimate, optional
        Another head frame to report figures in; needs ``own``.
    n_total : int, optional
        How many faces the choice was made from; by default as many as there are.
    left_out : mapping, optional
        Reason -> names of what could not be used.
    interval : float
        Width in degrees of the intervals of the true angles.
    fitted : bool
        Whether figures are also given after the one rotation that suits each route best on these very faces. They
        are too good by a little, and tell routes apart that call another pose frontal.

    Returns
    -------
    Evaluation
        A route that answered no face has counts and no figures.

    Examples
    --------
    >>> from nlml_hpe.evaluation.faces import LabelledFace, ask
    >>> from nlml_hpe.face import Face
    >>> def frontal(faces):
    ...     return Estimates.of_rotations(np.tile(np.eye(3), (len(faces), 1, 1)))
    >>> face = Face(None, (0.0, 0.0, 8.0, 8.0))
    >>> faces = [LabelledFace("a", (6.0, 0.0, 0.0), face), LabelledFace("b", (-3.0, 0.0, 0.0), face)]
    >>> found = evaluate(ask(faces, {"frontal": frontal}), protocol="all", frame="own")
    >>> found.report["routes"]["frontal"]["mae"]
    {'yaw': 4.5, 'pitch': 0.0, 'roll': 0.0, 'mean': 1.5}
    """
    count = len(answered.names)
    found_by = Counter(step for step, found in zip(answered.found_by, answered.found, strict=True) if found)
    # Nothing is said of a search that there was none of.
    n_found = int(answered.found.sum()) if answered.searched.any() else None
    report: dict[str, Any] = {
        "protocol": protocol,
        "frame": frame,
        "n_total": count if n_total is None else n_total,
        "n_protocol": count,
        "n_detected": n_found,
        "n_missed": None if n_found is None else count - n_found,
        "coverage": None if n_found is None else n_found / count,
        "detected_by": dict(found_by),
        "left_out": {reason: len(names) for reason, names in (left_out or {}).items()},
        "default_route": default_route,
        "routes": _rows(answered, np.eye(3), interval),
    }
    if own is not None:
        _add_other_frames(report, replace(answered, answers=own), aligned, interval)
    if fitted:
        report["fitted"] = {"frame": "fitted", "routes": _fitted_rows(answered, interval)}
    raw = {name: _errors(given, answered) for name, given in answered.answers.items()}
    return Evaluation(report, answered, raw)


def require_answer(answered: Answered, protocol: str) -> None:
    """Raise ``ValueError`` where no route answered any face: then there is nothing to evaluate."""
    if not any(is_known(given).any() for given in answered.answers.values()):
        raise ValueError(f"{protocol}: no face was detected among {len(answered.names)} of the protocol")


def _add_other_frames(
    report: dict[str, Any],
    in_own_frame: Answered,
    aligned: FrameEstimate | None,
    interval: float,
) -> None:
    """Figures in the model's own head frame, and in one that was estimated on other faces."""
    own = _rows(in_own_frame, np.eye(3), interval)
    for name, row in report["routes"].items():
        row["unaligned"] = own[name]
    report["unaligned"] = {"frame": "own", "routes": own}
    if aligned is not None:
        report["aligned"] = {
            "frame": aligned.name,
            "n_faces": aligned.faces,
            "angles": aligned.angles(),
            "interval": aligned.interval,
            "routes": _rows(in_own_frame, aligned.named_from_own, interval),
        }


def _rows(answered: Answered, turn: NDArray[np.float64], interval: float) -> dict[str, dict[str, Any]]:
    """All figures of every route after one constant rotation of the head frame."""
    return {name: _row(given, answered, turn, interval) for name, given in answered.answers.items()}


def _fitted_rows(answered: Answered, interval: float) -> dict[str, dict[str, Any]]:
    rows = {}
    for name, given in answered.answers.items():
        known = is_known(given)
        turn = constant_rotation(given.rotation[known], answered.true[known]) if known.any() else np.eye(3)
        rows[name] = _row(given, answered, turn, interval)
    return rows


def _row(given: Estimates, answered: Answered, turn: NDArray[np.float64], interval: float) -> dict[str, Any]:
    # What a covariance leaves of each angle depends on the frame, so that error bars are turned with the answers.
    given = given.in_named_frame(turn)
    known, count = is_known(given), len(answered.names)
    found = _errors(given, answered)
    coverage = float(known.mean()) if count else None
    counts = {"n_total": count, "n_missed": int(count - known.sum()), "coverage": coverage}
    if not known.any():
        return {**summary(found), **counts}
    # A face without an answer is charged as if it had been taken for a frontal one.
    guessed = np.where(known[:, None, None], given.rotation, np.eye(3))
    return {
        **summary(found),
        **counts,
        "mae_all": summary(errors(guessed, answered.true, answered.labels))["mae"],
        "per_interval": per_interval(found, answered.chosen(known).labels, interval),
        "within_sigma": within_sigma(found, given.sigma[known]),
    }


def _errors(given: Estimates, answered: Answered) -> Errors:
    """Errors on the faces that have an answer."""
    known = is_known(given)
    counting = answered.chosen(known)
    return errors(given.rotation[known], counting.true, counting.labels)
