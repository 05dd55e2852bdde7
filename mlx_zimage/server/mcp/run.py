"""MCP over standard input and output, and mounted in the HTTP server."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette

from ..history import History
from ..service import Service
from ..settings import Settings
from .remote import RemoteStudio
from .studio import LocalStudio, Studio
from .tools import make_server

BODY = 64 << 20
"""Bytes of a request, which may hold a picture."""


def serve_stdio(
    settings: Settings, folders: Sequence[Path], url: str | None, token: str | None
) -> None:
    """Serve one client until standard input ends; `url` names a server whose model is shared."""

    async def run() -> None:
        studio = shared(url, token) if url is not None else own(settings)
        async with studio as opened:
            await make_server(opened, folders).run_stdio_async()

    anyio.run(run)


@contextlib.asynccontextmanager
async def own(settings: Settings) -> AsyncIterator[Studio]:
    """Open a studio in this process, beside servers that may keep their pictures there too."""
    history = History(settings.output_folder)
    history.open(alone=False)
    service = Service(settings, history)
    service.start()
    try:
        yield LocalStudio(service)
    finally:
        await service.stop()
        history.close()


@contextlib.asynccontextmanager
async def shared(url: str, token: str | None) -> AsyncIterator[Studio]:
    """Open a studio on a server that runs."""
    studio = RemoteStudio(url, token)
    try:
        yield studio
    finally:
        await studio.close()


def mounted(service: Service, hosts: Sequence[str], origins: Sequence[str]) -> "Mounted":
    """Return what the HTTP server mounts; its gate has judged a request before."""
    server = make_server(LocalStudio(service))
    security = TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=list(origins))
    app = server.streamable_http_app(
        streamable_http_path="/", transport_security=security, max_request_body_size=BODY
    )
    return Mounted(server, app)


class Mounted:
    """An MCP server in an HTTP server."""

    def __init__(self, server: MCPServer[None], app: Starlette):
        self._server, self.app = server, app

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep its sessions while the server runs."""
        async with self._server.session_manager.run():
            yield
