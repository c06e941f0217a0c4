"""The one evaluation, of rendered and of photographed faces: coverage, misses charged, frames, what it writes."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import savemat

from benchmarks import limited_data
from nlml_hpe.config import FrameConfig
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.evaluation.command import alignment, answers, on_protocol, run
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.evaluate import evaluate, require_answer
from nlml_hpe.evaluation.faces import BATCH, UNREADABLE, LabelledFace, ask, is_known
from nlml_hpe.evaluation.faces import photographs as photographed
from nlml_hpe.evaluation.frames import FrameEstimate, estimate_frame
from nlml_hpe.evaluation.metrics import constant_rotation
from nlml_hpe.evaluation.options import add_arguments
from nlml_hpe.evaluation.protocols import LEAST_FACES
from nlml_hpe.evaluation.report import predictions_csv, summary_csv, table
from nlml_hpe.evaluation.subject import subject_of
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.image_networks.shards import write_shard
from nlml_hpe.inference.engines import Estimates
from nlml_hpe.inference.image_engine import open_image_engine
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.rotation import AXES, Angles, angles_from_rotation, rotation_from_angles
from stages.common import Workdir
from stages.config import Config
from tests.conftest import REPOSITORY
from tests.test_image_trainer import riddle


@pytest.fixture
def photographs(shared_data: Path, tmp_path: Path) -> Path:
    """Eight labelled photographs; in one the label's box is beside the face."""
    folder, source = tmp_path / "photographs", shared_data / "aflw2000_dev"
    folder.mkdir()
    chosen = [s for s in read_dataset("aflw2000", source).samples if max(map(abs, s.angles)) < 30][:8]
    for sample in chosen:
        for suffix in (".jpg", ".mat"):
            shutil.copy(source / f"{sample.name}{suffix}", folder)
    savemat(
        folder / f"{chosen[0].name}.mat",
        {"Pose_Para": np.radians([[3.0, 4.0, 5.0]]), "pt3d_68": np.array([[1.0, 2.0], [1.0, 2.0], [0, 0]])},
    )
    return folder


@pytest.fixture
def engine(tiny_run: Config) -> TorchEngine:
    return TorchEngine(load_model(Workdir(tiny_run.workdir).model))


def test_a_stranger_is_not_taken_for_the_annotated_face(
    engine: TorchEngine, photographs: Path, detector: FaceMeshOnnx
) -> None:
    data = read_dataset("aflw2000", photographs)
    answered = answers(subject_of(engine), data, detector)
    assert answered.found.tolist() == [False] + [True] * 7
    evaluation = on_protocol(subject_of(engine), data, answered, "aflw2000")
    report = evaluation.report
    assert (report["n_total"], report["n_protocol"], report["n_detected"], report["n_missed"]) == (8, 8, 7, 1)
    assert report["detected_by"] == {"whole": 7}
    # The miss is charged as a frontal guess: its own label is the error.
    row = report["routes"]["network"]
    assert (row["n"], row["n_total"], row["n_missed"]) == (7, 8, 1)
    for axis, label in (("yaw", 4.0), ("pitch", 3.0), ("roll", 5.0)):
        assert row["mae_all"][axis] == pytest.approx((7 * row["mae"][axis] + label) / 8, abs=1e-5)
        low, high = row["mae_interval"][axis]
        assert low < row["mae"][axis] < high
    rows = list(csv.DictReader(io.StringIO(predictions_csv(evaluation))))
    assert (rows[0]["network_yaw"], rows[0]["detected_by"], rows[0]["detected"]) == ("", "none", "0")
    assert rows[1]["detected_by"] == "whole"
    assert float(rows[1]["refined_sigma_yaw"]) > 0
    # A name says whose angle it is; the answers' head frame stands beside them.
    label = [float(rows[0][f"label_{axis}"]) for axis in AXES]
    assert label == pytest.approx([4.0, 3.0, 5.0], abs=1e-3)
    assert {row["frame"] for row in rows} == {report["frame"]}
    apart = [float(row["network_geodesic"]) for row in rows[1:]]
    assert np.mean(apart) == pytest.approx(report["routes"]["network"]["geodesic"]["mean"], abs=1e-4)
    with pytest.raises(ValueError, match="expected one of"):
        on_protocol(subject_of(engine), data, answered, "biwi")


def test_a_truncated_photograph_is_left_out_and_ends_nothing(
    engine: TorchEngine, photographs: Path, detector: FaceMeshOnnx
) -> None:
    paths = sorted(photographs.glob("*.jpg"))
    paths[2].write_bytes(paths[2].read_bytes()[:3000])
    paths[4].write_bytes(b"")
    data = read_dataset("aflw2000", photographs)
    report = on_protocol(subject_of(engine), data, answers(subject_of(engine), data, detector), "aflw2000").report
    assert data.left_out == {UNREADABLE: [paths[2].stem, paths[4].stem]}
    assert report["left_out"] == {UNREADABLE: 2}
    assert (report["n_total"], report["n_protocol"], report["n_detected"]) == (6, 6, 5)
    assert "left out: image not readable 2" in table({"aflw2000": report})


def test_a_named_frame_is_one_constant_rotation(engine: TorchEngine, photographs: Path, detector: FaceMeshOnnx) -> None:
    data = read_dataset("aflw2000", photographs)
    answered = answers(subject_of(engine), data, detector)
    own = on_protocol(subject_of(engine), data, answered, "aflw2000-nlml").report
    for row in own["routes"].values():
        assert row.pop("unaligned") == row
    assert own["unaligned"]["routes"] == own["routes"]
    known = answered.found
    turn = constant_rotation(answered.answers["refined"].rotation[known], answered.true[known])
    yaw, pitch, roll = (float(value) for value in angles_from_rotation(turn))
    named = TorchEngine(replace(engine.model, frame=HeadFrame("labels", yaw, pitch, roll)))
    np.testing.assert_allclose(named.named_from_own, turn, atol=1e-9)
    aligned = on_protocol(subject_of(named), data, answers(subject_of(named), data, detector), "aflw2000-nlml").report
    assert aligned["frame"] == "labels"
    for route, row in own["routes"].items():
        # Into the named frame and back again: exact to rounding.
        assert aligned["unaligned"]["routes"][route]["mae"] == pytest.approx(row["mae"], abs=1e-6)
    geodesic = [report["routes"][report["default_route"]]["geodesic"]["mean"] for report in (aligned, own)]
    assert geodesic[0] < geodesic[1]


IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)
BOX = (0.0, 0.0, 8.0, 8.0)


def test_a_route_may_answer_faces_without_landmarks() -> None:
    """The image eye: coverage and misses are each route's own."""
    labels = [(10.0 * n, 5.0, 0.0) for n in range(5)]
    faces = [LabelledFace(f"f{n}", label, Face(IMAGE, BOX, None, "none")) for n, label in enumerate(labels)]
    faces[3] = replace(faces[3], face=Face(None, BOX, None, "none"))

    def pixels(faces: Sequence[Face]) -> Estimates:
        """Answers what has an image, and is off by 2 degrees of pitch."""
        rotation = rotation_from_angles(Angles.from_columns(np.add(labels, (0, 2, 0))))
        rotation[[face.image is None for face in faces]] = np.nan
        return Estimates.of_angles(rotation, np.full((5, 3), 1.5))

    def nothing(faces: Sequence[Face]) -> Estimates:
        return Estimates.of_rotations(np.full((len(faces), 3, 3), np.nan))

    evaluation = evaluate(ask(faces, {"pixels": pixels, "none": nothing}), protocol="all", frame="own")
    row = evaluation.report["routes"]["pixels"]
    assert (row["n"], row["n_missed"], row["coverage"]) == (4, 1, 0.8)
    assert row["mae"]["pitch"] == pytest.approx(2)
    assert row["mae_all"]["yaw"] == pytest.approx(30 / 5)
    assert row["within_sigma"] == {"n": 4, "1.0": [1.0, 0.0, 1.0], "1.96": [1.0, 1.0, 1.0]}
    assert evaluation.report["routes"]["none"] == {"n": 0, "n_total": 5, "n_missed": 5, "coverage": 0.0}
    assert evaluation.report["n_detected"] == 0  # by the landmark detector
    shown = table({"all": evaluation.report})
    assert "4 of 5 (80.0%)" in shown
    head, silent = (next(line for line in shown.splitlines() if text in line) for text in ("median", "no answer"))
    # In its columns, so that what stands behind it does, too.
    assert silent.index("no answer") + len("no answer") == head.index("median") + len("median")
    rows = {row["route"]: row for row in csv.DictReader(io.StringIO(summary_csv({"all": evaluation.report})))}
    assert (rows["pixels"]["n_missed"], rows["pixels"]["mae_pitch"]) == ("1", "2.0000")
    assert (rows["none"]["n_missed"], rows["none"]["mae_pitch"]) == ("5", "")
    with pytest.raises(ValueError, match="no face was detected among 5"):
        require_answer(ask(faces, {"none": nothing}), "all")


def test_a_route_answers_every_face_it_is_asked_about() -> None:
    """One that left faces out had its answers laid beside other faces' labels, or stopped far from its fault."""
    faces = [LabelledFace(name, (1.0, 2.0, 3.0), Face(None, (0.0, 0.0, 8.0, 8.0))) for name in "ab"]
    with pytest.raises(ValueError, match=r"route 'short': expected an answer to each of 2 faces, .* received 1"):
        ask(faces, {"short": lambda _: Estimates.of_rotations(np.eye(3)[None])})


def test_angles_are_compared_with_the_labels_own_at_90_degrees_of_yaw() -> None:
    """Where a rotation does not tell pitch from roll, as of heads that are rendered at yaw 90."""
    labels = [(90.0, 20.0, 10.0), (-90.0, 20.0, 10.0)]
    off = np.array([[0.0, 0.0, 0.0], [0.5, 1.0, 0.0]])
    faces = [LabelledFace(str(n), label, Face(None, BOX)) for n, label in enumerate(labels)]
    rotation = rotation_from_angles(Angles.from_columns(labels + off))
    found = evaluate(ask(faces, {"any": lambda _: Estimates.of_rotations(rotation)}), protocol="all", frame="own")
    np.testing.assert_allclose(found.errors["any"].angle, off, atol=1e-9)
    assert found.report["routes"]["any"]["mae_all"] == found.report["routes"]["any"]["mae"]


def test_a_face_that_nobody_places_has_no_answer(tmp_path: Path) -> None:
    """No box in the label, and none found: the image eye is not shown the whole photograph in its place."""
    Image.new("RGB", (64, 48), (90, 120, 60)).save(tmp_path / "ID1_(10_0_0).png")
    data = read_dataset("rendered", tmp_path)
    with FaceMeshOnnx() as detector:
        answered = ask(photographed(data, detector), {"image": open_image_engine(SHIPPED).estimate})
    assert answered.found.tolist() == [False]
    assert answered.people == ("1",)
    assert not is_known(answered.answers["image"]).any()


def test_crops_of_rendered_people_have_their_numbers(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, riddle(2, seed=0, person=7))
    assert ask(photographed(read_dataset("crops", tmp_path), None), {}).people == ("7", "7")


def test_figures_after_an_alignment_are_called_so_and_come_last() -> None:
    rng = np.random.default_rng(0)
    own = rotation_from_angles(Angles.from_columns(rng.uniform(-30, 30, (80, 3))))
    turn = rotation_from_angles(Angles.from_columns((0.5, 4.0, 0.0)))
    frame = estimate_frame(own, own @ turn, "aligned on others")
    columns = angles_from_rotation(own @ turn).columns()[:BATCH].tolist()
    faces = [LabelledFace(str(n), (yaw, pitch, roll), Face(None, BOX)) for n, (yaw, pitch, roll) in enumerate(columns)]
    answered = ask(faces, {"refined": lambda faces: Estimates.of_rotations(own[: len(faces)])})
    named, report = (
        evaluate(answered, protocol="p", frame=name, own=answered.answers, aligned=frame).report
        for name in ("labels", "own")
    )
    assert report["aligned"]["frame"] == "aligned on others"
    assert report["aligned"]["n_faces"] == 80
    raw, aligned = report["routes"]["refined"], report["aligned"]["routes"]["refined"]
    assert raw["mae"]["pitch"] > 3
    assert aligned["mae"]["pitch"] == pytest.approx(0, abs=1e-6)
    assert (aligned["n"], aligned["n_total"], aligned["n_missed"]) == (BATCH, BATCH, 0)
    # What a model says that names no other frame than its own stands there once.
    for figures, shown in ((named, ["labels", "own", "aligned"]), (report, ["own", "aligned"])):
        assert [line.split()[1] for line in table({"p": figures}).splitlines() if line.startswith("p ")] == shown
        assert [row["frame"] for row in csv.DictReader(io.StringIO(summary_csv({"p": figures})))][:-1] == shown[:-1]


def test_error_bars_in_another_frame_are_those_of_its_angles() -> None:
    """An error about the camera's z axis is one of roll alone where yaw is 0, and of pitch, too, where it is 60."""
    turn, stray = (rotation_from_angles(Angles.from_columns(angles)) for angles in ((60.0, 0.0, 0.0), (0.0, 0.0, -1.0)))
    given = Estimates(np.eye(3)[None], np.diag(np.radians([0.01, 0.01, 1.05]) ** 2)[None])
    label = angles_from_rotation(stray @ turn)
    faces = [LabelledFace("a", (float(label.yaw), float(label.pitch), float(label.roll)), Face(None, BOX))]
    answered = ask(faces, {"refined": lambda _: given})
    frame = FrameEstimate("side", turn, LEAST_FACES, {})
    report = evaluate(answered, protocol="p", frame="own", own=answered.answers, aligned=frame, fitted=True).report
    row = report["aligned"]["routes"]["refined"]
    assert row["mae"]["pitch"] > 1.5
    assert row["within_sigma"]["1.0"][1:] == [1.0, 1.0]
    assert report["fitted"]["routes"]["refined"]["within_sigma"]["1.0"] == [1.0, 1.0, 1.0]


def test_a_frame_says_how_sure_it_is_and_is_refused_of_few_faces() -> None:
    rng = np.random.default_rng(0)
    columns = rng.uniform(-30, 30, (200, 3))
    own = rotation_from_angles(Angles.from_columns(columns))
    turn = rotation_from_angles(Angles.from_columns((0.0, -3.0, 1.0)))
    labels = angles_from_rotation(own @ turn).columns() + rng.normal(0, 5.0, (200, 3))
    true = rotation_from_angles(Angles.from_columns(labels))
    found = estimate_frame(own, true, 'set "A": {x}')
    for axis, value in (("yaw", 0.0), ("pitch", -3.0), ("roll", 1.0)):
        low, high = found.interval[axis]
        # Of 200 faces that scatter by 5 degrees the mean has a standard error of 0.35.
        assert 0.7 < high - low < 2.2
        assert low - 0.5 < value < high + 0.5
    section = yaml.safe_load(found.text())["frame"]
    assert FrameConfig(**section).name == 'set "A": {x}'
    assert section["pitch"] == pytest.approx(found.angles()["pitch"], abs=1e-3)
    with pytest.raises(ValueError, match=r"50 faces or more .* 49 were found"):
        estimate_frame(own[: LEAST_FACES - 1], true[: LEAST_FACES - 1], "few")


@pytest.mark.parametrize("name", ["own", "", " "])
def test_a_rotation_without_a_name_is_refused_everywhere(tiny_run: Config, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"head frame|at least 1 character"):
        FrameConfig(name=name, pitch=20.0)
    with pytest.raises(ValueError, match="head frame"):
        HeadFrame(name, 0.0, 20.0, 0.0)
    shutil.copytree(Workdir(tiny_run.workdir).model, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["components"][0]["frame"] = {"name": name, "yaw": 0.0, "pitch": 20.0, "roll": 0.0}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="head frame"):
        load_model(tmp_path / "model")


STAGE = [sys.executable, "stages/NLML_HPE_Test.py", "--dataset", "aflw2000"]


def stage(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*STAGE, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)


def test_the_stage_evaluates_a_data_set(tiny_run: Config, photographs: Path, tmp_path: Path) -> None:
    output, model = tmp_path / "out", Workdir(tiny_run.workdir).model
    options = ("--root", photographs, "--protocol", "aflw2000-nlml", "--model", model, "--output", output)
    done = stage(*options)
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "metrics.json").read_text())
    assert report["coverage"] == pytest.approx(7 / 8)
    assert set(report["routes"]) == {"network", "exact", "refined"}
    for name in ("predictions.csv", "table.txt", "metrics.csv", "mae_per_interval.png", "error_cdf.png"):
        assert (output / name).is_file()
    assert (output / "table.txt").read_text() in done.stdout
    assert json.loads((output / "manifest.json").read_text())["kind"] == "evaluation"
    # Again, into its own folder, on the faces of a list.
    names = [path.stem for path in sorted(photographs.glob("*.jpg"))]
    (tmp_path / "list.txt").write_text("\n".join(names[1:4]))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = ["--dataset", "aflw2000", *map(str, options), "--list", str(tmp_path / "list.txt")]
    assert run(parser.parse_args(given))
    assert json.loads((output / "metrics.json").read_text())["n_protocol"] == 3


def test_what_is_wrong_is_said_before_the_first_image(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No image is read: there is none that reads."""
    for path in photographs.glob("*.jpg"):
        path.write_bytes(b"no image")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    (tmp_path / "list.txt").write_text("image99999\n")
    (tmp_path / "far").mkdir()
    savemat(tmp_path / "far" / "a.mat", {"Pose_Para": np.radians([[0.0, 150.0, 0.0]])})
    Image.new("RGB", (9, 9)).save(tmp_path / "far" / "a.jpg")
    here = ("--root", photographs)
    wrong = [
        ((*here, "--protocol", "biwi"), "protocol 'biwi' is not one of aflw2000"),
        ((*here, "--protocol", "paper"), "expected one of"),
        ((*here, "--output", tmp_path / "thesis"), "is not replaced"),
        ((*here, "--output", photographs / "out"), "lies in the data set"),
        ((*here, "--output", "/proc/nowhere/out"), "/proc/nowhere"),
        ((*here, "--list", tmp_path / "list.txt"), "no labelled faces of aflw2000"),
        ((*here, "--align-on", photographs), "estimated on another one"),
        ((*here, "--align-on", photographs.parent), "estimated on another one"),
        ((*here, "--align-on", tmp_path / "far"), "0 faces in the paper's range"),
        ((*here, "--model", tmp_path), "is missing"),
        (("--root", tmp_path / "far"), "none of 1 labels lies in its range"),
    ]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for options, message in wrong:
        place = () if "--output" in options else ("--output", tmp_path / "out")
        with pytest.raises((ValueError, ArtifactError, OSError), match=message):
            run(parser.parse_args(["--dataset", "aflw2000", *map(str, (*options, *place))]))
    assert not run(parser.parse_args([]))
    assert "Evaluate" not in capsys.readouterr().err, "images were read"
    alone = [(["--dataset", "aflw2000"], "--dataset needs --root")]
    alone += [([name, "5"], f"{name} needs --dataset") for name in ("--root", "--list", "--looks")]
    for asked, message in alone:
        with pytest.raises(SystemExit) as left:
            run(parser.parse_args(asked))
        assert (left.value.code, message in capsys.readouterr().err) == (2, True)
    assert (tmp_path / "thesis" / "thesis.txt").read_text() == "mine"
    whole = ["--dataset", "aflw2000", "--root", str(photographs), "--output", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=r"none of its faces has an image that reads(.|\n)*not readable: \d+ \("):
        run(parser.parse_args(whole))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "saying"),
    [
        (["stages/NLML_HPE_Test.py", "--output", "out"], b"nothing was written to"),
        (["stages/CompareModels.py", "--output", "out"], b"nothing was written to"),
        (["-m", "nlml_hpe.evaluation.calibration", "--output", "out"], b"stopped by Ctrl-C"),
        (["-m", "nlml_hpe.evaluation.scores"], b"stopped by Ctrl-C"),
    ],
)
def test_ctrl_c_leaves_nothing_behind_and_says_so(
    command: list[str], saying: bytes, shared_data: Path, tmp_path: Path
) -> None:
    places = [str(tmp_path / part) if part == "out" else part for part in command]
    data = ["--dataset", "aflw2000", "--root", str(shared_data / "aflw2000_dev")]
    whole = [sys.executable, *places, *data]
    process = subprocess.Popen(whole, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    seen = b""
    while b"face/s" not in seen:
        part = os.read(process.stderr.fileno(), 1000)
        assert part, seen
        seen += part
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert saying in rest
    assert b"Traceback" not in rest
    assert list(tmp_path.glob("out*")) == []


def test_the_frame_of_another_set_is_estimated_and_named(
    engine: TorchEngine, shared_data: Path, tmp_path: Path, detector: FaceMeshOnnx
) -> None:
    source = shared_data / "aflw2000_dev"
    chosen = [s.name for s in read_dataset("aflw2000", source).samples if max(map(abs, s.angles)) < 25][:60]
    for name in chosen:
        for suffix in (".jpg", ".mat"):
            shutil.copy(source / f"{name}{suffix}", tmp_path)
    found = alignment(subject_of(engine), read_dataset("aflw2000", tmp_path), detector)
    assert found.name == f"aligned on {tmp_path.name}"
    assert found.faces >= LEAST_FACES
    for low, high in found.interval.values():
        assert 0 < high - low < 10


def test_the_study_of_few_people_needs_as_many_as_it_names(tiny_run: Config) -> None:
    """Without a row to write, it wrote an empty table in place of the results."""
    with pytest.raises(SystemExit, match="fewer than 1000; name fewer by --people"):
        limited_data.main(tiny_run, Path("nowhere"), (1000,))


def test_photographs_are_evaluated_without_what_only_training_needs() -> None:
    """tensorly, pydantic and yaml were imported for annotations, and were missing where only torch is installed."""
    program = (
        "import sys; import nlml_hpe.evaluation.command; "
        "print({'tensorly', 'pydantic', 'yaml', 'sklearn', 'scipy.io'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
