"""Data sets in their own layouts, whole and damaged, and protocols on them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from nlml_hpe.config import Config
from nlml_hpe.detection.detectors import MediaPipeFaceMesh
from nlml_hpe.evaluation.datasets import PROTOCOLS, DatasetError, read_dataset
from nlml_hpe.evaluation.labelled import alignment, detect_all, evaluate, predictions_csv
from nlml_hpe.evaluation.metrics import constant_rotation, turned
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.rotation import Angles, geodesic_degrees, rotation_from_angles
from stages.common import Workdir
from tests.conftest import REPOSITORY


def write_pair(folder: Path, name: str, degrees: tuple[float, float, float], **changes: object) -> None:
    """An image and its label (yaw, pitch, roll) as AFLW2000-3D stores them."""
    folder.mkdir(parents=True, exist_ok=True)
    yaw, pitch, roll = np.radians(degrees)
    label = {"Pose_Para": np.array([[pitch, yaw, roll, 0, 0, 0, 1]]), "pt3d_68": np.ones((3, 68)), **changes}
    savemat(folder / f"{name}.mat", {key: value for key, value in label.items() if value is not None})
    Image.new("RGB", (60, 50)).save(folder / f"{name}.jpg")


def test_labels_become_this_projects_angles(tmp_path: Path) -> None:
    write_pair(tmp_path, "image00002", (10.0, -20.0, 5.0))
    (sample,) = read_dataset("aflw2000", tmp_path).samples
    np.testing.assert_allclose(sample.angles, (10, -20, 5), atol=1e-5)
    assert sample.load().shape == (50, 60, 3)
    assert sample.box is None  # 68 equal points enclose nothing


def test_what_cannot_be_used_is_counted_and_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "good", (0, 0, 0))
    write_pair(tmp_path, "no_pose", (0, 0, 0), Pose_Para=None)
    write_pair(tmp_path, "nan", (0, float("nan"), 0))
    write_pair(tmp_path, "no_image", (0, 0, 0))
    (tmp_path / "no_image.jpg").unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "no_label.jpg")
    Image.new("RGB", (9, 9)).save(tmp_path / "broken.jpg")
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    data = read_dataset("aflw2000", tmp_path)
    assert [sample.name for sample in data.samples] == ["good"]
    reasons = {reason.split(" (")[0]: names for reason, names in data.left_out.items()}
    assert reasons == {
        "label without Pose_Para": ["no_pose"],
        "angles not finite": ["nan"],
        "label without image": ["no_image"],
        "image without label": ["no_label"],
        "label not readable": ["broken"],
    }
    assert "left out, label without image: 1 (no_image)" in data.summary()


def test_angles_of_ten_thousand_degrees_are_outside_every_protocol(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", (12.0, 3.0, 1.0))
    write_pair(tmp_path, "b", (70.0, 3.0, 1.0))
    write_pair(tmp_path, "c", (10_000.0, 3.0, 1.0))
    angles = read_dataset("aflw2000", tmp_path).angles
    assert PROTOCOLS["aflw2000"].includes(angles).tolist() == [True, True, False]
    assert PROTOCOLS["aflw2000-nlml"].includes(angles).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("dataset", "pairs", "root", "meant"),
    [
        ("aflw2000", "AFLW2000", ".", "AFLW2000"),
        ("aflw2000", ".", "Code", "."),
        ("300w_lp", "300W_LP/AFW", "300W_LP/AFW", "300W_LP"),
        ("300w_lp", "300W_LP/AFW", ".", "300W_LP"),
    ],
)
def test_a_root_one_level_off_is_said_to_be(tmp_path: Path, dataset: str, pairs: str, root: str, meant: str) -> None:
    write_pair(tmp_path / pairs, "image00002", (0, 0, 0))
    (tmp_path / root).mkdir(exist_ok=True)
    with pytest.raises(DatasetError) as error:
        read_dataset(dataset, tmp_path / root)
    assert str(error.value).endswith(f"did you mean {tmp_path / meant}?")


def test_an_empty_or_missing_root_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"0 labelled faces\n  expected image00002\.jpg"):
        read_dataset("aflw2000", tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        read_dataset("biwi", tmp_path / "none")
    with pytest.raises(DatasetError, match="unknown data set"):
        read_dataset("faces", tmp_path)


@pytest.mark.parametrize("ends", ["\n", "\r\n", " \r\n"])
def test_biwi_rotations_are_read_with_any_line_ends(tmp_path: Path, ends: str) -> None:
    """The angles are those that HopeNet's published formulas give for the same file."""
    wanted = Angles(np.array(25.0), np.array(-10.0), np.array(7.0))
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ rotation_from_angles(wanted) @ flip
    lines = [" ".join(f"{v:.8f}" for v in row) for row in rotation] + ["", "87.1 26.5 951.2"]
    (tmp_path / "01").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "01" / "frame_00003_rgb.png")
    (tmp_path / "01" / "frame_00003_pose.txt").write_bytes(ends.join(lines).encode())
    (sample,) = read_dataset("biwi", tmp_path).samples
    np.testing.assert_allclose(sample.angles, [25, -10, 7], atol=1e-4)
    transposed = rotation.T
    roll = -np.degrees(np.arctan2(transposed[1, 0], transposed[0, 0]))
    yaw = -np.degrees(np.arctan2(-transposed[2, 0], np.hypot(transposed[2, 1], transposed[2, 2])))
    pitch = np.degrees(np.arctan2(transposed[2, 1], transposed[2, 2]))
    np.testing.assert_allclose(sample.angles, [yaw, pitch, roll], atol=1e-4)


def test_fsanet_files_hold_bgr_images_and_angles(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    images[..., 0] = 200
    np.savez(tmp_path / "BIWI_test.npz", image=images, pose=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), img_size=8)
    np.savez(tmp_path / "other.npz", data=np.zeros(3))
    data = read_dataset("fsanet", tmp_path)
    assert [sample.angles for sample in data.samples] == [(1, 2, 3), (4, 5, 6)]
    assert data.samples[0].load()[0, 0].tolist() == [0, 0, 200]
    assert list(data.left_out.values()) == [["other.npz"]]


def test_rendered_folders_carry_their_angles_in_their_names(tiny_run: Config) -> None:
    data = read_dataset("rendered", tiny_run.workdir / "renders" / "train")
    assert len(data.samples) == 5 * 36
    assert data.samples[0].angles == (-10.0, -20.0, -10.0)


def test_the_real_samples_read(shared_data: Path) -> None:
    assert len(read_dataset("aflw2000", shared_data / "aflw2000_dev").samples) == 503
    (sample,) = read_dataset("300w_lp", shared_data / "300w_lp_sample").samples
    np.testing.assert_allclose(sample.angles, (-44.01, -7.58, 3.21), atol=0.01)
    assert len(read_dataset("biwi", shared_data / "biwi_sample").samples) == 5


def test_the_file_list_is_what_other_tools_read(tmp_path: Path) -> None:
    for name in ("image00004", "image00002"):
        write_pair(tmp_path, name, (0, 0, 0))
    command = [sys.executable, "-m", "nlml_hpe.evaluation.datasets", "filelist", str(tmp_path)]
    assert subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).returncode == 0
    assert (tmp_path / "files.txt").read_text() == "image00002\nimage00004\n"
    failed = subprocess.run(
        [*command[:-1], str(tmp_path / "none")], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "no such folder" in failed.stderr


def test_a_constant_rotation_is_found_in_spite_of_stray_faces() -> None:
    rng = np.random.default_rng(0)
    seen = Angles.from_columns(rng.uniform(-40, 40, (200, 3)))
    frame = Angles(np.array(1.0), np.array(-2.5), np.array(0.5))
    true = turned(seen, frame).columns() + rng.normal(0, 1.0, (200, 3))
    true[:10] += 60
    found = constant_rotation(seen, Angles.from_columns(true))
    assert geodesic_degrees(rotation_from_angles(found), rotation_from_angles(frame)) < 0.5


@pytest.fixture
def photographs(shared_data: Path, tmp_path: Path) -> Path:
    """Eight labelled photographs; in one the label's box is beside the face."""
    source = shared_data / "aflw2000_dev"
    chosen = [s for s in read_dataset("aflw2000", source).samples if max(map(abs, s.angles)) < 30][:8]
    for sample in chosen:
        for suffix in (".jpg", ".mat"):
            shutil.copy(source / f"{sample.name}{suffix}", tmp_path)
    savemat(
        tmp_path / f"{chosen[0].name}.mat",
        {"Pose_Para": np.radians([[3.0, 4.0, 5.0]]), "pt3d_68": np.array([[1.0, 2.0], [1.0, 2.0], [0, 0]])},
    )
    return tmp_path


def test_a_stranger_is_not_taken_for_the_annotated_face(
    tiny_run: Config, photographs: Path, detector: MediaPipeFaceMesh
) -> None:
    data = read_dataset("aflw2000", photographs)
    engine = TorchEngine(load_model(Workdir(tiny_run.workdir).model))
    detections = detect_all(data, detector)
    assert detections.found.tolist() == [False] + [True] * 7
    outcome = evaluate(engine, data, detections, "aflw2000")
    report = outcome.report
    assert (report["n_total"], report["n_protocol"], report["n_detected"]) == (8, 8, 7)
    assert report["detected_by"] == {"whole": 7}
    # The miss is charged as a frontal guess: its own label is the error.
    row = report["routes"]["network"]
    for axis, label in (("yaw", 4.0), ("pitch", 3.0), ("roll", 5.0)):
        assert row["mae_all"][axis] == pytest.approx((7 * row["mae"][axis] + label) / 8, abs=1e-5)
    assert predictions_csv(data, detections, outcome).splitlines()[1].count(",") == 13
    with pytest.raises(ValueError, match="expected one of"):
        evaluate(engine, data, detections, "biwi")


def test_a_named_frame_is_one_constant_rotation(
    tiny_run: Config, photographs: Path, detector: MediaPipeFaceMesh
) -> None:
    data = read_dataset("aflw2000", photographs)
    engine = TorchEngine(load_model(Workdir(tiny_run.workdir).model))
    detections = detect_all(data, detector)
    own = evaluate(engine, data, detections, "aflw2000-nlml").report
    for row in own["routes"].values():
        assert row.pop("unaligned") == row
    assert own["unaligned"]["routes"] == own["routes"]
    turn = alignment(engine, data, detections, "aflw2000-nlml")
    frame = HeadFrame("labels", float(turn.yaw), float(turn.pitch), float(turn.roll))
    aligned = evaluate(TorchEngine(replace(engine.model, frame=frame)), data, detections, "aflw2000-nlml").report
    assert aligned["frame"] == "labels"
    assert aligned["unaligned"]["routes"] == own["routes"]
    geodesic = [report["routes"][report["default_route"]]["geodesic"]["mean"] for report in (aligned, own)]
    assert geodesic[0] < geodesic[1]


def test_the_stage_evaluates_a_data_set(tiny_run: Config, photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "stages/NLML_HPE_Test.py", "--dataset", "aflw2000", "--root", str(photographs)]
    command += ["--protocol", "aflw2000-nlml", "--model", str(Workdir(tiny_run.workdir).model), "--output", str(output)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    report = json.loads((output / "metrics.json").read_text())
    assert report["coverage"] == pytest.approx(7 / 8)
    assert set(report["routes"]) == {"network", "exact", "refined"}
    for name in ("predictions.csv", "table.txt", "mae_per_interval.png", "error_cdf.png"):
        assert (output / name).is_file()
    same = subprocess.run(
        [*command, "--align-on", str(photographs)], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )
    assert same.returncode == 1
    assert "estimated on another one" in same.stderr
