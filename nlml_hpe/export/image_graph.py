"""The image eye within a graph: crops of a head, and one answer from them, as ``inference.image_engine``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Var, inline

from nlml_hpe.export.resampling import averaged, sampled_alike
from nlml_hpe.image_networks.crop import sampling, turned
from nlml_hpe.inference.image_engine import CROPS_OF_A_FACE, FEW, CropOfFace
from nlml_hpe.model.format import IMAGE_INPUT
from nlml_hpe.model.onnx_math import entry, reduced, scaled, shaped, transposed
from nlml_hpe.model.onnx_rotation import mean_rotation, outer, vector_from_rotation
from nlml_hpe.pixels import STEPS, positions
from nlml_hpe.rotation import MIRROR_SIGNS

_LAST = np.iinfo(np.int64).max
"""The end of an axis, however long it is."""


class Said(NamedTuple):
    """What an eye says of N heads: ``rotation`` and ``covariance`` (N, 3, 3) float64, as of ``fusion.Gaussians``."""

    rotation: Var
    covariance: Var


def image_eye(
    pixels: Var,
    size: int,
    network: onnx.ModelProto,
    px: int,
    named_from_own: NDArray[np.float64],
    answered: Var | None = None,
) -> Said:
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
    answered : Var (N, 1), optional
        Which heads another eye answers, too: the network is shown ``FEW`` crops of these. By default there is no other.

    Returns
    -------
    Said
        In the named head frame.
    """
    numbers = np.arange(len(CROPS_OF_A_FACE))
    shown, others, which = pixels, None, op.const(numbers[None])
    if answered is not None:
        others = op.transpose(op.non_zero(op.not_(shaped(answered, (-1,)))), perm=[1, 0])
        # Of a head that another eye answers each crop counts twice, which leaves their mean as it is.
        shown, which = op.gather_nd(pixels, others), op.where(answered, op.const(numbers % FEW), op.const(numbers))
    first, further = _crops(pixels, size, px, CROPS_OF_A_FACE[:FEW]), _crops(shown, size, px, CROPS_OF_A_FACE[FEW:])
    answer = inline(network)(**{IMAGE_INPUT: op.concat([first, further], axis=0)})
    end = op.slice(op.shape(first), op.const([0]), op.const([1]))
    rotation, covariance = (_of_heads(answer[name], end, others) for name in ("rotation", "covariance"))
    # A covariance is mirrored as a rotation is. Then turns are taken back.
    mirrors = np.stack([MIRROR_SIGNS if each.mirrored else np.ones((3, 3)) for each in CROPS_OF_A_FACE])
    back = turned(np.eye(3), [-each.turn_deg for each in CROPS_OF_A_FACE])
    signs, upright, turns = (op.gather(op.const(each), which) for each in (mirrors, back, back.swapaxes(1, 2)))
    seen = op.matmul(upright, op.mul(op.matmul(rotation, op.const(named_from_own.T)), signs))
    said = op.matmul(op.matmul(upright, op.mul(covariance, signs)), turns)
    return _mixture(seen, said, named_from_own)


def _of_heads(values: Var, end: Var, others: Var | None) -> Var:
    """What is said of all crops, of which the first ``FEW`` of every head come before ``end`` (1,), as (N, C, 3, 3)."""
    first = shaped(op.slice(values, op.const([0]), end, op.const([0])), (-1, FEW, 3, 3))
    further = op.slice(values, end, op.const([_LAST]), op.const([0]))
    further = shaped(further, (-1, len(CROPS_OF_A_FACE) - FEW, 3, 3))
    if others is not None:
        further = op.scatter_nd(first, others, further)
    return op.cast(op.concat([first, further], axis=1), to=np.float64)


def _crops(pixels: Var, size: int, px: int, crops: Sequence[CropOfFace]) -> Var:
    """The C crops (N C, 3, px, px) of each of N heads, which may be none."""
    middle = size / 2
    parts = []
    for each in crops:
        matrix, finer = sampling((middle, middle, each.side * size), px, each.turn_deg)
        # Those that become one pixel lie in different rows: sums over the first axis are the quickest.
        places = np.stack(positions(matrix, px * finer, px * finer), axis=-1)
        steps = np.rint(STEPS * places).astype(np.int64)
        steps = steps.reshape(px, finer, px, finer, 2).transpose(1, 3, 0, 2, 4)
        if each.mirrored:
            steps = steps[:, :, :, ::-1]
        colours = averaged(sampled_alike(pixels, steps.reshape(-1, 2), size), finer * finer, px * px)
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
