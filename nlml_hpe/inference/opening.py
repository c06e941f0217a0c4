"""All eyes of a model, from its folder or file, with their calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlml_hpe.device import DeviceName
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import user_path
from nlml_hpe.inference.backends import Backend, open_engine
from nlml_hpe.inference.calibration import Calibration
from nlml_hpe.inference.engines import Engine
from nlml_hpe.inference.eyes import Eyes, ImageAlone
from nlml_hpe.inference.image_engine import open_image_engine
from nlml_hpe.model.components import read_components
from nlml_hpe.model.format import CONFIG_FILE
from nlml_hpe.sessions import CPU

if TYPE_CHECKING:  # torch is not needed to predict
    from nlml_hpe.model.folder import HeadPoseModel


def open_eyes(
    model: HeadPoseModel | str | Path,
    backend: Backend = "onnx",
    device: DeviceName = "auto",
    providers: Sequence[str] | str = CPU,
) -> Eyes:
    """All eyes of a model, with its calibration.

    Parameters
    ----------
    model : str, Path or HeadPoseModel
        A model folder, ``~`` being the home folder; an ``.onnx`` file or a model that is in memory (torch) has the
        landmark eye alone.
    backend, device
        The landmark eye's, as of ``HeadPoseEstimator``.
    providers : sequence of str, or str
        What computes the image eye in onnxruntime, as for ``sessions.resolve_providers``.

    Returns
    -------
    Eyes
        Answers ``Face``s; ``HeadPoseEstimator`` takes it in place of a model.

    Raises
    ------
    ArtifactError
        Where the model does not read, and where its eyes answer in different head frames.
    ValueError
        For a backend, device or model that is none of the above. ``DeviceError`` and ``ProviderError``, two of them,
        for one that is not there.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> eyes = open_eyes(SHIPPED)
    >>> eyes.landmarks is not None, eyes.image is not None
    (True, True)
    """
    if not isinstance(model, (str, Path)):
        return Eyes(open_engine(model, backend, device))
    place = user_path(model)
    if not (place / CONFIG_FILE).is_file():
        return Eyes(open_engine(place, backend, device))
    components = read_components(place)
    image = open_image_engine(place, providers) if "image_eye" in components else None
    landmarks = open_engine(place, backend, device) if "landmark_eye" in components else None
    calibration = read_calibration(place)
    try:
        return Eyes(landmarks, image, calibration)
    except ValueError as error:
        raise ArtifactError(f"{place}: {error}") from error


def read_calibration(folder: Path) -> Calibration | None:
    """The calibration of a model folder's eyes; None where nobody has calibrated them.

    Raises ``ArtifactError`` where it does not read.
    """
    components = read_components(folder)
    if "calibration" not in components:
        return None
    try:
        return Calibration.from_settings(components["calibration"].settings)
    except ValueError as error:
        raise ArtifactError(f"{folder}: {error}") from error


def engine_of(eyes: Eyes) -> Engine:
    """The landmark eye, or the image eye where a model has no other."""
    if eyes.landmarks is not None:
        return eyes.landmarks
    assert eyes.image is not None  # Eyes has one of them
    return ImageAlone(eyes.image)
