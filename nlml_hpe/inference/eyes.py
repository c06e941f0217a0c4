"""The eyes of a model, and one answer from those that it has: the landmark eye, the image eye, or both, fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import FACEMESH, MIN_CONFIDENCE, PointSet
from nlml_hpe.face import Face
from nlml_hpe.inference.calibration import DEFAULT_CALIBRATION, Calibration
from nlml_hpe.inference.engines import DEFAULT_ROUTE, Engine, Estimates, Interval, Route
from nlml_hpe.inference.fusion import EYES, Eye, Gaussians
from nlml_hpe.inference.image_engine import ImageEngine


class Answer(NamedTuple):
    """Poses of N faces.

    Attributes
    ----------
    estimates : Estimates
        Of the faces; NaN of one without an answer.
    eye : str array (N,)
        Which eye gave each: "both", "landmarks" or "image"; "" where there is no answer.
    image : Estimates
        What the image eye by itself says, before calibration; NaN where it was not asked.
    """

    estimates: Estimates
    eye: NDArray[np.str_]
    image: Estimates


class Eyes:
    """What answers faces: one or two eyes, and their calibration.

    Parameters
    ----------
    landmarks : Engine, optional
        The landmark eye.
    image : ImageEngine, optional
        The image eye. Raises ``ValueError`` where its head frame is not that of the landmark eye.
    calibration : Calibration, optional
        Without one a single eye's error bars are those that it says; of two eyes ``DEFAULT_CALIBRATION`` counts.

    Examples
    --------
    >>> from nlml_hpe.inference.engines import OnnxEngine
    >>> from nlml_hpe.model.format import ONNX_FILE, SHIPPED
    >>> eyes = Eyes(OnnxEngine(SHIPPED / ONNX_FILE))
    >>> eyes.default, eyes.answer([]).eye.tolist()
    ('landmarks', [])
    """

    def __init__(
        self,
        landmarks: Engine | None = None,
        image: ImageEngine | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        if landmarks is None and image is None:
            raise ValueError("expected a landmark eye, an image eye or both; received neither")
        if landmarks is not None and image is not None and landmarks.frame != image.frame:
            raise ValueError(
                f"the landmark eye answers in the head frame {landmarks.frame!r}, the image eye in {image.frame!r}: "
                "their answers cannot be compared; build one of them again with the other one's 'frame'"
            )
        self.landmarks, self.image = landmarks, image
        self.calibration = calibration or (DEFAULT_CALIBRATION if landmarks and image else None)

    @property
    def default(self) -> Eye:
        """Which eye answers where nobody names one: both, where there are two."""
        if self.image is None:
            return "landmarks"
        return "both" if self.landmarks is not None else "image"

    def chosen(self, eye: Eye | None) -> Eye:
        """The eye of this name, without one the default. Raises ``ValueError`` where the model does not have it."""
        known = EYES if self.default == "both" else (self.default,)
        if eye is not None and eye not in known:
            raise ValueError(f"eye: expected one of {list(known)}, which this model has; received {eye!r}")
        return eye or self.default

    def require_image(self, eye: Eye | None = None) -> ImageEngine:
        """The image eye, for heads that show no face, which nobody else answers.

        Raises ``ValueError`` where there is none, and where ``eye`` asks for that of landmarks alone.
        """
        if eye == "landmarks":
            raise ValueError(
                "heads: heads that show no face have no landmarks, so that eye='landmarks' does not answer them; leave "
                "heads out, or take another eye"
            )
        if self.image is None:
            raise ValueError(
                "heads: this model has no image eye, which alone answers heads that show no face; leave heads out, or "
                "take a model that has one, as the shipped one"
            )
        return self.image

    def answer(
        self,
        faces: Sequence[Face],
        route: Route = DEFAULT_ROUTE,
        eye: Eye | None = None,
        again: Callable[[], Sequence[Face]] | None = None,
        own_frame: bool = False,
    ) -> Answer:
        """Pose of faces, in their order; NaN for a face that no eye can answer.

        Parameters
        ----------
        faces : sequence of Face
            The landmark eye answers those with landmarks, the image eye those with an image and a box.
        route : Route
            Of the landmark eye.
        eye : "both", "landmarks" or "image", optional
            By default both, where the model has two.
        again : callable, optional
            Takes the further looks, and gives the same faces with them. The image eye needs the first look alone, and
            answers while the others are taken; None where there are none to be taken.
        own_frame : bool
            As of ``joined``.

        Returns
        -------
        Answer
            In the named head frame, or in that of the training heads.

        Raises
        ------
        ValueError
            For an eye or a route that the model does not have.
        """
        wanted = self.chosen(eye)
        nothing = Estimates.of_rotations(np.full((len(faces), 3, 3), np.nan))
        asked = None if wanted == "landmarks" else self.image
        few = self._answered_twice(faces, wanted)
        image = asked.begin(faces, again is not None, few) if asked is not None else lambda: nothing
        looked = again() if again else faces
        landmarks = self.by_landmarks(looked, route) if wanted != "image" else nothing
        return self.joined(landmarks, image(), wanted, own_frame)

    def joined(self, landmarks: Estimates, image: Estimates, eye: Eye, own_frame: bool = False) -> Answer:
        """One answer from those of the eyes to the same faces.

        Parameters
        ----------
        landmarks, image : Estimates
            What each eye says in the named head frame, NaN where it has no answer.
        eye : "both", "landmarks" or "image"
            The one asked for.
        own_frame : bool
            Whether the answer is wanted in the head frame of the training heads, as rendered people are labelled.

        Returns
        -------
        Answer
            By the calibration, where there is one.
        """
        if own_frame:
            landmarks, image = self.in_own_frame(landmarks, image)
        if self.calibration is None:
            only = landmarks if eye == "landmarks" else image
            return Answer(only, _marked(only.rotation, np.full(len(only.rotation), eye, dtype="<U9")), image)
        first, second = (Gaussians(each.rotation, each.covariance) for each in (landmarks, image))
        fused = self.calibration.answer(first, second)
        return Answer(Estimates(fused.rotation, fused.covariance), _marked(fused.rotation, fused.eye), image)

    def in_own_frame(self, landmarks: Estimates, image: Estimates) -> tuple[Estimates, Estimates]:
        """What each eye says in the named head frame, in that of the training heads.

        Each goes by its own rotation, before both are joined: no one rotation takes a joined answer back.
        """
        if self.landmarks is not None:
            landmarks = landmarks.in_own_frame(self.landmarks.named_from_own)
        if self.image is not None:
            image = image.in_own_frame(self.image.named_from_own)
        return landmarks, image

    def by_landmarks(self, faces: Sequence[Face], route: Route = DEFAULT_ROUTE) -> Estimates:
        """What the landmark eye says, before calibration; NaN for a face without landmarks.

        Raises ``ValueError`` for a model without a landmark eye.
        """
        if self.landmarks is None:
            raise ValueError("this model has no landmark eye")
        answers = Estimates.of_rotations(np.full((len(faces), 3, 3), np.nan))
        seen = [index for index, face in enumerate(faces) if face.points is not None]
        for values, part in zip(answers, self.landmarks.estimate([faces[row] for row in seen], route), strict=True):
            values[seen] = part
        return answers

    def by_image(self, faces: Sequence[Face]) -> Estimates:
        """What the image eye says where all eyes of the model are asked, before calibration.

        It is shown fewer crops of a face that the landmark eye answers, too. Raises ``ValueError`` for a model without
        an image eye.
        """
        if self.image is None:
            raise ValueError("this model has no image eye")
        return self.image.estimate(faces, self._answered_twice(faces, self.default))

    @staticmethod
    def _answered_twice(faces: Sequence[Face], eye: Eye) -> list[bool]:
        """Which faces both eyes answer."""
        return [eye == "both" and face.points is not None for face in faces]


class ImageAlone:
    """An image eye where an ``Engine`` is expected: a model that has no landmark eye.

    Its faces may come from any detector; FaceMesh's is the default, whose points tell where the crop lies.
    """

    point_set: PointSet = FACEMESH
    min_confidence: float = MIN_CONFIDENCE

    def __init__(self, image: ImageEngine) -> None:
        self.image = image
        self.frame, self.named_from_own = image.frame, image.named_from_own
        self.range: tuple[Interval, Interval, Interval] = image.range

    def estimate(self, faces: Sequence[Face], route: Route) -> Estimates:
        """As ``ImageEngine.estimate``; an image eye has one route."""
        return self.image.estimate(faces)


def _marked(rotation: NDArray[np.float64], eye: NDArray[np.str_]) -> NDArray[np.str_]:
    """Which eye gave each answer, "" where there is none."""
    return np.where(np.isfinite(rotation).all(axis=(-2, -1)), eye, "")
