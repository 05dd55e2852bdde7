"""Screenshots of the page, for README and docs: made by a real browser on the demo.

    python -m tools.screenshots [--out docs/pictures] [--check FOLDER]

It starts the server with the demo, draws a few pictures over its API, and photographs the page.
It needs the browser extra and chromium. `--check` also writes every width, language and theme.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
DRAWN = (
    ("a red circle on a blue background", 7),
    ("a white star on a purple background", 5),
    ("a black letter Z on an orange background", 3),
    ("a small green triangle at the top left on a white background", 7),
    ("a blue ring on a white background", 1),
    ("a big yellow heart on a purple background", 7),
)
WIDTHS = {"phone": (375, 812), "tablet": (900, 900), "wide": (1600, 1000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/pictures")
    parser.add_argument("--check", type=Path, help="a folder for all widths, languages and themes")
    options = parser.parse_args()
    path = shutil.which("chromium") or shutil.which("chrome") or shutil.which("google-chrome")
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        for prompt, seed in DRAWN:
            draw(url, {"prompt": prompt, "seed": seed})
        page = opened(browser, url, (1280, 800))
        page.locator("#prompt").fill(DRAWN[-1][0])
        save(page, options.out / "page-light.png")
        page = opened(browser, url, (1280, 800), color_scheme="dark")
        paint(page)
        save(page, options.out / "page-dark.png")
        if options.check is not None:
            check(browser, url, options.check)
        browser.close()


@contextmanager
def serving() -> Iterator[str]:
    """Run the command with the demo, and yield its address."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "mlx_zimage_cli.py"), "serve", "--model", "demo"]
        command += ["--port", "0", "--json", "--output-folder", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.communicate()


def draw(url: str, order: dict[str, Any]) -> None:
    """Draw over the API, and wait for the end."""
    host = url.removeprefix("http://")
    headers = {"Content-Type": "application/json"}
    with closing(HTTPConnection(host)) as connection:
        connection.request("POST", "/api/jobs", json.dumps(order), headers)
        job = json.loads(connection.getresponse().read())
    with closing(HTTPConnection(host)) as connection:
        connection.request("GET", job["events"])
        connection.getresponse().read()


def opened(browser: Browser, url: str, size: tuple[int, int], **options: Any) -> Page:
    """Open the page, and wait until it shows a picture."""
    viewport: Any = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, **{"locale": "en-US", **options})
    page = context.new_page()
    page.goto(url)
    page.locator("html[data-ready]").wait_for()
    page.locator(".frame .sharp.shown").wait_for()
    page.wait_for_load_state("networkidle")
    return page


def paint(page: Page) -> None:
    """Mark a region of the newest picture, as a person does who wants to change it."""
    page.locator("#change").click()
    page.locator("#prompt").fill("a big red heart on a purple background")
    page.locator("input[name=picture-mode][value=region]").check()
    brush = page.locator("canvas.brush")
    brush.scroll_into_view_if_needed()
    box = brush.bounding_box()
    assert box is not None
    points = [(0.32, 0.4), (0.5, 0.5), (0.68, 0.4), (0.5, 0.68), (0.34, 0.46)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    page.evaluate("scrollTo(0, 0)")


def save(page: Page, file: Path) -> None:
    """Save what is seen, once the page has said what a picture takes."""
    expect(page.locator("#memory")).not_to_be_empty()
    file.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def check(browser: Browser, url: str, folder: Path) -> None:
    for name, size in WIDTHS.items():
        for locale in ("en-US", "zh-CN"):
            for scheme in ("light", "dark"):
                page = opened(browser, url, size, locale=locale, color_scheme=scheme)
                save(page, folder / f"{name}-{locale[:2]}-{scheme}.png")
                page.context.close()


if __name__ == "__main__":
    main()
