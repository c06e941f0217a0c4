"""Heads followed through a video by their places: a head that turns away and back keeps its number.

What is followed is not the face's box, which wanders from one side of the head to the other as the head turns, but the
point between the ears, which stays. MediaPipe's canonical face, turned as the head is, says where that point lies
beside the box of the 68 points, and where the box lies beside that point: so the box of a head is known whose face
nobody sees, and the image eye can be asked there.

Each frame's heads are given to the tracks one by one, the nearest pair first, if they lie near enough, and rather to
one that was found lately. A track's place is smoothed with its velocity (an alpha-beta filter). A head that no detector
finds is where the image eye, which looks about there, is sure of one; where it is not, the head stays where it was, its
velocity dying away. It ends where it leaves the picture, ``PATIENCE_SECONDS`` after it was found last or the image eye
was sure enough to see a head there, and ``LONGEST_UNSEEN_SECONDS`` after it was found last; its pose is given for
``DOUBTED_SECONDS`` after the image eye was sure of it. Seconds without a frame make nobody lose patience; after
``LONGEST_UNSEEN_SECONDS`` of them all heads are new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import canonical_68
from nlml_hpe.detection.places import shared_area
from nlml_hpe.face import Box, area_of, has_size

DOUBTED_SECONDS, PATIENCE_SECONDS, LONGEST_UNSEEN_SECONDS = 0.5, 2.0, 10.0
SURE_SCORE = 0.045
"""Where the image eye's own score, before calibration, is lower, it sees no head: of 440 squares of pictures without
one 1.4% have more, of 1,320 crops of rendered people all the way round 2% less."""
_BETWEEN_EARS_CM = (0.0, -1.2, -7.5)
"""In the frame of the canonical face: the ears of ICT-FaceKit's neutral head, laid over it by the 68 points."""
_REACH, _REACH_PER_SECOND = 0.5, 0.5
"""How far from where it is expected a head may be found, in its size, and how much further for each second unseen."""
_LARGEST_RATIO = 1.7
"""Of two sizes of one head."""
_ALPHA, _BETA = 0.7, 0.3
_COASTING_SECONDS = 0.3
"""Within so long the velocity of a head that is not found falls to a third."""
_COVERED = 0.46
"""Two boxes of which the smaller one lies in the other by more are of one place; boxes of one size overlap by 0.3 (IoU)
then."""
Floats = NDArray[np.float64]


@cache
def _canonical() -> Floats:
    """The 68 points (68, 3) in the head frame, from between the ears, in longer sides of their box seen from before."""
    points = canonical_68()
    longest = float(np.ptp(points[:, :2], axis=0).max())
    return (points - np.array(_BETWEEN_EARS_CM)) / longest


def _corners(rotation: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest x and y, in image axes, of the canonical points of a head that is turned so."""
    shown = (_canonical() @ rotation.T)[:, :2] * [1, -1]
    return shown.min(axis=0), shown.max(axis=0)


def place_of(box: Box, rotation: Floats) -> Floats:
    """Where a head is: the point between the ears, and its size.

    Parameters
    ----------
    box : Box
        Of the 68 contour-and-feature points, in pixels.
    rotation : float array (3, 3)
        Head to camera.

    Returns
    -------
    float array (3,)
        x and y in pixels, and the logarithm of the size: of the longer side that the box has from before, in pixels.

    Examples
    --------
    >>> x, y, size = place_of((100.0, 100.0, 206.0, 200.0), np.eye(3))
    >>> round(float(x), 1), round(float(np.exp(size)), 1)  # in the middle of the face
    (153.0, 106.0)
    """
    low, high = _corners(rotation)
    corners = np.array(box).reshape(2, 2)
    size = float((corners[1] - corners[0]).max() / (high - low).max())
    return np.array([*(corners.mean(axis=0) - size * (low + high) / 2), math.log(size)])


def box_at(place: Floats, rotation: Floats) -> Box:
    """The box of the 68 points, in pixels, of a head at a ``place_of`` such; of hidden points, too.

    Examples
    --------
    >>> back = np.diag([-1.0, 1.0, -1.0])
    >>> np.round(box_at(place_of((100.0, 100.0, 206.0, 200.0), np.eye(3)), back)).tolist()  # seen from behind
    [100.0, 100.0, 206.0, 200.0]
    """
    low, high = _corners(rotation)
    size = math.exp(place[2])
    left, top, right, bottom = (float(value) for value in np.concatenate([low, high]) * size + np.tile(place[:2], 2))
    return (left, top, right, bottom)


@dataclass(eq=False)
class Track:
    """One head of a video.

    Attributes
    ----------
    place, velocity : float array (3,)
        As ``place_of`` has it, and its change in a second.
    rotation : float array (3, 3)
        The last one that is known.
    time, seen, sure : float
        Seconds: of ``place``; when the head was found last; and when it was, or the image eye was sure of it.
    number : int or None
        From 1; None of one that was found once, in the middle of a video: it may be none.
    """

    place: Floats
    rotation: Floats
    time: float
    seen: float
    sure: float
    number: int | None = None
    velocity: Floats = field(default_factory=lambda: np.zeros(3))

    @property
    def box(self) -> Box:
        """Of the 68 points, in pixels, where the head is expected."""
        return box_at(self.place, self.rotation)

    @property
    def is_doubted(self) -> bool:
        """Whether nobody has been sure of the head for so long that an answer at its place may be one to a wall."""
        return self.time - self.sure > DOUBTED_SECONDS

    def move(self, time: float, is_seen: bool) -> None:
        """Go on to a time, in seconds; the velocity of a head that was not found dies away."""
        seconds = max(time - self.time, 0.0)
        if not is_seen:
            self.velocity = self.velocity * math.exp(-seconds / _COASTING_SECONDS)
        self.place, self.time = self.place + self.velocity * seconds, max(time, self.time)

    def correct(self, place: Floats, rotation: Floats, seconds: float) -> None:
        """The head was found in the frame to which it was moved.

        Parameters
        ----------
        place : float array (3,)
            Where, as ``place_of`` has it.
        rotation : float array (3, 3)
            Head to camera.
        seconds : float
            Since the frame before.
        """
        apart, seconds = place - self.place, max(seconds, 1e-3)
        if self._is_turned_in_place(place, rotation):
            # One of the two rotations is wrong, and with it the point between the ears: nothing moved so quickly.
            self.place, apart = place, np.zeros(3)
        # Of a head that was missed in frames before, what was expected says less, and it had more time to come here.
        share = min(seconds / max(self.time - self.seen, 1e-3), 1.0)
        self.place = self.place + (1 - (1 - _ALPHA) * share) * apart
        # A head's size changes by its way to the camera, which is slow: what is measured of it is noise.
        self.velocity = self.velocity + min(_BETA, share) / seconds * apart * [1, 1, 0]
        self.rotation, self.seen, self.sure = rotation, self.time, self.time

    def _is_turned_in_place(self, place: Floats, rotation: Floats) -> bool:
        """Whether the head jumped by its rotation alone: its box is where it was expected."""
        far = _REACH * math.exp(self.place[2])
        if math.dist(place[:2], self.place[:2]) < far:
            return False
        return math.dist(_middle(box_at(place, rotation)), _middle(self.box)) < far

    def answer(self, box: Box, rotation: Floats, score: float) -> None:
        """What the image eye says of the head in a box, where no detector finds it; doubtful answers say nothing.

        Parameters
        ----------
        box : Box
            Of the 68 points, in pixels: where the eye looked.
        rotation : float array (3, 3)
            Head to camera.
        score : float
            The eye's own, in 0..1, before calibration; NaN of one that knows no doubt.
        """
        if score >= SURE_SCORE:  # NaN is not
            self.rotation, self.sure = rotation.copy(), self.time
            self.place = self.place + _ALPHA * (place_of(box, rotation) - self.place)


class HeadTracker:
    """The tracks of one video. It knows boxes and rotations alone, whoever found them.

    Attributes
    ----------
    count : int
        How many heads were given a number.

    Examples
    --------
    >>> tracker = HeadTracker()
    >>> boxes, front = [(10.0, 10.0, 50.0, 50.0), (200.0, 10.0, 240.0, 50.0)], [np.eye(3)] * 2
    >>> [track.number for track in tracker.see(boxes, front, 0.0, (320, 240))]
    [1, 2]
    >>> [track.number for track in tracker.see(boxes[1:], front[1:], 0.04, (320, 240))]
    [2]
    >>> [track.number for track in tracker.lost]  # and where it is expected: track.box
    [1]
    """

    def __init__(self) -> None:
        self.count, self._is_fresh = 0, True
        self._tracks: list[Track] = []
        self._time = -math.inf

    @property
    def lost(self) -> list[Track]:
        """Heads with a number that the last frame's detectors did not find, and that no other head hides.

        Of two in one place that nobody found, the one that was sure last stays, of two such the older one: often both
        are one head, whose face was seen beside itself once.
        """
        taken = [track.box for track in self._tracks if track.seen == self._time]
        missed = [track for track in self._tracks if track.seen < self._time]
        lost = []
        for track in sorted(missed, key=lambda track: -track.sure):
            box = track.box
            if not any(is_same_place(box, other) for other in taken):
                taken.append(box)
                lost.append(track)
        return lost

    def cut(self) -> None:
        """Another scene begins: all heads of the next frame are new ones."""
        self._tracks, self._is_fresh = [], True

    def see(self, boxes: Sequence[Box], rotations: Sequence[Floats], time: float, size: tuple[int, int]) -> list[Track]:
        """The track of each head of a frame.

        Parameters
        ----------
        boxes : sequence of Box
            Of the 68 points of each head, in pixels.
        rotations : sequence of float arrays (3, 3)
            Of the heads, head to camera.
        time : float
            Of the frame, in seconds; later than the one before.
        size : (int, int)
            Width and height of the frame in pixels.

        Returns
        -------
        list of Track
            In the order of the boxes.

        Raises
        ------
        ValueError
            For a box without a size, and for a rotation or a time that is not finite; no track is changed then.
        """
        if not math.isfinite(time):
            raise ValueError(f"time: expected a finite number of seconds; received {time}")
        for box, rotation in zip(boxes, rotations, strict=True):
            if not has_size(box) or not np.isfinite(rotation).all():
                raise ValueError(
                    "expected a box (left, top, right, bottom) that is not empty and a rotation of finite numbers; "
                    f"received {box} and {np.asarray(rotation).tolist()}"
                )
        # They are the poses' own, and whoever has those may write into them.
        rotations = [np.array(rotation, dtype=np.float64) for rotation in rotations]
        seconds = time - self._time
        if seconds > LONGEST_UNSEEN_SECONDS:
            self.cut()  # longer than any head is awaited: nobody knows who came or went
        self._tracks = [track for track in self._tracks if _is_awaited(track, self._time, time)]
        for track in self._tracks:
            track.move(time, track.seen == self._time)
        self._time = time
        places = [place_of(box, rotation) for box, rotation in zip(boxes, rotations, strict=True)]
        owners = self._owners(boxes, places)
        for index, (place, rotation) in enumerate(zip(places, rotations, strict=True)):
            if index in owners:
                owners[index].correct(place, rotation, seconds)
                owners[index].number = owners[index].number or self._number()
            else:
                owners[index] = Track(place, rotation, time, time, time, self._number() if self._is_fresh else None)
                self._tracks.append(owners[index])
        self._tracks = [track for track in self._tracks if self._stays(track, size)]
        self._is_fresh = self._is_fresh and not boxes
        return [owners[index] for index in range(len(boxes))]

    def _owners(self, boxes: Sequence[Box], places: Sequence[Floats]) -> dict[int, Track]:
        """Which track each head belongs to, of those that belong to one: the nearest pair first.

        A second for which a track was not found counts as all of its reach: a head that hides another passes that one's
        track, and is nearer to it for a frame or two than to its own.
        """
        heads = list(zip(places, map(_middle, boxes), strict=True))
        # Of a crowd there are many more pairs than tracks: what is reckoned of a track is reckoned once.
        expected = [(track, _middle(track.box)) for track in self._tracks]
        pairs = [
            (distance + self._time - track.seen, index, number)
            for index, (place, middle) in enumerate(heads)
            for number, (track, awaited) in enumerate(expected)
            if (distance := _distance(track, awaited, place, middle)) < 1
        ]
        owners: dict[int, Track] = {}
        taken: set[int] = set()
        for _, index, number in sorted(pairs):
            if index not in owners and number not in taken:
                owners[index] = self._tracks[number]
                taken.add(number)
        return owners

    def _number(self) -> int:
        self.count += 1
        return self.count

    def _stays(self, track: Track, size: tuple[int, int]) -> bool:
        """Whether a head is still there: found now, or numbered and within the picture."""
        inside = 0 <= track.place[0] <= size[0] and 0 <= track.place[1] <= size[1]
        return track.seen == self._time or (track.number is not None and inside)


def _is_awaited(track: Track, last: float, time: float) -> bool:
    """Whether a head may still be where it was found last, in a frame of a time after one of the ``last`` time.

    Where frames are far apart, or a camera gave none for a while, nobody missed it in between.
    """
    is_missed = track.sure < last and time - track.sure > PATIENCE_SECONDS
    return not is_missed and time - track.seen <= LONGEST_UNSEEN_SECONDS


def is_same_place(first: Box, second: Box) -> bool:
    """Whether of two heads with these boxes one hides the other, or both are one.

    Examples
    --------
    >>> is_same_place((0, 0, 10, 10), (2, 2, 6, 6)), is_same_place((0, 0, 10, 10), (6, 0, 16, 10))
    (True, False)
    """
    return shared_area(first, second) > _COVERED * min(area_of(first), area_of(second))


def _middle(box: Box) -> tuple[float, float]:
    """x and y in the middle of a box."""
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2


def _distance(track: Track, awaited: tuple[float, float], place: Floats, middle: tuple[float, float]) -> float:
    """How far a head that was found lies from where a track expects it: 1 as far as may be; 2 for another size.

    Its place and the middle of its box are compared with the track's place and the middle of the box that is awaited.
    """
    if abs(place[2] - track.place[2]) > math.log(_LARGEST_RATIO):
        return 2.0
    # By the box, too: of a face far to the side the rotation may be wrong, and with it the point between the ears.
    apart = min(math.dist(place[:2], track.place[:2]), math.dist(middle, awaited))
    reach = _REACH + _REACH_PER_SECOND * (track.time - track.seen)
    return apart / (math.exp(track.place[2]) * reach)
