"""HopeNet (Ruiz et al. 2018): ResNet-50, and for each angle 66 bins whose expected value is the answer."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.backbones import ResNet50
from nlml_hpe.image_networks.binned import BinnedNetwork
from nlml_hpe.image_networks.losses import BINS
from nlml_hpe.image_networks.network import WeightsError

MAX_WEIGHTS_BYTES = 1024**3
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MOST_NAMED = 4


class HopeNet(BinnedNetwork):
    """Crops to the bins of three angles.

    Its weights have the names that its authors publish: ``conv1``, ``bn1``, ``layer1`` to ``layer4``,
    ``fc_yaw``, ``fc_pitch``, ``fc_roll``, and ``fc_finetune``, which is read and not used, as in theirs.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int = 224, alpha: float = 1.0, width: int = 64) -> None:
        super().__init__(alpha)
        self.size = size
        body = ResNet50(width)
        for name, layer in body.named_children():
            self.add_module(name, layer)
        self.fc_yaw = nn.Linear(body.channels, BINS)
        self.fc_pitch = nn.Linear(body.channels, BINS)
        self.fc_roll = nn.Linear(body.channels, BINS)
        self.fc_finetune = nn.Linear(body.channels + 3, 3)
        self.fc_finetune.requires_grad_(False)
        self.register_buffer("mean", 255 * torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(_DEVIATION)[:, None, None], persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (N, 3, 66) of yaw, pitch and roll."""
        # The layers are this network's own children, so that their names carry no prefix.
        maps = ResNet50.forward(self, (crops - self.mean) / self.deviation)  # type: ignore[arg-type]
        features = maps.mean(dim=(2, 3))
        heads = (self.fc_yaw, self.fc_pitch, self.fc_roll)
        return torch.stack([head(features).float() for head in heads], dim=1)


def read_hopenet(path: Path, size: int = 224, alpha: float = 1.0) -> HopeNet:
    """HopeNet with the weights in a file as its authors publish them, ``hopenet_robust_alpha1.pkl`` for one.

    Parameters
    ----------
    path : Path
        A state dict that ``torch.save`` wrote. Only tensors are read: no code in the file is run.
    size, alpha
        See ``HopeNet``.

    Raises
    ------
    WeightsError
        Where the file is missing, is no state dict, or is that of another network, with names and shapes.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise WeightsError(f"{path}: larger than {MAX_WEIGHTS_BYTES} bytes; these are no weights of HopeNet")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path}: not a state dict that can be read safely ({reason})") from error
    network = HopeNet(size, alpha)
    require_fit(network, weights, str(path))
    network.load_state_dict(weights, strict=False)
    return network.eval()


def require_fit(network: nn.Module, weights: object, name: str) -> None:
    """Raise ``WeightsError`` unless ``weights`` are this network's, by name and shape.

    Counters of batches, which files of old versions of torch lack, may be missing.
    """
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(f"{name}: expected a state dict, names to tensors; received {type(weights).__name__}")
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
