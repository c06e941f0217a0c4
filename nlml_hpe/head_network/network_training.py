"""How the head detector is trained: scenes that are drawn as they are needed, through the one training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlml_hpe.config import HeadTrainerConfig
from nlml_hpe.head_network.losses import Heads, head_loss
from nlml_hpe.head_network.network import HeadNetwork
from nlml_hpe.training import train
from nlml_hpe.training_run import History, Run

KIND, WEIGHTS, ONNX = "head_network", "head_network.safetensors", "heads.onnx"
_NO_HEAD = -1.0


class Picture(Protocol):
    """A scene of n heads."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(S, S, 3) RGB."""
        ...

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(n, 4) left, top, right, bottom in pixels."""
        ...

    @property
    def counts(self) -> NDArray[np.bool_]:
        """(n,) whether each is to be found, or may be."""
        ...


class Source(Protocol):
    """Where scenes come from."""

    def draw(self, rng: np.random.Generator) -> Picture:
        """The scene that these random numbers give."""
        ...


@dataclass(frozen=True)
class DrawnScenes:
    """So many scenes of a source, for the training loop; in validation always the same, those of the ``seed``."""

    source: Source
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Tensor, Heads]:
        """Images (N, 3, S, S) uint8 and their heads."""
        drawn = [
            self.source.draw(np.random.default_rng([self.seed, int(index)]) if rng is None else rng)
            for index in indices
        ]
        images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2)
        return images, heads_of(drawn)


def heads_of(drawn: list[Picture]) -> Heads:
    """The heads of several scenes, in as many places as the fullest one has."""
    most = max(1, *(len(scene.boxes) for scene in drawn))
    boxes, kinds = torch.zeros(len(drawn), most, 4), torch.full((len(drawn), most), _NO_HEAD)
    for row, scene in enumerate(drawn):
        boxes[row, : len(scene.boxes)] = torch.from_numpy(scene.boxes)
        kinds[row, : len(scene.boxes)] = torch.from_numpy(scene.counts.astype(np.float32))
    return Heads(boxes, kinds)


def initial_head_network(config: HeadTrainerConfig, seed: int) -> HeadNetwork:
    """The network before training; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HeadNetwork(config.width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_head_network(
    network: HeadNetwork, training: Source, validation: Source, config: HeadTrainerConfig, seed: int, run: Run
) -> History:
    """Train ``network`` in place and leave it with the weights of its best validation epoch.

    Parameters
    ----------
    network : HeadNetwork
        See ``initial_head_network``.
    training, validation : Source
        Scenes of people who are in one of them alone.
    config, seed, run
        As for ``training.train``.

    Raises
    ------
    TrainingError
        As ``training.train`` does.
    """
    shown = DrawnScenes(training, config.scenes_per_epoch, seed)
    held_out = DrawnScenes(validation, config.validation_scenes, seed)
    return train(network, head_loss, shown, held_out, config, seed, "heads", run=run)
