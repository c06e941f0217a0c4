"""How an image network is trained: which crops it is shown, what is varied, and what its epochs are measured by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nlml_hpe.device import resolve_precision
from nlml_hpe.image_networks.augment import augment
from nlml_hpe.image_networks.backbones import to_quickest_layout
from nlml_hpe.image_networks.config import AugmentationConfig, ImageNetworkConfig, ImageTrainerConfig
from nlml_hpe.image_networks.crop import SHARE, STORED_SHARE
from nlml_hpe.image_networks.losses import geodesic
from nlml_hpe.image_networks.network import ImageNetwork, Labels, normalises_points
from nlml_hpe.image_networks.quantize import FakeQuantized
from nlml_hpe.image_networks.registry import build
from nlml_hpe.image_networks.training_data import Crops, Source
from nlml_hpe.image_networks.weights import load_backbone, load_state
from nlml_hpe.image_networks.widening import widen
from nlml_hpe.rotation import AXES
from nlml_hpe.torch_rotation import degrees_from_rotation
from nlml_hpe.training import Metric, measured, train
from nlml_hpe.training_data import Augment, Batches
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import History, Run

KIND, WEIGHTS = "image_network", "image_network.safetensors"
"""What the manifest calls the folder of a trained network, and the file of its weights there."""


class Weighted(NamedTuple):
    """A source of crops and how often each of its crops is shown, against those of other sources."""

    source: Source
    weight: float = 1.0


class Trained(NamedTuple):
    """What is known of a training that is over.

    Attributes
    ----------
    history : History
        With the mean absolute error of each angle and the geodesic distance, in degrees, of every epoch.
    counts : dict
        Crops of both splits, and how many were ``left_out`` for their label.
    validation : dict
        The same errors of the weights that are kept.
    """

    history: History
    counts: dict[str, int]
    validation: dict[str, float]


def network_of(config: ImageNetworkConfig, seed: int) -> ImageNetwork:
    """The network that a configuration names, with random weights of this seed.

    Parameters
    ----------
    config : ImageNetworkConfig
        Name, size of a crop, and the network's own settings.
    seed : int
        Of the weights; torch's own generator is left as it was.

    Returns
    -------
    ImageNetwork
        On the CPU.

    Raises
    ------
    ValueError
        For a setting that the network does not have.

    Examples
    --------
    >>> network_of(ImageNetworkConfig(name="six_d", backbone="residual", size=64), seed=1).size
    64
    """
    apart = {"name", "size", "weights", "narrow_weights", "backbone_weights", "covered"}
    settings = config.model_dump(exclude=apart, exclude_none=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(config.name, config.size, **settings)
    network.covered = config.covered
    return network


def initial_network(config: ImageNetworkConfig, seed: int) -> ImageNetwork:
    """As ``network_of``, with the weights that training is to begin with, where the configuration names a file.

    Raises ``WeightsError`` for weights that do not read or are another network's.
    """
    network = network_of(config, seed)
    if config.narrow_weights is not None:
        assert config.width is not None  # the configuration has seen to it
        half = config.model_copy(update={"width": config.width // 2})
        narrow = network_of(half, seed)
        load_state(narrow, config.narrow_weights)
        widen(network, narrow, seed)
    if config.backbone_weights is not None:
        load_backbone(network, config.backbone_weights)
    if config.weights is not None:
        load_state(network, config.weights)
    return network


def train_image_network(
    network: ImageNetwork,
    training: Sequence[Weighted],
    validation: Sequence[Weighted],
    config: ImageTrainerConfig,
    seed: int,
    run: Run,
) -> Trained:
    """Train ``network`` in place and leave it with the weights of its best validation epoch.

    With ``config.start_share`` these are averaged with those that it began with: of a network that was trained on, the
    average is surer on pictures unlike those of the training (Wortsman et al. 2022, "Robust fine-tuning"). The history
    is that of the training itself.

    Parameters
    ----------
    network : ImageNetwork
        See ``network_of``.
    training, validation : sequence of Weighted
        What is learned from, augmented, and what the best epoch is chosen by, as inference cuts it.
    config, seed, run
        As for ``training.train``.

    Returns
    -------
    Trained
        The reasons why crops are left out are printed.

    Raises
    ------
    TrainingError
        Where a batch is larger than the data, or the last one too small for the network, where no label can be learned
        from, where sources are stored in different sizes, and as ``training.train`` does.
    """
    shown = _crops(network, training, None, "training")
    _warn_of_enlarged(network, shown)
    held_out = _crops(network, validation, network.size, "validation")
    left_out = (shown.left_out + held_out.left_out).total()
    counts = {"training": len(shown), "validation": len(held_out), "left_out": left_out}
    if config.batch_size > len(shown):
        raise TrainingError(
            f"a batch of {config.batch_size} is larger than the data, {len(shown)} crops; "
            "lower image_trainer.batch_size"
        )
    weights = torch.from_numpy(shown.weights)
    count = _crops_of_an_epoch(config, len(shown))
    _require_statistics(network, count, config.batch_size)
    start = {name: values.clone() for name, values in network.state_dict().items()} if config.start_share else {}
    metrics = _metrics(network)
    precision = resolve_precision(config.precision, run.device)
    to_quickest_layout(network)
    history = train(
        network,
        network.loss,
        shown,
        held_out,
        config,
        seed,
        "image_network",
        augment=augmentation_of(network, config.augmentation),
        metrics=metrics,
        order=partial(weighted_order, weights, count),
        run=run,
    )
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    validated = {name: values[history.best_epoch] for name, values in history.metrics.items()}
    if start:
        network.load_state_dict(averaged(start, network.state_dict(), config.start_share))
        batches = Batches(held_out, config.batch_size, run.device, run.workers)
        validated = measured(network, network.loss, batches, metrics, precision)[1]
    return Trained(history, counts, validated)


def averaged(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights of which ``share`` are those of ``start``; whole numbers are those of ``end``.

    Examples
    --------
    >>> averaged({"w": torch.tensor([0.0])}, {"w": torch.tensor([10.0])}, 0.25)
    {'w': tensor([7.5000])}
    """
    return {
        name: values.lerp(start[name].to(values.device), share) if values.is_floating_point() else values
        for name, values in end.items()
    }


def weighted_order(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The crops of an epoch, in random order, each about as often as its weight says.

    Systematic resampling (Kitagawa 1996) of the crops in random order: one that is due 2.3 times comes twice, and with
    a probability of 0.3 a third time. So a few photographs can be shown many times beside many rendered crops.

    Parameters
    ----------
    weights : (N,) float64 tensor
        How often each is shown, against the others.
    count : int
        How many are shown.
    generator : torch.Generator
        Of the CPU; the same state gives the same order.

    Returns
    -------
    (count,) int64 tensor

    Examples
    --------
    >>> weights = torch.tensor([1.0, 1.0, 4.0], dtype=torch.float64)
    >>> torch.bincount(weighted_order(weights, 6, torch.Generator().manual_seed(0))).tolist()
    [1, 1, 4]
    """
    shuffled = torch.randperm(len(weights), generator=generator)
    due = (weights[shuffled] * (count / weights.sum())).cumsum(0)
    marks = torch.arange(count, dtype=torch.float64) + torch.rand(1, dtype=torch.float64, generator=generator)
    places = torch.searchsorted(due, marks, right=True).clamp(max=len(weights) - 1)
    return shuffled[places][torch.randperm(count, generator=generator)]


def augmentation_of(network: ImageNetwork, settings: AugmentationConfig) -> Augment:
    """Stored crops to what the network is shown; a label that a turn would take out of its range is not turned."""

    def change(inputs: Any, labels: Labels, generator: torch.Generator) -> tuple[Tensor, Labels]:
        (images, boxes), rotations = inputs, labels.rotations
        crops, shown = augment(images, rotations, boxes, network.size, settings, generator)
        outside = torch.nonzero(~network.trainable(shown))[:, 0]
        if len(outside):
            upright = settings.model_copy(update={"turn_deg": 0.0})
            parts = (images[outside], rotations[outside], boxes[outside])
            crops[outside], shown[outside] = augment(*parts, network.size, upright, generator)
        return network.shown(crops), Labels(shown, labels.confidence)

    return change


def _crops(network: ImageNetwork, parts: Sequence[Weighted], size: int | None, split: str) -> Crops:
    """The crops of a split; prints how many are left out, and why."""
    sources, weights = [part.source for part in parts], [part.weight for part in parts]
    crops = Crops(sources, weights, size, network.trainable, network.shown)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(crops.left_out.items()))
    if not len(crops):
        raise TrainingError(
            f"no crop of the {split} data can be learned from: {reasons or 'there is none'}; correct image_trainer"
        )
    if reasons:
        print(f"{split}: {len(crops)} crops; left out: {reasons}", flush=True)
    return crops


def _warn_of_enlarged(network: ImageNetwork, crops: Crops) -> None:
    """Say where crops are stored in fewer pixels than the network is shown: in use it will see sharper ones."""
    stored, enough = crops.sources[0].size, math.ceil(network.size * STORED_SHARE / SHARE)
    if stored < enough:
        print(
            f"training: crops are stored with {stored} px on a side and enlarged to the network's {network.size} px, "
            f"which in use sees sharper ones; with {enough} px (image_trainer.stored_px of photographs, crops.size of "
            "rendered crops) they are not",
            flush=True,
        )


def _crops_of_an_epoch(config: ImageTrainerConfig, there: int) -> int:
    """How many crops an epoch shows of those that are there; says so where it is fewer than was asked for."""
    wanted = config.crops_per_epoch or there
    if wanted > there:
        print(
            f"training: an epoch is of {there} crops, as many as there are, and not of crops_per_epoch, {wanted}; with "
            "more epochs as many are seen",
            flush=True,
        )
    return min(wanted, there)


def _require_statistics(network: ImageNetwork, count: int, batch_size: int) -> None:
    """Raise where an epoch ends with a single crop of which a layer sees one number a channel.

    How far numbers vary, which batch normalisation divides by, is not known of one.
    """
    single = (count - 1) % batch_size == 0
    # The graph with roundings has folded its normalisations; they are those of the network that it was made of.
    if single and normalises_points(network.own if isinstance(network, FakeQuantized) else network):
        raise TrainingError(
            f"the last batch of an epoch of {count} crops is a single one, and at {network.size} px the network's last "
            "maps are 1 x 1, of which one crop is too little for batch normalisation; change image_trainer.batch_size "
            "or crops_per_epoch by one, or take a larger image_network.size"
        )


def _metrics(network: ImageNetwork) -> dict[str, Metric]:
    """Errors (N,) in degrees of each angle, as an evaluation counts them, and the angle between the rotations."""

    def distance(outputs: Tensor, labels: Labels) -> Tensor:
        return torch.rad2deg(geodesic(network.posterior(outputs).rotation, labels.rotations))

    def error(axis: int) -> Metric:
        return lambda outputs, labels: angle_errors(network.posterior(outputs).rotation, labels.rotations)[:, axis]

    return {"geodesic": distance, **{axis: error(number) for number, axis in enumerate(AXES)}}


def angle_errors(found: Tensor, true: Tensor) -> Tensor:
    """Differences (N, 3) of the angles; of the two triples that are one rotation, the one nearer to the label's."""
    one, label = degrees_from_rotation(found), degrees_from_rotation(true)
    other = torch.stack([180 - one[:, 0], one[:, 1] + 180, one[:, 2] + 180], dim=1)
    both = ((torch.stack([one, other]) - label + 180) % 360 - 180).abs()
    return both[both.sum(dim=2).argmin(dim=0), torch.arange(len(one), device=one.device)]
