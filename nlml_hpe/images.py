"""Reading images from untrusted files as RGB uint8 arrays (H, W, 3), EXIF orientation applied."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded: this is where Pillow starts to warn of decompression
bombs (a quarter of a gigabyte of RGB), and 11 times the pixels of a 4K frame."""

RgbImage = NDArray[np.uint8]


class ImageReadError(ValueError):
    """A file is not an image that can be read here; the message says why."""


def read_image(path: str | Path) -> RgbImage:
    """Read an image file as RGB uint8 ``(H, W, 3)`` with its EXIF orientation applied.

    Grey, palette, CMYK and 16-bit images are converted; transparency is laid over white.
    Raises ``ImageReadError`` where the file is missing, empty, truncated, not an image or larger
    than ``MAX_PIXELS``.
    """
    source = Path(path)
    if not source.is_file():
        raise ImageReadError(f"{source}: no such image file")
    if source.stat().st_size == 0:
        raise ImageReadError(f"{source}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{source}: not an image in a format that is known here") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageReadError(f"{source}: at most {MAX_PIXELS} pixels are read; make the image smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageReadError(f"{source}: the image is truncated or damaged ({error})") from error


def _to_rgb(image: Image.Image) -> RgbImage:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        span = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        grey = np.clip(values / span * 255.0, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layered)
    return np.asarray(image.convert("RGB"), dtype=np.uint8).copy()
