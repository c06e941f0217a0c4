"""Where a training runs, and what is known of it when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nlml_hpe.device import Precision
from nlml_hpe.extras import needs
from nlml_hpe.training_state import SUFFIX

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class History:
    """What each epoch was measured by, in order, and the epoch (from 0) whose weights were kept.

    ``train`` and ``validation`` are mean losses, ``learning_rate`` is that of the epoch's steps, ``metrics`` holds a
    list for each figure of the validation data, ``precision`` is what products were computed in.

    Examples
    --------
    >>> history = History(train=[0.9, 0.5, 0.4], validation=[0.8, 0.6, 0.7], best_epoch=1)
    >>> history.epochs
    {'epochs_run': 3, 'best_epoch': 1}
    """

    train: list[float]
    validation: list[float]
    best_epoch: int
    learning_rate: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    precision: Precision = "float32"

    @property
    def epochs_run(self) -> int:
        """Number of epochs that were run; early stopping makes it smaller than the configured number."""
        return len(self.train)

    @property
    def epochs(self) -> dict[str, int]:
        """What a manifest records: ``epochs_run`` and ``best_epoch`` (from 0)."""
        return {"epochs_run": self.epochs_run, "best_epoch": self.best_epoch}


@dataclass(frozen=True)
class Run:
    """Where a training runs: nothing here changes its result on one kind of device.

    Parameters
    ----------
    device : torch.device
        Where the network and its batches are.
    workers : int
        Processes that read batches ahead; 0 reads between the steps.
    checkpoints : Path or None
        Folder of the checkpoints, ``NAME.checkpoint``; without it a training that was killed starts anew.
    inputs : str
        Digest of what the training data was made from. A checkpoint of other inputs is not gone on with.
    log_folder : Path or None
        Folder below which TensorBoard's curves go, where the configuration asks for them.

    Examples
    --------
    >>> run = Run(torch.device("cpu"), workers=2, checkpoints=Path("checkpoints"))
    >>> run.workers, run.curves("six_d", done=0) is None
    (2, True)
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    checkpoints: Path | None = None
    inputs: str = ""
    log_folder: Path | None = None

    def clear(self) -> None:
        """Remove the checkpoints, once what they led to is saved."""
        if self.checkpoints is None or not self.checkpoints.is_dir():
            return
        for path in self.checkpoints.glob(f"*{SUFFIX}"):
            path.unlink()
        if not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()

    def curves(self, name: str, done: int) -> SummaryWriter | None:
        """Where TensorBoard's curves of this training are written, after ``done`` epochs.

        Parameters
        ----------
        name : str
            Of the training, and of its folder below ``log_folder / "tensorboard"``.
        done : int
            Epochs that are behind it; what was drawn beyond them, by a run that was killed, is drawn anew.

        Returns
        -------
        SummaryWriter or None
            None without a log folder.

        Raises
        ------
        MissingPackageError
            Where tensorboard is not installed.
        """
        if self.log_folder is None:
            return None
        # Curves beyond the checkpoint, of a run that was killed, are drawn anew.
        return curve_writer()(str(self.log_folder / "tensorboard" / name), purge_step=done)


def curve_writer() -> type[SummaryWriter]:
    """TensorBoard's class that writes curves. Raises ``MissingPackageError`` where tensorboard is not installed."""
    with needs("tensorboard", "tensorboard: true"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter
