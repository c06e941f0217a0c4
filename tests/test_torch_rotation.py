"""One convention three times: numpy in ``rotation``, roma in ``torch_rotation``, and the ONNX graph's; scipy judges."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.spatial.transform import Rotation
from spox import Tensor, argument, build

from nlml_hpe.manifold.encoder_training import turned_in_plane
from nlml_hpe.model.onnx_math import degrees_from_rotation as onnx_degrees
from nlml_hpe.model.onnx_math import inverse, mean_with_mirror, rotation_from_degrees
from nlml_hpe.rotation import Angles, angles_from_rotation, midpoint, mirrored, rotation_from_angles
from nlml_hpe.torch_rotation import degrees_from_rotation
from nlml_hpe.torch_rotation import rotation_from_degrees as torch_rotation


def _poses() -> np.ndarray:
    """Yaw, pitch, roll (n, 3) in degrees, yaw far past 90, some upside down; never within a tenth of a degree of
    gimbal lock, nor of 270 degrees together, where both triples of a rotation are as large."""
    rng = np.random.default_rng(0)
    columns = rng.uniform([-175, -175, -175], [175, 175, 175], (4000, 3))
    return columns[(np.abs(np.abs(columns[:, 0]) - 90) > 0.1) & (np.abs(columns).sum(axis=1) < 269.9)]


def test_numpy_roma_and_the_graph_agree_with_scipy() -> None:
    columns = _poses()
    yaw, pitch, roll = columns.T
    expected = Rotation.from_euler("XYZ", np.stack([-pitch, -yaw, -roll], axis=1), degrees=True).as_matrix()
    np.testing.assert_allclose(rotation_from_angles(Angles.from_columns(columns)), expected, atol=1e-12)
    np.testing.assert_allclose(torch_rotation(torch.from_numpy(columns)).numpy(), expected, atol=1e-12)
    degrees = argument(Tensor(np.float64, ("n", 3)))
    rotation = rotation_from_degrees(degrees)
    outputs = {"rotation": rotation, "angles": onnx_degrees(rotation), "mean": mean_with_mirror(rotation)}
    session = onnxruntime.InferenceSession(build({"degrees": degrees}, outputs).SerializeToString())
    found = dict(zip(outputs, session.run(list(outputs), {"degrees": columns[:1000]}), strict=True))
    np.testing.assert_allclose(found["rotation"], expected[:1000], atol=1e-12)
    # The errors of a rotation's entries grow by 1 / cos(yaw), here up to 600.
    np.testing.assert_allclose(degrees_from_rotation(torch.from_numpy(expected)).numpy(), columns, atol=1e-6)
    np.testing.assert_allclose(found["angles"], columns[:1000], atol=1e-6)
    np.testing.assert_allclose(angles_from_rotation(expected).columns(), columns, atol=1e-6)
    first, second = np.split(expected[:1000], 2)
    # Midpoints of rotations nearly half a turn apart are ill-conditioned.
    clear = np.trace(np.swapaxes(first, 1, 2) @ mirrored(second), axis1=1, axis2=2) > -0.9
    first, other = first[clear], mirrored(second)[clear]
    middle = np.array([Rotation.from_matrix(pair).mean().as_matrix() for pair in zip(first, other, strict=True)])
    np.testing.assert_allclose(found["mean"][clear], middle, atol=1e-9)
    np.testing.assert_allclose(midpoint(first, other), middle, atol=1e-9)


def test_training_targets_do_not_fold_where_yaw_passes_ninety_degrees() -> None:
    """Poses to 95 degrees of yaw are rendered: an image that is not turned keeps its target."""
    angles = torch.tensor([[93.0, 5.0, 3.0], [-95.0, -10.0, 4.0], [88.0, 12.0, -6.0]], dtype=torch.float64)
    features = torch.zeros(3, 1404, dtype=torch.float64)
    _, kept = turned_in_plane(features, angles, torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(kept.numpy(), angles.numpy(), atol=1e-9)
    _, turned = turned_in_plane(features, angles, torch.full((3,), 0.4, dtype=torch.float64))
    assert (turned.abs().sum(dim=1) <= 270).all()
    before, after = (rotation_from_angles(Angles.from_columns(columns.numpy())) for columns in (angles, turned))
    in_plane = rotation_from_angles(Angles.from_columns((0.0, 0.0, -np.degrees(0.4))))
    np.testing.assert_allclose(after, in_plane @ before, atol=1e-9)


@pytest.mark.parametrize("size", range(1, 8))
def test_the_graphs_inverse_is_that_of_numpy(size: int) -> None:
    """By cofactors, and of more than three rows by blocks; several at once."""
    spread = np.random.default_rng(size).normal(size=(5, size, size + 2))
    matrices = argument(Tensor(np.float64, ("n", size, size)))
    session = onnxruntime.InferenceSession(
        build({"matrices": matrices}, {"inverse": inverse(matrices, size)}).SerializeToString()
    )
    definite = spread @ np.swapaxes(spread, 1, 2)
    (found,) = session.run(None, {"matrices": definite})
    # Conditions of these are below 1e4.
    np.testing.assert_allclose(found @ definite, np.broadcast_to(np.eye(size), definite.shape), atol=1e-10)


def test_the_graph_reads_pitch_and_roll_as_one_where_they_cannot_be_told_apart() -> None:
    columns = np.array([[90.0, 25.0, 10.0], [-90.0, -40.0, 30.0]])
    rotation = rotation_from_angles(Angles.from_columns(columns))
    rotation[:, 0, :2] = rotation[:, 1:, 2] = 0.0  # exactly, where the cosine of 90 degrees is 6e-17
    rotations = argument(Tensor(np.float64, ("n", 3, 3)))
    session = onnxruntime.InferenceSession(
        build({"rotation": rotations}, {"angles": onnx_degrees(rotations)}).SerializeToString()
    )
    (found,) = session.run(None, {"rotation": rotation})
    np.testing.assert_allclose(found, angles_from_rotation(rotation).columns(), atol=1e-9)
