"""What image networks are trained to make small: a loss (N,) for each crop, in radians or in bins."""

from __future__ import annotations

import math
from collections.abc import Callable

import roma
import torch
from torch import Tensor, nn

BIN_DEG, LOWEST_DEG, BINS = 3.0, -99.0, 66
"""The bins of HopeNet: 66 of 3 degrees from -99 on, for each angle (Ruiz et al. 2018)."""
_NEARLY = 1 - 1e-6


class LabelError(ValueError):
    """A label cannot be trained on; the message says how many and which."""


def geodesic(estimated: Tensor, true: Tensor) -> Tensor:
    """Angles (N,) in radians between rotations (N, 3, 3), with gradients that stay finite at 0 and at 180 degrees.

    Parameters
    ----------
    estimated, true : (N, 3, 3) tensors
        Rotations, head to camera.

    Returns
    -------
    (N,) tensor
        In radians, 0 to pi.

    Examples
    --------
    >>> turn = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.5, 0.0]]))
    >>> round(float(geodesic(torch.eye(3)[None], turn)[0]), 3)
    0.5
    """
    return roma.rotmat_geodesic_distance(estimated, true, clamping=_NEARLY)


def geodesic_huber(estimated: Tensor, true: Tensor, delta_deg: float = 10.0) -> Tensor:
    """Huber's loss (N,) of the angle between rotations: squared up to ``delta_deg``, linear beyond it.

    Parameters
    ----------
    estimated, true : (N, 3, 3) tensors
        Rotations, head to camera.
    delta_deg : float
        Where it becomes linear, in degrees.

    Returns
    -------
    (N,) tensor
        Of each rotation, in radians squared.

    Examples
    --------
    >>> turn = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.1, 0.0]]))
    >>> round(float(geodesic_huber(torch.eye(3)[None], turn)), 4)
    0.005
    """
    angle = geodesic(estimated, true)
    return nn.functional.huber_loss(angle, torch.zeros_like(angle), reduction="none", delta=math.radians(delta_deg))


def chordal(estimated: Tensor, true: Tensor) -> Tensor:
    """A quarter of the squared Frobenius distance (N,) of rotations: 1 - cos of the angle between them.

    Parameters
    ----------
    estimated, true : (N, 3, 3) tensors
        Rotations, head to camera.

    Returns
    -------
    (N,) tensor
        Of each rotation, 0 to 2; for small angles half their square, in radians squared.

    Examples
    --------
    >>> turn = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.1, 0.0]]))
    >>> round(float(chordal(torch.eye(3)[None], turn)[0]), 4)
    0.005
    """
    return 0.25 * (estimated - true).square().sum(dim=(1, 2))


ROTATION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "huber": geodesic_huber,
    "geodesic": geodesic,
    "chordal": chordal,
}
"""Losses of a rotation by name, for ``image_network.loss``."""


def negative_log_likelihood(estimated: Tensor, factor: Tensor, true: Tensor) -> Tensor:
    """Of true rotations (N,) under a normal distribution about the estimated ones, in nats, without its constant.

    Parameters
    ----------
    estimated, true : (N, 3, 3) tensors
        Rotations, head to camera.
    factor : (N, 3, 3) tensor
        Lower triangles L with a positive diagonal: L L^T is the covariance, in square radians, of the
        rotation vector w, in the camera frame, of ``true = exp(w) estimated``.

    Returns
    -------
    (N,) tensor
        Of each face.

    Examples
    --------
    >>> one = torch.eye(3)[None]
    >>> float(negative_log_likelihood(one, one, one))
    0.0
    """
    error = roma.rotmat_to_rotvec(true @ estimated.transpose(-1, -2))
    whitened = torch.linalg.solve_triangular(factor, error[..., None], upper=False)[..., 0]
    determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return 0.5 * (whitened**2).sum(dim=-1) + determinant


def bins_of(angles: Tensor) -> Tensor:
    """The bin of angles (...) in degrees. Raises ``LabelError`` where one lies outside of all bins.

    Examples
    --------
    >>> bins_of(torch.tensor([-99.0, 0.0, 98.9]))
    tensor([ 0, 33, 65])
    """
    number = torch.floor((angles - LOWEST_DEG) / BIN_DEG).long()
    outside = (number < 0) | (number >= BINS)
    if bool(outside.any()):
        highest = LOWEST_DEG + BINS * BIN_DEG
        raise LabelError(
            f"{int(outside.sum())} of {outside.numel()} angles lie outside of the bins, {LOWEST_DEG:g} to {highest:g} "
            f"degrees, the furthest at {float(angles[outside].abs().max()):.1f}; leave these faces out"
        )
    return number


def expected_angles(logits: Tensor) -> Tensor:
    """Angles (...) in degrees that logits (..., 66) stand for: the mean of the bins by their probability.

    Parameters
    ----------
    logits : (..., 66) tensor
        Of the bins of one angle.

    Returns
    -------
    (...) tensor
        In degrees.

    Examples
    --------
    >>> expected_angles(torch.zeros(1, 66))
    tensor([-1.5000])
    """
    # HopeNet's own reading: 3 * index - 99, the lower edge of a bin.
    degrees = torch.arange(BINS, device=logits.device, dtype=logits.dtype) * BIN_DEG + LOWEST_DEG
    return (logits.softmax(dim=-1) * degrees).sum(dim=-1)


def binned(logits: Tensor, angles: Tensor, alpha: float) -> Tensor:
    """HopeNet's dual loss (N,), summed over the three angles: cross-entropy plus ``alpha`` times the squared error.

    Parameters
    ----------
    logits : (N, 3, 66) tensor
        Of yaw, pitch and roll.
    angles : (N, 3) tensor
        True angles in degrees.
    alpha : float
        Weight of the squared error, in square degrees.

    Returns
    -------
    (N,) tensor
        Of each face.

    Raises
    ------
    LabelError
        Where an angle lies outside of the bins.

    Examples
    --------
    >>> sure = torch.full((1, 3, 66), -99.0).index_fill(2, torch.tensor([33]), 99.0)
    >>> round(float(binned(sure, torch.zeros(1, 3), alpha=1.0)), 4)
    0.0
    """
    classes = nn.functional.cross_entropy(logits.transpose(1, 2), bins_of(angles), reduction="none")
    return (classes + alpha * (expected_angles(logits) - angles) ** 2).sum(dim=1)
