"""Evaluation on labelled photographs: coverage, misses charged, frames."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from nlml_hpe.detection.detectors import MediaPipeFaceMesh
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.labelled import alignment, detect_all, evaluate, predictions_csv
from nlml_hpe.evaluation.metrics import constant_rotation, turned
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.rotation import Angles, geodesic_degrees, rotation_from_angles
from stages.common import Workdir
from stages.config import Config
from tests.conftest import REPOSITORY


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
