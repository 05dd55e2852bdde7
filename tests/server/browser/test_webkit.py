"""One pass through the page in WebKit, Safari's engine, by the W3C's WebDriver protocol.

Debian has it as webkit2gtk-driver; it draws on a screen of its own (xvfb).
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.needs import missing

from ..conftest import WAIT, Running

pytestmark = pytest.mark.browser
BROWSERS = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))
RING = "a white ring on a green background"  # which no other test draws
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for a reference


class WebKit:
    """A session of WebDriver."""

    def __init__(self, port: int):
        self._port, self._session = port, ""
        options = {"binary": str(BROWSERS[-1]), "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        made = self._ask("POST", "/session", {"capabilities": wanted})
        self._session = f"/session/{made['sessionId']}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=WAIT)) as connection:
            data = None if body is None else json.dumps(body)
            connection.request(method, self._session + path, data)
            answer = json.loads(connection.getresponse().read())["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *values: Any) -> Any:
        return self._ask("POST", "/execute/sync", {"script": script, "args": values})

    def until(self, script: str) -> Any:
        """Wait until a script returns something."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            if value := self.run(f"return {script}"):
                return value
        raise AssertionError(f"it did not come: {script}")

    def element(self, selector: str) -> str:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def type(self, selector: str, text: str) -> None:
        self._ask("POST", f"/element/{self.element(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._ask("POST", f"/element/{self.element(selector)}/click", {})

    def close(self) -> None:
        self._ask("DELETE", "")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def webkit() -> Iterator[WebKit]:
    tools = shutil.which("WebKitWebDriver"), shutil.which("xvfb-run")
    if not (all(tools) and BROWSERS):
        missing("needs webkit2gtk-driver and xvfb")
    port = free_port()
    environment = {**os.environ, "WEBKIT_FORCE_SANDBOX": "0", "LIBGL_ALWAYS_SOFTWARE": "1"}
    driver = subprocess.Popen(
        ["xvfb-run", "-a", "WebKitWebDriver", f"--port={port}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + WAIT
        while True:
            try:
                with closing(socket.create_connection(("127.0.0.1", port), 1)):
                    break
            except OSError:
                assert time.monotonic() < end
        session = WebKit(port)
        yield session
        session.close()
    finally:
        os.killpg(driver.pid, 15)
        driver.wait()


def test_a_picture_is_drawn_varied_and_changed(webkit: WebKit, demo_server: Running) -> None:
    webkit.open(demo_server.url)
    webkit.until("document.documentElement.dataset.ready !== undefined")
    webkit.run('localStorage.setItem(\'form\', \'{"steps": 2, "width": 64, "height": 64}\')')
    webkit.open(f"{demo_server.url}/?again")
    webkit.until("document.documentElement.dataset.ready !== undefined")
    webkit.type("#prompt", RING)
    webkit.click("#draw")
    webkit.until(f"document.querySelector('.frame .sharp.shown')?.alt === '{RING}'")
    drawn = "document.querySelectorAll('#grid button').length"
    webkit.until(drawn)
    webkit.click("#change")
    webkit.until("document.querySelector('.board img')?.naturalWidth")
    webkit.run("document.querySelector('input[name=picture-mode][value=region]').click()")
    webkit.until("document.querySelector('canvas.brush') !== null")
    webkit.click("#brush-whole")
    before = webkit.run(f"return {drawn}")
    webkit.run("document.getElementById('draw').click()")  # it is scrolled out of sight
    webkit.until(f"{drawn} > {before}")
    job = demo_server.ask("GET", "/api/jobs").json["jobs"][0]
    assert (job["state"], job["images"][0]["large"]) == ("done", ["image", "mask"])
