"""The people of one experiment: their numbers, their poses, and their images, drawn when they are asked for.

Every image depends on the settings, the person and the pose alone, so it does not matter in which process, in which
order or how often it is drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.device import DeviceName
from nlml_hpe.files.images import RgbImage, images_in
from nlml_hpe.files.manifests import digest_of, digest_of_file, digest_of_names_and_sizes
from nlml_hpe.pose_grid import Pose, PoseGrid, image_stem
from nlml_hpe.rotation import Angles, rotation_from_angles
from renderer.appearance import draw_scene
from renderer.config import FIRST_VALIDATION_PERSON, HeadsConfig, RenderConfig
from renderer.drawing import render_poses
from renderer.heads import HeadDataError, HeadSource, open_heads
from renderer.mesh import Mesh, vertex_normals
from renderer.rasterizers import NEAR_MM, get_rasterizer

NumberedPose = tuple[int, Pose]
"""A pose and its number, which seeds the scene: first the poses of the grid in its order, then those off it."""


@dataclass(frozen=True)
class People:
    """Who is rendered, and how.

    ``cache`` is the folder for what is slow to read of the heads, ``device`` where a rasteriser that can use one draws;
    neither changes what is drawn.
    """

    grid: PoseGrid
    heads: HeadsConfig
    render: RenderConfig
    seed: int
    cache: Path | None = None
    device: DeviceName = "auto"

    def numbers(self) -> dict[str, list[int]]:
        """Person numbers of each split; no person is in both, and none depends on how many others there are."""
        starts = {"train": 1, "validation": FIRST_VALIDATION_PERSON}
        return {name: list(range(start, start + getattr(self.heads, name))) for name, start in starts.items()}

    def open_heads(self) -> HeadSource:
        """The source of the heads, opened once in each process."""
        return _open_heads(self.heads, self.seed, self.cache, digest_of(self.inputs()))

    def on_grid(self) -> list[NumberedPose]:
        """The poses of the grid, in its order."""
        return list(enumerate(self.grid.poses()))

    def off_grid(self, split: str, person: int) -> list[NumberedPose]:
        """Seeded random poses of one person, in the order of their files' names.

        They are uniform inside the grid's range, to a hundredth of a degree, and no two are the same. For training
        people every other one is drawn from the range widened by ``random_margin_deg``.

        Raises ``ValueError`` where the grid's range does not hold so many different poses.
        """
        count = getattr(self.render, f"random_poses_{split}")
        rng = np.random.default_rng([self.seed, person, 1])
        margin = np.zeros((count, 3))
        if split == "train":
            margin[1::2] = self.render.random_margin_deg
        low, high = (np.array([axis[end] for axis in self.grid.axes]) for end in (0, -1))
        _require_room(low, high, count, split)
        drawn = np.round(rng.uniform(low - margin, high + margin), 2)
        taken: set[tuple[float, ...]] = set()
        again = list(range(count))
        while again := _repeated(drawn, again, taken):
            drawn[again] = np.round(rng.uniform(low - margin[again], high + margin[again]), 2)
        numbered = [
            (self.grid.size + index, (yaw, pitch, roll)) for index, (yaw, pitch, roll) in enumerate(drawn.tolist())
        ]
        return sorted(numbered, key=lambda item: image_stem(person, *item[1]))

    def require_before_camera(self, person: int, mesh: Mesh, poses: Iterable[NumberedPose]) -> None:
        """Require that a head lies before the camera at several poses.

        Parameters
        ----------
        person : int
            Whose head it is.
        mesh : Mesh
            The head.
        poses : iterable of (number, pose)
            At which it is drawn.

        Raises
        ------
        HeadDataError
            Where it reaches behind the camera at one of them.
        """
        appearance = self.render.appearance
        if np.linalg.norm(mesh.vertices, axis=1).max() < appearance.distance_mm[0] - NEAR_MM:
            return
        for number, pose in poses:
            away = draw_scene(appearance, self.render.size, self._rng(person, number)).distance
            ahead = rotation_from_angles(Angles.from_columns(pose))[2].astype(np.float32)
            reach = float((mesh.vertices @ ahead).max())
            if reach > away - NEAR_MM:
                raise HeadDataError(
                    f"person {person}: at yaw, pitch, roll {pose} the mesh reaches {reach:.0f} mm towards the camera, "
                    f"which stands {away:.0f} mm away; cut off what lies far below the head, or raise "
                    "render.appearance.distance_mm"
                )

    def _rng(self, person: int, number: int) -> np.random.Generator:
        """By which the scene of one image is drawn."""
        return np.random.default_rng([self.seed, person, 2, number])

    def images(self, person: int, poses: Iterable[NumberedPose]) -> Iterator[RgbImage]:
        """Images of one person at these poses, a few ahead of what is taken."""
        mesh = self.open_heads().head(person)
        normals = vertex_normals(mesh.vertices, mesh.faces)
        batch = get_rasterizer(self.render.rasterizer, self.device).batch
        pending = iter(poses)
        while chunk := list(itertools.islice(pending, batch)):
            self.require_before_camera(person, mesh, chunk)
            rngs = [self._rng(person, number) for number, _ in chunk]
            yield from render_poses(mesh, normals, [pose for _, pose in chunk], self.render, rngs, self.device)

    def cells(self, person: int, numbers: Iterable[int]) -> Iterator[RgbImage]:
        """Images of one person at some cells of the grid, by their numbers in its order."""
        poses = self.on_grid()
        return self.images(person, (poses[number] for number in numbers))

    def keys(self, split: str) -> dict[int, str]:
        """Digest of all that the images of each person of a split depend on, and of nothing else.

        Images that were made under the same key need not be made again, whoever else is rendered.
        """
        heads = self._seen_heads.model_dump(mode="json", exclude={"train", "validation"})
        # The poses off the grid stand below as they are; where images are kept does not change them.
        off_grid = {"random_poses_train", "random_poses_validation", "random_margin_deg", "keep_images"}
        render = self.render.model_dump(mode="json", exclude=off_grid)
        common = digest_of([self.seed, self.grid.as_dict(), heads, render, self.inputs()])
        return {person: digest_of([common, person, self.off_grid(split, person)]) for person in self.numbers()[split]}

    def settings(self) -> dict[str, object]:
        """JSON form of all that the images depend on besides the files that are read."""
        sections = {"heads": self._seen_heads, "render": self.render}
        written = {name: section.model_dump(mode="json") for name, section in sections.items()}
        return {"seed": self.seed, "grid": self.grid.as_dict(), **written}

    @property
    def _seen_heads(self) -> HeadsConfig:
        """The heads' settings, but for what crops and sprites alone are dressed from, whose change costs no render."""
        return self.heads.model_copy(update={"makehuman": None})

    def inputs(self) -> dict[str, str]:
        """Digests of what is read to render: the user's photographs, or the names and sizes of a kit's many files.

        They are those of when it was first asked for, which workers are told, too.
        """
        return dict(self._inputs)

    @cached_property
    def _inputs(self) -> dict[str, str]:
        photos, folder, listed = self.heads.photos, self.heads.folder, self.heads.publishable
        inputs = {}
        if photos is not None and photos.is_dir():
            inputs = {path.name: digest_of_file(path) for path in images_in(photos)}
        if folder is not None and folder.is_dir():
            inputs["folder"] = digest_of_names_and_sizes(folder)
        if listed is not None and listed.is_file():
            inputs["publishable"] = digest_of_file(listed)
        return inputs


def _require_room(low: NDArray[np.float64], high: NDArray[np.float64], count: int, split: str) -> None:
    """Raise ``ValueError`` where the range of the grid's angles holds fewer different poses than are to be drawn."""
    # Hundredths of a degree; rounded first, for 1.1 degrees are 110.00000000000001 of them.
    inside = np.floor(np.round(100 * high, 6)) - np.ceil(np.round(100 * low, 6)) + 1
    room = np.maximum(inside, 1).prod()
    if room < count:
        raise ValueError(
            f"the grid's range holds {room:.0f} different poses to a hundredth of a degree, fewer than the {count} of "
            f"render.random_poses_{split}; lower that to {room:.0f} or less, or widen the grid"
        )


def _repeated(poses: NDArray[np.float64], places: Sequence[int], taken: set[tuple[float, ...]]) -> list[int]:
    """Those of these places at which a pose is taken already; the others' poses (N, 3) are taken from here on."""
    found = []
    for place in places:
        pose = tuple(poses[place].tolist())
        if pose in taken:
            found.append(place)
        taken.add(pose)
    return found


@lru_cache(maxsize=1)
def _open_heads(config: HeadsConfig, seed: int, cache: Path | None, inputs: str) -> HeadSource:
    """Kept by the digest of the files that are read, too: workers of a cluster outlive a run, and the files change."""
    return open_heads(config, seed, cache)
