"""The pose grid: its axes, its order, and the file names that stand for its cells.

The grid is used by the renderer, the landmark tensor and the manifold alike, so it lives in the
library and not in the renderer. Axis order is always yaw, pitch, roll; unit is degrees.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlml_hpe.files.images import IMAGE_SUFFIXES
from nlml_hpe.rotation import AXES, Angles

Pose = tuple[float, float, float]
"""Yaw, pitch and roll in degrees."""
RANDOM_FOLDER = "random"
"""Where the images of a person lie whose poses are not on the grid."""
_NUMBER = r"-?\d+(?:\.\d+)?"
_IMAGE_NAME = re.compile(rf"ID(\d+)_\(\s*({_NUMBER})_({_NUMBER})_({_NUMBER})\)")
_FOLDER_NAME = re.compile(r"(?:ID)?(\d+)")


class RenderFolderError(ValueError):
    """A folder of rendered images does not hold exactly the images its grid asks for."""


@dataclass(frozen=True)
class PoseGrid:
    """Angles in degrees along each axis, ascending; arrays and lists become tuples. ``shape`` is (yaw, pitch, roll).

    Raises
    ------
    ValueError
        For an axis that is empty, does not ascend or holds what is no finite number.

    Examples
    --------
    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (0.0,), (-5.0, 5.0))
    >>> grid.shape, grid.size
    ((3, 1, 2), 6)
    """

    yaw: tuple[float, ...]
    pitch: tuple[float, ...]
    roll: tuple[float, ...]

    def __post_init__(self) -> None:
        for axis in AXES:
            values = tuple(map(float, getattr(self, axis)))
            object.__setattr__(self, axis, values)
            if not values or not np.isfinite(values).all() or any(b <= a for a, b in itertools.pairwise(values)):
                raise ValueError(f"grid axis {axis}: expected ascending finite angles, received {list(values)}")

    @property
    def axes(self) -> tuple[tuple[float, ...], ...]:
        """The three axes in the order yaw, pitch, roll."""
        return (self.yaw, self.pitch, self.roll)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells along yaw, pitch and roll."""
        return (len(self.yaw), len(self.pitch), len(self.roll))

    @property
    def size(self) -> int:
        """Number of poses."""
        return int(np.prod(self.shape))

    def angles(self) -> Angles:
        """Angles of every cell, each field of shape ``shape``."""
        return Angles(*np.meshgrid(*map(np.asarray, self.axes), indexing="ij"))

    def poses(self) -> list[tuple[float, float, float]]:
        """Every (yaw, pitch, roll) in the order of the flattened grid."""
        return list(itertools.product(self.yaw, self.pitch, self.roll))

    def as_dict(self) -> dict[str, list[float]]:
        """JSON form; ``from_dict`` reads it back."""
        return {axis: list(values) for axis, values in zip(AXES, self.axes, strict=True)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PoseGrid:
        """The grid that ``as_dict`` wrote.

        Parameters
        ----------
        data : dict
            For each of ``yaw``, ``pitch`` and ``roll`` its angles in degrees, ascending.

        Returns
        -------
        PoseGrid
            With these axes.

        Raises
        ------
        KeyError
            Where an axis is missing.
        ValueError
            Where the angles of one do not ascend, or are not finite.
        """
        return cls(*(data[axis] for axis in AXES))


def image_stem(identity: int, yaw: float, pitch: float, roll: float) -> str:
    """File name of one rendered pose: ``ID{n}_(yaw_pitch_roll)``.

    Parameters
    ----------
    identity : int
        The person's number.
    yaw, pitch, roll : float
        In degrees.

    Returns
    -------
    str
        Without suffix; ``parse_image_name`` reads it.

    Examples
    --------
    >>> image_stem(1, 10.0, 0.0, -2.5)
    'ID1_(10_0_-2.5)'
    """
    return f"ID{identity}_({'_'.join(map(_in_name, (yaw, pitch, roll)))})"


def survives_name(degrees: float) -> bool:
    """Whether an angle is the same when it is read from a file's name, which holds six digits of it.

    Examples
    --------
    >>> survives_name(12.25), survives_name(20 / 3)
    (True, False)
    """
    text = _in_name(degrees)
    return re.fullmatch(_NUMBER, text) is not None and float(text) == degrees


def _in_name(degrees: float) -> str:
    return f"{degrees + 0.0:g}"  # zero has no sign


def parse_image_name(name: str) -> tuple[int, tuple[float, float, float]]:
    """Identity and (yaw, pitch, roll) of a rendered image's file name.

    Raises ``RenderFolderError`` where the name does not parse.
    """
    stem = Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
    match = _IMAGE_NAME.fullmatch(stem)
    if match is None:
        raise RenderFolderError(f"{name!r} does not parse: expected ID{{n}}_(yaw_pitch_roll) with .jpg or .png")
    identity, yaw, pitch, roll = match.groups()
    return int(identity), (float(yaw), float(pitch), float(roll))


def identity_folders(root: Path) -> list[tuple[int, Path]]:
    """(identity, folder) of every ``ID{n}`` or ``{n}`` folder below ``root``, ascending.

    Raises ``RenderFolderError`` where there is none or two name the same identity.
    """
    found = [(int(m[1]), p) for p in root.iterdir() if p.is_dir() and (m := _FOLDER_NAME.fullmatch(p.name))]
    if not found:
        raise RenderFolderError(f"{root}: no identity folders (ID1, ID2, ...) here; is this one level too high or low?")
    found.sort()
    for (first, folder), (second, other) in itertools.pairwise(found):
        if first == second:
            raise RenderFolderError(f"{root}: {folder.name} and {other.name} both stand for identity {first}")
    return found


def other_folders(root: Path) -> list[str]:
    """Names of the folders below ``root`` that ``identity_folders`` leaves out, but for hidden ones."""
    folders = (path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(name for name in folders if not _FOLDER_NAME.fullmatch(name))


def grid_images(folder: Path, identity: int, grid: PoseGrid) -> list[Path]:
    """The images of one identity.

    Parameters
    ----------
    folder : Path
        With one image for each pose of the grid and no other file, but for hidden ones, which systems leave behind.
    identity : int
        The person's number.
    grid : PoseGrid
        The poses.

    Returns
    -------
    list of Path
        In the order of the flattened grid.

    Raises
    ------
    RenderFolderError
        For missing, duplicate, foreign and unparsable images; the first five such problems are named.
    """
    wanted = {pose: index for index, pose in enumerate(grid.poses())}
    found: dict[int, Path] = {}
    problems: list[str] = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            owner, pose = parse_image_name(path.name)
        except RenderFolderError as error:
            problems.append(str(error))
            continue
        if owner != identity:
            problems.append(f"{path.name} belongs to ID{owner}, not ID{identity}")
        elif pose not in wanted:
            problems.append(f"{path.name} is off the grid")
        elif wanted[pose] in found:
            problems.append(f"{path.name} repeats the pose of {found[wanted[pose]].name}")
        else:
            found[wanted[pose]] = path
    missing = [image_stem(identity, *pose) for pose, index in wanted.items() if index not in found]
    if missing:
        problems.append(f"{len(missing)} of {grid.size} poses are missing, first {missing[0]}")
    if problems:
        raise RenderFolderError(_summary(folder, problems))
    return [found[index] for index in range(grid.size)]


def _summary(folder: Path, problems: Iterable[str]) -> str:
    listed = list(problems)
    shown = "; ".join(listed[:5]) + (f"; and {len(listed) - 5} more" if len(listed) > 5 else "")
    return f"{folder}: {shown}. Render this identity again, or correct the folder or the grid in the config"
