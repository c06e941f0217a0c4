"""Images from users: every form reads as RGB uint8 or is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlml_hpe.files.images import MAX_PIXELS, ImageReadError, read_image

RED = (250, 20, 30)


def save(path: Path, mode: str, size: tuple[int, int] = (8, 6), **options: object) -> Path:
    Image.new("RGB", size, RED).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("L", "png"), ("CMYK", "jpg"), ("I;16", "png")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    if mode == "I;16":
        Image.fromarray(np.full((6, 8), 40000, dtype=np.uint16)).save(path)
    else:
        save(path, mode)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((6, 8, 3), np.uint8)
    if mode in ("RGB", "RGBA", "P", "CMYK"):
        # JPEG loses a few levels; the web palette knows six per channel, 51 apart.
        assert np.abs(image.astype(int) - RED).max() <= 51
    else:
        assert (image[..., 0] == image[..., 1]).all()


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(path)
    assert (read_image(path) == 255).all()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    save(path, "RGB", exif=exif)
    assert read_image(path).shape == (8, 6, 3)


def test_one_pixel_and_very_wide_images_read(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "one.png", "RGB", (1, 1))).shape == (1, 1, 3)
    assert read_image(save(tmp_path / "wide.png", "RGB", (20_000, 40))).shape == (40, 20_000, 3)


def test_a_gigantic_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "huge.png", "1", (20_000, MAX_PIXELS // 20_000 + 1))
    with pytest.raises(ImageReadError, match="at most"):
        read_image(path)


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "folder"])
def test_what_is_no_image_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.jpg"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "folder":
        path.mkdir()
    elif kind == "truncated":
        save(path, "RGB", (64, 64))
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageReadError, match=r"photo\.jpg"):
        read_image(path)
