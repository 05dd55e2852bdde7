"""The server's application: every API's routes, the page, and the gate in front of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from . import native, openai_images, sdapi
from .assets import Assets
from .failures import Refusal, refusal_of
from .gate import Gate
from .mounted import LazyMcp
from .routing import routes_of
from .service import Service

HERE = Path(__file__).parent
PAGE, API = HERE / "page", HERE / "openapi.json"
APIS = (native, openai_images, sdapi)
NO_CACHE = {"Cache-Control": "no-cache"}  # asked for each time, and mostly answered by 304


def make_app(service: Service) -> ASGIApp:
    """Return the application for a service, whose settings name the port that is listened at."""

    mcp = LazyMcp(service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await mcp.close()
            await service.stop()

    rows = [row for api in APIS for row in api.ROUTES]
    app = Starlette(
        routes=[*routes_of(service, rows), Mount("/mcp", mcp), *_page()],
        lifespan=lifespan,
        exception_handlers={
            Refusal: _refused,
            HTTPException: _unknown,
            Exception: _failed,
        },
    )
    return Gate(app, service.settings)


def _page() -> list[BaseRoute]:
    assets = Assets(PAGE)

    async def index(request: Request) -> Response:
        return assets.answer("index.html", request)

    async def asset(request: Request) -> Response:
        return assets.answer(request.path_params["name"], request)

    async def api(request: Request) -> Response:
        return FileResponse(API, media_type="application/json", headers=NO_CACHE)

    return [
        Route("/", index),
        Route("/openapi.json", api),
        Route("/static/{name:path}", asset),
    ]


async def _refused(request: Request, error: Exception) -> Response:
    refusal = refusal_of(error)
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer for a path or a method that there is not, in the form of every error."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    texts = {404: "there is nothing at this path", 405: "this path does not take that method"}
    refusal = Refusal(error.status_code, texts.get(error.status_code, str(error.detail)), code)
    return JSONResponse(refusal.body, refusal.status, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return await _refused(request, refusal_of(error))
