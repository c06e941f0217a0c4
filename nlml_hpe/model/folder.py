"""The landmark eye of a model folder: network, manifold and settings; ``components`` says what else may be there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from nlml_hpe.detection.landmarks import FACEMESH, MIN_CONFIDENCE, Normalization, PointSet, has_mirror, points_named
from nlml_hpe.files.atomic import ArtifactError, write_bytes
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.manifold_file import read_manifold, write_manifold
from nlml_hpe.manifold.networks import HeadPoseNetwork, NetworkShape
from nlml_hpe.manifold.official import OFFICIAL_FEATURE, official_manifold
from nlml_hpe.model.components import MANIFOLD_FILE, WEIGHTS_FILE, put_component, require_component
from nlml_hpe.rotation import AXES, OWN_FRAME, Angles, check_head_frame, rotation_from_angles


@dataclass(frozen=True)
class HeadFrame:
    """What counts as a frontal head: the ``own`` one of a model's training heads, or that of a data set's labels.

    The angles (yaw, pitch, roll) in degrees are of the constant rotation C with R(named) = R(own) C.

    Raises
    ------
    ValueError
        For an ``own`` frame with angles, and for a name that is empty.

    Examples
    --------
    >>> HeadFrame("w300lp", pitch=90.0).named_from_own.round() + 0.0
    array([[ 1.,  0.,  0.],
           [ 0.,  0.,  1.],
           [ 0., -1.,  0.]])
    """

    name: str = OWN_FRAME
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        check_head_frame(self.name, self.yaw, self.pitch, self.roll)

    @property
    def named_from_own(self) -> NDArray[np.float64]:
        """C (3, 3)."""
        return rotation_from_angles(Angles.from_columns((self.yaw, self.pitch, self.roll)))


@dataclass(frozen=True)
class HeadPoseModel:
    """Network and manifold of one model, and the feature both were trained on.

    Parameters
    ----------
    network : HeadPoseNetwork or None
        None where only a manifold is known.
    manifold : PoseManifold
        Of the same feature.
    point_set : PointSet
        What the detector's points mean.
    normalization : str
        How points become a feature, see `normalize_landmarks`.
    min_confidence : float
        The detector's threshold, 0..1, with which faces were found for training.
    frame : HeadFrame
        In which answers are given.

    Raises
    ------
    ValueError
        Where these do not fit one another.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> model = load_model(SHIPPED)
    >>> model.frame.name, model.is_symmetric
    ('w300lp', True)
    """

    network: HeadPoseNetwork | None
    manifold: PoseManifold
    point_set: PointSet
    normalization: Normalization
    min_confidence: float
    frame: HeadFrame = HeadFrame()

    def __post_init__(self) -> None:
        if self.normalization not in get_args(Normalization):
            known = list(get_args(Normalization))
            raise ValueError(f"unknown normalization {self.normalization!r}; expected one of {known}")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence: expected a threshold in 0..1; received {self.min_confidence!r}")
        feature = self.point_set.feature_name(self.normalization)
        # The authors' manifold is of a feature that nothing here makes; a scale is taken up by the identity.
        if self.manifold.feature not in (feature, OFFICIAL_FEATURE):
            raise ValueError(
                f"the manifold was made of features {self.manifold.feature!r}; the landmarks here give {feature!r}: "
                "run Landmarks and all stages after it with one config"
            )
        lengths = {"point set": self.point_set.feature_length, "manifold": self.manifold.feature_length}
        lengths |= {"network": self.network.shape.feature_length} if self.network else {}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"lengths of features differ: {lengths}; run the stages again with one config")

    @property
    def is_symmetric(self) -> bool:
        """Whether faces and their mirror images can be asked alike: yaw and roll were trained as far to one side as to
        the other, and it is known which points mirror one another."""
        yaw, _, roll = (np.array(axis) for axis in self.manifold.grid.axes)
        return has_mirror(self.point_set) and bool(np.allclose(yaw, -yaw[::-1]) and np.allclose(roll, -roll[::-1]))


def save_model(folder: str | Path, model: HeadPoseModel) -> None:
    """Write the model's files into a folder; an ONNX file that lies there already is held to be its own.

    Parameters
    ----------
    folder : str or Path
        Made where it is missing.
    model : HeadPoseModel
        With a network.

    Raises
    ------
    ValueError
        For a model without a network.
    ArtifactError
        For landmarks that are not in ``POINT_SETS``: no folder of them reads.
    OSError
        Where a file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nlml_hpe.model.format import SHIPPED
    >>> with TemporaryDirectory() as folder:
    ...     save_model(Path(folder), load_model(SHIPPED))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['config.json', 'manifold.npz', 'model.safetensors']
    """
    if model.network is None:
        raise ValueError("a model without a network cannot be saved as a model folder")
    folder = Path(folder)
    points_named(model.point_set.name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / WEIGHTS_FILE, save(model.network.state_dict()))
    write_manifold(folder / MANIFOLD_FILE, model.manifold)
    settings = {
        "point_set": model.point_set.name,
        "normalization": model.normalization,
        "min_confidence": model.min_confidence,
        "frame": asdict(model.frame),
        "network": asdict(model.network.shape),
    }
    put_component(folder, "landmark_eye", settings)


def load_model(folder: str | Path) -> HeadPoseModel:
    """Read a model folder.

    Parameters
    ----------
    folder : str or Path
        As ``ModelBuilder`` writes it.

    Returns
    -------
    HeadPoseModel
        On the CPU, its network set to inference.

    Raises
    ------
    ArtifactError
        Where a file is missing, was changed after it was written, or is of another version or convention.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> load_model(SHIPPED).point_set.name
    'facemesh468'
    """
    place = Path(folder)
    if place.is_file():
        raise ArtifactError(f"{place} is a file; name the model folder that ModelBuilder wrote")
    if not place.is_dir():
        raise ArtifactError(
            f"{place}: no such model folder; run the pipeline, or name the folder that ModelBuilder wrote"
        )
    component = require_component(place, "landmark_eye")
    config = component.settings
    if missing := {WEIGHTS_FILE, MANIFOLD_FILE} - component.sha256.keys():
        raise ArtifactError(f"{place}: the model has no {' and no '.join(sorted(missing))}; build it again")
    try:
        network = _network(_network_shape(config["network"]), place / WEIGHTS_FILE)
        point_set = points_named(config["point_set"], place)
        manifold = read_manifold(place / MANIFOLD_FILE)
        model = HeadPoseModel(
            network.eval(),
            manifold,
            point_set,
            config["normalization"],
            float(config["min_confidence"]),
            _head_frame(config["frame"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{place}: the model does not read ({error}); build it again") from error
    return model


def load_weights(module: nn.Module, path: Path, mend: str) -> None:
    """Read a module's weights in place.

    Parameters
    ----------
    module : Module
        The network.
    path : Path
        A safetensors file.
    mend : str
        What to do where it does not fit, for the message.

    Raises
    ------
    ArtifactError
        Where the file does not read or holds another network's weights.
    """
    try:
        module.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"{path} does not fit: {error}; {mend}") from error


def official_model(folder: str | Path) -> HeadPoseModel:
    """The model that the method's authors publish, as far as its manifold goes: it has no network here.

    Parameters
    ----------
    folder : str or Path
        Holds their ``Trained_data.npz`` and ``Factor_Matrices.npz``; see `official_manifold` for what differs from
        models of this project.

    Returns
    -------
    HeadPoseModel
        Without a network.

    Raises
    ------
    ArtifactError
        Where a file is missing, damaged, or lacks an array.

    Examples
    --------
    >>> official_model("nowhere")
    Traceback (most recent call last):
        ...
    nlml_hpe.files.atomic.ArtifactError: nowhere/Trained_data.npz: there is no such file
    """
    place = Path(folder)
    manifold = official_manifold(place / "Trained_data.npz", place / "Factor_Matrices.npz")
    return HeadPoseModel(None, manifold, FACEMESH, "nose_eye_corners", MIN_CONFIDENCE)


def _head_frame(data: dict[str, Any]) -> HeadFrame:
    return HeadFrame(str(data["name"]), *(float(data[axis]) for axis in AXES))


def _network(shape: NetworkShape, path: Path) -> HeadPoseNetwork:
    """The network with its weights. Raises ``ValueError``, before it takes memory, where the file's are others."""
    weights = load_file(path)
    with torch.device("meta"):
        expected = HeadPoseNetwork(shape).state_dict()
    if {name: value.shape for name, value in expected.items()} != {name: each.shape for name, each in weights.items()}:
        raise ValueError(f"{path.name} holds the weights of another network than its settings describe")
    network = HeadPoseNetwork(shape)
    network.load_state_dict(weights)
    return network


def _network_shape(data: dict[str, Any]) -> NetworkShape:
    yaw, pitch, roll = map(int, data["row_lengths"])
    return NetworkShape(
        int(data["feature_length"]),
        (yaw, pitch, roll),
        tuple(map(int, data["encoder_hidden"])),
        tuple(map(int, data["head_hidden"])),
    )
