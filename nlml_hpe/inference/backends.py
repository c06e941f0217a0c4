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
    """The engine of a model, by the names of a backend and a device. Raises as ``HeadPoseEstimator`` does."""
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
