"""What turns landmarks into pose: one ONNX file, without torch; or the model itself (``torch_engine``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import COINCIDE, POINT_SETS, PointSet, check_landmarks
from nlml_hpe.files.atomic import ArtifactError, read_json
from nlml_hpe.files.manifests import require_digest
from nlml_hpe.rotation import CONVENTION, Angles

Method = Literal["network", "exact", "refined", "powell"]
DEFAULT_METHOD: Method = "refined"
REFINE_MARGIN_DEG = 5.0
"""Beyond the grid by more than this the refined route keeps the network's answer, which has seen wider poses."""
Interval = tuple[float, float]
MIRRORED_SIGNS = (-1.0, 1.0, -1.0)
"""What yaw, pitch and roll are multiplied by in the mirror."""
FORMAT = "nlml-hpe onnx 3"
METADATA = "nlml_hpe"
ONNX_FILE, CONFIG_FILE = "model.onnx", "config.json"
OUTPUTS = ("network", "refined", "sigma", "score")
_PACKAGE = Path(__file__).parents[1]
_INSIDE = _PACKAGE / "checkpoint"
SHIPPED = _INSIDE if _INSIDE.is_dir() else _PACKAGE.parent / "checkpoints" / "ict_facekit"
"""The checkpoint that comes with the package, or beside it in a checkout; trained by configs/ict_facekit.yaml."""


class Estimates(NamedTuple):
    """Of N faces: ``angles`` (N,) in degrees; standard deviations ``sigma`` (N, 3) in degrees, yaw, pitch, roll, NaN
    where not known; ``score`` (N,), one where the face lies on the manifold, a half where it is as far from it as
    unseen training people are on average, NaN where not known."""

    angles: Angles
    sigma: NDArray[np.float64]
    score: NDArray[np.float64]


class Engine(Protocol):
    """Landmarks in, pose out, in the model's named head frame. ``range`` is that of training, per angle."""

    @property
    def point_set(self) -> PointSet: ...  # noqa: D102
    @property
    def min_confidence(self) -> float: ...  # noqa: D102
    @property
    def range(self) -> tuple[Interval, Interval, Interval]: ...  # noqa: D102

    def estimate(self, points: NDArray[np.float64], method: Method) -> Estimates:
        """Pose of faces whose landmarks (N, P, 3) are known, in pixels and image axes."""
        ...


class OnnxEngine:
    """The file that ``export.export_onnx`` writes, run by onnxruntime on the CPU. In a model folder, whose config.json
    has its SHA-256, it must be the file that was written with it.

    Raises ``ArtifactError`` for a file that is missing, damaged, or of another version or convention.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as failures

        if not path.is_file():
            raise ArtifactError(f"{path} is missing; name a model folder with {ONNX_FILE}, or use backend='torch'")
        _verify(path)
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except (failures.Fail, failures.InvalidArgument, failures.InvalidGraph, failures.InvalidProtobuf) as error:
            raise ArtifactError(f"{path} is damaged or no ONNX file ({error})") from error
        about = _about(path, self._session.get_modelmeta().custom_metadata_map)
        yaw, pitch, roll = ((float(low), float(high)) for low, high in about["range"])
        self.point_set: PointSet = POINT_SETS[about["point_set"]]
        self.min_confidence = float(about["min_confidence"])
        self.frame = str(about["frame"])
        self.range: tuple[Interval, Interval, Interval] = (yaw, pitch, roll)

    def estimate(self, points: NDArray[np.float64], method: Method) -> Estimates:
        """As ``Engine.estimate``. Raises ``ValueError`` for a method that the file does not hold."""
        if method not in OUTPUTS:
            raise ValueError(f"an ONNX model has the methods 'network' and 'refined'; {method!r} needs backend='torch'")
        checked = check_landmarks(points, self.point_set)
        if not len(checked):
            nothing = np.empty((0, 3))
            return Estimates(Angles.from_columns(nothing), nothing, nothing[:, 0])
        given = {"landmarks": checked.astype(np.float32), "refine": np.array(method == "refined")}
        network, refined, sigma, score = (found.astype(np.float64) for found in self._session.run(None, given))
        columns = refined if method == "refined" else network
        if not np.isfinite(columns).all():
            raise ValueError(COINCIDE)
        return Estimates(Angles.from_columns(columns), sigma, score)


def _verify(path: Path) -> None:
    """Refuse a file that is not the one of its folder's config.json. A file alone has nothing to be compared with."""
    beside = path.with_name(CONFIG_FILE)
    known = read_json(beside) if path.name == ONNX_FILE and beside.is_file() else {}
    digest = known.get("sha256", {}).get(ONNX_FILE) if isinstance(known, dict) else None
    if digest is not None:
        require_digest(path, digest)


def _about(path: Path, properties: dict[str, str]) -> dict[str, Any]:
    """What the file says of itself."""
    try:
        about: dict[str, Any] = json.loads(properties[METADATA])
        found = (about["format"], about["convention"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is no ONNX model of this project ({error}); export it again") from error
    if found != (FORMAT, CONVENTION) or about.get("point_set") not in POINT_SETS:
        raise ArtifactError(
            f"{path}: expected {FORMAT!r} with {CONVENTION!r}; found {found[0]!r} with {found[1]!r} and points "
            f"{about.get('point_set')!r}; export it again"
        )
    return about
