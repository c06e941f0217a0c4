"""Hermite's step between two values, as GLSL's ``smoothstep``: how colours and shapes run into one another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


def smoothstep(value: ArrayLike, low: float = 0.0, high: float = 1.0, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """0 up to one value, 1 from another on, smooth between.

    Parameters
    ----------
    value : array_like of shape (...)
        Where it is asked for.
    low, high : float
        Where it is 0 and where it is 1; ``high`` may be the smaller.
    dtype : dtype
        Of the answer.

    Returns
    -------
    array (...)
        In 0..1.

    Examples
    --------
    >>> smoothstep([-1.0, 0.25, 0.5, 2.0]).tolist(), smoothstep(25.0, 30, 20).tolist()
    ([0.0, 0.15625, 0.5, 1.0], 0.5)
    """
    t = np.clip((np.asarray(value) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=dtype)
