"""Words and bars that the command line shows."""

from __future__ import annotations

BAR_DELAY_SECONDS = 1.0
"""How long a progress bar waits before it is drawn: what the detector's libraries print at their first image would
tear it."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s unless there is one.

    Examples
    --------
    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
