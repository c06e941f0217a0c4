"""FaceScape's registered models (Yang et al. 2020), for those who hold its licence.

Layout: ``ID/models_reg/N_expression.obj`` with ``.mtl`` and ``.jpg`` of the same name, IDs and N as
numbers (``1/models_reg/1_neutral.obj``, ``1/models_reg/2_smile.obj``). As in the paper each person
is seen with one expression, drawn at random. The data could not be had while this was written: it was
tried on files built in this layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.files.images import RgbImage, read_image
from renderer.config import HeadsConfig
from renderer.heads import HeadDataError, place_in_order, require_people
from renderer.heads.placement import placed_by_face
from renderer.mesh import Mesh
from renderer.obj import read_obj, split_by_texture

MODELS = "models_reg"
MAX_LIST_BYTES = 1_000_000
_MAX_MTL_BYTES = 1_000_000
_TEXTURE_PX = 1024
"""Longer textures are reduced: FaceScape's 4096 pixels are ten for each of a render's."""
_MODEL = re.compile(r"(\d+)_[a-z_]+\.obj")


@dataclass(frozen=True)
class FaceScapeHeads:
    """Identities that may be used, in numerical order: training people are the first, validation people the last."""

    identities: tuple[Path, ...]
    seed: int

    @classmethod
    def open(cls, config: HeadsConfig, seed: int) -> FaceScapeHeads:
        """Raises ``HeadDataError`` where the folder is not in FaceScape's layout or holds too few people."""
        identities = _identities(config.source_folder, config.publishable)
        require_people(len(identities), config, f"{config.folder}: identities with {MODELS}")
        return cls(tuple(identities), seed)

    def describe(self) -> dict[str, object]:
        """Which identities."""
        return {"source": "facescape", "identities": [int(place.name) for place in self.identities]}

    def head(self, person: int) -> Mesh:
        """The head of this person with the expression that the seed draws."""
        models = _models(self.identities[place_in_order(person, len(self.identities))])
        path = models[int(np.random.default_rng([self.seed, person]).integers(len(models)))]
        with FaceMeshOnnx() as detector:
            return placed_by_face(read_model(path), str(path), detector)


def read_model(path: Path) -> Mesh:
    """One registered model with its texture, in the file's own units.

    Raises ``ObjError`` for a damaged mesh and ``HeadDataError`` for a missing texture.
    """
    mesh = read_obj(path)
    source, texture, faces = split_by_texture(np.concatenate(list(mesh.triangles.values())))
    uv = mesh.uv[texture] * np.array([1, -1], dtype=np.float32) + np.array([0, 1], dtype=np.float32)
    return Mesh(mesh.vertices[source], faces, uv, _texture(path, mesh.material_file))


def check(folder: Path, publishable: Path | None) -> list[str]:
    """What is there of FaceScape, line by line."""
    how = (
        "to get   apply at https://facescape.nju.edu.cn (research only), unpack the TU models, and set",
        "         heads.folder to the folder of the numbered identities",
    )
    if not folder.is_dir():
        return [f"missing  folder {folder}", *how]
    if publishable is not None and not publishable.is_file():
        return [f"missing  list of publishable identities {publishable}", *how]
    identities = _identities(folder, publishable)
    if not identities:
        return [f"missing  {folder}/ID/{MODELS}/N_expression.obj", *how]
    models = [model for place in identities for model in _models(place)]
    bare = [model for model in models if not _texture_path(model, None).is_file()]
    lines = [f"found    {len(identities)} identities with {len(models)} models"]
    return lines + [f"missing  {_texture_path(model, None)} (or the texture its .mtl names)" for model in bare]


def _identities(folder: Path, publishable: Path | None) -> list[Path]:
    """Folders of identities that hold models, in numerical order, listed ones only where there is a list."""
    if not folder.is_dir():
        raise HeadDataError(f"{folder}: no such folder (heads.folder)")
    places = [p for p in folder.iterdir() if p.name.isdecimal() and (p / MODELS).is_dir() and _models(p)]
    if publishable is not None:
        listed = _read_list(publishable)
        places = [place for place in places if int(place.name) in listed]
    return sorted(places, key=lambda place: int(place.name))


def _models(place: Path) -> list[Path]:
    found = [p for p in (place / MODELS).iterdir() if _MODEL.fullmatch(p.name)]
    return sorted(found, key=lambda path: int(path.name.split("_")[0]))


def _read_list(path: Path) -> set[int]:
    """Numbers in a text file, however they are separated."""
    if not path.is_file() or path.stat().st_size > MAX_LIST_BYTES:
        raise HeadDataError(f"{path}: expected a text file with the numbers of publishable identities")
    return {int(number) for number in re.findall(r"\d+", path.read_text(encoding="utf-8", errors="replace"))}


def _texture(model: Path, material_file: str | None) -> RgbImage:
    path = _texture_path(model, material_file)
    if not path.is_file():
        raise HeadDataError(f"{model}: its texture {path.name} is missing; unpack the .jpg beside the .obj")
    image = read_image(path)
    longer = max(image.shape[:2])
    if longer <= _TEXTURE_PX:
        return image
    size = (round(image.shape[1] * _TEXTURE_PX / longer), round(image.shape[0] * _TEXTURE_PX / longer))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _texture_path(model: Path, material_file: str | None) -> Path:
    """The image that the material names (its last component only: no path of a file is followed), or ``.jpg``."""
    called = Path(material_file or "").name
    material = model.with_name(called) if called else model.with_suffix(".mtl")
    if material.is_file() and material.stat().st_size <= _MAX_MTL_BYTES:
        # By lines: a pattern over all the text goes back again and again over spaces and empty lines, for an hour.
        for line in material.read_text(encoding="utf-8", errors="replace").split("\n"):
            keyword, *named = line.split(maxsplit=1) or [""]
            name = Path(named[0].strip().replace("\\", "/")).name if named else ""
            if keyword == "map_Kd" and name:
                return model.with_name(name)
    return model.with_suffix(".jpg")
