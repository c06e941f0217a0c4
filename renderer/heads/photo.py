"""A photograph becomes a textured head: heads without a scanner.

Each photograph gives one head (`renderer.heads.photo_mesh`). People are seeded, smooth changes of shape and tone of
such heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.files.images import IMAGE_SUFFIXES, RgbImage, images_in, read_image
from renderer.config import HeadsConfig
from renderer.heads.photo_mesh import HeadPhotoError, head_from_photo
from renderer.mesh import Mesh

_BUMPS = 12


@dataclass(frozen=True)
class PhotoHeads:
    """Heads made of one or several photographs; ``base`` meshes are varied by person number."""

    names: tuple[str, ...]
    base: tuple[Mesh, ...]
    config: HeadsConfig
    seed: int

    @classmethod
    def open(cls, config: HeadsConfig, seed: int) -> PhotoHeads:
        """Read the photographs that the configuration names, or the embedded one.

        Raises ``HeadPhotoError`` for a folder without images and for a photo without one clear face.
        """
        photos = _photos(config.photos)
        with FaceMeshOnnx(max_faces=4) as detector:
            base = tuple(head_from_photo(image, name, detector) for name, image in photos)
        return cls(tuple(name for name, _ in photos), base, config, seed)

    def describe(self) -> dict[str, object]:
        """Facts for the artefact's manifest."""
        return {"source": "photo", "photos": list(self.names)}

    def head(self, person: int) -> Mesh:
        """The head of a person: photographs in turn by their numbers, shape and tone from the seed."""
        rng = np.random.default_rng([self.seed, person])
        base = self.base[(person - 1) % len(self.base)]
        vertices = _vary_shape(base.vertices, rng, self.config.shape_variation)
        return Mesh(vertices, base.faces, base.uv, _vary_tone(base.texture, rng, self.config.tone_variation))


def embedded_photo() -> RgbImage:
    """The photograph that every installation has: Eileen Collins, NASA, public domain."""
    from skimage.data import astronaut

    return np.asarray(astronaut(), dtype=np.uint8)


def _photos(folder: Path | None) -> list[tuple[str, RgbImage]]:
    if folder is None:
        return [("skimage.data.astronaut", embedded_photo())]
    if not folder.is_dir():
        raise HeadPhotoError(f"{folder}: no such folder of photographs (heads.photos)")
    files = images_in(folder)
    if not files:
        raise HeadPhotoError(f"{folder}: no photographs ({', '.join(IMAGE_SUFFIXES)}) in it")
    return [(path.name, read_image(path)) for path in files]


def check(folder: Path | None) -> list[str]:
    """What photographs are there, line by line, without looking for faces in them."""
    if folder is not None and not folder.is_dir():
        return [f"missing  folder {folder} (heads.photos)"]
    return [f"found    {name}, {image.shape[1]} x {image.shape[0]} px" for name, image in _photos(folder)]


def _vary_shape(vertices: NDArray[np.float32], rng: np.random.Generator, amount: float) -> NDArray[np.float32]:
    """A person's own shape: proportions and smooth, nearly symmetric bumps, in mm."""
    stretch = 1 + amount * rng.normal(0, [0.04, 0.05, 0.06])
    taper = amount * rng.normal(0, 0.0008)
    varied = vertices.astype(np.float64) * stretch
    varied[:, 0] *= 1 + taper * varied[:, 1]
    centres = vertices[rng.integers(0, FACEMESH.n_points, size=_BUMPS)].astype(np.float64)
    widths = rng.uniform(14.0, 35.0, size=_BUMPS)
    heights = amount * rng.normal(0, [0.9, 1.1, 1.2], size=(_BUMPS, 3))
    mirror = np.array([-1.0, 1.0, 1.0])
    for centre, width, height in zip(centres, widths, heights, strict=True):
        lopsided = 1 + 0.1 * rng.normal()
        for middle, push in ((centre, height), (centre * mirror, height * mirror * lopsided)):
            near = np.exp(-((vertices - middle) ** 2).sum(axis=1) / (2 * width**2))
            varied += near[:, None] * push / 2
    return varied.astype(np.float32)


def _vary_tone(texture: NDArray[np.uint8], rng: np.random.Generator, amount: float) -> NDArray[np.uint8]:
    """A person's own tone: contrast, brightness, tint, and low-frequency variation of them."""
    gamma = np.exp(amount * rng.normal(0, 0.2))
    tint = 1 + amount * rng.normal(0, 0.05, size=3)
    coarse = rng.normal(0, 0.05 * amount, size=(6, 6, 1)).astype(np.float32)
    blotches = 1 + cv2.resize(coarse, texture.shape[1::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    toned = 255 * (texture / 255.0) ** gamma * tint * blotches
    return np.asarray(np.clip(toned, 0, 255), dtype=np.uint8)
