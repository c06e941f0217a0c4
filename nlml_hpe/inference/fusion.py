"""One answer from two: normal distributions on the rotation group, averaged where they agree, chosen where they do not.

Both eyes look at the same face, and part of their error is the same: what counts as frontal differs from person to
person, and a label has an error of its own. No averaging takes that part away, so it has no say in how two answers
are weighed: covariances here are of each eye's *own* error, and ``calibration`` adds the shared one. The rules, for
two answers ``a`` and ``b`` with covariances ``A`` and ``B``, whose difference is the rotation vector ``d``:

1. Weights: ``a`` and ``b`` have the variances that their covariances have on average over all axes (a third of the
   trace), but no less than the *typical* ones, where they are given. Measured on photographs and on rendered people,
   an eye is seldom surer than usual, but often less sure; how much of its doubt lies about which axis it does not tell
   well enough to weigh each apart.
2. Agreement: ``m = |d|^2 / (var a + var b)`` is their squared Mahalanobis distance, chi-squared with three degrees of
   freedom if the variances are right.
3. Where m is at most ``contradiction`` the answer lies on the way from a to b: ``exp(k d) a`` with the share
   ``k = var a / (var a + var b)``, which is the weighted mean in the tangent space at itself. Its own covariance is
   ``(1 - k)^2 A + k^2 B``, multiplied by ``(prior + m) / (prior + 3)``: both may be off by a common scale, of which as
   much was known before as ``prior`` observations tell, and m tells more. Answers that agree are surer than their
   covariances say, and answers that do not are less sure.
4. Where m is larger, one of the two is wrong, and a mean would be wrong, too. The answer is that of the eye with the
   smaller variance for this face, whatever is typical; its covariance is multiplied as in 3 with ``m = contradiction``,
   and ``d d^T / 2`` is added: it may well be the wrong one, and then it errs by d. A calibration widens all of it.
5. Where one eye has no answer, the other's stands as it is. An answer without a covariance cannot be weighed: it stands
   only where the other eye has no answer with one, and of two such answers that of the landmarks stands.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.rotation import rotation_from_vector, vector_from_rotation

Eye = Literal["both", "landmarks", "image"]
EYES: tuple[Eye, ...] = ("both", "landmarks", "image")
"""Which eye answers; as an answer's own mark, which ones did."""
CONTRADICTION = 16.27
"""The quantile 0.999 of the chi-squared distribution with three degrees of freedom."""
PRIOR = 4.0
CHOSEN_WRONGLY = 0.5
"""How often the chosen one of two answers that contradict each other is taken to be the wrong one. In six rendered
videos of heads that turn to 85 degrees it was the worse one in 19 of 39 frames, on photographs (``aflw2000_dev``) in
none of 3."""
LEAST_VARIANCE = 1e-10
"""Square radians, 0.0006 degrees: what an answer is weighed by whose covariance is nought."""
Floats = NDArray[np.float64]


class Gaussians(NamedTuple):
    """N normal distributions on the rotation group.

    Parameters
    ----------
    rotation : float array (N, 3, 3)
        Maps head to camera; NaN where there is no answer.
    covariance : float array (N, 3, 3)
        Of the error's rotation vector w in the camera frame, ``R(true) = exp([w]) rotation``, in square radians; NaN
        where it is not known.
    """

    rotation: Floats
    covariance: Floats

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Which (N,) have a rotation."""
        return np.asarray(np.isfinite(self.rotation).all(axis=(-2, -1)))

    @property
    def is_weighable(self) -> NDArray[np.bool_]:
        """Which (N,) have a rotation and a covariance."""
        return np.asarray(self.is_known & np.isfinite(self.covariance).all(axis=(-2, -1)))


class Fused(NamedTuple):
    """The answer of two eyes.

    Parameters
    ----------
    rotation, covariance : float arrays (N, 3, 3)
        As of ``Gaussians``; NaN where neither eye has an answer.
    eye : array (N,) of str
        "both" for a mean, "landmarks" or "image" for the answer of the first or the second eye alone.
    distance : float array (N,)
        Squared Mahalanobis distance of the two answers; NaN where there were not two.
    """

    rotation: Floats
    covariance: Floats
    eye: NDArray[np.str_]
    distance: Floats


def fuse(
    landmarks: Gaussians,
    image: Gaussians,
    typical: tuple[Floats, Floats] | None = None,
    *,
    contradiction: float = CONTRADICTION,
    prior: float = PRIOR,
) -> Fused:
    """The answers of two eyes to the same N faces as one; the module's text has the rules.

    Parameters
    ----------
    landmarks, image : Gaussians
        The two eyes' answers, in the same head frame, with the covariances of their own errors.
    typical : two float arrays (N,), optional
        Variances about any axis, in square radians, below which no answer of either eye is weighed.
    contradiction : float
        Largest squared Mahalanobis distance of two answers that are averaged.
    prior : float
        How firmly the covariances' scale is believed; infinite: whether two answers agree changes nothing.

    Returns
    -------
    Fused

    Raises
    ------
    ValueError
        Where the eyes answer different numbers of faces, and for settings that are not positive.

    Examples
    --------
    >>> from nlml_hpe.rotation import Angles, angles_from_rotation, rotation_from_angles
    >>> def answer(yaw, sigma_deg):
    ...     rotation = rotation_from_angles(Angles.from_columns([(yaw, 0, 0)]))
    ...     return Gaussians(rotation, np.radians(sigma_deg) ** 2 * np.eye(3)[None])
    >>> def yaw_of(fused):
    ...     return round(float(angles_from_rotation(fused.rotation).yaw[0]), 3), str(fused.eye[0])
    >>> yaw_of(fuse(answer(10, 2), answer(13, 4)))
    (10.6, 'both')
    >>> yaw_of(fuse(answer(10, 2), answer(60, 4)))  # they contradict each other: the surer one
    (10.0, 'landmarks')
    """
    _check(landmarks, image, contradiction, prior)
    count = len(landmarks.rotation)
    first_weighable, second_weighable = landmarks.is_weighable, image.is_weighable
    both = first_weighable & second_weighable
    least = typical or (np.zeros(count), np.zeros(count))
    if both.all():  # as most often: there is nothing to choose
        return _fused(landmarks, image, least, contradiction, prior)
    rotation = image.rotation.copy()
    covariance = np.where(image.is_known[:, None, None], image.covariance, np.nan)
    distance, eye = np.full(count, np.nan), np.full(count, "image", dtype="<U9")
    first = first_weighable | (landmarks.is_known & ~second_weighable)
    rotation[first], covariance[first], eye[first] = landmarks.rotation[first], landmarks.covariance[first], "landmarks"
    if both.any():
        a, b = (Gaussians(*(values[both] for values in each)) for each in (landmarks, image))
        found = _fused(a, b, (least[0][both], least[1][both]), contradiction, prior)
        rotation[both], covariance[both], eye[both], distance[both] = found
    return Fused(rotation, covariance, eye, distance)


def _check(landmarks: Gaussians, image: Gaussians, contradiction: float, prior: float) -> None:
    shapes = {values.shape for each in (landmarks, image) for values in each}
    if shapes != {(len(landmarks.rotation), 3, 3)}:
        raise ValueError(f"expected rotations and covariances (N, 3, 3) of the same N faces; received {sorted(shapes)}")
    if not (contradiction > 0 and prior > 0):
        raise ValueError(f"expected contradiction and prior above zero; received {contradiction:g} and {prior:g}")


def _fused(a: Gaussians, b: Gaussians, least: tuple[Floats, Floats], contradiction: float, prior: float) -> Fused:
    """Two answers with covariances to every face."""
    own = [np.trace(each.covariance, axis1=-2, axis2=-1) / 3 for each in (a, b)]
    first, second = (np.maximum(said, np.maximum(low, LEAST_VARIANCE)) for said, low in zip(own, least, strict=True))
    gain = (first / (first + second))[:, None]
    apart = vector_from_rotation(b.rotation @ np.swapaxes(a.rotation, -1, -2))
    distance = (apart**2).sum(axis=-1) / (first + second)
    rotation = rotation_from_vector(gain * apart) @ a.rotation
    share = gain[..., None]
    covariance = (1 - share) ** 2 * a.covariance + share**2 * b.covariance
    eye = np.full(len(distance), "both", dtype="<U9")
    against, first_is_surer = distance > contradiction, own[0] <= own[1]
    for chosen, each, name in ((first_is_surer, a, "landmarks"), (~first_is_surer, b, "image")):
        taken = against & chosen
        rotation[taken], covariance[taken], eye[taken] = each.rotation[taken], each.covariance[taken], name
    if np.isfinite(prior):
        covariance *= ((prior + np.minimum(distance, contradiction)) / (prior + 3))[:, None, None]
    covariance[against] += CHOSEN_WRONGLY * np.einsum("ni,nj->nij", apart[against], apart[against])
    return Fused(rotation, covariance, eye, distance)
