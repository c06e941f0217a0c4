"""The two networks of FaceMesh as ONNX files, made of MediaPipe's: ``python -m nlml_hpe.detection.weights``.

MediaPipe 0.10.21 (Apache-2.0) carries both as TFLite files. They are read out of the installed package, or out of its
wheel, which pip fetches where it cannot be installed, and written as ONNX into the user's cache. The wheel of this
package carries them: its build (``hatch_build.py``) takes them from there, and makes them first where they are not. To
make them needs ``tflite`` and ``onnx``; to use them needs neither.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from nlml_hpe.extras import ORIGIN
from nlml_hpe.files.atomic import ArtifactError, read_json, write_bytes, write_json

DETECTION, LANDMARKS = "face_detection.onnx", "face_landmarks.onnx"
FORMAT = "nlml-hpe facemesh 3"
VERSION = "0.10.21"
COMMAND = "python -m nlml_hpe.detection.weights"
FOLDER_VARIABLE = "NLML_HPE_FACEMESH"
_LICENSE, _NOTICE, _ABOUT = "LICENSE", "NOTICE", "weights.json"
FILES = (DETECTION, LANDMARKS, _LICENSE, _NOTICE, _ABOUT)
"""All that a folder of weights holds."""
PACKAGED = Path(__file__).with_name("facemesh_weights")
"""Where an installed wheel has them; there is no such folder in a checkout."""
_WANTED = (
    "to make the files of FaceMesh that are missing: pip install 'tflite>=2.18' 'onnx>=1.17', then run\n    " + COMMAND
)
_REINSTALL = f"install the package anew: pip install --force-reinstall --no-deps PLACE, {ORIGIN}"
_TFLITE = {
    DETECTION: (
        "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    LANDMARKS: (
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
}
_MAX_BYTES = 16 * 1024 * 1024
_WHEEL = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]


def default_folder() -> Path:
    """Where the files are read: a folder that ``NLML_HPE_FACEMESH`` names, the wheel's own, or the user's cache."""
    if not os.environ.get(FOLDER_VARIABLE) and PACKAGED.is_dir():
        return PACKAGED
    return own_folder()


def own_folder() -> Path:
    """Where the files are made: a folder that ``NLML_HPE_FACEMESH`` names, or one in the user's cache."""
    from platformdirs import user_cache_path

    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else user_cache_path("nlml_hpe") / "facemesh-3"


def read_weights(folder: Path | None = None) -> dict[str, bytes]:
    """Both ONNX files by name.

    Parameters
    ----------
    folder
        Where they lie; by default ``default_folder()``.

    Returns
    -------
    dict of str to bytes
        Name of the file -> what is in it.

    Raises
    ------
    ArtifactError
        Where a file is missing, was cut short or changed, or is of another version: what is wrong, and the command
        that makes it anew.
    """
    place = folder or default_folder()
    mend = _REINSTALL if place == PACKAGED else _WANTED
    if not (place / _ABOUT).is_file():
        raise ArtifactError(f"{place / _ABOUT} is missing; {mend}")
    about = read_json(place / _ABOUT)
    if not isinstance(about, dict) or about.get("format") != FORMAT or not isinstance(about.get("sha256"), dict):
        found = about.get("format") if isinstance(about, dict) else about
        raise ArtifactError(f"{place}: expected the version {FORMAT!r}, found {found!r}; {mend}")
    contents = {}
    for name in _TFLITE:
        path = place / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; {mend}")
        content = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
        if hashlib.sha256(content).hexdigest() != about["sha256"].get(name):
            raise ArtifactError(f"{path} was cut short or changed since it was made (SHA-256 differs); {mend}")
        contents[name] = content
    return contents


def prepared_folder() -> Path:
    """``own_folder`` with all ``FILES`` of this version in it, made where they are not there or damaged.

    Raises ``ArtifactError`` as ``make_weights``.
    """
    folder = own_folder()
    try:
        read_weights(folder)
    except ArtifactError:
        return make_weights(folder)
    return folder if all((folder / name).is_file() for name in FILES) else make_weights(folder)


def make_weights(folder: Path, wheel: Path | None = None) -> Path:
    """Write both ONNX files, their digests, their licence and a NOTICE.

    Parameters
    ----------
    folder
        Made where it is missing.
    wheel
        MediaPipe's wheel as a file; by default the installed package is read, or pip fetches the wheel.

    Returns
    -------
    Path
        ``folder``.

    Raises
    ------
    ArtifactError
        Where the networks cannot be had, are not those of this version, or ``tflite`` or ``onnx`` is missing.
    """
    missing = [name for name in ("tflite", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise ArtifactError(f"the conversion needs {' and '.join(missing)}; {_WANTED}")
    from nlml_hpe.detection.tflite_to_onnx import convert

    sources = _sources(wheel)
    shapes: dict[str, tuple[float, float, dict[str, tuple[int, ...]]]] = {
        DETECTION: (2 / 255, -1.0, {"boxes": (896, 16), "logits": (896,)}),
        LANDMARKS: (1 / 255, 0.0, {"points": (468, 3), "presence": ()}),
    }
    digests = {}
    for name, (scale, offset, outputs) in shapes.items():
        content = convert(sources[name], scale, offset, outputs)
        write_bytes(folder / name, content)
        digests[name] = hashlib.sha256(content).hexdigest()
    write_bytes(folder / _LICENSE, sources[_LICENSE])
    write_bytes(folder / _NOTICE, _notice(digests).encode())
    about: dict[str, Any] = {"format": FORMAT, "source": f"mediapipe {VERSION}", "sha256": digests}
    write_json(folder / _ABOUT, about)
    return folder


def _sources(wheel: Path | None) -> dict[str, bytes]:
    """The TFLite files, checked, and the licence; the installed package first, which may be of another version."""
    if wheel is not None:
        return _from_wheel(wheel)
    if found := _from_installed():
        return found
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", *_WHEEL, "--dest", scratch]
        done = subprocess.run([*command, f"mediapipe=={VERSION}"], check=False, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("mediapipe-*.whl"))
        if done.returncode or not wheels:
            raise ArtifactError(
                f"pip could not fetch mediapipe {VERSION}, which carries FaceMesh: {done.stderr.strip()}; fetch its "
                f"wheel by other means and run {COMMAND} --wheel FILE"
            )
        return _from_wheel(wheels[0])


def _from_installed() -> dict[str, bytes]:
    """What the installed mediapipe has of it; empty where that is none of the versions with these networks."""
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or spec.origin is None:
        return {}
    root = Path(spec.origin).parents[1]
    paths = {name: root / inside for name, (inside, _) in _TFLITE.items()}
    paths[_LICENSE] = root / f"mediapipe-{VERSION}.dist-info" / _LICENSE
    if not all(path.is_file() for path in paths.values()):
        return {}
    found = {name: path.read_bytes() for name, path in paths.items()}
    return found if all(_is_known(name, found[name]) for name in _TFLITE) else {}


def _from_wheel(wheel: Path) -> dict[str, bytes]:
    found = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            insides = {name: inside for name, (inside, _) in _TFLITE.items()}
            insides[_LICENSE] = f"mediapipe-{VERSION}.dist-info/{_LICENSE}"
            for name, inside in insides.items():
                if archive.getinfo(inside).file_size > _MAX_BYTES:
                    raise ArtifactError(f"{wheel}: {inside} is larger than {_MAX_BYTES} bytes")
                found[name] = archive.read(inside)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ArtifactError(f"{wheel} is no wheel of mediapipe {VERSION} that can be read ({error})") from error
    for name in _TFLITE:
        if not _is_known(name, found[name]):
            raise ArtifactError(
                f"{wheel}: {_TFLITE[name][0]} is not that of mediapipe {VERSION} (SHA-256 differs); name its wheel"
            )
    return found


def _is_known(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == _TFLITE[name][1]


def _notice(digests: dict[str, str]) -> str:
    lines = [
        f"{name} ({digests[name]}) was converted to ONNX from\n  {inside} ({digest})"
        for name, (inside, digest) in _TFLITE.items()
    ]
    return (
        f"The networks in this folder are part of MediaPipe {VERSION}, Copyright The MediaPipe Authors, licensed\n"
        "under the Apache License, Version 2.0 (LICENSE in this folder), and were changed in form only:\n"
        "https://github.com/google-ai-edge/mediapipe. SHA-256 digests are in brackets.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Make the two networks of FaceMesh as ONNX files.")
    parser.add_argument("--folder", type=Path, default=None, help="where to (default: the user's cache)")
    parser.add_argument("--wheel", type=Path, default=None, help=f"the wheel of mediapipe {VERSION}, already fetched")
    given = parser.parse_args()
    try:
        print(make_weights(given.folder or own_folder(), given.wheel))
    except (ArtifactError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
