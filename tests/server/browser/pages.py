"""What several browser tests do on the page."""

from typing import Any

from playwright.sync_api import Page, Request, expect

CIRCLE = "a red circle on a blue background"


def draw(page: Page, prompt: str = CIRCLE) -> None:
    """Write a prompt and draw it, with the keys."""
    page.locator("#prompt").fill(prompt)
    page.keyboard.press("Control+Enter")


def wait_for_picture(page: Page, prompt: str = CIRCLE) -> None:
    """Wait until the stage shows a finished picture."""
    expect(page.locator(".frame .sharp.shown")).to_have_attribute("alt", prompt)
    expect(page.locator("#delete")).to_be_visible()


def draw_and_wait(page: Page, prompt: str = CIRCLE) -> str:
    """Draw a picture and return its id."""
    before = page.locator("#grid button").first
    old = before.get_attribute("data-id") if before.count() else None
    draw(page, prompt)
    newest = page.locator(f'#grid li:first-child button:not([data-id="{old}"])')
    newest.wait_for()
    wait_for_picture(page, prompt)
    return newest.get_attribute("data-id") or ""


def unfold(page: Page, name: str) -> None:
    """Open a tool."""
    fold = page.locator(f"#fold-{name}")
    if fold.get_attribute("open") is None:
        fold.locator("summary").click()


def be_slow(page: Page) -> None:
    """Make drawings take so long that they can be watched, and must be cancelled."""
    unfold(page, "settings")
    page.locator("[name=steps]").fill("50")
    unfold(page, "size")
    page.locator("#size-height").fill("256")
    page.locator("#size-width").fill("256")
    page.locator("#size-width").press("Tab")


def jobs_sent(page: Page) -> list[dict[str, Any]]:
    """Collect the bodies of the jobs that the page submits from now on."""
    bodies: list[dict[str, Any]] = []

    def take(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/api/jobs"):
            bodies.append(request.post_data_json)

    page.on("request", take)
    return bodies
