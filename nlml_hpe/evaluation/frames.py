"""What counts as a frontal head, estimated from labelled faces: one constant rotation, and how sure it is."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.evaluation.metrics import constant_rotation
from nlml_hpe.evaluation.protocols import LEAST_FACES
from nlml_hpe.rotation import AXES, angles_from_rotation

_RESAMPLES = 200
_SEED = 0


@dataclass(frozen=True, eq=False)
class FrameEstimate:
    """A head frame that was estimated on labelled faces.

    Attributes
    ----------
    name : str
        What the frame is called in reports and in a model.
    named_from_own : ndarray
        C (3, 3), with ``R(named) = R(own) C``.
    faces : int
        How many faces it was estimated from.
    interval : dict of str to list of float
        95% bootstrap interval [low, high] of C's yaw, pitch and roll, in degrees.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> lifted = FrameEstimate("lifted", rotation_from_angles(Angles.from_columns((0, 2, 0))), 60, {})
    >>> round(lifted.angles()["pitch"], 6)
    2.0
    """

    name: str
    named_from_own: NDArray[np.float64]
    faces: int
    interval: dict[str, list[float]]

    def angles(self) -> dict[str, float]:
        """C as yaw, pitch and roll in degrees."""
        columns = angles_from_rotation(self.named_from_own).columns()
        return {axis: float(value) for axis, value in zip(AXES, columns, strict=True)}

    def text(self) -> str:
        """The section of a configuration that gives a model this frame, and how sure it is, as YAML."""
        # Adding zero takes the sign off a zero.
        values = ", ".join(f"{axis}: {round(value, 3) + 0.0:.3f}" for axis, value in self.angles().items())
        sure = ", ".join(
            f"{axis} {round(low, 2) + 0.0:.2f}..{round(high, 2) + 0.0:.2f}"
            for axis, (low, high) in self.interval.items()
        )
        # JSON's strings are YAML's, whatever characters a folder's name has.
        return f"frame: {{name: {json.dumps(self.name)}, {values}}}  # {self.faces} faces; 95% intervals: {sure}"


def estimate_frame(own: NDArray[np.float64], true: NDArray[np.float64], name: str) -> FrameEstimate:
    """The frame in which a model's answers are nearest to labels.

    Parameters
    ----------
    own : ndarray
        (n, 3, 3), the model's answers in its own head frame.
    true : ndarray
        (n, 3, 3), the labels' rotations of the same faces.
    name : str
        What to call the frame.

    Returns
    -------
    FrameEstimate
        With bootstrap intervals over the faces.

    Raises
    ------
    ValueError
        For fewer than ``LEAST_FACES`` faces, and where a rotation is not finite, as that of a face without an answer.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> own = rotation_from_angles(Angles.from_columns(np.random.default_rng(0).uniform(-30, 30, (60, 3))))
    >>> true = own @ rotation_from_angles(Angles.from_columns((0, 2, 0)))
    >>> for part in estimate_frame(own, true, "w300lp").text().split("  # "):
    ...     print(part)
    frame: {name: "w300lp", yaw: 0.000, pitch: 2.000, roll: 0.000}
    60 faces; 95% intervals: yaw 0.00..0.00, pitch 2.00..2.00, roll 0.00..0.00
    """
    count = len(own)
    if count < LEAST_FACES:
        raise ValueError(
            f"a head frame is estimated from {LEAST_FACES} faces or more in the paper's range; {count} were found, "
            "which would leave it uncertain by degrees"
        )
    rng = np.random.default_rng(_SEED)
    drawn = [np.bincount(rng.integers(count, size=count), minlength=count).astype(float) for _ in range(_RESAMPLES)]
    spread = angles_from_rotation(np.array([constant_rotation(own, true, weights) for weights in drawn])).columns()
    low, high = np.percentile(spread, (2.5, 97.5), axis=0)
    interval = {axis: [float(low[i]), float(high[i])] for i, axis in enumerate(AXES)}
    return FrameEstimate(name, constant_rotation(own, true), count, interval)
