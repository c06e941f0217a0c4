"""One ONNX file from a crop of a head to the answer of both eyes, for any language that has an ONNX runtime.

Input: ``crops`` (N, 3, S, S) float32, RGB in 0..255, of which each shows one head, cut as ``image_networks.crop`` has
it: a square around the box of the head's 68 contour-and-feature points (brows to chin, cheek to cheek), with the same
middle and 1.5 times its longer side (``crop.SHARE``); where it reaches beyond the image, the image's edge is repeated.
N may be nought. Values are rounded to whole numbers and held in 0..255; a crop that has a NaN gets no answer (NaN, and
nobody's), and the others' are what they are without it.

Outputs, float32 and in the model's named head frame:

- ``angles`` (N, 3), yaw, pitch and roll in degrees;
- ``rotation`` (N, 3, 3), head to camera, which the angles are read off;
- ``sigma`` (N, 3), standard deviations of yaw, pitch and roll in degrees;
- ``covariance`` (N, 3, 3), of the error's rotation vector in the camera frame, in square radians;
- ``score`` (N,) in 0..1, a half where the standard deviation about each axis is 5 degrees;
- ``eye`` (N,) int64, who answers: 0 both eyes, 1 the landmark eye, 2 the image eye, -1 nobody;
- ``presence`` (N,) in 0..1, how sure FaceMesh is of a face, where the file holds the landmark eye. Where it is not
  above the metadata's ``min_confidence`` (a head from behind, a covered face) the image eye alone answers, and in a
  file of the landmark eye alone the answer is NaN.

What a reader of the file must know stands in its metadata, as JSON.
"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from spox import Tensor, Var, argument, build

from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.detection.looks import DEFAULT_LOOKS, further_looks
from nlml_hpe.export.fusion_graph import Answer, fused, single
from nlml_hpe.export.image_graph import Said, image_eye
from nlml_hpe.export.int8_crops import MOST_CROPS, read_crops
from nlml_hpe.export.landmark_graph import LandmarkNetworks, Seen, landmark_eye
from nlml_hpe.export.resampling import neighbours
from nlml_hpe.export.shapes import with_named_axes
from nlml_hpe.export.shared import with_shared_weights
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.image_networks.crop import SHARE
from nlml_hpe.inference.calibration import Calibration
from nlml_hpe.inference.eyes import Eyes, ImageAlone
from nlml_hpe.inference.fusion import EYES, Eye
from nlml_hpe.inference.looks import HALF_SCORE_DEG
from nlml_hpe.inference.opening import engine_of, open_eyes
from nlml_hpe.model.components import IMAGE_EYE_FILE
from nlml_hpe.model.crop_export import landmark_network
from nlml_hpe.model.eight_bits import LEAST_CROPS, precision_of, quantized_image_eye
from nlml_hpe.model.format import ONNX_FILE, WHOLE_ONNX_FORMAT
from nlml_hpe.model.onnx_export import OPSET
from nlml_hpe.model.onnx_file import saying, write_onnx
from nlml_hpe.model.onnx_math import degrees_from_rotation, entry, scaled, shaped
from nlml_hpe.model.onnx_rotation import sigma_from_covariance
from nlml_hpe.rotation import AXES, CONVENTION

CROP_PX = 224
"""Pixels on a side of a crop by default, as of other head-pose networks."""
_SIZES = (64, 512)
_NOBODY = -1
_HEADS = "heads"
"""Name of the axis of any length."""
_SHAPES = {
    "angles": (3,),
    "rotation": (3, 3),
    "sigma": (3,),
    "covariance": (3, 3),
    "score": (),
    "eye": (),
    "presence": (),
}
"""Outputs, in order, and their other axes."""


def export_whole(
    folder: str | Path,
    path: str | Path,
    size: int = CROP_PX,
    eye: Eye | None = None,
    looks: int | None = None,
    int8: bool = False,
    int8_crops: Path | None = None,
    weights: Path | None = None,
) -> Path:
    """Write ``path`` (opset 18), which runs without a line of this package.

    Parameters
    ----------
    folder : str or Path
        A model folder.
    path : str or Path
        The file; replaced where it is there.
    size : int
        Pixels on a side of a crop, 64 to 512.
    eye : "both", "landmarks" or "image", optional
        Which eyes the file holds; by default all that the model has.
    looks : 1, 2, 3, 5 or 11, optional
        How often the landmark eye looks at a face, by default ``DEFAULT_LOOKS`` times; see ``detection.looks``.
    int8 : bool
        The image eye's layers in eight bits: those that it was trained with, or else those that ``int8_crops`` lead to.
        The landmark eye stays as it is, for it would be no faster and less exact.
    int8_crops : Path, optional
        Crops by which the ranges of an image eye that is not in eight bits yet are found, as ``int8_crops.read_crops``
        reads them.
    weights : Path, optional
        Where FaceMesh's networks lie; by default ``detection.weights.default_folder()``.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        For an eye that the model does not have, a size beyond the limits, another number of looks, looks of an image
        eye alone, a landmark eye of other points than FaceMesh's, eight bits without an image eye or without crops,
        and crops for one that is in eight bits already.
    ArtifactError
        For a folder that does not read, and where FaceMesh's networks are missing.

    Examples
    --------
    >>> import tempfile
    >>> import onnxruntime
    >>> from nlml_hpe.model.format import SHIPPED
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     path = export_whole(SHIPPED, Path(scratch) / "head.onnx", eye="image")
    ...     session = onnxruntime.InferenceSession(path)
    >>> angles, eye = session.run(["angles", "eye"], {"crops": np.zeros((2, 3, 224, 224), np.float32)})
    >>> angles.shape, eye.tolist()
    ((2, 3), [2, 2])
    """
    folder, path, size = Path(folder), Path(path), _side(size)
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder; name a model folder, whose files say what they are")
    eyes = open_eyes(folder)
    wanted = eyes.chosen(eye)
    if wanted == "image" and looks is not None:
        raise ValueError("looks: only the landmark eye has them, and the file is to hold the image eye alone")
    looks = DEFAULT_LOOKS if looks is None else looks
    further = further_looks(looks)
    image = None if wanted == "landmarks" else _image_network(eyes, folder, int8, int8_crops)
    landmarks = None if wanted == "image" else _landmark_networks(eyes, folder, weights)
    if int8 and image is None:
        raise ValueError("int8: the landmark eye has no layers in eight bits; export the image eye, or both")
    crops = argument(Tensor(np.float32, (_HEADS, 3, size, size)))
    # A graph has no answer to nobody, so that a head is made up where there is none; it is taken away at the end.
    count = op.slice(op.shape(crops), op.const([0]), op.const([1]))
    shown = _one_or_more(crops, count)
    pixels = neighbours(_whole_numbers(shown), size)
    seen = None if landmarks is None else landmark_eye(pixels, size, _box(eyes, size), landmarks, further)
    said = None if image is None else _image_eye(eyes, image, pixels, size, seen)
    outputs = _outputs(_where(_is_whole(shown), _answer(said, seen, eyes.calibration)), seen)
    proto = build({"crops": crops}, {name: op.slice(value, op.const([0]), count) for name, value in outputs.items()})
    precision = "float32" if image is None else precision_of(image)
    about = _about(eyes, wanted, size, looks, precision)
    return write_onnx(saying(_with_sizes(with_named_axes(with_shared_weights(proto))), about), path)


def _side(size: int) -> int:
    """Pixels on a side of a crop, of any type of whole number; raises ``ValueError`` for others."""
    low, high = _SIZES
    try:
        if not isinstance(size, bool) and low <= operator.index(size) <= high:
            return operator.index(size)
    except TypeError:  # a float
        pass
    raise ValueError(f"crop: expected a whole number of {low} to {high} pixels on a side; received {size!r}")


def _answer(said: Said | None, seen: Seen | None, calibration: Calibration | None) -> Answer:
    """The answer of the eyes that the file holds."""
    if seen is None:
        assert said is not None  # a file holds one eye at least
        return single("image", said, calibration)
    if said is None:
        return _where(seen.is_known, single("landmarks", seen.said, calibration))
    assert calibration is not None  # two eyes have one
    return fused(seen, said, calibration)


def _where(known: Var, answer: Answer) -> Answer:
    """The answer where ``known`` (N, 1); elsewhere NaN, and nobody's."""
    cells = op.unsqueeze(known, op.const([2]))
    rotation, covariance = (op.where(cells, part, op.const(np.nan)) for part in (answer.rotation, answer.covariance))
    return Answer(rotation, covariance, op.where(shaped(known, (-1,)), answer.eye, op.const(np.int64(_NOBODY))))


def _image_eye(eyes: Eyes, network: onnx.ModelProto, pixels: Var, size: int, seen: Seen | None) -> Said:
    assert eyes.image is not None  # Eyes.chosen has seen to it
    answered = None if seen is None else seen.is_known
    return image_eye(pixels, size, network, eyes.image.size, eyes.image.named_from_own, answered)


def _image_network(eyes: Eyes, folder: Path, int8: bool, int8_crops: Path | None) -> onnx.ModelProto:
    """The image eye's own file, or, where it is asked for, one in eight bits."""
    assert eyes.image is not None  # Eyes.chosen has seen to it
    network = _read(folder / IMAGE_EYE_FILE)
    is_rounded = precision_of(network) == "int8"
    if is_rounded and int8_crops is not None:
        raise ValueError(
            f"int8_crops: the image eye of {folder} is in eight bits already, and its ranges are known; leave them out"
        )
    if not int8 or is_rounded:
        return network
    if int8_crops is None:
        raise ValueError(
            f"int8: the image eye of {folder} was trained in float32, and eight bits need crops of heads by which "
            "their ranges are found; name a folder that the stage Crops wrote, or one of a picture of each head "
            f"(int8_crops, --int8-crops FOLDER; {LEAST_CROPS} or more, {MOST_CROPS} are enough)"
        )
    return quantized_image_eye(network, read_crops(int8_crops, eyes.image.size))


def _landmark_networks(eyes: Eyes, folder: Path, weights: Path | None) -> LandmarkNetworks:
    engine = eyes.landmarks
    assert engine is not None  # Eyes.chosen has seen to it
    if engine.point_set != FACEMESH:
        raise ValueError(
            f"the landmark network gives {FACEMESH.name}; the model needs {engine.point_set.name}: its file can hold "
            "the image eye alone (eye 'image'), where the model has one"
        )
    model = _read(folder / ONNX_FILE)
    return LandmarkNetworks(landmark_network(weights), model, engine.min_confidence, engine.named_from_own)


def _read(path: Path) -> onnx.ModelProto:
    return onnx.load_from_string(path.read_bytes())


def _share(eyes: Eyes) -> float:
    return SHARE if eyes.image is None else eyes.image.share


def _box(eyes: Eyes, size: int) -> tuple[float, float, float, float]:
    """The box of the 68 points within a crop of ``size`` pixels."""
    margin = size / 2 * (1 - 1 / _share(eyes))
    return (margin, margin, size - margin, size - margin)


def _one_or_more(crops: Var, count: Var) -> Var:
    """The crops, or a black one in place of none."""
    missing = op.max([op.sub(op.const([1]), count), op.const([0])])
    shape = op.concat([missing, op.slice(op.shape(crops), op.const([1]), op.const([4]))], axis=0)
    return op.concat([crops, op.expand(op.const(np.float32(0)), shape)], axis=0)


def _is_whole(crops: Var) -> Var:
    """Whether a crop is without NaN (N, 1)."""
    missing = op.cast(op.isnan(crops), to=np.float32)
    return op.equal(op.reduce_max(shaped(missing, (0, -1)), op.const([1])), op.const(np.float32(0)))


def _whole_numbers(crops: Var) -> Var:
    # NaN passes through a clip, and as a place in FaceMesh's squares it would stop the whole batch.
    numbers = op.where(op.isnan(crops), op.const(np.float32(0)), crops)
    return op.clip(op.round(numbers), op.const(np.float32(0)), op.const(np.float32(255)))


def _outputs(answer: Answer, seen: Seen | None) -> dict[str, Var]:
    """The outputs by their names, in order."""
    rotation, covariance = answer.rotation, answer.covariance
    variances = op.concat([entry(covariance, axis, axis) for axis in range(3)], axis=1)
    mean = scaled(op.reduce_sum(variances, op.const([1]), keepdims=0), 1 / 3 / np.radians(HALF_SCORE_DEG) ** 2)
    numbers = {
        "angles": degrees_from_rotation(rotation),
        "rotation": rotation,
        "sigma": sigma_from_covariance(rotation, covariance),
        "covariance": covariance,
        "score": op.div(op.const(1.0), op.add(op.const(1.0), mean)),
    }
    presence = {} if seen is None else {"presence": op.cast(seen.presence, to=np.float32)}
    return {name: op.cast(value, to=np.float32) for name, value in numbers.items()} | {"eye": answer.eye} | presence


def _about(eyes: Eyes, wanted: Eye, size: int, looks: int, precision: str) -> dict[str, Any]:
    """What a reader of the file must know."""
    # Each eye was trained on poses of its own, in a frame of its own: what is said is of the eye that answers.
    engine = ImageAlone(eyes.require_image()) if wanted == "image" else engine_of(eyes)
    landmarks = {} if wanted == "image" else {"looks": looks, "min_confidence": engine.min_confidence}
    return {
        "format": WHOLE_ONNX_FORMAT,
        "convention": CONVENTION,
        "frame": engine.frame,
        "named_from_own": np.asarray(engine.named_from_own).tolist(),
        "range": [list(interval) for interval in engine.range],
        "opset": OPSET,
        "size": size,
        "share": _share(eyes),
        "input": "RGB, 0..255",
        "angles": list(AXES),
        "eyes": wanted,
        "eye": list(EYES),
        "is_calibrated": eyes.calibration is not None,
        "precision": precision,
        **landmarks,
    }


def _with_sizes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, with the sizes of its outputs."""
    for output in proto.graph.output:
        shape = output.type.tensor_type.shape
        del shape.dim[:]
        shape.dim.add(dim_param=_HEADS)
        for size in _SHAPES[output.name]:
            shape.dim.add(dim_value=size)
    return proto
