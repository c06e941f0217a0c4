"""Which faces of a data set count: the protocols under which figures are quoted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.rotation import AXES, Angles

LEAST_FACES = 50
"""Of the paper's range, by which a head frame is estimated: with so many of a spread of 5 degrees about the mean pitch,
that mean has a standard error of 0.7 degrees."""


@dataclass(frozen=True)
class Protocol:
    """A range of labels of one data set.

    Attributes
    ----------
    dataset : str
        The layout that it is for.
    limits : tuple of float
        A face counts where its label's yaw, pitch and roll lie within these many degrees of zero. Labels are
        compared as they are written, not estimates, and in the labels' own head frame.

    Examples
    --------
    >>> PROTOCOLS["biwi-nlml"].text()
    '|yaw| <= 50, |pitch| <= 40, |roll| <= 30 degrees'
    """

    dataset: str
    limits: tuple[float, float, float]

    def includes(self, angles: Angles) -> NDArray[np.bool_]:
        """Whether each of (n,) faces counts.

        Examples
        --------
        >>> labels = Angles.from_columns([(12, 3, 1), (70, 3, 1)])
        >>> PROTOCOLS["aflw2000-nlml"].includes(labels).tolist()
        [True, False]
        """
        return np.asarray((np.abs(angles.columns()) <= self.limits).all(axis=1))

    def leaves_none_of(self, count: int) -> str:
        """What is said where it leaves none of so many labels."""
        return f"none of {count} labels lies in its range ({self.text()})"

    def text(self) -> str:
        """The range in words."""
        return ", ".join(f"|{axis}| <= {limit:g}" for axis, limit in zip(AXES, self.limits, strict=True)) + " degrees"


_ALL, _PAPER = (99.0, 99.0, 99.0), (50.0, 40.0, 30.0)
_DATASETS = ("aflw2000", "300w_lp", "biwi", "fsanet", "rendered", "crops")
PROTOCOLS = {
    **{name: Protocol(name, _ALL) for name in _DATASETS},
    **{f"{name}-nlml": Protocol(name, _PAPER) for name in _DATASETS},
    "crops-round": Protocol("crops", (180.0, 180.0, 180.0)),
}
"""``aflw2000`` is the field's usual one (1,969 of 2,000 faces); ``-nlml`` is the range of the method's paper, and
``-round`` has every head, seen from any side."""


def protocol_of(dataset: str, name: str | None = None) -> str:
    """The name of a protocol that fits a data set; without a name the one over all labels within 99 degrees.

    Parameters
    ----------
    dataset : str
        The layout.
    name : str, optional
        Of the protocol.

    Returns
    -------
    str
        A key of ``PROTOCOLS``.

    Raises
    ------
    ValueError
        Where there is no such protocol, or it is another data set's.

    Examples
    --------
    >>> protocol_of("biwi"), protocol_of("biwi", "biwi-nlml")
    ('biwi', 'biwi-nlml')
    """
    chosen = dataset if name is None else name
    if chosen not in PROTOCOLS or PROTOCOLS[chosen].dataset != dataset:
        fitting = sorted(known for known, protocol in PROTOCOLS.items() if protocol.dataset == dataset)
        raise ValueError(f"protocol {chosen!r} is not one of {dataset}; expected one of {fitting}")
    return chosen
