"""Hair, necks, shoulders and clothes of real shape: MakeHuman's, whose meshes are in the public domain (CC0).

Hair and clothes were made for the base mesh, for a man or for a woman, and hair does not say for which. So hair is laid
on the head of the kit by its own inner side, and clothes hang from the crown of the body that they were made for; what
has no ``female_`` or ``male_`` in its name, or reaches over that crown, is left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from nlml_hpe.files.manifests import digest_of, files_below
from renderer.accessories import Extra
from renderer.heads import HeadDataError
from renderer.mesh_cache import digest_of_meshes, read_cache, write_cache
from renderer.obj import read_obj, split_by_texture
from renderer.skull import CENTRE, Envelope

FloatArray = NDArray[np.float32]
_CACHE_VERSION = 1
"""Of how meshes are laid on a head: counted up where that changes."""
BASE = "base.obj"
_MM_PER_UNIT = 100.0
_BODY_VERTICES = 13_380
"""Of the base mesh: what follows are helpers that nobody sees."""
_LARGEST = 1e3
"""Of any coordinate, in units of the file: a body is 17 of them high."""
_CROWN_MM = {"female_": 790.0, "male_": 940.0}
"""Height of the head that clothes of this name were made for; hair's is found from the hair."""
_LOWEST_MM, _WIDEST_MM = -430.0, 290.0
"""Of the body, in the kit's frame: crops show no more."""
COLLAR_MM = -88.0
"""Where the body's own neck ends: above it the head's neck is drawn."""
_SCALP_MM = 100.0
"""Hair this far below its highest point lies on the skull."""
_CLOSE_MM = 5.0
_SKULL_MM = 105.0
"""From the skull's middle to its crown, and so about to the highest hair."""
NAPE_MM = -20.0
"""Below this hair hangs, and lies on no skull."""
_FITTED = 600
"""Vertices that hair is fitted by."""


@dataclass(frozen=True)
class Wardrobe:
    """What people may wear, in mm of the kit's frame.

    ``hair`` and ``clothes`` by name (the file's, and that of its folder where two files are called alike); ``body`` is
    a chest with shoulders and the lower half of a neck; ``left_out`` are the names of clothes that do not say for whom
    they were made, reach over that body's crown, or end below what crops show.
    """

    hair: dict[str, Extra]
    body: Extra
    clothes: dict[str, Extra]
    left_out: tuple[str, ...] = ()


def check_wardrobe(folder: Path) -> list[str]:
    """What is there of the wardrobe, line by line; what cannot be done without begins with ``missing``."""
    hair = len(_files(folder, "hair"))
    clothes = sum(path.stem.startswith(tuple(_CROWN_MM)) for path in _files(folder, "clothes"))
    lines = [f"{'found  ' if (folder / BASE).is_file() else 'missing'}  {folder / BASE}"]
    lines.append(f"{'found  ' if hair else 'missing'}  {hair} hair styles (hair/*.obj)")
    lines.append(f"{'found  ' if clothes else 'missing'}  {clothes} clothes (clothes/female_*.obj, clothes/male_*.obj)")
    return lines if all(line.startswith("found") for line in lines) else [*lines, *_HOW_TO_GET]


_BASE_OF_MAKEHUMAN = "makehuman/data/3dobjs/base.obj of the repository makehuman"
_HOW_TO_GET = (
    f"to get   MakeHuman's meshes (CC0) from github.com/makehumancommunity: {_BASE_OF_MAKEHUMAN},",
    "         base/hair and base/clothes of makehuman-assets; or leave heads.makehuman out",
)


def read_wardrobe(folder: Path, skin: FloatArray) -> Wardrobe:
    """MakeHuman's hair and clothes, laid on a head.

    Parameters
    ----------
    folder : Path
        Holds ``base.obj``, ``hair`` and ``clothes``, these with OBJ files in folders of any depth.
    skin : float array (V, 3)
        Vertices of the neutral head that they are laid on, in mm of the kit's frame.

    Returns
    -------
    Wardrobe
        In the kit's frame.

    Raises
    ------
    HeadDataError
        Where the folder lacks the base mesh, hair or clothes, and for a base mesh that is not MakeHuman's.
    ObjError
        For a damaged file.
    """
    lines = check_wardrobe(folder)
    if any(line.startswith("missing") for line in lines):
        raise HeadDataError("\n".join([f"{folder} is no folder of MakeHuman's meshes:", *lines]))
    base = _extra(folder / BASE, _BODY_VERTICES)
    onto = _onto(folder / BASE, base.vertices, skin)
    reach = Envelope(skin)
    hair = {name: _on_scalp(_extra(path), onto[0], reach) for name, path in _named(folder, "hair").items()}
    clothes, found = {}, _named(folder, "clothes")
    for name, path in found.items():
        crown = next((height for body, height in _CROWN_MM.items() if name.startswith(body)), None)
        worn = _extra(path)
        if crown is not None and worn.vertices[:, 1].max() < crown:
            placed = (worn.vertices - [0, crown - base.vertices[:, 1].max(), 0]) * onto[0] + onto[1]
            clothes[name] = _below(worn._replace(vertices=placed.astype(np.float32)), COLLAR_MM + 25)
    body = base._replace(vertices=(base.vertices * onto[0] + onto[1]).astype(np.float32))
    clothes = {name: worn for name, worn in clothes.items() if len(worn.faces)}
    return Wardrobe(hair, _below(body, COLLAR_MM), clothes, tuple(name for name in found if name not in clothes))


def open_wardrobe(folder: Path, skin: FloatArray, cache: Path) -> Wardrobe:
    """The same, from a cache file where that was made from these meshes and this head.

    Parameters
    ----------
    folder, skin
        As of ``read_wardrobe``.
    cache : Path
        The file, written where it is missing or was made from others: reading it takes a hundredth of the time.

    Returns
    -------
    Wardrobe
        In the kit's frame.

    Raises
    ------
    HeadDataError, ObjError
        As ``read_wardrobe`` does.
    """
    digest = digest_of([_CACHE_VERSION, digest_of_meshes(folder), sha256(skin.tobytes()).hexdigest()])
    wardrobe = _kept(cache, digest)
    if wardrobe is None:
        wardrobe = read_wardrobe(folder, skin)
        _keep(wardrobe, cache, digest)
    return wardrobe


def _keep(wardrobe: Wardrobe, cache: Path, digest: str) -> None:
    pieces = [*wardrobe.hair.values(), *wardrobe.clothes.values(), wardrobe.body]
    names = {"hair": list(wardrobe.hair), "clothes": list(wardrobe.clothes), "left_out": wardrobe.left_out}
    arrays = {
        f"{field}{number}": array for number, piece in enumerate(pieces) for field, array in piece._asdict().items()
    }
    write_cache(cache, digest, names, arrays)


def _kept(cache: Path, digest: str) -> Wardrobe | None:
    """The wardrobe of the cache, or None where it is not there or another's: then it is made again."""
    known = read_cache(cache, digest)
    if known is None:
        return None
    names, arrays = known
    try:
        hair, clothes = names["hair"], names["clothes"]
        pieces = [
            Extra(*(arrays[f"{field}{number}"] for field in Extra._fields))
            for number in range(len(hair) + len(clothes) + 1)
        ]
        worn = dict(zip(clothes, pieces[len(hair) : -1], strict=True))
        return Wardrobe(dict(zip(hair, pieces, strict=False)), pieces[-1], worn, tuple(names["left_out"]))
    except (KeyError, TypeError):
        return None


def _files(folder: Path, part: str) -> list[Path]:
    return [path for path in files_below(folder / part) if path.suffix == ".obj"]


def _named(folder: Path, part: str) -> dict[str, Path]:
    """Files by their names, in order; of those that are called alike the folder is named, too."""
    files = _files(folder, part)
    count = Counter(path.stem for path in files)

    def name(path: Path) -> str:
        within = path.parent.relative_to(folder / part).as_posix()
        return path.stem if count[path.stem] == 1 else f"{path.stem} ({within})"

    return {name(path): path for path in files}


def _extra(path: Path, first: int | None = None) -> Extra:
    """A mesh in mm, v = 0 at the top; with ``first`` of its first so many vertices alone."""
    mesh = read_obj(path)
    if np.abs(mesh.vertices).max() > _LARGEST:
        raise HeadDataError(f"{path}: a coordinate is beyond {_LARGEST:g}; MakeHuman's bodies are 17 units high")
    triangles = np.concatenate(list(mesh.triangles.values()))
    if first is not None:
        triangles = triangles[(triangles[:, 0] < first).all(axis=1)]
        if len(mesh.vertices) < first or not len(triangles):
            raise _other_base(path, f"{len(mesh.vertices)} vertices and {len(triangles)} triangles of a body")
    source, texture, faces = split_by_texture(triangles)
    uv = mesh.uv[texture] * [1, -1] + [0, 1]
    return Extra((mesh.vertices[source] * _MM_PER_UNIT).astype(np.float32), faces, np.clip(uv, 0, 1).astype(np.float32))


def _other_base(path: Path, found: str) -> HeadDataError:
    return HeadDataError(
        f"{path}: expected MakeHuman's base mesh of {_BODY_VERTICES} vertices and more; found {found}; copy "
        f"{_BASE_OF_MAKEHUMAN} there"
    )


def _onto(path: Path, base: FloatArray, skin: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scales (3,) and shifts (3,) that lay the base mesh's head on the kit's: nose tip, crown, back and width.

    Raises ``HeadDataError`` where these are twice as large as the kit's, or half.
    """
    corners = []
    for vertices, above in ((base, base[:, 1].max() - 170), (skin, skin[:, 1].max() - 160)):
        head = vertices[vertices[:, 1] > above]
        nose = head[head[:, 2].argmax()]
        corners.append((np.abs(head[:, 0]).max(), head[:, 1].max(), nose[1], nose[2], head[:, 2].min()))
    (wide, crown, nose, tip, back), (own_wide, own_crown, own_nose, own_tip, own_back) = corners
    own = np.array([own_wide, own_crown - own_nose, own_tip - own_back])
    sides = np.array([wide, crown - nose, tip - back])
    if not ((sides > own / 2) & (sides < own * 2)).all():
        raise _other_base(path, "a head of other proportions")
    scale = own / sides
    return scale, np.array([0, own_crown, own_tip]) - scale * [0, crown, tip]


def _on_scalp(hair: Extra, scale: NDArray[np.float64], reach: Envelope) -> Extra:
    """Hair moved up or down, ahead or back, until its inner side lies on the skull; what lies inside is lifted out."""
    vertices = hair.vertices * scale
    scalp = vertices[vertices[:, 1] > vertices[:, 1].max() - _SCALP_MM]
    scalp = scalp[:: max(1, len(scalp) // _FITTED)]

    def apart(shift: NDArray[np.float64]) -> NDArray[np.float64]:
        there = scalp + np.array([0.0, *shift])
        gap = np.linalg.norm(there - CENTRE, axis=1) - reach.under(there) - _CLOSE_MM
        # Hair may stand off, and must not lie inside: skin would show through.
        return np.where(gap < 0, 3 * gap, gap) / _CLOSE_MM

    high = CENTRE[1] + _SKULL_MM - vertices[:, 1].max()
    deep = CENTRE[2] - np.median(scalp[:, 2])
    tries = [least_squares(apart, [high + up, deep], loss="soft_l1") for up in (-30.0, 0.0, 30.0)]
    best = min(tries, key=lambda one: float(one.cost))
    moved = (vertices + np.array([0.0, *best.x])).astype(np.float32)
    return hair._replace(vertices=lifted(moved, reach, _CLOSE_MM / 2))


def lifted(vertices: FloatArray, reach: Envelope, least: float) -> FloatArray:
    """Vertices of which none lies within the skull, or closer to it than is asked.

    Parameters
    ----------
    vertices : float array (V, 3)
        In mm of the kit's frame.
    reach : Envelope
        Of the head.
    least : float
        Millimetres over the skin that those above the nape have at least.

    Returns
    -------
    float array (V, 3)
        Those that lay too low, moved away from the skull's middle.
    """
    offset = vertices - CENTRE
    radius = np.maximum(np.linalg.norm(offset, axis=1), 1e-6)
    skull = vertices[:, 1] > NAPE_MM
    wanted = np.where(skull, np.maximum(radius, reach.under(vertices) + least), radius)
    return np.asarray(CENTRE + offset * (wanted / radius)[:, None], dtype=np.float32)


def _below(worn: Extra, height: float) -> Extra:
    """What of a body is below the head and in a crop."""
    middle = worn.vertices[worn.faces].mean(axis=1)
    shown = (middle[:, 1] < height) & (middle[:, 1] > _LOWEST_MM) & (np.abs(middle[:, 0]) < _WIDEST_MM)
    used, faces = np.unique(worn.faces[shown], return_inverse=True)
    return Extra(worn.vertices[used], faces.reshape(-1, 3).astype(np.int32), worn.uv[used])
