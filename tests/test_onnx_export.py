"""The ONNX file against the library, over ten thousand faces."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nlml_hpe.detection.landmarks import FACEMESH, mirrored_features, normalize_landmarks
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.inference.engines import Estimates, OnnxEngine, Route
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.folder import HeadFrame, HeadPoseModel, load_model
from nlml_hpe.model.format import ONNX_FILE, SHIPPED
from nlml_hpe.model.onnx_export import OPSET, export_onnx
from nlml_hpe.model.onnx_file import said_of, saying
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import Angles, angles_from_rotation, geodesic_degrees

COUNT = 10_000
PARITY_DEG = 1e-3


@pytest.fixture(scope="module")
def model() -> HeadPoseModel:
    return load_model(SHIPPED)


@pytest.fixture(scope="module")
def faces(model: HeadPoseModel) -> list[Face]:
    """Landmarks (n, 468, 3) px drawn from the manifold, beyond its range, with its noise; anywhere and of any size."""
    rng = np.random.default_rng(0)
    manifold, noise = model.manifold, model.manifold.noise
    assert noise is not None
    ends = np.array([[axis[0] - 12, axis[-1] + 12] for axis in manifold.grid.axes])
    angles = Angles.from_columns(rng.uniform(ends[:, 0], ends[:, 1], size=(COUNT, 3)))
    people = rng.multivariate_normal(manifold.prior.mean, manifold.prior.covariance, size=COUNT)
    features = manifold.synthesize(people, angles)
    features += rng.multivariate_normal(np.zeros(len(noise.covariance)), noise.covariance, COUNT) @ manifold.basis
    size, place = rng.uniform(10, 400, (COUNT, 1, 1)), rng.uniform(0, 2000, (COUNT, 1, 3))
    points = (features.reshape(COUNT, FACEMESH.n_points, 3) * size + place).astype(np.float32)
    return [Face.from_points(marks) for marks in points]


@pytest.mark.parametrize(("frame", "count"), [(HeadFrame(), COUNT), (HeadFrame("turned", 2.0, -3.0, 1.0), 1_000)])
@pytest.mark.parametrize("route", ["network", "refined"])
def test_the_file_gives_what_the_library_gives(
    model: HeadPoseModel, faces: list[Face], tmp_path: Path, frame: HeadFrame, count: int, route: Route
) -> None:
    framed = dataclasses.replace(model, frame=frame)
    engine = OnnxEngine(export_onnx(framed, tmp_path / ONNX_FILE))
    # A hundred at a time: larger batches do not fit into a processor's cache, and take twice as long.
    parts = [engine.estimate(faces[start : start + 100], route) for start in range(0, count, 100)]
    found = Estimates(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("rotation", "covariance")))
    expected = TorchEngine(framed).estimate(faces[:count], route)
    difference = geodesic_degrees(expected.rotation, found.rotation)
    known = np.isfinite(expected.sigma)
    assert (known == np.isfinite(found.sigma)).all()
    assert known.any() == (route == "refined")
    # Two descents that end in different valleys would differ by degrees.
    assert difference.max() < PARITY_DEG
    if known.any():
        assert np.abs(expected.sigma - found.sigma)[known].max() < PARITY_DEG
        np.testing.assert_allclose(found.score, expected.score, atol=1e-4)


def test_the_score_in_the_file_is_how_near_a_face_lies_to_the_manifold(model: HeadPoseModel, faces: list[Face]) -> None:
    """Not ``HeadPose.score``: the mean of ``Inference.score`` of the face and its mirror image."""
    points = np.stack([face.landmarks for face in faces[:40]])
    session = onnxruntime.InferenceSession(SHIPPED / ONNX_FILE)
    (score,) = session.run(["score"], {"landmarks": points.astype(np.float32), "refine": np.array(True)})
    features = normalize_landmarks(points, model.point_set, model.normalization)
    sides = [features, mirrored_features(features, model.point_set)]
    expected = np.mean([model.manifold.infer(side).score for side in sides], axis=0)
    known = np.isfinite(score)
    assert known.sum() > 20
    np.testing.assert_allclose(score[known], expected[known], atol=1e-3)


def test_a_grid_of_one_pitch_and_one_roll_has_a_file(model: HeadPoseModel, tmp_path: Path) -> None:
    """Yaw alone is found; the other two stay where the network says."""
    whole = model.manifold
    assert whole.noise is not None
    constant = (np.array([(0.0, 1.0, 0.0, value) for value in whole.axis_rows(axis, 0.0)]) for axis in (1, 2))
    flat = dataclasses.replace(
        whole,
        grid=PoseGrid(whole.grid.yaw, (0.0,), (0.0,)),
        cosines=(whole.cosines[0], *constant),
        noise=dataclasses.replace(whole.noise, sigma_scale=whole.noise.sigma_scale * (1, 0, 0)),
    )
    turning = dataclasses.replace(model, manifold=flat)
    engine = OnnxEngine(export_onnx(turning, tmp_path / ONNX_FILE))
    assert engine.range[1:] == ((0.0, 0.0), (0.0, 0.0))
    yaws = np.linspace(-45, 45, 19)
    angles = Angles.from_columns(np.stack([yaws, np.zeros(19), np.zeros(19)], axis=1))
    points = flat.synthesize(np.tile(flat.prior.mean, (19, 1)), angles).reshape(19, FACEMESH.n_points, 3)
    shown = [Face.from_points(marks) for marks in 100 * points]
    expected, found = (each.estimate(shown, "refined") for each in (TorchEngine(turning), engine))
    assert geodesic_degrees(expected.rotation, found.rotation).max() < PARITY_DEG
    np.testing.assert_allclose(found.sigma, expected.sigma, atol=PARITY_DEG)
    assert np.abs(angles_from_rotation(found.in_own_frame(engine.named_from_own).rotation).yaw - yaws).max() < 0.5


def test_the_batch_is_free_and_the_opset_stated(model: HeadPoseModel, faces: list[Face], tmp_path: Path) -> None:
    path = export_onnx(model, tmp_path / ONNX_FILE)
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [OPSET]
    engine = OnnxEngine(path)
    alone = np.concatenate([engine.estimate([face], "refined").rotation for face in faces[:5]])
    together = engine.estimate(faces[:5], "refined").rotation
    assert geodesic_degrees(alone, together).max() < PARITY_DEG
    assert engine.estimate([], "refined").rotation.shape == (0, 3, 3)


def test_the_shipped_file_is_that_of_the_shipped_model(model: HeadPoseModel, tmp_path: Path) -> None:
    """The same graph, name by name, and the same numbers; not the same bytes.

    Some constants (whitening, the prior's precision) come out of LAPACK, and its kernels differ in the last bits from
    one processor to the next.
    """
    ours, theirs = (onnx.load(path) for path in (export_onnx(model, tmp_path / ONNX_FILE), SHIPPED / ONNX_FILE))
    assert {entry.key: entry.value for entry in ours.metadata_props} == {
        entry.key: entry.value for entry in theirs.metadata_props
    }
    first, second = _constants(ours), _constants(theirs)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        # Whitening is the inverse of a matrix whose condition is below 1e4: 1e-16 grows to 1e-12 at most.
        np.testing.assert_allclose(array, second[name], rtol=0, atol=1e-9 * max(1.0, float(np.abs(array).max())))
    assert ours == theirs  # all that is left without the constants


def _constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every tensor of a model's graphs by its place, taken out of them."""
    taken: dict[str, np.ndarray] = {}

    def visit(graph: onnx.GraphProto, place: str) -> None:
        for node in graph.node:
            for attribute in node.attribute:
                inside = f"{place}/{node.name or node.output[0]}.{attribute.name}"
                if attribute.type == onnx.AttributeProto.TENSOR:
                    taken[inside] = onnx.numpy_helper.to_array(attribute.t)
                    attribute.ClearField("t")
                elif attribute.type == onnx.AttributeProto.GRAPH:
                    visit(attribute.g, inside)
        for tensor in graph.initializer:
            taken[f"{place}/{tensor.name}"] = onnx.numpy_helper.to_array(tensor)
            tensor.ClearField("raw_data")

    visit(proto.graph, "")
    return taken


def test_points_without_a_face_are_refused() -> None:
    engine = OnnxEngine(SHIPPED / ONNX_FILE)
    for points, message in (
        (np.zeros((1, 468, 3)), "coincide"),
        (np.full((1, 468, 3), np.nan), "NaN"),
        (np.zeros((1, 68, 3)), "expected landmarks"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.estimate([Face.from_points(marks) for marks in points], "refined")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("min_confidence", value) for value in ("0.3", -0.1, 30, float("nan"))),
        pytest.param("min_confidence", 10**400, id="min_confidence-huge"),
        ("range", [[-(10**400), 50], [-40, 40], [-30, 30]]),
        ("frame", None),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused(tmp_path: Path, name: str, value: object) -> None:
    """With a threshold that is not a number no face was ever found, and nothing was said."""
    proto = onnx.load(SHIPPED / ONNX_FILE)
    onnx.save(saying(proto, {**said_of(proto), name: value}), tmp_path / "odd.onnx")
    with pytest.raises(ArtifactError, match=rf"odd\.onnx: .*{name}"):
        OnnxEngine(tmp_path / "odd.onnx")


def test_a_model_without_a_network_is_refused(model: HeadPoseModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without a network"):
        export_onnx(dataclasses.replace(model, network=None), tmp_path / ONNX_FILE)
