"""OpenAI's images API, as its clients speak it: generations, edits, models."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .bodies import read_form, read_json
from .edits import edited
from .encoding import to_base64
from .failures import Refusal
from .feed import BEAT, Happening
from .jobs import Job
from .native import BODY
from .openai_fields import Asked, check_model, read_fields, read_form_text
from .routing import Row
from .service import Facts, Service
from .sse import ALIVE, text_stream
from .waiting import check_drawn, drawn

OWNER = "mlx-zimage"
GENERATION, EDIT = "image_generation", "image_edit"
"""The beginnings of the names of a stream's events."""
QUALITY, BACKGROUND = "high", "opaque"


async def _generations(service: Service, request: Request) -> Response:
    body = await read_json(request, BODY)
    facts = await service.facts()
    asked = read_fields(body, facts, any_model=service.settings.any_model)
    return await _answer(service, request, asked, GENERATION)


async def _edits(service: Service, request: Request) -> Response:
    facts = await service.facts()
    async with read_form(request, BODY) as form:
        items = form.multi_items()
        texts = [(name, value) for name, value in items if isinstance(value, str)]
        body = {name: read_form_text(name, text) for name, text in texts}
        files = [(n, await v.read()) for n, v in items if isinstance(v, UploadFile)]
    asked = read_fields(body, facts, any_model=service.settings.any_model)
    order = await asyncio.to_thread(edited, asked.order, files)
    changed = Asked(order, asked.encoding, asked.as_url, asked.stream, asked.partial_images)
    return await _answer(service, request, changed, EDIT)


async def _answer(service: Service, request: Request, asked: Asked, kind: str) -> Response:
    if asked.stream:
        job = await service.submit(asked.order)
        return text_stream(_stream(service, job, asked, kind))
    job = await drawn(service, asked.order, request)
    data = [await _data(service, request, asked, image) for image in job.images]
    first = job.images[0]
    about = _about(asked, (first["width"], first["height"]))
    return JSONResponse({"created": int(time.time()), "data": data, **about})


async def _data(
    service: Service, request: Request, asked: Asked, image: dict[str, Any]
) -> dict[str, Any]:
    """Return a picture as the client wants it; what is ours stands beside it."""
    own = {"seed": image["seed"], "request": image["request"]}
    if asked.as_url:
        return {"url": f"{str(request.base_url).rstrip('/')}{image['url']}", **own}
    return {"b64_json": await _base64(service, asked, image["id"]), **own}


async def _base64(service: Service, asked: Asked, image: str) -> str:
    def encode() -> str:
        return to_base64(asked.encoding.from_png(service.history.bytes_of(image)))

    return await asyncio.to_thread(encode)


async def _stream(service: Service, job: Job, asked: Asked, kind: str) -> AsyncIterator[str]:
    """Yield a job as OpenAI's events; one whose client leaves is cancelled."""
    shown = asked.partial_images > 0
    try:
        async with aclosing(service.follow(job, beats=True, previews=shown)) as happenings:
            async for happening in happenings:
                if happening.type == BEAT:
                    yield ALIVE
                    continue
                data = await _event(service, job, asked, kind, happening)
                if data is not None:
                    yield f"event: {data['type']}\ndata: {json.dumps(data)}\n\n"
        check_drawn(job)
    except Refusal as refusal:
        data = {"type": "error", **refusal.body}
        yield f"event: error\ndata: {json.dumps(data)}\n\n"
    finally:
        if not job.has_ended:
            service.cancel(job.id)


async def _event(
    service: Service, job: Job, asked: Asked, kind: str, happening: Happening
) -> dict[str, Any] | None:
    """Return the event for a happening, where there is one."""
    data = happening.data
    if happening.type == "result" and data["image"]["kind"] == "picture":
        image = data["image"]
        size = image["width"], image["height"]
        own = {"index": image["index"], "seed": image["seed"]}
        picture = await _base64(service, asked, image["id"])
        return {"type": f"{kind}.completed", **_picture(asked, picture, size), **own}
    numbers = partial_steps(asked.partial_images, data.get("total", 0))
    if happening.type == "step" and job.preview is not None and data["number"] in numbers:
        request = job.work.plan.requests[0]
        size = request.width or 0, request.height or 0
        webp = await asyncio.to_thread(asked.encoding.from_preview, job.preview, size)
        own = {"partial_image_index": numbers.index(data["number"]), "index": data["picture"]}
        return {"type": f"{kind}.partial_image", **_picture(asked, to_base64(webp), size), **own}
    return None


def partial_steps(count: int, steps: int) -> list[int]:
    """Return the steps after which a partial picture is sent, spread over all but the last."""
    numbers = {round((n + 1) * steps / (count + 1)) for n in range(count)}
    return sorted(number for number in numbers if 1 <= number < steps)


def _picture(asked: Asked, picture: str, size: tuple[int, int]) -> dict[str, Any]:
    return {"b64_json": picture, "created_at": int(time.time()), **_about(asked, size)}


def _about(asked: Asked, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "size": f"{size[0]}x{size[1]}",
        "quality": QUALITY,
        "background": BACKGROUND,
        "output_format": asked.encoding.format,
    }


async def _models(service: Service, request: Request) -> Response:
    facts = await service.facts()
    return JSONResponse({"object": "list", "data": [_about_model(facts)]})


async def _model(service: Service, request: Request) -> Response:
    facts = await service.facts()
    check_model(request.path_params["id"], facts, any_model=service.settings.any_model)
    return JSONResponse(_about_model(facts))


def _about_model(facts: Facts) -> dict[str, Any]:
    return {"id": facts.name, "object": "model", "created": facts.opened, "owned_by": OWNER}


ROUTES: tuple[Row, ...] = (
    ("POST", "/v1/images/generations", _generations),
    ("POST", "/v1/images/edits", _edits),
    ("GET", "/v1/models", _models),
    ("GET", "/v1/models/{id:path}", _model),
)
