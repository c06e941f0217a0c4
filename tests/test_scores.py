"""The tables of the model card: scores are those of the answers that users get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nlml_hpe.detection.detectors import open_detector
from nlml_hpe.evaluation import score_tables
from nlml_hpe.evaluation.datasets import read_dataset
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
