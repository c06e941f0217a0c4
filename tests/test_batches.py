"""Images in batches: each in its place, never more than a batch of them in memory, and no error lost."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from nlml_hpe.inference import batches
from nlml_hpe.inference.batches import MOST_IMAGES, read_batches


def test_sources_are_taken_as_they_are_needed_and_stay_in_order() -> None:
    """Of sources without end, by readers that finish in another order."""
    taken: list[int] = []
    gate = threading.Event()

    def read(number: int) -> int:
        taken.append(number)
        if number:
            gate.set()
        else:
            # The first is read after another one, where there are threads for both.
            gate.wait(0.2)
        return number * 10

    stream = read_batches(itertools.count(), read)
    first = next(stream)
    assert first == [(number, number * 10) for number in range(MOST_IMAGES)]
    assert sorted(taken) == list(range(MOST_IMAGES))
    assert next(stream)[0] == (MOST_IMAGES, MOST_IMAGES * 10)
    stream.close()  # type: ignore[attr-defined]


def test_large_images_come_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_BYTES", 10_000)
    monkeypatch.setattr(batches, "thread_count", lambda: 2)
    sizes = [len(batch) for batch in read_batches(range(10), lambda _: np.zeros(4_000, dtype=np.uint8))]
    # The third image passes the limit; images are read two at a time.
    assert sizes == [4, 4, 2]


def test_what_a_reader_raises_is_raised() -> None:
    def read(number: int) -> int:
        if number == 40:
            raise OSError("damaged")
        return number

    stream = read_batches(range(80), read)
    assert len(next(stream)) == MOST_IMAGES
    with pytest.raises(OSError, match="damaged"):
        next(stream)


def test_nothing_gives_no_batch() -> None:
    assert list(read_batches([], str)) == []
