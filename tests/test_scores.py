"""The tables of the model card: scores are those of the answers that users get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nlml_hpe.detection.detectors import open_detector
from nlml_hpe.evaluation import score_tables
from nlml_hpe.evaluation.datasets import Sample, read_dataset
from nlml_hpe.evaluation.faces import photographs
from nlml_hpe.inference.opening import open_eyes
from nlml_hpe.model.format import SHIPPED


def test_scores_are_of_what_users_are_answered(
    landmark_eye_alone: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_dataset("aflw2000", shared_data / "aflw2000_dev")
    data.samples = data.samples[:12]
    eyes = open_eyes(SHIPPED)
    given = score_tables.answers(eyes, data, 5).answers["answer"]
    assert eyes.landmarks is not None
    with open_detector("facemesh_onnx", 16, eyes.landmarks.min_confidence) as detector:
        faces = [labelled.face for labelled in photographs(data, detector, looks=5)]
    np.testing.assert_allclose(given.score, eyes.answer(faces).estimates.score, atol=1e-6)
    alone = score_tables.answers(eyes, data, 5, "landmarks").answers["answer"]
    assert np.nanmax(np.abs(alone.score - given.score)) > 0.01
    with pytest.raises(ValueError, match="this model has"):
        score_tables.print_tables(data, open_eyes(landmark_eye_alone), [1], "image")


def test_a_protocol_without_a_face_or_an_answer_costs_the_other_nothing(
    landmark_eye_alone: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = read_dataset("aflw2000", shared_data / "aflw2000_dev")
    largest = np.abs(whole.angles.columns()).max(axis=1)
    data = replace(
        whole, samples=[whole.samples[index] for index in np.flatnonzero((largest > 52) & (largest < 60))[:2]]
    )
    eyes = open_eyes(landmark_eye_alone)
    score_tables.print_tables(data, eyes, [1])
    printed = capsys.readouterr().out
    assert printed.startswith("aflw2000-nlml: none of 2 labels lies in its range")
    assert "| aflw2000 | 1 | 2 of 2 |" in printed
    assert "| aflw2000-nlml |" not in printed
    nobody = Sample("blank", (0.0, 0.0, 0.0), lambda: np.zeros((64, 64, 3), dtype=np.uint8))
    score_tables.print_tables(replace(data, samples=[nobody, *data.samples]), eyes, [1])
    printed = capsys.readouterr().out
    assert "| aflw2000-nlml | 1 | 0 of 1 | no answer | - | - | - |" in printed
    assert "| aflw2000 | 1 | 2 of 3 |" in printed
    around = replace(nobody, angles=(150.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="aflw2000: none of 1 labels"):
        score_tables.print_tables(replace(data, samples=[around]), eyes, [1])
