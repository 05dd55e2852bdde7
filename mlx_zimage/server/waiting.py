"""Requests that wait for their pictures; one whose client leaves cancels its job."""

import asyncio

from starlette.requests import Request

from .failures import Refusal
from .jobs import Job
from .orders import Order
from .service import Service


async def drawn(service: Service, order: Order, request: Request) -> Job:
    """Draw an order and return its job; what kept it from being drawn is raised."""
    job = await service.submit(order)
    finished = asyncio.ensure_future(service.finished(job))
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([finished, left], return_when=asyncio.FIRST_COMPLETED)
    finally:
        finished.cancel()
        left.cancel()
        if not job.has_ended:
            service.cancel(job.id)
    check_drawn(job)
    return job


def check_drawn(job: Job) -> None:
    """Raise what kept a job from being drawn."""
    if job.state != "done":
        raise job.error or Refusal(503, "the server is stopping", "stopping")


async def _left(request: Request) -> None:
    """Wait until the client is gone. The body must have been read."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
