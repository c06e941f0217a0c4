"""How the head detector is trained: scenes drawn once and shown in ever other views, by the one training loop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlml_hpe.detection.regions import mirror_image
from nlml_hpe.head_network.config import HeadTrainerConfig
from nlml_hpe.head_network.losses import Heads, head_loss
from nlml_hpe.head_network.network import HeadNetwork
from nlml_hpe.image_networks.backbones import to_quickest_layout
from nlml_hpe.image_networks.weights import load_state
from nlml_hpe.training import train
from nlml_hpe.training_run import History, Run

KIND, WEIGHTS, ONNX = "head_network", "head_network.safetensors", "heads.onnx"
_NO_HEAD = -1.0
_ON_A_HEAD, _WELL_INSIDE = 0.8, 0.05
"""Share of views that are cut about a head, and how near to their border its middle may lie, in sides of the view."""
_CLOSEST = 0.25
"""Side of the smallest part of a scene that a view shows, as a share of the scene's."""
_LEAST_SEEN = 0.5
"""Least share of a head's box in a view of a head to be found."""
SMALLEST_PX, LARGEST_SHARE = 20.0, 0.78
"""Longer side of the box of the smallest head that is to be found, and of the largest in sides of the view: greater
ones another copy of an image shows smaller."""
_BLURRED, _NOISY = 0.25, 0.25
"""Shares of views that are less sharp, and that have noise, as a scene's own goes where it is shown smaller."""
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Picture(Protocol):
    """A scene of n heads."""

    @property
    def image(self) -> Bytes:
        """(S, S, 3) RGB."""
        ...

    @property
    def boxes(self) -> Floats:
        """(n, 4) left, top, right, bottom of the heads in pixels."""
        ...

    @property
    def face_boxes(self) -> Floats:
        """(n, 4) the same of their 68 points."""
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


class Shown(NamedTuple):
    """A scene as the network is shown it; as ``Picture``."""

    image: Bytes
    boxes: Floats
    face_boxes: Floats
    counts: NDArray[np.bool_]


def validation_seed(seed: int) -> int:
    """Of scenes that are held out: by that of the training they would have its backgrounds, and heads at its places."""
    return seed + 1


@dataclass(frozen=True)
class DrawnScenes:
    """Views of ``size`` pixels of so many scenes of a source, for the training loop; in validation always the same.

    A scene is drawn when it is needed first, by its number and the ``seed`` alone; it then stays in memory, for to draw
    it takes as long as to learn from several views of it. Of each scene of a batch ``views`` are cut, other ones every
    time.
    """

    source: Source
    scenes: int
    seed: int
    size: int
    views: int = 1
    _known: dict[int, Shown] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.scenes

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Tensor, Heads]:
        """Images (N views, 3, S, S) uint8 of N scenes and their heads."""
        shown: list[Picture] = []
        for number in map(int, indices):
            scene, drawer = self._scene(number), rng or np.random.default_rng([self.seed, number, 1])
            shown += [view_of(scene, self.size, drawer) for _ in range(self.views)]
        images = torch.from_numpy(np.stack([view.image for view in shown])).permute(0, 3, 1, 2)
        return images, heads_of(shown)

    def _scene(self, number: int) -> Shown:
        if number not in self._known:
            scene = self.source.draw(np.random.default_rng([self.seed, number]))
            self._known[number] = Shown(scene.image, scene.boxes, scene.face_boxes, scene.counts)
        return self._known[number]


def view_of(scene: Picture, size: int, rng: np.random.Generator) -> Shown:
    """A view of a scene: a part of it, mostly about a head, mirrored or not, in other tones.

    Parameters
    ----------
    scene : Picture
        Of S pixels on a side; it stays as it is.
    size : int
        Pixels on a side of the view, which shows a quarter of the scene's side or more.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    Shown
        Image (size, size, 3) and the heads whose middle lies in it; of those that the cut leaves less than half of, and
        of those that are too small or too large there, nothing is asked.
    """
    part, boxes, faces = _part(scene, size, rng)
    image = _toned(part, rng)
    if rng.uniform() < 0.5:
        image = mirror_image(image)
        boxes, faces = (
            np.stack([size - each[:, 2], each[:, 1], size - each[:, 0], each[:, 3]], axis=1) for each in (boxes, faces)
        )
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    inside = ((middle > 0) & (middle < size)).all(axis=1)
    seen = (np.minimum(boxes[:, 2:], size) - np.maximum(boxes[:, :2], 0)) / sides
    longest = sides.max(axis=1, initial=0)
    counts = scene.counts & (seen.clip(0).prod(axis=1) > _LEAST_SEEN)
    counts &= (longest >= SMALLEST_PX) & (longest < LARGEST_SHARE * size)
    return Shown(image, boxes[inside].astype(np.float32), faces[inside].astype(np.float32), counts[inside])


def _part(scene: Picture, size: int, rng: np.random.Generator) -> tuple[Bytes, Floats, Floats]:
    """A part of a scene as ``size`` x ``size`` pixels, and the boxes of heads and faces there.

    About a head: one of the scene's by lot, so that it is of any size that is to be found there, all ratios alike.
    """
    whole = len(scene.image)
    share, head = rng.uniform(np.sqrt(_CLOSEST), 1) ** 2, None
    known = scene.boxes[scene.counts]
    if len(known) and rng.uniform() < _ON_A_HEAD:
        head = known[rng.integers(len(known))]
        wanted = np.exp(rng.uniform(np.log(SMALLEST_PX), np.log(LARGEST_SHARE * size)))
        share = np.clip((head[2:] - head[:2]).max() / wanted * size / whole, _CLOSEST, 1)
    side = max(2, round(share * whole))
    low, high = np.zeros(2), np.full(2, whole - side)
    if head is not None:
        middle = (head[:2] + head[2:]) / 2
        low, high = (np.clip(middle - place * side, 0, whole - side) for place in (1 - _WELL_INSIDE, _WELL_INSIDE))
    left, top = (int(value) for value in rng.uniform(low, high + 1).clip(0, whole - side))
    closer = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    part = cv2.resize(scene.image[top : top + side, left : left + side], (size, size), interpolation=closer)
    corner, scale = np.array([left, top] * 2, dtype=np.float32), np.float32(size / side)
    return np.asarray(part, dtype=np.uint8), (scene.boxes - corner) * scale, (scene.face_boxes - corner) * scale


def _toned(image: Bytes, rng: np.random.Generator) -> Bytes:
    """In other light, now and then blurred or with noise."""
    if rng.uniform() < _BLURRED:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2)), dtype=np.uint8)
    gain, lift = np.exp(rng.normal(0, 0.2)) * rng.normal(1, 0.08, size=3), rng.normal(0, 10)
    tones = np.clip(np.arange(256)[:, None] * gain + lift, 0, 255).astype(np.uint8)
    toned = np.asarray(cv2.LUT(image, tones[:, None]), dtype=np.uint8)
    if rng.uniform() < _NOISY:
        noise = rng.uniform(1, 10) * rng.standard_normal(image.shape, dtype=np.float32)
        toned = np.clip(toned + noise, 0, 255).astype(np.uint8)
    return toned


def heads_of(drawn: list[Picture]) -> Heads:
    """The heads of several scenes, in as many places as the fullest one has."""
    most = max(1, *(len(scene.boxes) for scene in drawn))
    boxes, faces = torch.zeros(len(drawn), most, 4), torch.zeros(len(drawn), most, 4)
    kinds = torch.full((len(drawn), most), _NO_HEAD)
    for row, scene in enumerate(drawn):
        boxes[row, : len(scene.boxes)] = torch.from_numpy(scene.boxes)
        faces[row, : len(scene.boxes)] = torch.from_numpy(scene.face_boxes)
        kinds[row, : len(scene.boxes)] = torch.from_numpy(scene.counts.astype(np.float32))
    return Heads(boxes, faces, kinds)


def initial_head_network(config: HeadTrainerConfig, seed: int) -> HeadNetwork:
    """The network before training: with the weights of ``config.weights``, or with random ones by the seed.

    Raises ``WeightsError`` for weights that do not read or are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HeadNetwork(config.width)
    if config.weights is not None:
        load_state(network, config.weights)
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
        As for ``training.train``; scenes are drawn in this process, whose memory keeps them, whatever ``run.workers``.

    Returns
    -------
    History
        Of all epochs.

    Raises
    ------
    TrainingError
        As ``training.train`` does.
    """
    to_quickest_layout(network)
    shown = DrawnScenes(training, config.training_scenes, seed, config.view_px, config.views)
    held_out = DrawnScenes(validation, config.validation_scenes, validation_seed(seed), config.view_px, config.views)
    return train(network, head_loss, shown, held_out, config, seed, "heads", run=replace(run, workers=0))
