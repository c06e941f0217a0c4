"""What a folder of labelled faces holds, and lists of them: ``python -m nlml_hpe.evaluation.datasets``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, compress
from pathlib import Path

from nlml_hpe.evaluation.datasets import (
    LAYOUTS,
    SPLITS,
    Dataset,
    DatasetError,
    read_dataset,
    read_list,
    recognised_layout,
    split,
    write_lists,
)
from nlml_hpe.evaluation.options import exit_code_of
from nlml_hpe.evaluation.protocols import PROTOCOLS, protocol_of
from nlml_hpe.files.images import user_path

_EXAMPLES = """examples:
  python -m nlml_hpe.evaluation.datasets info AFLW2000
  python -m nlml_hpe.evaluation.datasets list AFLW2000 --output files.txt
  python -m nlml_hpe.evaluation.datasets split 300W_LP --train 0.7 --validation 0.15 --seed 0 --output lists
"""
_EVERY_FACE = "all"
_ROOT = "folder of the data set, as it is distributed (for fsanet also one .npz file)"


def parser() -> argparse.ArgumentParser:
    """The commands ``info``, ``list`` and ``split``."""
    whole = argparse.ArgumentParser(
        prog="python -m nlml_hpe.evaluation.datasets",
        description="Look into a folder of labelled faces, or list its faces. Images and labels are never changed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    info = _command(commands, "info", "say how many labelled faces there are, and what cannot be used and why")
    info.set_defaults(work=_info)
    names = _command(
        commands,
        "list",
        "write the names of the labelled faces, one a line, without suffix (of rendered images with it); without "
        "--protocol those within 99 degrees, as 6DRepNet's own lists: HopeNet has no bin for the others",
    )
    names.add_argument("--output", type=user_path, metavar="FILE", help="default: files.txt in ROOT")
    names.set_defaults(work=_list)
    parts = _command(
        commands,
        "split",
        "divide the faces at random into train.txt, validation.txt and test.txt; one photograph's crops, one "
        "person's frames and one identity's renders stay in one list",
    )
    parts.add_argument("--train", type=float, default=0.7, help="share of the faces (default: %(default)s)")
    parts.add_argument("--validation", type=float, default=0.15, help="share of the faces (default: %(default)s)")
    parts.add_argument("--seed", type=int, default=0, help="same seed, same lists (default: %(default)s)")
    parts.add_argument("--output", type=user_path, metavar="FOLDER", help="where the lists go (default: ROOT)")
    parts.set_defaults(work=_split)
    for command in (names, parts):
        command.add_argument("--force", action="store_true", help="replace lists that are there already")
    text = "only the faces of this protocol (`info` names them), or `all` of them (default: "
    names.add_argument("--protocol", metavar="NAME", help=f"{text}within 99 degrees)")
    parts.add_argument("--protocol", metavar="NAME", default=_EVERY_FACE, help=f"{text}%(default)s)")
    return whole


def _command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument("root", type=user_path, metavar="ROOT", help=_ROOT)
    command.add_argument("--dataset", choices=sorted(LAYOUTS), help="how the folder is laid out (default: found out)")
    return command


def _info(data: Dataset, given: argparse.Namespace) -> None:
    for name, protocol in PROTOCOLS.items():
        if protocol.dataset == data.name:
            count = int(protocol.includes(data.angles).sum())
            print(f"protocol {name}: {count} of {len(data.samples)} ({protocol.text()})")


def _list(data: Dataset, given: argparse.Namespace) -> None:
    path: Path = given.output or _folder_of(given.root) / "files.txt"
    data = _of_protocol(data, given.protocol)
    write_lists({path: [sample.name for sample in data.samples]}, given.force)
    print(f"wrote {path}: {len(data.samples)} names")


def _split(data: Dataset, given: argparse.Namespace) -> None:
    folder: Path = given.output or _folder_of(given.root)
    if given.seed < 0:
        raise DatasetError(f"--seed: expected 0 or more; received {given.seed}")
    data = _of_protocol(data, given.protocol)
    parts = split(data, given.train, given.validation, given.seed)
    _require_apart(folder, parts)
    write_lists({folder / f"{name}.txt": names for name, names in parts.items()}, given.force)
    for name, names in parts.items():
        print(f"wrote {folder / name}.txt: {len(names)} of {len(data.samples)} names")


def _require_apart(folder: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Raise ``DatasetError`` where a list of another split would stay beside these and share faces with them."""
    chosen = set(chain(*parts.values()))
    for path in (folder / f"{name}.txt" for name in SPLITS if name not in parts):
        if path.is_file() and (shared := chosen.intersection(read_list(path))):
            raise DatasetError(
                f"{path} is there already, of another split; this one has no such list, and {len(shared)} of its faces "
                "in others; move it away, or name another folder with --output"
            )


def _of_protocol(data: Dataset, name: str | None) -> Dataset:
    """The faces that a protocol chooses; how many it leaves out is printed."""
    if name == _EVERY_FACE:
        return data
    protocol = PROTOCOLS[protocol_of(data.name, name)]
    inside = protocol.includes(data.angles)
    if not inside.any():
        raise DatasetError(f"none of {len(inside)} labels lies in the range {protocol.text()}")
    if not inside.all():
        print(f"left out, label outside of {protocol.text()}: {int((~inside).sum())} of {len(inside)}")
    return replace(data, samples=list(compress(data.samples, inside)))


def _folder_of(root: Path) -> Path:
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder to write a list into; name one with --output")
    return root


def work(given: argparse.Namespace) -> None:
    """Read the data set and do what the command says."""
    data = read_dataset(given.dataset or recognised_layout(given.root), given.root)
    print(data.summary())
    given.work(data, given)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code_of(work, parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
