"""The image eye: crops of faces through one ONNX file, without torch. It needs an image and a box, no landmarks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.image_networks.crop import crop, turned
from nlml_hpe.inference.engines import Estimates, Interval, said_of_itself
from nlml_hpe.model.components import IMAGE_EYE_FILE, require_component
from nlml_hpe.model.format import IMAGE_INPUT, IMAGE_ONNX_FORMAT
from nlml_hpe.rotation import (
    CONVENTION,
    MIRROR_SIGNS,
    mean_rotation,
    mirrored,
    vector_from_rotation,
)
from nlml_hpe.sessions import CPU, open_session

CROPS_OF_A_FACE = ((0.95, -12.0), (0.95, 12.0))
"""Crops of each face, every one with its mirror image: side in sides of THE crop, and turn in degrees. Chosen on
development photographs and on rendered people; see docs/ablations.md."""
_BATCH = 64
"""Faces that go through the network together."""


class ImageEngine:
    """The file that ``model.image_export.export_image_eye`` writes, run by onnxruntime.

    An answer is the mean, on the rotation group, of those for several crops and for their mirror images, so that a
    picture and its mirror image have mirrored poses; where they lie apart, the answer is less sure.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.
    providers : sequence of str, or str
        What computes the network, as for ``sessions.resolve_providers``.
    crops : sequence of (float, float)
        Side, in sides of THE crop, and turn in degrees of the crops of each face.

    Attributes
    ----------
    size, share : int, float
        Pixels on a side of a crop, and that side over the longer side of the box of the 68 points.
    frame : str
        Name of the head frame of the answers.
    named_from_own : array (3, 3)
        C with ``R(named) = R(own) C``: the named head frame beside that of the training data's labels.
    range : three intervals
        Lowest and highest yaw, pitch and roll of training, in degrees, in the own frame.

    Raises
    ------
    ArtifactError
        For a file that is missing, damaged, or of another version or convention.
    ProviderError
        For a provider that is not there.
    ValueError
        Where there are no ``crops``.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> engine = ImageEngine(SHIPPED / IMAGE_EYE_FILE)
    >>> image = np.zeros((120, 160, 3), dtype=np.uint8)
    >>> faces = [Face(image, (40.0, 20.0, 100.0, 80.0)), Face(None, (40.0, 20.0, 100.0, 80.0))]
    >>> np.isfinite(engine.estimate(faces).rotation).all(axis=(1, 2)).tolist()  # the second has no image
    [True, False]
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[str] | str = CPU,
        crops: Sequence[tuple[float, float]] = CROPS_OF_A_FACE,
    ) -> None:
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; name an ONNX file that ImageModelBuilder wrote")
        # Four crops of one face take 2.7 ms by two threads and 4.7 by one.
        self._session = open_session(path, providers, threads=min(2, os.cpu_count() or 1))
        about = _about(path, self._session.get_modelmeta().custom_metadata_map)
        yaw, pitch, roll = ((float(low), float(high)) for low, high in about["range"])
        self.name, self.frame = str(about["network"]), str(about["frame"])
        self.size, self.share = int(about["size"]), float(about["share"])
        self.range: tuple[Interval, Interval, Interval] = (yaw, pitch, roll)
        self.named_from_own: NDArray[np.float64] = np.array(about["named_from_own"], dtype=np.float64)
        self.crops = tuple(crops)
        if not self.crops:
            raise ValueError("crops: expected one or more pairs of side and turn; received none")

    def estimate(self, faces: Sequence[Face]) -> Estimates:
        """Poses of faces.

        Parameters
        ----------
        faces : sequence of Face
            With their images. The crop is cut around the box of the 68 contour-and-feature points
            (``detection.landmarks.box_of_68``): the one that was given, otherwise that of a face's landmarks, where it
            has any, otherwise around its own box.

        Returns
        -------
        Estimates
            In the order of the faces, in the named head frame; NaN of one without an image, or whose box has no size.
        """
        given = [index for index, face in enumerate(faces) if face.image is not None and _has_size(box_of_68(face))]
        rotation, covariance = np.full((len(faces), 3, 3), np.nan), np.full((len(faces), 3, 3), np.nan)
        for start in range(0, len(given), _BATCH):
            rows = given[start : start + _BATCH]
            rotation[rows], covariance[rows] = self._mean_of_crops([faces[row] for row in rows])
        return Estimates.of(rotation, covariance)

    def _mean_of_crops(self, faces: Sequence[Face]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rotations and covariances (N, 3, 3) of faces: those of the mixture of all crops' answers."""
        rotation, covariance = self._of_crops(faces)
        mean = mean_rotation(rotation)
        away = vector_from_rotation(rotation @ np.swapaxes(mean, -1, -2)[:, None])
        # The crops err together, so the mean is no surer than they are; where they differ it is less sure.
        spread = np.einsum("nki,nkj->nij", away, away) / away.shape[1]
        return mean @ self.named_from_own, covariance.mean(axis=1) + spread

    def _of_crops(self, faces: Sequence[Face]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rotations, in the own frame, and covariances (N, 2 C, 3, 3) of C crops of each face, each also mirrored."""
        crops = np.stack(
            [
                crop(face.image, box_of_68(face), self.size, side * self.share, turn)
                for face in faces
                if face.image is not None
                for side, turn in self.crops
            ]
        )
        both = np.concatenate([crops, crops[:, :, ::-1]]).transpose(0, 3, 1, 2).astype(np.float32)
        rotation, covariance = (
            values.astype(np.float64) for values in self._session.run(["rotation", "covariance"], {IMAGE_INPUT: both})
        )
        own, other = np.split(rotation @ self.named_from_own.T, 2)
        # A covariance is mirrored as a rotation is: the vector's y and z change their signs.
        covariance[len(crops) :] *= MIRROR_SIGNS
        upright = turned(np.eye(3), [-turn for _, turn in self.crops])[:, None]
        seen, said = (
            np.stack(pair, axis=1).reshape(len(faces), len(self.crops), 2, 3, 3)
            for pair in ((own, mirrored(other)), np.split(covariance, 2))
        )
        back = (upright @ seen, upright @ said @ np.swapaxes(upright, -1, -2))
        rotations, covariances = (values.reshape(len(faces), -1, 3, 3) for values in back)
        return rotations, covariances


def open_image_engine(folder: str | Path, providers: Sequence[str] | str = CPU) -> ImageEngine:
    """The image eye of a model folder; its covariances are those that the network says.

    Parameters
    ----------
    folder : str or Path
        The model folder.
    providers : sequence of str, or str
        As of ``ImageEngine``.

    Returns
    -------
    ImageEngine
        Without a calibration, which ``opening.open_eyes`` adds.

    Raises
    ------
    ArtifactError
        Where the folder has none, and where a file was changed after it was written.
    ProviderError
        For a provider that is not there.
    """
    component = require_component(Path(folder), "image_eye")
    if IMAGE_EYE_FILE not in component.sha256:
        raise ArtifactError(f"{folder}: the image eye has no {IMAGE_EYE_FILE}; run ImageModelBuilder again")
    return ImageEngine(Path(folder) / IMAGE_EYE_FILE, providers)


def _has_size(box: Sequence[float]) -> bool:
    left, top, right, bottom = box
    return bool(np.isfinite(box).all() and right > left and bottom > top)


def _about(path: Path, properties: dict[str, str]) -> dict[str, Any]:
    """What the file says of itself, where it is an image eye's that is known here."""
    about = said_of_itself(path, properties)
    form, convention = about["format"], about["convention"]
    if form != IMAGE_ONNX_FORMAT or convention != CONVENTION:
        raise ArtifactError(
            f"{path}: expected {IMAGE_ONNX_FORMAT!r} with {CONVENTION!r}; found {form!r} with {convention!r}; "
            "export it again"
        )
    return about
