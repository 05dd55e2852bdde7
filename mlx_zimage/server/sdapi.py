"""AUTOMATIC1111's API, as Open WebUI and SillyTavern use it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .bodies import read_json
from .encoding import Encoding, to_base64
from .jobs import Job
from .native import BODY
from .routing import Row
from .sdapi_fields import AUTOMATIC, SAMPLERS, SCHEDULES, read_fields
from .service import Facts, Service
from .waiting import drawn

PREFIX = "/sdapi/v1"
SMALL_BODY = 256 << 10
Handler = Callable[[Service, Request], Awaitable[Any]]


async def _txt2img(service: Service, request: Request) -> Any:
    return await _draw(service, request, with_image=False)


async def _img2img(service: Service, request: Request) -> Any:
    return await _draw(service, request, with_image=True)


async def _draw(service: Service, request: Request, *, with_image: bool) -> dict[str, Any]:
    body = await read_json(request, BODY)
    facts, settings = await service.facts(), service.settings

    def read() -> Any:
        return read_fields(
            body,
            facts,
            honour=settings.sdapi_honour,
            has_loras=settings.lora_folder is not None,
            with_image=with_image,
        )

    order, notes = await asyncio.to_thread(read)  # pictures may be large
    job = await drawn(service, order, request)
    pictures = [
        to_base64(await asyncio.to_thread(service.history.bytes_of, image["id"]))
        for image in job.images
    ]
    echoed = {name: value for name, value in body.items() if name not in ("init_images", "mask")}
    info = json.dumps(_info(job, facts, notes), ensure_ascii=False)
    return {"images": pictures, "parameters": echoed, "info": info}


def _info(job: Job, facts: Facts, notes: list[str]) -> dict[str, Any]:
    """Return what the pictures were drawn with, in the words of that API."""
    request, images = job.work.plan.requests[0], job.images
    prompts = [image["prompt"] for image in images]
    seeds = [image["seed"] for image in images]
    names = {own: shown for shown, own in SAMPLERS.items()}
    sampler = names.get(request.sampler or "", request.sampler)
    infotexts = [
        f"{prompt}\nSteps: {request.steps}, Sampler: {sampler}, Seed: {seed}, "
        f"Size: {request.width}x{request.height}, Model: {facts.name}"
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return {
        "prompt": prompts[0],
        "all_prompts": prompts,
        "negative_prompt": request.negative_prompt or "",
        "seed": seeds[0],
        "all_seeds": seeds,
        "width": request.width,
        "height": request.height,
        "sampler_name": sampler,
        "steps": request.steps,
        "cfg_scale": (request.guidance or 0) + 1,
        "batch_size": len(images),
        "sd_model_name": facts.name,
        "infotexts": infotexts,
        "notes": notes,
    }


async def _progress(service: Service, request: Request) -> dict[str, Any]:
    job = _running(service)
    waiting = sum(not known.has_ended for known in service.jobs())
    state = {"skipped": False, "interrupted": False, "stopping_generation": False}
    about = {**state, "job": "", "job_count": waiting, "job_no": 0}
    if job is None:
        steps = {"sampling_step": 0, "sampling_steps": 0}
        return {**_done(0.0, 0.0), "state": {**about, **steps}, "current_image": None}
    service.want_preview(job)
    at, count = job.progress, len(job.work.plan.requests)
    share = (at.picture + (at.step / at.steps if at.steps else 0)) / count
    about |= {"job": job.id, "job_no": at.picture, "interrupted": job.work.cancel.is_set()}
    steps = {"sampling_step": at.step, "sampling_steps": at.steps}
    wanted = request.query_params.get("skip_current_image", "false").lower() != "true"
    image = await asyncio.to_thread(_preview, job.preview) if wanted else None
    left = at.seconds_left or 0.0
    return {**_done(min(share, 1.0), left), "state": {**about, **steps}, "current_image": image}


def _done(share: float, left: float) -> dict[str, Any]:
    return {"progress": share, "eta_relative": left, "textinfo": None}


def _preview(webp: bytes | None) -> str | None:
    """Return a preview as a PNG in base64."""
    return None if webp is None else to_base64(Encoding().of_preview(webp))


def _running(service: Service) -> Job | None:
    return next((job for job in service.jobs() if job.state == "running"), None)


async def _interrupt(service: Service, request: Request) -> dict[str, Any]:
    job = _running(service)
    if job is not None:
        service.cancel(job.id)
    return {}


async def _options(service: Service, request: Request) -> dict[str, Any]:
    facts = await service.facts()
    return {"samples_format": "png", "sd_model_checkpoint": facts.name}


async def _set_options(service: Service, request: Request) -> None:
    """Take options as they are read: the model stays, whichever is named."""
    await read_json(request, SMALL_BODY)


async def _models(service: Service, request: Request) -> list[dict[str, Any]]:
    facts = await service.facts()
    name = {"title": facts.name, "model_name": facts.name, "filename": facts.name}
    return [{**name, "hash": None, "sha256": None, "config": None}]


async def _samplers(service: Service, request: Request) -> list[dict[str, Any]]:
    known = (await service.facts()).capabilities.samplers
    return [
        {"name": shown, "aliases": [own], "options": {}}
        for shown, own in SAMPLERS.items()
        if own in known
    ]


async def _schedulers(service: Service, request: Request) -> list[dict[str, Any]]:
    known = {AUTOMATIC: "automatic", **SCHEDULES}
    return [{"name": own, "label": shown} for shown, own in known.items()]


async def _loras(service: Service, request: Request) -> list[dict[str, Any]]:
    usable = [lora for lora in await service.loras() if "error" not in lora]
    return [{"name": x["name"], "alias": x["name"], "path": "", "metadata": {}} for x in usable]


async def _none(service: Service, request: Request) -> list[Any]:
    return []


async def _flags(service: Service, request: Request) -> dict[str, Any]:
    return {}


def _row(method: str, path: str, handler: Handler) -> Row:
    async def handle(service: Service, request: Request) -> Response:
        return JSONResponse(await handler(service, request))

    return method, f"{PREFIX}/{path}", handle


ROUTES: tuple[Row, ...] = (
    _row("POST", "txt2img", _txt2img),
    _row("POST", "img2img", _img2img),
    _row("GET", "progress", _progress),
    _row("POST", "interrupt", _interrupt),
    _row("POST", "skip", _interrupt),
    _row("GET", "options", _options),
    _row("POST", "options", _set_options),
    _row("GET", "sd-models", _models),
    _row("GET", "samplers", _samplers),
    _row("GET", "schedulers", _schedulers),
    _row("GET", "loras", _loras),
    _row("GET", "upscalers", _none),
    _row("GET", "latent-upscale-modes", _none),
    _row("GET", "sd-vae", _none),
    _row("GET", "cmd-flags", _flags),
)
