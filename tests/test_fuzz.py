"""Whatever is handed over as an image: a list of poses, or a named error, and never anything else."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from nlml_hpe import HeadPoseEstimator
from nlml_hpe.files.images import ImageReadError, RgbImage, decode_image

KINDS = st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.bool_, np.complex64, np.uint64])
IMAGES = KINDS.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)))


@pytest.fixture(scope="module")
def estimator() -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator.from_pretrained() as opened:
        yield opened


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(image=IMAGES | st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=20))
@example(image=np.zeros((1, 1, 3), dtype=np.uint8))
@example(image=np.zeros((1, 5000, 3), dtype=np.uint8))
@example(image=np.zeros((10_000, 200, 3), dtype=np.uint8))
@example(image="\0")
def test_any_object(estimator: HeadPoseEstimator, image: object) -> None:
    # Any other error than this one, of which ImageReadError is a kind, fails the test.
    with contextlib.suppress(ValueError):
        assert isinstance(estimator.predict(image), list)


def damaged(photo: RgbImage) -> st.SearchStrategy[bytes]:
    """Encoded images, cut and with bytes changed."""
    small = Image.fromarray(photo[60:200, 150:310])
    whole = []
    for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "TGA", "JPEG2000"):
        stream = io.BytesIO()
        small.save(stream, form)
        whole.append(stream.getvalue())

    @st.composite
    def change(draw: st.DrawFn) -> bytes:
        content = bytearray(draw(st.sampled_from(whole)))
        for _ in range(draw(st.integers(0, 8))):
            # Headers are what decoders trust: half of the changes go there.
            end = draw(st.sampled_from([min(64, len(content)), len(content)]))
            content[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
        return bytes(content[: draw(st.sampled_from([len(content), draw(st.integers(0, len(content)))]))])

    return change()


def test_damaged_files(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
    @given(content=damaged(photo))
    def run(content: bytes) -> None:
        try:
            image = decode_image(io.BytesIO(content), "the file")
        except ImageReadError:
            outcomes["refused"] += 1
        else:
            assert isinstance(estimator.predict(image), list)
            outcomes["read"] += 1

    run()
    assert min(outcomes.values()) > 50
