"""Routes whose handlers are given the service."""

from collections.abc import Awaitable, Callable, Iterable
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .service import Service

Handler = Callable[[Service, Request], Awaitable[Response]]
Row = tuple[str, str, Handler]
"""A method, a path and its handler."""


def routes_of(service: Service, rows: Iterable[Row]) -> list[Route]:
    """Return the routes of a table."""
    return [
        Route(path, _bound(handler, service), methods=[method]) for method, path, handler in rows
    ]


def _bound(handler: Handler, service: Service) -> Callable[[Request], Awaitable[Response]]:
    @wraps(handler)
    async def handle(request: Request) -> Response:
        return await handler(service, request)

    return handle
