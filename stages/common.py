"""What every stage shares: where artefacts lie, when one is up to date, and the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlml_hpe.config import TrainingConfig
from nlml_hpe.device import DEVICES, DeviceName, resolve_device
from nlml_hpe.evaluation.options import ERRORS, exit_code_of
from nlml_hpe.files.atomic import ArtifactError, write_bytes, write_json
from nlml_hpe.files.folders import fresh_folder, place_of, remove_own, require_replaceable
from nlml_hpe.files.locks import exclusive
from nlml_hpe.files.manifests import (
    MANIFEST,
    digest_of,
    digest_of_file,
    is_current,
    manifest_digest,
    read_manifest,
    require_intact,
)
from nlml_hpe.parallel import WorkerError
from nlml_hpe.training_error import TrainingError
from nlml_hpe.words import why_no_file
from stages.config import Config, load_config

if TYPE_CHECKING:  # loads torch, which takes a second that stages without a network need not wait
    from torch import nn

    from nlml_hpe.training_run import History, Run

USER_ERRORS = (*ERRORS, TrainingError, WorkerError)


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
        self.image_network = root / "image_network"
        self.model = root / "model"
        self.image_network_int8 = root / "image_network_int8"
        self.sprites_train = root / "sprites_train"
        self.sprites_validation = root / "sprites_validation"
        self.head_network = root / "head_network"
        self.refinement_network = root / "refinement_network"
        self.image_model = root / "image_model"
        self.image_test = root / "image_test"
        self.test = root / "test"


@dataclass(frozen=True)
class Plan:
    """What a stage would write: folders, kind, and everything the result depends on.

    Attributes
    ----------
    folders : tuple of Path
        The artefacts that the stage writes, all of one ``kind``.
    settings : dict
        JSON form of the configuration's sections that they depend on.
    reads : dict from Path to str
        Artefacts of other stages that are read, with their kinds.
    others : dict from str to str
        Digests of whatever else is read, or versions.
    kept : dict from Path to str
        What the stage keeps beside its artefacts, lest slow work be done twice, with kinds; made anew by ``--force``.
    pictures : tuple of Path
        What ``Stage.draw`` draws beside the artefacts, which say whether they are finished, but nothing of these.
    inputs : dict from str to str
        Digests of all that is read, by name.
    manifests : dict from Path to dict
        Of the artefacts that are read.

    Raises
    ------
    ArtifactError
        Where an artefact that is read is unfinished, was changed after it was written, or was made from another
        version of one that is read beside it.
    """

    folders: tuple[Path, ...]
    kind: str
    settings: dict[str, Any]
    reads: Mapping[Path, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[Path, str] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()
    inputs: dict[str, str] = field(init=False)
    manifests: dict[Path, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        digests = {folder.name: manifest_digest(folder, kind) for folder, kind in self.reads.items()}
        object.__setattr__(self, "inputs", {**digests, **self.others})
        manifests = {folder: read_manifest(folder, kind) for folder, kind in self.reads.items()}
        object.__setattr__(self, "manifests", manifests)
        for folder, manifest in manifests.items():
            made_from = manifest["inputs"]
            for name in made_from.keys() & digests.keys():
                if made_from[name] != digests[name]:
                    raise ArtifactError(
                        f"{folder} was made from another {name} than the one beside it; run the stage that makes "
                        f"{folder.name} again"
                    )

    def outdated(self) -> list[str]:
        """A line for each artefact beside one that is read which was made anew after that one was made from it.

        It may be meant so, but what the stage writes is then not of what lies there.
        """
        lines = []
        for folder, manifest in self.manifests.items():
            for name, digest in manifest["inputs"].items():
                source = folder.parent / name / MANIFEST
                if Path(name).name == name and source.is_file() and digest_of_file(source) != digest:
                    lines.append(
                        f"{folder} was made before the {name} beside it; to use that, make {folder.name} again"
                    )
        return lines

    def of_other_settings(self, config: Config) -> list[str]:
        """A line for each artefact that is read which was made with other settings than the configuration has now.

        Sections are compared that a stage keeps as they are; of heads and grid it keeps what its images depend on.
        """
        lines = []
        for folder, manifest in self.manifests.items():
            made = manifest["config"]
            now = config.sections(*(made.keys() & type(config).model_fields.keys() - {"heads", "grid"}))
            changed = sorted(name for name, section in now.items() if made[name] != section)
            if changed:
                lines.append(
                    f"{folder} was made with other settings of {', '.join(changed)} than the configuration has; to use "
                    f"these, make {folder.name} again"
                )
        return lines

    def is_current(self, full: bool = False) -> bool:
        """Whether the artefacts are there, unchanged, and made from exactly this; ``full`` reads every file."""
        return all(is_current(folder, self.kind, self.settings, self.inputs, full) for folder in self.folders)


@dataclass(frozen=True)
class Stage:
    """A stage by name: ``plan`` says what it depends on, ``main`` does the work and returns the artefact.

    ``check``, where there is one, raises what is wrong whatever the stages before it write: a chain asks it first.
    ``draw`` draws the plan's pictures of a finished artefact, as ``main`` does at its end.
    """

    name: str
    plan: Callable[[Config], Plan]
    main: Callable[[Config], Path]
    check: Callable[[Config], None] | None = None
    draw: Callable[[Config], None] | None = None


def run_stage(stage: Stage, config: Config, force: bool = False, verify: bool = False) -> Path:
    """Run a stage unless it is up to date; prints one line with time and what was written.

    ``verify`` compares every file that the stage reads, or would write, with its digest, in full.
    """
    plan = stage.plan(config)
    for folder, kind in plan.reads.items() if verify else ():
        require_intact(folder, kind, full=True)
    for line in (*plan.outdated(), *plan.of_other_settings(config)):
        print(f"{stage.name}: {line}", flush=True)
    if plan.is_current(verify) and not force:
        _draw_missing(stage, plan, config)
        print(f"{stage.name:<16} up to date   {plan.folders[0]}", flush=True)
        return plan.folders[0]
    for folder in plan.folders:  # before hours of work, not after them
        require_replaceable(folder, plan.kind)
    for folder, kind in plan.kept.items() if force else ():
        with exclusive(folder):
            remove_own(place_of(folder), kind)
    for path in plan.pictures:  # lest those of other people stay beside the new artefact
        path.unlink(missing_ok=True)
    start = time.monotonic()
    written = stage.main(config)
    print(f"{stage.name:<16} {time.monotonic() - start:8.1f} s   wrote {written}", flush=True)
    return written


def _draw_missing(stage: Stage, plan: Plan, config: Config) -> None:
    """Draw the pictures that a run did not come to which was killed after it had finished the artefact.

    Where they cannot be written, as on a disk that is only read, this is said, for the artefact is of use without them.
    """
    if stage.draw is None or all(path.is_file() for path in plan.pictures):
        return
    try:
        stage.draw(config)
    except OSError as error:
        print(f"{stage.name}: a picture beside the artefact is missing: {error}", file=sys.stderr)


def training_run(config: Config, folder: Path, plan: Plan) -> Run:
    """Where a training stage runs: its checkpoints lie beside its folder and are of these settings and inputs."""
    from nlml_hpe.training_run import Run

    return Run(
        device=resolve_device(config.device),
        workers=config.n_workers,
        checkpoints=folder.with_name(f"{folder.name}.training"),
        inputs=digest_of([plan.settings, plan.inputs]),
        log_folder=config.workdir,
    )


def require_trainable(config: Config, settings: TrainingConfig) -> None:
    """Raise what any training would at its start: ``DeviceError`` for a device that is not there, and
    ``MissingPackageError`` for curves without TensorBoard."""
    from nlml_hpe.training_run import curve_writer

    resolve_device(config.device)
    if settings.tensorboard:
        curve_writer()


@contextmanager
def training_folder(folder: Path, kind: str, run: Run) -> Iterator[Path]:
    """As ``fresh_folder``, held while a network is trained, so that no second run writes the same checkpoints.

    They are removed once ``folder`` is in its place. Until then it may be refused that, after hours of training, which
    the same command then does not do again.
    """
    with fresh_folder(folder, kind) as partial:
        yield partial
    run.clear()


def write_trained(weights: Path, network: nn.Module, history: History) -> dict[str, Any]:
    """Write a trained network's weights, and its history and curves beside them; returns facts for the manifest."""
    from safetensors.torch import save

    from nlml_hpe.view.training_plots import plot_measures

    write_bytes(weights, save({name: value.contiguous() for name, value in network.state_dict().items()}))
    write_json(weights.with_name("history.json"), asdict(history))
    plot_measures(history, weights.with_name("curves.png"))
    return {**history.epochs, "parameters": sum(value.numel() for value in network.parameters())}


def digest_of_weights(file: Path, setting: str) -> str:
    """The digest of weights that a training begins with; ``setting`` names them.

    Raises ``ArtifactError`` where there is no such file, or a folder in its place.
    """
    if not file.is_file():
        raise ArtifactError(f"{file}: {why_no_file(file, 'file')}; correct {setting}")
    return digest_of_file(file)


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all stages share: ``--config``, ``--force``, ``--verify``, ``--cluster``, ``--device``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--config", type=Path, default=Path("configs/demo.yaml"), help="settings, as YAML (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="run even where the artefact is up to date")
    text = "compare every file with its digest in full; otherwise large ones by size, time and a sample"
    parser.add_argument("--verify", action="store_true", help=text)
    text = "tcp://HOST:PORT of a Dask scheduler; its workers do the tasks (heads, images and workdir on a shared disk)"
    parser.add_argument("--cluster", help=text)
    text = "where torch computes (default: what the configuration says, by itself the first of cuda, mps and cpu)"
    parser.add_argument("--device", choices=DEVICES, help=text)
    return parser


def config_of(given: argparse.Namespace) -> Config:
    """The configuration that the command line names, computed where it says."""
    return computed_on(load_config(given.config), given.cluster, given.device)


def computed_on(config: Config, cluster: str | None, device: DeviceName | None) -> Config:
    """The configuration with its tasks in this cluster and torch on this device, where one is given.

    Raises ``DeviceError`` for a device that this machine lacks, before the first stage.
    """
    if device is not None:
        resolve_device(device)
    given = {"cluster": cluster or None, "device": device}
    return config.model_copy(update={name: value for name, value in given.items() if value is not None})


def stage_command(stage: Stage, description: str) -> int:
    """The command line of a stage that has the shared arguments only; returns the exit code."""

    def work(given: argparse.Namespace) -> None:
        run_stage(stage, config_of(given), given.force, given.verify)

    return guarded(work, stage_parser(description).parse_args())


def guarded(work: Callable[[argparse.Namespace], None], given: argparse.Namespace) -> int:
    """Do the work and return the exit code: 0, 1 after an error that is the user's to mend, 130 after Ctrl-C."""
    kept = "interrupted: finished stages, people and images are kept, and the same command goes on from there"
    return exit_code_of(work, given, USER_ERRORS, kept)
