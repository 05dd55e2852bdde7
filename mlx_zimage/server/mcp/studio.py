"""Studios: where the pictures of MCP's tools are drawn."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Protocol

from ..orders import Order
from ..pictures import check_fields
from ..service import Service

MODEL = ("width", "height", "steps", "guidance", "side_multiple", "max_prompt_tokens")


def about_model(
    name: str, capabilities: Mapping[str, Any], loras: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what is told of a model, of its capabilities as the native API has them."""
    vocabulary = capabilities["vocabulary"]
    return {
        "name": name,
        **{field: capabilities[field] for field in MODEL},
        "draws": "anything" if vocabulary is None else vocabulary["draws"],
        "loras": [lora["name"] for lora in loras if "error" not in lora],
    }


class Studio(Protocol):
    """A model that draws orders in the form of the native API."""

    def draw(self, order: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what happens, as the native API tells it; closing it cancels the job."""

    async def cancel(self, job: str) -> None:
        """Cancel a job."""

    async def model(self) -> dict[str, Any]:
        """Return the name of the model, its defaults and limits."""

    async def picture(self, id: str) -> bytes:
        """Return a picture's PNG file."""

    async def address(self, id: str) -> str:
        """Return the path or the address of a picture's file."""


class LocalStudio:
    """The service of this process."""

    def __init__(self, service: Service):
        self._service = service

    async def draw(self, order: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        read = Order.read(order)
        await asyncio.to_thread(check_fields, read.fields)
        job = await self._service.submit(read)
        try:
            async with aclosing(self._service.follow(job, previews=False)) as happenings:
                async for happening in happenings:
                    yield happening.data
        finally:
            if not job.has_ended:
                self._service.cancel(job.id)

    async def cancel(self, job: str) -> None:
        self._service.cancel(job)

    async def model(self) -> dict[str, Any]:
        facts = await self._service.facts()
        return about_model(facts.name, asdict(facts.capabilities), await self._service.loras())

    async def picture(self, id: str) -> bytes:
        return await asyncio.to_thread(self._service.history.bytes_of, id)

    async def address(self, id: str) -> str:
        path = await asyncio.to_thread(self._service.history.path_of, id)
        return path.resolve().as_uri()
