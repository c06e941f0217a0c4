"""How the head detector is trained: scenes that are drawn as they are needed, through the one training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlml_hpe.config import HeadTrainerConfig
from nlml_hpe.head_network.losses import Heads, head_loss
from nlml_hpe.head_network.network import HeadNetwork
from nlml_hpe.image_networks.weights import load_state
from nlml_hpe.training import train
from nlml_hpe.training_run import History, Run

KIND, WEIGHTS, ONNX = "head_network", "head_network.safetensors", "heads.onnx"
_NO_HEAD = -1.0
_CLOSEST, _LEAST_SEEN = 0.5, 0.5
"""Least side of the part of a scene that a view shows, and least share of a head's box in it of a head to be found."""


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


class _Shown(NamedTuple):
    """A scene as the network is shown it."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    counts: NDArray[np.bool_]


@dataclass(frozen=True)
class DrawnScenes:
    """So many scenes of a source, for the training loop; in validation always the same, those of the ``seed``.

    To draw a scene takes twice as long as to learn from it, so each stands in a training batch in ``views`` views.
    """

    source: Source
    count: int
    seed: int
    views: int = 1

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Tensor, Heads]:
        """Images (N, 3, S, S) uint8 and their heads."""
        drawn: list[Picture] = []
        if rng is None:
            drawn += [self.source.draw(np.random.default_rng([self.seed, int(index)])) for index in indices]
        while rng is not None and len(drawn) < len(indices):
            scene = self.source.draw(rng)
            drawn += [scene, *(view_of(scene, rng) for _ in range(self.views - 1))][: len(indices) - len(drawn)]
        images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2)
        return images, heads_of(drawn)


def view_of(scene: Picture, rng: np.random.Generator) -> Picture:
    """Another view of a scene: a part of it, larger, mirrored or not, in other tones."""
    size = len(scene.image)
    share = rng.uniform(_CLOSEST, 1)
    side = max(2, round(share * size))
    left, top = (int(rng.integers(size - side + 1)) for _ in range(2))
    part = cv2.resize(scene.image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_LINEAR)
    gain, lift = np.exp(rng.normal(0, 0.25)) * rng.normal(1, 0.08, size=3), rng.normal(0, 15)
    tones = np.clip(np.arange(256)[:, None] * gain + lift, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(part, tones[:, None]), dtype=np.uint8)
    boxes = (scene.boxes - np.array([left, top] * 2, dtype=np.float32)) * np.float32(size / side)
    if rng.uniform() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
        boxes = np.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], axis=1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((middle > 0) & (middle < size)).all(axis=1)
    # Of a head that the cut leaves less than about half of, nothing is asked.
    seen = (np.minimum(boxes[:, 2:], size) - np.maximum(boxes[:, :2], 0)) / (boxes[:, 2:] - boxes[:, :2])
    counts = scene.counts & (seen.prod(axis=1) > _LEAST_SEEN)
    return _Shown(image, boxes[inside].astype(np.float32), counts[inside])


def heads_of(drawn: list[Picture]) -> Heads:
    """The heads of several scenes, in as many places as the fullest one has."""
    most = max(1, *(len(scene.boxes) for scene in drawn))
    boxes, kinds = torch.zeros(len(drawn), most, 4), torch.full((len(drawn), most), _NO_HEAD)
    for row, scene in enumerate(drawn):
        boxes[row, : len(scene.boxes)] = torch.from_numpy(scene.boxes)
        kinds[row, : len(scene.boxes)] = torch.from_numpy(scene.counts.astype(np.float32))
    return Heads(boxes, kinds)


def initial_head_network(config: HeadTrainerConfig, seed: int) -> HeadNetwork:
    """The network before training: with the weights of ``config.weights``, or with random ones by the seed.

    Raises ``WeightsError`` for weights that do not read or are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HeadNetwork(config.width)
    if config.weights is not None:
        load_state(network, config.weights)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


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

    Returns
    -------
    History
        Of all epochs.

    Raises
    ------
    TrainingError
        As ``training.train`` does.
    """
    shown = DrawnScenes(training, config.scenes_per_epoch, seed, config.views)
    held_out = DrawnScenes(validation, config.validation_scenes, seed)
    return train(network, head_loss, shown, held_out, config, seed, "heads", run=run)
