"""Images from users: every form reads as RGB uint8 or is refused with a reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from nlml_hpe.cli import main
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.files.images import (
    FORMATS,
    MAX_PIXELS,
    MAX_SIDE,
    ImageReadError,
    as_rgb,
    decode_image,
    read_image,
    user_path,
    with_swapped_colors,
)

RED = (250, 20, 30)


def save(path: Path, mode: str, size: tuple[int, int] = (8, 6), **options: object) -> Path:
    Image.new("RGB", size, RED).convert(mode).save(path, **options)
    return path


def test_colors_are_swapped_in_views_of_every_kind() -> None:
    """As ``image[..., ::-1]`` has them, in an array of its own; what OpenCV read is given so, too."""
    whole = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    for image in (whole, whole[2:5, 1:7], whole[::2, ::-1], whole[..., ::-1], whole.transpose(1, 0, 2), whole[:1, :1]):
        swapped, as_read = with_swapped_colors(image), as_rgb(image[..., ::-1])
        assert np.array_equal(swapped, image[..., ::-1])
        assert np.array_equal(as_read, image[..., ::-1])
        assert not np.shares_memory(swapped, whole)
        assert swapped.flags.c_contiguous
        assert as_read.flags.c_contiguous
    # Such are turned in parts.
    for shape in ((3001, 40, 3), (40, 3001, 3)):
        large = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        assert np.array_equal(with_swapped_colors(large), large[..., ::-1])


def test_planes_become_pixels() -> None:
    """Of arrays that lie as a tensor does, whole and in part."""
    planes = np.random.default_rng(0).integers(0, 256, (3, 9, 12), dtype=np.uint8)
    whole = planes.transpose(1, 2, 0)
    for image in (whole, whole[2:5, 1:7], whole[:, ::-1], whole[:1, :1], whole[:1], whole[:, :1]):
        for read in (as_rgb(image), as_rgb((image / 255).astype(np.float32))):
            assert np.array_equal(read, image)
            assert read.flags.c_contiguous


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


@pytest.mark.parametrize("action", ["ignore", "error"])
def test_a_gigantic_image_is_refused_before_it_is_decoded(
    tmp_path: Path, action: Literal["ignore", "error"], capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever its user has made of warnings, of which Pillow gives one; the command line says it in one line."""
    path = save(tmp_path / "huge.png", "1", (20_000, MAX_PIXELS // 20_000 + 1))
    warnings.simplefilter(action)
    with pytest.raises(ImageReadError, match="at most"):
        read_image(path)
    warnings.simplefilter("error")
    assert main(["predict", str(path)]) == 1
    assert "at most" in capfd.readouterr().err


def test_to_read_an_image_changes_nothing_of_how_the_process_takes_warnings(tmp_path: Path) -> None:
    """Its filters are shared by all threads: those of another one stayed for ever, and what is said once came again."""
    path = save(tmp_path / "a.png", "RGB")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(2):
            warnings.warn("said once", UserWarning, stacklevel=1)
            read_image(path)
    assert len(said) == 1


@pytest.mark.parametrize("turned", [False, True])
def test_an_image_wider_or_higher_than_opencv_cuts_is_refused(tmp_path: Path, turned: bool) -> None:
    """One such image cost the answers of a whole folder."""
    size = (2, MAX_SIDE + 1) if turned else (MAX_SIDE + 1, 2)
    path = save(tmp_path / "wide.png", "RGB", size)
    with pytest.raises(ImageReadError, match=rf"wide\.png: at most {MAX_SIDE} pixels on a side.*{size[0]} x {size[1]}"):
        read_image(path)
    with pytest.raises(ValueError, match=f"at most {MAX_SIDE} pixels on a side"):
        as_rgb(np.zeros((*size, 3), dtype=np.uint8))


def test_the_widest_image_that_is_read_is_searched(detector: FaceMeshOnnx) -> None:
    for size in ((2, MAX_SIDE), (MAX_SIDE, 2)):
        assert detector.detect(np.zeros((*size, 3), dtype=np.uint8)) == []


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


@pytest.mark.parametrize(("top", "white"), [(1.0, 1.0), (0.4, 1.0), (255.0, 255.0), (40000.0, 65535.0)])
def test_float_images_are_read_by_their_largest_value(tmp_path: Path, top: float, white: float) -> None:
    """Floats in 0..1 were read as black."""
    values = np.linspace(0, top, 48, dtype=np.float32).reshape(6, 8)
    image = Image.fromarray(values)
    assert image.mode == "F"
    image.save(tmp_path / "float.tiff")
    for read in (read_image(tmp_path / "float.tiff"), as_rgb(image)):
        assert np.abs(read[..., 1] - values / white * 255).max() <= 0.5 + 1e-4  # rounding, in float32


@pytest.mark.parametrize("value", [-1.0, 70000.0, np.nan, np.inf])
def test_floats_that_are_no_grey_are_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.full((4, 4), value, dtype=np.float32)).save(tmp_path / "odd.tiff")
    with pytest.raises(ImageReadError, match=r"odd\.tiff.*0\.\.1, 0\.\.255 or 0\.\.65535"):
        read_image(tmp_path / "odd.tiff")


def test_a_truncated_pil_image_is_an_image_read_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with Image.open(path) as image, pytest.raises(ImageReadError, match="the PIL image: the image is truncated"):
        as_rgb(image)


def test_torch_tensors_of_every_float_read_and_empty_kinds_are_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    level = torch.full((3, 4, 5), 0.5)
    for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert (as_rgb(level.to(kind).requires_grad_()) == 128).all()
    assert as_rgb((level * 200).to(torch.uint8)).shape == (4, 5, 3)
    for odd in (level.to("meta"), level.to_sparse(), level.to(torch.complex64)):
        with pytest.raises(ValueError, match="expected"):
            as_rgb(odd)


def test_jfif_is_jpeg_and_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "photo.jpg", "RGB").rename(tmp_path / "photo.jfif")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_image("~/photo.jfif").shape == (6, 8, 3)
    assert user_path("~/photo.jfif") == tmp_path / "photo.jfif"


def test_the_bound_on_pixels_can_be_lowered(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", "RGB", (100, 100))
    assert read_image(path, 10_000).shape == (100, 100, 3)
    with pytest.raises(ImageReadError, match="at most 9999 pixels"):
        read_image(path, 9_999)


def test_a_tag_of_another_type_is_a_damaged_image_and_a_long_name_is_none(tmp_path: Path) -> None:
    """Pillow raises struct.error of the first, which is no OSError; the system OSError of the second."""
    exif = Image.Exif()
    exif[274], exif[270] = 6, "text"  # turned; a description
    stream = io.BytesIO()
    Image.new("RGB", (8, 6)).save(stream, "JPEG", exif=exif)
    # The description under the number of the width, which is a number.
    data = (
        stream.getvalue()
        .replace(b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02")
        .replace(b"\x0e\x01\x02\x00", b"\x00\x01\x02\x00")
    )
    assert data != stream.getvalue()
    (tmp_path / "tag.jpg").write_bytes(data)
    with pytest.raises(ImageReadError, match=r"tag\.jpg.*truncated or damaged"):
        read_image(tmp_path / "tag.jpg")
    with pytest.raises(ImageReadError, match="too long"):
        read_image(tmp_path / ("a" * 300 + ".jpg"))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", [*FORMATS, "MPO"])
def test_every_format_reads_whatever_the_files_name(tmp_path: Path, form: str) -> None:
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {form}")
    # Two pictures in one file are what an MPO is.
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]} if form == "MPO" else {}
    (tmp_path / "image.dat").write_bytes(encoded(Image.new("RGB", (64, 48), RED), form, **more))
    image = read_image(tmp_path / "image.dat")
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - RED).max() <= 8


def test_a_picture_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow knows EPS by its first bytes, and has Ghostscript run it."""
    program, ran = tmp_path / "gs", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    with pytest.raises(ImageReadError, match=r"not an image in a format that is read here \(JPEG, PNG, WEBP, GIF"):
        decode_image(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"), "the file")
    assert not ran.exists()


def icon() -> bytes:
    """One pixel by its own header, 13,000 x 13,000 by that of the PNG inside."""
    inside = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 1, 1, 0, 0, 1, 32, len(inside), 22) + inside


def run_length_bmp() -> bytes:
    header = bytearray(encoded(Image.new("P", (8, 6)), "BMP"))[: 14 + 40 + 1024]
    header[14 + 16] = 1  # compression: run lengths
    return bytes(header) + b"\x08\x00" * 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (icon(), "not an image in a format"),
        (b"qoif" + struct.pack(">IIBB", 40, 40, 3, 0) + b"\0" * 1600 + b"\0" * 7 + b"\1", "not an image in a format"),
        (b"P2 2 2 100\n1 2 3 4\n", "PPM of this kind .* save it as PNG"),
        (b"P5 2 2 100\n1234", "PPM of this kind"),
        (run_length_bmp(), "BMP of this kind"),
    ],
    ids=["ICO", "QOI", "text", "depth", "run lengths"],
)
def test_what_is_decoded_unmeasured_or_in_python_is_refused(content: bytes, message: str) -> None:
    """A QOI of 16 million pixels took 31 seconds, and an icon's picture was decoded before its size was looked at."""
    with pytest.raises(ImageReadError, match=message):
        decode_image(io.BytesIO(content), "the file")


@pytest.mark.parametrize(("mode", "most"), [("RGB", 10), ("RGBA", 10), ("I;16", 8), ("F", 10)])
def test_decoding_takes_little_more_than_the_pixels_and_the_answer(tmp_path: Path, mode: str, most: int) -> None:
    """Bytes for a pixel: 4, or 2, are Pillow's and 3 the answer's; there were 17 to 30."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system does not say how much memory was taken")
    side = 4000
    for name, size in (("small", 8), ("large", side)):
        Image.new(mode, (size, size)).save(tmp_path / f"{name}.tiff", compression="tiff_adobe_deflate")
    program = (
        "import re, sys\nfrom pathlib import Path\nfrom nlml_hpe.files.images import read_image\n"
        "def peak(): return int(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024\n"
        "read_image(sys.argv[1])\nbefore = peak()\nread_image(sys.argv[2])\nprint(peak() - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "small.tiff"), str(tmp_path / "large.tiff")]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken / side**2 < most


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "CMYK", "F", "I;16"])
def test_an_image_of_several_stripes_reads_as_one(mode: str) -> None:
    rng = np.random.default_rng(0)
    whole = Image.fromarray(rng.integers(0, 256, (1203, 1000, 4), dtype=np.uint8))
    if mode in ("F", "I;16"):
        image = Image.fromarray(
            rng.integers(0, 65536, (1203, 1000)).astype(np.uint16 if mode == "I;16" else np.float32)
        )
        expected = np.rint(np.asarray(image, dtype=np.float64) / 65535 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    else:
        image = whole.convert("RGB").convert(mode) if mode == "P" else whole.convert(mode)
        white = Image.new("RGBA", image.size, "white")
        expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    np.testing.assert_array_equal(as_rgb(image), expected)


def test_a_pil_image_that_is_turned_stays_as_it_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(encoded(Image.new("RGB", (8, 6)), "JPEG", exif=exif))) as image:
        assert [as_rgb(image).shape for _ in range(2)] == [(8, 6, 3)] * 2
        assert image.size == (8, 6)
