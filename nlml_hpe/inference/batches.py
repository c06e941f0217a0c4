"""Images in batches, read in several threads: one batch is in memory, and the one before while its caller keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from nlml_hpe.threads import begin, thread_count

MOST_IMAGES = 32
"""Images of a batch: the model's answers cost a third of what they cost one by one, and no less in greater batches."""
MOST_BYTES = 256 * 1024 * 1024
"""No further image is read into a batch that takes more."""
Source = TypeVar("Source")
Read = TypeVar("Read")


def read_batches(sources: Iterable[Source], read: Callable[[Source], Read]) -> Iterator[list[tuple[Source, Read]]]:
    """What ``read`` makes of the sources, in their order, a batch at a time.

    Parameters
    ----------
    sources : iterable
        Anything, for instance paths; taken as they are needed.
    read : callable
        From a source to an image; called in several threads. What it raises is raised here.

    Yields
    ------
    list of (source, image)
        ``MOST_IMAGES`` or, where they are large, fewer.

    Examples
    --------
    >>> [len(batch) for batch in read_batches(range(70), float)]
    [32, 32, 6]
    """
    threads = thread_count()
    pending, size = iter(sources), 0
    batch: list[tuple[Source, Read]] = []
    while part := list(islice(pending, min(threads, MOST_IMAGES - len(batch)))):
        # Of one image nothing is to be shared out.
        for source, image in zip(part, begin(read, part, threads if len(part) > 1 else 1).results(), strict=True):
            batch.append((source, image))
            size += getattr(image, "nbytes", 0)
        if len(batch) == MOST_IMAGES or size > MOST_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
