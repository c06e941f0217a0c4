"""The page: what it answers, what it refuses, and how it looks in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlml_hpe.detection.landmarks import normalize_landmarks
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import SHIPPED
from nlml_hpe.page.server import LOOPBACK, MAX_UPLOAD_BYTES, DemoServer, serve

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with serve(SHIPPED, port=0) as opened:
        thread = threading.Thread(target=opened.serve_forever, daemon=True)
        thread.start()
        yield opened
        opened.shutdown()


def jpeg(image: RgbImage) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def ask(
    server: DemoServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, int(server.server_address[1]), timeout=30)
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
    # The manifold leaves about 8% of a face's spread on those it has not seen.
    assert np.linalg.norm(rebuilt - seen) / np.linalg.norm(seen) < 0.15


def test_a_webcam_frame_is_answered_without_the_reconstruction(server: DemoServer, photo: RgbImage) -> None:
    answer = json.loads(ask(server, "POST", "/predict", jpeg(photo), Content_Type="image/jpeg")[2])
    assert (len(answer["faces"]), answer["reconstruction"]) == (1, None)


def test_a_picture_without_a_face_has_no_reconstruction(server: DemoServer) -> None:
    body = jpeg(np.full((64, 64, 3), 90, dtype=np.uint8))
    answer = json.loads(ask(server, "POST", "/predict?rebuild", body, Content_Type="image/jpeg")[2])
    assert (answer["faces"], answer["reconstruction"]) == ([], None)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "message"),
    [
        ("GET", "/../../etc/passwd", None, {}, 404, "nothing here"),
        ("POST", "/other", b"x", {"Content_Type": "image/png"}, 404, "/predict"),
        ("POST", "/predict", b"x", {"Content_Type": "text/plain"}, 415, "expected an image"),
        ("POST", "/predict", b"no image", {"Content_Type": "image/png"}, 400, "not an image"),
        ("POST", "/predict", b"", {"Content_Type": "image/png"}, 400, "not an image"),
        ("POST", "/predict", b"x", {"Content_Type": "image/png", "Content_Length": "-1"}, 411, "Content-Length"),
        ("GET", "/", None, {"Host": "elsewhere.example:8000"}, 403, "alone"),
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
        playwright.expect(message).to_have_text("1 face", timeout=20_000)
        assert "±" in page.inner_text("#angles tbody")
        before = page.locator("#model").screenshot()
        page.get_by_label("yaw").fill("40")
        assert page.locator("#model").screenshot() != before
        page.screenshot(path=tmp_path / "page.png", full_page=True)  # to be looked at
        (tmp_path / "none.jpg").write_text("no image")
        page.set_input_files("#file", tmp_path / "none.jpg")
        playwright.expect(message).to_contain_text("not an image")
        browser.close()
    # The refused upload is the one error of the console.
    assert all("400" in problem for problem in problems)
