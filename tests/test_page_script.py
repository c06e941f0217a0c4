"""The page's script, run in node: what it shows when answers come late, and what the webcam's button does."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from nlml_hpe.model.format import SHIPPED
from nlml_hpe.page import server

NODE = shutil.which("node")
PAGE = Path(server.__file__).with_name("page.html")
PLATFORM = Path(__file__).with_name("page_script.js")

PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
"""Linear RGB as it is seen without cones for red and without those for green."""

pytestmark = pytest.mark.skipif(NODE is None, reason="node, which runs the page's script, is not installed")


def run(scenario: str, page: Path = PAGE) -> Any:
    """What a scenario of ``page_script.js`` returns."""
    done = subprocess.run(
        [str(NODE), PLATFORM, page, scenario], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_answer_that_comes_late_is_not_shown_with_a_later_picture() -> None:
    result = run("""
        await Promise.all([page.take(image("first", 100, 80)), page.take(image("second", 200, 10))]);
        return { ...page.shown(), log };
    """)
    assert result == {"picture": "second", "width": 200, "log": ["picture second"]}


def test_a_picture_and_its_answer_are_shown_together() -> None:
    """The second one's picture was drawn with the first one's poses while its own were on their way."""
    result = run("""
        const first = page.take(image("first", 100, 10)), second = page.take(image("second", 200, 80));
        await first;
        const between = page.shown();
        await second;
        return { between, after: page.shown() };
    """)
    assert result["between"] in ({"picture": None, "width": None}, {"picture": "first", "width": 100})
    assert result["after"] == {"picture": "second", "width": 200}


def test_the_webcams_button_pressed_twice_opens_one_stream_and_stop_ends_it() -> None:
    result = run("""
        page.watch(); page.watch();
        await wait(60);
        const open = streams.map(stream => stream.isLive);
        page.watch();
        await wait(20);
        return { open, after: streams.map(stream => stream.isLive), button: elements.camera.textContent };
    """)
    assert result == {"open": [True], "after": [False], "button": "use the webcam"}


def test_a_server_that_is_gone_is_asked_once_a_second() -> None:
    result = run("""
        page.watch();
        await wait(60);
        const before = asked.length;
        server.isThere = false;
        await wait(300);
        return { before, after: asked.length - before, message: elements.message.textContent };
    """)
    assert result["before"] > 2
    assert 1 <= result["after"] <= 3
    assert result["message"] == "Failed to fetch"


def test_a_file_ends_the_webcam_and_stays() -> None:
    result = run("""
        page.watch();
        await wait(60);
        elements.file.listeners.change({ target: { files: [image("chosen", 100, 30)] } });
        await wait(120);
        return { ...page.shown(), live: streams.map(stream => stream.isLive) };
    """)
    assert result == {"picture": "chosen", "width": 100, "live": [False]}


def test_a_file_may_be_chosen_again() -> None:
    """As browsers have it, where the same file is no change: after the webcam it was not shown."""
    result = run("""
        const field = { value: "", files: [] };
        const choose = name => {
          elements.file.listeners.click?.({ target: field });
          if (field.value === name) return;
          Object.assign(field, { value: name, files: [image(name, 100)] });
          elements.file.listeners.change({ target: field });
        };
        choose("chosen");
        await wait(20);
        page.watch();
        await wait(60);
        page.watch();
        choose("chosen");
        await wait(20);
        return page.shown();
    """)
    assert result == {"picture": "chosen", "width": 100}


def test_a_file_that_is_too_large_is_not_sent(tmp_path: Path) -> None:
    with server.serve(SHIPPED, port=0) as opened:
        threading.Thread(target=opened.serve_forever, daemon=True).start()
        with urllib.request.urlopen(opened.url) as response:
            (tmp_path / "page.html").write_bytes(response.read())
        opened.shutdown()
    result = run(
        f"""
        await page.take(image("large", 100, 1, {server.MAX_UPLOAD_BYTES + 1}));
        const message = elements.message.textContent;
        await page.take(image("largest", 100, 1, {server.MAX_UPLOAD_BYTES}));
        return {{ message, asked }};
        """,
        tmp_path / "page.html",
    )
    assert result == {"message": "at most 16 MiB are taken; make the image smaller", "asked": ["largest"]}


@pytest.mark.parametrize(("shown", "expected"), [(500, [8, 16]), (4000, [1, 2]), (None, [1, 2])])
def test_lines_of_a_small_head_are_seen_where_a_large_picture_is_shown_small(
    shown: int | None, expected: list[float]
) -> None:
    """Those of 50 pixels' head in 4,000 were a quarter of the page's pixel wide."""
    result = run(f"""
        const face = {{
            box: [0, 0, 50, 50], rotation: [[1, 0, 0], [0, 1, 0], [0, 0, 1]], cone: [[0, 0], [.1, 0], [0, .1]],
            alone: {{}}, landmarks: [], yaw: 0, pitch: 0, roll: 0, sigma: null, score: null,
            in_range: true, eye: "both",
        }};
        page.document.getElementById("picture").clientWidth = {json.dumps(shown)};
        page.document.getElementById("doubt").checked = true;
        await page.take({{ ...image("large", 4000), faces: [face] }});
        return widths;
    """)
    assert result == expected


def test_of_a_webcam_a_message_that_stands_there_is_not_said_again() -> None:
    """A screen reader read "1 head" out at every frame of the webcam."""
    said = run("""
        const said = [], own = {};
        Object.defineProperty(page.document.getElementById("message"), "textContent", {
            get: () => own.text, set(text) { said.push(text); own.text = text; },
        });
        for (const number of [1, 2, 3]) await page.take(image(`frame ${number}`, 100), false);
        const ofFrames = said.length;
        await page.take(image("still", 100));
        return [ofFrames, ...said];
    """)
    assert said == [1, "no head found", "no head found"]


def test_colours_of_eyes_are_told_apart_by_who_sees_no_red_or_no_green() -> None:
    """As Machado, Oliveira and Fernandes (2009) simulate it; of CIEDE2000's differences 10 are seen at a glance."""
    block = re.search(r"const EYES = (.*)", PAGE.read_text(encoding="utf-8"))
    assert block
    codes = re.findall(r"#([0-9a-f]{6})", block[1])
    encoded = np.array([list(bytes.fromhex(code)) for code in codes]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    for kind in (PROTAN, DEUTAN):
        seen = np.clip(linear @ np.array(kind).T, 0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        shades = rgb2lab(seen[None])[0]
        assert min(deltaE_ciede2000(a, b) for a, b in itertools.combinations(shades, 2)) > 20
