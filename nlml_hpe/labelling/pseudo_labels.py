"""Labels for photographs that have none: what the landmark eye says of them, where it agrees with itself.

The limited-data setting of semi-supervised head pose (Zhou et al. 2024, SemiUHPE) with one difference: the teacher is
not the network's own average but the landmark eye, which sees points where the network sees pixels, so that their
errors are not the same. A face is labelled where the answer for the image and that for its mirror image agree, and
counts the less in training the larger the covariance of the answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import overlap
from nlml_hpe.detection.regions import mirror_image
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import DEFAULT_ROUTE, Estimates
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.labelling.photographs import CropLabel, FaceLabels
from nlml_hpe.rotation import geodesic_degrees, midpoint, mirrored

NO_FACE = "no face found"
ONE_SIDED = "faces not found in the mirror image"
DISAGREES = "faces answered otherwise in the mirror image"
UNSURE = "faces answered without error bars"
_LEAST_OVERLAP = 0.5
_TRUSTED_DEG = 4.0
"""A label with this standard deviation counts half."""


class PseudoLabeller:
    """Labels the faces of images by a model's landmark eye. A context manager.

    Parameters
    ----------
    model : Path
        The model folder.
    agreement_deg : float
        The largest angle between the answers for a face and for its mirror image with which it is labelled.

    Raises
    ------
    ArtifactError
        Where the model does not read, and where it has no landmark eye.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> with PseudoLabeller(SHIPPED) as label:
    ...     label(np.zeros((64, 64, 3), dtype=np.uint8)).left_out
    ['no face found']
    """

    def __init__(self, model: Path, agreement_deg: float = 5.0) -> None:
        self.agreement_deg = agreement_deg
        self._estimator = HeadPoseEstimator(model)
        landmarks = self._estimator.eyes.landmarks
        if landmarks is None:
            self.close()
            # An image eye looks at each crop's mirror image itself, so that its two answers agree by construction.
            raise ArtifactError(
                f"{model}: photographs are labelled by the landmark eye, which this model does not have; name one that "
                "has it as pseudo_labels.model, or leave that out for the shipped one"
            )
        self._engine = landmarks

    def __call__(self, image: RgbImage) -> FaceLabels:
        """The faces of an RGB uint8 image (H, W, 3), in the own head frame of the model's training heads."""
        faces = self._faces(image)
        if not faces:
            return FaceLabels([], [NO_FACE])
        reflected = self._faces(mirror_image(image))
        partners = [_partner(face, reflected, image.shape[1]) for face in faces]
        both = [(face, other) for face, other in zip(faces, partners, strict=True) if other is not None]
        labels, left_out = [], [ONE_SIDED] * (len(faces) - len(both))
        if both:
            first, second = (self._own_estimates(side) for side in zip(*both, strict=True))
            apart = geodesic_degrees(first.rotation, mirrored(second.rotation))
            mean = midpoint(first.rotation, mirrored(second.rotation))
            # Both answers err together, so the mean is no surer than they are; where they differ it is less sure.
            traces = np.trace(first.covariance + second.covariance, axis1=1, axis2=2) / 2
            variance = np.degrees(np.degrees(traces)) / 3 + (apart / 2) ** 2
            for index, (face, _) in enumerate(both):
                if not np.isfinite(variance[index]):
                    left_out.append(UNSURE)
                elif apart[index] > self.agreement_deg:
                    left_out.append(DISAGREES)
                else:
                    labels.append(CropLabel(box_of_68(face), mean[index], confidence(variance[index])))
        return FaceLabels(labels, left_out)

    def _faces(self, image: RgbImage) -> list[Face]:
        """Those whose landmarks are known; of a model that has an image eye the estimator finds others as well."""
        return [face for face in self._estimator.detect(image) if face.points is not None]

    def _own_estimates(self, faces: Sequence[Face]) -> Estimates:
        return self._engine.estimate(faces, DEFAULT_ROUTE).in_own_frame(self._engine.named_from_own)

    def close(self) -> None:
        """Release the detector."""
        self._estimator.close()

    def __enter__(self) -> PseudoLabeller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def confidence(variance_deg2: float) -> float:
    """How much a label counts by its variance in square degrees: as an observation does beside one of 4 degrees.

    Examples
    --------
    >>> confidence(0.0), confidence(16.0)
    (1.0, 0.5)
    """
    return float(_TRUSTED_DEG**2 / (_TRUSTED_DEG**2 + variance_deg2))


def _partner(face: Face, reflected: Sequence[Face], width: int) -> Face | None:
    """The face of the mirror image that is this one, if there is any."""
    left, top, right, bottom = face.box
    own = (width - right, top, width - left, bottom)
    best = max(reflected, key=lambda other: overlap(own, other.box), default=None)
    return best if best is not None and overlap(own, best.box) >= _LEAST_OVERLAP else None
