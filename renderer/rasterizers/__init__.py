"""Rasterisers behind one contract, so that one shader serves all and they can be compared."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from renderer.camera import Camera

NEAR_MM = 1.0


class Fragments(NamedTuple):
    """What is seen at each pixel of an image (H, W).

    ``pix_to_face`` int32, -1 where nothing is; ``barycentrics`` (H, W, 3) float32, perspective
    correct, zero where nothing is; ``depth`` float32, distance in mm along the view axis, inf where
    nothing is.
    """

    pix_to_face: NDArray[np.int32]
    barycentrics: NDArray[np.float32]
    depth: NDArray[np.float32]


Draw = Callable[[Sequence[NDArray[np.float32]], NDArray[np.int32], Sequence[Camera], tuple[int, int]], list[Fragments]]


@dataclass(frozen=True)
class Rasterizer:
    """The contract: camera-frame vertices (V, 3), faces (F, 3), a camera, (height, width) -> ``Fragments``.

    The nearest face wins, both sides of a face are seen, there is no clipping. ``draw`` does several
    views of one mesh, and does ``batch`` of them at a time best.
    """

    draw: Draw
    batch: int

    def __call__(
        self, vertices: NDArray[np.float32], faces: NDArray[np.int32], camera: Camera, size: tuple[int, int]
    ) -> Fragments:
        """Rasterise one view. Raises as ``many`` does."""
        return self.many([vertices], faces, [camera], size)[0]

    def many(
        self,
        vertices: Sequence[NDArray[np.float32]],
        faces: NDArray[np.int32],
        cameras: Sequence[Camera],
        size: tuple[int, int],
    ) -> list[Fragments]:
        """Rasterise several views. Raises ``ValueError`` where a vertex lies behind its camera."""
        for view in vertices:
            if len(view) and view[:, 2].max() > -NEAR_MM:
                raise ValueError(
                    f"a vertex lies behind the camera (z = {view[:, 2].max():.1f} mm); move the camera back"
                )
        return self.draw(vertices, faces, cameras, size)


def _numba_zbuffer() -> Rasterizer:
    from renderer.rasterizers.numba_zbuffer import rasterize_many

    return Rasterizer(rasterize_many, batch=1)


def _pytorch3d() -> Rasterizer:
    if importlib.util.find_spec("pytorch3d") is None:
        raise RasterizerError(
            "render.rasterizer 'pytorch3d' needs PyTorch3D, which is not installed (see its INSTALL.md); "
            "'numba_zbuffer' draws the same images without it"
        )
    from renderer.rasterizers.pytorch3d import BATCH, rasterize_many

    return Rasterizer(rasterize_many, BATCH)


# Loaded on demand: a backend's dependencies are needed only by those who choose it.
_BACKENDS: dict[str, Callable[[], Rasterizer]] = {"numba_zbuffer": _numba_zbuffer, "pytorch3d": _pytorch3d}


class RasterizerError(ValueError):
    """A rasteriser is not known or not installed; the message says what to do."""


def get_rasterizer(name: str) -> Rasterizer:
    """The rasteriser of this name. Raises ``RasterizerError`` where it is not known or not installed."""
    if name not in _BACKENDS:
        raise RasterizerError(f"unknown rasterizer {name!r}; expected one of {sorted(_BACKENDS)}")
    return _BACKENDS[name]()
