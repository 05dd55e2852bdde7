"""The page's tools: pictures changed, painted, widened, compared and swept; LoRAs."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.lora.handmade import pair
from tests.lora.stored import write

from ..conftest import Running, running
from .pages import CIRCLE, draw, draw_and_wait, jobs_sent, unfold

pytestmark = pytest.mark.browser
BLUE = (34, 85, 204)
DEMO_WIDTH = 192


def png(width: int = 64, height: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), BLUE).save(file, "PNG")
    return file.getvalue()


def choose(page: Page, data: bytes, kind: str = "image/png") -> None:
    """Give the tool a picture, as its file dialog does."""
    unfold(page, "picture")
    files: Any = {"name": "a.png", "mimeType": kind, "buffer": data}
    page.locator("#fold-picture input[type=file]").set_input_files(files)


def turn_to(page: Page, mode: str) -> None:
    page.locator(f"input[name=picture-mode][value={mode}]").check()


def pixels(server: Running, id: str) -> np.ndarray:
    file = server.ask("GET", f"/files/{id}.png").body
    return np.asarray(Image.open(io.BytesIO(file)))


def paint(page: Page, *points: tuple[float, float], button: Any = "left") -> None:
    """Draw a stroke through points, as shares of the picture."""
    page.locator("canvas.brush").scroll_into_view_if_needed()
    box = page.locator("canvas.brush").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down(button=button)
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up(button=button)


def mask_of(body: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(body["mask"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def newest_body(page: Page, sent: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw, and return what was sent."""
    draw_and_wait(page)
    return sent[-1]


def test_a_picture_is_changed(page: Page, demo_server: Running) -> None:
    sent = jobs_sent(page)
    choose(page, png())
    expect(page.locator("#fold-picture .board img")).to_be_visible()
    page.locator("[name=strength]").fill("0.5")
    body = newest_body(page, sent)
    assert body["strength"] == 0.5
    assert body["image"].startswith("data:image/png;base64,")
    page.locator("#picture-remove").click()
    expect(page.locator("#picture-choose")).to_be_visible()
    assert "image" not in newest_body(page, sent)


def test_outside_of_the_painted_region_pixels_stay(page: Page, demo_server: Running) -> None:
    sent = jobs_sent(page)
    choose(page, png())
    turn_to(page, "region")
    paint(page, (0.75, 0.2), (0.75, 0.8))
    id = draw_and_wait(page)
    mask = mask_of(sent[-1])
    assert mask.shape == (64, 64)
    assert mask[32, 48] == 255
    assert mask[:, :32].max() == 0
    drawn = pixels(demo_server, id)
    assert (drawn[:, :24] == BLUE).all()
    assert (drawn[:, 40:] != BLUE).any()


def test_strokes_are_undone_erased_and_inverted(page: Page) -> None:
    sent = jobs_sent(page)
    choose(page, png())
    turn_to(page, "region")
    paint(page, (0.25, 0.5), (0.26, 0.5))
    paint(page, (0.75, 0.5), (0.76, 0.5))
    page.keyboard.press("Control+z")
    mask = mask_of(newest_body(page, sent))
    assert (mask[32, 16], mask[32, 48]) == (255, 0)
    page.locator("#brush-redo").click()
    mask = mask_of(newest_body(page, sent))
    assert (mask[32, 16], mask[32, 48]) == (255, 255)
    paint(page, (0.25, 0.5), (0.26, 0.5), button="right")
    page.locator("#brush-invert").click()
    mask = mask_of(newest_body(page, sent))
    assert (mask[32, 16], mask[32, 48], mask[2, 2]) == (255, 0, 255)
    page.locator("#brush-clear").click()
    assert "mask" not in newest_body(page, sent)
    page.locator("#brush-whole").click()
    assert mask_of(newest_body(page, sent)).min() == 255


def test_keys_change_the_brush(page: Page) -> None:
    choose(page, png())
    turn_to(page, "region")
    page.locator("canvas.brush").focus()
    size = page.locator("#fold-picture .slider").filter(has_text="Brush").locator(".value")
    before = int(size.text_content() or 0)
    page.keyboard.press("]")
    assert int(size.text_content() or 0) > before
    page.keyboard.press("e")
    expect(page.locator("#brush-erase")).to_have_attribute("aria-pressed", "true")


def test_a_large_picture_is_made_smaller_before_it_is_sent(page: Page) -> None:
    choose(page, png(3000, 1500))
    size = page.locator("#fold-picture .note").filter(has_text="2048 × 1024")
    expect(size).to_be_visible()


def test_what_is_no_picture_is_told(page: Page) -> None:
    choose(page, b"hello", "text/plain")
    expect(page.locator(".toast")).to_be_visible()
    expect(page.locator("#picture-choose")).to_be_visible()


def test_a_picture_is_widened(page: Page, demo_server: Running) -> None:
    sent = jobs_sent(page)
    choose(page, png())
    turn_to(page, "widen")
    handle = page.locator(".handle.right")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(handle).to_have_attribute("aria-valuenow", "32")
    page.locator("#fold-picture .note").filter(has_text="96 × 64").wait_for()
    box = page.locator(".handle.bottom").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 400, steps=5)
    page.mouse.up()
    assert int(page.locator(".handle.bottom").get_attribute("aria-valuenow") or 0) > 0
    page.get_by_role("button", name="16:9", exact=True).click()
    id = draw_and_wait(page)
    assert sent[-1]["outpaint"] == [32, 0, 32, 0]
    assert pixels(demo_server, id).shape == (64, 128, 3)


def test_two_pictures_are_compared(page: Page) -> None:
    draw_and_wait(page)
    draw_and_wait(page, "a yellow star on a green background")
    page.locator("#compare-open").click()
    dialog = page.locator("#compare")
    expect(dialog).to_be_visible()
    slider = dialog.locator("input[type=range]")
    expect(slider).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("51")
    expect(dialog.locator("dd").first).to_contain_text("→")
    dialog.locator(".strip button").last.click()
    expect(dialog.locator(".strip button").last).to_have_attribute("aria-current", "true")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_sweep_ends_with_a_sheet(page: Page) -> None:
    sent = jobs_sent(page)
    unfold(page, "sweep")
    page.locator("#sweep-add").click()
    page.locator("#sweep-add").click()
    rows = page.locator(".sweep-row")
    rows.nth(0).locator("select").select_option("seed")
    rows.nth(0).locator("input").fill("1-2")
    rows.nth(1).locator("select").select_option("steps")
    rows.nth(1).locator("input").fill("1, 2")
    expect(page.locator("#sweep-note")).to_contain_text("4")
    draw(page)
    expect(page.locator("#grid .badge")).to_be_visible()  # the sheet
    assert sent[-1]["sweep"] == [
        {"field": "seed", "values": [1, 2]},
        {"field": "steps", "values": [1, 2]},
    ]
    rows.nth(1).locator("input").fill("1, x")
    expect(rows.nth(1).locator("input")).to_have_attribute("aria-invalid", "true")
    page.locator("#fold-sweep .link").click()
    expect(rows).to_have_count(0)


@pytest.fixture(scope="module")
def with_loras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    place = tmp_path_factory.mktemp("loras")
    module = "transformer.layers.0.attention.to_q"
    fitting = pair(module, rows=DEMO_WIDTH, columns=DEMO_WIDTH)
    write(place / "chalk.safetensors", fitting, {"modelspec.trigger_phrase": "chalky"})
    write(place / "other.safetensors", pair(module), {})
    with running(place / "pictures", lora_folder=place) as server:
        yield server


def test_loras(open_page: Callable[..., Page], with_loras: Running, tmp_path: Path) -> None:
    page = open_page(with_loras.url)
    sent = jobs_sent(page)
    unfold(page, "loras")
    expect(page.locator(".lora-list")).to_contain_text("which must be (2, 192)")
    page.get_by_role("button", name="Add chalk").click()
    page.locator(".lora-chosen input[type=range]").fill("0.5")
    page.get_by_role("button", name="chalky").click()
    expect(page.locator("#prompt")).to_have_value("chalky")
    draw_and_wait(page, f"{CIRCLE}, chalky")
    assert sent[-1]["loras"] == [{"name": "chalk", "scale": 0.5}]
    expect(page.locator("#fold-loras summary .value")).to_have_text("chalk 0.50")
    page.get_by_role("button", name="Remove chalk").click()
    expect(page.locator("#fold-loras summary .value")).to_have_text("None")


def test_nothing_is_found_wrong_by_axe(page: Page, findings: Callable[[Page], list[str]]) -> None:
    choose(page, png())
    for mode in ("region", "widen"):
        turn_to(page, mode)
        page.locator("canvas.brush, .outpaint").first.wait_for()
        assert not findings(page)
    unfold(page, "sweep")
    page.locator("#sweep-add").click()
    assert not findings(page)
