"""The native API: jobs, their events, the history, facts about the model."""

import asyncio
from dataclasses import asdict, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from .. import Request as Wanted
from .. import __version__
from .bodies import read_bytes, read_json
from .failures import Refusal
from .orders import MOST_PICTURES, Order
from .pictures import MAX_PIXELS, check_fields
from .replaying import uploaded
from .routing import Row
from .service import Service
from .sse import event_stream

BODY = 64 << 20
"""Bytes of a request that may hold pictures."""
MOST_LISTED = 500
FEATURES = ("image", "mask", "outpaint", "control", "references")
"""Fields of a request that the page asks for by name."""
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


async def _health(service: Service, request: Request) -> Response:
    return JSONResponse({"status": "ok", "version": __version__})


async def _capabilities(service: Service, request: Request) -> Response:
    facts = await service.facts()
    known = {field.name for field in fields(Wanted)}
    features = {name: name in known for name in FEATURES}
    about = {
        **asdict(facts.capabilities),
        "source": facts.name,
        "model_name": facts.name,
        "features": {
            **features,
            "loras": service.settings.lora_folder is not None,
            "sweep": True,
            "enhance": False,
        },
        "limits": {
            "queue": service.settings.queue,
            "count": MOST_PICTURES,
            "body": BODY,
            "pixels": MAX_PIXELS,
        },
        "version": __version__,
        "loaded": service.owner.is_loaded,
    }
    return JSONResponse(about)


async def _loras(service: Service, request: Request) -> Response:
    return JSONResponse({"loras": await service.loras()})


async def _order(request: Request) -> Order:
    body = await read_json(request, BODY)
    order = Order.read(body)
    await asyncio.to_thread(check_fields, order.fields)
    return order


async def _submit(service: Service, request: Request) -> Response:
    job = await service.submit(await _order(request))
    headers = {"Location": f"/api/jobs/{job.id}"}
    return JSONResponse(job.view(), status_code=202, headers=headers)


async def _jobs(service: Service, request: Request) -> Response:
    return JSONResponse({"jobs": [job.view() for job in service.jobs()]})


async def _job(service: Service, request: Request) -> Response:
    return JSONResponse(service.job(request.path_params["id"]).view())


async def _cancel(service: Service, request: Request) -> Response:
    return JSONResponse(service.cancel(request.path_params["id"]).view())


async def _job_events(service: Service, request: Request) -> Response:
    job = service.job(request.path_params["id"])
    return event_stream(service.follow(job, beats=True))


async def _events(service: Service, request: Request) -> Response:
    return event_stream(service.follow_all())


async def _estimate(service: Service, request: Request) -> Response:
    return JSONResponse(await service.estimate(await _order(request)))


async def _history(service: Service, request: Request) -> Response:
    asked = request.query_params
    text = asked.get("limit", "50")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_LISTED:
        raise Refusal(400, f"limit must be 1 to {MOST_LISTED}", "invalid_value", "limit")
    before, words = asked.get("before"), asked.get("q", "")
    images, total = await asyncio.to_thread(service.history.list, before, int(text), words)
    return JSONResponse({"images": images, "total": total})


async def _picture(service: Service, request: Request) -> Response:
    entry = await asyncio.to_thread(service.history.entry, request.path_params["id"])
    return JSONResponse(entry)


async def _remove(service: Service, request: Request) -> Response:
    image: str = request.path_params["id"]
    await asyncio.to_thread(service.history.remove, image)
    service.removed(image)
    return Response(status_code=204)


async def _metadata(service: Service, request: Request) -> Response:
    data = await read_bytes(request, BODY)
    facts = await service.facts()
    return JSONResponse(await asyncio.to_thread(uploaded, data, facts.model, service.shelf))


async def _file(service: Service, request: Request) -> Response:
    image: str = request.path_params["id"]
    path = await asyncio.to_thread(service.history.path_of, image)
    named: dict[str, Any] = {}
    if request.query_params.get("download") == "1":
        name = await asyncio.to_thread(service.history.name_for_download, image)
        named = {"filename": name, "content_disposition_type": "attachment"}
    return FileResponse(path, media_type="image/png", headers=FOREVER, **named)


async def _thumbnail(service: Service, request: Request) -> Response:
    data = await asyncio.to_thread(service.history.thumbnail, request.path_params["id"])
    return Response(data, media_type="image/webp", headers=FOREVER)


ROUTES: tuple[Row, ...] = (
    ("GET", "/health", _health),
    ("GET", "/api/capabilities", _capabilities),
    ("GET", "/api/loras", _loras),
    ("GET", "/api/jobs", _jobs),
    ("POST", "/api/jobs", _submit),
    ("GET", "/api/jobs/{id}", _job),
    ("DELETE", "/api/jobs/{id}", _cancel),
    ("GET", "/api/jobs/{id}/events", _job_events),
    ("GET", "/api/events", _events),
    ("POST", "/api/estimate", _estimate),
    ("GET", "/api/history", _history),
    ("GET", "/api/history/{id}", _picture),
    ("DELETE", "/api/history/{id}", _remove),
    ("POST", "/api/metadata", _metadata),
    ("GET", "/files/{id}.thumb.webp", _thumbnail),
    ("GET", "/files/{id}.png", _file),
)
