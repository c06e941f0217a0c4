"""``rotation`` in torch, by roma: the same convention, batched, differentiable, on any device."""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def rotation_from_degrees(degrees: Tensor) -> Tensor:
    """Rotations of angles; as ``rotation.rotation_from_angles``.

    Parameters
    ----------
    degrees : Tensor (N, 3)
        Columns yaw, pitch, roll in degrees.

    Returns
    -------
    Tensor (N, 3, 3)
        Rotations that map head to camera.

    Examples
    --------
    >>> rotation_from_degrees(torch.zeros(1, 3)).squeeze().diagonal()
    tensor([1., 1., 1.])
    """
    yaw, pitch, roll = (-degrees).unbind(-1)
    rotation: Tensor = roma.euler_to_rotmat("XYZ", [pitch, yaw, roll], degrees=True)
    return rotation


def degrees_from_rotation(rotation: Tensor) -> Tensor:
    """Columns yaw, pitch, roll (N, 3) in degrees of rotations (N, 3, 3); as ``rotation.angles_from_rotation``.

    Of the two triples of one rotation the one with the smaller angles, so that yaw goes on past 90 degrees.

    Examples
    --------
    >>> degrees_from_rotation(rotation_from_degrees(torch.tensor([[95.0, 5.0, 3.0]]))).round()
    tensor([[95.,  5.,  3.]])
    """
    pitch, yaw, roll = roma.rotmat_to_euler("XYZ", rotation, degrees=True, as_tuple=True)
    first = -torch.stack([yaw, pitch, roll], dim=-1)
    half = torch.where(first > 0, 180.0, -180.0)
    yaw_beyond, rest_beyond = (half - first)[..., :1], (first - half)[..., 1:]
    beyond = first.abs().sum(dim=-1, keepdim=True) > 270.0
    return torch.where(beyond, torch.cat([yaw_beyond, rest_beyond], dim=-1), first)
