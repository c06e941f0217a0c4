"""The reference rasteriser: PyTorch3D, on CUDA where there is one, with the shading done there too.

PyTorch3D's conventions differ: its view axes are +X left, +Y up, +Z into the scene, and it numbers
faces through the whole batch. On a CPU it compares every pixel with every face, which takes seconds a
frame; there it serves to check the others. Install it by its own instructions; no wheel is published.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch3d.renderer import MeshRasterizer, PerspectiveCameras, RasterizationSettings
from pytorch3d.structures import Meshes
from torch import Tensor

from nlml_hpe.device import resolve_device
from renderer.camera import Camera
from renderer.mesh import Mesh
from renderer.rasterizers import Fragments
from renderer.shading import Light
from renderer.shading_torch import Lights, Surface, shade_views

BATCH = 16
_TO_VIEW = np.array([-1.0, 1.0, -1.0], dtype=np.float32)


class Pytorch3d:
    """Both steps on one device. Of this name: PyTorch3D has no kernels for mps, so that means the CPU here."""

    def __init__(self, device: str) -> None:
        named = resolve_device(device)
        self._device = torch.device("cpu") if named.type == "mps" else named

    def rasterize_many(
        self,
        vertices: Sequence[NDArray[np.float32]],
        faces: NDArray[np.int32],
        cameras: Sequence[Camera],
        size: tuple[int, int],
    ) -> list[Fragments]:
        """Several views of one mesh at once; see ``rasterizers.Rasterizer`` for the contract."""
        with torch.inference_mode():
            owner, weights, depth = self._fragments(vertices, faces, cameras, size)
        parts = (owner.to(torch.int32).cpu().numpy(), weights.cpu().numpy(), depth.cpu().numpy())
        return [Fragments(*view) for view in zip(*parts, strict=True)]

    def images(
        self,
        vertices: Sequence[NDArray[np.float32]],
        mesh: Mesh,
        normals: Sequence[NDArray[np.float32]],
        cameras: Sequence[Camera],
        lights: Sequence[Light],
        backgrounds: Sequence[NDArray[np.uint8]],
    ) -> list[NDArray[np.uint8]]:
        """Shaded images; nothing but them comes back from the device, and that in one go."""
        size = backgrounds[0].shape[:2]
        turned, behind = (torch.from_numpy(np.stack(part)).to(self._device) for part in (normals, backgrounds))
        with torch.inference_mode():
            owner, weights, _ = self._fragments(vertices, mesh.faces, cameras, (size[0], size[1]))
            surface, shone = Surface.of(mesh, self._device), Lights.of(lights, self._device)
            drawn = shade_views(owner, weights, surface, turned, shone, behind)
        return list(drawn.cpu().numpy())

    def _fragments(
        self,
        vertices: Sequence[NDArray[np.float32]],
        faces: NDArray[np.int32],
        cameras: Sequence[Camera],
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Owner (N, H, W), -1 where nothing is, weights (N, H, W, 3) and depth (N, H, W), on the device."""
        points = torch.from_numpy(np.stack(vertices) * _TO_VIEW).to(self._device)
        triangles = torch.from_numpy(faces.astype(np.int64)).to(self._device).expand(len(vertices), -1, -1)
        seen_from = PerspectiveCameras(
            focal_length=torch.tensor([[camera.focal] * 2 for camera in cameras], dtype=torch.float32),
            principal_point=torch.tensor([camera.centre for camera in cameras], dtype=torch.float32),
            in_ndc=False,
            image_size=torch.tensor([size] * len(cameras)),
            device=self._device,
        )
        # One face a pixel and no blur: what the contract asks for. Coarse bins do not pay without a GPU.
        bins = None if self._device.type == "cuda" else 0
        settings = RasterizationSettings(image_size=size, bin_size=bins)
        found = MeshRasterizer(seen_from, settings)(Meshes(points, triangles))
        owner, weights, depth = (part[..., 0, :] if part.dim() == 5 else part[..., 0] for part in
                                 (found.pix_to_face, found.bary_coords, found.zbuf))  # fmt: skip
        nothing = owner < 0
        first = torch.arange(len(vertices), device=self._device)[:, None, None] * len(faces)
        own = torch.where(nothing, -1, owner - first)
        return own, weights.masked_fill(nothing[..., None], 0.0), depth.masked_fill(nothing, torch.inf)
