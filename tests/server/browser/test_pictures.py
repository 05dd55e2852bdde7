"""The pictures so far: search, details, recall, download, copy, delete, and files dropped."""

import base64
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from ..conftest import Running
from .pages import CIRCLE, draw_and_wait, jobs_sent, unfold, wait_for_picture

pytestmark = pytest.mark.browser
STAR = "a yellow star on a green background"
DROP = """([type, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, { type }));
  const target = document.body, options = { bubbles: true, cancelable: true };
  if (name === "pasted.png") {
    target.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: given }));
    return;
  }
  target.dispatchEvent(new DragEvent("dragenter", { ...options, dataTransfer: given }));
  window.covered = !document.getElementById("drop-zone").hidden;
  target.dispatchEvent(new DragEvent("drop", { ...options, dataTransfer: given }));
}"""


def drop(page: Page, data: bytes, name: str = "a.png", kind: str = "image/png") -> None:
    page.evaluate(DROP, [kind, name, base64.b64encode(data).decode()])


def plain_png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 48), "teal").save(file, "PNG")
    return file.getvalue()


def test_the_history_is_searched(page: Page) -> None:
    draw_and_wait(page)
    draw_and_wait(page, STAR)
    page.keyboard.press("Tab")
    page.locator("body").press("/")
    expect(page.locator("#search")).to_be_focused()
    page.locator("#search").fill("yellow star")
    first = page.locator("#grid img").first
    expect(page.locator(f"#grid img[alt='{CIRCLE}']")).to_have_count(0)
    expect(first).to_have_attribute("alt", STAR)
    page.locator("#search").fill("zebra")
    expect(page.locator("#grid li")).to_have_count(0)
    expect(page.locator("#history .note")).to_contain_text("zebra")
    page.locator("#search").fill("")
    expect(page.locator(f"#grid img[alt='{CIRCLE}']").first).to_be_visible()


def test_the_grid_is_one_stop_and_arrows_choose_in_it(page: Page) -> None:
    draw_and_wait(page)
    newest = draw_and_wait(page, STAR)
    current = page.locator("#grid [aria-current=true]")
    expect(current).to_have_attribute("data-id", newest)
    page.reload()
    wait_for_picture(page, STAR)
    assert page.locator("#grid button[tabindex='0']").count() == 1
    page.locator("#grid button[tabindex='0']").press("ArrowRight")
    wait_for_picture(page)
    expect(page.locator("#grid button").nth(1)).to_be_focused()
    page.locator("#grid button").nth(1).press("Home")
    wait_for_picture(page, STAR)
    page.locator("#info").press("ArrowRight")
    wait_for_picture(page)


def test_a_pictures_settings_are_told_and_taken(new_page: Page) -> None:
    unfold(new_page, "settings")
    new_page.locator("[name=steps]").fill("5")
    unfold(new_page, "size")
    new_page.locator("#size-width").fill("96")
    new_page.locator("#size-width").press("Tab")
    unfold(new_page, "seed")
    new_page.locator("#seed").fill("123")
    draw_and_wait(new_page, STAR)
    new_page.locator("#info").click()
    details = new_page.locator("#details")
    for text in (STAR, "96 × 128", "123", "5", "demo", "euler"):
        expect(details).to_contain_text(text)
    new_page.locator("#prompt").fill("something else")
    new_page.locator("#fold-settings .link").click()
    new_page.locator("#size-width").fill("128")
    new_page.locator("#seed").fill("9")
    new_page.locator("#seed").press("Tab")

    def use(number: int) -> None:
        new_page.locator("#use").click()
        new_page.locator("[role=menuitem]").nth(number).click()

    use(2)
    expect(new_page.locator("#seed")).to_have_value("123")
    expect(new_page.locator("#prompt")).to_have_value("something else")
    use(1)
    expect(new_page.locator("#prompt")).to_have_value(STAR)
    expect(new_page.locator("[name=steps]")).to_have_value("8")
    use(0)
    expect(new_page.locator("[name=steps]")).to_have_value("5")
    expect(new_page.locator("#size-width")).to_have_value("96")
    expect(new_page.locator("#fold-settings summary .value")).to_contain_text("1")


def test_a_picture_is_shown_alone(page: Page) -> None:
    draw_and_wait(page)
    draw_and_wait(page, STAR)
    picture = page.locator("#viewer img")
    page.locator("#prompt").blur()
    page.keyboard.press("Space")
    expect(picture).to_have_attribute("alt", STAR)
    page.keyboard.press("ArrowRight")
    expect(picture).to_have_attribute("alt", CIRCLE)
    page.keyboard.press("Space")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#caption")).to_have_text(CIRCLE)
    page.locator(".frame").hover()
    page.locator("#expand").click()
    expect(picture).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#expand")).to_be_focused()


def test_a_menu_is_used_with_the_keyboard(page: Page) -> None:
    draw_and_wait(page)
    page.locator("#prompt").fill("x")
    page.locator("#use").press("Enter")
    expect(page.locator("[role=menuitem]").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_value(CIRCLE)
    page.locator("#use").press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#use")).to_be_focused()
    expect(page.locator("[role=menu]")).to_be_hidden()


def test_a_picture_is_downloaded_and_copied(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    page = open_page(demo_server.url, permissions=["clipboard-read", "clipboard-write"])
    image = draw_and_wait(page)
    with page.expect_download() as download:
        page.locator("a[download]").click()
    assert download.value.suggested_filename.endswith(".png")
    file = download.value.path().read_bytes()
    assert file == page.request.get(f"/files/{image}.png").body()
    page.bring_to_front()
    page.locator("#copy").click()
    expect(page.locator(".toast")).to_be_visible()
    kinds = "navigator.clipboard.read().then((items) => items.flatMap((item) => item.types))"
    assert page.evaluate(kinds) == ["image/png"]


def test_a_deleted_picture_comes_back_until_it_is_gone(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    page = open_page(demo_server.url, may_say="404")
    image = draw_and_wait(page)
    tile = page.locator(f"#grid button[data-id='{image}']")
    page.locator("#delete").click()
    expect(tile).to_have_count(0)
    page.locator(".toast button").click()
    expect(tile).to_have_count(1)
    expect(page.locator("#caption")).to_have_text(CIRCLE)
    assert page.request.get(f"/files/{image}.png").ok
    page.locator("body").press("Delete")
    expect(tile).to_have_count(0)
    page.reload()  # leaving the page is the end of the way back
    page.locator("html[data-ready]").wait_for()
    expect(tile).to_have_count(0)
    assert page.request.get(f"/files/{image}.png").status == 404


def test_a_picture_that_another_page_deletes_goes_here_too(
    page: Page, open_page: Callable[..., Page], demo_server: Running
) -> None:
    image = draw_and_wait(page)
    other = open_page(demo_server.url)
    tile = other.locator(f"#grid button[data-id='{image}']")
    expect(tile).to_have_count(1)
    page.request.delete(f"/api/history/{image}")
    expect(tile).to_have_count(0)


@pytest.mark.parametrize("name", ["a.png", "pasted.png"])
def test_a_dropped_picture_is_drawn_again(page: Page, name: str) -> None:
    unfold(page, "seed")
    page.locator("#seed").fill("77")
    image = draw_and_wait(page, STAR)
    data = page.request.get(f"/files/{image}.png").body()
    page.locator("#prompt").fill("something else")
    page.locator("#seed").fill("1")
    drop(page, data, name)
    dialog = page.locator("#drop")
    expect(dialog).to_contain_text(STAR)
    expect(page.locator("#drop-zone")).to_be_hidden()
    sent = jobs_sent(page)
    page.locator("#drop-again").click()
    newest = page.locator(f"#grid li:first-child button:not([data-id='{image}'])")
    newest.wait_for()
    assert (sent[0]["prompt"], sent[0]["seed"]) == (STAR, 77)
    again = page.request.get(f"/files/{newest.get_attribute('data-id')}.png").body()
    assert Image.open(BytesIO(again)).tobytes() == Image.open(BytesIO(data)).tobytes()


def test_a_dropped_picture_only_fills_the_form(page: Page) -> None:
    image = draw_and_wait(page, STAR)
    data = page.request.get(f"/files/{image}.png").body()
    page.locator("#prompt").fill("something else")
    sent = jobs_sent(page)
    drop(page, data)
    assert page.evaluate("window.covered")
    page.locator("#drop-use").click()
    expect(page.locator("#prompt")).to_have_value(STAR)
    expect(page.locator("#drop")).to_be_hidden()
    assert not sent


def test_a_picture_without_a_request_becomes_the_one_to_change(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    page = open_page(demo_server.url, may_say="400")
    sent = jobs_sent(page)
    drop(page, plain_png())
    expect(page.locator("#fold-picture")).to_have_attribute("open", "")
    draw_and_wait(page)
    assert sent[0]["image"] == "data:image/png;base64," + base64.b64encode(plain_png()).decode()


def test_a_picture_of_the_history_becomes_the_one_to_change(page: Page) -> None:
    draw_and_wait(page)
    sent = jobs_sent(page)
    page.locator("#change").click()
    expect(page.locator("#fold-picture")).to_have_attribute("open", "")
    draw_and_wait(page, STAR)
    assert sent[0]["image"].startswith("data:image/png;base64,")


def test_what_is_no_picture_is_told(page: Page) -> None:
    drop(page, b"%PDF", "a.pdf", "application/pdf")
    expect(page.locator(".toast")).to_contain_text("PNG")
