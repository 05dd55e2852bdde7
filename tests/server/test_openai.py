"""OpenAI's images API, through its published client, and as other programs call it."""

import base64
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from mlx_zimage import ZImage
from mlx_zimage.server.openai_images import partial_steps

from .conftest import SMALL, Running

PROMPT = SMALL["prompt"]
TINY: Any = {"model": "demo", "prompt": PROMPT, "size": "64x64"}
QUICK = {"steps": 1}


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as opened:
        yield opened


def picture(encoded: str | None) -> Image.Image:
    assert encoded is not None
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def count_jobs(server: Running) -> int:
    return len(server.ask("GET", "/api/jobs").json["jobs"])


def test_a_picture_is_the_librarys(client: openai.OpenAI) -> None:
    answer = client.images.generate(**TINY, extra_body={"seed": 7, "steps": 2})
    assert answer.data is not None
    (data,) = answer.data
    expected = ZImage.load("demo").generate(PROMPT, width=64, height=64, steps=2, seed=7).image
    assert np.array_equal(np.asarray(picture(data.b64_json)), np.asarray(expected))
    extra = data.model_extra or {}
    assert extra["seed"] == 7
    assert extra["request"]["steps"] == 2
    assert data.url is None
    assert (answer.size, answer.output_format) == ("64x64", "png")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_formats_and_numbers(client: openai.OpenAI, format: Any) -> None:
    answer = client.images.generate(**TINY, n=2, output_format=format, extra_body=QUICK)
    assert answer.data is not None
    seeds = [(data.model_extra or {})["seed"] for data in answer.data]
    assert seeds[1] == (seeds[0] + 1) % 2**64
    assert [picture(data.b64_json).format for data in answer.data] == [format.upper()] * 2


def test_compression(client: openai.OpenAI) -> None:
    sizes = []
    for quality in (5, 95):
        answer = client.images.generate(
            **TINY,
            output_format="jpeg",
            output_compression=quality,
            extra_body={**QUICK, "seed": 1},
        )
        assert answer.data is not None
        sizes.append(len(answer.data[0].b64_json or ""))
    assert sizes[0] < sizes[1]


def test_a_url_leads_to_the_file(client: openai.OpenAI, server: Running) -> None:
    answer = client.images.generate(**TINY, response_format="url", extra_body=QUICK)
    assert answer.data is not None
    url = answer.data[0].url or ""
    assert url.startswith(f"{server.url}/files/")
    assert server.ask("GET", url.removeprefix(server.url)).body.startswith(b"\x89PNG")
    assert answer.data[0].b64_json is None


def test_streams_send_parts_and_then_the_picture(client: openai.OpenAI) -> None:
    stream: Any = client.images.generate(
        **TINY, stream=True, partial_images=2, extra_body={"steps": 6, "seed": 3}
    )
    events = [*stream]
    *parts, last = events
    assert last.type == "image_generation.completed"
    assert {part.type for part in parts} <= {"image_generation.partial_image"}
    assert len(parts) <= 2  # fewer, where steps are faster than previews
    assert [part.partial_image_index for part in parts] == sorted(
        {part.partial_image_index for part in parts}
    )
    for event in events:
        assert picture(event.b64_json).size == (64, 64)
        assert event.output_format == "png"
    final = client.images.generate(**TINY, extra_body={"steps": 6, "seed": 3})
    assert final.data is not None
    assert last.b64_json == final.data[0].b64_json or (
        picture(last.b64_json).tobytes() == picture(final.data[0].b64_json).tobytes()
    )


@pytest.mark.parametrize(
    ("count", "steps", "numbers"),
    [(0, 8, []), (1, 8, [4]), (2, 8, [3, 5]), (3, 8, [2, 4, 6]), (3, 2, [1]), (3, 1, [])],
)
def test_parts_are_spread_over_the_steps(count: int, steps: int, numbers: list[int]) -> None:
    assert partial_steps(count, steps) == numbers


def test_edits_change_what_the_mask_leaves_clear(client: openai.OpenAI) -> None:
    image = Image.new("RGB", (64, 64), (34, 85, 204))
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
    answer = client.images.edit(
        image=png(image),
        mask=png(mask),
        prompt=PROMPT,
        extra_body={"steps": 2, "seed": 1},
    )
    assert answer.data is not None
    pixels = np.asarray(picture(answer.data[0].b64_json))
    assert (pixels[:, :24] == (34, 85, 204)).all()  # beside the seam: kept to the bit
    assert (pixels[:, 32:] != (34, 85, 204)).any()
    extra = answer.data[0].model_extra or {}
    assert extra["request"]["steps"] == 2


def test_edits_without_a_mask_and_streamed(client: openai.OpenAI) -> None:
    image = png(Image.new("RGB", (64, 64), "red"))
    whole: dict[str, Any] = {"image": [image], "prompt": PROMPT, "model": "gpt-image-1"}
    answer = client.images.edit(**whole, extra_body={"steps": 2, "strength": 0.5, "seed": 4})
    assert answer.data is not None
    assert picture(answer.data[0].b64_json).size == (64, 64)
    assert (answer.data[0].model_extra or {})["request"]["strength"] == 0.5
    stream: Any = client.images.edit(**whole, stream=True, extra_body={"steps": 2})
    assert [event.type for event in stream][-1] == "image_edit.completed"


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.owned_by, model.object) == ("demo", "mlx-zimage", "model")
    assert abs(model.created - time.time()) < 3600
    for name in ("demo", "gpt-image-1", "dall-e-3"):
        assert client.models.retrieve(name).id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("flux")


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"prompt": ""}, "prompt", "must be a text"),
        ({"prompt": 5}, "prompt", "must be a text"),
        ({"n": 0}, "n", "1 to 10"),
        ({"n": 11}, "n", "1 to 10"),
        ({"n": True}, "n", "1 to 10"),
        ({"size": "100x64"}, "size", "near is 96x64"),
        ({"size": "large"}, "size", "WIDTHxHEIGHT"),
        ({"size": 64}, "size", "WIDTHxHEIGHT"),
        ({"size": "99999x99999"}, "size", "multiples of 16"),
        ({"background": "transparent"}, "background", "no transparency"),
        ({"output_format": "gif"}, "output_format", "png, jpeg, webp"),
        ({"output_compression": 101}, "output_compression", "0 to 100"),
        ({"response_format": "text"}, "response_format", "b64_json or url"),
        ({"partial_images": 4}, "partial_images", "0 to 3"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"steps": 0}, "steps", "steps must be"),
        ({"guidance": "much"}, "guidance", "guidance must be"),
        ({"loras": ["x"]}, "loras", "must be a list"),
    ],
)
def test_what_is_wrong_is_told(
    server: Running, options: dict[str, Any], param: str, message: str
) -> None:
    before = count_jobs(server)
    answer = server.ask("POST", "/v1/images/generations", {**TINY, **QUICK, **options})
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert count_jobs(server) == before


def test_null_is_left_out_and_unknown_fields_are_ignored(server: Running) -> None:
    fields = dict.fromkeys(("n", "size", "quality", "seed", "background", "stream", "user"))
    junk = {"style": "vivid", "moderation": "low", "quality": "hd", "cfg": 7, "nothing": [1]}
    body = {"prompt": PROMPT, **fields, **junk, "size": "64x64", "steps": 1, "model": ""}
    answer = server.ask("POST", "/v1/images/generations", body)
    assert answer.status == 200
    assert len(answer.json["data"]) == 1


def test_another_model_is_not_found(client: openai.OpenAI, serve: Callable[..., Any]) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.images.generate(model="flux", prompt=PROMPT)
    assert refused.value.code == "model_not_found"
    with serve(any_model=True) as own:
        answer = own.ask("POST", "/v1/images/generations", {**TINY, **QUICK, "model": "flux"})
        assert answer.status == 200


def test_edits_that_are_refused(server: Running, client: openai.OpenAI) -> None:
    red, clear = Image.new("RGB", (64, 64), "red"), Image.new("RGBA", (32, 32))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"image": b"no picture"}, "image must be a whole PNG"),
        ({"image": [png(red), png(red)]}, "image must be one picture, not 2"),
        ({"image": png(red), "mask": png(clear)}, "mask must have the image's size, 64x64"),
        ({"image": png(red), "mask": png(red)}, "mask must be a PNG that is transparent"),
        ({"image": png(red)[:60]}, "image"),
    ]
    for options, message in cases:
        with pytest.raises(openai.BadRequestError, match=message):
            client.images.edit(prompt=PROMPT, **options)
    answer = server.ask("POST", "/v1/images/edits", {"prompt": PROMPT, "image": "data:"})
    assert (answer.status, answer.json["error"]["code"]) == (415, "unsupported_media_type")


def test_failures_are_not_tried_again(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each retry of a client would draw the picture again."""
    with serve() as own:

        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(own.server.service.history, "add", fail)
        with openai.OpenAI(base_url=f"{own.url}/v1", api_key="x") as client:
            with pytest.raises(openai.InternalServerError):
                client.images.generate(**TINY, extra_body=QUICK)
            assert count_jobs(own) == 1
            with pytest.raises(openai.APIError, match="unexpected failure"):
                [*client.images.generate(**TINY, stream=True, extra_body=QUICK)]  # type: ignore[call-overload]


@pytest.mark.slow
def test_a_client_that_leaves_cancels_its_job(serve: Callable[..., Any]) -> None:
    with serve() as own:
        for stream in (False, True):
            body = {**TINY, "steps": 1000, "stream": stream}
            connection = own.connect()
            connection.request("POST", "/v1/images/generations", *_sent(body))
            events = own.events("/api/events")
            for event in events:
                if event["type"] == "step":
                    connection.close()
                    break
            job = event["job"]
            assert next(e for e in events if e.get("state") == "cancelled")["id"] == job
            events.close()


@pytest.mark.slow
def test_a_job_that_another_cancels_is_a_conflict(serve: Callable[..., Any]) -> None:
    with serve() as own:
        connection = own.connect()
        connection.request("POST", "/v1/images/generations", *_sent({**TINY, "steps": 1000}))
        event = next(e for e in own.events("/api/events") if e["type"] == "step")
        own.ask("DELETE", f"/api/jobs/{event['job']}")
        answer = connection.getresponse()
        assert answer.status == 409
        assert answer.headers["x-should-retry"] == "false"
        connection.close()


def _sent(body: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    import json

    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def test_open_webui(server: Running) -> None:
    """Replays the requests of Open WebUI's engine `openai`."""
    headers = {"Authorization": "Bearer sk-1234"}
    body = {"model": "demo", "prompt": PROMPT, "n": 1, "size": "64x64", "steps": 1}
    answer = server.ask(
        "POST", "/v1/images/generations", {**body, "response_format": "b64_json"}, headers
    )
    (data,) = answer.json["data"]
    assert "url" not in data  # it would fetch that first
    assert picture(data["b64_json"]).size == (64, 64)


def test_librechat(server: Running) -> None:
    """Replays the requests of LibreChat's image tools, which name OpenAI's model."""
    body = {"model": "gpt-image-1", "prompt": PROMPT, "size": "auto", "background": "auto"}
    more = {"quality": "auto", "output_format": "png", "n": 1, "steps": 1}
    answer = server.ask("POST", "/v1/images/generations", {**body, **more})
    assert picture(answer.json["data"][0]["b64_json"]).size == (128, 128)
