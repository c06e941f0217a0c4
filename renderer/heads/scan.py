"""Your own scans: textured heads as binary glTF (``.glb``), one folder per head or one file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.files.atomic import MAX_JSON_BYTES
from nlml_hpe.files.images import FORMATS, MAX_PIXELS, RgbImage, images_in, read_image
from nlml_hpe.files.manifests import files_below
from renderer.config import HeadsConfig
from renderer.heads import HeadDataError, place_in_order, require_people
from renderer.heads.placement import placed_by_face
from renderer.mesh import Mesh

MAX_GLB_BYTES = 512 * 1024 * 1024
_MOST_TILES = 16
_FEW_ELEMENTS = 20_000_000
"""Vertices, texture coordinates, corners of triangles: of so many nothing is asked."""
_PART_ELEMENTS = 10_000
"""What a part costs besides its own."""
_TEXTURES = ("baseColorTexture", "emissiveTexture", "metallicRoughnessTexture", "normalTexture", "occlusionTexture")
_ROUNDING = 1e-4
"""Of texture coordinates: so far beyond 0..1 is not meant."""


@dataclass(frozen=True)
class ScanHeads:
    """The scans of the folder in the order of names: training people are the first, validation people the last."""

    paths: tuple[Path, ...]

    @classmethod
    def open(cls, config: HeadsConfig) -> ScanHeads:
        """The scans below ``config.folder``. Raises ``HeadDataError`` where there are too few."""
        paths = _scans(config.source_folder)
        require_people(len(paths), config, f"{config.folder}: .glb files")
        return cls(tuple(paths))

    def describe(self) -> dict[str, object]:
        """Which scans."""
        return {"source": "scan", "scans": [path.name for path in self.paths]}

    def head(self, person: int) -> Mesh:
        """The scan of this person, placed by its face."""
        path = self.paths[place_in_order(person, len(self.paths))]
        with FaceMeshOnnx() as detector:
            return placed_by_face(read_glb(path), path.name, detector)


def check(folder: Path) -> list[str]:
    """What scans are there, line by line."""
    paths = _scans(folder)
    if not paths:
        return [
            f"missing  .glb files below {folder}",
            "to get   export textured heads as binary glTF, y up, looking along +z",
        ]
    return [f"found    {path}" for path in paths]


def _scans(folder: Path) -> list[Path]:
    """The scans below a folder in the order of their names; none where it is not there."""
    return [path for path in files_below(folder) if path.suffix.lower() == ".glb"]


def read_glb(path: Path) -> Mesh:
    """A textured mesh in its own units.

    The colours are the file's own or, where it has none, those of the one image beside it. Raises
    ``HeadDataError`` where the file is damaged, without texture coordinates or colours, has coordinates that are no
    numbers, or repeats its texture very often.
    """
    if not path.is_file() or path.stat().st_size > MAX_GLB_BYTES:
        raise HeadDataError(f"{path}: expected a .glb file of at most {MAX_GLB_BYTES} bytes")
    try:
        _require_modest(path)
        scene = trimesh.load_scene(path, file_type="glb")
        _require_known_images(scene)
        loaded = scene.to_mesh()
    except Exception as error:
        # A foreign parser of files of anybody's: on damaged ones it fails by whatever its code comes to.
        raise HeadDataError(f"{path}: not a readable binary glTF file ({error})") from error
    uv = getattr(loaded.visual, "uv", None)
    if uv is None or len(uv) != len(loaded.vertices):
        raise HeadDataError(f"{path}: no texture coordinates; a head needs its colours")
    own = getattr(loaded.visual.material, "baseColorTexture", None)
    texture = _image_beside(path) if own is None else np.asarray(own.convert("RGB"), dtype=np.uint8)
    # trimesh turns glTF's v, which counts from the top row as ours does, to count from the bottom. An image
    # that lies beside the file follows the other custom (that of OBJ and of web viewers) to begin with.
    v = 1 - uv[:, 1] if own is not None else uv[:, 1]
    faces = np.asarray(loaded.faces, dtype=np.int32)
    coordinates = np.column_stack([uv[:, 0], v]).astype(np.float32)
    try:
        mesh = Mesh(np.asarray(loaded.vertices, dtype=np.float32), faces, coordinates, texture)
        return _within_texture(mesh)
    except ValueError as error:
        raise HeadDataError(f"{path}: {error}") from error


def _require_modest(path: Path) -> None:
    """Raise ``ValueError`` where a file of kilobytes announces, or shows again and again, what fills the memory."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(20)[12:16], "little")
        described = json.loads(stream.read(min(length, MAX_JSON_BYTES)))
    counts = [abs(int(accessor["count"])) for accessor in described.get("accessors", [])]
    parts = [
        _PART_ELEMENTS + sum(counts[place] for place in (*part.get("attributes", {}).values(), part.get("indices", 0)))
        for node in described.get("nodes", [])
        if "mesh" in node
        for part in described["meshes"][node["mesh"]]["primitives"]
    ]
    if sum(counts) + sum(parts) > max(_FEW_ELEMENTS, 2 * path.stat().st_size):
        raise ValueError("it announces far more numbers than it holds, or shows its parts very often")


def _require_known_images(scene: trimesh.Scene) -> None:
    """Raise ``ValueError`` for an image that ``read_image`` would not take: trimesh opens all that Pillow knows."""
    for geometry in scene.geometry.values():
        for name in _TEXTURES:
            image = getattr(getattr(geometry.visual, "material", None), name, None)
            if image is None:
                continue
            if image.format not in FORMATS or image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"its {name} is {image.format} of {image.width} x {image.height}; expected PNG or JPEG of at most "
                    f"{MAX_PIXELS} pixels"
                )


def _within_texture(mesh: Mesh) -> Mesh:
    """The mesh with texture coordinates in 0..1: beyond them glTF repeats a texture, and the shader its last pixels.

    Raises ``ValueError`` where the texture would be repeated more than ``_MOST_TILES`` times.
    """
    if not len(mesh.uv):
        return mesh
    first = np.floor(mesh.uv.min(axis=0) + _ROUNDING)
    across, down = np.maximum(np.ceil(mesh.uv.max(axis=0) - _ROUNDING) - first, 1)
    if across * down > _MOST_TILES:
        raise ValueError(
            f"texture coordinates from {mesh.uv.min(axis=0)} to {mesh.uv.max(axis=0)} repeat the texture "
            f"{across * down:.0f} times, expected at most {_MOST_TILES}; lay the head out in 0..1"
        )
    uv = ((mesh.uv - first) / [across, down]).astype(np.float32)
    return replace(mesh, uv=uv, texture=np.tile(mesh.texture, (int(down), int(across), 1)))


def _image_beside(path: Path) -> RgbImage:
    beside = images_in(path.parent)
    if len(beside) != 1:
        raise HeadDataError(f"{path}: no colours in the file and {len(beside)} images beside it; expected one")
    return read_image(beside[0])
