"""Whether stated doubt can be trusted: how often intervals hold, and how the error falls with those who are surest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata, spearmanr

from nlml_hpe.evaluation.calibration_fit import of_range
from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.inference.fusion import Gaussians
from nlml_hpe.rotation import AXES, sigma_from_covariance

SHARES = (0.5, 0.8, 0.95)
"""Of intervals: how often each should hold."""
SUREST = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of faces, the surest first."""
_RESAMPLES, _SEED, _EQUAL = 1000, 0, 1e-9
Floats = NDArray[np.float64]


def doubt_rows(true: Floats, answers: Mapping[str, Gaussians]) -> list[dict[str, Any]]:
    """Figures of every eye in each range of pose that has faces, and over all of them.

    Parameters
    ----------
    true : float array (N, 3, 3)
        True rotations.
    answers : mapping
        Name of an eye -> its answers to these faces, with whole covariances.

    Returns
    -------
    list of dict
        As ``measure`` gives them, with ``eye`` and ``faces``.
    """
    ranges = {name.replace("_", " "): mask for name, mask in of_range(true).items() if mask.any()}
    parts = ranges | {"all": np.ones(len(true), dtype=bool)}
    return [
        {"eye": eye, "faces": name, **measure(true[mask], Gaussians(given.rotation[mask], given.covariance[mask]))}
        for eye, given in answers.items()
        for name, mask in parts.items()
    ]


def measure(true: Floats, given: Gaussians) -> dict[str, Any]:
    """How far the doubt of N answers can be trusted.

    Parameters
    ----------
    true : float array (N, 3, 3)
        True rotations, head to camera.
    given : Gaussians
        The answers, and what they say of their errors.

    Returns
    -------
    dict
        ``n_total`` and ``n``, the faces and those with an answer and a covariance. With any: ``mae`` in degrees with
        its 95% bootstrap interval ``mae_interval``; ``held``, by nominal share the shares of yaw, pitch and roll whose
        interval holds, and ``held_interval`` of the 95% ones; ``risk``, by share of the surest faces their MAE, and
        ``risk_80``, that of the surest 80% over the whole, with ``risk_80_interval``; ``spearman`` of doubt and error,
        and ``spearman_if_right`` with ``spearman_if_right_interval``, of errors that are drawn from the covariances:
        what doubt that was exactly right would have. These three are None where all doubts are equal.

    Examples
    --------
    >>> from nlml_hpe.rotation import rotation_from_vector
    >>> rng = np.random.default_rng(0)
    >>> sigma = np.radians(rng.uniform(1, 5, (500, 1)))
    >>> said = rotation_from_vector(sigma * rng.normal(size=(500, 3)))
    >>> true = np.tile(np.eye(3), (500, 1, 1))
    >>> row = measure(true, Gaussians(said, sigma[..., None] ** 2 * np.eye(3)))
    >>> {axis: round(share, 1) for axis, share in row["held"]["0.5"].items()}
    {'yaw': 0.5, 'pitch': 0.5, 'roll': 0.5}
    >>> row["risk_80"] < 0.95
    True
    >>> low, high = row["spearman_if_right_interval"]
    >>> low < row["spearman"] < high
    True
    """
    known = given.is_weighable
    counts: dict[str, Any] = {"n_total": len(true), "n": int(known.sum())}
    if not known.any():
        return counts
    rotation, covariance = given.rotation[known], given.covariance[known]
    found = errors(rotation, true[known])
    sigma = sigma_from_covariance(rotation, covariance)
    mean, doubt = found.angle.mean(axis=1), np.sqrt(np.trace(covariance, axis1=-2, axis2=-1))
    limits = {share: float(norm.ppf(0.5 + share / 2)) for share in SHARES}
    # No quotient: of an angle that a model knows one value of, error and deviation may both be zero.
    held = {share: found.angle <= limit * sigma for share, limit in limits.items()}
    bounds = _bootstrap(mean, doubt, held[0.95])
    risk = risks(mean, doubt)
    return {
        **counts,
        "mae": float(mean.mean()),
        "mae_interval": bounds["mae"],
        "held": {str(share): _by_axis(values.mean(axis=0)) for share, values in held.items()},
        "held_interval": {axis: bounds[axis] for axis in AXES},
        "risk": {str(share): float(value) for share, value in zip(SUREST, risk, strict=True)},
        "risk_80": float(risk[SUREST.index(0.8)] / risk[0]),
        "risk_80_interval": bounds["risk_80"],
        **_ranks(doubt, found.geodesic, covariance),
    }


def _ranks(doubt: Floats, error: Floats, covariance: Floats) -> dict[str, Any]:
    """Rank correlation of doubts (n,) with errors (n,), and with those that covariances (n, 3, 3) foretell."""
    if np.ptp(doubt) <= _EQUAL:  # equal doubts have no order
        return dict.fromkeys(("spearman", "spearman_if_right", "spearman_if_right_interval"))
    rng, drawn = np.random.default_rng(_SEED), []
    # A rounded covariance may have a variance a little below nought. Its axes turn an error, and leave its length.
    deviation = np.sqrt(np.clip(np.linalg.eigvalsh(covariance), 0, None))
    ranks = rankdata(doubt)
    for _ in range(_RESAMPLES):
        length = np.linalg.norm(deviation * rng.standard_normal(deviation.shape), axis=1)
        drawn.append(np.corrcoef(ranks, rankdata(length))[0, 1])
    return {
        "spearman": float(spearmanr(doubt, error).statistic),
        "spearman_if_right": float(np.mean(drawn)),
        "spearman_if_right_interval": [float(bound) for bound in np.percentile(drawn, (2.5, 97.5))],
    }


def risks(error: Floats, doubt: Floats) -> Floats:
    """Mean errors of the surest shares ``SUREST`` of n faces."""
    ordered = error[np.argsort(doubt, kind="stable")]
    return np.array([ordered[: max(1, round(share * len(error)))].mean() for share in SUREST])


def _bootstrap(error: Floats, doubt: Floats, held: NDArray[np.bool_]) -> dict[str, list[float]]:
    """95% intervals over faces that are drawn anew."""
    rng, count, drawn = np.random.default_rng(_SEED), len(error), []
    for _ in range(_RESAMPLES):
        rows = rng.integers(count, size=count)
        risk = risks(error[rows], doubt[rows])
        drawn.append([risk[0], risk[SUREST.index(0.8)] / risk[0], *held[rows].mean(axis=0)])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    names = ("mae", "risk_80", *AXES)
    return {name: [float(low[index]), float(high[index])] for index, name in enumerate(names)}


def _by_axis(values: Floats) -> dict[str, float]:
    return dict(zip(AXES, map(float, values), strict=True))


def doubt_table(rows: list[dict[str, Any]], in_label_box: int) -> str:
    """The figures as text, a line for every eye and range.

    Parameters
    ----------
    rows : list of dict
        As ``doubt_rows`` gives them.
    in_label_box : int
        How many of the faces no search found, so that they are answered in the boxes of their labels.

    Returns
    -------
    str
        With what the columns mean below them.
    """
    faces = max(row["n_total"] for row in rows)
    boxes = (
        "faces in the boxes that we find, as predict has them, where a label's box serves the search alone; "
        f"{in_label_box} of {faces} faces, which no search finds, are answered in the label's box"
    )
    return "\n".join([*_lines(rows), "", boxes, *_NOTES]) + "\n"


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    heads = [f"{round(100 * share)}% holds (yaw/pitch/roll)" for share in SHARES]
    yield (
        f"{'eye':<10} {'faces':<9} {'answered':>12} {'MAE':>5} {'95% interval':>13}  "
        + "  ".join(f"{head:>28}" for head in heads)
        + f"  {'surest 80%':>20} {'rank corr.':>10} {'if exactly right':>20}"
    )
    for row in rows:
        start = f"{row['eye']:<10} {row['faces']:<9} {row['n']:>5} of {row['n_total']:<4} "
        if not row["n"]:
            yield f"{start} no answer with error bars"
            continue
        held = [" / ".join(f"{100 * value:.0f}" for value in row["held"][str(share)].values()) for share in SHARES]
        low, high = row["mae_interval"]
        surest = "{:.2f} ({:.2f}..{:.2f})".format(row["risk_80"], *row["risk_80_interval"])
        yield (
            f"{start}{row['mae']:5.2f} {f'{low:.2f}..{high:.2f}':>13}  "
            + "  ".join(f"{share:>28}" for share in held)
            + f"  {surest:>20} {_rank(row)}"
        )


def _rank(row: dict[str, Any]) -> str:
    if row["spearman"] is None:
        return f"{'-':>10} {'-':>20}"
    right = "{:.2f} ({:.2f}..{:.2f})".format(row["spearman_if_right"], *row["spearman_if_right_interval"])
    return f"{row['spearman']:>10.2f} {right:>20}"


_NOTES = (
    "holds: percent of the errors of each angle within the interval of that share, by a normal distribution",
    "surest 80%: their MAE over that of all, faces ordered by the trace of the covariance; rank corr.: Spearman's, of",
    "that doubt and the geodesic error; if exactly right: the same of errors drawn from the covariances, 1,000 times.",
    "Other intervals in brackets and of the MAE: 95%, over 1,000 drawings of the faces",
)
