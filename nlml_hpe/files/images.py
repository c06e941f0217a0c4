"""Images of every kind as RGB uint8 arrays (H, W, 3); files are untrusted, their EXIF orientation is applied."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded: this is where Pillow starts to warn of decompression
bombs (a quarter of a gigabyte of RGB), and 11 times the pixels of a 4K frame."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""What is taken for an image in a folder, in lower case; a file that is named reads whatever its suffix."""
RgbImage = NDArray[np.uint8]
ImageLike = Any
"""A path, a numpy array, a PIL image or a torch tensor; see ``as_rgb``."""


class ImageReadError(ValueError):
    """A file is not an image that can be read here; the message says why."""


def as_rgb(image: ImageLike) -> RgbImage:
    """RGB uint8 (H, W, 3) of a file's path, a PIL image, an array (H, W, 3) or a torch tensor (3, H, W).

    Arrays are uint8, or floats in [0, 1]; of an animation the first frame is taken. Colours are RGB: OpenCV reads
    BGR, in which faces look blue; turn that with ``image[..., ::-1]``. Raises ``ImageReadError`` for a file that
    does not read and ``ValueError`` for anything else that is no such image.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _to_rgb(ImageOps.exif_transpose(image))
    if type(image).__module__.partition(".")[0] == "torch":
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] == 3:
            image = image.transpose(1, 2, 0)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"expected a path, an array, a PIL image or a torch tensor; received {type(image).__name__}")
    if np.issubdtype(image.dtype, np.floating) and image.size:
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise ValueError("a float image must lie in [0, 1], without NaN; divide by 255, or convert it to uint8")
        image = np.rint(image * 255).astype(np.uint8)
    require_rgb(image)
    return np.ascontiguousarray(image)


def require_rgb(image: NDArray[np.generic]) -> None:
    """Raise ``ValueError`` unless ``image`` is a non-empty RGB uint8 array ``(H, W, 3)``."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        shape = getattr(image, "shape", None)
        kind = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"expected an RGB uint8 image (H, W, 3); received {kind} of shape {shape}")
    if image.size == 0:
        raise ValueError(f"expected a non-empty image; received shape {image.shape}")


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
    return decode_image(source, str(source))


def decode_image(source: Path | BinaryIO, name: str) -> RgbImage:
    """As ``read_image``, of a file or a stream that errors call by ``name``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{name}: not an image in a format that is known here") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageReadError(f"{name}: at most {MAX_PIXELS} pixels are read; make the image smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageReadError(f"{name}: the image is truncated or damaged ({error})") from error


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
