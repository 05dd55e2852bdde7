"""The form: seeds and variations, sizes, settings, memory, and what a server refuses."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from mlx_zimage import size_for_aspect

from ..conftest import Running
from .pages import CIRCLE, draw, draw_and_wait, jobs_sent, unfold, wait_for_picture

pytestmark = pytest.mark.browser


def test_each_drawing_takes_a_new_seed_until_one_is_kept(page: Page) -> None:
    sent = jobs_sent(page)
    unfold(page, "seed")
    draw_and_wait(page)
    seed = page.locator("#seed").input_value()
    page.locator("#seed-keep").click()
    draw_and_wait(page)
    page.locator("#seed-keep").click()
    draw_and_wait(page)
    seeds = [body["seed"] for body in sent]
    assert [str(seed) for seed in seeds[:2]] == [seed, seed]
    assert seeds[2] != seeds[0]


def test_a_seed_is_moved_by_one_thrown_anew_and_may_be_long(page: Page) -> None:
    sent = jobs_sent(page)
    unfold(page, "seed")
    field = page.locator("#seed")
    buttons = page.locator("#fold-seed .seed-row button")
    field.fill("41")
    buttons.nth(1).click()
    expect(field).to_have_value("42")
    buttons.nth(0).click()
    buttons.nth(0).click()
    expect(field).to_have_value("40")
    expect(page.locator("#seed-keep")).to_have_attribute("aria-pressed", "true")
    page.locator("#seed-throw").click()
    expect(field).not_to_have_value("40")
    field.fill(str(2**64 - 1))
    buttons.nth(1).click()
    expect(field).to_have_value(str(2**64 - 1))
    image = draw_and_wait(page)
    assert sent[0]["seed"] == 2**64 - 1
    page.locator("#info").click()
    expect(page.locator("#details")).to_contain_text(str(2**64 - 1))
    assert page.request.get(f"/api/history/{image}").json()["request"]["seed"] == 2**64 - 1


def test_several_pictures_have_the_seeds_that_follow(page: Page) -> None:
    unfold(page, "seed")
    page.locator("#seed").fill("7")
    page.locator("[name=count][value='2']").check()
    expect(page.locator("#draw")).to_contain_text("2")
    draw(page)
    strip = page.locator(".strip button")
    expect(strip).to_have_count(2)
    wait_for_picture(page)
    assert [strip.nth(n).locator("img").get_attribute("alt") for n in (0, 1)] == [
        "Seed 7",
        "Seed 8",
    ]
    strip.nth(0).click()
    expect(strip.nth(0)).to_have_attribute("aria-current", "true")


def test_variations_are_drawn_around_a_picture(page: Page) -> None:
    unfold(page, "seed")
    page.locator("#seed").fill("11")
    draw_and_wait(page)
    sent = jobs_sent(page)
    page.locator("#variations").click()
    expect(page.locator(".strip button")).to_have_count(4)
    wait_for_picture(page)
    body = sent[0]
    assert (body["variation_of"], body["count"], body["prompt"]) == (11, 4, CIRCLE)
    assert 0 < body["variation_strength"] < 1


def test_aspects_are_near_the_models_area_and_can_be_turned(new_page: Page) -> None:
    sent = jobs_sent(new_page)
    unfold(new_page, "size")
    new_page.locator("[name=aspect]").nth(3).check()
    expect(new_page.locator("#size-width")).to_have_value("176")
    expect(new_page.locator("#size-height")).to_have_value("96")
    new_page.locator(".swap").click()
    expect(new_page.locator("#size-height")).to_have_value("176")
    expect(new_page.locator("[name=aspect]").nth(3)).to_be_checked()
    draw_and_wait(new_page)
    assert (sent[0]["width"], sent[0]["height"]) == (96, 176)
    box = new_page.locator(".frame").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(96 / 176, rel=0.01)


def test_aspects_are_the_librarys(page: Page) -> None:
    sizes = page.evaluate(
        """async () => {
        const { sizeFor } = await import("/static/size.js");
        const sides = [[1, 1], [4, 3], [3, 2], [16, 9], [21, 9], [3, 4], [2, 3], [9, 16], [9, 21]];
        return sides.map((aspect) => [aspect.join(":"), sizeFor(aspect, 2 ** 20, 16)]);
        }"""
    )
    for aspect, size in sizes:
        assert (size["width"], size["height"]) == size_for_aspect(aspect), aspect


def test_sides_are_rounded_to_what_the_model_takes(new_page: Page) -> None:
    unfold(new_page, "size")
    for written, taken in (("100", "96"), ("0", "16"), ("99999", "8192"), ("", "128")):
        new_page.locator("#size-width").fill(written)
        new_page.locator("#size-width").press("Tab")
        expect(new_page.locator("#size-width")).to_have_value(taken)


def test_settings_send_only_what_differs_from_the_standard(new_page: Page) -> None:
    sent = jobs_sent(new_page)
    unfold(new_page, "settings")
    assert new_page.locator("#fold-settings [name=steps]").input_value() == "8"
    expect(new_page.locator("#fold-settings [name=guidance]")).to_be_hidden()
    draw_and_wait(new_page)
    assert {*sent[0]} == {"prompt", "seed"}
    new_page.locator("[name=steps]").fill("3")
    new_page.locator("[name=negative_prompt]").fill("blur")
    new_page.locator("[name=nag]").fill("2")
    new_page.locator("[name=sampler]").select_option("res_multistep")
    new_page.locator("[name=schedule]").select_option("beta")
    new_page.locator("[name=shift]").fill("2.5")
    new_page.locator("[name=variety]").fill("0.1")
    new_page.locator("[name=shift]").press("Tab")
    draw_and_wait(new_page)
    assert sent[1].items() >= {
        "steps": 3, "negative_prompt": "blur", "nag": {"scale": 2}, "sampler": "res_multistep",
        "schedule": "beta", "shift": 2.5, "variety": 0.1,
    }.items()  # fmt: skip
    new_page.locator("#fold-settings .link").click()
    draw_and_wait(new_page)
    assert {*sent[2]} == {"prompt", "seed"}


def test_the_form_survives_a_reload(page: Page) -> None:
    unfold(page, "size")
    page.locator("#prompt").fill("a yellow star on a green background")
    page.locator("[name=aspect]").nth(1).check()
    page.reload()
    expect(page.locator("#prompt")).to_have_value("a yellow star on a green background")
    expect(page.locator("#fold-size summary .value")).to_have_text("128 × 96")


def test_memory_is_told_before_drawing(page: Page) -> None:
    expect(page.locator("#memory")).to_contain_text("MB")
    before = page.locator("#memory").text_content()
    unfold(page, "size")
    page.locator("#size-width").fill("512")
    page.locator("#size-width").press("Tab")
    expect(page.locator("#memory")).not_to_have_text(before or "")


def test_what_does_not_fit_is_refused_with_a_size_that_does(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    def estimate(route: Route) -> None:
        fits = "width" in route.request.post_data_json
        answer = {"peak": 40_000_000_000, "device": 16_000_000_000, "fits": fits, "message": "no",
                  "largest": {"width": 96, "height": 96}}  # fmt: skip
        route.fulfill(json=answer)

    page = open_page(demo_server.url, quick=False, routes={"**/api/estimate": estimate})
    memory = page.locator("#memory")
    expect(memory).to_contain_text("40 GB")
    memory.locator("button").click()
    expect(page.locator("#fold-size summary .value")).to_have_text("96 × 96")
    expect(memory).not_to_have_class("error memory")


def test_a_refusal_is_shown_and_its_field_marked(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    def refuse(route: Route) -> None:
        if route.request.method != "POST":
            route.fallback()
            return
        error = {"message": "shift must be <b>less</b>", "type": "x", "param": "shift", "code": "y"}
        route.fulfill(status=400, json={"error": error})

    page = open_page(demo_server.url, routes={"**/api/jobs": refuse}, may_say="400")
    draw(page)
    expect(page.locator("#problem")).to_have_text("shift must be <b>less</b>")
    expect(page.locator("[name=shift]")).to_have_attribute("aria-invalid", "true")


def test_control_and_references_are_there_when_the_model_has_them(
    open_page: Callable[..., Page], demo_server: Running
) -> None:
    kinds = ("control", "references")

    def features(route: Route) -> None:
        answer = route.fetch().json()
        answer["features"] |= dict.fromkeys(kinds, True)
        route.fulfill(json=answer)

    def refuse(route: Route) -> None:
        sent.append(route.request.post_data_json)
        error = {"message": f"no {len(sent)}", "param": None, "code": None}
        route.fulfill(status=400, json={"error": error})

    sent: list[dict[str, Any]] = []
    routes = {"**/api/capabilities": features, "**/api/jobs": refuse}
    page = open_page(demo_server.url, routes=routes, may_say="400")
    png = page.screenshot(clip={"x": 0, "y": 0, "width": 8, "height": 8})
    for kind in kinds:
        unfold(page, kind)
        fold = page.locator(f"#fold-{kind}")
        picture = {"name": "a.png", "mimeType": "image/png", "buffer": png}
        fold.locator("input[type=file]").set_input_files(picture)
        expect(fold.locator("li img")).to_be_visible()
    draw(page)
    expect(page.locator("#problem")).to_have_text("no 1")
    assert sent[0]["control"]["scale"] == 1
    for image in (sent[0]["control"]["image"], *sent[0]["references"]):
        assert image.startswith("data:image/png;base64,")
    for kind in kinds:
        page.locator(f"#fold-{kind} li button").click()
        expect(page.locator(f"#fold-{kind} li")).to_have_count(0)
    draw(page)
    expect(page.locator("#problem")).to_have_text("no 2")
    assert not {*kinds} & {*sent[1]}


def test_control_and_references_are_not_there_when_the_model_has_them_not(page: Page) -> None:
    expect(page.locator("#fold-settings")).to_be_visible()
    for kind in ("control", "references"):
        expect(page.locator(f"#fold-{kind}")).to_be_hidden()
