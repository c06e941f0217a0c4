"""Rasterisers behind one contract, so that one shader serves all and they can be compared."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from renderer.camera import Camera
from renderer.mesh import Mesh

if TYPE_CHECKING:  # shading takes fragments from here
    from renderer.shading import Light

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


Views = Sequence[NDArray[np.float32]]
Draw = Callable[[Views, NDArray[np.int32], Sequence[Camera], tuple[int, int]], list[Fragments]]
Paint = Callable[..., list[NDArray[np.uint8]]]
"""Takes what ``Rasterizer.images`` takes."""


@dataclass(frozen=True)
class Rasterizer:
    """The contract: camera-frame vertices (V, 3), faces (F, 3), a camera, (height, width) -> ``Fragments``.

    The nearest face wins, both sides of a face are seen, there is no clipping. ``draw`` does several
    views of one mesh, and does ``batch`` of them at a time best; ``paint`` draws and shades them.
    """

    draw: Draw
    paint: Paint
    batch: int

    def __call__(
        self, vertices: NDArray[np.float32], faces: NDArray[np.int32], camera: Camera, size: tuple[int, int]
    ) -> Fragments:
        """Rasterise one view. Raises as ``many`` does."""
        return self.many([vertices], faces, [camera], size)[0]

    def many(
        self, vertices: Views, faces: NDArray[np.int32], cameras: Sequence[Camera], size: tuple[int, int]
    ) -> list[Fragments]:
        """Rasterise several views.

        Parameters
        ----------
        vertices : sequence of float arrays (V, 3)
            In the camera frame of each view.
        faces : int array (F, 3)
            Triangles.
        cameras : sequence of Camera
            One for each view.
        size : (int, int)
            Height and width of the views in pixels.

        Returns
        -------
        list of Fragments
            What is seen at each pixel, in the order of the views.

        Raises
        ------
        ValueError
            Where a vertex lies behind its camera.
        """
        _require_in_front(vertices)
        return self.draw(vertices, faces, cameras, size)

    def images(
        self,
        vertices: Views,
        mesh: Mesh,
        normals: Views,
        cameras: Sequence[Camera],
        lights: Sequence[Light],
        backgrounds: Sequence[NDArray[np.uint8]],
    ) -> list[NDArray[np.uint8]]:
        """RGB images (H, W, 3) of several views of ``mesh``.

        Parameters
        ----------
        vertices, normals : sequence of arrays
            (V, 3) in the camera frame of each view.
        mesh : Mesh
            Faces, texture coordinates and texture; its own vertices are not used.
        cameras, lights : sequences
            One for each view.
        backgrounds : sequence of arrays
            (H, W, 3) uint8, which are also the images' sizes.

        Returns
        -------
        list of RGB uint8 arrays (H, W, 3)
            In the order of the views.

        Raises
        ------
        ValueError
            Where a vertex lies behind its camera.
        """
        _require_in_front(vertices)
        return self.paint(vertices, mesh, normals, cameras, lights, backgrounds)


def _require_in_front(vertices: Views) -> None:
    for view in vertices:
        if len(view) and view[:, 2].max() > -NEAR_MM:
            raise ValueError(f"a vertex lies behind the camera (z = {view[:, 2].max():.1f} mm); move the camera back")


def _numba_zbuffer(device: str) -> Rasterizer:
    from renderer.rasterizers.numba_zbuffer import paint, rasterize_many

    return Rasterizer(rasterize_many, paint, batch=1)


def _pytorch3d(device: str) -> Rasterizer:
    if importlib.util.find_spec("pytorch3d") is None:
        raise RasterizerError(
            "render.rasterizer 'pytorch3d' needs PyTorch3D, which is not installed (see its INSTALL.md); "
            "'numba_zbuffer' draws the same images without it"
        )
    from renderer.rasterizers.pytorch3d import BATCH, Pytorch3d

    there = Pytorch3d(device)
    return Rasterizer(there.rasterize_many, there.images, BATCH)


# Loaded on demand: a backend's dependencies are needed only by those who choose it.
_BACKENDS: dict[str, Callable[[str], Rasterizer]] = {"numba_zbuffer": _numba_zbuffer, "pytorch3d": _pytorch3d}


class RasterizerError(ValueError):
    """A rasteriser is not known or not installed; the message says what to do."""


def get_rasterizer(name: str, device: str = "auto") -> Rasterizer:
    """The rasteriser of this name, on a device of this name where it can use one.

    Raises ``RasterizerError`` where it is not known or not installed, ``DeviceError`` where the device is not there.
    """
    if name not in _BACKENDS:
        raise RasterizerError(f"unknown rasterizer {name!r}; expected one of {sorted(_BACKENDS)}")
    return _BACKENDS[name](device)
