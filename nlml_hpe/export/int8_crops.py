"""Crops of heads, out of a folder: by those an image eye's ranges of eight bits are found (``model.eight_bits``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage, images_in, read_image
from nlml_hpe.image_networks.crop import SHARE, crop
from nlml_hpe.image_networks.shards import gathered, read_shards

MOST_CROPS = 256
"""Crops that are used, drawn evenly from those that are there."""


def read_crops(folder: Path, px: int) -> NDArray[np.uint8]:
    """Crops out of a folder, drawn evenly from all that are there.

    Parameters
    ----------
    folder : Path
        What the stage ``Crops`` wrote, or pictures of one head each, cut as the file that is exported takes them.
    px : int
        Pixels on a side.

    Returns
    -------
    RGB uint8 array (n, px, px, 3)
        ``MOST_CROPS`` at most.

    Raises
    ------
    ArtifactError
        For a folder that holds neither.
    ImageReadError
        For a picture that does not read.
    """
    if any(folder.glob("people_*.npy")):
        shards = read_shards(folder)
        some = gathered(shards, _evenly(sum(map(len, shards))))
        return np.stack([crop(image, box, px) for image, box in zip(some.images, some.boxes, strict=True)])
    paths = images_in(folder) if folder.is_dir() else []
    if not paths:
        raise ArtifactError(f"{folder} holds no crops of heads: expected what Crops wrote, or pictures of a head each")
    return np.stack([_whole(read_image(paths[index]), px) for index in _evenly(len(paths))])


def _evenly(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_CROPS)).astype(np.int64))


def _whole(image: RgbImage, px: int) -> NDArray[np.uint8]:
    """The whole picture as a crop."""
    height, width = image.shape[:2]
    half = max(height, width) / SHARE / 2
    return crop(image, (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half), px)
