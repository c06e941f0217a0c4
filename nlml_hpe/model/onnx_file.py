"""What an ONNX file says of itself, as JSON in its metadata, and how such a file is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from nlml_hpe.files.atomic import write_bytes
from nlml_hpe.model.format import METADATA


def said_of(proto: onnx.ModelProto) -> dict[str, Any]:
    """What a graph says of itself."""
    said: dict[str, Any] = json.loads({entry.key: entry.value for entry in proto.metadata_props}[METADATA])
    return said


def saying(proto: onnx.ModelProto, about: Mapping[str, Any]) -> onnx.ModelProto:
    """The graph itself, which now says this in place of what it said."""
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(about, sort_keys=True)})
    return proto


def write_onnx(proto: onnx.ModelProto, path: str | Path) -> Path:
    """Write a graph, checked; returns ``path``."""
    onnx.checker.check_model(proto)
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return Path(path)
