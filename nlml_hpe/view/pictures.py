"""Pictures as files, alone or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from nlml_hpe.files.atomic import atomic_path
from nlml_hpe.files.images import RgbImage, with_swapped_colors


def tiled(rows: Sequence[Sequence[RgbImage]], side: int) -> RgbImage:
    """Put images side by side.

    Parameters
    ----------
    rows : sequence of sequence of ndarray
        RGB uint8 images (H, W, 3) of any size, the same number in every row.
    side : int
        Width and height in pixels to which each is resized.

    Returns
    -------
    ndarray
        One RGB uint8 image.

    Examples
    --------
    >>> tiled([[np.zeros((5, 7, 3), dtype=np.uint8)] * 3] * 2, side=10).shape
    (20, 30, 3)
    """
    cells = [[np.asarray(cv2.resize(im, (side, side), interpolation=cv2.INTER_AREA)) for im in row] for row in rows]
    return np.vstack([np.hstack(row) for row in cells]).astype(np.uint8)


def save_image(image: RgbImage, path: Path) -> Path:
    """Write an RGB image, in the format that the path's suffix names, atomically.

    Parameters
    ----------
    image : ndarray
        RGB uint8 (H, W, 3).
    path : Path
        The file to write.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OSError
        Where it cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_image(np.zeros((4, 6, 3), dtype=np.uint8), Path(folder) / "black.png").name
    'black.png'
    """
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), with_swapped_colors(image)):
            raise OSError(f"{path}: the image could not be written")
    return path
