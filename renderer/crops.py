"""People to shards of crops: what the image eye is trained on.

Every crop depends on the settings, the seed and the person's number alone, so it does not matter in which process, in
which order or how often it is drawn, and a run that was killed goes on with the shard that it was at.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.folders import begun_folder, partial_of, replace_folder, require_begun, require_replaceable
from nlml_hpe.files.locks import await_leases, exclusive, lease
from nlml_hpe.files.manifests import digest_of, digest_of_names_and_sizes, is_current, write_manifest
from nlml_hpe.image_networks.crop import STORED_SHARE
from nlml_hpe.image_networks.shards import Shard, is_written, read_shards, write_shard
from nlml_hpe.parallel import run_tasks
from nlml_hpe.rotation import CONVENTION
from nlml_hpe.words import counted
from renderer.config import CropsConfig, HeadsConfig, PosesConfig
from renderer.crop_drawing import Crop, draw_crop, draw_poses
from renderer.crop_people import Person, Take, draw_person, small_kit
from renderer.crop_scene import pictures
from renderer.heads import HeadDataError
from renderer.heads.ict_kit import Kit
from renderer.makehuman import Wardrobe, open_wardrobe

KIND = "crops"
Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
_VALIDATION_FROM = 1_000_000
"""Numbers of validation people, so that one more training person renumbers nobody."""
_STREAM = 7
"""Of the seed, so that crops share no draws with images on the grid."""


@dataclass(frozen=True)
class CropSet:
    """All crops of one split; ``cache`` is the folder for what is slow to read of the kit.

    Raises ``HeadDataError`` where the heads are not ICT-FaceKit's, the only ones with these 68 points.
    """

    kind: ClassVar[str] = KIND
    heads: HeadsConfig
    crops: PosesConfig
    seed: int
    split: Split
    cache: Path

    @property
    def side_over_box(self) -> float:
        """Side of what is drawn over the longer side of the box."""
        return STORED_SHARE

    def __post_init__(self) -> None:
        if self.heads.source != "ict_facekit":
            raise HeadDataError(
                f"crops are rendered of ICT-FaceKit's heads; heads.source is {self.heads.source!r}. "
                "Set heads.source: ict_facekit and heads.folder, as configs/image_ict.yaml does"
            )

    def people(self) -> list[int]:
        """Person numbers; no person is in both splits."""
        count, first = (self.heads.train, 1) if self.split == "train" else (self.heads.validation, _VALIDATION_FROM + 1)
        return list(range(first, first + count))

    def shards(self) -> list[list[int]]:
        """The people of each shard."""
        people, each = self.people(), self.crops.people_per_shard
        return [people[start : start + each] for start in range(0, len(people), each)]

    def settings(self) -> dict[str, Any]:
        """What the crops of both splits depend on besides the kit."""
        # What is of Render alone counts as left out: its change costs no crop.
        usual = HeadsConfig.model_fields["expression"].default
        heads = self.heads.model_copy(update={"expression": usual})
        sections = {"heads": heads.model_dump(mode="json"), self.kind: self.crops.model_dump(mode="json")}
        return {"seed": self.seed, **sections}

    def digest(self) -> str:
        """Digest of all that the crops of both splits depend on."""
        return digest_of([self.settings(), self.inputs()])

    def inputs(self) -> dict[str, str]:
        """Digests of the kit's and the backgrounds' files.

        They are those of when it was first asked for, which workers are told, too.
        """
        return dict(self._inputs)

    @cached_property
    def _inputs(self) -> dict[str, str]:
        folders = {
            "folder": self.heads.source_folder,
            "makehuman": self.heads.makehuman,
            "backgrounds": self.crops.backgrounds,
        }
        return {name: digest_of_names_and_sizes(path) for name, path in folders.items() if path and path.is_dir()}

    def backgrounds(self) -> list[NDArray[np.uint8]]:
        """Pictures to cut backgrounds from, read once in each worker. Raises ``BackgroundError`` as ``pictures``."""
        return pictures(self.crops.backgrounds, self.inputs().get("backgrounds"))

    def kit_and_wardrobe(self) -> tuple[Kit, Wardrobe | None]:
        """The kit, and hair and clothes that fit it, opened once in each worker.

        Raises ``HeadDataError`` where the kit or MakeHuman's folder is incomplete, and ``ObjError`` for a damaged mesh.
        """
        return _kit_and_wardrobe(self.heads, self.cache, digest_of(self.inputs()))

    def of_person(self, person: int) -> list[Crop]:
        """All crops of one person.

        Raises ``HeadDataError`` where the kit or MakeHuman's folder is incomplete, ``ObjError`` for a damaged mesh,
        and ``BackgroundError`` for a folder without pictures.
        """
        rng = np.random.default_rng([self.seed, person, _STREAM])
        found, (kit, worn) = self.backgrounds(), self.kit_and_wardrobe()
        drawn = draw_person(kit, self.heads, self.crops.faces, found, rng, worn)
        takes = drawn.takes
        return [
            self.drawn(drawn, takes[number % len(takes)], rotation, found, rng)
            for number, rotation in enumerate(draw_poses(self.crops, rng))
        ]

    def drawn(
        self,
        person: Person,
        take: Take,
        rotation: NDArray[np.float64],
        found: list[NDArray[np.uint8]],
        rng: np.random.Generator,
    ) -> Crop:
        """One crop of a person.

        Parameters
        ----------
        person, take, rotation, found, rng
            As of ``crop_drawing.draw_crop``.

        Returns
        -------
        Crop
            Image, rotation and box.
        """
        assert isinstance(self.crops, CropsConfig)
        return draw_crop(person, take, rotation, self.crops, found, rng)


def render_splits(splits: Sequence[tuple[CropSet, Path]], workers: int, cluster: str | None = None) -> None:
    """Render every person of several splits, side by side: no worker waits for the end of one to begin the next.

    Where some are finished and others are not, as after a run that was stopped between the two, only these are
    rendered; where all are finished, all are rendered anew.

    Parameters
    ----------
    splits : sequence of (CropSet, Path)
        Splits of one experiment, each with its folder; what an interrupted run left there is gone on with.
    workers, cluster
        As of ``parallel.run_tasks``.

    Raises
    ------
    ArtifactError
        Where a folder holds anything that is not this stage's own work.
    HeadDataError, BackgroundError
        As ``CropSet.of_person`` does.
    WorkerError
        As ``parallel.run_tasks`` does.
    """
    with ExitStack() as held:
        for people, folder in splits:
            held.enter_context(exclusive(folder))
            require_replaceable(folder, people.kind)
            await_leases(folder)
        first, _ = splits[0]
        # Read before the workers start, so that not each of them makes the caches.
        _, worn = first.kit_and_wardrobe()
        if worn is not None and worn.left_out:
            print(f"{counted(len(worn.left_out), 'piece')} of clothes left out: {', '.join(worn.left_out)}")
        first.backgrounds()
        unfinished = [split for split in splits if not _is_finished(*split)] or splits
        for people, folder in unfinished:
            begun_folder(folder, people.kind, people.digest())
        work = [(*split, number, numbers) for split in unfinished for number, numbers in enumerate(split[0].shards())]
        for _ in run_tasks(_render_shard, work, first.kind.capitalize(), workers, cluster):
            pass
        for people, folder in unfinished:
            _finish(people, folder)


def _is_finished(people: CropSet, folder: Path) -> bool:
    return is_current(folder, people.kind, people.settings(), people.inputs())


def _finish(people: CropSet, folder: Path) -> None:
    """Put the folder in its place, once all of its shards are there."""
    partial = partial_of(folder)
    shards = read_shards(partial)
    facts = {
        "convention": CONVENTION,
        "crops": sum(map(len, shards)),
        "split": people.split,
        "people": len(people.people()),
        "side_over_box": people.side_over_box,
    }
    write_manifest(partial, people.kind, people.settings(), people.inputs(), facts)
    replace_folder(partial, folder, people.kind)


def _render_shard(people: CropSet, folder: Path, number: int, numbers: list[int]) -> None:
    partial = partial_of(folder)
    with lease(folder):
        require_begun(folder, people.digest())
        if is_written(partial, number):
            return
        crops = [(crop, person) for person in numbers for crop in people.of_person(person)]
        alphas = [crop.alpha for crop, _ in crops if crop.alpha is not None]
        heads = [crop.head for crop, _ in crops if crop.head is not None]
        shard = Shard(
            np.stack([crop.image for crop, _ in crops]),
            np.stack([crop.rotation for crop, _ in crops]).astype(np.float32),
            np.stack([crop.box for crop, _ in crops]).astype(np.float32),
            np.array([person for _, person in crops], dtype=np.int32),
            alpha=np.stack(alphas) if alphas else None,
            heads=np.stack(heads).astype(np.float32) if heads else None,
        )
        require_begun(folder, people.digest())
        write_shard(partial, number, shard)


@lru_cache(maxsize=1)
def _kit_and_wardrobe(heads: HeadsConfig, cache: Path, inputs: str) -> tuple[Kit, Wardrobe | None]:
    """Kept by the digest of the files that are read, too: workers of a cluster outlive a run, and the files change."""
    kit = small_kit(Kit.open(heads.source_folder, cache / "ict_facekit.npz").facing(heads.facing))
    # They are laid on the mean head, which faces the same way whoever else does.
    return kit, open_wardrobe(heads.makehuman, kit.skin, cache / "makehuman.npz") if heads.makehuman else None
