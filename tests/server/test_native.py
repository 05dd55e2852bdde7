"""The native API, over HTTP."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mlx_zimage
from mlx_zimage import ZImage

from .conftest import SMALL, Running


def test_a_picture_is_the_librarys(server: Running) -> None:
    job = server.draw(seed=7)
    assert job["state"] == "done"
    (image,) = job["images"]
    file = server.ask("GET", image["url"])
    assert (file.status, file.headers["content-type"]) == (200, "image/png")
    drawn = ZImage.load("demo").generate(**SMALL, seed=7)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file.body))), np.asarray(drawn.image))


def test_events_bear_the_command_lines_names(server: Running) -> None:
    answer = server.ask("POST", "/api/jobs", {**SMALL, "steps": 2, "seed": 1, "count": 2})
    job = answer.json
    assert answer.headers["location"] == f"/api/jobs/{job['id']}"
    events = [*server.events(job["events"])]
    assert events[0]["type"] == "state"  # a snapshot, wherever it is
    assert all(event["job"] == job["id"] for event in events)
    names = {"started", "finished", "step", "result", "state"}
    assert {event["type"] for event in events} <= names
    last = events[-1]
    assert (last["type"], last["state"], last["position"]) == ("state", "done", None)
    assert [image["seed"] for image in last["images"]] == [1, 2]
    assert [image["index"] for image in last["images"]] == [0, 1]
    again = [*server.events(job["events"])]  # after the end: the state alone
    assert [event["type"] for event in again] == ["state"]
    assert again[0]["images"] == last["images"]


def test_followers_see_previews(server: Running) -> None:
    with_previews = server.ask("POST", "/api/jobs", {**SMALL, "steps": 4, "seed": 1})
    events = [*server.events(with_previews.json["events"])]
    previews = [event["preview"] for event in events if "preview" in event]
    assert previews
    assert all(text.startswith("data:image/webp;base64,") for text in previews)


def test_all_events_begin_with_the_jobs(server: Running) -> None:
    job = server.draw(seed=3)
    events = server.events("/api/events")
    first = next(events)
    assert first["type"] == "snapshot"
    assert job["id"] in [known["id"] for known in first["jobs"]]
    made = server.ask("POST", "/api/jobs", {**SMALL, "seed": 4}).json
    for event in events:
        if event.get("job") == made["id"] and event.get("state") == "done":
            break
    events.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        (
            {"prompt": None},
            "a request needs either a prompt or prompt_embeds, and got neither",
            None,
        ),
        ({"widht": 64}, "a request has no field 'widht'; did you mean width?", None),
        ({"width": 60}, "width must be a multiple of 16", "width"),
        ({"steps": "four"}, "steps must be", "steps"),
        ({"guidance": -1}, "guidance must be", "guidance"),
        ({"count": 0}, "count must be 1 to 100 pictures", "count"),
        ({"count": 1.5}, "count must be", "count"),
        ({"count": True}, "count must be", "count"),
        ({"loras": "style"}, "loras must be a list", "loras"),
        ({"loras": [{"scale": 1}]}, "loras must be a list of", "loras"),
        ({"loras": [{"name": "/etc/passwd"}]}, "the server has no LoRA folder", "loras"),
        ({"sweep": [{"field": "steps"}]}, "sweep must be a list of", "sweep"),
        ({"sweep": [{"field": "steps", "values": [1]}], "count": 2}, "exclude each other", "count"),
        ({"sweep": [{"field": "seed", "values": [*range(101)]}]}, "at most 100 pictures", "count"),
    ],
)
def test_what_is_wrong_is_told(
    server: Running, change: dict[str, Any], message: str, param: str | None
) -> None:
    answer = server.ask("POST", "/api/jobs", {**SMALL, **change})
    error = answer.json["error"]
    assert answer.status == 400
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_unknown_paths_and_methods(server: Running) -> None:
    for method, path, status in (
        ("GET", "/api/nothing", 404),
        ("GET", "/api/jobs/0123456789abcdef", 404),
        ("DELETE", "/api/jobs/0123456789abcdef", 404),
        ("GET", "/api/jobs/0123456789abcdef/events", 404),
        ("PUT", "/api/jobs", 405),
    ):
        answer = server.ask(method, path)
        assert answer.status == status, path
        assert answer.json["error"]["message"]


def test_capabilities(server: Running) -> None:
    about = server.ask("GET", "/api/capabilities").json
    model = ZImage.load("demo").capabilities()
    assert about["model_name"] == about["source"] == "demo"  # no path of this machine
    assert (about["width"], about["side_multiple"]) == (model.width, model.side_multiple)
    assert about["samplers"] == [*model.samplers]
    assert about["version"] == mlx_zimage.__version__
    assert about["features"]["mask"]
    assert not about["features"]["loras"]
    assert about["vocabulary"]["example"]


def test_health(server: Running) -> None:
    answer = server.ask("GET", "/health")
    assert answer.json == {"status": "ok", "version": mlx_zimage.__version__}


def test_estimates(server: Running) -> None:
    about = server.ask("POST", "/api/estimate", SMALL).json
    expected = ZImage.load("demo").estimate(**SMALL)
    assert about["fits"]
    assert about["denoise"] == expected.denoise
    large = server.ask("POST", "/api/estimate", {**SMALL, "width": 8192, "height": 8192}).json
    assert large["peak"] > about["peak"]
    if not large["fits"]:
        assert "does not fit" in large["message"] or large["message"]
        assert 64 <= large["largest"]["width"] < 8192


def test_a_sweep_ends_with_a_sheet(server: Running) -> None:
    sweep = [{"field": "seed", "values": [1, 2]}, {"field": "steps", "values": [1, 2]}]
    job = server.draw(sweep=sweep, steps=None)
    assert job["state"] == "done"
    assert job["sweep"] == {"rows": ["seed 1", "seed 2"], "columns": ["steps 1", "steps 2"]}
    assert [(i["seed"], i["request"]["steps"]) for i in job["images"]] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    sheet = Image.open(io.BytesIO(server.ask("GET", job["sheet"]["url"]).body))
    assert sheet.width > 2 * 64
    assert job["sheet"]["kind"] == "sheet"


def test_a_sweep_without_a_seed_has_one_for_all(server: Running) -> None:
    job = server.draw(sweep=[{"field": "prompt", "values": ["a {red|blue} star"]}], prompt=None)
    assert [image["prompt"] for image in job["images"]] == ["a red star", "a blue star"]
    assert len({image["seed"] for image in job["images"]}) == 1


def test_a_hint_tells_what_the_demo_draws(server: Running) -> None:
    assert "this model draws shapes" in server.draw(prompt="a fox in the snow")["hint"]
    assert server.draw()["hint"] is None


def test_jobs_wait_and_are_cancelled(serve: Callable[..., Any]) -> None:
    with serve(queue=2) as own:
        long = {**SMALL, "steps": 1000}
        first = own.ask("POST", "/api/jobs", long).json
        events = own.events(first["events"])
        next(event for event in events if event["type"] == "step")
        second, third = (own.ask("POST", "/api/jobs", SMALL).json for _ in range(2))
        assert (second["position"], third["position"]) == (1, 2)
        full = own.ask("POST", "/api/jobs", SMALL)
        assert (full.status, full.json["error"]["code"]) == (429, "queue_full")
        assert full.headers["retry-after"]
        gone = own.ask("DELETE", f"/api/jobs/{second['id']}").json
        assert gone["state"] == "cancelled"  # at once, while another one runs
        assert own.ask("GET", f"/api/jobs/{third['id']}").json["position"] == 1
        own.ask("DELETE", f"/api/jobs/{first['id']}")
        assert list(events)[-1]["state"] == "cancelled"
        again = own.ask("DELETE", f"/api/jobs/{first['id']}")
        assert (again.status, again.json["state"]) == (200, "cancelled")
        *_, last = own.events(third["events"])
        assert last["state"] == "done"
