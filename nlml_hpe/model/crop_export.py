"""One ONNX file from a picture of a face to its pose, for phones and C++: landmark network and model in one graph.

Input: ``crops`` (N, 3, 192, 192) float32, RGB in 0..255, of which each shows one face:

- a square whose side is 1.5 times the longer side of the face's box (the box of its landmarks; a detector's box of the
  face, from brows to chin, is near enough), with the same middle;
- where the square reaches beyond the image, the image's edge is repeated;
- turned so that the eyes lie level, as the landmark network expects; upright will do for heads that are not rolled.
  Where the crop was turned by t degrees clockwise in the image, the head's rotation in the image is
  ``rotation_from_angles(Angles(0, 0, t)) @ R`` for the crop's R (``nlml_hpe.rotation``).

Outputs, each float32, in the model's named head frame:

- ``yaw``, ``pitch``, ``roll`` (N,) in degrees: the exact step's answer, or the network's alone where that lies more
  than 5 degrees beyond the range of training;
- ``sigma`` (N, 3), standard deviations of the three in degrees, NaN where the network's answer stands;
- ``presence`` (N,) in 0..1, how sure the landmark network is that there is a face: below the metadata's
  ``min_confidence`` the other numbers mean nothing;
- ``landmarks`` (N, 468, 3) in pixels of the crop, image axes, to find the next picture's square by.

Colours are rounded to whole numbers first, as the Python way has them. What a reader of the file must know stands in
its metadata, as JSON.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from spox import Tensor, Var, argument, build, inline

from nlml_hpe.detection.facemesh import LANDMARKS_PX
from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.detection.weights import LANDMARKS, read_weights
from nlml_hpe.model.folder import HeadPoseModel
from nlml_hpe.model.format import CROP_ONNX_FORMAT
from nlml_hpe.model.onnx_export import OPSET, metadata, pose, require_exportable
from nlml_hpe.model.onnx_file import saying, write_onnx
from nlml_hpe.model.onnx_math import columns, shaped
from nlml_hpe.rotation import AXES


def export_crop_onnx(model: HeadPoseModel, path: str | Path, weights: Path | None = None) -> Path:
    """Write ``path`` (opset 18), which runs without a line of this package.

    Parameters
    ----------
    model : HeadPoseModel
        A model of FaceMesh's points.
    path : str or Path
        The file; replaced where it is there.
    weights : Path, optional
        Where FaceMesh's networks lie; by default ``detection.weights.default_folder()``.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        For a model of other points, and as ``onnx_export.export_onnx``.
    ArtifactError
        Where FaceMesh's networks are missing, with the command that makes them.

    Examples
    --------
    >>> import tempfile
    >>> import onnxruntime
    >>> from nlml_hpe.model.folder import load_model
    >>> from nlml_hpe.model.format import SHIPPED
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export_crop_onnx(load_model(SHIPPED), Path(folder) / "face.onnx")
    ...     session = onnxruntime.InferenceSession(path)
    >>> yaw, presence = session.run(["yaw", "presence"], {"crops": np.zeros((2, 3, 192, 192), np.float32)})
    >>> yaw.shape, bool(presence.max() < 0.5)
    ((2,), True)
    """
    require_exportable(model)
    if model.point_set != FACEMESH:
        raise ValueError(f"the landmark network gives {FACEMESH.name}; the model needs {model.point_set.name}")
    crops = argument(Tensor(np.float32, ("faces", 3, LANDMARKS_PX, LANDMARKS_PX)))
    landmarks, presence = _landmarks(crops, landmark_network(weights))
    _, angles, sigma, _ = pose(model, landmarks, op.const(np.array(True)))
    named = {name: shaped(columns(angles, axis, axis + 1), (-1,)) for axis, name in enumerate(AXES)}
    proto = build({"crops": crops}, {**named, "sigma": sigma, "presence": presence, "landmarks": landmarks})
    about = {**metadata(model), "format": CROP_ONNX_FORMAT, "size": LANDMARKS_PX}
    return write_onnx(saying(proto, about), path)


def landmark_network(weights: Path | None) -> onnx.ModelProto:
    """FaceMesh's, of the opset of this project's files; raises as ``detection.weights.read_weights``."""
    return onnx.version_converter.convert_version(onnx.load_from_string(read_weights(weights)[LANDMARKS]), OPSET)


def _landmarks(crops: Var, network: onnx.ModelProto) -> tuple[Var, Var]:
    """Points (N, 468, 3) in pixels of the crops (N, 3, 192, 192), and the presence (N,) of a face."""
    whole = op.clip(op.round(crops), op.const(np.float32(0)), op.const(np.float32(255)))
    images = op.cast(op.transpose(whole, perm=[0, 2, 3, 1]), to=np.uint8)
    found = inline(network)(image=images)
    return found["points"], op.sigmoid(found["presence"])
