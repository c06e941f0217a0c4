"""The ONNX file against the library, over ten thousand faces."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.inference.engines import ONNX_FILE, SHIPPED, OnnxEngine
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.folder import HeadFrame, HeadPoseModel, load_model
from nlml_hpe.model.onnx_export import OPSET, export_onnx
from nlml_hpe.rotation import Angles

COUNT = 10_000
PARITY_DEG = 1e-3


@pytest.fixture(scope="module")
def model() -> HeadPoseModel:
    return load_model(SHIPPED)


@pytest.fixture(scope="module")
def faces(model: HeadPoseModel) -> np.ndarray:
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
    return (features.reshape(COUNT, FACEMESH.n_points, 3) * size + place).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("frame", [HeadFrame(), HeadFrame("turned", 2.0, -3.0, 1.0)])
@pytest.mark.parametrize("method", ["network", "refined"])
def test_the_file_gives_what_the_library_gives(
    model: HeadPoseModel, faces: np.ndarray, tmp_path: Path, frame: HeadFrame, method: str
) -> None:
    framed = dataclasses.replace(model, frame=frame)
    engine = OnnxEngine(export_onnx(framed, tmp_path / ONNX_FILE))
    expected, found = (e.estimate(faces, method) for e in (TorchEngine(framed), engine))  # type: ignore[arg-type]
    difference = np.abs(expected.angles.columns() - found.angles.columns()).max(axis=1)
    known = np.isfinite(expected.sigma)
    assert (known == np.isfinite(found.sigma)).all()
    assert known.any() == (method == "refined")
    # Two descents that end in different valleys would differ by degrees.
    assert difference.max() < PARITY_DEG
    if known.any():
        assert np.abs(expected.sigma - found.sigma)[known].max() < PARITY_DEG
        np.testing.assert_allclose(found.score, expected.score, atol=1e-4)


def test_the_batch_is_free_and_the_opset_stated(model: HeadPoseModel, faces: np.ndarray, tmp_path: Path) -> None:
    path = export_onnx(model, tmp_path / ONNX_FILE)
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [OPSET]
    engine = OnnxEngine(path)
    alone = np.concatenate([engine.estimate(face[None], "refined").angles.columns() for face in faces[:5]])
    together = engine.estimate(faces[:5], "refined").angles.columns()
    np.testing.assert_allclose(alone, together, atol=PARITY_DEG)
    assert engine.estimate(faces[:0], "refined").angles.columns().shape == (0, 3)


def test_the_same_model_gives_the_same_bytes(model: HeadPoseModel, tmp_path: Path) -> None:
    assert export_onnx(model, tmp_path / ONNX_FILE).read_bytes() == (SHIPPED / ONNX_FILE).read_bytes()


def test_points_without_a_face_are_refused() -> None:
    engine = OnnxEngine(SHIPPED / ONNX_FILE)
    for points, message in (
        (np.zeros((1, 468, 3)), "coincide"),
        (np.full((1, 468, 3), np.nan), "NaN"),
        (np.zeros((1, 68, 3)), "expected landmarks"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.estimate(points, "refined")


def test_a_model_without_a_network_is_refused(model: HeadPoseModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without a network"):
        export_onnx(dataclasses.replace(model, network=None), tmp_path / ONNX_FILE)
