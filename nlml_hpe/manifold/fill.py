"""What stands in a missing cell: the person's frontal landmarks rotated, or the low-rank model's own face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import rotate_image_points, rotation_from_angles

FloatArray = NDArray[np.float64]


class RigidFill:
    """Missing cells as the person's most frontal detected landmarks, rigidly rotated.

    The perspective change and the detector's own habits are not in it: a start for EM, no more.

    Parameters
    ----------
    grid : PoseGrid
        The poses of a block.

    Examples
    --------
    >>> grid = PoseGrid((0.0, 90.0), (0.0,), (0.0,))
    >>> block = np.array([[1, 0, 0], [0, 0, 0]], dtype=np.float32).reshape(2, 1, 1, 3)
    >>> seen = np.array([True, False]).reshape(2, 1, 1)
    >>> np.abs(RigidFill(grid)(block, seen)).round(3) + 0.0  # the point at the side now lies in front or behind
    array([[0., 0., 1.]], dtype=float32)
    """

    def __init__(self, grid: PoseGrid) -> None:
        self.rotations = rotation_from_angles(grid.angles())
        self._turn = np.linalg.norm(grid.angles().columns(), axis=-1)

    def __call__(self, block: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features (missing, F) for the cells where ``mask`` is False."""
        return self.turned(block, mask)[~mask]

    def turned(self, block: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The most frontal face of a block (Y, P, R, F), seen where ``mask`` is True, at every pose."""
        frontal = np.unravel_index(np.where(mask, self._turn, np.inf).argmin(), mask.shape)
        turns = self.rotations @ self.rotations[frontal].T
        return rotate_image_points(block[frontal].reshape(-1, 3), turns).reshape(block.shape).astype(np.float32)


def rotation_tensor(features: NDArray[np.float32], detected: NDArray[np.bool_], grid: PoseGrid) -> NDArray[np.float32]:
    """The tensor of purely rotated points: every person's most frontal landmarks at every pose.

    Parameters
    ----------
    features : ndarray of shape (I, Y, P, R, F), float32
        The faces.
    detected : ndarray of shape (I, Y, P, R), bool
        Where there is one.
    grid : PoseGrid
        The poses.

    Returns
    -------
    ndarray of shape (I, Y, P, R, F), float32
        Without a missing cell.
    """
    rigid = RigidFill(grid)
    return np.stack([rigid.turned(block, mask) for block, mask in zip(features, detected, strict=True)])


class LowRankFill:
    """Missing cells from the current model, each person's identity solved on the observed cells.

    Parameters
    ----------
    poses : sequence of three ndarrays
        Factors of yaw (Y, ry), pitch (P, rp) and roll (R, rr).
    core : ndarray of shape (ri, ry, rp, rr, F)
        The core of the current model.

    Examples
    --------
    >>> fill = LowRankFill([np.array([[1.0], [2.0]]), np.eye(1), np.eye(1)], np.ones((1, 1, 1, 1, 2)))
    >>> block, seen = np.full((2, 1, 1, 2), 3.0, dtype=np.float32), np.array([True, False]).reshape(2, 1, 1)
    >>> fill(block, seen).round(3)  # at the second yaw the factor is twice that of the first
    array([[6., 6.]], dtype=float32)
    """

    def __init__(self, poses: Sequence[FloatArray], core: FloatArray) -> None:
        self.cells = np.einsum("ya,pb,rc->yprabc", *poses).reshape(*(len(f) for f in poses), -1)
        self.core = core.reshape(len(core), -1, core.shape[-1])
        self.overlap = np.einsum("imf,jnf->ijmn", self.core, self.core, optimize=True)

    def __call__(self, block: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features (missing, F) for the cells where ``mask`` is False."""
        seen = self.cells[mask]
        normal = np.einsum("ijmn,mn->ij", self.overlap, seen.T @ seen)
        projected = seen.T @ block[mask].astype(np.float64)
        target = np.einsum("imf,mf->i", self.core, projected)
        # A trace-relative ridge keeps identities finite where a person has very few cells.
        normal += np.eye(len(normal)) * 1e-9 * np.trace(normal)
        weights = np.tensordot(np.linalg.solve(normal, target), self.core, axes=1)
        return np.asarray(self.cells[~mask] @ weights, dtype=np.float32)
