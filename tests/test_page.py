"""The page: what it answers, what it refuses, and how it looks in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlml_hpe.detection.landmarks import normalize_landmarks
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import OnnxEngine
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.page.predictor import MAX_UPLOAD_PIXELS
from nlml_hpe.page.server import LOOPBACK, MAX_CONNECTIONS, MAX_UPLOAD_BYTES, DemoServer, serve

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with served(LOOPBACK) as opened:
        yield opened


def jpeg(image: RgbImage) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def ask(
    server: DemoServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(str(server.server_address[0]), int(server.server_address[1]), timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    found = (response.status, dict(response.headers), response.read())
    connection.close()
    return found


def test_an_image_is_answered_with_pose_and_reconstruction(server: DemoServer, photo: RgbImage) -> None:
    status, headers, content = ask(server, "POST", "/predict?rebuild", jpeg(photo), Content_Type="image/jpeg")
    answer = json.loads(content)
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    (face,) = answer["faces"]
    assert abs(face["yaw"]) < 15
    assert (answer["width"], answer["height"]) == (512, 512)
    known = answer["reconstruction"]
    rows = [
        [a * np.cos(b * np.radians(angle) + c) + d for a, b, c, d in cosines]
        for cosines, angle in zip(known["cosines"], known["angles"], strict=True)
    ]
    cells = np.einsum("i,j,k->ijk", *map(np.array, rows)).ravel()
    seen = normalize_landmarks(np.array(face["landmarks"])[None])[0]
    rebuilt = cells @ np.array(known["weights"])
    assert np.array(known["triangles"]).shape == (852, 3)
    assert known["range"] == [[-50, 50], [-40, 40], [-30, 30]]
    # The manifold leaves about 8% of a face's spread on those it has not seen.
    assert np.linalg.norm(rebuilt - seen) / np.linalg.norm(seen) < 0.15


def test_a_webcam_frame_is_answered_without_the_reconstruction(server: DemoServer, photo: RgbImage) -> None:
    answer = json.loads(ask(server, "POST", "/predict", jpeg(photo), Content_Type="image/jpeg")[2])
    assert (len(answer["faces"]), answer["reconstruction"]) == (1, None)


def test_every_head_has_a_cone_and_where_it_is_asked_for_the_answers_of_each_eye(
    server: DemoServer, photo: RgbImage
) -> None:
    (plain,) = json.loads(ask(server, "POST", "/predict", jpeg(photo), Content_Type="image/jpeg")[2])["faces"]
    assert plain["alone"] == {}
    edge = np.array(plain["cone"])
    np.testing.assert_allclose(np.linalg.norm(edge, axis=1), 1, atol=1e-3)
    # The nose lies in its middle.
    np.testing.assert_allclose(edge.mean(axis=0), np.array(plain["rotation"])[:, 2], atol=0.05)
    (face,) = json.loads(ask(server, "POST", "/predict?eyes", jpeg(photo), Content_Type="image/jpeg")[2])["faces"]
    assert {name: answer["eye"] for name, answer in face["alone"].items()} == {
        "landmarks": "landmarks",
        "image": "image",
    }
    assert face["yaw"] == plain["yaw"]
    assert len({answer["yaw"] for answer in (face, *face["alone"].values())}) == 3


def test_the_one_eye_of_a_model_is_shown_by_its_name(landmark_eye_alone: Path, photo: RgbImage) -> None:
    """The page said "no answer" where that very eye was chosen."""
    with served(LOOPBACK, landmark_eye_alone) as opened:
        answer = json.loads(ask(opened, "POST", "/predict?eyes", jpeg(photo), Content_Type="image/jpeg")[2])
    (face,) = answer["faces"]
    assert list(face["alone"]) == ["landmarks"]
    assert face["alone"]["landmarks"]["yaw"] == face["yaw"]


def test_a_picture_without_a_face_has_no_reconstruction(server: DemoServer) -> None:
    body = jpeg(np.full((64, 64, 3), 90, dtype=np.uint8))
    answer = json.loads(ask(server, "POST", "/predict?rebuild", body, Content_Type="image/jpeg")[2])
    assert (answer["faces"], answer["reconstruction"]) == ([], None)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "message"),
    [
        ("GET", "/../../etc/passwd", None, {}, 404, "nothing here"),
        ("POST", "/predict?delete", b"x", {"Content_Type": "image/png"}, 404, "eyes"),
        ("POST", "/other", b"x", {"Content_Type": "image/png"}, 404, "/predict"),
        ("POST", "/predict", b"x", {"Content_Type": "text/plain"}, 415, "Content-Type as image/jpeg; received 'text"),
        ("POST", "/predict", b"no image", {"Content_Type": "Image/PNG"}, 400, "not an image"),
        ("POST", "/predict", b"no image", {"Content_Type": "image/png"}, 400, "not an image"),
        ("POST", "/predict", b"", {"Content_Type": "image/png"}, 400, "not an image"),
        ("POST", "/predict", b"x", {"Content_Type": "image/png", "Content_Length": "-1"}, 411, "Content-Length"),
        ("POST", "/predict", b"x", {"Content_Type": "image/png", "Content_Length": "9" * 5000}, 413, "16 MiB"),
        ("GET", "/", None, {"Host": "elsewhere.example:8000"}, 403, "alone"),
        ("GET", "/", None, {"Host": "127.0.0.1.elsewhere.example"}, 403, "alone"),
        ("GET", "/", None, {"Host": ""}, 403, "alone"),
    ],
)
def test_what_is_refused(
    server: DemoServer, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, message: str
) -> None:
    found, _, content = ask(server, method, path, body, **headers)
    assert found == status
    assert message in json.loads(content)["error"]


def test_an_upload_that_is_too_large_is_refused_unread(server: DemoServer) -> None:
    headers = {"Content_Type": "image/png", "Content_Length": str(MAX_UPLOAD_BYTES + 1)}
    assert ask(server, "POST", "/predict", b"x", **headers)[0] == 413


LOCAL = ["localhost:8000", "LOCALHOST.", "127.0.0.1", "127.1.2.3:80", "[::1]:8000", "a.localhost"]


@pytest.mark.parametrize("name", LOCAL)
def test_every_name_of_this_machine_is_answered(server: DemoServer, name: str) -> None:
    assert ask(server, "GET", "/", Host=name)[0] == 200


def test_a_page_at_localhost_keeps_its_check_of_the_host() -> None:
    """Any other name than the default was taken for the network's: then the check was left out."""
    with served("localhost") as opened:
        assert opened.is_local
        assert ask(opened, "GET", "/", Host="elsewhere.example")[0] == 403
        assert ask(opened, "GET", "/")[0] == 200
        assert opened.url.startswith("http://")


@contextmanager
def served(host: str, model: Path = SHIPPED) -> Iterator[DemoServer]:
    with serve(model, host, port=0) as opened:
        threading.Thread(target=opened.serve_forever, daemon=True).start()
        yield opened
        opened.shutdown()


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(server: DemoServer) -> None:
    stream = io.BytesIO()
    Image.new("1", (8000, MAX_UPLOAD_PIXELS // 8000 + 1)).save(stream, "PNG")
    status, _, content = ask(server, "POST", "/predict", stream.getvalue(), Content_Type="image/png")
    assert (status, f"at most {MAX_UPLOAD_PIXELS} pixels" in content.decode()) == (400, True)


def test_whatever_goes_wrong_is_an_answer(
    server: DemoServer, photo: RgbImage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(server._predictor.estimator.engine, "estimate", fail)
    status, _, content = ask(server, "POST", "/predict", jpeg(photo), Content_Type="image/jpeg")
    assert status == 500
    assert "could not be answered" in json.loads(content)["error"]
    assert "a fault of ours" in capfd.readouterr().err


def raw(server: DemoServer, content: bytes, close: bool) -> bytes:
    with socket.create_connection(server.server_address[:2], timeout=30) as connection:
        connection.sendall(content)
        if close:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


UPLOAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nhalf"


def test_an_upload_that_breaks_off_is_answered(server: DemoServer) -> None:
    assert b"broke off after 4 of 1000 bytes" in raw(server, UPLOAD, close=True)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: loc"])
def test_whoever_leaves_amid_the_headers_leaves_no_traceback(
    server: DemoServer, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    connection = socket.create_connection(server.server_address[:2], timeout=30)
    connection.sendall(sent)
    # Closed at once, with a reset in place of the end of what was sent.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    deadline = time.monotonic() + 10
    while server._open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ask(server, "GET", "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_an_upload_that_does_not_come_is_answered(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlml_hpe.page.server.TIMEOUT_SECONDS", 0.2)
    assert b" 408 " in raw(server, UPLOAD, close=False).splitlines()[0]


def dripped(server: DemoServer, begin: bytes, drop: bytes) -> tuple[bytes, float]:
    """What is answered where ``drop`` comes ten times a second, and after how long, 5 seconds at most."""
    start = time.monotonic()
    with socket.create_connection(server.server_address[:2], timeout=0.1) as connection:
        connection.sendall(begin)
        while (passed := time.monotonic() - start) < 5:
            try:
                connection.sendall(drop)
                return connection.recv(65536), passed
            except TimeoutError:
                continue
            except ConnectionError:
                return b"", passed
    return b"never", 5


def test_a_request_in_drops_ends(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of its header each had a deadline of their own, so that it never ended."""
    monkeypatch.setattr("nlml_hpe.page.server.TIMEOUT_SECONDS", 0.5)
    answer, seconds = dripped(server, UPLOAD, b"x")
    assert b" 408 " in answer.splitlines()[0]
    assert seconds < 3
    answer, seconds = dripped(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: a\r\n")
    assert (answer, seconds < 3) == (b"", True)


def test_the_rest_of_a_refused_upload_in_drops_is_not_waited_for(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlml_hpe.page.server.TIMEOUT_SECONDS", 0.5)
    with socket.create_connection(server.server_address[:2], timeout=5) as connection:
        connection.sendall(UPLOAD.replace(b"image/", b"text/"))
        assert b" 415 " in connection.recv(65536)
        start = time.monotonic()
        while server._open and time.monotonic() - start < 5:
            with suppress(ConnectionError):
                connection.sendall(b"x")
            time.sleep(0.05)
        assert time.monotonic() - start < 3


def test_there_is_a_most_of_connections_and_room_again_when_one_ends() -> None:
    with served(LOOPBACK) as opened:
        place = opened.server_address[:2]
        with ExitStack() as stack:
            for _ in range(MAX_CONNECTIONS):
                stack.enter_context(socket.create_connection(place, timeout=5))
            with socket.create_connection(place, timeout=5) as further:
                assert further.recv(1) == b""
        end = time.monotonic() + 10
        while opened._open and time.monotonic() < end:
            time.sleep(0.01)
        assert ask(opened, "GET", "/")[0] == 200


@pytest.mark.parametrize(
    ("size", "kind", "status"), [(MAX_UPLOAD_BYTES + 1, "image/png", 413), (3_000_000, "text/plain", 415)]
)
def test_whoever_sends_all_before_reading_sees_why_it_is_refused(
    server: DemoServer, size: int, kind: str, status: int
) -> None:
    """The connection was closed with the upload unread, and so reset, before the answer could be."""
    for _ in range(5):
        assert ask(server, "POST", "/predict", bytes(size), Content_Type=kind)[0] == status


def test_what_is_dropped_of_a_refused_upload_is_bounded(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlml_hpe.page.server._MAX_DROPPED_BYTES", 1000)
    endless = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {10**11}\r\n\r\n"
    )
    with socket.create_connection(server.server_address[:2], timeout=30) as connection:
        connection.sendall(endless.encode())
        with pytest.raises(ConnectionError):
            connection.sendall(bytes(300_000_000))


def test_sixty_visitors_may_wait() -> None:
    """Five were kept waiting, the next ones refused: nobody accepts here, so all of them wait."""
    with serve(SHIPPED, port=0) as opened, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(opened.server_address[:2], timeout=5))


def test_the_image_in_hand_is_answered_before_the_page_closes_and_no_other(
    photo: RgbImage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A webcam's frame was in hand at most Ctrl-Cs: its network was taken away, or outlived the program (SIGABRT)."""
    begun, may_go_on = threading.Event(), threading.Event()
    with served(LOOPBACK) as opened, ThreadPoolExecutor(2) as pool:
        predictor = opened._predictor
        detect = predictor._of_heads.detect

        def slowly(image: RgbImage) -> list[Face]:
            begun.set()
            assert may_go_on.wait(30)
            return detect(image)

        monkeypatch.setattr(predictor._of_heads, "detect", slowly)
        answer = pool.submit(ask, opened, "POST", "/predict?heads", jpeg(photo), Content_Type="image/jpeg")
        assert begun.wait(30)
        opened.shutdown()
        closing = pool.submit(opened.server_close)
        wait([closing], timeout=0.5)
        may_go_on.set()
        closing.result()
        assert answer.result()[0] == 200
        with pytest.raises(ConnectionAbortedError):
            predictor(jpeg(photo))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("absent", ["safetensors", "scipy"])
def test_without_a_part_of_the_torch_extra_the_page_does_without_torch(absent: str) -> None:
    """In a process of its own: what is imported once is there for good. Without scipy the page did not open."""
    program = (
        f"import sys\nsys.modules[{absent!r}] = None\nfrom nlml_hpe.model.format import SHIPPED\n"
        "from nlml_hpe.page.server import serve\n"
        "with serve(SHIPPED, port=0) as server:\n    print(type(server._predictor.estimator.engine).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == OnnxEngine.__name__, done.stderr


@pytest.mark.parametrize(
    ("host", "port", "error", "message"),
    [
        (LOOPBACK, 99999, ValueError, "expected 0 to 65535; received 99999"),
        (LOOPBACK, -1, ValueError, "expected 0 to 65535"),
        ("no-such-host.invalid", 0, OSError, "no-such-host.invalid"),
    ],
)
def test_an_address_that_is_none_is_named(host: str, port: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        serve(SHIPPED, host, port)


def test_a_port_that_is_taken_is_named(server: DemoServer) -> None:
    with pytest.raises(OSError, match=f"port {server.server_address[1]}: Address already in use"):
        serve(SHIPPED, port=int(server.server_address[1]))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(server: DemoServer, photo: RgbImage, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    (tmp_path / "photo.jpg").write_bytes(jpeg(photo))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(f"http://{LOOPBACK}:{server.server_address[1]}/")
        page.set_input_files("#file", tmp_path / "photo.jpg")
        message = page.locator("#message")
        playwright.expect(message).to_have_text("1 head", timeout=20_000)
        assert "±" in page.inner_text("#angles tbody")
        before = page.locator("#model").screenshot()
        page.get_by_label("yaw").fill("40")
        assert page.locator("#model").screenshot() != before
        picture = page.locator("#picture")
        with_cone = picture.screenshot()
        page.get_by_label("doubt").uncheck()
        assert picture.screenshot() != with_cone
        page.get_by_label("doubt").check()
        page.select_option("#eyes", "all")
        rows = page.locator("#angles tbody tr")
        playwright.expect(rows).to_have_count(3, timeout=20_000)
        assert [name in row for name, row in zip(("both", "landmark", "image"), rows.all_inner_texts(), strict=True)]
        playwright.expect(page.locator("#arrows")).to_contain_text("in the colour of its row")
        page.screenshot(path=tmp_path / "page.png", full_page=True)  # to be looked at
        for width in (390, 320):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        (tmp_path / "none.jpg").write_text("no image")
        page.set_input_files("#file", tmp_path / "none.jpg")
        playwright.expect(message).to_contain_text("not an image")
        browser.close()
    # The refused upload is the one error of the console.
    assert all("400" in problem for problem in problems)
