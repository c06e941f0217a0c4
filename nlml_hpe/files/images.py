"""Images of every kind as RGB uint8 arrays (H, W, 3); files are untrusted, their EXIF orientation is applied."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from nlml_hpe.words import why_no_file

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded: this is where Pillow starts to warn of decompression
bombs (a quarter of a gigabyte of RGB), and 11 times the pixels of a 4K frame."""

MAX_SIDE = 32_766
"""Pixels: OpenCV, which cuts faces out, counts rows and columns of an image in 16 bits."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif")
"""What is taken for an image in a folder, in lower case; a file that is named reads whatever its suffix."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM", "TGA")
"""What is read, by Pillow's names. Of all else that Pillow opens nothing is tried: EPS runs an external program, ICO
and ICNS decode before their size is known, and others are decoded in Python, which takes minutes."""
_DEEPEST = 65535.0
_STRIPE_PIXELS = 1_000_000
_ALONE_PIXELS = 1 << 16
"""So many are turned at once: of more OpenCV wakes its own threads, which wait in a loop when they are done."""
_DAMAGED = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)
"""What Pillow raises of damaged files: beside its own errors whatever a decoder's or a tag's code stumbles over."""

RgbImage = NDArray[np.uint8]
ImageLike = Any
"""A path, a numpy array, a PIL image or a torch tensor; see ``as_rgb``."""


class ImageReadError(ValueError):
    """A file is not an image that can be read here; the message says why."""


def as_rgb(image: ImageLike) -> RgbImage:
    """An image of any kind as RGB uint8.

    Colours are RGB: OpenCV reads BGR, in which faces look blue; turn that with ``image[..., ::-1]``.

    Parameters
    ----------
    image : str, Path, numpy.ndarray, PIL.Image.Image or torch.Tensor
        A file, an array (H, W, 3), a PIL image or a tensor (3, H, W). Arrays and tensors are uint8, or floats in
        0..1 of any precision. PIL images of numbers without a scale (modes I and F) are read as ``read_image`` says.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3); of an animation the first frame.

    Raises
    ------
    ImageReadError
        For a file or a PIL image that does not read.
    ValueError
        For anything else that is no such image.

    Examples
    --------
    >>> as_rgb(np.full((2, 2, 3), 0.5)).tolist()[0]
    [[128, 128, 128], [128, 128, 128]]
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _decoded(image, "the PIL image")
    if type(image).__module__.partition(".")[0] == "torch":
        image = _array_of_tensor(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"expected a path, an array, a PIL image or a torch tensor; received {type(image).__name__}")
    if np.issubdtype(image.dtype, np.floating) and image.size:
        if not (image.min() >= 0 and image.max() <= 1):  # nor is a NaN
            raise ValueError("a float image must lie in 0..1, without NaN; divide by 255, or convert it to uint8")
        steps = image.astype(np.float64)
        steps *= 255
        image = np.rint(steps, out=steps).astype(np.uint8)
    require_rgb(image)
    return _pixel_by_pixel(image)


def _pixel_by_pixel(image: RgbImage) -> RgbImage:
    """The image as numpy's ``ascontiguousarray`` gives it, which copies what lies otherwise byte by byte."""
    of_column, of_color = image.strides[1:]
    if of_color < 0:  # BGR that was turned, as of what OpenCV read
        return with_swapped_colors(image[..., ::-1])
    if of_color > of_column:  # three planes, as a tensor has them
        return np.asarray(cv2.merge([image[..., color] for color in range(3)]), dtype=np.uint8)
    return np.ascontiguousarray(image)


def with_swapped_colors(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image in OpenCV's order of colours, BGR, of one in RGB, and the other way round.

    An array of its own, in a thirtieth of the time of a copy of ``image[..., ::-1]``, which numpy makes byte by byte,
    as OpenCV has it do with every such view that it is given.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB or BGR.

    Returns
    -------
    uint8 array (H, W, 3)
        The same pixels, their colours the other way round.

    Examples
    --------
    >>> with_swapped_colors(np.array([[[1, 2, 3]]], dtype=np.uint8)).tolist()
    [[[3, 2, 1]]]
    """
    made = np.empty(image.shape, dtype=np.uint8)
    rows = max(1, _ALONE_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], rows):
        cv2.cvtColor(image[top : top + rows], cv2.COLOR_RGB2BGR, made[top : top + rows])
    return made


def _array_of_tensor(tensor: Any) -> NDArray[Any]:
    """A torch tensor (3, H, W) as an array (H, W, 3); numpy has no bfloat16, so floats are made float32."""
    try:
        array = (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).cpu().numpy()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a dense tensor (3, H, W) that holds data; received {tensor!r:.80}") from error
    return np.asarray(array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] == 3 else array)


def require_rgb(image: NDArray[np.generic]) -> None:
    """Check that an array is an RGB uint8 image (H, W, 3) with one pixel or more, and ``MAX_SIDE`` or fewer on a side.

    Parameters
    ----------
    image : array
        What may be one.

    Raises
    ------
    ValueError
        Where it is not; the message says what came.

    Examples
    --------
    >>> require_rgb(np.zeros((2, 2, 3), dtype=np.uint8))
    >>> require_rgb(np.zeros((2, 2), dtype=np.uint8))
    Traceback (most recent call last):
        ...
    ValueError: expected an RGB uint8 image (H, W, 3); received uint8 of shape (2, 2)
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        shape = getattr(image, "shape", None)
        kind = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"expected an RGB uint8 image (H, W, 3); received {kind} of shape {shape}")
    if image.size == 0:
        raise ValueError(f"expected a non-empty image; received shape {image.shape}")
    if max(image.shape) > MAX_SIDE:
        raise ValueError(f"expected an image of at most {MAX_SIDE} pixels on a side; received shape {image.shape}")


def user_path(text: str | Path) -> Path:
    """A path as its user wrote it, a leading ``~`` replaced by the home folder.

    Examples
    --------
    >>> user_path("photos/a.jpg").as_posix()
    'photos/a.jpg'
    """
    return Path(os.path.expanduser(text))


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder by their names, not those below it, nor hidden ones, which systems leave beside others.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as name:
    ...     for file in ("b.JPG", "a.png", "._a.png", "a.txt"):
    ...         Path(name, file).touch()
    ...     [path.name for path in images_in(Path(name))]
    ['a.png', 'b.JPG']
    """
    files = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """Read an image file, one of ``FORMATS`` whatever its name, with its EXIF orientation applied.

    Grey, palette and CMYK images are converted; transparency is laid over white. Images of numbers without a scale
    (16 and 32 bit integers, floats) are grey, and the largest value says what is white: 1 for floats up to 1, else
    255 up to that, else 65,535.

    Parameters
    ----------
    path : str or Path
        The file; ``~`` is the home folder.
    max_pixels : int
        Images of more pixels are refused before they are decoded.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3).

    Raises
    ------
    ImageReadError
        Where the file is missing, empty, truncated, none of ``FORMATS``, in a rare kind of BMP or PPM that Pillow
        decodes in Python, too large (also of more than ``MAX_SIDE`` pixels on a side), or holds numbers that are
        negative, not finite or above 65,535.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Image.new("L", (6, 4)).save(f"{folder}/grey.png")
    ...     read_image(f"{folder}/grey.png").shape
    (4, 6, 3)
    """
    source = user_path(path)
    try:
        size = source.stat().st_size if source.is_file() else None
    except OSError as error:  # of a name that is too long
        raise ImageReadError(f"{source}: {error.strerror}") from error
    if size is None:
        raise ImageReadError(f"{source}: {why_no_file(source, 'image file')}")
    if size == 0:
        raise ImageReadError(f"{source}: the file is empty")
    return decode_image(source, str(source), max_pixels)


def decode_image(source: Path | BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """As ``read_image``, of a stream too.

    Parameters
    ----------
    source : pathlib.Path or binary stream
        The encoded image.
    name : str
        What errors call it.
    max_pixels : int
        As of ``read_image``.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3).

    Raises
    ------
    ImageReadError
        As ``read_image``.

    Examples
    --------
    >>> from io import BytesIO
    >>> decode_image(BytesIO(b"text"), "upload")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    nlml_hpe.files.images.ImageReadError: upload: not an image in a format that is read here (JPEG, PNG, ...)
    """
    try:
        with Image.open(source, formats=_formats()) as image:
            _require_quick(image, name)
            return _decoded(image, name, max_pixels, is_ours=True)
    except UnidentifiedImageError as error:
        text = f"{name}: not an image in a format that is read here ({', '.join(_formats())})"
        raise ImageReadError(text) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(name, max_pixels) from error
    except ImageReadError:
        raise
    except PermissionError as error:
        raise ImageReadError(f"{name}: the file may not be read ({error.strerror})") from error
    except _DAMAGED as error:
        raise ImageReadError(f"{name}: the image is truncated or damaged ({error})") from error


def _formats() -> list[str]:
    """Those of ``FORMATS`` that this Pillow has; it does not take the name of another."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _require_quick(image: ImageFile, name: str) -> None:
    """Refuse what Pillow decodes in Python, of which a few megabytes take minutes."""
    if any(tile[0] in Image.DECODERS for tile in image.tile):
        raise ImageReadError(
            f"{name}: {image.format} of this kind (text, compressed, or of unusual depth) is not read; save it as PNG"
        )


def _decoded(image: Image.Image, name: str, max_pixels: int = MAX_PIXELS, is_ours: bool = False) -> RgbImage:
    """An image as an array; one that is ours alone is turned where it is, without a copy."""
    # The size is in the header: nothing was decoded yet.
    if image.width * image.height > max_pixels:
        raise _too_large(name, max_pixels)
    if max(image.size) > MAX_SIDE:
        raise ImageReadError(
            f"{name}: at most {MAX_SIDE} pixels on a side are read, and it has {image.width} x {image.height}; "
            "make the image smaller, or cut it"
        )
    try:
        if is_ours:
            ImageOps.exif_transpose(image, in_place=True)
        else:
            image = ImageOps.exif_transpose(image)
        return _grey_numbers(image, name) if image.mode.startswith(("I", "F")) else _colours(image)
    except ImageReadError:
        raise
    except _DAMAGED as error:
        raise ImageReadError(f"{name}: the image is truncated or damaged ({error})") from error


def _too_large(name: str, max_pixels: int) -> ImageReadError:
    return ImageReadError(f"{name}: at most {max_pixels} pixels are read; make the image smaller")


def _stripes(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """An image in stripes of rows: to convert all of it at once takes several times its memory."""
    rows = max(1, _STRIPE_PIXELS // max(1, image.width))
    if rows >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _grey_numbers(image: Image.Image, name: str) -> RgbImage:
    highest = 0.0
    for _, stripe in _stripes(image):
        values = np.asarray(stripe, dtype=np.float64)
        if not (np.isfinite(values).all() and values.min(initial=0.0) >= 0 and values.max(initial=0.0) <= _DEEPEST):
            raise ImageReadError(f"{name}: expected grey values in 0..1, 0..255 or 0..65535, without NaN")
        highest = max(highest, float(values.max(initial=0.0)))
    white = 1.0 if highest <= 1 and image.mode.startswith("F") else 255.0 if highest <= 255 else _DEEPEST
    grey = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows, stripe in _stripes(image):
        grey[rows] = np.rint(np.asarray(stripe, dtype=np.float64) / white * 255.0)[..., None]
    return grey


def _colours(image: Image.Image) -> RgbImage:
    clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    colours = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows, stripe in _stripes(image):
        opaque = _over_white(stripe) if clear else stripe
        # Of RGB Pillow would convert a copy.
        colours[rows] = np.asarray(opaque if opaque.mode == "RGB" else opaque.convert("RGB"))
    return colours


def _over_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, (255, 255, 255, 255)), layered)
