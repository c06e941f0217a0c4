"""What a training says when it cannot go on; apart, so that a command can name it without loading torch."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why."""
