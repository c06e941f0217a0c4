"""The box of FaceMesh's landmarks beside that of the 68 points: ``python benchmarks/landmark_boxes.py --crops FOLDER``.

FOLDER holds rendered crops of people that no network has seen (the stage Crops' ``crops_validation``); more may follow.
A minute for a thousand crops. ``detection.landmarks`` widens boxes by the two numbers that are fitted here.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from tqdm import tqdm

from benchmarks.common import report
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import BOX_SHORT, BOX_SHORTER_IN_PROFILE, box_of_68, facemesh_profile
from nlml_hpe.image_networks.crop import square_around
from nlml_hpe.image_networks.shards import read_shards
from nlml_hpe.rotation import angles_from_rotation

_EVERY = 2
_LIMITS_DEG = (100, 60, 60)
_EDGES = (0.0, 0.05, 0.2, 0.4, 0.6, 1.0)
_OUTLYING, _SCATTER = 0.5, 0.03
"""Logarithms beyond the first are of a face seen elsewhere; the second is where the fit's loss becomes linear."""


def main(folders: Sequence[Path]) -> None:
    """Measure, fit, print and save."""
    profile, short = np.concatenate([measured(folder) for folder in folders]).T
    used = np.abs(short) < _OUTLYING
    profile, short = profile[used], short[used]
    fitted = least_squares(lambda p: p[0] + p[1] * profile - short, [0.0, 0.0], loss="soft_l1", f_scale=_SCATTER).x
    rows: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(_EDGES):
        some = short[(profile >= low) & (profile < high)]
        row: dict[str, Any] = {"squared sine of the turn": f"{low:g}..{high:g}", "faces": len(some)}
        rows.append({**row, "logarithm of the sides' ratio, median": float(np.median(some)), "sd": float(some.std())})
    notes = [
        f"fitted: {fitted[0]:.3f} + {fitted[1]:.3f} of the squared sine; in use: {BOX_SHORT:g} + "
        f"{BOX_SHORTER_IN_PROFILE:g}; {int((~used).sum())} of {len(used)} faces, seen elsewhere, left out"
    ]
    report("landmark_boxes", "Squares around the 68 points, over those around FaceMesh's", rows, notes)


def measured(folder: Path) -> NDArray[np.float64]:
    """Of every face that is found: how far it is turned, and the logarithm by which its box is too small, (n, 2)."""
    rows = []
    with FaceMeshOnnx(max_faces=1) as detector:
        for shard in tqdm(read_shards(folder), desc=folder.name, unit="shard"):
            angles = np.abs(angles_from_rotation(shard.rotations.astype(np.float64)).columns())
            for number in np.flatnonzero((angles <= _LIMITS_DEG).all(axis=1))[::_EVERY]:
                box = shard.boxes[number].astype(np.float64)
                face = detector.detect_in_box(np.ascontiguousarray(shard.images[number]), tuple(box.tolist()))
                if face is None or face.points is None:
                    continue
                turn = facemesh_profile(face.points)
                own = square_around(box_of_68(replace(face, given_box=None)))[2]
                corrected = BOX_SHORT + BOX_SHORTER_IN_PROFILE * turn
                rows.append((turn, np.log(square_around(box)[2] / own) + corrected))
    return np.array(rows).reshape(-1, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=Path, nargs="+", required=True, metavar="FOLDER")
    main(parser.parse_args().crops)
