"""The reference rasteriser: PyTorch3D, on CUDA where there is one.

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

from renderer.camera import Camera
from renderer.rasterizers import Fragments

BATCH = 16
_TO_VIEW = np.array([-1.0, 1.0, -1.0], dtype=np.float32)


def rasterize_many(
    vertices: Sequence[NDArray[np.float32]],
    faces: NDArray[np.int32],
    cameras: Sequence[Camera],
    size: tuple[int, int],
) -> list[Fragments]:
    """Several views of one mesh at once; see ``rasterizers.Rasterizer`` for the contract."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    points = torch.from_numpy(np.stack(vertices) * _TO_VIEW).to(device)
    triangles = torch.from_numpy(faces.astype(np.int64)).to(device).expand(len(vertices), -1, -1)
    seen_from = PerspectiveCameras(
        focal_length=torch.tensor([[camera.focal] * 2 for camera in cameras], dtype=torch.float32),
        principal_point=torch.tensor([camera.centre for camera in cameras], dtype=torch.float32),
        in_ndc=False,
        image_size=torch.tensor([size] * len(cameras)),
        device=device,
    )
    # One face a pixel and no blur: what the contract asks for. Coarse bins do not pay without a GPU.
    settings = RasterizationSettings(image_size=size, bin_size=None if device.type == "cuda" else 0)
    with torch.inference_mode():
        found = MeshRasterizer(seen_from, settings)(Meshes(points, triangles))
    owner, weights, depth = (part[..., 0, :] if part.dim() == 5 else part[..., 0] for part in
                             (found.pix_to_face, found.bary_coords, found.zbuf))  # fmt: skip
    nothing = owner < 0
    first = torch.arange(len(vertices), device=device)[:, None, None] * len(faces)
    pix_to_face = torch.where(nothing, -1, owner - first).to(torch.int32).cpu().numpy()
    barycentrics = weights.masked_fill(nothing[..., None], 0.0).cpu().numpy()
    distance = depth.masked_fill(nothing, torch.inf).cpu().numpy()
    return [Fragments(*view) for view in zip(pix_to_face, barycentrics, distance, strict=True)]
