"""The one training loop: any data set, any number of workers, killed and gone on with to the byte."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from nlml_hpe.config import TrainingConfig
from nlml_hpe.training import train
from nlml_hpe.training_data import Samples, gaussian_noise
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_run import History, Run
from nlml_hpe.training_state import SUFFIX, read_checkpoint, write_checkpoint
from tests.conftest import REPOSITORY

CONFIG = TrainingConfig(epochs=6, batch_size=16, learning_rate=0.05)


class Pictures(torch.utils.data.Dataset):
    """A map-style data set, as torch has them: numbers as pictures, and the two things asked of each."""

    def __init__(self, count: int = 50) -> None:
        self.values = np.random.default_rng(1).normal(size=(count, 4)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, float]]:
        value = self.values[index]
        return value, {"sum": float(value.sum()), "first": float(value[0])}


class NoisyPictures(Pictures):
    """The same, read a batch at a time and changed at random on the way."""

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        values = self.values[indices]
        noise = 0 if rng is None else rng.normal(scale=0.1, size=values.shape)
        return (values + noise).astype(np.float32), {"sum": values.sum(axis=1), "first": values[:, 0]}


class TwoHeads(nn.Module):
    """One network with two answers, normalised and thinned out, as image networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({"sum": nn.Linear(8, 1), "first": nn.Linear(8, 1)})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        inside = self.body(x)
        return {name: head(inside)[:, 0] for name, head in self.heads.items()}


def both(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum((nn.functional.mse_loss(outputs[name], targets[name].float()) for name in outputs), torch.tensor(0.0))


def two_heads() -> TwoHeads:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TwoHeads()


def trained(
    data: Pictures, workers: int = 0, config: TrainingConfig = CONFIG, run: Run | None = None
) -> tuple[dict[str, torch.Tensor], History]:
    network = two_heads()
    metrics = {"sum": lambda outputs, targets: (outputs["sum"] - targets["sum"]).abs()}
    history = train(
        network, both, data, Pictures(20), config, 5, "pictures", metrics=metrics, run=run or Run(workers=workers)
    )
    return network.state_dict(), history


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(bool((first[name] == second[name]).all()) for name in first)


@pytest.mark.parametrize("kind", [Pictures, NoisyPictures])
def test_workers_change_nothing(kind: type[Pictures]) -> None:
    alone, history = trained(kind())
    helped, _ = trained(kind(), workers=2)
    assert same(alone, helped)
    assert history.train[-1] < history.train[0]
    assert len(history.metrics["sum"]) == history.epochs_run == 6


def test_a_training_draws_nothing_from_its_caller() -> None:
    torch.manual_seed(1)
    first, _ = trained(Pictures())
    after = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(after, torch.get_rng_state()), "dropout must not use up the caller's random numbers"
    torch.manual_seed(2)
    assert same(first, trained(Pictures())[0])


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0.05] * 6), ("cosine", [0.05 * (1 + np.cos(np.pi * i / 6)) / 2 for i in range(6)])],
)
def test_optimizer_and_schedule_are_named(optimizer: str, schedule: str, rates: list[float]) -> None:
    config = TrainingConfig.model_validate({**CONFIG.model_dump(), "optimizer": optimizer, "schedule": schedule})
    _, history = trained(Pictures(), config=config)
    np.testing.assert_allclose(history.learning_rate, rates, atol=1e-9)


def test_the_rate_falls_on_a_plateau() -> None:
    config = CONFIG.model_copy(update={"schedule": "plateau", "plateau_patience": 0, "plateau_factor": 0.5})
    never = lambda outputs, targets: both(outputs, targets) * 0 + 1.0  # noqa: E731
    history = train(two_heads(), never, Pictures(), Pictures(20), config, 0, "flat")
    np.testing.assert_allclose(history.learning_rate, 0.05 * 0.5 ** np.maximum(np.arange(6) - 1, 0))


@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_validation_loss_is_that_of_the_network_as_it_answers(tmp_path: Path, checkpoints: bool) -> None:
    """Without dropout and by the running statistics; and so it is left, also where nothing was left to train."""
    run, data = Run(checkpoints=tmp_path if checkpoints else None), Pictures(20)
    off = {"first": lambda outputs, targets: (outputs["first"] - targets["first"]).abs()}
    for _ in range(2):
        network = two_heads()
        history = train(network, both, Pictures(), data, CONFIG, 5, "pictures", metrics=off, run=run)
        inputs, targets = default_collate([data[index] for index in range(20)])
        outputs = network(inputs)
        assert both(outputs, targets).item() == pytest.approx(history.validation[history.best_epoch], rel=1e-5)
        mean = off["first"](outputs, targets).mean().item()
        assert mean == pytest.approx(history.metrics["first"][history.best_epoch], rel=1e-5)


def test_the_best_epoch_is_the_lowest_of_all_and_the_rate_falls_where_none_is_lower() -> None:
    said = iter([3.0, 1.0, 2.0, 1.5, 1.2, 0.9])

    def scripted(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.mean() * 0 + (next(said) if torch.is_inference_mode_enabled() else 1.0)

    config = CONFIG.model_copy(update={"epochs": 5, "schedule": "plateau", "plateau_patience": 0})
    data = Samples(torch.ones(4, 1), torch.ones(4, 1))
    history = train(nn.Linear(1, 1), scripted, data, data, config, 0, "scripted")
    assert history.best_epoch == 1
    factor = config.plateau_factor
    np.testing.assert_allclose(history.learning_rate, 0.05 * factor ** np.array([0, 0, 0, 1, 2]))


def test_each_batch_is_drawn_anew_in_each_epoch_and_none_of_the_validation_is() -> None:
    orders: list[tuple[int, ...]] = []
    draws: list[float] = []
    unchanged: list[bool] = []

    class Noted(NoisyPictures):
        def batch(self, indices: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, Any]:
            orders.append(tuple(indices))
            assert rng is not None
            draws.append(rng.random())
            return super().batch(indices, None)

    class HeldOut(NoisyPictures):
        def batch(self, indices: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, Any]:
            unchanged.append(rng is None)
            return super().batch(indices, rng)

    config = CONFIG.model_copy(update={"epochs": 3})
    train(two_heads(), both, Noted(), HeldOut(20), config, 0, "noted")
    assert len(set(draws)) == len(draws) == 3 * 4
    epochs = [[index for part in orders[first : first + 4] for index in part] for first in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(50)) != epoch for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(unchanged)
    assert len(unchanged) == 3 * 2


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_weights_decay_as_configured(optimizer: str) -> None:
    """Without a gradient the weights change by their decay alone: Adam takes it for a gradient, AdamW as it is."""
    network, before = two_heads(), two_heads().body[0].weight
    config = CONFIG.model_copy(update={"epochs": 1, "weight_decay": 0.2, "optimizer": optimizer})
    train(network, lambda outputs, targets: both(outputs, targets) * 0, Pictures(), Pictures(20), config, 0, "flat")
    after = network.body[0].weight
    # Four batches, at a learning rate of 0.05.
    if optimizer == "adamw":
        torch.testing.assert_close(after, before * (1 - 0.05 * 0.2) ** 4)
    else:
        assert (after - before).abs().max() > 2 * 0.05


def test_a_smaller_last_batch_counts_by_its_samples() -> None:
    values = torch.arange(10.0)[:, None]
    config = TrainingConfig(epochs=1, batch_size=4, learning_rate=1e-9)
    mean = lambda outputs, targets: outputs.mean() + targets.mean()  # noqa: E731
    history = train(nn.Linear(1, 1), mean, Samples(0 * values, values), Samples(0 * values, values), config, 0, "mean")
    assert history.train[0] == pytest.approx(history.validation[0], abs=1e-5)


def test_a_gradient_is_clipped() -> None:
    norms = []
    network = two_heads()
    step = torch.optim.AdamW.step

    def spy(optimizer: torch.optim.AdamW, *arguments: object) -> object:
        norms.append(nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]).item())
        return step(optimizer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        train(network, both, Pictures(), Pictures(20), CONFIG.model_copy(update={"gradient_clip": 0.01}), 0, "clipped")
    # A float32 norm of a few dozen numbers.
    assert max(norms) <= 0.01 * (1 + 1e-5)


def test_half_precision_trains_and_answers_in_single() -> None:
    kinds = set()

    def seen(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
        kinds.update(value.dtype for value in outputs.values())
        return both(outputs, targets)

    network = two_heads()
    config = CONFIG.model_copy(update={"precision": "bfloat16"})
    history = train(network, seen, Pictures(), Pictures(20), config, 0, "half")
    assert kinds == {torch.float32}
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert history.train[-1] < history.train[0]
    full, _ = trained(Pictures())
    assert not same(full, network.state_dict())


def test_a_precision_by_the_device_is_said_and_never_changed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(checkpoints=tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with pytest.raises(StoppedError):
        noisy_training(run, stopped, precision="auto")
    assert capsys.readouterr().out == "net: precision: auto is bfloat16 on cpu\n"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.cpu, "get_capabilities", dict)
        with pytest.raises(TrainingError, match=r"net.checkpoint was begun in bfloat16, .* auto is float32 on this"):
            noisy_training(run, precision="auto")
        _, history = trained(Pictures(), config=CONFIG.model_copy(update={"precision": "auto"}))
        assert history.precision == "float32"
    resumed = noisy_training(run, precision="auto")
    assert same(resumed.state_dict(), noisy_training(Run(), precision="bfloat16").state_dict())


def test_an_epoch_goes_through_what_is_ordered() -> None:
    read: list[int] = []

    class Noted(Pictures):
        def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, float]]:
            read.append(index)
            return super().__getitem__(index)

    weights = torch.tensor([1.0] * 10 + [0.0] * 40)
    train(
        two_heads(),
        both,
        Noted(),
        Pictures(20),
        CONFIG.model_copy(update={"epochs": 2}),
        0,
        "mixture",
        order=lambda generator: torch.multinomial(weights, 30, replacement=True, generator=generator),
    )
    assert len(read) == 60
    assert set(read) <= set(range(10))


def test_groups_have_their_own_rate() -> None:
    network = two_heads()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = [{"params": network.heads.parameters()}, {"params": network.body.parameters(), "lr": 0.0}]
    train(network, both, Pictures(), Pictures(20), CONFIG, 0, "groups", groups=groups)
    assert torch.equal(network.body[0].weight, before["body.0.weight"])
    assert not torch.equal(network.heads["sum"].weight, before["heads.sum.weight"])


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least one sample"):
        trained(Pictures(0))


def noisy_training(run: Run, stop: Callable[[int], None] = lambda batch: None, **changes: object) -> TwoHeads:
    """Dropout, noise from two sources, a schedule; ``stop`` is called before each batch with its number, from 1."""
    add, batches = gaussian_noise(torch.tensor(0.1)), itertools.count(1)

    def augment(inputs: torch.Tensor, targets: object, generator: torch.Generator) -> tuple[torch.Tensor, object]:
        stop(next(batches))
        return add(inputs, targets, generator)

    network, config = two_heads(), CONFIG.model_copy(update=changes)
    train(network, both, NoisyPictures(), Pictures(20), config, 3, "net", augment=augment, run=run)
    return network


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import torch._dynamo  # an optimizer loads it; here it is loaded once for all runs
from nlml_hpe.training_run import Run
from tests.test_training import noisy_training

def training(folder, last):
    def stop(batch):
        if batch == last:
            os.kill(os.getpid(), signal.SIGKILL)

    network = noisy_training(Run(checkpoints=folder / "net.training", workers=2), stop)
    torch.save(network.state_dict(), folder / "weights.pt")

folder = Path(sys.argv[1])
for last in map(int, sys.argv[2:]):
    child = os.fork()
    if not child:
        training(folder, last)
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, *sorted(path.name for path in folder.rglob("*") if path.is_file()), flush=True)
"""


def test_a_killed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch, twice; the last run ends as one that nobody disturbed."""
    # Four batches an epoch: killed in the third epoch, and again in the second of those that were left.
    command = [sys.executable, "-c", KILLED, str(tmp_path), "11", "6", "-1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    killed, checkpoint = int(-signal.SIGKILL), f"net{SUFFIX}"
    runs = [f"{killed} {checkpoint}", f"{killed} {checkpoint}", f"0 {checkpoint} weights.pt"]
    assert done.stdout.splitlines() == runs, done.stderr
    assert same(torch.load(tmp_path / "weights.pt", weights_only=True), noisy_training(Run()).state_dict())


class StoppedError(Exception):
    """What ends a training in a test."""


def stopped(batch: int) -> None:
    if batch == 15:
        raise StoppedError


@pytest.mark.parametrize("changes", [{"schedule": "plateau", "plateau_patience": 0}, {"optimizer": "adam"}])
def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path: Path, changes: dict[str, object]) -> None:
    run = Run(checkpoints=tmp_path)
    with pytest.raises(StoppedError):
        noisy_training(run, stopped, **changes)
    resumed = noisy_training(run, **changes)
    assert same(resumed.state_dict(), noisy_training(Run(), **changes).state_dict())


def test_a_checkpoint_of_another_training_is_not_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is said before it is replaced: hours of training are lost with it."""
    run = Run(checkpoints=tmp_path, inputs="these")
    weights, history = trained(Pictures(), run=run)
    read: list[int] = []

    class Noted(Pictures):
        def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, float]]:
            read.append(index)
            return super().__getitem__(index)

    # Curves change no weights.
    again, same_history = trained(Noted(), config=CONFIG.model_copy(update={"tensorboard": True}), run=run)
    assert same(again, weights)
    assert same_history == history
    assert not read, "a finished training is not run again"
    assert "starts anew" not in capsys.readouterr().out
    for other in (Run(checkpoints=tmp_path, inputs="others"), run):
        config = CONFIG if other is not run else CONFIG.model_copy(update={"epochs": 3})
        assert trained(Pictures(), config=config, run=other)[1].epochs_run == config.epochs
        assert f"pictures{SUFFIX} is of other settings, other data or another version" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["seed", "size", "layers", "metrics"])
def test_what_a_training_depends_on_makes_it_another_one(tmp_path: Path, other: str) -> None:
    """The checkpoint beside it changes nothing of it."""

    def ended(run: Run, changed: str = "") -> tuple[dict[str, torch.Tensor], History]:
        network = two_heads()
        if changed == "layers":
            network.body[0], network.body[1] = nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8, affine=False)
            nn.init.ones_(network.body[0].weight)
        data = Pictures(40 if changed == "size" else 50)
        metrics = {"none": lambda outputs, _: 0 * outputs["sum"]} if changed == "metrics" else {}
        seed = 6 if changed == "seed" else 5
        return network.state_dict(), train(
            network, both, data, Pictures(20), CONFIG, seed, "x", metrics=metrics, run=run
        )

    ended(Run(checkpoints=tmp_path))
    (weights, history), (expected, alone) = ended(Run(checkpoints=tmp_path), other), ended(Run(), other)
    assert same(weights, expected)
    assert history == alone


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full_disk(path: Path, content: memoryview) -> int:
        write(path, content[:100])
        raise OSError(28, "No space left on device")

    path = write_checkpoint(tmp_path, "x", "id", {"n": 1})
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, "x", "id", {"n": 2})
    assert read_checkpoint(tmp_path, "x", "id") == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


@dataclass
class Runs:
    """What makes a folder where it is read as pickle reads."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "x", "id", {"n": Runs(tmp_path / "made")})
    with pytest.raises(TrainingError, match=f"x{SUFFIX}.*starts anew"):
        read_checkpoint(tmp_path, "x", "id")
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_of_another_version_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, batches = Run(checkpoints=tmp_path), list[int]()
    noisy_training(run, batches.append)
    monkeypatch.setattr("nlml_hpe.training.VERSION", "0.0.1")
    noisy_training(run, batches.append)
    assert len(batches) == 2 * 4 * CONFIG.epochs


@pytest.mark.parametrize("content", ["damaged", "foreign", "truncated"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / f"pictures{SUFFIX}"
    if content == "damaged":
        path.write_bytes(b"no checkpoint")
    elif content == "foreign":
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        trained(Pictures(), run=Run(checkpoints=tmp_path))
        path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    with pytest.raises(TrainingError, match=f"pictures{SUFFIX}.*starts anew"):
        trained(Pictures(), run=Run(checkpoints=tmp_path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("missing", ["network", "random", "history"])
def test_a_checkpoint_whose_state_does_not_fit_is_named(tmp_path: Path, missing: str) -> None:
    trained(Pictures(), run=Run(checkpoints=tmp_path))
    path = tmp_path / f"pictures{SUFFIX}"
    content = torch.load(path, weights_only=True)
    del content["state"][missing]
    torch.save(content, path)
    with pytest.raises(TrainingError, match=f"pictures{SUFFIX}.*starts anew"):
        trained(Pictures(), run=Run(checkpoints=tmp_path))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch reads on, and fails
def test_a_checkpoint_that_is_damaged_anywhere_is_named(tmp_path: Path) -> None:
    path, rng = write_checkpoint(tmp_path, "x", "id", {"n": [torch.zeros(64), 1, "text"]}), np.random.default_rng(0)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(300):
        changed = whole[: rng.integers(1, len(whole))].copy()
        # Without the four bytes of a zip file it is read as torch wrote files before.
        changed[rng.integers(min(len(changed), 4), size=2)] = rng.integers(256, size=2)
        path.write_bytes(changed.tobytes())
        with pytest.raises(TrainingError, match=f"x{SUFFIX}.*starts anew"):
            read_checkpoint(tmp_path, "x", "id")


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "net.training"
    run = Run(checkpoints=folder)
    trained(Pictures(), run=run)
    (folder / "notes.txt").write_text("mine")
    run.clear()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    run.clear()
    assert not folder.exists()
    run.clear()


def test_noise_is_one_for_all_or_one_per_column() -> None:
    inputs = torch.zeros(1000, 2)
    noisy, _ = gaussian_noise(torch.tensor([0.0, 2.0]))(inputs, inputs, torch.Generator().manual_seed(0))
    assert (noisy[:, 0] == 0).all()
    # The deviation of a thousand numbers is known to about 2%.
    assert noisy[:, 1].std().item() == pytest.approx(2, rel=0.1)


def test_samples_must_match() -> None:
    with pytest.raises(TrainingError, match="as many inputs as targets"):
        Samples(torch.zeros(3, 1), torch.zeros(2, 1))
