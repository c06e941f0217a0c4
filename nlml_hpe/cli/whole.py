"""``nlml-hpe export --crop``: one file with both eyes in it."""

from __future__ import annotations

import argparse
from pathlib import Path

from nlml_hpe.detection.looks import DEFAULT_LOOKS, LOOKS
from nlml_hpe.extras import needs
from nlml_hpe.files.images import user_path
from nlml_hpe.inference.fusion import EYES

_OPTIONS = {"eye": "--eye", "looks": "--looks", "int8": "--int8", "int8_crops": "--int8-crops"}


def add_whole(export: argparse.ArgumentParser) -> None:
    """The options of a file that takes crops of heads."""
    export.add_argument(
        "--crop",
        type=int,
        metavar="PX",
        help="a file that takes crops of heads, (N, 3, PX, PX) RGB in 0..255, and gives (N, 3) yaw, pitch, roll and "
        "error bars, with everything inside; 224 is usual",
    )
    export.add_argument(
        "--eye", choices=EYES, help="with --crop: whose answer (default: both, where the model has both)"
    )
    export.add_argument(
        "--looks",
        type=int,
        choices=sorted(LOOKS),
        help=f"with --crop: how often the landmark eye looks at a face (default: {DEFAULT_LOOKS})",
    )
    export.add_argument("--int8", action="store_true", help="with --crop: the image eye's layers in eight bits")
    export.add_argument(
        "--int8-crops",
        type=user_path,
        metavar="DIR",
        help="16 crops of heads or more, by which --int8 finds the ranges of an image eye that is not in eight bits "
        "yet: a folder of the stage Crops, or of pictures",
    )


def write_whole(given: argparse.Namespace) -> Path:
    """Write the file that the options describe; returns its path."""
    with needs("train", "`nlml-hpe export`"):
        from nlml_hpe.export.whole import export_whole
    return export_whole(given.model, given.output, given.crop, given.eye, given.looks, given.int8, given.int8_crops)


def refuse_at_odds(given: argparse.Namespace) -> None:
    """End with code 2 for options that do not go together, with ``--crop`` or without it."""
    if given.crop is None:
        for name, option in _OPTIONS.items():
            if getattr(given, name):
                given.command.error(f"{option} is for --crop PX, which is missing")
    elif given.source is not None:
        given.command.error("--from and --crop name different files; use one of them")
    if given.int8_crops is not None and not given.int8:
        given.command.error("--int8-crops is for --int8, which is missing")
