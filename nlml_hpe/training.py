"""One training loop for all networks: best epoch kept, early stop, seeded, killed and gone on with.

A network, a loss, two data sets and a `TrainingConfig` are all that it takes::

    history = train(network, loss_of, training, validation, config, seed, "six_d", run=Run(device, workers, folder))

- ``loss_of(outputs, targets)`` gives the mean loss of a batch; ``outputs`` is what the network returns, in float32.
- ``training`` and ``validation`` are map-style data sets (see ``training_data``): ``data[index]`` is a pair of input
  and target. One that reads or changes samples batch by batch has ``batch(indices, rng)`` in place of that, and
  draws from ``rng`` alone: then the same seed gives the same batches with any number of workers. A split in memory
  is `Samples`.
- ``augment(inputs, targets, generator)`` changes whole batches on the device, after they were read.
- ``metrics`` are figures beside the loss that each epoch is measured by on the validation data, such as the mean
  absolute error of an angle.
- ``order(generator)`` chooses the samples of an epoch, where that is not each of them once: a mixture with weights is
  ``lambda generator: torch.multinomial(weights, count, replacement=True, generator=generator)``.
- ``groups`` are the optimizer's parameter groups, where not all parameters have the same learning rate; the history
  names the first one's.
- ``Run`` says where it happens: device, worker processes, a folder for the checkpoint. After every epoch the checkpoint
  is written; the same call goes on from it, and on a CPU ends with the same bytes as a run that nobody disturbed.

The caller removes the checkpoints when he has saved the network: ``run.clear()``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from tqdm import tqdm

from nlml_hpe.config import TrainingConfig
from nlml_hpe.device import Precision, resolve_precision
from nlml_hpe.files.manifests import digest_of
from nlml_hpe.training_data import AnyDataset, Augment, Batches, each_tensor
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import History, Run
from nlml_hpe.training_state import NOT_READ, SUFFIX, damaged, read_checkpoint, write_checkpoint
from nlml_hpe.version import VERSION

Loss = Callable[[Any, Any], Tensor]
"""Outputs of the network and targets of a batch to the mean loss, a tensor of one number."""
Metric = Callable[[Any, Any], Tensor]
"""Outputs of the network and targets of a batch to one figure per sample (N,), averaged over the validation data."""
Order = Callable[[torch.Generator], Tensor]
"""The samples (int64) that an epoch goes through, in order."""

_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
_SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, TrainingConfig], lr_scheduler.LRScheduler]] = {
    "cosine": lambda optimizer, config: lr_scheduler.CosineAnnealingLR(optimizer, config.epochs),
    "plateau": lambda optimizer, config: lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=config.plateau_factor, patience=config.plateau_patience
    ),
    "constant": lambda optimizer, config: lr_scheduler.ConstantLR(optimizer, factor=1.0),
}


def train(
    network: nn.Module,
    loss_of: Loss,
    training: AnyDataset,
    validation: AnyDataset,
    config: TrainingConfig,
    seed: int,
    name: str,
    *,
    augment: Augment | None = None,
    metrics: Mapping[str, Metric] | None = None,
    order: Order | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
    run: Run | None = None,
) -> History:
    """Train ``network`` in place and leave it, on the run's device, with the weights of its best validation epoch.

    Parameters
    ----------
    network : nn.Module
        Moved to ``run.device``; a batch's inputs are its one argument.
    loss_of : callable
        Outputs and targets of a batch to the mean loss.
    training, validation : Dataset or BatchedDataset
        What is learned from, and what the best epoch is chosen by.
    config : TrainingConfig
        Epochs, optimizer, schedule, precision.
    seed : int
        The same seed gives the same weights on the same kind of device.
    name : str
        Of the checkpoint, the progress bar and the curves.
    augment, metrics, order, groups : optional
        See the module's text.
    run : Run, optional
        Device, workers and checkpoints; by default the CPU, none and none.

    Returns
    -------
    History
        Losses, metrics and learning rates of the epochs that were run.

    Raises
    ------
    TrainingError
        Where the loss stops being finite, a data set is empty, or the checkpoint is damaged or, with a precision of
        ``auto``, of a device that computes in another one.

    Examples
    --------
    >>> from nlml_hpe.training_data import Samples
    >>> line = nn.Linear(1, 1)
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> data = Samples(x, 3 * x)
    >>> config = TrainingConfig(epochs=200, learning_rate=0.1, patience=200)
    >>> history = train(line, nn.functional.mse_loss, data, data, config, seed=0, name="line")
    >>> round(line.weight.item(), 1), history.epochs_run
    (3.0, 200)
    """
    run = run or Run()
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        torch.manual_seed(seed)  # what layers draw themselves, such as dropout
        batches, held_out = (Batches(d, config.batch_size, run.device, run.workers) for d in (training, validation))
        course = _Course(network.to(run.device), loss_of, batches, held_out, config, seed, name, run, groups)
        course.augment, course.metrics, course.order = augment, metrics or {}, order
        return course.finish()


@torch.inference_mode()
def measured(
    network: nn.Module,
    loss_of: Loss,
    held_out: Batches,
    metrics: Mapping[str, Metric],
    precision: Precision = "float32",
) -> tuple[float, dict[str, float]]:
    """Mean loss and mean metrics of a network on data, as of an epoch on the validation data.

    Parameters
    ----------
    network : nn.Module
        On the device of the batches; left in evaluation mode.
    loss_of, metrics
        As for ``train``.
    held_out : Batches
        The data.
    precision : {"float32", "bfloat16"}
        What products are computed in.

    Returns
    -------
    loss : float
        The mean loss.
    figures : dict
        The mean of each metric.

    Examples
    --------
    >>> from nlml_hpe.training_data import Samples
    >>> batches = Batches(Samples(torch.ones(4, 1), torch.zeros(4, 1)), 2, torch.device("cpu"))
    >>> measured(nn.Identity(), nn.functional.mse_loss, batches, {"off": lambda found, true: (found - true)[:, 0]})
    (1.0, {'off': 1.0})
    """
    network.eval()
    total, figures = 0.0, dict.fromkeys(metrics, 0.0)
    for inputs, targets, count in held_out.in_order():
        outputs = _outputs(network, inputs, held_out.device, precision)
        total += loss_of(outputs, targets).item() * count
        for key, metric in metrics.items():
            figures[key] += metric(outputs, targets).double().sum().item()
    size = len(held_out)
    return total / size, {key: value / size for key, value in figures.items()}


def _outputs(network: nn.Module, inputs: Any, device: torch.device, precision: Precision) -> Any:
    """What a network answers, in float32 whatever its products are computed in."""
    if precision == "float32":
        return network(inputs)
    with torch.autocast(device.type, torch.bfloat16):
        outputs = network(inputs)
    return each_tensor(Tensor.float, outputs)


class _Course:
    """A training between two epochs: everything that the next epoch depends on."""

    augment: Augment | None = None
    order: Order | None = None
    metrics: Mapping[str, Metric]

    def __init__(
        self,
        network: nn.Module,
        loss_of: Loss,
        batches: Batches,
        held_out: Batches,
        config: TrainingConfig,
        seed: int,
        name: str,
        run: Run,
        groups: Sequence[dict[str, Any]] | None,
    ) -> None:
        self.network, self.loss_of, self.batches, self.held_out = network, loss_of, batches, held_out
        self.config, self.seed, self.name, self.run = config, seed, name, run
        self.optimizer = _OPTIMIZERS[config.optimizer](
            groups or network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = _SCHEDULES[config.schedule](self.optimizer, config)
        self.generator = torch.Generator().manual_seed(seed)
        # Random changes are drawn where the batches are. On a CPU one stream serves for order and changes.
        on_cpu = run.device.type == "cpu"
        self.drawer = self.generator if on_cpu else torch.Generator(run.device).manual_seed(seed)
        self.precision = resolve_precision(config.precision, run.device)
        self.history = History([], [], -1, precision=self.precision)
        self.best_weights = self._weights()

    def finish(self) -> History:
        """Run the epochs that are left; the network is left with the best one's weights."""
        self._resume()
        if self.config.precision == "auto":
            print(f"{self.name}: precision: auto is {self.precision} on {self.run.device}", flush=True)
        writer = self.run.curves(self.name, self.history.epochs_run) if self.config.tensorboard else None
        with tqdm(desc=f"Train {self.name}", unit="sample", unit_scale=True) as bar:
            while not self._is_over:
                self._epoch(bar)
                self._save()
                last = {"train": self.history.train[-1], "validation": self.history.validation[-1]}
                bar.set_postfix({"epoch": self.history.epochs_run, **{key: f"{v:.5f}" for key, v in last.items()}})
                if writer:
                    writer.add_scalars(self.name, last, self.history.epochs_run - 1)
        if writer:
            writer.close()
        self.network.load_state_dict(self.best_weights)
        self.network.eval()
        return self.history

    @property
    def _is_over(self) -> bool:
        done = self.history.epochs_run
        return done >= self.config.epochs or done - 1 - self.history.best_epoch >= self.config.patience

    def _epoch(self, bar: tqdm) -> None:
        """One pass over the training data, one over the validation data, and what was learned of it."""
        history, number = self.history, self.history.epochs_run
        rate = self.optimizer.param_groups[0]["lr"]
        train_loss = self._pass(bar)
        validation_loss, figures = measured(self.network, self.loss_of, self.held_out, self.metrics, self.precision)
        self._require_finite(validation_loss)
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(validation_loss)
        else:
            self.schedule.step()
        is_best = not history.validation or validation_loss < min(history.validation)
        if is_best:
            self.best_weights = self._weights()
        self.history = History(
            [*history.train, train_loss],
            [*history.validation, validation_loss],
            number if is_best else history.best_epoch,
            [*history.learning_rate, rate],
            {key: [*history.metrics.get(key, []), value] for key, value in figures.items()},
            self.precision,
        )

    def _pass(self, bar: tqdm) -> float:
        """Steps over the training data; the mean loss on the way."""
        self.network.train()
        size = len(self.batches)
        order = self.order(self.generator) if self.order else torch.randperm(size, generator=self.generator)
        # An epoch may be shorter than the data, so that the order says how much there is to do.
        bar.total = self.config.epochs * len(order)
        if not bar.n:
            bar.initial = bar.n = self.history.epochs_run * len(order)
        total = 0.0
        for read, true, count in self.batches.shuffled(order, (self.seed, self.history.epochs_run)):
            inputs, targets = self.augment(read, true, self.drawer) if self.augment else (read, true)
            outputs = _outputs(self.network, inputs, self.run.device, self.precision)
            loss = self.loss_of(outputs, targets)
            value = loss.item()
            self._require_finite(value)
            self.optimizer.zero_grad()
            loss.backward()
            if self.config.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
            self.optimizer.step()
            total += value * count
            bar.update(count)
        return total / len(order)

    def _require_finite(self, loss: float) -> None:
        """Raise at once: what comes after such a loss is lost, and epochs take minutes."""
        if not math.isfinite(loss):
            number = self.history.epochs_run + 1  # from 1, as bar, curves and card count
            raise TrainingError(f"{self.name}: the loss is not finite in epoch {number}; lower the learning rate")

    def _weights(self) -> dict[str, Tensor]:
        # A deep copy: state_dict() alone refers to tensors that training goes on changing.
        return copy.deepcopy(self.network.state_dict())

    def _identity(self) -> str:
        """Digest of everything that the weights depend on; a checkpoint of another one is not gone on with."""
        settings = self.config.model_dump(mode="json", exclude={self.config.CURVES})
        layers = {key: list(value.shape) for key, value in self.network.state_dict().items()}
        sizes = [len(self.batches), len(self.held_out)]
        return digest_of(
            [VERSION, self.run.inputs, settings, self.seed, self.name, sizes, layers, sorted(self.metrics)]
        )

    def _save(self) -> None:
        if self.run.checkpoints is None:
            return
        state = {
            "network": self.network.state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": [torch.get_rng_state(), self.generator.get_state(), self.drawer.get_state()],
            "history": asdict(self.history),
        }
        if self.run.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.run.device)
        write_checkpoint(self.run.checkpoints, self.name, self._identity(), state)

    def _resume(self) -> None:
        """Go on from the checkpoint of this very training, where there is one."""
        folder = self.run.checkpoints
        state = None if folder is None else read_checkpoint(folder, self.name, self._identity())
        if folder is None:
            return
        file = folder / f"{self.name}{SUFFIX}"
        if state is None:
            if file.is_file():
                print(
                    f"{self.name}: {file} is of other settings, other data or another version; training starts anew "
                    "and replaces it after the first epoch (to go on from it, stop and run what began it)",
                    flush=True,
                )
            return
        try:
            self._take_up(state)
        except NOT_READ as error:
            raise damaged(folder, self.name) from error
        if self.history.precision != self.precision:
            # Of "auto" alone: a precision by name is part of the checkpoint's identity.
            raise TrainingError(
                f"{file} was begun in {self.history.precision}, and precision: auto is "
                f"{self.precision} on this device; go on where it was begun, or move the file away, and training "
                "starts anew"
            )

    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Be where a checkpoint's state was."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        # In place: the mapping also says of which versions the layers are, by which some read their values.
        self.best_weights = state["best_weights"]
        for key, value in self.best_weights.items():
            self.best_weights[key] = value.to(self.run.device)
        # A checkpoint of before 'auto' does not say: its precision is the one that its identity names.
        self.history = History(**{"precision": self.precision, **state["history"]})
        drawn = state["random"]
        torch.set_rng_state(drawn[0])
        self.generator.set_state(drawn[1])
        if self.drawer is not self.generator:
            if drawn[2].shape == self.drawer.get_state().shape:
                self.drawer.set_state(drawn[2])
            else:
                # Begun on a device of another kind, whose state says nothing here: other draws than those so far.
                self.drawer.manual_seed(self.seed + self.history.epochs_run)
        if self.run.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self.run.device)
