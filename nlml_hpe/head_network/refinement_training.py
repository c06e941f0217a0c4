"""How the second stage is trained: on what the first one proposes in drawn scenes, and on heads' own boxes moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlml_hpe.detection.heads import Head
from nlml_hpe.detection.regions import mirror_image, overlaps
from nlml_hpe.files.images import RgbImage
from nlml_hpe.head_network.config import RefinementTrainerConfig
from nlml_hpe.head_network.network_training import Picture, Source
from nlml_hpe.head_network.proposals import mirrored_box, proposal_crop, within_proposal
from nlml_hpe.head_network.refinement import RefinementNetwork, Truth, refinement_loss
from nlml_hpe.image_networks.augment import recolored
from nlml_hpe.image_networks.backbones import to_quickest_layout
from nlml_hpe.image_networks.weights import load_backbone
from nlml_hpe.training import train
from nlml_hpe.training_run import History, Run

KIND, WEIGHTS = "refinement_network", "refinement_network.safetensors"
_PROPOSED, _MOVED, _PARTS = 0.6, 0.26, 0.07
"""Shares of crops about what the first stage proposes, about a head's own box, moved, and about a part of a head, such
as an eye in glasses; the others lie anywhere."""
_PART = (0.15, 0.45)
"""Sides of parts, in sides of the head's box."""
_LEAST_SCORE = 0.03
"""Of a proposal that is learned from."""
_SHIFT, _STRETCH = 0.22, 0.22
"""Of heads' boxes: standard deviations of the shift, in sides, and of the logarithm of the size."""
_TREMBLE = 0.04
"""The same of proposals, of which the same one may be shown twice."""
_STEM = 4
"""Layers of the backbone up to its map at a quarter of the size."""
_UNCERTAIN = 0.1
"""Overlap with a head that may be found from which a crop says nothing of scores."""
Floats = NDArray[np.float64]


class Proposer(Protocol):
    """The first stage."""

    def find(self, image: RgbImage, min_score: float) -> list[Head]:
        """Heads, surest first."""
        ...


class Proposals(NamedTuple):
    """Crops (n, 64, 64, 3) uint8 of one scene, the ``boxes`` (n, 4) of their heads' 68 points in sides of the crops,
    without a size where there is none, the proposals' ``overlaps`` (n,) with them, and whether each ``counts`` (n,).
    """

    crops: NDArray[np.uint8]
    boxes: Floats
    overlaps: Floats
    counts: NDArray[np.bool_]


class Looked(NamedTuple):
    """A scene and the boxes (n, 4) that the first stage proposes in it."""

    scene: Picture
    proposed: Floats


@dataclass(frozen=True)
class DrawnProposals:
    """Crops of what is proposed in so many scenes of a source, for the training loop; in validation always the same.

    A scene is drawn, and the first stage looks at it, when it is needed first, by its number and the ``seed`` alone; it
    then stays in memory, 0.1 MB of 192 px, because that takes as long as to learn from eight crops. Of each scene of a
    batch ``views`` crops are cut, others every time.
    """

    source: Source
    proposer: Proposer
    scenes: int
    seed: int
    views: int = 8
    _known: dict[int, Looked] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.scenes

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Tensor, Truth]:
        """Crops (N views, 3, 64, 64) uint8 of N scenes and what there is to say of them."""
        parts = []
        for number in map(int, indices):
            looked = self._look(number)
            parts.append(proposals_of(looked, self.views, rng or np.random.default_rng([self.seed, number, 1])))
        return batch_of(parts)

    def _look(self, number: int) -> Looked:
        if number not in self._known:
            scene = self.source.draw(np.random.default_rng([self.seed, number]))
            proposed = [head.face_box for head in self.proposer.find(scene.image, _LEAST_SCORE)]
            self._known[number] = Looked(scene, np.array(proposed, dtype=np.float64).reshape(-1, 4))
        return self._known[number]


def initial_refinement_network(config: RefinementTrainerConfig, seed: int) -> RefinementNetwork:
    """The network before training: with random weights by the seed and, in its backbone, those of the image network
    ``config.image_network``.

    Raises ``WeightsError`` for weights that do not read or are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RefinementNetwork(config.width)
    if config.image_network is not None:
        load_backbone(network, config.image_network)
    return network


def train_refinement_network(
    network: RefinementNetwork,
    training: DrawnProposals,
    validation: DrawnProposals,
    config: RefinementTrainerConfig,
    seed: int,
    run: Run,
) -> History:
    """Train ``network`` in place and leave it with the weights of its best validation epoch.

    Parameters
    ----------
    network : RefinementNetwork
        See ``initial_refinement_network``.
    training, validation : DrawnProposals
        Of scenes of people who are in one of them alone.
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
    groups = _groups(network, config.learning_rate * config.backbone_rate, config.image_network is not None)

    def tones(crops: Tensor, truth: Truth, generator: torch.Generator) -> tuple[Tensor, Truth]:
        # A convolution takes the layout of what it is shown, too, which a narrow network must not have.
        return recolored(crops.float(), config.augmentation, generator).contiguous(), truth

    return train(
        network,
        refinement_loss,
        training,
        validation,
        config,
        seed,
        "refinement",
        augment=tones,
        groups=groups,
        run=replace(run, workers=0),
    )


def _groups(network: RefinementNetwork, rate: float, begun: bool) -> list[dict[str, Any]]:
    """The optimizer's parameter groups: what comes after the backbone, and that, with a rate of its own.

    Where the backbone has ``begun`` as the image eye's the weights of its first layers stay as they are: what they have
    learned holds here, too, and a quarter of the time is saved. The running statistics of their batch normalisation
    follow the crops that are shown here.
    """
    for value in network.backbone[:_STEM].parameters():
        value.requires_grad_(not begun)
    slow = [value for value in network.backbone.parameters() if value.requires_grad]
    known = {id(value) for value in network.backbone.parameters()}
    return [
        {"params": [value for value in network.parameters() if id(value) not in known]},
        {"params": slow, "lr": rate},
    ]


def proposals_of(looked: Looked, count: int, rng: np.random.Generator) -> Proposals:
    """So many crops of a scene, every other one mirrored.

    Parameters
    ----------
    looked : Looked
        A scene with its heads, and what the first stage proposes there, whose mistakes are to be told from heads.
    count : int
        How many crops.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    Proposals
        Most of them about what the first stage proposes, a quarter about a head's own box, moved, and some about a part
        of a head, where there is one; the others anywhere.
    """
    scene = looked.scene
    heads = scene.face_boxes.astype(np.float64)
    own = heads[scene.counts]
    crops, boxes, shared, counts = [], [], [], []
    for _ in range(count):
        proposal = _drawn(looked.proposed, own, len(scene.image), rng)
        cut = proposal_crop(scene.image, proposal)
        each = overlaps(heads, proposal) if len(heads) else np.zeros(0)
        nearest = int(each.argmax()) if each.any() else None
        box = np.zeros(4) if nearest is None else within_proposal(heads[nearest], proposal)
        if rng.uniform() < 0.5:
            cut, box = mirror_image(cut), (box if nearest is None else mirrored_box(box))
        crops.append(cut)
        boxes.append(box)
        shared.append(each.max(initial=0))
        counts.append(nearest is None or bool(scene.counts[nearest]) or each.max() < _UNCERTAIN)
    return Proposals(np.stack(crops), np.stack(boxes), np.array(shared), np.array(counts))


def batch_of(parts: Sequence[Proposals]) -> tuple[Tensor, Truth]:
    """The crops of several scenes as tensors."""
    crops, boxes, shared, counts = (np.concatenate(values) for values in zip(*parts, strict=True))
    truth = Truth(
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy(shared.astype(np.float32)),
        torch.from_numpy(counts),
    )
    return torch.from_numpy(crops).permute(0, 3, 1, 2), truth


def _drawn(proposed: Floats, own: Floats, size: int, rng: np.random.Generator) -> Floats:
    """A box to look at: one that was proposed, a head's own one, moved, a part of that, or any."""
    share = rng.uniform()
    if len(proposed) and share < _PROPOSED:
        return _moved(proposed[rng.integers(len(proposed))], _TREMBLE, _TREMBLE, rng)
    if len(own) and share < _PROPOSED + _MOVED:
        return _moved(own[rng.integers(len(own))], _SHIFT, _STRETCH, rng)
    if len(own) and share < _PROPOSED + _MOVED + _PARTS:
        left, top, right, bottom = own[rng.integers(len(own))]
        half = rng.uniform(*_PART) * max(right - left, bottom - top) / 2
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        return np.array([x - half, y - half, x + half, y + half])
    side = np.exp(rng.uniform(np.log(10), np.log(0.8 * size)))
    corner = rng.uniform(-side / 4, size - 3 * side / 4, size=2)
    return np.concatenate([corner, corner + side])


def _moved(box: Floats, shift: float, stretch: float, rng: np.random.Generator) -> Floats:
    """A box in another place and of another size, and a little wider or higher."""
    sides = box[2:] - box[:2]
    middle = (box[:2] + box[2:]) / 2 + rng.normal(0, shift, size=2) * sides.max()
    half = sides / 2 * np.exp(rng.normal(0, stretch) + rng.normal(0, stretch / 3, size=2))
    return np.concatenate([middle - half, middle + half])
