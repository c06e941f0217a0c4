"""What a reader gives: labelled faces, and what it left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import Box, has_size
from nlml_hpe.files.images import RgbImage
from nlml_hpe.rotation import Angles, rotation_from_angles

_OWN_FRAME_DATA = ("rendered", "crops")
_SHOWN = 3
_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
"""What would break a line of a list or a row of a table."""


class DatasetError(ValueError):
    """A folder is not the data set it should be, or a list does not fit it; the message says what to do."""


@dataclass(frozen=True)
class Sample:
    """One labelled face.

    Attributes
    ----------
    name : str
        Path below the data set's root, but for rendered images without suffix; one line of a file list.
    angles : tuple of float
        Yaw, pitch and roll in degrees, as the label states them.
    load : callable
        Reads the image, RGB uint8 (H, W, 3). Raises ``ImageReadError`` where it does not read.
    box : tuple of float, optional
        The face's box in pixels (left, top, right, bottom), where the label has one.
    group : str
        The photograph, person or recording that the face belongs to. Two faces of one group are too much alike to
        lie on both sides of a split.
    person : str
        The number of a rendered person; empty for photographs.

    Examples
    --------
    >>> sample = Sample("a/face.jpg", (10.0, -5.0, 0.0), lambda: np.zeros((64, 64, 3), dtype=np.uint8))
    >>> sample.load().shape, sample.box
    ((64, 64, 3), None)
    """

    name: str
    angles: tuple[float, float, float]
    load: Callable[[], RgbImage]
    box: Box | None = None
    group: str = ""
    person: str = ""


@dataclass
class Dataset:
    """Labelled faces in the order of their names, and what was left out.

    Attributes
    ----------
    name : str
        The layout, one of ``LAYOUTS``.
    root : Path
        The folder that was read.
    samples : list of Sample
        The faces that can be used.
    left_out : dict of str to list of str
        Reason -> names of the files that cannot be used for it.

    Examples
    --------
    >>> data = Dataset("biwi", Path("faces"))
    >>> data.add(Sample("a", (10.0, -5.0, 0.0), lambda: np.zeros((64, 64, 3), dtype=np.uint8)))
    >>> data.leave_out("no label", "b")
    >>> print(data.summary())
    biwi in faces: 1 labelled faces
      left out, no label: 1 (b)
    """

    name: str
    root: Path
    samples: list[Sample] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """Take a face in, unless its name cannot be written into a table or list, or its box is empty, inverted or not
        finite: then it is left out.

        Parameters
        ----------
        sample : Sample
            One labelled face.
        """
        if not is_plain(sample.name):
            self.leave_out("file name is not one line of UTF-8 text", sample.name)
        elif sample.box is not None and not has_size(sample.box):
            self.leave_out("box has no size", sample.name)
        else:
            self.samples.append(sample)

    def leave_out(self, reason: str, name: str) -> None:
        """Count a file that cannot be used.

        Parameters
        ----------
        reason : str
            Why, in the words of the summary.
        name : str
            Of the file; kept as ``legible`` makes it.
        """
        self.left_out.setdefault(reason, []).append(legible(name))

    def spread(self, count: int) -> list[Sample]:
        """So many of the faces, evenly among all, the first and the last with them.

        Parameters
        ----------
        count : int
            How many; all where there are fewer.

        Returns
        -------
        list of Sample
            In their order.

        Examples
        --------
        >>> data = Dataset("biwi", Path("faces"))
        >>> data.samples = [Sample(name, (0.0, 0.0, 0.0), lambda: None) for name in "abcdefg"]
        >>> [sample.name for sample in data.spread(4)], len(data.spread(10))
        (['a', 'c', 'e', 'g'], 7)
        """
        last = len(self.samples) - 1
        return [self.samples[index] for index in np.linspace(0, last, min(count, last + 1)).astype(int)]

    @property
    def angles(self) -> Angles:
        """Yaw, pitch and roll (n,) in degrees, as the labels state them."""
        return Angles.from_columns(np.reshape([sample.angles for sample in self.samples], (-1, 3)))

    @property
    def rotations(self) -> NDArray[np.float64]:
        """True rotations (n, 3, 3), head to camera."""
        return rotation_from_angles(self.angles)

    @property
    def is_in_own_frame(self) -> bool:
        """Whether labels are in the head frame of the training heads, as those of rendered people are."""
        return self.name in _OWN_FRAME_DATA

    def summary(self) -> str:
        """What was found and what was left out, in words."""
        lines = [f"{self.name} in {self.root}: {len(self.samples)} labelled faces"]
        lines += [f"left out, {reason}: {counted_names(names)}" for reason, names in self.left_out.items()]
        return "\n  ".join(lines)


def counted_names(names: list[str]) -> str:
    """How many names, and the first of them."""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"


def legible(name: str) -> str:
    r"""A file name that can be printed and written as UTF-8, whatever its bytes.

    Examples
    --------
    >>> legible("photo\udcff.jpg")
    'photo\\xff.jpg'
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def is_plain(name: str) -> bool:
    """Whether a name can be written into a list or a table: one line of text, of bytes that are UTF-8."""
    return legible(name) == name
