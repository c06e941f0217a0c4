"""Labelled faces as networks of crops are asked about them: by their labels' boxes, without a detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.evaluation.faces import LabelledFace, photographs


def boxed_faces(dataset: str, root: Path) -> Iterator[LabelledFace]:
    """The faces of a data set whose label has a box. Raises ``SystemExit`` where none has, as those of BIWI."""
    boxed = (one for one in photographs(read_dataset(dataset, root), None) if one.face.image is not None)
    first = next(boxed, None)
    if first is None:
        raise SystemExit(f"{root}: no label of {dataset} has a box, by which heads are cut; name another data set")
    yield first
    yield from boxed
