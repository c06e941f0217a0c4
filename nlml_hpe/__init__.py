"""NLML-HPE: head pose from one image by manifold learning. ``from nlml_hpe import HeadPoseEstimator``."""

from nlml_hpe.face import HeadPose
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.rotation import Angles
from nlml_hpe.version import VERSION

__version__ = VERSION

__all__ = ["Angles", "HeadPose", "HeadPoseEstimator", "__version__"]
