"""MCP in the HTTP server: imported when the first request for it comes, as that takes a second."""

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from .failures import Refusal
from .service import Service

if TYPE_CHECKING:
    from .mcp.run import Mounted


class LazyMcp:
    """The application at /mcp. What it needs may not be installed."""

    def __init__(self, service: Service):
        self._service = service
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[ASGIApp] | None = None
        self._end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if find_spec("mcp") is None:
            text = "MCP needs a package more: pip install 'mlx-zimage[mcp]', and start again"
            raise Refusal(404, text, "not_installed")
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._ready))
        app = await asyncio.shield(self._ready)
        await app(scope, receive, send)

    async def close(self) -> None:
        """End all sessions."""
        self._end.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self, ready: "asyncio.Future[ASGIApp]") -> None:
        """Keep the sessions in a task of their own: they must end where they began."""
        try:
            mounted = await asyncio.to_thread(self._import)
            async with mounted.running():
                ready.set_result(mounted.app)
                await self._end.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    def _import(self) -> "Mounted":
        from .mcp.run import mounted

        settings = self._service.settings
        return mounted(self._service, settings.addresses, settings.origins)
