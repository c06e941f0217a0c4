"""Poses of the heads of a video: those that are found, and those that are known to be there though no face is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import beside
from nlml_hpe.face import Box, Face, HeadPose, area_of
from nlml_hpe.files.images import RgbImage, require_rgb
from nlml_hpe.inference.engines import Route
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fusion import Eye
from nlml_hpe.inference.poses import head_poses
from nlml_hpe.inference.tracks import HeadTracker, is_same_place

BoxSource = Callable[[RgbImage], Sequence[Box]]
"""Boxes of the 68 points, in pixels, of all heads in an RGB image (H, W, 3): a head detector."""
_SEARCH_EVERY, _SEARCH_FOR_LOST_EVERY = 25, 5
"""Frames from one search for heads without a face to the next: for new ones, and while a head is missed."""
_THUMB_PX, _REDUCED_PX = 32, 256
_CUT_CORRELATION, _CUT_LEVELS = 0.4, 12.0
"""Two frames whose reduced copies correlate less, and differ by more grey levels on average, are of two scenes."""
_FLAT_LEVELS = 2.0
"""A frame whose grey levels deviate less from their mean is black or white, and shows no scene: of the embedded
photograph, made darker or greyer, no face is found from 2.7 on down."""


class HeadFollower:
    """The heads of one video: call it with every frame, in order.

    A head that turns away is answered by the image eye, at the place where it is expected (``tracks``). ``found_by`` of
    its face is "track". Where the model has no image eye, or ``eye`` is "landmarks", it has no pose until its face is
    seen again, and keeps its number. A black or white frame has no poses, and changes nothing.

    Parameters
    ----------
    estimator : HeadPoseEstimator
        Best one with ``tracking``; it serves one follower at a time.
    refine, eye, looks
        As of ``HeadPoseEstimator.predict``.
    boxes : callable, optional
        Finds heads whose faces are not seen, of which the first are taken up to the estimator's ``max_faces`` in all;
        asked in every 25th frame, in every fifth while a head is missed, and in the one after a head came. Of a model
        without an image eye, and with ``eye="landmarks"``, it raises ``ValueError``: nobody could answer them.

    Examples
    --------
    >>> with HeadPoseEstimator(tracking=True) as estimator:
    ...     follow = HeadFollower(estimator)
    ...     follow(np.zeros((64, 64, 3), dtype=np.uint8), 0.0), follow.count
    ([], 0)
    """

    def __init__(
        self,
        estimator: HeadPoseEstimator,
        refine: bool = True,
        eye: Eye | None = None,
        looks: int | None = None,
        boxes: BoxSource | None = None,
    ) -> None:
        if boxes is not None:
            estimator.eyes.require_image(eye)
        self._estimator, self._looks, self._boxes = estimator, looks, boxes
        self._route: Route = "refined" if refine else "network"
        self._eye: Eye = estimator.eyes.chosen(eye)
        self._tracker, self._thumb = HeadTracker(), np.empty(0)
        self._shape: tuple[int, ...] = ()
        self._is_after_flat = False
        self._start_anew()

    @property
    def count(self) -> int:
        """How many heads were given a number."""
        return self._tracker.count

    def __call__(self, image: RgbImage, seconds: float) -> list[HeadPose]:
        """Poses of the heads in a frame.

        Parameters
        ----------
        image : numpy.ndarray
            RGB uint8 (H, W, 3).
        seconds : float
            The frame's time, later than that of the frame before.

        Returns
        -------
        list of HeadPose
            Largest first, with the numbers of their tracks.

        Raises
        ------
        ValueError
            For another array, and for a time that is not finite, by which every head would lose its number.
        """
        require_rgb(image)
        thumb = _thumb(image)
        if self._shape == image.shape and thumb.std() < _FLAT_LEVELS:
            self._is_after_flat = True
            return []  # a flash, or a lost picture: the next frame may go on with what was seen before it
        if self._is_cut(image.shape, thumb):
            self._start_anew()
        faces = self._faces(image)
        found = self._estimator.poses(faces, self._route, self._eye)
        boxes, rotations = [box_of_68(face) for face in faces], [pose.rotation for pose in found]
        tracks = self._tracker.see(boxes, rotations, seconds, (image.shape[1], image.shape[0]))
        if any(track.number is None for track in tracks):
            # A head gets its number where it is found again in the next frame, which is therefore searched, too.
            self._since_search = _SEARCH_EVERY
        poses = [replace(pose, track=track.number) for pose, track in zip(found, tracks, strict=True)]
        return sorted([*poses, *self._unseen(image, boxes)], key=lambda pose: -area_of(pose.box))

    def _start_anew(self) -> None:
        """Another scene begins, of which nothing is known."""
        self._tracker.cut()
        self._estimator.forget()
        self._since_search = _SEARCH_EVERY

    def _faces(self, image: RgbImage) -> list[Face]:
        """What the detectors find: faces, and where it is needed heads without one."""
        faces = self._estimator.detect(image, self._looks, self._eye)
        if self._eye == "landmarks":
            return faces
        self._since_search += 1
        if self._boxes is None or self._since_search < (
            _SEARCH_FOR_LOST_EVERY if self._tracker.lost else _SEARCH_EVERY
        ):
            return faces
        self._since_search = 0
        others = beside(self._boxes(image), faces)[: max(0, self._estimator.max_faces - len(faces))]
        return faces + [Face(image, box, None, "head") for box in others]

    def _unseen(self, image: RgbImage, seen: Sequence[Box]) -> list[HeadPose]:
        """The image eye's answers where heads are known to be that no detector found, none in the ``seen`` boxes."""
        lost = self._tracker.lost
        if self._eye == "landmarks" or not lost:
            return []
        expected = [Face(image, track.box, None, "track") for track in lost]
        assert self._estimator.eyes.image is not None  # nobody else answers by this eye
        placed = self._estimator.eyes.image.placed(expected)
        # What the refiner sees there may be another's head; of two that it sees in one place the first one is there.
        faces: list[Face] = []
        for index, (before, face) in enumerate(zip(expected, placed, strict=True)):
            taken = [*seen, *(other.box for other in faces), *(other.box for other in expected[index + 1 :])]
            faces.append(before if any(is_same_place(face.box, box) for box in taken) else face)
        answer = self._estimator.eyes.answer(faces, eye="image")
        poses = head_poses(faces, answer, self._estimator.engine)
        # Its own doubt tells heads from other things; calibrated, those that look away are as unsure as a wall.
        for track, face, pose, score in zip(lost, faces, poses, answer.image.score, strict=True):
            track.answer(face.box, pose.rotation, float(score))
        pairs = zip(lost, poses, strict=True)
        return [replace(pose, track=track.number) for track, pose in pairs if not track.is_doubted]

    def _is_cut(self, shape: tuple[int, ...], thumb: NDArray[np.float64]) -> bool:
        """Whether a frame of this shape and reduced copy shows another scene than the last one that shows any."""
        is_resized, before, is_after_flat = shape != self._shape, self._thumb, self._is_after_flat
        self._shape, self._thumb, self._is_after_flat = shape, thumb, False
        if is_resized:
            # What is known of heads is in pixels of frames of the other size. The first frame of all is such, too.
            return True
        # Where a film fades to black and another scene comes out of it, both are too dark there to differ by much.
        if not is_after_flat and np.abs(before - thumb).mean() < _CUT_LEVELS:
            return False
        deviations = [each - each.mean() for each in (before, thumb)]
        strength = float(np.prod([np.linalg.norm(each) for each in deviations]))
        return float((deviations[0] * deviations[1]).sum()) < _CUT_CORRELATION * strength or strength == 0.0


def _thumb(image: RgbImage) -> NDArray[np.float64]:
    """A grey copy of few pixels, of all but a few at the right and lower border of a large image."""
    image = np.ascontiguousarray(image)
    # By a whole number first, which OpenCV does in a third of the time.
    factor = max(1, min(image.shape[:2]) // _REDUCED_PX)
    height, width = (side // factor for side in image.shape[:2])
    small = cv2.resize(image[: factor * height, : factor * width], (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(small, (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small.mean(axis=2), dtype=np.float64)
