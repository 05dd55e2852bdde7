"""One Chromium and one server of the demo for all tests, and pages that must stay quiet."""

import contextlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.needs import missing

from ..conftest import Running, running

AXE = "axe-core@4"
QUICK = """if (!localStorage.getItem("form"))
  localStorage.setItem("form", '{"steps": 2, "width": 64, "height": 64}');"""
"""A form whose pictures take no time."""
WAIT_MS = 60_000  # until an expected state has come; a loaded machine is slow
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        missing("needs chromium")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=path, args=flags)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose history holds what the tests before have drawn."""
    with running(tmp_path_factory.mktemp("pictures")) as shared:
        yield shared


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages in contexts of their own; what the browser's console says fails the test."""
    with contextlib.ExitStack() as contexts:
        said: list[str] = []
        allowed: list[str] = []

        def open_one(
            url: str, *, may_say: str = "", ready: bool = True, quick: bool = True, **options: Any
        ) -> Page:
            allowed.extend([may_say] if may_say else [])
            options = {"locale": "en-US", "viewport": {"width": 1280, "height": 800}, **options}
            routes = options.pop("routes", {})
            context = chromium.new_context(
                base_url=url if url.startswith("http") else None, **options
            )
            contexts.callback(context.close)
            if quick:
                context.add_init_script(QUICK)
            page = context.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            for path, handler in routes.items():
                page.route(path, handler)
            page.goto(url)
            if ready:
                page.locator("html[data-ready]").wait_for()
            return page

        yield open_one
    unexpected = [text for text in said if not any(part in text for part in allowed)]
    assert not unexpected


@pytest.fixture
def page(open_page: Callable[..., Page], demo_server: Running) -> Page:
    """The page with a form whose pictures are small and take two steps."""
    return open_page(demo_server.url)


@pytest.fixture
def new_page(open_page: Callable[..., Page], demo_server: Running) -> Page:
    """The page as somebody finds it who has not been there before."""
    return open_page(demo_server.url, quick=False)


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm. Where it must be had, not having it fails."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    done = npm and subprocess.run(
        [npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, check=False
    )
    packed = next(iter(folder.glob("*.tgz")), None)
    if packed is None:
        reason = f"needs {AXE} from npm: {done.stderr[-300:] if done else 'npm is not there'}"
        missing(reason)
    with tarfile.open(packed) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


@pytest.fixture
def findings(axe: str) -> Callable[[Page], list[str]]:
    """Tell what axe-core finds on a page."""

    def find(page: Page) -> list[str]:
        page.evaluate(axe)
        found = page.evaluate("async () => (await axe.run()).violations")
        return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]

    return find
