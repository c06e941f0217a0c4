"""What every stage shares: where artefacts lie, when one is up to date, and the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nlml_hpe.detection.detectors import DetectorError
from nlml_hpe.device import resolve_device
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import digest_of, is_current
from nlml_hpe.parallel import WorkerError
from nlml_hpe.training import Run
from nlml_hpe.training_data import TrainingError
from stages.config import Config, load_config

# Errors that are the user's to mend: OSError is a full disk or a missing permission, the others are
# this project's own or say what was wrong with a value.
USER_ERRORS = (ArtifactError, DetectorError, TrainingError, WorkerError, OSError, ValueError)


class Workdir:
    """Folders of one experiment's artefacts below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.renders = root / "renders"
        self.crops_train = root / "crops_train"
        self.crops_validation = root / "crops_validation"
        self.landmarks_train = root / "landmarks_train"
        self.landmarks_validation = root / "landmarks_validation"
        self.manifold = root / "manifold"
        self.encoder = root / "encoder"
        self.heads = root / "heads"
        self.model = root / "model"
        self.test = root / "test"


@dataclass(frozen=True)
class Plan:
    """What a stage would write: folders, kind, and everything the result depends on."""

    folders: tuple[Path, ...]
    kind: str
    settings: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)

    def is_current(self) -> bool:
        """Whether the artefacts are there, complete, and made from exactly this."""
        return all(is_current(folder, self.kind, self.settings, self.inputs) for folder in self.folders)


@dataclass(frozen=True)
class Stage:
    """A stage by name: ``plan`` says what it depends on, ``main`` does the work and returns the artefact."""

    name: str
    plan: Callable[[Config], Plan]
    main: Callable[[Config], Path]


class Aside(NamedTuple):
    """Something else a stage's command can do: its arguments, and a function that says whether it was asked for."""

    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], bool]


def run_stage(stage: Stage, config: Config, force: bool = False) -> Path:
    """Run a stage unless it is up to date; prints one line with time and what was written."""
    plan = stage.plan(config)
    if plan.is_current() and not force:
        print(f"{stage.name:<16} up to date   {plan.folders[0]}", flush=True)
        return plan.folders[0]
    start = time.monotonic()
    written = stage.main(config)
    print(f"{stage.name:<16} {time.monotonic() - start:8.1f} s   wrote {written}", flush=True)
    return written


def training_run(config: Config, folder: Path, plan: Plan) -> Run:
    """Where a training stage runs: its checkpoints lie beside its folder and are of these settings and inputs."""
    return Run(
        device=resolve_device(config.device),
        workers=config.n_workers,
        checkpoints=folder.with_name(f"{folder.name}.training"),
        inputs=digest_of([plan.settings, plan.inputs]),
        log_folder=config.workdir,
    )


def stage_command(
    stage: Stage,
    description: str,
    adjust: Callable[[argparse.ArgumentParser], Callable[[Config, argparse.Namespace], Config]] | None = None,
    done: Callable[[Path], Any] | None = None,
    aside: Aside | None = None,
) -> int:
    """The command line of one stage: ``--config``, ``--force``, ``--cluster`` and what ``adjust`` adds.

    ``adjust`` may add arguments and returns a function (config, arguments) -> config; ``done`` is
    called with the artefact; ``aside`` may do something else in place of the stage's work.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--force", action="store_true", help="run even where the artefact is up to date")
    add_cluster(parser)
    if aside:
        aside.add(parser)
    change = adjust(parser) if adjust else None
    arguments = parser.parse_args()

    def work() -> None:
        if aside and aside.run(arguments):
            return
        config = on_cluster(load_config(arguments.config), arguments.cluster)
        written = run_stage(stage, change(config, arguments) if change else config, arguments.force)
        if done:
            done(written)

    return guarded(work)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """``--cluster``, which all stages with tasks per person share."""
    text = "tcp://HOST:PORT of a Dask scheduler; its workers do the tasks (heads, images and workdir on a shared disk)"
    parser.add_argument("--cluster", help=text)


def on_cluster(config: Config, cluster: str | None) -> Config:
    """The configuration with its tasks in this cluster, where one is given."""
    return config.model_copy(update={"cluster": cluster}) if cluster else config


def guarded(work: Callable[[], None]) -> int:
    """Run and turn errors that are the user's to mend into a message and exit code 1."""
    try:
        work()
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        text = "interrupted: finished stages, people and images are kept, and the same command goes on from there"
        print(f"\n{text}", file=sys.stderr)
        return 130
    return 0
