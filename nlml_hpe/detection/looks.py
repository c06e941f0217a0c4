"""Further looks at a face that was found: FaceMesh's landmark network is shown it again, turned and mirrored.

The network does not see quite the same from every side, and errs in its own way in each look. The pose from the mean
of several looks is more exact than from one of them, and how far they lie apart tells large errors from small ones
(``inference.looks``). The face detector is not asked again: where the face is, is known from its landmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import NamedTuple, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.facemesh import FaceMeshNetworks
from nlml_hpe.detection.landmarks import FACEMESH, LandmarkDetector, mirrored_points
from nlml_hpe.detection.places import beside, reduction, resized
from nlml_hpe.detection.regions import mirror_image, regions_from_landmarks
from nlml_hpe.face import Box, Face
from nlml_hpe.files.images import RgbImage

Floats = NDArray[np.float64]
_HALF_DIAGONAL = 0.5 * np.sqrt(2)
_MARGIN = 2
"""Pixels around a window, so that interpolation at its edge sees what it would see in the whole image."""


class Look(NamedTuple):
    """One more view of a face.

    Parameters
    ----------
    side : float
        Side of the square that is shown, in sides of the square around the face's landmarks that FaceMesh is shown.
    turn : float
        By how many degrees the square is turned, clockwise in the image.
    mirrored : bool
        Whether its mirror image is shown.
    """

    side: float
    turn: float
    mirrored: bool


_SIDES_AND_TURNS = ((1.0, 0.0), (1.0, 15.0), (1.0, -15.0), (0.9, 0.0), (1.2, 0.0))
LOOKS: dict[int, tuple[Look, ...]] = {
    1: (),
    2: (Look(1.0, 0.0, True),),
    3: (Look(1.0, 15.0, True), Look(1.0, -15.0, True)),
    5: (Look(1.0, 0.0, True), Look(1.0, 0.0, False), Look(1.0, 15.0, True), Look(1.0, -15.0, True)),
    11: tuple(Look(side, turn, mirrored) for side, turn in _SIDES_AND_TURNS for mirrored in (False, True)),
}
"""Number of looks, the first one included -> the further ones. Turned ones catch the faces whose landmarks are lost in
the first look, which a second look at the same square does not: three are as good as five where both eyes answer."""
DEFAULT_LOOKS = 3
LOOKS_HELP = f"how often each face is looked at; the answer is the mean (default: {DEFAULT_LOOKS}; in a video 1)"


@dataclass(frozen=True)
class _Window:
    """The part of an image that all looks at one face show, reduced as far as the search reduces the image.

    Attributes
    ----------
    image : RGB uint8 array (h, w, 3)
    left_top : float array (2,)
        Where the window lies in the image, in pixels of the image.
    factor : float
        Pixels of the window in one of the image, 1 or less.
    region : float array (4,)
        Of the face, as ``facemesh`` has them, in pixels of the window.
    """

    image: RgbImage
    left_top: Floats
    factor: float
    region: Floats

    @classmethod
    def around(cls, face: Face, looks: Sequence[Look]) -> _Window:
        """The window of a face."""
        if face.image is None:
            raise ValueError("this face has no image, and a further look needs one")
        (region,) = regions_from_landmarks(face.landmarks[None])
        reach = region[2] * max(look.side for look in looks) * _HALF_DIAGONAL + _MARGIN
        size = np.array(face.image.shape[1::-1])
        low = np.clip(np.floor(region[:2] - reach), 0, size - 1).astype(int)
        high = np.clip(np.ceil(region[:2] + reach), low + 1, size).astype(int)
        factor = reduction(face.image)
        shown = resized(face.image[low[1] : high[1], low[0] : high[0]], factor)
        inside = (region - [*low, 0, 0]) * [factor, factor, factor, 1]
        return cls(shown, low.astype(np.float64), factor, inside)

    def shown(self, mirrored: bool) -> RgbImage:
        """The window or its mirror image."""
        return mirror_image(self.image) if mirrored else self.image

    def regions(self, looks: Sequence[Look], mirrored: bool) -> Floats:
        """Regions (n, 4) of the looks of one kind, in pixels of what is ``shown``."""
        chosen = [look for look in looks if look.mirrored == mirrored]
        x, y, side, turn = self.region
        regions = np.array([(x, y, side * look.side, turn + np.radians(look.turn)) for look in chosen]).reshape(-1, 4)
        if mirrored:
            regions = regions * np.array([-1.0, 1, 1, -1]) + np.array([self.image.shape[1], 0.0, 0, 0])
        return regions

    def in_image(self, points: Sequence[Floats], mirrored: bool) -> Floats:
        """Landmarks (n, 468, 3) found in what is ``shown``, in pixels of the image."""
        found = np.array(points).reshape(-1, FACEMESH.n_points, 3)
        upright = mirrored_points(found, self.image.shape[1], FACEMESH) if mirrored else found
        return upright / self.factor + [*self.left_top, 0]


def further_looks(count: int) -> tuple[Look, ...]:
    """The looks beside the first one.

    Parameters
    ----------
    count : int
        How many looks there are in all: 1, 2, 3, 5 or 11.

    Returns
    -------
    tuple of Look
        One fewer.

    Raises
    ------
    ValueError
        For another number.

    Examples
    --------
    >>> further_looks(2)
    (Look(side=1.0, turn=0.0, mirrored=True),)
    >>> further_looks(4)
    Traceback (most recent call last):
    ...
    ValueError: looks: expected 1, 2, 3, 5 or 11; received 4
    """
    if isinstance(count, bool) or not isinstance(count, Integral) or count not in LOOKS:
        *first, last = map(str, LOOKS)
        raise ValueError(f"looks: expected {', '.join(first)} or {last}; received {count!r}")
    return LOOKS[count]


class LooksAgain(Protocol):
    """A detector that can look again at the faces that it found."""

    @property
    def is_tracking(self) -> bool:
        """Whether images are the frames of one video."""
        ...

    def look_again(self, faces: Sequence[Face], looks: Sequence[Look]) -> list[Face]:
        """The faces with the landmarks of further looks at them, as of the function ``look_again``."""
        ...

    def detect_turned(self, image: RgbImage) -> list[Face]:
        """Faces in the turned image, where it shows none upright."""
        ...


def _looks_again(detector: LandmarkDetector) -> TypeGuard[LooksAgain]:
    """Whether the detector can look again: as ``isinstance``, which takes a tenth of a millisecond for a protocol."""
    return hasattr(detector, "look_again")


def _places_faces(detector: LandmarkDetector) -> TypeGuard[PlacesFaces]:
    """Whether the detector can tell where faces are of which it has no landmarks."""
    return hasattr(detector, "detect_and_place")


def looks_by(detector: LandmarkDetector, count: int | None) -> tuple[Look, ...]:
    """The looks beside the first one that a detector is asked for.

    Parameters
    ----------
    detector : LandmarkDetector
        Which finds the faces.
    count : int or None
        As of ``further_looks``; None for ``DEFAULT_LOOKS``, and one where the detector cannot look again or follows
        faces through a video: from frame to frame they are seen again anyway.

    Returns
    -------
    tuple of Look
        As of ``further_looks``.

    Raises
    ------
    ValueError
        For another number, and for more than one where the detector cannot look again.
    """
    if count is None:
        count = DEFAULT_LOOKS if _looks_again(detector) and not detector.is_tracking else 1
    looks = further_looks(count)
    if looks and not _looks_again(detector):
        raise ValueError(
            f"looks: {type(detector).__name__} cannot look at a face again; use looks=1, or 'facemesh_onnx'"
        )
    return looks


TellPlaces = Callable[[RgbImage, Sequence[Box]], None]
"""Told of an image and where faces are in it, before their landmarks are known: boxes of the 68 points, in pixels."""


class PlacesFaces(Protocol):
    """A detector that can tell where a face is without its landmarks."""

    @property
    def max_faces(self) -> int:
        """At most so many faces are found in an image."""
        ...

    def detect_and_place(
        self, images: Sequence[RgbImage], tell: TellPlaces | None = None
    ) -> tuple[list[list[Face]], list[list[Box]]]:
        """Faces in each image, and boxes of faces with landmarks and without; ``tell`` is told before they are seen."""
        ...


def first_seen(
    detector: LandmarkDetector,
    images: Sequence[RgbImage],
    turned: bool,
    boxes: bool = False,
    tell: TellPlaces | None = None,
) -> list[list[Face]]:
    """Faces in each image with the landmarks of the first look.

    Parameters
    ----------
    detector : LandmarkDetector
        What finds faces.
    images : sequence of RGB uint8 arrays (H, W, 3)
        Searched together, where the detector can.
    turned : bool
        Whether an image in which the search finds none is also turned, where the detector can look again.
    boxes : bool
        Whether there are also faces without landmarks (``found_by`` is "box"), where the detector can place them.
    tell : callable, optional
        Told where faces are before they are seen; with ``boxes`` alone, where the detector can place faces.

    Returns
    -------
    list of lists of Face
        Of each image, largest first, with that image.
    """
    placed: list[list[Box]] = [[] for _ in images]
    if boxes and _places_faces(detector):
        found, placed = detector.detect_and_place(images, tell)
    elif hasattr(detector, "detect_batch"):
        found = detector.detect_batch(images)
    else:
        found = [detector.detect(image) for image in images]
    if turned and _looks_again(detector):
        found = [faces or detector.detect_turned(image) for image, faces in zip(images, found, strict=True)]
    # A user's own detector may give landmarks alone, and the image eye needs the image.
    found = [
        [replace(face, image=image) if face.image is None else face for face in faces]
        for image, faces in zip(images, found, strict=True)
    ]
    return [_with_boxes(detector, *all_of_one) for all_of_one in zip(images, found, placed, strict=True)]


def _with_boxes(detector: LandmarkDetector, image: RgbImage, faces: list[Face], boxes: Sequence[Box]) -> list[Face]:
    """The faces and, as long as the detector has room, those of boxes that show none of them; largest first."""
    if not (boxes and _places_faces(detector)):
        return faces
    room = max(0, detector.max_faces - len(faces))
    others = [Face(image, box, None, "box") for box in beside(boxes, faces)[:room]]
    return sorted([*faces, *others], key=lambda face: -face.area)


def seen_again(detector: LandmarkDetector, faces: Sequence[Face], looks: Sequence[Look]) -> list[Face]:
    """The faces with the landmarks of further looks, where the detector can look again.

    Parameters
    ----------
    detector : LandmarkDetector
        That found them.
    faces : sequence of Face
        Those without image or landmarks stay as they are.
    looks : sequence of Look
        The further looks; without any the faces stay as they are.

    Returns
    -------
    list of Face
        In the same order.
    """
    shown = [index for index, face in enumerate(faces) if face.image is not None and face.points is not None]
    whole = list(faces)
    if looks and shown and _looks_again(detector):
        for index, face in zip(shown, detector.look_again([faces[index] for index in shown], looks), strict=True):
            whole[index] = face
    return whole


def look_again(
    networks: FaceMeshNetworks, faces: Sequence[Face], looks: Sequence[Look], confidence: float
) -> list[Face]:
    """The faces with the landmarks of further looks at them; all go through the landmark network together.

    Parameters
    ----------
    networks : FaceMeshNetworks
        Of which the landmark network is run.
    faces : sequence of Face
        With their images and FaceMesh's landmarks.
    looks : sequence of Look
        The views, which are added to those that a face has. One that shows the network no face is left out.
    confidence : float
        How sure the network must be, in 0..1.

    Returns
    -------
    list of Face
        In the same order, each with the landmarks of the new looks in ``looks``.

    Raises
    ------
    ValueError
        For a face without image or landmarks.
    """
    windows = [_Window.around(face, looks) for face in faces]
    sides = [(window, mirrored) for window in windows for mirrored in (False, True)]
    found = networks.landmarks(
        [window.shown(mirrored) for window, mirrored in sides],
        [window.regions(looks, mirrored) for window, mirrored in sides],
        confidence,
    )

    in_image = [window.in_image(points, mirrored) for (window, mirrored), points in zip(sides, found, strict=True)]
    both = (np.concatenate(in_image[index : index + 2]) for index in range(0, len(in_image), 2))
    return [
        replace(face, looks=points if face.looks is None else np.concatenate([face.looks, points]))
        for face, points in zip(faces, both, strict=True)
    ]
