"""Other detectors, one protocol: MediaPipe Tasks with a real bundle, face-alignment with its real loading code."""

from __future__ import annotations

import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from nlml_hpe.cli import main
from nlml_hpe.detection.detectors import FaceAlignment, open_detector
from nlml_hpe.detection.landmarks import IBUG68, POINT_SETS, mirror_of
from nlml_hpe.detection.mediapipe_detectors import MediaPipeTasks
from nlml_hpe.detection.search import DetectorError
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.rotation import geodesic_degrees


@pytest.fixture(scope="module")
def bundle(shared_data: Path) -> Path:
    return shared_data / "face_landmarker" / "face_landmarker.task"


def test_tasks_and_facemesh_give_nearly_the_same_angles(bundle: Path, shared_data: Path) -> None:
    """Another landmark network: they differ by a degree or two, and README says so."""
    samples = [
        s for s in read_dataset("aflw2000", shared_data / "aflw2000_dev").samples if max(map(abs, s.angles)) < 30
    ]
    with (
        MediaPipeTasks(bundle=bundle) as theirs,
        HeadPoseEstimator(detector=theirs) as tasks,
        HeadPoseEstimator() as facemesh,
    ):
        pairs = [(e.predict(s.load()) for e in (tasks, facemesh)) for s in samples[:20]]
        both = [(a[0].rotation, b[0].rotation) for a, b in pairs if a and b]
    assert len(both) >= 18
    apart = geodesic_degrees(*(np.array(part) for part in zip(*both, strict=True)))
    assert np.median(apart) < 3


def test_tasks_find_several_faces_and_mirrored_ones(bundle: Path, photo: RgbImage) -> None:
    pair = np.full((260, 480, 3), 128, dtype=np.uint8)
    pair[:, :260] = photo[0:260, 100:360]
    pair[60:190, 320:450] = photo[0:260:2, 100:360:2]
    with MediaPipeTasks(max_faces=3, bundle=bundle) as detector:
        first, second = detector.detect(pair)
        assert first.points.shape == (468, 3)
        assert first.area > second.area
        found = detector.detect_in_box(pair, (320, 60, 450, 190))
        assert found is not None
        assert found.box[0] > 300


def test_a_bundle_that_is_missing_or_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="is missing; get it from https://storage"):
        MediaPipeTasks(bundle=tmp_path / "face_landmarker.task")
    (tmp_path / "other.task").write_bytes(b"another model")
    with pytest.raises(DetectorError, match="SHA-256 differs"):
        MediaPipeTasks(bundle=tmp_path / "other.task")


def test_each_detector_takes_its_own_options(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"unknown detector 'facemesh'; expected one of \['face_alignment', "):
        open_detector("facemesh")  # type: ignore[arg-type]
    with pytest.raises(DetectorError, match=r"no\.task is missing"):
        open_detector("mediapipe_tasks", bundle=tmp_path / "no.task")
    with open_detector("facemesh_onnx", max_faces=3, bundle=tmp_path / "no.task") as detector:
        assert detector.max_faces == 3


@pytest.mark.parametrize(
    "limits", [{"max_faces": 0}, {"max_faces": 1.5}, {"min_confidence": 30}, {"min_confidence": -1}]
)
def test_limits_with_which_nothing_is_found_are_refused(limits: dict[str, float]) -> None:
    """A threshold in per cent, for instance: every image was one without a face."""
    (name,) = limits
    with pytest.raises(ValueError, match=f"{name}: expected"):
        open_detector("facemesh_onnx", **limits)  # type: ignore[arg-type]
    open_detector("facemesh_onnx", np.int64(2), 1.0).close()  # type: ignore[arg-type]


def test_every_mirror_is_its_own_inverse() -> None:
    for points in POINT_SETS.values():
        mirror = mirror_of(points)
        assert (mirror[mirror] == np.arange(points.n_points)).all()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the right shapes where face-alignment looks for its own, which cannot be had here."""
    with pytest.MonkeyPatch.context() as patched:
        # Compiling its two functions takes seconds, and running them as they are, for one face, does not.
        patched.setattr(numba.config, "DISABLE_JIT", True)
        api = pytest.importorskip(
            "face_alignment.api", reason="face-alignment is not installed (pip install --no-deps)"
        )
    from face_alignment.detection.sfd import sfd_detector
    from face_alignment.detection.sfd.net_s3fd import s3fd

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(api, "load_file_from_url", lambda url: str(folder / url.rsplit("/", 1)[1]))
    torch.manual_seed(0)
    for url, state in (
        (api.models_urls["3DFAN-4"], api.FAN(4).state_dict()),
        (api.models_urls["depth"], {"state_dict": api.ResNetDepth().state_dict()}),
        (sfd_detector.models_urls["s3fd"], s3fd().state_dict()),
    ):
        # In half precision, which is read as well: 200 MB of disk in place of 400.
        halves = {name: value.half() if torch.is_tensor(value) else value for name, value in state.items()}
        torch.save(halves, folder / url.rsplit("/", 1)[1])
    return folder


def test_face_alignment_gives_68_points_in_space(weights: Path, photo: RgbImage) -> None:
    """Its real code on random weights: what they find means nothing, its form does."""
    with FaceAlignment() as detector:
        assert detector.point_set == IBUG68
        box = (180.0, 60.0, 280.0, 190.0)
        detector._network.face_detector.detect_from_image = lambda image: [np.array([*box, 0.9]), np.array([*box, 0.2])]
        (face,) = detector.detect(photo)
        assert face.points.shape == (68, 3)
        assert np.isfinite(face.points).all()
        middle = face.points[:, :2].mean(axis=0)
        assert (np.abs(middle - [230, 125]) < 150).all()


def test_the_command_line_names_a_detector_that_is_not_there(
    tmp_path: Path, photo: RgbImage, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "docs/photograph.jpg", "--detector", "mediapipe_tasks", "--bundle", str(tmp_path / "none")]
    assert main(command) == 1
    assert "is missing; get it from" in capfd.readouterr().err


def test_face_alignment_that_lacks_a_package_names_all_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had followed the advice to install it alone was given the same advice again, as torch was missing."""
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(DetectorError, match=r"pip install --no-deps face-alignment, and .* pip install .*\[train\]"):
        open_detector("face_alignment")


def test_a_detector_of_other_points_is_refused_before_it_fetches_its_weights(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FaceAlignment, "__init__", lambda *given: pytest.fail("the detector was opened"))
    assert main(["predict", "docs/photograph.jpg", "--detector", "face_alignment"]) == 1
    assert "the model needs points 'facemesh468'; the detector gives 'ibug68'" in capfd.readouterr().err
