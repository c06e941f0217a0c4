"""NLML-HPE: head pose from one image by manifold learning. ``from nlml_hpe import HeadPoseEstimator``."""

from importlib.metadata import PackageNotFoundError, version

from nlml_hpe.face import HeadPose
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.rotation import Angles

try:
    __version__ = version("nlml-hpe")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = ["Angles", "HeadPose", "HeadPoseEstimator", "__version__"]
