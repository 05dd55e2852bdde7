"""The page's first view, in a new window of Chromium: bytes, first paint, everything in its place.

    python -m benchmarks.page [--rounds 11]

It needs the browser extra and chromium. The server runs as a process of its own, with the demo and
no pictures.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Response, sync_playwright

from .server import show

READY = """new MutationObserver(() => {
  if (document.documentElement?.dataset.ready !== undefined) window.readyAt ??= performance.now();
}).observe(document, { attributes: true, subtree: true });"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    program = Path(__file__).parents[1] / "mlx_zimage_cli.py"
    command = [sys.executable, str(program), "serve", "--model", "demo", "--port", "0", "--json"]
    with tempfile.TemporaryDirectory() as folder:
        more = ["--output-folder", folder]
        with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            try:
                measure(url, options.rounds)
            finally:
                server.terminate()


def measure(url: str, rounds: int) -> None:
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        views = [view(chromium, url) for _ in range(rounds)]
        chromium.close()
    print(f"{views[0][0]} files, {views[0][1] / 1000:.1f} kB")
    show("first paint, ms", [painted for _, _, painted, _ in views], 0)
    show("everything in its place, ms", [ready for _, _, _, ready in views], 0)


def view(chromium: Browser, url: str) -> tuple[int, int, float, float]:
    """Open the page, and return its files, their bytes, and the two times."""
    sizes: list[int] = []

    def take(response: Response) -> None:
        if not response.url.endswith("/api/events"):
            sizes.append(int(response.headers.get("content-length", 0)))

    context = chromium.new_context()
    page = context.new_page()
    page.on("response", take)
    page.add_init_script(READY)
    page.goto(url)
    page.locator("html[data-ready]").wait_for()
    times = page.evaluate(PAINTED), page.evaluate("window.readyAt")
    context.close()
    return len(sizes), sum(sizes), *times


if __name__ == "__main__":
    main()
