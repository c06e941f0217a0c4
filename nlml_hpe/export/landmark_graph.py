"""The landmark eye within a graph: FaceMesh on a head's crop, looks at the face in it, and one answer from them.

The steps are the library's own for a video, whose next frame is the same picture: FaceMesh's square follows from the
box that the crop was cut around; the landmarks found there say where the face lies and how it is turned, and so give a
square in which the eyes lie level; its landmarks are the first look, and those of ``detection.looks`` follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Var, inline

from nlml_hpe.detection.facemesh import LANDMARKS_PX
from nlml_hpe.detection.landmarks import FACEMESH, facemesh_mirror
from nlml_hpe.detection.looks import Look
from nlml_hpe.detection.regions import REGION, region_around_box
from nlml_hpe.export.image_graph import Said
from nlml_hpe.export.resampling import sampled
from nlml_hpe.inference.looks import FULLY_STATED, LEAST_STATED, SCATTER, UNSTATED_DEG
from nlml_hpe.model.onnx_math import (
    atan2,
    columns,
    cosine,
    picked,
    reduced,
    rotation_from_degrees,
    scaled,
    shaped,
    transposed,
)
from nlml_hpe.model.onnx_rotation import covariance_from_sigma, mean_rotation, outer, vector_from_rotation


class LandmarkNetworks(NamedTuple):
    """What the landmark eye is made of.

    Attributes
    ----------
    facemesh : ModelProto
        FaceMesh's landmark network, of this graph's opset.
    model : ModelProto
        From landmarks to the pose, as ``model.onnx_export`` writes it.
    confidence : float
        How sure FaceMesh must be of a face, in 0..1.
    named_from_own : float array (3, 3)
        The model's, ``R(named) = R(own) named_from_own``.
    """

    facemesh: onnx.ModelProto
    model: onnx.ModelProto
    confidence: float
    named_from_own: NDArray[np.float64]


class Seen(NamedTuple):
    """The landmark eye's answer: what it says, whether (N, 1) there is one, and how sure (N,) it is of a face."""

    said: Said
    is_known: Var
    presence: Var


class _Mesh(NamedTuple):
    """Landmarks (N, L, 468, 3) of L looks, in pixels of the crop, and how sure (N, L) FaceMesh is of a face."""

    points: Var
    presence: Var


_FIRST = (Look(1.0, 0.0, mirrored=False),)
_PLACES = np.arange(LANDMARKS_PX) / LANDMARKS_PX - 0.5
"""Where FaceMesh's pixels lie to the right of the middle of its square, in sides of it."""


def landmark_eye(
    pixels: Var, size: int, box: tuple[float, float, float, float], networks: LandmarkNetworks, looks: Sequence[Look]
) -> Seen:
    """The answer to heads whose crops are given.

    Parameters
    ----------
    pixels : Var (N, size * size, 12)
        Of N crops, as ``resampling.neighbours`` gives them.
    size : int
        Pixels on a side of these crops.
    box : four floats
        The box of the 68 points, in pixels of the crop: left, top, right, bottom.
    networks : LandmarkNetworks
        What the landmark eye is made of.
    looks : sequence of Look
        Further looks, beside the first one.

    Returns
    -------
    Seen
        In the named head frame; of a head in which FaceMesh sees no face the numbers mean nothing.
    """
    corner = op.cast(shaped(columns(columns(pixels, 0, 1), 0, 4, axis=2), (0, 4)), to=np.float64)
    placed = op.add(scaled(corner, 0.0), op.const(region_around_box(box)))
    place = _seen(pixels, size, networks, placed, _FIRST)
    level = _where_sure(place, networks, placed)
    first = _seen(pixels, size, networks, level, _FIRST)
    presence = op.min([place.presence, first.presence])
    points, sure = first.points, presence
    if looks:
        further = _seen(pixels, size, networks, _where_sure(first, networks, placed), looks)
        points = op.concat([points, further.points], axis=1)
        sure = op.concat([sure, further.presence], axis=1)
    limit = op.const(networks.confidence)
    said = _answer(points, op.greater(sure, limit), networks, 1 + len(looks))
    return Seen(said, op.greater(presence, limit), shaped(presence, (-1,)))


def _where_sure(mesh: _Mesh, networks: LandmarkNetworks, instead: Var) -> Var:
    """The regions (N, 4) of faces that were seen once; of what is no face any other will do that has a size."""
    points = shaped(mesh.points, (-1, FACEMESH.n_points, 3))
    return op.where(op.greater(mesh.presence, op.const(networks.confidence)), _region(points), instead)


def _region(points: Var) -> Var:
    """Regions (N, 4) of faces whose landmarks (N, 468, 3) are known; as ``facemesh.regions_from_landmarks``."""
    flat = columns(points, 0, 2, axis=2)
    low, high = (reduced(reduce, flat, 1, keep=False) for reduce in (op.reduce_min, op.reduce_max))
    side = scaled(reduced(op.reduce_max, op.sub(high, low), 1, keep=True), REGION)
    first, second = (picked(flat, [corner]) for corner in FACEMESH.eye_corners)
    across = shaped(op.sub(second, first), (0, 2))
    turn = atan2(columns(across, 1, 2), columns(across, 0, 1))
    return op.concat([scaled(op.add(low, high), 0.5), side, turn], axis=1)


def _seen(pixels: Var, size: int, networks: LandmarkNetworks, region: Var, looks: Sequence[Look]) -> _Mesh:
    """What FaceMesh sees in the looks at regions (N, 4); all go through it together."""
    frames = [_frame(region, look) for look in looks]
    positions = [_positions(*frame, look) for frame, look in zip(frames, looks, strict=True)]
    x, y = (op.concat(list(part), axis=1) for part in zip(*positions, strict=True))
    colours = sampled(pixels, x, y, size)
    pictures = shaped(op.cast(colours, to=np.uint8), (-1, LANDMARKS_PX, LANDMARKS_PX, 3))
    found = inline(networks.facemesh)(image=pictures)
    presence = shaped(op.sigmoid(op.cast(found["presence"], to=np.float64)), (-1, len(looks)))
    points = shaped(op.cast(found["points"], to=np.float64), (-1, len(looks), FACEMESH.n_points, 3))
    parts = op.split(points, num_outputs=len(looks), axis=1) if len(looks) > 1 else [points]
    side = op.unsqueeze(columns(region, 2, 3), op.const([2]))
    placed = [
        _in_crop(shaped(part, (0, FACEMESH.n_points, 3)), frame, side, look)
        for part, frame, look in zip(parts, frames, looks, strict=True)
    ]
    return _Mesh(op.concat(placed, axis=1), presence)


def _positions(middle: Var, axes: Var, look: Look) -> tuple[Var, Var]:
    """Where FaceMesh's pixels lie in the crop: x and y (N, 192 * 192)."""
    right, down = (op.const(_PLACES.reshape(shape)) for shape in ((1, 1, -1), (1, -1, 1)))
    found = []
    for axis, shift in ((0, -1.0 if look.mirrored else 0.0), (1, 0.0)):
        along, across = (columns(columns(axes, row, row + 1), axis, axis + 1, axis=2) for row in (0, 1))
        start = op.add(columns(middle, axis, axis + 1, axis=2), op.const(shift))
        places = op.add(op.add(op.mul(along, right), start), op.mul(across, down))
        found.append(shaped(places, (-1, LANDMARKS_PX**2)))
    return found[0], found[1]


def _frame(region: Var, look: Look) -> tuple[Var, Var]:
    """Middle (N, 1, 2) of a look's square, and where its right and its down lead in the crop, (N, 2, 2).

    A mirrored look shows FaceMesh the mirror image, in which the same square leans the other way.
    """
    sign = -1.0 if look.mirrored else 1.0
    turn = scaled(op.add(columns(region, 3, 4), op.const(np.radians(look.turn))), sign)
    side = scaled(columns(region, 2, 3), look.side)
    along, down = op.mul(side, cosine(turn)), op.mul(side, op.sin(turn))
    axes = op.concat([scaled(along, sign), down, scaled(down, -sign), along], axis=1)
    return op.unsqueeze(columns(region, 0, 2), op.const([1])), shaped(axes, (-1, 2, 2))


def _in_crop(points: Var, frame: tuple[Var, Var], side: Var, look: Look) -> Var:
    """Landmarks (N, 1, 468, 3) in pixels of the crop, of those (N, 468, 3) in FaceMesh's own; ``side`` is (N, 1, 1)."""
    middle, axes = frame
    shares = scaled(points, 1 / LANDMARKS_PX)
    flat = op.add(op.matmul(op.sub(columns(shares, 0, 2, axis=2), op.const(0.5)), axes), middle)
    whole = op.concat([flat, op.mul(columns(shares, 2, 3, axis=2), scaled(side, look.side))], axis=2)
    if look.mirrored:
        whole = op.gather(whole, op.const(facemesh_mirror()), axis=1)
    return op.unsqueeze(whole, op.const([1]))


def _answer(points: Var, is_look: Var, networks: LandmarkNetworks, count: int) -> Said:
    """One answer from landmarks (N, L, 468, 3) of ``count`` = L looks, of which those of ``is_look`` (N, L) count."""
    landmarks = _in_single(_mean_landmarks(points, is_look))
    answer = inline(_always_refined(networks.model))(landmarks=landmarks)
    angles, sigma = (op.cast(answer[name], to=np.float64) for name in ("refined", "sigma"))
    rotation = rotation_from_degrees(angles)
    # The model's deviations are those of the angles in its own frame.
    stated = covariance_from_sigma(op.matmul(rotation, op.const(networks.named_from_own.T)), sigma)
    if count == 1:
        return Said(rotation, stated)
    network = onnx.utils.Extractor(networks.model).extract_model(["landmarks"], ["network"])
    rough = inline(network)(landmarks=_in_single(points))["network"]
    looks = shaped(rotation_from_degrees(op.cast(rough, to=np.float64)), (-1, count, 3, 3))
    return _with_looks(Said(rotation, stated), looks, is_look, count)


def _always_refined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the exact step in place of its choice of it.

    onnxruntime takes a branch that is always chosen out of ``If`` by itself; 1.24 to 1.27 end in an error there.
    """
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    graph = alone.graph
    (index,) = (number for number, node in enumerate(graph.node) if node.op_type == "If")
    choice = graph.node[index]
    (branch,) = (each.g for each in choice.attribute if each.name == "then_branch")
    names = zip(branch.output, choice.output, strict=True)
    passed = [onnx.helper.make_node("Identity", [inner.name], [outer]) for inner, outer in names]
    nodes = [*graph.node[:index], *branch.node, *passed, *graph.node[index + 1 :]]
    inputs = [each for each in graph.input if each.name not in choice.input]
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.ClearField("input")
    graph.input.extend(inputs)
    return alone


def _in_single(points: Var) -> Var:
    """Landmarks (M, 468, 3) float32, whatever axes stand before."""
    return op.cast(shaped(points, (-1, FACEMESH.n_points, 3)), to=np.float32)


def _mean_landmarks(points: Var, is_look: Var) -> Var:
    """Means (N, 468, 3) over the looks that count; over all where none does, of which the numbers mean nothing."""
    counted = op.cast(is_look, to=np.float64)
    counted = op.where(op.greater(_number(is_look), op.const(0.0)), counted, op.const(1.0))
    weights = op.unsqueeze(counted, op.const([2, 3]))
    total = reduced(op.reduce_sum, op.mul(points, weights), 1, keep=False)
    return op.div(total, reduced(op.reduce_sum, weights, 1, keep=False))


def _with_looks(exact: Said, looks: Var, is_look: Var, count: int) -> Said:
    """As ``inference.looks.with_looks``, of ``count`` = L rough answers (N, L, 3, 3) to N faces; marks are (N, L)."""
    counted, nothing = op.unsqueeze(is_look, op.const([2, 3])), op.const(0.0)
    number = _number(is_look)
    seen = op.where(counted, looks, nothing)
    mean = mean_rotation(reduced(op.reduce_sum, seen, 1, keep=False), op.max([number, op.const(1.0)]))
    away = shaped(op.matmul(seen, op.unsqueeze(transposed(mean), op.const([1]))), (-1, 3, 3))
    apart = op.where(counted, shaped(outer(vector_from_rotation(away)), (-1, count, 3, 3)), nothing)
    fewer = op.max([op.sub(number, op.const(1.0)), op.const(1.0)])
    scatter = op.div(reduced(op.reduce_sum, apart, 1, keep=False), _matrix(fewer))
    reached = op.not_(op.isnan(reduced(op.reduce_sum, shaped(exact.covariance, (-1, 9)), 1, keep=True)))
    is_reached = op.unsqueeze(reached, op.const([2]))
    stated = op.where(is_reached, exact.covariance, op.const(np.radians(UNSTATED_DEG) ** 2 * np.eye(3)))
    share = op.clip(op.div(op.const(float(FULLY_STATED)), number), op.const(LEAST_STATED), op.const(1.0))
    several = op.add(op.mul(_matrix(share), stated), scaled(scatter, SCATTER))
    is_several = op.greater(_matrix(number), op.const(1.0))
    rotation = op.where(op.and_(is_several, op.not_(is_reached)), mean, exact.rotation)
    return Said(rotation, op.where(is_several, several, exact.covariance))


def _number(marks: Var) -> Var:
    """How many (N, 1) of the marks (N, L) are set."""
    return reduced(op.reduce_sum, op.cast(marks, to=np.float64), 1, keep=True)


def _matrix(numbers: Var) -> Var:
    """Numbers (N, 1) as (N, 1, 1)."""
    return op.unsqueeze(numbers, op.const([2]))
