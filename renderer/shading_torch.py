"""The shader in torch, for rasterisers whose fragments are tensors: the same pixels as ``renderer.shading``.

Everything stays on the device of the fragments; what comes back is the finished images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from renderer.mesh import Mesh
from renderer.shading import Light


class Surface(NamedTuple):
    """A mesh on a device: ``faces`` (F, 3) int64, ``uv`` (V, 2) float32, ``texture`` (H, W, 3) float32 in 0..255."""

    faces: Tensor
    uv: Tensor
    texture: Tensor

    @classmethod
    def of(cls, mesh: Mesh, device: torch.device) -> Surface:
        """The mesh's surface, copied to a device once for all of its views."""
        faces, uv, texture = (torch.from_numpy(part).to(device) for part in (mesh.faces, mesh.uv, mesh.texture))
        return cls(faces.long(), uv, texture.float())


class Lights(NamedTuple):
    """One light for each of N views: ``direction`` (N, 3), ``ambient`` (N,), ``color`` (N, 3)."""

    direction: Tensor
    ambient: Tensor
    color: Tensor

    @classmethod
    def of(cls, lights: Sequence[Light], device: torch.device) -> Lights:
        """The lights on a device."""
        columns = zip(*((light.direction, light.ambient, light.color) for light in lights), strict=True)
        return cls(*(torch.from_numpy(np.array(column, dtype=np.float32)).to(device) for column in columns))


def shade_views(
    pix_to_face: Tensor, barycentrics: Tensor, surface: Surface, normals: Tensor, lights: Lights, backgrounds: Tensor
) -> Tensor:
    """Images of what the fragments of N views show of one surface.

    Parameters
    ----------
    pix_to_face : Tensor
        (N, H, W) int64, -1 where nothing is.
    barycentrics : Tensor
        (N, H, W, 3) float32.
    surface : Surface
        The mesh that all views show.
    normals : Tensor
        (N, V, 3) float32, its vertex normals in each view's camera frame.
    lights : Lights
        One for each view.
    backgrounds : Tensor
        (N, H, W, 3) uint8, seen where nothing is.

    Returns
    -------
    Tensor
        (N, H, W, 3) RGB uint8, on the device of the fragments.
    """
    seen = pix_to_face >= 0
    corners = surface.faces[pix_to_face.clamp(min=0)]
    weights = barycentrics[..., None]
    view = torch.arange(len(pix_to_face), device=pix_to_face.device)[:, None, None, None]
    normal = (weights * normals[view, corners]).sum(dim=-2)
    towards = (normal * lights.direction[:, None, None]).sum(dim=-1) / normal.norm(dim=-1).clamp(min=1e-9)
    ambient = lights.ambient[:, None, None]
    brightness = ambient + (1 - ambient) * towards.clamp(min=0)
    texel = _bilinear(surface.texture, (weights * surface.uv[corners]).sum(dim=-2))
    shaded = texel * brightness[..., None] * lights.color[:, None, None]
    # Rounded as the other shader does: half up, by cutting off.
    return torch.where(seen[..., None], (shaded + 0.5).clamp(0, 255).to(torch.uint8), backgrounds)


def _bilinear(texture: Tensor, uv: Tensor) -> Tensor:
    """Colours (..., 3) of a texture (H, W, 3) at places (..., 2) in 0..1."""
    rows, columns = texture.shape[:2]
    x = (uv[..., 0] * columns - 0.5).clamp(0, columns - 1.001)
    y = (uv[..., 1] * rows - 0.5).clamp(0, rows - 1.001)
    left, top = x.long(), y.long()
    right, below = (left + 1).clamp(max=columns - 1), (top + 1).clamp(max=rows - 1)  # a texture may be a pixel wide
    right_share, lower_share = (x - left)[..., None], (y - top)[..., None]
    upper = torch.lerp(texture[top, left], texture[top, right], right_share)
    lower = torch.lerp(texture[below, left], texture[below, right], right_share)
    return torch.lerp(upper, lower, lower_share)
