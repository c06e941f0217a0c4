"""The image eye within a graph: crops of a head, and one answer from them, as ``inference.image_engine``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Var, inline

from nlml_hpe.export.resampling import averaged, sampled_alike
from nlml_hpe.image_networks.crop import sampling, turned
from nlml_hpe.inference.image_engine import CROPS_OF_A_FACE
from nlml_hpe.model.format import IMAGE_INPUT
from nlml_hpe.model.onnx_math import entry, reduced, scaled, shaped, transposed
from nlml_hpe.model.onnx_rotation import mean_rotation, outer, vector_from_rotation
from nlml_hpe.pixels import STEPS, positions
from nlml_hpe.rotation import MIRROR_SIGNS


class Said(NamedTuple):
    """What an eye says of N heads: ``rotation`` and ``covariance`` (N, 3, 3) float64, as of ``fusion.Gaussians``."""

    rotation: Var
    covariance: Var


def image_eye(pixels: Var, size: int, network: onnx.ModelProto, px: int, named_from_own: NDArray[np.float64]) -> Said:
    """The answer to heads whose crops are given.

    Parameters
    ----------
    pixels : Var (N, size * size, 12)
        Of N crops, as ``resampling.neighbours`` gives them.
    size : int
        Pixels on a side of these crops.
    network : ModelProto
        An image eye's ONNX file, of this graph's opset.
    px : int
        Pixels on a side of the crops that the network takes.
    named_from_own : float array (3, 3)
        The image eye's own, ``R(named) = R(own) named_from_own``.

    Returns
    -------
    Said
        In the named head frame.
    """
    crops = _crops(pixels, size, px)
    answer = inline(network)(**{IMAGE_INPUT: crops})
    rotation, covariance = (op.cast(answer[name], to=np.float64) for name in ("rotation", "covariance"))
    own = op.matmul(rotation, op.const(named_from_own.T))
    shape = (-1, len(CROPS_OF_A_FACE), 3, 3)
    # A covariance is mirrored as a rotation is. Then turns are taken back.
    signs = op.const(np.stack([MIRROR_SIGNS if each.mirrored else np.ones((3, 3)) for each in CROPS_OF_A_FACE]))
    back = turned(np.eye(3), [-each.turn_deg for each in CROPS_OF_A_FACE])
    seen = op.matmul(op.const(back), op.mul(shaped(own, shape), signs))
    said = op.matmul(op.matmul(op.const(back), op.mul(shaped(covariance, shape), signs)), op.const(back.swapaxes(1, 2)))
    return _mixture(seen, said, named_from_own)


def _crops(pixels: Var, size: int, px: int) -> Var:
    """The C crops (N C, 3, px, px) of each of N heads."""
    middle = size / 2
    parts = []
    for each in CROPS_OF_A_FACE:
        matrix, finer = sampling((middle, middle, each.side * size), px, each.turn_deg)
        # Those that become one pixel lie in different rows: sums over the first axis are the quickest.
        places = np.stack(positions(matrix, px * finer, px * finer), axis=-1)
        steps = np.rint(STEPS * places).astype(np.int64)
        steps = steps.reshape(px, finer, px, finer, 2).transpose(1, 3, 0, 2, 4)
        if each.mirrored:
            steps = steps[:, :, :, ::-1]
        colours = averaged(sampled_alike(pixels, steps.reshape(-1, 2), size), finer * finer)
        parts.append(op.unsqueeze(colours, op.const([1])))
    return shaped(op.transpose(op.concat(parts, axis=1), perm=[0, 1, 3, 2]), (-1, 3, px, px))


def _mixture(seen: Var, said: Var, named_from_own: NDArray[np.float64]) -> Said:
    """One answer from (N, C, 3, 3) rotations, in the own frame, and covariances; as ``ImageEngine``."""
    total = reduced(op.reduce_sum, seen, 1, keep=False)
    weight = op.add(scaled(entry(total, 0, 0), 0.0), op.const(np.float64(len(CROPS_OF_A_FACE))))
    mean = mean_rotation(total, weight)
    back = op.unsqueeze(transposed(mean), op.const([1]))
    away = vector_from_rotation(shaped(op.matmul(seen, back), (-1, 3, 3)))
    shape = (-1, len(CROPS_OF_A_FACE), 3, 3)
    covariance = reduced(op.reduce_mean, op.add(said, shaped(outer(away), shape)), 1, keep=False)
    return Said(op.matmul(mean, op.const(named_from_own)), covariance)
