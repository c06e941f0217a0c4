"""What travels between the rooms: a ``Face`` goes into an engine, a ``HeadPose`` comes out of the estimator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.files.images import RgbImage

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
Facing = Literal["front", "side", "rear"]
_FRONT_DEG, _REAR_DEG = 60.0, 120.0


def box_of(points: ArrayLike) -> Box:
    """The bounding box of points, in pixels.

    Parameters
    ----------
    points : array (N, 2 or more)
        x and y in the first two columns, in pixels; of four numbers that are a box's its two corners, (2, 2). Their
        order is not looked at: ``has_size`` tells an inverted box.

    Returns
    -------
    Box
        Left, top, right, bottom.

    Examples
    --------
    >>> box_of([(1, 2, 0), (5, 3, 0)])
    (1.0, 2.0, 5.0, 3.0)
    """
    # Column by column: numpy takes five times as long for both at once.
    x, y = np.asarray(points, dtype=np.float64)[:, :2].T
    return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def has_size(box: Box) -> bool:
    """Whether a box is one: finite, left before right and top before bottom.

    Parameters
    ----------
    box : Box
        Left, top, right, bottom in pixels.

    Returns
    -------
    bool
        False of an empty box, and of one with a NaN.

    Raises
    ------
    ValueError
        For other than four numbers.

    Examples
    --------
    >>> has_size((1.0, 2.0, 5.0, 3.0)), has_size((1.0, 2.0, 1.0, 3.0))
    (True, False)
    """
    left, top, right, bottom = _four(box, "box")
    return bool(np.isfinite(box).all() and right > left and bottom > top)


def area_of(box: Box) -> float:
    """Area of a box in square pixels."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def facing_of(rotation: ArrayLike) -> Facing:
    """Which side of a head the camera sees.

    Parameters
    ----------
    rotation : array (3, 3)
        Maps head to camera.

    Returns
    -------
    "front", "side" or "rear"
        By the angle between where the face looks and the direction to the camera: up to 60 degrees, up to 120, beyond.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> [facing_of(rotation_from_angles(Angles.from_columns((yaw, 0, 0)))) for yaw in (20, -90, 170)]
    ['front', 'side', 'rear']
    """
    away = float(np.degrees(np.arccos(np.clip(np.asarray(rotation, dtype=np.float64)[2, 2], -1.0, 1.0))))
    if away <= _FRONT_DEG:
        return "front"
    return "side" if away <= _REAR_DEG else "rear"


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one image. Two faces compare equal only where they are the same object: compare their fields.

    Parameters
    ----------
    image : RGB uint8 array (H, W, 3), or None
        The image that the face was found in; None where only its landmarks are known.
    box : Box
        Left, top, right, bottom in pixels of that image; any four numbers, an array's too, are kept as floats, here and
        in the other boxes.
    points : float array (N, 3), or None
        Landmarks in pixels and image axes (x right, y down, z into the scene); None where no detector gave any.
    found_by : str
        Which step of the search found the face, one of ``detection.landmarks.SEARCHES``; "turned" or "box" of one that
        the search did not find, "head" of one that the head detector found, "track" of a head that a video's frames
        before showed there.
    looks : float array (K, N, 3), or None
        Landmarks of the same face in K further looks at it, in pixels of the same image; see ``detection.looks``.
    given_box : Box, or None
        A box of the face's 68 contour-and-feature points that says better where it is than its landmarks do: a label's,
        or that of ``ImageEngine.placed``. The image eye cuts its crop around it, and does not look for another one.
    placed_box : Box, or None
        About the same box, as it is known before the landmarks are: by the detection network or, of a face that is
        followed, by the frame before. There the image eye begins to look. None where another step found the face.

    Raises
    ------
    ValueError
        For boxes of other than four numbers, and for a ``given_box`` that is empty, inverted or not finite.

    Examples
    --------
    >>> face = Face.from_points([(10, 20, 0), (30, 60, 5)])
    >>> face.box, face.area, face.found_by
    ((10.0, 20.0, 30.0, 60.0), 800.0, 'whole')
    """

    image: RgbImage | None
    box: Box
    points: NDArray[np.float64] | None = None
    found_by: str = "whole"
    looks: NDArray[np.float64] | None = None
    given_box: Box | None = None
    placed_box: Box | None = None

    def __post_init__(self) -> None:
        # A detector's boxes may be arrays of any type, of which not every one can be compared, or written as JSON.
        for name in ("box", "given_box", "placed_box"):
            if name == "box" or getattr(self, name) is not None:
                object.__setattr__(self, name, _four(getattr(self, name), name))
        # One that was found may be of landmarks that lie on a line; one that was given is a slip.
        if self.given_box is not None and not has_size(self.given_box):
            raise ValueError(
                "given_box: expected finite numbers with left < right and top < bottom; "
                f"received (left, top, right, bottom) = {self.given_box}"
            )

    @property
    def area(self) -> float:
        """Area of ``box`` in square pixels."""
        return area_of(self.box)

    @property
    def landmarks(self) -> NDArray[np.float64]:
        """``points``, where they must be there. Raises ``ValueError`` where no detector gave any."""
        if self.points is None:
            raise ValueError("this face has no landmarks, and they are needed here; find it with a landmark detector")
        return self.points

    @classmethod
    def from_points(cls, points: ArrayLike, found_by: str = "whole", image: RgbImage | None = None) -> Face:
        """A face of landmarks; its box is their bounding box.

        Parameters
        ----------
        points : array_like of shape (N, 3)
            Landmarks in pixels and image axes.
        found_by, image
            As of the class.

        Returns
        -------
        Face
            With ``points`` as float64.

        Raises
        ------
        ValueError
            For another shape, and for no points.
        """
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 3 or not len(array):
            raise ValueError(f"expected landmarks (N, 3) of one point or more; received shape {array.shape}")
        return cls(image, box_of(array), array, found_by)


def _four(box: Iterable[Any], name: str) -> Box:
    try:
        numbers = list(box)
    except TypeError:
        numbers = []
    if len(numbers) != 4 or not all(isinstance(number, Real) for number in numbers):
        raise ValueError(f"{name}: expected four numbers (left, top, right, bottom) in pixels; received {box!r}")
    left, top, right, bottom = map(float, numbers)
    return left, top, right, bottom


@dataclass(frozen=True, eq=False)
class HeadPose:
    """Pose of one face in the model's named head frame.

    Poses are not compared by value, because they hold arrays: ``==`` is true, and hashes are equal, for the same
    object alone. To compare two poses, compare their fields, or ``rotation.geodesic_degrees`` of their rotations.

    Parameters
    ----------
    yaw, pitch, roll : float
        Degrees, as ``rotation.angles_from_rotation`` reads them off ``rotation``.
    rotation : float array (3, 3)
        Maps head to camera (x right in the image, y up, z to the viewer).
    sigma : three floats, or None
        Standard deviations of yaw, pitch and roll in degrees. An answer that states no doubt, as the network's to one
        look, has those that the model's calibration calls typical; None where the model has no calibration.
    in_range : bool
        Whether yaw, pitch and roll, in the head frame of the training heads, lie inside the range of training.
    landmarks : float array (N, 3)
        In pixels and image axes; (0, 3) where the face was found without any.
    box : Box
        Left, top, right, bottom in pixels. Of a face with landmarks it holds them all (FaceMesh's: forehead to chin);
        otherwise it is about that of the 68 points, brows to chin (``detection.landmarks.box_of_68``: of any face).
    score : float, or None
        How sure the pose is, in 0..1: a half where the standard deviation about each axis is 5 degrees. MODEL_CARD.md
        has the mean error of faces with a score above any value. None where ``sigma`` is.
    eye : str
        Which eye answered: "landmarks", "image", or "both" for a mean of the two.
    track : int or None
        Number of the head in a video, from 1; None elsewhere, and in the first frame of a head that comes later.
    covariance : float array (3, 3), or None
        Of the error's rotation vector w in the camera frame, ``R(true) = exp([w]) R``, in square radians; ``sigma`` is
        what it leaves of each angle. None where ``sigma`` is.

    Examples
    --------
    >>> pose = HeadPose(0.0, 0.0, 0.0, np.eye(3), None, True, np.empty((0, 3)), (0.0, 0.0, 8.0, 8.0), None)
    >>> pose.as_dict()["box"]
    [0.0, 0.0, 8.0, 8.0]
    """

    yaw: float
    pitch: float
    roll: float
    rotation: NDArray[np.float64]
    sigma: tuple[float, float, float] | None
    in_range: bool
    landmarks: NDArray[np.float64]
    box: Box
    score: float | None
    eye: str = "landmarks"
    track: int | None = None
    covariance: NDArray[np.float64] | None = None

    @property
    def facing(self) -> Facing:
        """Which side of the head the camera sees: "front", "side" or "rear"; see ``facing_of``."""
        return facing_of(self.rotation)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, without landmarks, covariance and track."""
        return {
            "yaw": self.yaw,
            "pitch": self.pitch,
            "roll": self.roll,
            "rotation": self.rotation.tolist(),
            "sigma": None if self.sigma is None else list(self.sigma),
            "in_range": self.in_range,
            "box": list(self.box),
            "score": self.score,
            "eye": self.eye,
            "facing": self.facing,
        }
