"""Studios: where the pictures of MCP's tools are drawn."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from ..orders import Order
from ..pictures import check_fields
from ..service import Service


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
        about = facts.capabilities
        names = ("width", "height", "steps", "guidance", "side_multiple", "max_prompt_tokens")
        vocabulary = about.vocabulary
        loras = [lora["name"] for lora in await self._service.loras() if "error" not in lora]
        return {
            "name": facts.name,
            **{name: getattr(about, name) for name in names},
            "draws": "anything" if vocabulary is None else vocabulary.draws,
            "loras": loras,
        }

    async def picture(self, id: str) -> bytes:
        return await asyncio.to_thread(self._service.history.bytes_of, id)

    async def address(self, id: str) -> str:
        path = await asyncio.to_thread(self._service.history.path_of, id)
        return path.resolve().as_uri()
