"""Rasterisers behind one contract, so that one shader serves all and they can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from renderer.camera import Camera


class Fragments(NamedTuple):
    """What is seen at each pixel of an image (H, W).

    ``pix_to_face`` int32, -1 where nothing is; ``barycentrics`` (H, W, 3) float32, perspective
    correct, zero where nothing is; ``depth`` float32, distance in mm along the view axis, inf where
    nothing is.
    """

    pix_to_face: NDArray[np.int32]
    barycentrics: NDArray[np.float32]
    depth: NDArray[np.float32]


class Rasterizer(Protocol):
    """Camera-frame vertices (V, 3) and faces (F, 3), a camera, (height, width) -> ``Fragments``."""

    def __call__(
        self, vertices: NDArray[np.float32], faces: NDArray[np.int32], camera: Camera, size: tuple[int, int]
    ) -> Fragments:
        """Rasterise one mesh; the nearest face wins, both sides of a face are seen."""
        ...


def _numba_zbuffer() -> Rasterizer:
    from renderer.rasterizers.numba_zbuffer import rasterize

    return rasterize


# Loaded on demand: a backend's dependencies are needed only by those who choose it.
_BACKENDS: dict[str, Callable[[], Rasterizer]] = {"numba_zbuffer": _numba_zbuffer}


def get_rasterizer(name: str) -> Rasterizer:
    """The rasteriser of this name. Raises ``ValueError`` for a name that is not known."""
    if name not in _BACKENDS:
        raise ValueError(f"unknown rasterizer {name!r}; expected one of {sorted(_BACKENDS)}")
    return _BACKENDS[name]()
