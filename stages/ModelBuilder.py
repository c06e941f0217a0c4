"""Encoder, heads and manifold to one model folder: ``python stages/ModelBuilder.py --config configs/demo.yaml``."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from nlml_hpe.detection.detectors import DETECTORS
from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import manifest_digest, read_manifest, write_manifest
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.network_training import network_shape
from nlml_hpe.manifold.networks import HeadPoseNetwork
from nlml_hpe.manifold.tensor import KIND as LANDMARKS
from nlml_hpe.model.card import model_card
from nlml_hpe.model.folder import HeadFrame, HeadPoseModel, load_model, save_model
from nlml_hpe.model.format import ONNX_FILE
from nlml_hpe.model.onnx_export import export_onnx
from stages import EncoderTrainer, MLPHeadsTrainer, TD_main
from stages.common import Plan, Stage, Workdir, stage_command
from stages.config import Config

KIND = "model"
MADE_OF = ("encoder", "heads", "manifold", "landmarks_train")


def plan(config: Config) -> Plan:
    """What the model folder depends on."""
    work = Workdir(config.workdir)
    inputs = {name: manifest_digest(work.root / name) for name in MADE_OF}
    return Plan((work.model,), KIND, config.sections("encoder", "angle_heads", "landmarks", "frame"), inputs)


def main(config: Config) -> Path:
    """Assemble, write, and read back the model; returns its folder."""
    work, made = Workdir(config.workdir), plan(config)
    manifold = PoseManifold.load(work.manifold / "manifold.npz")
    network = HeadPoseNetwork(network_shape(manifold, config.encoder, config.angle_heads)).eval()
    network.encoder.load_state_dict(load_file(work.encoder / "encoder.safetensors"))
    nn.ModuleList(network.heads).load_state_dict(load_file(work.heads / "heads.safetensors"))
    marks, frame = config.landmarks, HeadFrame(**config.frame.model_dump())
    settings = (DETECTORS[marks.detector].point_set, marks.normalization, marks.min_confidence, frame)
    model = HeadPoseModel(network, manifold, *settings)
    kinds = dict(zip(MADE_OF, (EncoderTrainer.KIND, MLPHeadsTrainer.KIND, TD_main.KIND, LANDMARKS), strict=True))
    manifests = {name: read_manifest(work.root / name, kind) for name, kind in kinds.items()}
    with fresh_folder(work.model, KIND) as folder:
        export_onnx(model, folder / ONNX_FILE)
        save_model(folder, model)
        write_bytes(folder / "README.md", model_card(model, manifests, config.heads.source, config.seed).encode())
        write_manifest(folder, KIND, made.settings, made.inputs)
    load_model(work.model)
    return work.model


STAGE = Stage("ModelBuilder", plan, main)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Build the model folder."))
