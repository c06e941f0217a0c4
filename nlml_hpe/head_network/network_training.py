"""How the head detector is trained: scenes that are drawn as they are needed, through the one training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlml_hpe.config import HeadTrainerConfig
from nlml_hpe.head_network.losses import Heads, head_loss
from nlml_hpe.head_network.network import HeadNetwork
from nlml_hpe.head_network.refinement import RefinementNetwork
from nlml_hpe.image_networks.backbones import to_quickest_layout
from nlml_hpe.image_networks.weights import load_own_backbone, load_state
from nlml_hpe.training import train
from nlml_hpe.training_run import History, Run

KIND, WEIGHTS, ONNX = "head_network", "head_network.safetensors", "heads.onnx"
_NO_HEAD = -1.0
_CLOSEST, _WIDEST = 0.5, 0.85
"""Side of the part of a scene that a view shows, as shares of the scene's."""
_ON_A_HEAD, _WELL_INSIDE = 0.8, 0.05
"""Share of views that are cut about a head, and how near to their border its middle may lie, in sides of the view."""
_STEM = 4
"""Layers of the backbone up to its map at a quarter of the size."""
_LEAST_SEEN, _LARGEST = 0.5, 0.78
"""Least share of a head's box in a view, and longest side of the box in sides of the view, of a head to be found."""


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
    """Views of so many scenes of a source, for the training loop; in validation always the same, those of the ``seed``.

    To draw a scene takes as long as to learn from a view of it, so in a training batch each is shown in ``views`` views
    of ``size`` pixels.
    """

    source: Source
    count: int
    seed: int
    size: int
    views: int = 1

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Tensor, Heads]:
        """Images (N, 3, S, S) uint8 and their heads."""
        shown: list[Picture] = []
        if rng is None:
            for index in indices:
                drawer = np.random.default_rng([self.seed, int(index)])
                shown.append(view_of(self.source.draw(drawer), self.size, drawer))
        while rng is not None and len(shown) < len(indices):
            scene = self.source.draw(rng)
            shown += [view_of(scene, self.size, rng) for _ in range(min(self.views, len(indices) - len(shown)))]
        images = torch.from_numpy(np.stack([view.image for view in shown])).permute(0, 3, 1, 2)
        return images, heads_of(shown)


def view_of(scene: Picture, size: int, rng: np.random.Generator) -> Picture:
    """A view of a scene: a part of it, mostly about a head, mirrored or not, in other tones.

    Parameters
    ----------
    scene : Picture
        Of S pixels on a side; it stays as it is.
    size : int
        Pixels on a side of the view, which shows between half and five sixths of the scene's side.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    Picture
        Image (size, size, 3) and the heads whose middle lies in it; of those that the cut leaves less than half of, and
        of those longer than 0.78 of the view, which another copy of an image shows smaller, nothing is asked.
    """
    side = max(2, round(rng.uniform(_CLOSEST, _WIDEST) * len(scene.image)))
    left, top = _corner(scene, side, rng)
    closer = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    part = cv2.resize(scene.image[top : top + side, left : left + side], (size, size), interpolation=closer)
    gain, lift = np.exp(rng.normal(0, 0.15)) * rng.normal(1, 0.08, size=3), rng.normal(0, 8)
    tones = np.clip(np.arange(256)[:, None] * gain + lift, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(part, tones[:, None]), dtype=np.uint8)
    boxes = (scene.boxes - np.array([left, top] * 2, dtype=np.float32)) * np.float32(size / side)
    if rng.uniform() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
        boxes = np.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], axis=1)
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    inside = ((middle > 0) & (middle < size)).all(axis=1)
    seen = (np.minimum(boxes[:, 2:], size) - np.maximum(boxes[:, :2], 0)) / sides
    counts = scene.counts & (seen.clip(0).prod(axis=1) > _LEAST_SEEN) & (sides.max(axis=1, initial=0) < _LARGEST * size)
    return _Shown(image, boxes[inside].astype(np.float32), counts[inside])


def _corner(scene: Picture, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Left and top of a view, ``side`` pixels wide in the scene."""
    room = len(scene.image) - side
    low, high = np.zeros(2), np.full(2, room)
    if len(scene.boxes) and rng.uniform() < _ON_A_HEAD:
        box = scene.boxes[rng.integers(len(scene.boxes))]
        middle = (box[:2] + box[2:]) / 2
        low, high = (np.clip(middle - share * side, 0, room) for share in (1 - _WELL_INSIDE, _WELL_INSIDE))
    left, top = (int(value) for value in rng.uniform(low, high + 1).clip(0, room))
    return left, top


def heads_of(drawn: list[Picture]) -> Heads:
    """The heads of several scenes, in as many places as the fullest one has."""
    most = max(1, *(len(scene.boxes) for scene in drawn))
    boxes, kinds = torch.zeros(len(drawn), most, 4), torch.full((len(drawn), most), _NO_HEAD)
    for row, scene in enumerate(drawn):
        boxes[row, : len(scene.boxes)] = torch.from_numpy(scene.boxes)
        kinds[row, : len(scene.boxes)] = torch.from_numpy(scene.counts.astype(np.float32))
    return Heads(boxes, kinds)


def initial_head_network(config: HeadTrainerConfig, seed: int) -> HeadNetwork:
    """The network before training: with the weights of ``config.weights``, or with random ones by the seed and, in its
    backbone, those of the image network ``config.image_network``.

    Raises ``WeightsError`` for weights that do not read or are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HeadNetwork(config.width)
    if config.weights is not None:
        load_state(network, config.weights)
    elif config.image_network is not None:
        load_own_backbone(network, config.image_network)
    to_quickest_layout(network, config.precision)
    return network


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
    shown = DrawnScenes(training, config.scenes_per_epoch, seed, config.view_px, config.views)
    held_out = DrawnScenes(validation, config.validation_scenes, seed, config.view_px)
    groups = groups_of(network, config.learning_rate * config.backbone_rate, config.image_network is not None)
    return train(network, head_loss, shown, held_out, config, seed, "heads", groups=groups, run=run)


def groups_of(network: HeadNetwork | RefinementNetwork, rate: float, begun: bool) -> list[dict[str, Any]]:
    """The optimizer's parameter groups: the backbone, with a rate of its own, and what comes after it.

    Where the backbone has ``begun`` as the image eye's its first layers stay as they are: what they have learned holds
    here, too, and a quarter of the time is saved.

    Parameters
    ----------
    network : HeadNetwork or RefinementNetwork
        Whose parameters they are; those that stay ask for no gradient any more.
    rate : float
        The backbone's.
    begun : bool
        Whether the backbone has weights of its own.

    Returns
    -------
    list of dict
        As torch's optimizers take them.
    """
    for value in network.backbone[:_STEM].parameters():
        value.requires_grad_(not begun)
    slow = [value for value in network.backbone.parameters() if value.requires_grad]
    known = {id(value) for value in network.backbone.parameters()}
    return [
        {"params": slow, "lr": rate},
        {"params": [value for value in network.parameters() if id(value) not in known]},
    ]
