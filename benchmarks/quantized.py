"""An image network in eight bits beside itself in float32: ``python benchmarks/quantized.py --config C``.

Both ONNX files run crop by crop on one core, in turns, in one process, measured in processor time: medians, and the
median of the ratios of each turn, which a busy machine disturbs least. With ``--dataset`` and ``--root`` both also
answer labelled photographs, in the labels' boxes: mean absolute errors, and the difference with its 95% interval over
2,000 draws of faces. ``--untrained PX ...`` times a network of random weights (``--network``) at these sizes in place
of an experiment's, which takes no training. Needs ``pip install -e '.[quantize]'``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
import torch

from benchmarks.common import report
from benchmarks.labelled import boxed_faces
from nlml_hpe.evaluation.datasets import LAYOUTS
from nlml_hpe.evaluation.faces import ask
from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.files.manifests import read_manifest
from nlml_hpe.image_networks.network_training import KIND as IMAGE_NETWORK
from nlml_hpe.image_networks.quantize import FakeQuantized
from nlml_hpe.image_networks.registry import build
from nlml_hpe.inference.image_engine import ImageEngine
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.folder import HeadFrame
from nlml_hpe.model.format import IMAGE_INPUT
from nlml_hpe.model.image_export import ImageEye, export_image_eye, outputs_graph
from nlml_hpe.sessions import open_session
from stages import ImageModelBuilder
from stages.common import Workdir
from stages.config import load_config

_DRAWS = 2000


def timed(files: dict[str, Path], size: int, turns: int) -> list[dict[str, Any]]:
    """Milliseconds of processor time for one crop, in turns.

    A session of one thread computes in the thread that asks it, so that its time is the work's, whatever else runs.
    """
    crop = np.random.default_rng(0).uniform(0, 255, size=(1, 3, size, size)).astype(np.float32)
    sessions = {name: open_session(path, threads=1) for name, path in files.items()}
    spent: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(turns):
        for name, session in sessions.items():
            start = time.thread_time()
            session.run(None, {IMAGE_INPUT: crop})
            spent[name].append((time.thread_time() - start) * 1e3)
    ratio = statistics.median(a / b for a, b in zip(spent["float32"], spent["int8"], strict=True))
    return [
        {
            "network": name,
            "px": size,
            "MB": files[name].stat().st_size / 1e6,
            "ms, median": statistics.median(values),
            "ms, least": min(values),
            "times faster": ratio if name == "int8" else 1.0,
        }
        for name, values in spent.items()
    ]


def accuracy(files: dict[str, Path], dataset: str, root: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Add mean absolute errors on labelled photographs to the rows; a sentence about each protocol's difference."""
    answered = ask(boxed_faces(dataset, root), {n: ImageEngine(p).estimate for n, p in files.items()})
    each = {name: errors(given.rotation, answered.true).angle.mean(axis=1) for name, given in answered.answers.items()}
    sentences = []
    for name in (f"{dataset}-nlml", dataset):
        counts = PROTOCOLS[name].includes(answered.labels)
        for row in rows:
            row[f"MAE, {name}"] = float(each[row["network"]][counts].mean())
        difference = (each["int8"] - each["float32"])[counts]
        rng = np.random.default_rng(0)
        draws = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(_DRAWS)]
        low, high = np.quantile(draws, [0.025, 0.975])
        sentences.append(
            f"{name}, {len(difference)} faces of {root.name}, raw, label's box: int8 minus float32 "
            f"{difference.mean():+.3f} degrees of MAE ({low:+.3f}..{high:+.3f})."
        )
    return sentences


def of_experiment(path: Path, folder: Path) -> tuple[dict[str, Path], int]:
    """Both files of an experiment whose stages ran up to ImageModelBuilder, with ``image_model.int8``."""
    config = load_config(path)
    if not config.image_model.int8:
        raise SystemExit(f"{path}: image_model.int8 is off; there is nothing to compare")
    if not ImageModelBuilder.plan(config).is_current():
        raise SystemExit(
            f"{Workdir(config.workdir).image_model} is not of this config; run ImageModelBuilder with it first"
        )
    rounded = Workdir(config.workdir).image_model / IMAGE_EYE_FILE
    facts = read_manifest(Workdir(config.workdir).image_network, IMAGE_NETWORK)["facts"]
    whole = export_image_eye(ImageModelBuilder.image_eye(config, facts), folder / "float32.onnx")
    return {"float32": whole, "int8": rounded}, config.image_network.size


def untrained(name: str, size: int, folder: Path) -> dict[str, Path]:
    """Both files of a network with random weights."""
    torch.manual_seed(0)
    network = build(name, size).eval()
    eye = ImageEye(network, name, HeadFrame(), ((-90.0, 90.0),) * 3)
    fake = FakeQuantized(network, torch.rand(8, 3, size, size) * 255)
    whole = export_image_eye(eye, folder / f"float32_{size}.onnx")
    rounded = export_image_eye(eye, folder / f"int8_{size}.onnx", outputs_graph(fake.converted(), size))
    return {"float32": whole, "int8": rounded}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/mobilenetv2_int8.yaml"))
    parser.add_argument("--dataset", choices=sorted(LAYOUTS))
    parser.add_argument("--root", type=Path)
    parser.add_argument("--network", choices=("mobilenetv2", "six_d"), default="mobilenetv2", help="with --untrained")
    parser.add_argument("--untrained", type=int, nargs="+", metavar="PX", default=[])
    parser.add_argument("--turns", type=int, default=300)
    given = parser.parse_args()
    if (given.dataset is None) != (given.root is None):
        parser.error("--dataset and --root go together; one of them is missing")
    notes = ["One crop at a time, both in turns, processor time of one core; times faster: median ratio of the turns."]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.untrained:
            pairs = [(untrained(given.network, size, folder), size) for size in given.untrained]
            rows = [row for files, size in pairs for row in timed(files, size, given.turns)]
            report(
                f"quantized_untrained_{given.network}", f"{given.network} of random weights in eight bits", rows, notes
            )
            return
        files, size = of_experiment(given.config, folder)
        rows = timed(files, size, given.turns)
        if given.dataset:
            notes.extend(accuracy(files, given.dataset, given.root, rows))
        report(f"quantized_{given.config.stem}", f"{given.config.stem} in eight bits", rows, notes)


if __name__ == "__main__":
    main()
