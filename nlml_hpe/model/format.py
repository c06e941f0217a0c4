"""What a model's files are called and say of themselves. Numbers and names alone: importing it imports no torch."""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE, ONNX_FILE = "config.json", "model.onnx"
ONNX_FORMAT = "nlml-hpe onnx 4"
ONNX_FORMATS = ("nlml-hpe onnx 3", ONNX_FORMAT)
"""Formats that are read. 3 does not say how its named head frame lies to its own."""
METADATA = "nlml_hpe"
"""Key of an ONNX file's metadata; the value is JSON."""
OUTPUTS = ("network", "refined", "sigma", "score")
"""Outputs of the ONNX file, in order."""
IMAGE_ONNX_FORMAT = "nlml-hpe image onnx 1"
IMAGE_INPUT, IMAGE_OUTPUTS = "crops", ("rotation", "angles", "covariance")
"""Input and outputs of an image eye's ONNX file, in order."""
CROP_ONNX_FORMAT = "nlml-hpe crop onnx 1"
"""A file that goes from a picture of a face over landmarks to its pose (``crop_export``)."""
WHOLE_ONNX_FORMAT = "nlml-hpe whole onnx 1"
"""A file that goes from a crop of a head to the answer of all eyes (``nlml_hpe.export``)."""
REFINE_MARGIN_DEG = 5.0
"""Beyond the grid by more than this the refined route keeps the network's answer, which has seen wider poses."""
_PACKAGE = Path(__file__).parents[1]
_INSIDE = _PACKAGE / "checkpoint"
SHIPPED = _INSIDE if _INSIDE.is_dir() else _PACKAGE.parent / "checkpoints" / "ict_facekit"
"""The checkpoint that comes with the package, or beside it in a checkout; trained by configs/ict_facekit.yaml."""
