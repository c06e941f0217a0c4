"""Image network to model folder: ``python stages/ImageModelBuilder.py --config configs/image_ict.yaml``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import stages.guard  # noqa: F401

import onnx
from google.protobuf.message import DecodeError

from nlml_hpe.files.atomic import ArtifactError, write_bytes
from nlml_hpe.files.folders import fresh_folder
from nlml_hpe.files.manifests import MANIFEST, digest_of, read_manifest, require_equal, write_manifest
from nlml_hpe.image_networks.network import size_of
from nlml_hpe.image_networks.network_training import KIND as IMAGE_NETWORK
from nlml_hpe.image_networks.network_training import WEIGHTS, network_of
from nlml_hpe.inference.image_engine import open_image_engine
from nlml_hpe.model.components import IMAGE_EYE_FILE, Component, put_component, read_components, require_component
from nlml_hpe.model.folder import HeadFrame, load_weights
from nlml_hpe.model.image_card import CARD_FILE, image_card, with_landmark_eye
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from stages import ImageQuantizer
from stages.common import Plan, Stage, Workdir, stage_command
from stages.config import Config
from stages.ModelBuilder import KIND

_ANY = ((-180.0, 180.0), (-180.0, 180.0), (-180.0, 180.0))


def plan(config: Config) -> Plan:
    """What the model folder depends on."""
    work, beside = Workdir(config.workdir), config.image_model.landmark_eye
    # Of the eye alone: how the folder that it lies in is calibrated does not matter here.
    others = {} if beside is None else {f"landmark_eye {beside}": digest_of(_landmark_eye(beside, config.frame.name))}
    settings = config.sections("image_network", "image_model", "frame")
    reads = {work.image_network: IMAGE_NETWORK}
    if config.image_model.int8:
        if not (work.image_network_int8 / MANIFEST).is_file():
            raise ArtifactError(
                f"{work.image_network_int8} holds no finished network in eight bits, which image_model.int8 asks for; "
                "run ImageQuantizer with this config first"
            )
        reads[work.image_network_int8] = ImageQuantizer.KIND
    return Plan((work.image_model,), KIND, settings, reads, others)


def check(config: Config) -> None:
    """Raise what would end the stage.

    ``ArtifactError`` where the landmark eye that is to stand beside does not read, or answers in another head frame;
    ``ValueError`` for a network of which a layer, or the answer, has no translation to ONNX.
    """
    if config.image_model.landmark_eye is not None:
        _landmark_eye(config.image_model.landmark_eye, config.frame.name)
    if config.image_model.int8:  # its layers are other ones, which ImageQuantizer writes
        return
    network = network_of(config.image_network, config.seed).eval()
    with TemporaryDirectory() as folder:
        export_image_eye(ImageEye(network, config.image_network.name, HeadFrame(), _ANY), Path(folder) / IMAGE_EYE_FILE)


def _landmark_eye(folder: Path, frame: str) -> Component:
    """That of a model folder, which must answer in the head frame of this name."""
    components = read_components(folder)
    if "landmark_eye" not in components:
        raise ArtifactError(f"{folder}: this model has no landmark_eye; correct image_model.landmark_eye")
    eye = components["landmark_eye"]
    own = eye.settings.get("frame")
    name = own.get("name") if isinstance(own, dict) else None
    if name != frame:
        raise ArtifactError(
            f"{folder}: its landmark eye answers in the head frame {name!r}, and 'frame' of this configuration is "
            f"{frame!r}: the eyes of a model answer in one; correct frame or image_model.landmark_eye"
        )
    return eye


def main(config: Config) -> Path:
    """Export, write, and read back the model; returns its folder."""
    work, made = Workdir(config.workdir), plan(config)
    manifest = read_manifest(work.image_network, IMAGE_NETWORK)
    what, mend = "section 'image_network' of the configuration and of the weights", "run ImageTrainer with this config"
    require_equal(what, made.settings["image_network"], manifest["config"]["image_network"], mend)
    eye = image_eye(config, manifest["facts"])
    beside = config.image_model.landmark_eye
    with fresh_folder(work.image_model, KIND) as folder:
        export_image_eye(eye, folder / IMAGE_EYE_FILE, _in_eight_bits(config))
        put_component(folder, "image_eye", eye.settings())
        card = image_card(eye, size_of(eye.network), manifest["config"], manifest["facts"], _rounded_facts(config))
        if beside is not None:
            component = _copied(beside, folder)
            card = with_landmark_eye(card, beside, component)
        write_bytes(folder / CARD_FILE, card.encode())
        write_manifest(folder, KIND, made.settings, made.inputs)
    open_image_engine(work.image_model)
    return work.image_model


def _in_eight_bits(config: Config) -> onnx.ModelProto | None:
    """The network's outputs as ImageQuantizer left them, where the configuration wants them."""
    if not config.image_model.int8:
        return None
    path = Workdir(config.workdir).image_network_int8 / ImageQuantizer.GRAPH
    try:
        return onnx.load(path)
    except (OSError, DecodeError) as error:
        raise ArtifactError(f"{path} does not read ({error}); run ImageQuantizer with this config again") from error


def _rounded_facts(config: Config) -> dict[str, Any] | None:
    """What the training in eight bits found, where the configuration wants its network."""
    if not config.image_model.int8:
        return None
    facts: dict[str, Any] = read_manifest(Workdir(config.workdir).image_network_int8, ImageQuantizer.KIND)["facts"]
    return facts


def image_eye(config: Config, facts: dict[str, Any]) -> ImageEye:
    """The trained network, with the head frame of the configuration and the range of its training data."""
    network = network_of(config.image_network, config.seed)
    weights = Workdir(config.workdir).image_network / WEIGHTS
    load_weights(network, weights, "run ImageTrainer with this config, or correct image_network in it")
    # Networks of before the range was recorded were trained on rendered crops alone.
    limits = facts.get("range") or [[-bound, bound] for bound in config.crops.limits_deg]
    yaw, pitch, roll = ((float(low), float(high)) for low, high in limits)
    frame = HeadFrame(**config.frame.model_dump())
    return ImageEye(network.eval(), config.image_network.name, frame, (yaw, pitch, roll))


def _copied(source: Path, folder: Path) -> Component:
    """Copy the landmark eye of a model folder into another one; its files are compared with their digests."""
    component = require_component(source, "landmark_eye")
    for name in component.sha256:
        shutil.copyfile(source / name, folder / name)
    put_component(folder, "landmark_eye", component.settings)
    return component


STAGE = Stage("ImageModelBuilder", plan, main, check=check)

if __name__ == "__main__":
    sys.exit(stage_command(STAGE, "Build the model folder of the image eye."))
