"""What a closer look at a proposed head sees, in training and in use; its answers are in sides of that square.

Numpy alone: inference stands on this file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.image_networks.crop import crop, square_around

PROPOSAL_PX = 64
"""Pixels on a side of the crop of a proposal."""
PROPOSAL_SHARE = 1.8
"""Its side over the longer side of the proposed box: a box that is too small or lies beside the head shows it yet."""
REFINEMENT_FORMAT = "nlml-hpe head refinement onnx 1"
REFINEMENT_FILE = "refinement.onnx"
REFINEMENT_INPUT, REFINEMENT_OUTPUTS = "images", ("scores", "boxes")
"""Input and outputs of the second stage's ONNX file, in order."""
Floats = NDArray[np.float64]


def proposal_crop(image: NDArray[np.uint8], box: ArrayLike) -> NDArray[np.uint8]:
    """The crop of a proposal.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
        RGB.
    box : (4,) array
        Left, top, right, bottom, in pixels.

    Returns
    -------
    (PROPOSAL_PX, PROPOSAL_PX, 3) uint8 array
        Beyond the image its border is repeated.

    Raises
    ------
    ValueError
        For a box that is not finite or has no size.

    Examples
    --------
    >>> proposal_crop(np.zeros((40, 60, 3), np.uint8), (20, 10, 40, 30)).shape
    (64, 64, 3)
    """
    return crop(image, box, PROPOSAL_PX, PROPOSAL_SHARE)


def within_proposal(boxes: ArrayLike, proposal: ArrayLike) -> Floats:
    """Boxes of an image in sides of a proposal's crop: 0 at its left and top, 1 at its right and bottom.

    Parameters
    ----------
    boxes : (..., 4) array
        Left, top, right, bottom, in pixels of the image.
    proposal : (..., 4) array
        The proposed box, in the same pixels.

    Returns
    -------
    (..., 4) array

    Raises
    ------
    ValueError
        For a proposal that is not finite or has no size.

    Examples
    --------
    >>> within_proposal((10, 10, 20, 20), (10, 10, 20, 20)).round(3).tolist()
    [0.222, 0.222, 0.778, 0.778]
    """
    corner, side = _corner_and_side(proposal)
    return (np.asarray(boxes, dtype=np.float64) - corner) / side


def of_image(boxes: ArrayLike, proposal: ArrayLike) -> Floats:
    """What ``within_proposal`` gives, taken back to pixels of the image.

    Parameters
    ----------
    boxes : (..., 4) array
        In sides of the crops of the proposals.
    proposal : (..., 4) array
        The proposed boxes, in pixels.

    Returns
    -------
    (..., 4) array
        Left, top, right, bottom in pixels.

    Raises
    ------
    ValueError
        For a proposal that is not finite or has no size.

    Examples
    --------
    >>> of_image((0.5, 0.5, 1.0, 1.0), (10, 10, 20, 20)).tolist()
    [15.0, 15.0, 24.0, 24.0]
    """
    corner, side = _corner_and_side(proposal)
    return np.asarray(boxes, dtype=np.float64) * side + corner


def mirrored_box(boxes: Floats) -> Floats:
    """Boxes of a crop, in its sides, as they lie in its mirror image.

    Parameters
    ----------
    boxes : (..., 4) array
        Left, top, right, bottom.

    Returns
    -------
    (..., 4) array

    Examples
    --------
    >>> mirrored_box(np.array([0.25, 0.0, 0.5, 1.0])).tolist()
    [0.5, 0.0, 0.75, 1.0]
    """
    left, top, right, bottom = np.moveaxis(boxes, -1, 0)
    return np.stack([1 - right, top, 1 - left, bottom], axis=-1)


def _corner_and_side(proposal: ArrayLike) -> tuple[Floats, Floats]:
    """Left and top, twice (..., 4), and side (..., 1) of the crop."""
    square = square_around(proposal, PROPOSAL_SHARE)
    corner = square[..., :2] - square[..., 2:] / 2
    return np.concatenate([corner, corner], axis=-1), square[..., 2:]
