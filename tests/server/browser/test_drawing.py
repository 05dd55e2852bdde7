"""Drawing on the page: the first view, a picture, its progress, the queue, and cancelling."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Response, expect

from ..conftest import Running, running
from .pages import CIRCLE, be_slow, draw, draw_and_wait, jobs_sent, wait_for_picture

pytestmark = pytest.mark.browser
FIRST_VIEW = 150_000  # bytes


def test_a_newcomer_sees_a_prompt_a_button_and_where_the_picture_will_be(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    with running(tmp_path) as server:
        page = open_page(server.url, quick=False)
        expect(page.locator("#prompt")).to_be_visible()
        expect(page.locator("#draw")).to_be_visible()
        expect(page.locator(".frame .empty")).to_be_visible()
        assert page.locator("details[open]").count() == 0
        page.locator(".chip").first.click()
        assert page.locator("#prompt").input_value() == CIRCLE
        page.locator("#draw").click()
        wait_for_picture(page)
        expect(page.locator("#grid li")).to_have_count(1)
        page.close()


def test_the_first_view_is_small_and_asks_nobody_else(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    sizes: dict[str, int] = {}
    page = open_page("about:blank", ready=False, quick=False)

    def take(response: Response) -> None:
        if not response.url.endswith("/api/events"):
            sizes[response.url] = int(response.headers.get("content-length", 0))

    page.on("response", take)
    policy = page.goto(demo_server.url)
    page.locator("html[data-ready]").wait_for()
    assert policy is not None
    assert "script-src 'self'" in policy.headers["content-security-policy"]
    assert "unsafe" not in policy.headers["content-security-policy"]
    assert all(url.startswith(demo_server.url) for url in sizes)
    page_alone = {url: size for url, size in sizes.items() if "/files/" not in url}
    assert 20_000 < sum(page_alone.values()) < FIRST_VIEW


WATCH = """() => {
  window.seen = { phases: new Set(), frames: new Set(), previews: new Set() };
  const look = () => {
    const frame = document.querySelector(".frame");
    const { x, y, width, height } = frame.getBoundingClientRect();
    window.seen.phases.add(document.getElementById("phase").textContent);
    window.seen.frames.add([x, y, width, height].join());
    if (frame.dataset.state === "preview") window.seen.previews.add(frame.querySelector("img").src);
  };
  new MutationObserver(look).observe(document.getElementById("stage"),
    { subtree: true, childList: true, characterData: true, attributes: true });
}"""
SEEN = "Object.fromEntries(Object.entries(window.seen).map(([name, set]) => [name, [...set]]))"


def test_a_preview_sharpens_in_the_place_of_the_picture(new_page: Page) -> None:
    page = new_page
    draw_and_wait(page)
    page.evaluate(WATCH)
    draw_and_wait(page)
    seen = page.evaluate(SEEN)
    assert len(seen["frames"]) == 1
    assert len(seen["previews"]) > 3
    assert all(url.startswith("data:image/webp;base64,") for url in seen["previews"])
    phases = "\n".join(seen["phases"])
    assert "Drawing" in phases and "5/8" in phases
    assert page.locator("progress").get_attribute("aria-label")


def test_enter_draws_neither_alone_nor_while_an_input_method_composes(page: Page) -> None:
    sent = jobs_sent(page)
    page.locator("#prompt").fill(CIRCLE)
    page.keyboard.press("Enter")
    page.locator("#prompt").dispatch_event(
        "keydown", {"key": "Enter", "ctrlKey": True, "isComposing": True, "bubbles": True}
    )
    assert page.locator("#prompt").input_value() == CIRCLE + "\n"
    page.locator("#prompt").fill(CIRCLE)
    page.keyboard.press("Control+Enter")
    wait_for_picture(page)
    assert len(sent) == 1


def test_without_a_prompt_it_asks_for_one(page: Page) -> None:
    sent = jobs_sent(page)
    page.locator("#draw").click()
    expect(page.locator("#problem")).not_to_be_empty()
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#prompt")).to_have_attribute("aria-invalid", "true")
    page.keyboard.type("a")
    expect(page.locator("#problem")).to_be_hidden()
    assert not sent


def test_a_running_drawing_is_cancelled_by_key_and_button(page: Page) -> None:
    be_slow(page)
    for cancel in (lambda: page.keyboard.press("Escape"), page.locator("#cancel").click):
        draw(page)
        page.locator(".frame[data-state=preview]").wait_for()
        cancel()
        expect(page.locator("#cancel")).to_be_hidden()
        expect(page.locator("#queue li")).to_have_count(0)
        expect(page.locator("#delete")).to_be_visible()


def test_the_queue_shows_places_and_survives_a_reload(page: Page) -> None:
    be_slow(page)
    draw(page)
    page.locator(".frame[data-state=preview]").wait_for()
    draw(page, "a yellow star on a green background")
    draw(page, "a big yellow heart on a purple background")
    rows = page.locator("#queue li")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("2")
    page.reload()
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("star")
    rows.nth(0).locator("button").last.click()
    expect(rows).to_have_count(1)
    expect(rows.nth(0)).to_contain_text("1")
    expect(rows.nth(0)).to_contain_text("heart")
    rows.nth(0).locator("button").last.click()
    page.locator(".frame[data-state=preview]").wait_for()
    page.locator("#cancel").click()
    expect(page.locator("#cancel")).to_be_hidden()


def test_each_press_draws_however_quick(page: Page) -> None:
    sent = jobs_sent(page)
    be_slow(page)
    page.locator("#prompt").fill(CIRCLE)
    for _ in range(3):
        page.keyboard.press("Control+Enter")
    expect(page.locator("#queue li")).to_have_count(2)
    for left in (1, 0):
        page.locator("#queue li button").last.click()
        expect(page.locator("#queue li")).to_have_count(left)
    page.locator("#cancel").click()
    expect(page.locator("#cancel")).to_be_hidden()
    assert len({body["seed"] for body in sent}) == 3


def test_why_a_drawing_failed_is_told(open_page: Callable[..., Page], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    with running(folder) as server:
        page = open_page(server.url)
        draw_and_wait(page)
        shutil.rmtree(folder)
        folder.write_text("in the way")
        draw(page)
        expect(page.locator(".problem")).to_be_visible()
        told = page.locator(".problem").text_content()
        expect(page.locator("#announce")).to_have_text(told or "nothing")
        expect(page.locator("#cancel")).to_be_hidden()
        page.close()
        folder.unlink()


def test_escape_in_a_search_leaves_the_drawing_alone(page: Page) -> None:
    draw_and_wait(page)
    be_slow(page)
    draw(page)
    page.locator(".frame[data-state=preview]").wait_for()
    page.locator("#search").fill("circle")
    page.locator("#search").press("Escape")
    expect(page.locator("#search")).to_have_value("")
    expect(page.locator("#cancel")).to_be_visible()
    page.locator("#search").press("Escape")
    expect(page.locator("#cancel")).to_be_hidden()


def test_start_and_end_are_announced_and_the_steps_are_not(page: Page) -> None:
    page.evaluate(
        """() => { window.said = [];
        const place = document.getElementById('announce');
        new MutationObserver(() => window.said.push(place.textContent))
          .observe(place, { childList: true }); }"""
    )
    draw_and_wait(page)
    page.locator("#announce", has_text="finished").wait_for()
    said = page.evaluate("window.said")
    assert len(said) == 2
    assert CIRCLE in said[0]


def test_markup_in_a_prompt_stays_text(page: Page) -> None:
    prompt = "<img src=x onerror=alert(1)> a red circle {name} &amp; \" '"
    draw_and_wait(page, prompt)
    assert page.locator("#caption").text_content() == prompt
    assert page.locator("img[src=x]").count() == 0
    expect(page.locator(".hint")).to_be_hidden()


def test_a_demo_tells_what_it_draws(page: Page) -> None:
    draw_and_wait(page, "an old fisherman")
    expect(page.locator(".hint")).to_contain_text("shapes, letters and digits")
