"""Build hook: the wheel carries FaceMesh's two networks, which the repository does not hold.

They are taken from the user's cache (or the folder that NLML_HPE_FACEMESH names). Where they are not there yet, pip
fetches MediaPipe's wheel once and ``nlml_hpe.detection.weights`` converts the two files of it that are needed. An
editable install, whose package is the checkout, finds them in the cache.
"""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class FaceMeshHook(BuildHookInterface):
    """Adds the files to a wheel, and sees that they are there for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a wheel is built; ``version`` is "editable" for an editable install."""
        sys.path.insert(0, self.root)
        try:
            from nlml_hpe.detection import weights
        finally:
            sys.path.remove(self.root)
        folder = weights.prepared_folder()
        if version != "editable":
            inside = "nlml_hpe/detection/" + weights.PACKAGED.name
            build_data["force_include"].update({str(folder / name): f"{inside}/{name}" for name in weights.FILES})
