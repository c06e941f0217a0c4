"""The tensor (identity, yaw, pitch, roll, feature) on disk, with the mask of detected cells.

``landmarks.npy`` is float32 and memory-mapped. ``routes.npy`` says how each face was found, as an index
into ``landmarks.SEARCHES``; a cell whose face was missed has route 0 and holds zeros. ``boxes.npy``
float32 holds the box of the face's landmarks in pixels of its image (left, top, right, bottom). Off-grid samples
lie beside it: ``random_landmarks.npy`` (identity, sample, feature), ``random_routes.npy``, ``random_boxes.npy`` and
``random_angles.npy`` (yaw, pitch, roll in degrees).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import SEARCHES
from nlml_hpe.files.arrays import map_npy
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import require_intact
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES, CONVENTION

KIND = "landmark_tensor"
_WORST_POSES = 6
# Every tensor has these arrays.
DATA = ("landmarks", "routes", "random_landmarks", "random_routes")
BOXES = ("boxes", "random_boxes")
"""Tensors that were written before boxes were kept are without them."""


@dataclass(frozen=True)
class LandmarkTensor:
    """A finished landmark tensor, memory-mapped.

    Parameters
    ----------
    grid : PoseGrid
        Its poses.
    feature : str
        Name of the feature, see `PointSet.feature_name`.
    people : tuple of int
        Numbers of the people, in order.
    features : ndarray of shape (I, Y, P, R, F), float32
        Zeros where no face was found.
    routes : ndarray of shape (I, Y, P, R), uint8
        How each face was found, as an index into ``landmarks.SEARCHES``; 0 where it was not.
    random_features, random_routes : ndarray of shape (I, K, F) float32 and (I, K) uint8
        The same off the grid.
    random_angles : ndarray of shape (I, K, 3)
        Yaw, pitch, roll in degrees of the poses off the grid.
    boxes, random_boxes : ndarray of shape (I, Y, P, R, 4) and (I, K, 4), float32, or None
        The faces' places in their images, in pixels: left, top, right, bottom, zeros where no face was found; None in
        tensors of an older version.
    keys : mapping of int to str
        By person the digest of all that the rows depend on; none where it is not known.

    Examples
    --------
    Two people of one point at three yaws; the second was not found at the last:

    >>> grid = PoseGrid((-10.0, 0.0, 10.0), (0.0,), (0.0,))
    >>> routes = np.array([[1, 1, 1], [1, 1, 0]], dtype=np.uint8).reshape(2, 3, 1, 1)
    >>> none = np.zeros((2, 0, 3), dtype=np.float32), np.zeros((2, 0), dtype=np.uint8), np.zeros((2, 0, 3))
    >>> tensor = LandmarkTensor(grid, "one point", (1, 2), np.zeros((2, 3, 1, 1, 3), dtype=np.float32), routes, *none)
    >>> int(tensor.detected.sum()), tensor.first(1).people
    (5, (1,))
    """

    grid: PoseGrid
    feature: str
    people: tuple[int, ...]
    features: NDArray[np.float32]
    routes: NDArray[np.uint8]
    random_features: NDArray[np.float32]
    random_routes: NDArray[np.uint8]
    random_angles: NDArray[np.float64]
    boxes: NDArray[np.float32] | None = None
    random_boxes: NDArray[np.float32] | None = None
    keys: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def detected(self) -> NDArray[np.bool_]:
        """Which cells (I, Y, P, R) hold a face."""
        return np.asarray(self.routes) > 0

    @cached_property
    def random_detected(self) -> NDArray[np.bool_]:
        """Which off-grid samples (I, K) hold a face."""
        return np.asarray(self.random_routes) > 0

    def first(self, people: int) -> LandmarkTensor:
        """The first so many people, without their ``keys``.

        Parameters
        ----------
        people : int
            How many, 1 or more.

        Returns
        -------
        LandmarkTensor
            Its arrays are views of these.

        Raises
        ------
        ValueError
            Where there are fewer.
        """
        if not 1 <= people <= len(self.people):
            raise ValueError(f"expected 1 to {len(self.people)} people; received {people}")
        parts = (self.people, self.features, self.routes, self.random_features, self.random_routes, self.random_angles)
        boxes = (None if part is None else part[:people] for part in (self.boxes, self.random_boxes))
        return LandmarkTensor(self.grid, self.feature, *(part[:people] for part in parts), *boxes)  # type: ignore[arg-type]

    @classmethod
    def open(cls, folder: str | Path) -> LandmarkTensor:
        """Open a finished tensor; its arrays are read where they are looked at.

        Parameters
        ----------
        folder : str or Path
            What the stage Landmarks wrote.

        Returns
        -------
        LandmarkTensor
            What is written into its arrays stays in memory, and is not seen by ``fit_manifold``, which reads the files
            again: change copies of them.

        Raises
        ------
        ArtifactError
            Where it is unfinished or damaged, was changed after it was written, or follows another angle convention.
        """
        folder = Path(folder)
        facts = require_intact(folder, KIND)["facts"]
        if facts["convention"] != CONVENTION:
            raise ArtifactError(
                f"{folder}: angles follow {facts['convention']!r}, expected {CONVENTION!r}; run Landmarks again"
            )
        grid = PoseGrid.from_dict(facts["grid"])
        arrays = {name: open_array(folder / f"{name}.npy") for name in (*DATA, "random_angles")}
        boxes = {name: open_array(path) for name in BOXES if (path := folder / f"{name}.npy").is_file()}
        expected = (len(facts["people"]), *grid.shape, facts["feature_length"])
        if arrays["landmarks"].shape != expected or arrays["routes"].shape != expected[:-1]:
            raise ArtifactError(
                f"{folder}: expected landmarks of shape {expected}, found {arrays['landmarks'].shape} with routes "
                f"{arrays['routes'].shape}; run Landmarks again"
            )
        return cls(
            grid,
            facts["feature"],
            tuple(facts["people"]),
            arrays["landmarks"],
            arrays["routes"],
            arrays["random_landmarks"],
            arrays["random_routes"],
            arrays["random_angles"],
            boxes.get("boxes"),
            boxes.get("random_boxes"),
            {int(person): key for person, key in facts.get("keys", {}).items()},
        )


def open_array(path: str | Path) -> NDArray[Any]:
    """Memory-map a ``.npy`` file; what is written into the array stays in memory, unseen by ``decompose``.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    ndarray
        Its array, read from the file where it is looked at.

    Raises
    ------
    ArtifactError
        Where the file is missing, holds objects, or is shorter than its header says.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "numbers.npy", np.arange(3))
    ...     open_array(Path(folder) / "numbers.npy").tolist()
    [0, 1, 2]
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; run the stage that makes it again")
    try:
        # Copy-on-write: nothing is copied unless written, and torch takes it without a warning.
        return map_npy(path, "c")
    except (ValueError, OSError) as error:
        raise ArtifactError(
            f"{path} ({path.stat().st_size} bytes) is damaged or shorter than its header says ({error}); "
            "run the stage that makes it again"
        ) from error


def misses(tensor: LandmarkTensor) -> list[str]:
    """How many faces were not found, in words: in all, by the angles of each axis, and at the worst poses."""
    missed = ~tensor.detected
    text = f"{missed.sum()} of {missed.size} grid faces not found ({missed.mean():.1%})"
    if tensor.random_detected.size:
        lost = ~tensor.random_detected
        text += f"; off the grid {lost.sum()} of {lost.size} ({lost.mean():.1%})"
    by_route = np.bincount(np.asarray(tensor.routes).reshape(-1), minlength=len(SEARCHES))
    found = "  ".join(f"{name}: {count}" for name, count in zip(SEARCHES[1:], by_route[1:], strict=True) if count)
    lines = [text, f"found by route: {found}"]
    for axis, (name, angles) in enumerate(zip(AXES, tensor.grid.axes, strict=True)):
        counts = missed.sum(axis=tuple(mode for mode in range(4) if mode != axis + 1))
        cells = "  ".join(f"{angle:g}: {count}" for angle, count in zip(angles, counts, strict=True))
        lines.append(f"not found by {name:<5}: {cells}")
    per_pose = missed.sum(axis=0).reshape(-1)
    poses = tensor.grid.poses()
    worst = [index for index in np.argsort(-per_pose, kind="stable")[:_WORST_POSES] if per_pose[index]]
    if worst:
        named = "  ".join("({:g} {:g} {:g}): {}".format(*poses[index], per_pose[index]) for index in worst)
        lines.append(f"most often at (yaw pitch roll), of {len(tensor.people)} people: {named}")
    return lines
