"""The calibration command on development photographs: measured, fitted, written into the model folder, drawn."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from nlml_hpe.detection.detectors import open_detector_for
from nlml_hpe.detection.places import overlap
from nlml_hpe.evaluation import calibration, calibration_run
from nlml_hpe.evaluation.calibration_fit import Labelled, fit
from nlml_hpe.evaluation.calibration_run import answered_faces, in_label_box, labelled_faces
from nlml_hpe.evaluation.calibration_run import answers as answers_of
from nlml_hpe.evaluation.datasets import Dataset, Sample, read_dataset
from nlml_hpe.evaluation.doubt import SUREST, doubt_rows, doubt_table, measure, risks
from nlml_hpe.evaluation.faces import annotated_face
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.evaluation.score_tables import answers
from nlml_hpe.files.images import RgbImage, read_image
from nlml_hpe.inference.calibration import DEFAULT_CALIBRATION
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.eyes import Eyes
from nlml_hpe.inference.fusion import Gaussians
from nlml_hpe.inference.opening import engine_of, open_eyes
from nlml_hpe.model.components import put_component, read_components
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.rotation import (
    Angles,
    angles_from_rotation,
    covariance_from_sigma,
    geodesic_degrees,
    rotation_from_angles,
    rotation_from_vector,
)
from nlml_hpe.view.doubt_plots import plot_held
from nlml_hpe.view.pictures import save_image
from tests.test_calibration import faces
from tests.test_eyes import two_eyes


@pytest.fixture(scope="module")
def few(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 development photographs in range and 60 beyond, in a folder of their own."""
    root = shared_data / "aflw2000_dev"
    data = read_dataset("aflw2000", root)
    inside = PROTOCOLS["aflw2000-nlml"].includes(data.angles)
    within = PROTOCOLS["aflw2000"].includes(data.angles)
    folder = tmp_path_factory.mktemp("photographs") / "few"
    folder.mkdir()
    for chosen in (np.flatnonzero(inside)[:60], np.flatnonzero(within & ~inside)[:60]):
        for index in chosen:
            for suffix in (".jpg", ".mat"):
                shutil.copyfile(
                    root / f"{data.samples[index].name}{suffix}", folder / f"{data.samples[index].name}{suffix}"
                )
    return folder


def test_numbers_are_fitted_written_read_back_and_drawn(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "model", tmp_path / "figures"
    two_eyes(model)
    asked = ["--dataset", "aflw2000", "--root", str(few), "--model", str(model), "--looks", "2"]
    assert calibration.main([*asked, "--fit", "--output", str(output)]) == 0
    fitted = capsys.readouterr().out
    settings = read_components(model)["calibration"].settings
    fitted_on = {"dataset": "aflw2000", "folder": "few", "faces": 120, "looks": 2}
    assert settings["fitted_on"] == {"in_range": fitted_on, "wide": fitted_on}
    # The landmark eye is near, the other one has learnt nothing: it is weighed by that.
    numbers = open_eyes(model).calibration
    assert numbers is not None
    assert numbers.in_range.image.typical_deg > 3 * numbers.in_range.landmarks.typical_deg
    rows = json.loads((output / "calibration.json").read_text())
    both = next(row for row in rows if (row["eye"], row["faces"]) == ("both", "all"))
    assert (both["n"], both["n_total"]) == (120, 120)
    for row in rows:
        if row["faces"] == "in range":
            # Fitted on these 60 faces; a face is 1.7%, and six rounds come nearer to 95% than that.
            assert min(row["held"]["0.95"].values()) > 0.9
    assert (output / "held.png").stat().st_size > 10_000
    assert (output / "risk.png").stat().st_size > 10_000
    # Measured without a fit: the same numbers, the same table.
    assert calibration.main(asked) == 0
    assert fitted.endswith(capsys.readouterr().out.partition("\n")[2])


def test_intervals_that_never_hold_are_in_the_picture(tmp_path: Path) -> None:
    """The axes began at 40%: lines below were cut off, and it made no difference where they lie."""

    def picture(least: float) -> RgbImage:
        held = {share: {"yaw": least, "pitch": 0.7, "roll": 1.0} for share in ("0.5", "0.8", "0.95")}
        rows = [{"eye": "image", "faces": "all", "n": 9, "held": held}]
        return read_image(plot_held(rows, tmp_path / "held.png"))

    def drawn(image: RgbImage) -> int:
        """Pixels of the lines' colour, matplotlib's first."""
        return int((np.abs(image.astype(int) - (31, 119, 180)).max(axis=-1) < 9).sum())

    assert drawn(picture(0.0)) > 0.95 * drawn(picture(0.5))


def test_what_cannot_be_calibrated_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert calibration.main(["--dataset", "aflw2000", "--root", str(tmp_path / "empty")]) == 1
    assert "error:" in capsys.readouterr().err


def test_the_shipped_model_is_measured_and_never_fitted_in_place(
    few: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--fit`` without ``--model`` wrote into the package's own checkpoint."""
    monkeypatch.delattr(calibration_run, "put_component")
    assert calibration.main(["--dataset", "aflw2000", "--root", str(few), "--fit"]) == 1
    assert f"copy {SHIPPED} and name the copy by --model" in capsys.readouterr().err


def test_ranges_of_too_few_faces_are_refused_before_the_first_is_answered(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_eyes(tmp_path / "model")
    monkeypatch.delattr(calibration_run, "HeadPoseEstimator")
    given = ["--dataset", "aflw2000", "--root", str(few), "--model", str(tmp_path / "model"), "--fit", "turned"]
    assert calibration.main(given) == 1
    assert "of each range; turned has 0" in capsys.readouterr().err


def test_what_is_wrong_with_folders_is_said_before_the_first_face_is_answered(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(calibration_run, "answered_faces")
    asked = ["--dataset", "aflw2000", "--root", str(few)]
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    link.symlink_to(SHIPPED)
    for options, said in (
        (["--output", str(mine)], "thesis.txt"),
        (["--output", str(few / "figures")], "lies in the data set"),
        (["--fit", "--model", str(tmp_path / "nowhere")], "--fit writes into a model folder"),
        (["--fit", "--model", str(link)], "--fit would change the shipped model itself"),
    ):
        assert calibration.main([*asked, *options]) == 1
        assert said in capsys.readouterr().err


def test_a_list_says_whose_errors_are_measured(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [sample.name for sample in read_dataset("aflw2000", few).samples[3:5]]
    (tmp_path / "list.txt").write_text("\n".join(names))
    asked: list[list[str]] = []

    def ended(_: Eyes, data: Dataset, __: int | None) -> None:
        asked.append([sample.name for sample in data.samples])
        raise ValueError("that is all")

    monkeypatch.setattr(calibration_run, "answered_faces", ended)
    given = ["--dataset", "aflw2000", "--root", str(few), "--list", str(tmp_path / "list.txt")]
    assert calibration.main(given) == 1
    assert "that is all" in capsys.readouterr().err
    assert asked == [names]


def test_what_others_write_into_the_model_meanwhile_is_not_lost(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two fits of different ranges side by side the one that ended last wrote back what it had begun with."""
    model = tmp_path / "model"
    two_eyes(model)
    other = DEFAULT_CALIBRATION.with_numbers("turned", fit(faces()).numbers("in_range"))
    meanwhile = partial(put_component, model, "calibration", {**other.settings(), "fitted_on": {"turned": "others"}})

    answered = SimpleNamespace(found=np.ones(len(faces().true), dtype=bool))
    monkeypatch.setattr(calibration_run, "answered_faces", lambda *_: (meanwhile(), answered)[1])
    monkeypatch.setattr(calibration_run, "labelled_faces", lambda *_: faces())
    monkeypatch.setattr(calibration_run, "in_label_box", lambda _: 0)
    given = ["--dataset", "aflw2000", "--root", str(few), "--model", str(model), "--fit"]
    assert calibration.main(given) == 0
    written = read_components(model)["calibration"].settings
    assert written["turned"] == other.settings()["turned"]
    assert set(written["fitted_on"]) == {"in_range", "wide", "turned"}
    settings = read_components(model)["image_eye"].settings
    meanwhile = partial(put_component, model, "image_eye", {**settings, "range": [[-9, 9]] * 3})
    assert calibration.main(given) == 1
    assert "its eyes are not those that have answered" in capsys.readouterr().err
    assert "calibration" not in read_components(model)


def test_doubt_that_tells_nothing_has_no_rank_and_no_surest() -> None:
    labelled = faces(2000)
    rng = np.random.default_rng(0)
    at_random = np.radians(rng.uniform(2.0, 6.0, (2000, 1, 1))) ** 2 * np.eye(3)
    row = measure(labelled.true, Gaussians(labelled.image.rotation, at_random))
    # 1,600 of 2,000 means of errors that spread by half their size: 0.6%.
    assert row["risk_80"] == pytest.approx(1.0, abs=0.03)
    assert row["risk_80"] == pytest.approx(row["risk"]["0.8"] / row["mae"])
    low, high = row["spearman_if_right_interval"]
    # Of errors of their own they would tell much, of these they tell nothing.
    assert abs(row["spearman"]) < 0.1 < low < row["spearman_if_right"] < high
    flat = np.tile(np.radians(4.0) ** 2 * np.eye(3), (2000, 1, 1))
    assert measure(labelled.true, Gaussians(labelled.image.rotation, flat))["spearman"] is None
    error = np.arange(10.0)
    np.testing.assert_allclose(risks(error, error), [np.arange(round(10 * share)).mean() for share in SUREST])


def test_intervals_of_figures_are_those_of_faces_drawn_anew() -> None:
    """By the standard errors of means and shares, which 400 faces have."""
    rng = np.random.default_rng(1)
    sigma = np.radians(rng.uniform(1.0, 8.0, (400, 1)))
    said = rotation_from_vector(sigma * rng.normal(size=(400, 3)))
    given = Gaussians(said, sigma[..., None] ** 2 * np.eye(3))
    true = np.tile(np.eye(3), (400, 1, 1))
    row = measure(true, given)
    apart = np.abs(angles_from_rotation(said).columns()).mean(axis=1)
    assert row["mae"] == pytest.approx(apart.mean(), rel=0.01)
    assert np.diff(row["mae_interval"])[0] == pytest.approx(2 * 1.96 * apart.std() / 20, rel=0.1)
    for axis, share in row["held"]["0.95"].items():
        low, high = row["held_interval"][axis]
        assert low <= share <= high
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share)) / 20, rel=0.2)
    low, high = row["risk_80_interval"]
    assert 0.6 < low < row["risk_80"] < high < 0.9
    assert high - low < 0.1
    # By the angle between rotations, not by the mean of angles.
    doubt = np.sqrt(3) * sigma[:, 0]
    assert row["spearman"] == pytest.approx(spearmanr(doubt, geodesic_degrees(said, true)).statistic)
    low, high = row["spearman_if_right_interval"]
    # Of n pairs a rank correlation r is known to about (1 - r ** 2) / sqrt(n), here a little better.
    assert high - low == pytest.approx(2 * 1.96 * (1 - row["spearman_if_right"] ** 2) / 20, rel=0.2)
    # The table has them, and a line for each range, which it calls by words; unanswered faces are counted with them.
    line = doubt_table([{"eye": "image", "faces": "all", **row}], 7).splitlines()[1]
    held = [" / ".join(f"{100 * share:.0f}" for share in row["held"][nominal].values()) for nominal in row["held"]]
    numbers = [row["mae"], *row["mae_interval"], row["risk_80"], *row["risk_80_interval"]]
    for text in (*held, *(f"{number:.2f}" for number in numbers)):
        assert text in line
    assert len(set(held)) == 3
    said[:3] = np.nan
    flat = Gaussians(said, np.tile(given.covariance[0], (400, 1, 1)))
    rows = doubt_rows(true, {"image": flat})
    assert [(row["faces"], row["n"], row["n_total"]) for row in rows] == [("in range", 397, 400), ("all", 397, 400)]
    assert "7 of 400 faces, which no search finds" in doubt_table(rows, 7)
    assert doubt_table(rows, 0).splitlines()[1].split()[-2:] == ["-", "-"]  # equal doubts have no order
    one = measure(true[3:4], Gaussians(said[3:4], given.covariance[3:4]))
    assert set(one["risk"].values()) == {one["mae"]}  # the surer half of one face is that face


def test_an_interval_of_no_width_holds_an_error_of_nought() -> None:
    """Of a grid of one pitch and one roll, as the evaluation's own shares have it: here it never held."""
    yaw = np.random.default_rng(0).normal(0, 2, 400)
    said = rotation_from_angles(Angles(yaw, np.zeros(400), np.zeros(400)))
    true = np.tile(np.eye(3), (400, 1, 1))
    row = measure(true, Gaussians(said, covariance_from_sigma(said, np.tile([2.0, 0.0, 0.0], (400, 1)))))
    assert row["held"]["0.95"] == {"yaw": pytest.approx(0.95, abs=0.03), "pitch": 1.0, "roll": 1.0}


def test_the_table_says_where_an_eye_has_no_answer() -> None:
    labelled = faces(200)
    nothing = Gaussians(*(np.full_like(labelled.true, np.nan) for _ in range(2)))
    rows = doubt_rows(labelled.true, {"landmarks": labelled.landmarks, "image": nothing})
    text = doubt_table(rows, 0)
    assert text.count("no answer") == 3
    assert "100 of 100" in text
    assert "; 0 of 200 faces, which no search finds" in text
    # HopeNet, which states no doubt, answers every face.
    silent = Gaussians(labelled.image.rotation, nothing.covariance)
    assert doubt_table(doubt_rows(labelled.true, {"image": silent}), 0).count("no answer with error bars") == 3


def test_looks_are_those_that_were_asked_for(few: Path) -> None:
    data = read_dataset("aflw2000", few)
    data.samples = data.samples[:6]
    with_one, with_two = (
        answered_faces(open_eyes(SHIPPED), data, looks).answers["landmarks"].covariance for looks in (1, 2)
    )
    assert not np.allclose(with_one, with_two, equal_nan=True)


def test_rendered_people_are_measured_in_the_frame_of_their_labels(photo: RgbImage, tmp_path: Path) -> None:
    """A face labelled by the landmark eye's own answer, in the frame of the heads that it was trained on."""
    eyes = open_eyes(SHIPPED)
    assert eyes.image is not None
    # The shipped image eye names its own frame.
    turn = eyes.image.named_from_own = rotation_from_angles(Angles.from_columns([(0, 3, 0)]))[0]
    engine = engine_of(eyes)
    with open_detector_for(engine.point_set, engine.min_confidence) as detector:
        face = annotated_face(detector, photo, None)
    assert face is not None
    own = eyes.by_landmarks([face]).in_own_frame(engine.named_from_own).rotation[0]
    label = "_".join(f"{float(angle):.2f}" for angle in angles_from_rotation(own))
    (tmp_path / "ID1").mkdir()
    Image.fromarray(photo).save(tmp_path / "ID1" / f"ID1_({label}).png")
    data = read_dataset("rendered", tmp_path)
    fitted = labelled_faces(eyes, data, answered_faces(eyes, data))
    # To the rounding of the name.
    assert geodesic_degrees(fitted.landmarks.rotation, fitted.true).max() < 0.02
    # The image eye is weighed by what it says beside the other one, and measured by what it says alone.
    for found, few in ((fitted.image, True), (fitted.alone, False)):
        said = eyes.image.estimate([face], few).in_own_frame(turn)
        assert geodesic_degrees(found.rotation, said.rotation).max() < 0.01
    assert geodesic_degrees(fitted.image.rotation, fitted.alone.rotation).min() > 0.1
    scored = answers(eyes, data, 3, "landmarks")
    assert geodesic_degrees(scored.answers["answer"].rotation, scored.true).max() < 0.02


def test_faces_that_no_search_finds_are_counted(photo: RgbImage, tmp_path: Path) -> None:
    """A head from behind, as it were: the image eye is shown the label's box, for there is no other one."""
    blank = np.full((64, 64, 3), 127, dtype=np.uint8)
    data = Dataset("aflw2000", tmp_path)
    data.add(Sample("face", (0.0, 0.0, 0.0), lambda: photo, (179.0, 86.0, 270.0, 175.0)))
    data.add(Sample("nothing", (0.0, 0.0, 0.0), lambda: blank, (8.0, 8.0, 56.0, 56.0)))
    data.add(Sample("no more", (0.0, 0.0, 0.0), lambda: blank, (9.0, 9.0, 55.0, 55.0)))
    data.add(Sample("unseen", (0.0, 0.0, 0.0), lambda: blank))
    data.add(Sample("beyond", (120.0, 0.0, 0.0), lambda: blank, (8.0, 8.0, 56.0, 56.0)))  # by its label, it counts not
    eyes = open_eyes(SHIPPED)
    answered = answered_faces(eyes, data)
    assert answered.found.tolist() == [True, False, False, False]
    assert in_label_box(answered) == 2
    rows = doubt_rows(answered.true, answers_of(eyes, labelled_faces(eyes, data, answered)))
    assert "; 2 of 4 faces, which no search finds, are answered in the label's box" in doubt_table(rows, 2)
    # A face that is found is shown to the image eye in the box that `predict` finds.
    engine = engine_of(eyes)
    with open_detector_for(engine.point_set, engine.min_confidence) as detector:
        face = annotated_face(detector, photo, (179.0, 86.0, 270.0, 175.0))
    assert face is not None
    expected = eyes.by_image([face]).rotation[0]
    np.testing.assert_allclose(answered.answers["image"].rotation[0], expected, atol=1e-6)
    # Of rendered people all count, whichever way they look; and of photographs at least one must.
    for name, count in (("crops", 5), ("aflw2000", 4)):
        assert len(answered_faces(eyes, replace(data, name=name)).names) == count
    with pytest.raises(ValueError, match="no label lies within 99 degrees"):
        answered_faces(eyes, replace(data, samples=data.samples[-1:]))


def test_heads_without_landmarks_are_answered_where_predict_finds_them(shared_data: Path) -> None:
    """They were answered in their labels' boxes, so that error bars of heads from behind were too small."""
    data = read_dataset("aflw2000", shared_data / "aflw2000_dev")
    data.samples = [sample for sample in data.samples if sample.name in ("image02598", "image02612")]
    answered = answered_faces(open_eyes(SHIPPED), data)
    assert answered.found_by == ("head", "box")
    assert in_label_box(answered) == 0
    with HeadPoseEstimator() as estimator:
        for sample, rotation in zip(data.samples, answered.answers["alone"].rotation, strict=True):
            image, label = sample.load(), sample.box
            assert label is not None
            face = max(estimator.detect(image), key=lambda face: overlap(face.box, label))
            alone = estimator.eyes.answer([face], eye="image").estimates.rotation[0]
            np.testing.assert_allclose(rotation, alone, atol=1e-6)


def test_where_predict_finds_heads_each_is_looked_at_as_often_as_was_asked_for(
    photo: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``--looks 5`` a face that the label did not lead to was looked at three times."""
    asked, data, blank = [], Dataset("aflw2000", Path("faces"), []), np.zeros_like(photo)
    data.add(Sample("nothing", (0.0, 0.0, 0.0), lambda: blank, (8.0, 8.0, 56.0, 56.0)))
    monkeypatch.setattr(HeadPoseEstimator, "detect", lambda _, image, looks=None: asked.append(looks) or [])
    answered_faces(open_eyes(SHIPPED), data, 5)
    assert asked == [5]


def test_nothing_is_fitted_to_answers_that_nobody_gets(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faces that no search finds have an answer in their label's box, which counts in the table alone."""
    model, root = tmp_path / "model", tmp_path / "some_grey"
    two_eyes(model)
    shutil.copytree(few, root)
    for sample in read_dataset("aflw2000", few).samples[:3]:
        save_image(np.full_like(sample.load(), 127), root / f"{sample.name}.jpg")
    assert calibration.main(["--dataset", "aflw2000", "--root", str(root), "--model", str(model), "--fit"]) == 0
    assert read_components(model)["calibration"].settings["fitted_on"]["wide"]["faces"] == 117
    assert "3 of 120 faces, which no search finds" in capsys.readouterr().out


def test_a_model_of_one_eye_is_measured_by_that_eyes_answers(tmp_path: Path) -> None:
    """Alone the image eye sees more crops of each face than beside the other one."""
    labelled = faces(20)
    alone = Gaussians(labelled.image.rotation, 2 * labelled.image.covariance)
    labelled = Labelled(labelled.true, labelled.landmarks, labelled.image, alone)
    for kind, expected in (("landmark_eye", labelled.landmarks), ("image_eye", alone)):
        folder = tmp_path / kind
        folder.mkdir()
        component = read_components(SHIPPED)[kind]
        for name in component.sha256:
            shutil.copyfile(SHIPPED / name, folder / name)
        put_component(folder, kind, component.settings)
        eyes = open_eyes(folder)
        ((eye, given),) = answers_of(eyes, labelled).items()
        assert eye == eyes.default
        assert given is expected
