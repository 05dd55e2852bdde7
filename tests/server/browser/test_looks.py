"""The page around the drawing: languages, appearance, widths, accessibility, a lost server."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from ..conftest import Running, running
from .pages import CIRCLE, be_slow, draw, draw_and_wait, wait_for_picture

pytestmark = pytest.mark.browser
ALL_OPEN = "document.querySelectorAll('details:not([hidden])').forEach((fold) => fold.open = true)"
Findings = Callable[[Page], list[str]]


def test_it_speaks_the_browsers_language_and_the_other_one(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    page = open_page(demo_server.url, locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    expect(page.locator("#draw")).to_contain_text("绘制")
    page.locator("#prompt").fill(CIRCLE)
    page.locator("#language").click()
    expect(page.locator("#draw")).to_contain_text("Draw")
    expect(page.locator("#language")).to_be_focused()
    expect(page.locator("#prompt")).to_have_value(CIRCLE)
    page.reload()
    expect(page.locator("#draw")).to_contain_text("Draw")


def test_no_text_is_missing(page: Page) -> None:
    texts = json.loads(page.request.get("/static/i18n/en.json").text())
    other = json.loads(page.request.get("/static/i18n/zh.json").text())
    assert {area: [*names] for area, names in texts.items()} == {
        area: [*names] for area, names in other.items()
    }
    draw_and_wait(page)
    page.evaluate(ALL_OPEN)
    page.locator("#info").click()
    shown = page.locator("body").inner_text()
    labels = page.evaluate("[...document.querySelectorAll('[aria-label]')].map((e) => e.ariaLabel)")
    keys = re.compile(rf"\b({'|'.join(texts)})\.[a-z_]+\b")
    assert not keys.findall("\n".join([shown, *labels]))


def test_the_appearance_is_kept(page: Page) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    assert page.evaluate(ground) == light
    page.locator("#theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.locator("#theme").click()
    assert page.evaluate(ground) == light


def test_nothing_runs_out_of_the_page_and_fingers_find_the_buttons(page: Page) -> None:
    long = "averylongwordwithoutanyspace" * 12
    draw_and_wait(page, long)
    page.locator("#info").click()
    page.evaluate(ALL_OPEN)
    be_slow(page)
    for _ in range(2):
        draw(page, long)
    page.locator("#queue li").wait_for()
    for width in (320, 375, 700, 900, 1100, 2560):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 375, "height": 800})
    small = page.evaluate(
        """[...document.querySelectorAll('button, summary, select, input, a.icon-button')]
        .filter((e) => e.checkVisibility() && !e.closest('.segments, .hidden-text, .link, .check'))
        .map((e) => [e.id || e.className || e.name, e.getBoundingClientRect().height])
        .filter(([, height]) => height > 1 && height < 40)"""
    )
    assert not small
    page.locator("#queue li button").last.click()
    page.locator("#cancel").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    open_page: Callable[..., Page], demo_server: Running, findings: Findings, scheme: str
) -> None:
    page = open_page(demo_server.url, color_scheme=scheme, reduced_motion="reduce")
    draw_and_wait(page)
    page.evaluate(ALL_OPEN)
    page.locator("#info").click()
    assert not findings(page)
    page.locator("#help-open").click()
    assert not findings(page)
    page.keyboard.press("Escape")
    be_slow(page)
    draw(page)
    page.locator(".frame[data-state=preview]").wait_for()
    draw(page, "a yellow star on a green background")
    page.locator("#queue li").wait_for()
    assert not findings(page)
    page.locator("#queue li button").last.click()
    page.locator("#cancel").click()
    page.locator("#use").click()
    assert not findings(page)


def test_axe_finds_nothing_on_a_phone_in_chinese(
    open_page: Callable[..., Page], demo_server: Running, findings: Findings
) -> None:
    page = open_page(demo_server.url, viewport={"width": 375, "height": 812}, locale="zh-CN")
    draw_and_wait(page)
    page.locator("#delete").click()
    page.locator(".toast button").wait_for()
    assert not findings(page)


def test_motion_is_left_out_for_those_who_want_none(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    page = open_page(demo_server.url, reduced_motion="reduce")
    draw_and_wait(page)
    moving = """[...document.querySelectorAll('*')].filter((e) => {
      const style = getComputedStyle(e);
      return parseFloat(style.transitionDuration) > 0 || parseFloat(style.animationDuration) > 0;
    }).map((e) => e.className)"""
    assert page.evaluate(moving) == []


def test_the_keys_are_listed(page: Page) -> None:
    page.locator("#draw").press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    expect(page.locator("#draw")).to_be_focused()
    page.locator("#prompt").press_sequentially("?i/")
    expect(page.locator("#prompt")).to_have_value("?i/")
    expect(page.locator("#help")).to_be_hidden()


def test_it_recovers_when_the_server_comes_back(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    with running(tmp_path) as server:
        page = open_page(server.url, may_say="ERR_")
        draw_and_wait(page)
        port = server.port
    line = page.locator("#connection")
    expect(line).to_be_visible()
    expect(line).to_have_attribute("data-state", "down")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#problem")).not_to_be_empty()
    with running(tmp_path, port=port):
        expect(line).to_be_hidden()
        page.keyboard.press("Control+Enter")
        expect(page.locator("#grid li")).to_have_count(2)
        wait_for_picture(page)
        page.close()


def test_a_server_that_wants_its_token_says_how_to_open_it(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    def refuse(route: Route) -> None:
        error = {"message": "no", "code": "invalid_api_key", "param": None}
        route.fulfill(status=401, json={"error": error})

    page = open_page(
        demo_server.url, ready=False, routes={"**/api/capabilities": refuse}, may_say="401"
    )
    expect(page.locator("#notice")).to_contain_text("the token is part of it")
    expect(page.locator("#prompt")).to_be_hidden()
