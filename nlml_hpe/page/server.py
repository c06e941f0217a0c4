"""A page to try it: ``nlml-hpe demo`` serves it to this machine's own browser.

An image or a webcam frame is posted to ``/predict`` and answered with the pose of every head that is found, its
landmarks and its cone of doubt. What the page wants beyond that stands in the query: with ``heads``, as of an image
that is no frame of a webcam, heads that show no face are looked for, too, which takes longer; with ``eyes`` each head's
answers by one eye alone are there; with ``rebuild``, where torch is installed, the largest face's reconstruction by the
manifold: its 27 weight vectors, the cosines and FaceMesh's triangles, from which the page draws the face as a surface
at any angle. Nothing is stored.
"""

from __future__ import annotations

import io
import ipaddress
import json
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nlml_hpe.extras import MissingPackageError
from nlml_hpe.files.images import ImageReadError
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.model.components import WEIGHTS_FILE
from nlml_hpe.page.predictor import Predictor

LOOPBACK = "127.0.0.1"
MAX_UPLOAD_BYTES = 16 * 1024 * 1024
TIMEOUT_SECONDS = 20
"""For all of a request to come, headers and upload; as long again for the answer to be taken."""
MAX_CONNECTIONS = 64
"""At one time; further ones are closed unread."""
PREDICT = "/predict"
WISHES = ("heads", "rebuild", "eyes")
"""What may stand in the query of ``PREDICT``, joined by "&"."""
_PAGE = Path(__file__).with_name("page.html")
_LENGTH_DIGITS = 12
_LAST_PORT = 65535
_PIECE_BYTES = 64 * 1024
_MAX_DROPPED_BYTES = 64 * 1024 * 1024
_MARK = "@MAX_UPLOAD_BYTES@"
"""Where the page has the number."""
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
        self._open: set[object] = set()
        super().__init__(address, partial(_Handler, predictor))

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection."""
        if len(self._open) >= MAX_CONNECTIONS:
            return False
        self._open.add(request)
        return True

    def shutdown_request(self, request: Any) -> None:
        """End a connection, which makes room for another one."""
        self._open.discard(request)
        super().shutdown_request(request)

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_close(self) -> None:
        """Stop listening, and release the model; who still waits for an answer gets none."""
        super().server_close()
        self._predictor.close()


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


def serve(model: Path, host: str = LOOPBACK, port: int = 8000, heads: bool = False) -> DemoServer:
    """A server that is ready for ``serve_forever``.

    Where all of the torch extra is installed it also rebuilds faces by the manifold, otherwise it does without.

    Parameters
    ----------
    model : pathlib.Path
        A model folder.
    host : str
        At a name or address of this machine's own (localhost, 127.x, ::1) others cannot see the page.
    port : int
        0 takes a free one.
    heads : bool
        Whether heads that show no face are looked for in every image, too, as of ``HeadPoseEstimator``; otherwise they
        are where the page asks for it, which a webcam's frames do without.

    Returns
    -------
    DemoServer
        Its ``url`` says where.

    Raises
    ------
    OSError
        Where the address is taken or not this machine's.
    ArtifactError
        Where the model does not read.
    ValueError
        For a port that no machine has, and for ``heads`` of a model without an image eye.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"port: expected 0 to {_LAST_PORT}; received {port}")
    estimator = _open_estimator(model, heads)
    try:
        return DemoServer((host, port), Predictor(estimator))
    except OSError as error:
        estimator.close()
        raise OSError(error.errno, f"the page cannot be served at {host}, port {port}: {error.strerror}") from error


def _open_estimator(model: Path, heads: bool) -> HeadPoseEstimator:
    if (model / WEIGHTS_FILE).is_file():
        with suppress(MissingPackageError):  # a part of the torch extra, of which only ``needs`` knows all
            return HeadPoseEstimator(model, "torch", heads=heads)
    return HeadPoseEstimator(model, "onnx", heads=heads)


class _ReadUntil(socket.SocketIO):
    """What a connection sends up to a moment; after it ``TimeoutError``, however often a little more comes."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        super().__init__(connection, "r")
        self._connection, self._end = connection, end

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_seconds_to(self._end))
        return super().readinto(buffer)


def _seconds_to(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version, sys_version = "nlml-hpe", ""

    def __init__(self, predictor: Predictor, *arguments: Any) -> None:
        self._predictor = predictor
        super().__init__(*arguments)

    def setup(self) -> None:
        """Read under a deadline, which ``BaseHTTPRequestHandler`` has for each line alone."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_ReadUntil(self.connection, time.monotonic() + TIMEOUT_SECONDS))

    def handle(self) -> None:
        """Answer a request; of one that breaks off before all its headers are there nobody needs to know."""
        with suppress(ConnectionError):
            super().handle()

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
        page = _PAGE.read_text(encoding="utf-8").replace(_MARK, str(MAX_UPLOAD_BYTES))
        self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")

    def _post(self) -> None:
        if not self._is_ours():
            return
        length, kind = self.headers.get("Content-Length", ""), self.headers.get("Content-Type", "")
        place, _, query = self.path.partition("?")
        wishes = [wish for wish in query.split("&") if wish]
        if place != PREDICT or not set(wishes) <= set(WISHES):
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"images go to {PREDICT}, with any of {WISHES}"})
        elif not kind.lower().startswith("image/"):
            text = f"expected an image as the request's body, and a Content-Type as image/jpeg; received {kind!r}"
            self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": text})
        elif not (length.isascii() and length.isdecimal()):
            self._answer(HTTPStatus.LENGTH_REQUIRED, {"error": "the request has no Content-Length"})
        # Python converts no number of thousands of digits.
        elif len(length) > _LENGTH_DIGITS or int(length) > MAX_UPLOAD_BYTES:
            text = f"at most {MAX_UPLOAD_BYTES // 2**20} MiB are taken; make the image smaller"
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": text})
        else:
            asked = {wish: wish in wishes for wish in WISHES}
            self._answer(HTTPStatus.OK, self._predictor(self._body(int(length)), **asked))

    def _body(self, length: int) -> bytes:
        """The upload. Raises ``TimeoutError`` where it comes in drops, and ``ImageReadError`` where it breaks off."""
        content = bytearray()
        while len(content) < length:
            piece = self.rfile.read1(min(_PIECE_BYTES, length - len(content)))
            if not piece:
                raise ImageReadError(f"the upload broke off after {len(content)} of {length} bytes")
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
        if self.close_connection:
            self._drop_the_rest()

    def _drop_the_rest(self) -> None:
        """Read what still comes, within bounds: a connection closed before is reset, and its answer often not seen."""
        dropped, end = 0, time.monotonic() + TIMEOUT_SECONDS
        with suppress(OSError):  # whoever asked has left, or goes on for too long
            self.connection.shutdown(socket.SHUT_WR)
            while dropped < _MAX_DROPPED_BYTES:
                self.connection.settimeout(_seconds_to(end))
                piece = self.connection.recv(_PIECE_BYTES)
                if not piece:
                    break
                dropped += len(piece)

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.connection.settimeout(TIMEOUT_SECONDS)
        try:
            self.end_headers()
            self.wfile.write(content)
        except (ConnectionError, TimeoutError):  # whoever asked has left, or does not read
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged: with a webcam there are dozens a second."""
