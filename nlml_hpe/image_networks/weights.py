"""Files of weights to begin a training with: read safely, compared by name and shape, refused where they do not fit."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nlml_hpe.image_networks.network import WeightsError
from nlml_hpe.training_state import NOT_READ

MAX_WEIGHTS_BYTES = 1024**3
_MOST_NAMED = 4
_BACKBONE = "backbone."
_HEADS = ("fc.", "classifier.", "fc_")
"""What published networks have besides their backbones: layers that name one of a thousand things, and HopeNet's."""
_MOBILENET = re.compile(r"features\.(\d+)\.(?:conv\.)?(\d+)\.(?:(\d+)\.)?(\w+)")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU. No code in the file is run.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or a state dict that ``torch.save`` wrote, as most published weights are.

    Returns
    -------
    dict of str to Tensor
        In the order of the file.

    Raises
    ------
    WeightsError
        Where the file is missing, very large, or no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        if _unpacked_bytes(path) > MAX_WEIGHTS_BYTES:
            raise WeightsError(
                f"{path}: larger than {MAX_WEIGHTS_BYTES} bytes; these are no weights of an image network"
            )
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except (SafetensorError, zipfile.BadZipFile, *NOT_READ) as error:
        # What torch says of a file that it refuses advises to run the file's code.
        reason = "" if "weights_only" in str(error) else f" ({str(error).partition(chr(10))[0]})"
        raise WeightsError(f"{path}: not a state dict that can be read safely{reason}") from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: expected a state dict, names to tensors; received {_described(state)}")
    return state


def _described(content: object) -> str:
    """What is in a file in place of a state dict; of a checkpoint, which may hold one, its first names."""
    if not isinstance(content, dict):
        return type(content).__name__
    parts = [f"{name!r} ({type(value).__name__})" for name, value in content.items()]
    return f"a dict of {', '.join(parts[:_MOST_NAMED])}{', ...' if len(parts) > _MOST_NAMED else ''}"


def _unpacked_bytes(path: Path) -> int:
    """How large a file is, and what it unpacks to: torch's are zip archives, whose members it would inflate, too."""
    packed = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return packed
    with zipfile.ZipFile(path) as archive:
        return max(packed, sum(member.file_size for member in archive.infolist()))


def load_state(network: nn.Module, path: Path) -> None:
    """Load the weights of a whole network in place: HopeNet's as published, or those that ImageTrainer wrote.

    Raises ``WeightsError`` as ``read_state`` does, and for weights of another network, with names and shapes.
    """
    _fit(network, read_state(path), str(path))


def load_backbone(network: nn.Module, path: Path) -> None:
    """Load the weights of a network's backbone in place; heads keep theirs.

    Parameters
    ----------
    network : nn.Module
        With a ``backbone``, or a ResNet-50 with heads of its own (``HopeNet``).
    path : Path
        ResNet-50's in torchvision's or timm's names, MobileNetV2's in torchvision's, or any in those of
        ``backbones``; or a whole image network, as ImageTrainer or HopeNet's authors wrote it, of any crop size. What
        is no backbone there is left out.

    Raises
    ------
    WeightsError
        As ``load_state`` does, and for a network without a backbone of that kind.
    """
    read = read_state(path)
    state = {name.removeprefix(_BACKBONE): value for name, value in read.items() if name.startswith(_BACKBONE)}
    if not state:
        state = {_own_name(name): value for name, value in read.items() if not name.startswith(_HEADS)}
    backbone = getattr(network, "backbone", None)
    if backbone is not None:
        _fit(backbone, state, str(path))
        return
    heads = {name: value for name, value in network.state_dict().items() if name.startswith("fc_")}
    if not heads:
        raise WeightsError(f"{path}: {type(network).__name__} has no backbone; name a network that has one")
    _fit(network, {**heads, **state}, str(path))


def _own_name(name: str) -> str:
    """A name of torchvision's MobileNetV2 as ``backbones`` has it; any other as it is."""
    match = _MOBILENET.fullmatch(name)
    if match is None:
        return name
    block, first, second, kind = int(match[1]), int(match[2]), match[3], match[4]
    if block in (0, 18):
        # Convolution, normalisation, ReLU6: three places for one block of theirs.
        return f"{first + (0 if block == 0 else 20)}.{kind}"
    # Each convolution of a block but the last is a group of three with its normalisation and a ReLU6.
    groups = 1 if block == 1 else 2
    place = 3 * first + int(second) if second is not None else 3 * groups + first - groups
    return f"{block + 2}.layers.{place}.{kind}"


def _fit(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Load ``weights`` into a network; raises ``WeightsError`` unless they are its own by name and shape.

    Counters of batches, which files of old versions of torch lack, may be missing.
    """
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    missing = sorted(key for key in own.keys() - given.keys() if not key.endswith("num_batches_tracked"))
    foreign = sorted(given.keys() - own.keys())
    other = sorted(key for key in own.keys() & given.keys() if own[key] != given[key])
    problems = [f"without {key} {own[key]}" for key in missing[:_MOST_NAMED]]
    problems += [f"with the unknown {key} {given[key]}" for key in foreign[:_MOST_NAMED]]
    problems += [f"{key} is {given[key]}, expected {own[key]}" for key in other[:_MOST_NAMED]]
    if problems:
        count = len(missing) + len(foreign) + len(other)
        raise WeightsError(f"{name}: weights of another network, {count} differences: {'; '.join(problems)}")
    network.load_state_dict(weights, strict=False)
