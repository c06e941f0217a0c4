"""One training loop for encoder and heads: best epoch kept, early stop, seeded, curves recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nlml_hpe.config import TrainingConfig

Augment = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Inputs and targets of a batch to those that the network sees in their place."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why."""


@dataclass(frozen=True)
class Samples:
    """Inputs (N, ...) and targets (N, ...) of one split."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or not len(self.inputs):
            raise TrainingError(
                f"expected as many inputs as targets, at least one; received {len(self.inputs)} and {len(self.targets)}"
            )


@dataclass(frozen=True)
class History:
    """Loss per epoch on both splits, and the epoch (from 0) whose weights were kept."""

    train: list[float]
    validation: list[float]
    best_epoch: int


def train(
    network: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    training: Samples,
    validation: Samples,
    config: TrainingConfig,
    seed: int,
    name: str,
    augment: Augment | None = None,
    log_folder: Path | None = None,
) -> History:
    """Train ``network`` in place and leave it with the weights of its best validation epoch.

    AdamW with a cosine schedule. The same seed gives the same weights on the same machine.
    Raises ``TrainingError`` where the loss stops being finite.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    writer = _tensorboard(log_folder, name) if config.tensorboard and log_folder else None
    losses: list[float] = []
    validation_losses: list[float] = []
    best, best_weights = float("inf"), copy.deepcopy(network.state_dict())
    for epoch in (bar := tqdm(range(config.epochs), desc=f"Train {name}", unit="epoch")):
        losses.append(_epoch(network, loss_of, training, optimizer, config.batch_size, generator, augment))
        schedule.step()
        validation_losses.append(_evaluate(network, loss_of, validation))
        if not all(map(torch.isfinite, map(torch.tensor, (losses[-1], validation_losses[-1])))):
            raise TrainingError(f"{name}: the loss is not finite in epoch {epoch}; lower the learning rate")
        if validation_losses[-1] < best:
            # A deep copy: state_dict() alone refers to tensors that training goes on changing.
            best, best_weights = validation_losses[-1], copy.deepcopy(network.state_dict())
        bar.set_postfix(train=f"{losses[-1]:.5f}", validation=f"{validation_losses[-1]:.5f}")
        if writer:
            writer.add_scalars(name, {"train": losses[-1], "validation": validation_losses[-1]}, epoch)
        if epoch - validation_losses.index(best) >= config.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    if writer:
        writer.close()
    return History(losses, validation_losses, validation_losses.index(best))


def _epoch(
    network: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    samples: Samples,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    generator: torch.Generator,
    augment: Augment | None,
) -> float:
    network.train()
    total = 0.0
    for chosen in torch.randperm(len(samples.inputs), generator=generator).split(batch_size):
        inputs, targets = samples.inputs[chosen], samples.targets[chosen]
        if augment:
            inputs, targets = augment(inputs, targets, generator)
        loss = loss_of(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(chosen)
    return total / len(samples.inputs)


@torch.inference_mode()
def _evaluate(network: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], samples: Samples) -> float:
    network.eval()
    parts = zip(samples.inputs.split(4096), samples.targets.split(4096), strict=True)
    total = sum(loss_of(network(inputs), targets).item() * len(inputs) for inputs, targets in parts)
    return total / len(samples.inputs)


def _tensorboard(folder: Path, name: str):  # type: ignore[no-untyped-def]
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("tensorboard: true needs the tensorboard package: pip install tensorboard") from error
    return SummaryWriter(str(folder / "tensorboard" / name))


def gaussian_noise(deviation: Tensor) -> Augment:
    """Adds seeded noise of this standard deviation, one for all or one per column."""

    def add(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return inputs + deviation * torch.randn(inputs.shape, generator=generator), targets

    return add
