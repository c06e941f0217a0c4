"""What is evaluated: a model's routes by name, whichever eyes it has, and the head frames that they answer in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import FACEMESH, MIN_CONFIDENCE, PointSet
from nlml_hpe.evaluation.evaluate import BESIDE_ROUTE, FUSED_ROUTE, IMAGE_ROUTE, ROUTES
from nlml_hpe.evaluation.faces import Answerer, landmark_route
from nlml_hpe.face import Face
from nlml_hpe.inference.calibration import Calibration
from nlml_hpe.inference.engines import DEFAULT_ROUTE, Estimates
from nlml_hpe.inference.eyes import Eyes
from nlml_hpe.inference.image_engine import ImageEngine, open_image_engine
from nlml_hpe.inference.opening import read_calibration
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.components import read_components
from nlml_hpe.model.folder import load_model


@dataclass(frozen=True, eq=False)
class Subject:
    """A model as an evaluation sees it.

    Attributes
    ----------
    routes : mapping
        Name -> what answers faces, in the named head frame.
    default : str
        The route that users get.
    frame : str
        Name of the head frame of the answers.
    named_from_own : mapping
        Route of one eye -> C (3, 3) with ``R(named) = R(own) C``.
    points : PointSet
        The landmarks that a detector is to find, and ``min_confidence``, its threshold.
    needs_landmarks : bool
        Whether some route answers only faces with landmarks.
    eyes : Eyes, optional
        Both eyes, of a model whose routes have the fused one.
    """

    routes: Mapping[str, Answerer]
    default: str
    frame: str
    named_from_own: Mapping[str, NDArray[np.float64]]
    points: PointSet = FACEMESH
    min_confidence: float = MIN_CONFIDENCE
    needs_landmarks: bool = True
    eyes: Eyes | None = None

    @property
    def parts(self) -> dict[str, Answerer]:
        """What the default route's answers are made of: of the fused route what the two eyes say beside each other."""
        if self.eyes is None:
            return {self.default: self.routes[self.default]}
        return {DEFAULT_ROUTE: self.routes[DEFAULT_ROUTE], BESIDE_ROUTE: self.eyes.by_image}

    def in_own_frame(self, route: str, answers: Mapping[str, Estimates]) -> Estimates:
        """What a route says in the head frame of the training heads, as rendered people are labelled.

        Parameters
        ----------
        route : str
            One of ``routes``.
        answers : mapping
            Route -> its answers to the same faces in the named head frame; of the fused route those of ``parts``.

        Returns
        -------
        Estimates
            Both eyes are fused in that frame: a face that one of them alone answers has that one's answer.
        """
        if route != FUSED_ROUTE:
            return answers[route].in_own_frame(self.named_from_own[route])
        assert self.eyes is not None  # there is no such route otherwise
        return self.eyes.joined(answers[DEFAULT_ROUTE], answers[BESIDE_ROUTE], "both", own_frame=True).estimates


def subject_of(
    landmarks: TorchEngine | None = None, image: ImageEngine | None = None, calibration: Calibration | None = None
) -> Subject:
    """The routes of a landmark eye, an image eye or both.

    Parameters
    ----------
    landmarks : TorchEngine, optional
        The landmark eye.
    image : ImageEngine, optional
        The image eye.
    calibration : Calibration, optional
        By which both are fused, where their head frames are the same.

    Returns
    -------
    Subject
        Users get the fused route, where there is one, otherwise the landmark eye's.

    Raises
    ------
    ValueError
        Where there is neither eye.
    """
    if landmarks is None:
        if image is None:
            raise ValueError("expected a landmark eye, an image eye or both; received neither")
        turns = {IMAGE_ROUTE: image.named_from_own}
        return Subject({IMAGE_ROUTE: image.estimate}, IMAGE_ROUTE, image.frame, turns, needs_landmarks=False)
    routes: dict[str, Answerer] = {name: landmark_route(landmarks, name) for name in ROUTES}
    turns = dict.fromkeys(routes, landmarks.named_from_own)
    frames = [landmarks.model.frame.name]
    if image is not None:
        routes[IMAGE_ROUTE], turns[IMAGE_ROUTE] = image.estimate, image.named_from_own
        frames.append(image.frame)
    default: str = DEFAULT_ROUTE
    eyes: Eyes | None = None
    if image is not None and image.frame == landmarks.frame:
        default, eyes = FUSED_ROUTE, Eyes(landmarks, image, calibration)
        routes[FUSED_ROUTE] = fused_route(eyes)
    needs = (landmarks.point_set, landmarks.min_confidence)
    return Subject(routes, default, " / ".join(dict.fromkeys(frames)), turns, *needs, eyes=eyes)


def fused_route(eyes: Eyes, own_frame: bool = False) -> Answerer:
    """What both eyes answer, as ``HeadPoseEstimator`` does by default; ``own_frame`` as of ``Eyes.joined``."""

    def answer(faces: Sequence[Face]) -> Estimates:
        return eyes.answer(faces, own_frame=own_frame).estimates

    return answer


def open_subject(folder: Path, device: torch.device) -> Subject:
    """A model folder; the landmark eye is computed by torch on this device, the image eye by onnxruntime.

    Raises ``ArtifactError`` where the folder does not read.
    """
    kinds = read_components(folder)
    landmarks = TorchEngine(load_model(folder), device) if "landmark_eye" in kinds else None
    image = open_image_engine(folder) if "image_eye" in kinds else None
    return subject_of(landmarks, image, read_calibration(folder))
