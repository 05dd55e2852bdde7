"""A server that runs already, so that its model is shared instead of loaded twice."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from ..failures import Refusal
from .studio import about_model

PATIENCE = httpx2.Timeout(30, read=None)  # a picture may take long


class RemoteStudio:
    """The native API of another server."""

    def __init__(self, url: str, token: str | None = None):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url = url.rstrip("/")
        self._client = httpx2.AsyncClient(base_url=self._url, headers=headers, timeout=PATIENCE)

    async def close(self) -> None:
        await self._client.aclose()

    async def draw(self, order: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        job = (await self._ask("POST", "/api/jobs", json=dict(order))).json()
        ended = False
        try:
            async with self._opened("GET", job["events"]) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        data = json.loads(line.removeprefix("data: "))
                        ended = data.get("state") in ("done", "failed", "cancelled")
                        yield data
        finally:
            if not ended:
                await asyncio.shield(self.cancel(job["id"]))

    async def cancel(self, job: str) -> None:
        await self._ask("DELETE", f"/api/jobs/{job}")

    async def model(self) -> dict[str, Any]:
        about = (await self._ask("GET", "/api/capabilities")).json()
        loras = (await self._ask("GET", "/api/loras")).json()["loras"]
        return about_model(about["model_name"], about, loras)

    async def picture(self, id: str) -> bytes:
        content: bytes = (await self._ask("GET", f"/files/{id}.png")).content
        return content

    async def address(self, id: str) -> str:
        return f"{self._url}/files/{id}.png"

    async def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        async with self._opened(method, path, **options) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[httpx2.Response]:
        """Open an answer; what the server refuses, or that there is none, is a Refusal."""
        try:
            async with self._client.stream(method, path, **options) as response:
                if response.status_code >= 400:
                    raise _refusal(response.status_code, await response.aread())
                yield response
        except httpx2.TransportError as error:
            raise Refusal(503, f"no server answers at {self._url}", "no_server") from error


def _refusal(status: int, body: bytes) -> Refusal:
    try:
        error = json.loads(body)["error"]
        return Refusal(status, str(error["message"]), str(error["code"]), error["param"])
    except (ValueError, KeyError, TypeError):
        return Refusal(status, f"the server answered with status {status}", "bad_answer")
