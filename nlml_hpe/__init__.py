"""NLML-HPE: head pose from one image by manifold learning. ``from nlml_hpe import HeadPoseEstimator``.

The names are loaded when they are first asked for: importing the package alone takes milliseconds.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlml_hpe.face import HeadPose
    from nlml_hpe.inference.estimator import HeadPoseEstimator
    from nlml_hpe.rotation import Angles
    from nlml_hpe.version import VERSION as __version__  # noqa: N811

__all__ = ["Angles", "HeadPose", "HeadPoseEstimator", "__version__"]

_HOMES = {
    "Angles": ("nlml_hpe.rotation", "Angles"),
    "HeadPose": ("nlml_hpe.face", "HeadPose"),
    "HeadPoseEstimator": ("nlml_hpe.inference.estimator", "HeadPoseEstimator"),
    "__version__": ("nlml_hpe.version", "VERSION"),
}

# From 1.29 on onnxruntime tells its makers, over the network, of its use, and keeps a number of this machine in the
# user's cache. It looks at this as it is loaded; whoever has set it otherwise is heard.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


if not TYPE_CHECKING:  # a type checker that sees it takes every misspelt name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, own_name = _HOMES[name]
        value = getattr(import_module(module), own_name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
