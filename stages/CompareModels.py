"""Models beside one another on one data set: every eye and route of each, what it costs, and how it errs.

For instance ``python stages/CompareModels.py --models checkpoints/ict_facekit data/image_ict/image_model --dataset
aflw2000 --root AFLW2000 --output comparison``. A model is a model folder, the ``image_network`` folder that
ImageTrainer wrote, or HopeNet's weights as published (``hopenet_robust_alpha1.pkl``). Written are ``table.txt``,
``metrics.csv``, ``metrics.json``, ``comparison.png``, predictions and plots for each set of faces, and the poses of
some images, drawn as axes and as cubes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import stages.guard  # noqa: F401

from nlml_hpe.device import DEVICES, resolve_device
from nlml_hpe.evaluation.command import nothing_kept, require_apart
from nlml_hpe.evaluation.compare import chosen_images, compare, compared_faces, write_comparison
from nlml_hpe.evaluation.datasets import LAYOUTS, read_dataset
from nlml_hpe.evaluation.protocols import PROTOCOLS, protocol_of
from nlml_hpe.files.folders import fresh_folder, require_replaceable
from nlml_hpe.files.images import user_path
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.model.format import SHIPPED
from stages.common import Workdir, guarded

KIND = "comparison"
"""What the manifest calls the folder; one of another kind is never replaced."""
_IMAGES = 12
_COMMON = tuple(Workdir(Path(".")).__dict__)
"""Names of folders in a workdir: they tell no models apart."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(description=__doc__)
    whole.add_argument(
        "--models",
        type=user_path,
        nargs="+",
        default=[SHIPPED],
        metavar="MODEL",
        help="model folders, trained networks, HopeNet's published weights (default: the shipped model)",
    )
    whole.add_argument("--dataset", choices=sorted(LAYOUTS), required=True, help="which data set it is")
    whole.add_argument("--root", type=user_path, required=True, metavar="FOLDER", help="the data set, as distributed")
    whole.add_argument(
        "--protocols",
        nargs="+",
        metavar="NAME",
        help=f"which faces count (default: both of the data set); known: {', '.join(sorted(PROTOCOLS))}",
    )
    text = "lists of names, as `datasets split` writes them: each is evaluated for itself (default: all faces)"
    whole.add_argument("--lists", type=user_path, nargs="+", default=[], metavar="FILE", help=text)
    whole.add_argument(
        "--output",
        type=user_path,
        default=Path("data/comparison"),
        metavar="FOLDER",
        help="where table, plots and drawn poses go (default: %(default)s)",
    )
    whole.add_argument(
        "--images", nargs="+", default=[], metavar="NAME", help=f"whose poses to draw (default: {_IMAGES})"
    )
    whole.add_argument("--seed", type=int, default=0, help="of the images that are drawn by lot (default: %(default)s)")
    text = "where the exact inverse is computed (default: the first of cuda, mps and cpu that is there)"
    whole.add_argument("--device", choices=DEVICES, default="auto", help=text)
    return whole


def work(given: argparse.Namespace) -> None:
    """Compare, write the folder, and print the table."""
    protocols = [
        protocol_of(given.dataset, name) for name in given.protocols or (given.dataset, f"{given.dataset}-nlml")
    ]
    resolve_device(given.device)
    require_replaceable(given.output, KIND)
    require_apart(given.output, given.root)
    models = named(given.models)
    data = read_dataset(given.dataset, given.root)
    shown = chosen_images(compared_faces(data, protocols, given.lists), given.images, _IMAGES, given.seed)
    print(data.summary(), flush=True)
    with nothing_kept(given.output), fresh_folder(given.output, KIND) as folder:
        write_comparison(folder, compare(models, data, protocols, given.lists, given.device), shown)
        settings = {name: str(value) for name, value in vars(given).items() if name != "output"}
        write_manifest(folder, KIND, settings, {})
    print((given.output / "table.txt").read_text(encoding="utf-8"), end="")


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Models by names that tell them apart: the folder's, or the experiment's where all folders are called alike.

    Where these are taken, the name is the path as it was given, and where that is, too, the whole path.

    Raises ``ValueError`` for a folder that is named twice.

    Examples
    --------
    >>> list(named([Path("checkpoints/ict_facekit"), Path("data/a/model"), Path("data/a/image_network")]))
    ['ict_facekit', 'a', 'a/image_network']
    """
    models: dict[str, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in (other.resolve() for other in models.values()):
            raise ValueError(f"{folder} is named twice")
        short = place.parent.name if place.name in _COMMON else place.name
        choices = (short, f"{place.parent.name}/{place.name}", str(folder), str(place))
        models[next(name for name in choices if name not in models)] = folder
    return models


if __name__ == "__main__":
    sys.exit(guarded(work, parser().parse_args()))
