"""The engine of a model, by the names of a backend and a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nlml_hpe.device import DeviceError, DeviceName, resolve_device
from nlml_hpe.extras import needs
from nlml_hpe.inference.engines import Engine, OnnxEngine
from nlml_hpe.model.format import ONNX_FILE

if TYPE_CHECKING:  # torch is not needed to predict
    from nlml_hpe.model.folder import HeadPoseModel

Backend = Literal["onnx", "torch"]


def open_engine(model: HeadPoseModel | str | Path, backend: Backend, device: DeviceName = "auto") -> Engine:
    """The landmark eye of a model, by the names of a backend and a device.

    Parameters
    ----------
    model : str, Path or HeadPoseModel
        A model folder, for "onnx" also an ``.onnx`` file, or a model that is in memory, which torch computes whatever
        the backend.
    backend : "onnx" or "torch"
        As of ``HeadPoseEstimator``.
    device : "auto", "cpu", "cuda" or "mps"
        Where torch computes; "onnx" knows the CPU alone.

    Returns
    -------
    Engine
        From landmarks to poses.

    Raises
    ------
    ArtifactError
        Where the model does not read.
    DeviceError
        For a device that is not there or that the backend cannot use.
    MissingPackageError
        For "torch" where it is not installed.
    ValueError
        For another backend, and for what is no model.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> open_engine(SHIPPED, "onnx").point_set.name
    'facemesh468'
    """
    if backend not in _ENGINES:
        raise ValueError(f"unknown backend {backend!r}; expected 'onnx' or 'torch'")
    if isinstance(model, (str, Path)):
        return _ENGINES[backend](Path(model), device)
    if not hasattr(model, "manifold"):
        raise ValueError(f"model: expected a folder, an .onnx file or a HeadPoseModel; received {model!r}")
    from nlml_hpe.inference.torch_engine import TorchEngine

    return TorchEngine(model, resolve_device(device))


def _onnx_engine(place: Path, device: DeviceName) -> Engine:
    if device not in ("auto", "cpu"):
        raise DeviceError(f"backend 'onnx' computes on the CPU; for device {device!r} use backend='torch'")
    return OnnxEngine(place if place.suffix == ".onnx" else place / ONNX_FILE)


def _torch_engine(place: Path, device: DeviceName) -> Engine:
    """Imported on demand: who runs ONNX needs no torch."""
    with needs("torch", "the backend 'torch'"):
        from nlml_hpe.inference.torch_engine import TorchEngine
        from nlml_hpe.model.folder import load_model

    return TorchEngine(load_model(place), resolve_device(device))


_ENGINES: dict[Backend, Callable[[Path, DeviceName], Engine]] = {"onnx": _onnx_engine, "torch": _torch_engine}
