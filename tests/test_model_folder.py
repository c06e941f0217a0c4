"""The model folder: what does not fit together is refused, with a sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nlml_hpe.detection.landmarks import IBUG68, POINT_SETS, PointSet, mirrored_features
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import is_current, manifest_digest, write_manifest
from nlml_hpe.inference.backends import open_engine
from nlml_hpe.inference.engines import OnnxEngine
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.components import FORMAT, IMAGE_EYE_FILE, put_component, read_components, require_component
from nlml_hpe.model.folder import HeadPoseModel, load_model, load_weights, save_model
from nlml_hpe.model.format import CONFIG_FILE, ONNX_FILE, SHIPPED
from nlml_hpe.model.onnx_export import export_onnx
from nlml_hpe.rotation import CONVENTION, Angles, geodesic_degrees, rotation_from_angles
from stages import ImageModelBuilder, ModelBuilder
from stages.common import Workdir
from stages.config import Config


@pytest.fixture(scope="module")
def model() -> HeadPoseModel:
    return load_model(SHIPPED)


VAST = {"feature_length": 1404, "row_lengths": [3, 3, 3], "encoder_hidden": [10**9, 10**9], "head_hidden": [1]}
"""A network of petabytes; one of a few gigabytes was made before it was compared with what the file holds."""


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
        ({"point_set": "points"}, "landmarks 'points' are not known"),
        ({"min_confidence": 10**400}, "does not read"),
        ({"network": {"feature_length": float("inf"), "row_lengths": [3, 3, 3]}}, "does not read"),
        ({"network": VAST}, "holds the weights of another network than its settings describe"),
    ],
)
def test_a_changed_config_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    known = json.loads((folder / CONFIG_FILE).read_text())
    (part,) = (each for each in known["components"] if each["kind"] == "landmark_eye")
    part.update(changes)
    (folder / CONFIG_FILE).write_text(json.dumps(known))
    with pytest.raises(ArtifactError, match=message):
        load_model(folder)


def test_a_calibration_that_is_fitted_changes_the_folder_as_its_manifest_says(tmp_path: Path) -> None:
    """It is ours, and no damage; an image eye that was built beside its landmark eye need not be built again."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    write_manifest(folder, ModelBuilder.KIND, {}, {})
    settings = {"workdir": tmp_path, "image_model": {"landmark_eye": folder}, "frame": {"name": "w300lp"}}
    config = Config.model_validate(settings)
    Workdir(tmp_path).image_network.mkdir()
    write_manifest(Workdir(tmp_path).image_network, ImageModelBuilder.IMAGE_NETWORK, {}, {})
    before, built = manifest_digest(folder, ModelBuilder.KIND), ImageModelBuilder.plan(config).others
    numbers = read_components(folder)["calibration"].settings
    put_component(folder, "calibration", {**numbers, "fitted_on": {"in_range": {"folder": "mine"}}})
    assert is_current(folder, ModelBuilder.KIND, {}, {})
    assert manifest_digest(folder, ModelBuilder.KIND) != before
    assert ImageModelBuilder.plan(config).others == built
    settings = read_components(folder)["landmark_eye"].settings
    put_component(folder, "landmark_eye", {**settings, "min_confidence": 0.2})
    assert ImageModelBuilder.plan(config).others != built
    (folder / CONFIG_FILE).write_text("{}")
    assert not is_current(folder, ModelBuilder.KIND, {}, {})


def test_advice_where_a_file_is_missing_holds(model: HeadPoseModel, tmp_path: Path) -> None:
    """torch was named as a way out for folders that it refuses, too: of those that were written with the ONNX file."""
    save_model(tmp_path, model)
    with pytest.raises(ArtifactError, match="use backend='torch', where a model folder was written without this one"):
        open_engine(tmp_path, "onnx")
    assert open_engine(tmp_path, "torch").frame == model.frame.name
    shutil.copy(SHIPPED / ONNX_FILE, tmp_path)
    save_model(tmp_path, model)
    (tmp_path / ONNX_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx is missing; build the model again"):
        open_engine(tmp_path, "torch")


def test_another_normalization_needs_all_stages_again(tiny_run: Config) -> None:
    """A model of the old manifold and the new feature had its pitch off by 21 degrees, with error bars of 0.2."""
    marks = tiny_run.landmarks.model_copy(update={"normalization": "centroid_rms"})
    before = (Workdir(tiny_run.workdir).model / CONFIG_FILE).read_bytes()
    with pytest.raises(ArtifactError, match="run Landmarks and the stages behind it"):
        ModelBuilder.main(tiny_run.model_copy(update={"landmarks": marks}))
    assert (Workdir(tiny_run.workdir).model / CONFIG_FILE).read_bytes() == before


@pytest.mark.parametrize("section", ["encoder", "angle_heads"])
def test_another_network_needs_its_training_again(tiny_run: Config, section: str) -> None:
    other = getattr(tiny_run, section).model_copy(update={"hidden": (24, 12)})
    with pytest.raises(ArtifactError, match=f"section '{section}' of the configuration"):
        ModelBuilder.main(tiny_run.model_copy(update={section: other}))


def test_weights_of_another_network_are_named() -> None:
    with pytest.raises(ArtifactError, match=r"(?s)does not fit.*run EncoderTrainer"):
        load_weights(nn.Linear(3, 2), SHIPPED / "model.safetensors", "run EncoderTrainer")


def test_points_of_a_detector_of_ones_own_are_answered_and_saved_where_they_are_known(
    model: HeadPoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their mirror images were those of the 68 points, and their folder could be written but never read."""
    points = PointSet("own", 468, nose_tip=1, eye_corners=(33, 263))
    manifold = dataclasses.replace(model.manifold, feature="own/nose_eye_corners")
    own = dataclasses.replace(model, point_set=points, manifold=manifold)
    label = Angles.from_columns([(20.0, -10.0, 5.0)])
    faces = manifold.synthesize(manifold.prior.mean[None], label).astype(np.float32)
    with pytest.raises(ValueError, match="which of the points 'own' mirror one another is not known"):
        mirrored_features(faces, points)
    answer = TorchEngine(own, torch.device("cpu")).own_estimates(faces, "refined")
    assert geodesic_degrees(answer.rotation, rotation_from_angles(label)).max() < 2
    unknown = r"landmarks 'own' are not known, .*POINT_SETS before a model of them is saved or read$"
    with pytest.raises(ArtifactError, match=unknown):
        save_model(tmp_path, own)
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as entered:
        entered.setitem(POINT_SETS, "own", points)
        save_model(tmp_path, own)
        assert load_model(tmp_path).point_set == points
        assert OnnxEngine(export_onnx(own, tmp_path / ONNX_FILE)).point_set == points
    for read in (load_model, lambda folder: OnnxEngine(folder / ONNX_FILE)):
        with pytest.raises(ArtifactError, match=unknown):
            read(tmp_path)


def test_folders_of_both_formats_are_read(model: HeadPoseModel, tmp_path: Path) -> None:
    """The shipped folder is of format 2; saved again it is of format 3, and its files are the same."""
    save_model(tmp_path, model)
    old, new = (read_components(folder)["landmark_eye"] for folder in (SHIPPED, tmp_path))
    assert new.settings == old.settings
    assert new.sha256 == {name: digest for name, digest in old.sha256.items() if name != ONNX_FILE}
    assert load_model(tmp_path).frame == model.frame


def test_an_image_eye_lies_beside_a_landmark_eye_or_alone(model: HeadPoseModel, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    save_model(tmp_path / "both", model)
    for name in ("both", "alone"):
        (tmp_path / name / IMAGE_EYE_FILE).write_bytes(b"a network")
        put_component(tmp_path / name, "image_eye", {"crop": 224})
        assert require_component(tmp_path / name, "image_eye").settings == {"crop": 224}
    assert load_model(tmp_path / "both").frame == model.frame
    with pytest.raises(ArtifactError, match="has no landmark_eye; it holds"):
        load_model(tmp_path / "alone")
    (tmp_path / "alone" / IMAGE_EYE_FILE).write_bytes(b"another")
    with pytest.raises(ArtifactError, match="was changed"):
        require_component(tmp_path / "alone", "image_eye")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "third_eye", "sha256": {}}, "unknown kind of component 'third_eye'"),
        ("landmark_eye", "unknown kind"),
        ({"kind": "image_eye", "sha256": 5}, "a text for every file"),
        ({"kind": "image_eye", "sha256": {IMAGE_EYE_FILE: None}}, "a text for every file"),
        ({"kind": "image_eye", "sha256": {"../../passwd": "0"}}, "unknown files"),
    ],
)
def test_components_that_are_none_are_named(tmp_path: Path, entry: object, message: str) -> None:
    config = {"format": FORMAT, "convention": CONVENTION, "components": [entry]}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=message):
        read_components(tmp_path)
