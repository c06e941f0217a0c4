"""Encoder, heads and manifold to one model folder: ``python stages/ModelBuilder.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

from torch import nn

from nlml_hpe.detection.detectors import DETECTORS
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import MANIFEST, digest_of_file, read_manifest, require_equal, write_manifest
from nlml_hpe.manifold.manifold_file import read_manifold
from nlml_hpe.manifold.networks import HeadPoseNetwork, network_shape
from nlml_hpe.manifold.tensor import KIND as LANDMARKS
from nlml_hpe.model.card import model_card
from nlml_hpe.model.folder import HeadFrame, HeadPoseModel, load_model, load_weights, save_model
from nlml_hpe.model.format import ONNX_FILE
from nlml_hpe.model.onnx_export import export_onnx
from renderer.grid import KIND as RENDERS
from stages import EncoderTrainer, MLPHeadsTrainer, TD_main
from stages.common import Plan, Stage, Workdir, stage_command
from stages.config import Config

KIND = "model"


def plan(config: Config) -> Plan:
    """What the model folder depends on."""
    work = Workdir(config.workdir)
    reads = {
        work.encoder: EncoderTrainer.KIND,
        work.heads: MLPHeadsTrainer.KIND,
        work.manifold: TD_main.KIND,
        work.landmarks_train: LANDMARKS,
    }
    return Plan((work.model,), KIND, config.sections("encoder", "angle_heads", "landmarks", "frame"), reads)


def main(config: Config) -> Path:
    """Assemble, write, and read back the model; returns its folder."""
    work, made = Workdir(config.workdir), plan(config)
    manifests = {folder.name: read_manifest(folder, kind) for folder, kind in made.reads.items()}
    _require_same_settings(manifests, made.settings)
    manifold = read_manifold(work.manifold / "manifold.npz")
    network = HeadPoseNetwork(network_shape(manifold, config.encoder, config.angle_heads)).eval()
    mend = "run {} with this config, or correct {} in it"
    load_weights(network.encoder, work.encoder / "encoder.safetensors", mend.format("EncoderTrainer", "encoder.hidden"))
    heads = nn.ModuleList(network.heads)
    load_weights(heads, work.heads / "heads.safetensors", mend.format("MLPHeadsTrainer", "angle_heads.hidden"))
    marks, frame = config.landmarks, HeadFrame(**config.frame.model_dump())
    points = DETECTORS[marks.detector].point_set
    feature = points.feature_name(marks.normalization)
    require_equal("feature of configuration and manifold", feature, manifold.feature, "run Landmarks and TD_main again")
    settings = (points, marks.normalization, marks.min_confidence, frame)
    model = HeadPoseModel(network, manifold, *settings)
    with fresh_folder(work.model, KIND) as folder:
        export_onnx(model, folder / ONNX_FILE)
        save_model(folder, model)
        write_bytes(folder / "README.md", model_card(model, {**manifests, **_renders(work, manifests)}).encode())
        write_manifest(folder, KIND, made.settings, made.inputs)
    load_model(work.model)
    return work.model


def _renders(work: Workdir, manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The manifest of the images that the landmarks were found in, unless they are gone or were made anew since."""
    path = work.renders / MANIFEST
    made_from = manifests[work.landmarks_train.name]["inputs"].get(work.renders.name)
    if not path.is_file() or digest_of_file(path) != made_from:
        return {}
    return {work.renders.name: read_manifest(work.renders, RENDERS)}


def _require_same_settings(manifests: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Raise ``ArtifactError`` where a part was made with other settings than those that the model would name."""
    made_by = {"encoder": ("encoder", "EncoderTrainer"), "angle_heads": ("heads", "MLPHeadsTrainer")}
    for section, (name, stage) in {**made_by, "landmarks": ("landmarks_train", "Landmarks")}.items():
        what, made = f"section {section!r} of the configuration and of {name}", manifests[name]["config"][section]
        require_equal(what, settings[section], made, f"run {stage} and the stages behind it with this configuration")


STAGE = Stage("ModelBuilder", plan, main)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Build the model folder."))
