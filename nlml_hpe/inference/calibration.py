"""How far off each eye is: few numbers, fitted on labelled faces, that turn what an eye says of its doubt into doubt.

A network says how sure it is of the heads that it was trained on. On photographs it is less sure, and by how much is
measured: for each eye and each of three ranges of pose the covariance of its own error is

    own = scale^2 * (what the eye says) + floor^2 * identity,

and ``typical^2 * identity`` where the eye says nothing. By the mean variance of these, but no less than the typical
one, the eyes are weighed. The error that both eyes share (labels, and what counts as frontal of a person) is a standard
deviation about each axis of the head, of a typical answer; where the own error is larger, so is the shared one: its
variance grows with their own one's over the typical one, to the power of ``GROWTH``. Last, all is widened about each
axis by the number that makes intervals of 1.96 standard deviations hold 95% of the errors of its angle: their tails are
not those of a normal distribution.
``evaluation.calibration`` measures these numbers and writes them into a model folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.inference.fusion import CONTRADICTION, EYES, LEAST_VARIANCE, PRIOR, Eye, Fused, Gaussians, fuse
from nlml_hpe.rotation import angles_from_rotation

RangeName = Literal["in_range", "wide", "turned"]
RANGES: tuple[RangeName, ...] = ("in_range", "wide", "turned")
"""``turned`` are heads that look away from the camera."""
ON_PHOTOGRAPHS: tuple[RangeName, ...] = ("in_range", "wide")
"""Those that are fitted where nobody names any: labelled photographs have hardly a head that looks away."""
LIMITS_DEG = (50.0, 40.0, 30.0)
"""Yaw, pitch and roll to which a pose is in range: those of the method's paper."""
BLEND = 0.2
"""Numbers of two ranges go over into each other within this share beyond the limits, so that no answer jumps."""
TURNED_DEG = (90.0, 110.0)
"""Angles between where a face looks and the camera from which a head begins to count as turned, and is."""
GROWTH = 0.5
"""Of the shared error's variance with the own one's. Chosen on photographs and on rendered people; see
docs/ablations.md."""
HEAD_AXES = ("pitch", "yaw", "roll")
"""The head's own x, y and z, by the angles that turn about them where it is frontal."""
_SINGLE: tuple[Literal["landmarks", "image"], ...] = ("landmarks", "image")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OwnError:
    """How an eye's own error follows from what it says of it, in one range of pose.

    Parameters
    ----------
    scale : float
        What the eye's standard deviations are multiplied by.
    floor_deg : float
        Standard deviation about every axis, in degrees, that is there even where the eye is sure.
    typical_deg : float
        Standard deviation about every axis, in degrees, of any of its answers: with less none of them is weighed, and
        it stands for an answer that comes without a covariance.
    """

    scale: float
    floor_deg: float
    typical_deg: float


@dataclass(frozen=True)
class RangeNumbers:
    """All numbers of one range of pose.

    Parameters
    ----------
    landmarks, image : OwnError
        Of the two eyes.
    shared_deg : mapping
        Standard deviations in degrees of the error that both eyes share in a typical answer, about the head's axes, by
        the name of the angle that turns about each: ``pitch`` about x, ``yaw`` about y, ``roll`` about z.
    widening : mapping
        What the standard deviations of the answer are multiplied by at the end, by the eye that answers: about each of
        the head's axes, named as in ``shared_deg``.
    """

    landmarks: OwnError
    image: OwnError
    shared_deg: Mapping[str, float]
    widening: Mapping[Eye, Mapping[str, float]]


@dataclass(frozen=True)
class Calibration:
    """The numbers of all ranges and the rule of fusion.

    Parameters
    ----------
    in_range, wide, turned : RangeNumbers
        For poses within ``LIMITS_DEG``, beyond them, and for heads that look away from the camera.
    contradiction, prior : float
        As of ``fusion.fuse``.
    growth : float
        To which power of the own error's variance, over the typical one, that of the shared error grows.

    Examples
    --------
    >>> own = OwnError(scale=1.0, floor_deg=2.0, typical_deg=5.0)
    >>> each = {"pitch": 1.0, "yaw": 1.0, "roll": 1.0}
    >>> numbers = RangeNumbers(own, own, each, {eye: each for eye in EYES})
    >>> calibration = Calibration(numbers, numbers, numbers)
    >>> Calibration.from_settings(calibration.settings()) == calibration
    True
    >>> sure = Gaussians(np.eye(3)[None], np.zeros((1, 3, 3)))
    >>> answer = calibration.answer(sure, sure)
    >>> str(answer.eye[0]), np.degrees(np.sqrt(np.diag(answer.covariance[0]))).round(3).tolist()
    ('both', [1.202, 1.202, 1.202])
    """

    in_range: RangeNumbers
    wide: RangeNumbers
    turned: RangeNumbers
    contradiction: float = CONTRADICTION
    prior: float = PRIOR
    growth: float = GROWTH

    def answer(self, landmarks: Gaussians, image: Gaussians) -> Fused:
        """One answer from those of both eyes.

        Parameters
        ----------
        landmarks, image : Gaussians
            Rotations (N, 3, 3) of the same N faces, head to camera, and the covariances (N, 3, 3) that the eyes
            themselves say, in square radians. NaN is the rotation where an eye has no answer, and the covariance
            where it says none.

        Returns
        -------
        Fused
            Rotations, covariances of the whole error, and which eye answered; see ``fusion.fuse``.
        """
        shares = range_shares(landmarks.rotation, image.rotation)
        own_landmarks, own_image = self.own("landmarks", landmarks, shares), self.own("image", image, shares)
        typical = (self.typical("landmarks", shares), self.typical("image", shares))
        fused = fuse(own_landmarks, own_image, typical, contradiction=self.contradiction, prior=self.prior)
        return fused._replace(covariance=self.finished(fused, shares))

    def own(self, eye: Literal["landmarks", "image"], said: Gaussians, shares: Floats) -> Gaussians:
        """An eye's answers with the covariance of its own error, in place of what it says.

        Parameters
        ----------
        eye : "landmarks" or "image"
            Whose answers they are.
        said : Gaussians
            Of N faces, as of ``answer``.
        shares : float array (N, 3)
            How far each face is in which range, as of ``range_shares``.

        Returns
        -------
        Gaussians
            The same rotations; covariances (N, 3, 3) in square radians, the typical one where the eye says none.
        """
        known = np.isfinite(said.covariance).all(axis=(-2, -1))[:, None, None]
        scale, floor, _ = (shares @ self._errors[eye]).T[..., None, None]
        stated, unknown = np.where(known, said.covariance, 0.0), self.typical(eye, shares)[:, None, None] * np.eye(3)
        return said._replace(covariance=np.where(known, scale * stated + floor * np.eye(3), unknown))

    def typical(self, eye: Literal["landmarks", "image"], shares: Floats) -> Floats:
        """Variances of an eye's typical own error, below which it is not weighed.

        Parameters
        ----------
        eye : "landmarks" or "image"
            Whose error.
        shares : float array (N, 3)
            As of ``range_shares``.

        Returns
        -------
        float array (N,)
            In square radians, the same about every axis.
        """
        return np.asarray(shares @ self._errors[eye][:, 2])

    def finished(self, fused: Fused, shares: Floats) -> Floats:
        """The whole covariance of answers: with the error that both eyes share, and widened.

        Parameters
        ----------
        fused : Fused
            The answers to N faces, with the covariances of the eyes' own errors.
        shares : float array (N, 3)
            As of ``range_shares``.

        Returns
        -------
        float array (N, 3, 3)
            In the camera frame, in square radians.
        """
        back = np.swapaxes(fused.rotation, -1, -2)
        shared, widening = self._shared
        factors = widening[:, [EYES.index(eye) for eye in fused.eye.tolist()]].swapaxes(0, 1)
        factors = shares[..., None, None] * factors[..., :, None] * factors[..., None, :]
        about_head = back @ fused.covariance @ fused.rotation
        whole = factors.sum(axis=1) * about_head + self._grown(fused, shares) * (factors * shared).sum(axis=1)
        return np.asarray(fused.rotation @ whole @ back)

    def _grown(self, fused: Fused, shares: Floats) -> Floats:
        """How many times its variance in a typical answer the shared error has in these (N, 1, 1)."""
        landmarks, image = (np.maximum(self.typical(eye, shares), LEAST_VARIANCE) for eye in _SINGLE)
        typical = np.stack([landmarks * image / (landmarks + image), landmarks, image])  # as in EYES
        own = np.trace(fused.covariance, axis1=-2, axis2=-1) / 3
        index = [EYES.index(eye) for eye in fused.eye.tolist()]
        return np.asarray((own / typical[index, np.arange(len(own))]) ** self.growth)[:, None, None]

    @cached_property
    def _errors(self) -> Mapping[Eye, Floats]:
        """Of each eye alone: scale, floor and typical error of every range (3, 3), squared, in radians."""
        radians = np.array([1.0, np.radians(1.0), np.radians(1.0)])
        errors = {eye: [getattr(self.numbers(name), eye) for name in RANGES] for eye in _SINGLE}
        return {
            eye: (np.array([(each.scale, each.floor_deg, each.typical_deg) for each in some]) * radians) ** 2
            for eye, some in errors.items()
        }

    @cached_property
    def _shared(self) -> tuple[Floats, Floats]:
        """Of all ranges: the shared error's covariances about the head's axes (3, 3, 3), and what widens the answer
        about each axis, by the eye that answers (3, 3, 3)."""
        ranges = [self.numbers(name) for name in RANGES]
        shared = np.radians([[each.shared_deg[axis] for axis in HEAD_AXES] for each in ranges]) ** 2
        widening = np.array([[[each.widening[eye][axis] for axis in HEAD_AXES] for eye in EYES] for each in ranges])
        return shared[..., None] * np.eye(3), widening

    def numbers(self, name: RangeName) -> RangeNumbers:
        """The numbers of one range.

        Parameters
        ----------
        name : "in_range", "wide" or "turned"
            One of ``RANGES``.

        Returns
        -------
        RangeNumbers
            The field of this name.
        """
        numbers: RangeNumbers = getattr(self, name)
        return numbers

    def with_numbers(self, name: RangeName, numbers: RangeNumbers) -> Calibration:
        """The same calibration with other numbers of one range.

        Parameters
        ----------
        name : "in_range", "wide" or "turned"
            One of ``RANGES``.
        numbers : RangeNumbers
            What takes the place of those that are there.

        Returns
        -------
        Calibration
            A new one; this one stays as it is.
        """
        in_range, wide, turned = (numbers if each == name else self.numbers(each) for each in RANGES)
        return replace(self, in_range=in_range, wide=wide, turned=turned)

    def settings(self) -> dict[str, Any]:
        """As JSON, for a model folder."""
        return asdict(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Calibration:
        """Read what ``settings`` wrote.

        Parameters
        ----------
        settings : mapping
            As JSON gives it back. One of before the range ``turned`` is read, too: ``wide`` stands for both. So is one
            of before ``growth``: the shared error of its answers is the same for all.

        Returns
        -------
        Calibration
            The one whose settings they are.

        Raises
        ------
        ValueError
            Where a number is missing or has no meaning.
        """
        try:
            # Models of before heads were seen all the way round know two ranges.
            parts = {"turned": settings["wide"], **settings}
            in_range, wide, turned = (_range_numbers(parts[name]) for name in RANGES)
            contradiction, prior = _positive(settings["contradiction"]), _positive(settings["prior"])
            growth = _positive(settings.get("growth", 0.0), zero=True)
            return cls(in_range, wide, turned, contradiction, prior, growth)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"the calibration does not read ({error!r}); calibrate the model again") from error


def _default() -> Calibration:
    narrow = RangeNumbers(
        OwnError(scale=0.0, floor_deg=2.0, typical_deg=2.0),
        OwnError(scale=0.0, floor_deg=3.0, typical_deg=3.0),
        {"pitch": 3.0, "yaw": 2.5, "roll": 1.5},
        {eye: dict.fromkeys(HEAD_AXES, 1.0) for eye in EYES},
    )
    wide = replace(narrow, landmarks=OwnError(1.0, 3.5, 5.5), image=OwnError(1.0, 3.5, 5.5))
    turned = replace(narrow, landmarks=OwnError(0.0, 40.0, 40.0), image=OwnError(1.0, 3.5, 5.5))
    return Calibration(narrow, wide, turned)


DEFAULT_CALIBRATION = _default()
"""For two eyes that nobody has calibrated: round numbers, so that they can be weighed at all."""


def range_shares(*rotations: Floats) -> Floats:
    """How far each face is in which range.

    Parameters
    ----------
    *rotations : float arrays (N, 3, 3)
        The answers of one eye or of several to the same faces, NaN where there is none. An eye that is lost often says
        "frontal", so a face counts as that of the answer farthest from there.

    Returns
    -------
    float array (N, 3)
        Shares in the order of ``RANGES``, whose sum is one.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, rotation_from_angles
    >>> faces = Angles.from_columns([(50, 0, 0), (55, 0, 0), (0, 60, 0), (100, 0, 0)])
    >>> range_shares(rotation_from_angles(faces)).round(3)
    array([[1. , 0. , 0. ],
           [0.5, 0.5, 0. ],
           [0. , 1. , 0. ],
           [0. , 0.5, 0.5]])
    """
    together = np.stack(rotations)
    wide, turned = (np.fmax.reduce(share(together)) for share in (_wide, _turned))
    return np.stack([(1 - wide) * (1 - turned), wide * (1 - turned), turned], axis=-1)


def _wide(rotation: Floats) -> Floats:
    """0 within the limits, 1 from a fifth beyond them on."""
    beyond = (np.abs(angles_from_rotation(rotation).columns()) / LIMITS_DEG).max(axis=-1) - 1
    return np.clip(beyond / BLEND, 0.0, 1.0)


def _turned(rotation: Floats) -> Floats:
    low, high = TURNED_DEG
    away = np.degrees(np.arccos(np.clip(rotation[..., 2, 2], -1.0, 1.0)))
    return np.clip((away - low) / (high - low), 0.0, 1.0)


def _range_numbers(data: Mapping[str, Any]) -> RangeNumbers:
    landmarks, image = (
        OwnError(**{key: _positive(value, zero=True) for key, value in data[eye].items()})
        for eye in ("landmarks", "image")
    )
    shared = {axis: _positive(data["shared_deg"][axis], zero=True) for axis in HEAD_AXES}
    widening = {eye: {axis: _positive(data["widening"][eye][axis]) for axis in HEAD_AXES} for eye in EYES}
    return RangeNumbers(landmarks, image, shared, widening)


def _positive(value: ArrayLike, zero: bool = False) -> float:
    number = float(np.asarray(value, dtype=np.float64))
    if not (np.isfinite(number) and (number > 0 or (zero and number == 0))):
        raise ValueError(f"expected a number above zero; received {value!r}")
    return number
