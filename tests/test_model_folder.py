"""The model folder: what does not fit together is refused, with a sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nlml_hpe.detection.landmarks import IBUG68
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.model.folder import HeadPoseModel, load_model
from nlml_hpe.model.format import CONFIG_FILE, SHIPPED
from stages import ModelBuilder
from stages.common import Workdir
from stages.config import Config


@pytest.fixture(scope="module")
def model() -> HeadPoseModel:
    return load_model(SHIPPED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalization": "none"}, "unknown normalization 'none'"),
        ({"normalization": "centroid_rms"}, "made of features 'facemesh468/nose_eye_corners'"),
        ({"min_confidence": 1.5}, r"in 0\.\.1"),
        ({"min_confidence": float("nan")}, r"in 0\.\.1"),
        ({"point_set": IBUG68}, "made of features"),
    ],
)
def test_parts_that_do_not_fit_make_no_model(model: HeadPoseModel, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(model, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalization": "none"}, "unknown normalization"),
        ({"normalization": "centroid_rms"}, "made of features"),
        ({"min_confidence": -0.1}, r"in 0\.\.1"),
        ({"point_set": "points"}, "does not read"),
    ],
)
def test_a_changed_config_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    known = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**known, **changes}))
    with pytest.raises(ArtifactError, match=message):
        load_model(folder)


def test_another_normalization_needs_all_stages_again(tiny_run: Config) -> None:
    """A model of the old manifold and the new feature had its pitch off by 21 degrees, with error bars of 0.2."""
    marks = tiny_run.landmarks.model_copy(update={"normalization": "centroid_rms"})
    before = (Workdir(tiny_run.workdir).model / CONFIG_FILE).read_bytes()
    with pytest.raises(ValueError, match="run Landmarks and all stages after it with one config"):
        ModelBuilder.main(tiny_run.model_copy(update={"landmarks": marks}))
    assert (Workdir(tiny_run.workdir).model / CONFIG_FILE).read_bytes() == before


@pytest.mark.parametrize("section", ["encoder", "angle_heads"])
def test_another_network_needs_its_training_again(tiny_run: Config, section: str) -> None:
    other = getattr(tiny_run, section).model_copy(update={"hidden": (24, 12)})
    with pytest.raises(ArtifactError, match=f"correct {section}.hidden"):
        ModelBuilder.main(tiny_run.model_copy(update={section: other}))
