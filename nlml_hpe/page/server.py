"""A page to try it: ``nlml-hpe demo`` serves it to this machine's own browser.

An image or a webcam frame is posted to ``/predict`` and answered with every face's pose and landmarks; to
``/predict?rebuild``, where torch is installed, also with the largest face's reconstruction by the manifold: its 27
weight vectors and the cosines, from which the page draws the face at any angle. Nothing is stored.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from nlml_hpe.detection.landmarks import normalize_landmarks
from nlml_hpe.face import HeadPose
from nlml_hpe.files.images import ImageReadError, decode_image
from nlml_hpe.inference.backends import Backend
from nlml_hpe.inference.engines import DEFAULT_ROUTE
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.rotation import angles_from_rotation

LOOPBACK = "127.0.0.1"
MAX_UPLOAD_BYTES = 16 * 1024 * 1024
MAX_UPLOAD_PIXELS = 50_000_000
"""Of one upload; they are decoded one at a time, so that 150 MB of RGB are all that uploads take."""
TIMEOUT_SECONDS = 20
REBUILD = "/predict?rebuild"
_PAGE = Path(__file__).with_name("page.html")
_LENGTH_DIGITS = 12
_LAST_PORT = 65535
_PIECE_BYTES = 64 * 1024
_HOST = re.compile(r"(?P<name>\[[^]]*\]|[^:]*)(:\d*)?")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src blob: data:; media-src blob:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class DemoServer(ThreadingHTTPServer):
    """Serves the page and its answers; ``server_close`` releases the model.

    Parameters
    ----------
    address : (str, int)
        Name or address to listen at, and port.
    predictor : Predictor
        What answers.
    """

    request_queue_size = 64

    def __init__(self, address: tuple[str, int], predictor: Predictor) -> None:
        self._predictor, self.is_local = predictor, is_loopback(address[0])
        families = {found[0] for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM)}
        self.address_family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        super().__init__(address, partial(_Handler, predictor))

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_close(self) -> None:
        """Stop listening, and release the model."""
        super().server_close()
        self._predictor.estimator.close()


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, seen from itself alone.

    Examples
    --------
    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "[::1]", "0.0.0.0", "example.org")]
    [True, True, True, True, False, False]
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def serve(model: Path, host: str = LOOPBACK, port: int = 8000) -> DemoServer:
    """A server that is ready for ``serve_forever``.

    Where torch and safetensors are installed it also rebuilds faces by the manifold, otherwise it does without.

    Parameters
    ----------
    model : pathlib.Path
        A model folder.
    host : str
        At a name or address of this machine's own (localhost, 127.x, ::1) others cannot see the page.
    port : int
        0 takes a free one.

    Raises
    ------
    OSError
        Where the address is taken or not this machine's.
    ArtifactError
        Where the model does not read.
    ValueError
        For a port that no machine has.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"port: expected 0 to {_LAST_PORT}; received {port}")
    installed = all(importlib.util.find_spec(name) for name in ("torch", "safetensors"))
    backend: Backend = "torch" if installed and (model / "model.safetensors").is_file() else "onnx"
    estimator = HeadPoseEstimator(model, backend)
    try:
        return DemoServer((host, port), Predictor(estimator))
    except OSError as error:
        estimator.close()
        raise OSError(error.errno, f"the page cannot be served at {host}, port {port}: {error.strerror}") from error


class Predictor:
    """Answers for the page, one image at a time: so that uploads are decoded one at a time too.

    Parameters
    ----------
    estimator : HeadPoseEstimator
        What finds the poses; with torch's backend the predictor also rebuilds faces.
    """

    def __init__(self, estimator: HeadPoseEstimator) -> None:
        self.estimator, self._lock = estimator, threading.Lock()

    def __call__(self, content: bytes, rebuild: bool) -> dict[str, Any]:
        """All that is in an encoded image, for JSON.

        Parameters
        ----------
        content : bytes
            The image as a file.
        rebuild : bool
            Whether to add the largest face's reconstruction.

        Returns
        -------
        dict
            ``width``, ``height``, ``faces`` (as ``HeadPose.as_dict``, with landmarks in pixels), ``reconstruction``.

        Raises
        ------
        ImageReadError
            Where it is no image, or one of more than ``MAX_UPLOAD_PIXELS``.
        """
        with self._lock:
            image = decode_image(BytesIO(content), "the upload", MAX_UPLOAD_PIXELS)
            faces = self.estimator.detect(image)
            poses = self.estimator.poses(faces, DEFAULT_ROUTE)
        shown = [{**pose.as_dict(), "landmarks": pose.landmarks.round(2).tolist()} for pose in poses]
        return {
            "width": image.shape[1],
            "height": image.shape[0],
            "faces": shown,
            "reconstruction": self.reconstruction(poses[0]) if rebuild and poses else None,
        }

    def reconstruction(self, pose: HeadPose) -> dict[str, Any] | None:
        """One face on the manifold, from which the page draws it at any angle.

        Returns
        -------
        dict or None
            ``weights`` (27, 3 N) of the face's identity, ``cosines`` of each angle, ``angles`` in the manifold's own
            head frame and their ``range`` in degrees; None where the model was read without torch, and of a face that
            shows no landmarks.
        """
        model = getattr(self.estimator.engine, "model", None)
        if model is None or not len(pose.landmarks):
            return None
        manifold = model.manifold
        features = normalize_landmarks(pose.landmarks[None], model.point_set, model.normalization)
        # Back from the named head frame to the manifold's own: the inverse of a rotation is its transpose.
        own = angles_from_rotation(pose.rotation[None] @ model.frame.named_from_own.T)
        identity = manifold.solve_identity(features, own)[0]
        weights = np.tensordot(identity, manifold.core, axes=1).reshape(-1, manifold.core.shape[-1]) @ manifold.basis
        return {
            "weights": weights.round(4).tolist(),
            "cosines": [axis.tolist() for axis in manifold.cosines],
            "angles": [float(values[0]) for values in own],
            "range": [[axis[0], axis[-1]] for axis in manifold.grid.axes],
        }


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version, sys_version = "nlml-hpe", ""
    timeout = TIMEOUT_SECONDS

    def __init__(self, predictor: Callable[[bytes, bool], dict[str, Any]], *arguments: Any) -> None:
        self._predictor = predictor
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """The page, and nothing else."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """``/predict``: an encoded image in, JSON out."""
        self._guarded(self._post)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Whatever goes wrong, whoever asked gets an answer, and the terminal the reason."""
        try:
            work()
        except ImageReadError as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except TimeoutError:
            self._answer(HTTPStatus.REQUEST_TIMEOUT, {"error": f"the upload took more than {TIMEOUT_SECONDS} seconds"})
        except ConnectionError:
            self.close_connection = True
        except Exception:
            traceback.print_exc(file=sys.stderr)
            text = "this image could not be answered; the terminal that runs the page says why"
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": text})

    def _get(self) -> None:
        if not self._is_ours():
            return
        if self.path.partition("?")[0] != "/":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "there is nothing here; the page is /"})
            return
        self._send(HTTPStatus.OK, _PAGE.read_bytes(), "text/html; charset=utf-8")

    def _post(self) -> None:
        if not self._is_ours():
            return
        length = self.headers.get("Content-Length", "")
        if self.path not in ("/predict", REBUILD):
            self._answer(HTTPStatus.NOT_FOUND, {"error": "images go to /predict"})
        elif not self.headers.get("Content-Type", "").startswith("image/"):
            self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": "expected an image as the request's body"})
        elif not (length.isascii() and length.isdecimal()):
            self._answer(HTTPStatus.LENGTH_REQUIRED, {"error": "the request has no Content-Length"})
        # Python converts no number of thousands of digits.
        elif len(length) > _LENGTH_DIGITS or int(length) > MAX_UPLOAD_BYTES:
            text = f"at most {MAX_UPLOAD_BYTES // 2**20} MiB are taken; make the image smaller"
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": text})
        else:
            self._answer(HTTPStatus.OK, self._predictor(self._body(int(length)), self.path == REBUILD))

    def _body(self, length: int) -> bytes:
        """The upload. Raises ``TimeoutError`` where it comes in drops, and ``ImageReadError`` where it breaks off."""
        content, end = bytearray(), time.monotonic() + TIMEOUT_SECONDS
        while len(content) < length:
            piece = self.rfile.read1(min(_PIECE_BYTES, length - len(content)))
            if not piece:
                raise ImageReadError(f"the upload broke off after {len(content)} of {length} bytes")
            if time.monotonic() > end:
                raise TimeoutError
            content += piece
        return bytes(content)

    def _is_ours(self) -> bool:
        """Refuse requests that another site's script sends here by a name that it has pointed at this machine."""
        host = _HOST.fullmatch(self.headers.get("Host", ""))
        if self.server.is_local and not (host and is_loopback(host["name"])):
            self._answer(HTTPStatus.FORBIDDEN, {"error": "this page is served to this machine alone"})
            return False
        return True

    def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        # What was not read of a refused upload must not be taken for the next request.
        self.close_connection = status != HTTPStatus.OK
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        try:
            self.end_headers()
            self.wfile.write(content)
        except (ConnectionError, TimeoutError):  # whoever asked has left, or does not read
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged: with a webcam there are dozens a second."""
