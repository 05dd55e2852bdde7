"""The gate: who may ask, judged before anything else sees a request.

Any web page that a person opens can send requests to this machine. So a request must name this
server as its host, which stops pages whose own name was made to point here, and must not come from
another origin. A token, where there is one, is compared in constant time and never told.
"""

import base64
import contextlib
import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import Refusal
from .settings import Settings

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
METHODS = "GET, POST, DELETE"
ALLOWED_HEADERS = "Authorization, Content-Type, Last-Event-ID"
OPEN = ("/health",)
"""Paths that need no token."""
TOKEN = "token"
"""The name in a page's address that brings the token once."""


class Gate:
    """The application behind checks of host, origin and token, with security headers."""

    def __init__(self, app: ASGIApp, settings: Settings):
        self._app, self._settings = app, settings
        self._hosts, self._origins = {*settings.addresses}, {*settings.origins}
        self._named = {*settings.allow_origins}
        self._cookie = f"mlx_zimage_{settings.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        sending = self._guarded(send, headers)
        try:
            self._check_host(headers)
            origin = self._check_origin(scope, headers)
        except Refusal as refusal:
            await _answer(sending, refusal.status, refusal.body)
            return
        if scope["method"] == "OPTIONS" and origin in self._named:
            await _answer(sending, 204, None)
        elif (address := self._address_without_token(scope)) is not None:
            cookie = f"{self._cookie}={self._settings.token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(sending, 303, None, {"Location": address, "Set-Cookie": cookie})
        elif self._is_known(scope, headers):
            await self._app(scope, receive, sending)
        else:
            text = "this server needs its token, as Authorization: Bearer TOKEN, or /?token=TOKEN"
            body = Refusal(401, text, "invalid_api_key").body
            await _answer(sending, 401, body, {"WWW-Authenticate": "Bearer"})

    def _check_host(self, headers: Headers) -> None:
        """Refuse a host that is not this server: a name that was made to point here."""
        if [host.lower() for host in headers.getlist("host")] not in [[h] for h in self._hosts]:
            raise Refusal(
                403, "the request names another host than this server", "host_not_allowed"
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> str | None:
        """Refuse what a page of another origin has sent; return the origin that was named."""
        origins = headers.getlist("origin")
        refusal = Refusal(403, "pages of other origins may not ask", "origin_not_allowed")
        if len(origins) > 1 or (origins and origins[0] not in self._origins):
            raise refusal
        site = headers.get("sec-fetch-site", "none")
        if not origins and site not in ("none", "same-origin") and not _opens_page(scope, headers):
            raise refusal
        return origins[0] if origins else None

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        """Return whether a request brings the token, or needs none."""
        token = self._settings.token
        if token is None or scope["path"] in OPEN:
            return True
        candidates = [_credential(text) for text in headers.getlist("authorization")[:1]]
        candidates += _cookies(headers).get(self._cookie, [])[:1]
        results = [hmac.compare_digest(text.encode(), token.encode()) for text in candidates]
        return any(results)

    def _address_without_token(self, scope: Scope) -> str | None:
        """Return where to go on, if the page was opened with the right token in its address."""
        token = self._settings.token
        if token is None or scope["path"] != "/" or scope["method"] != "GET":
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        brought = [value for name, value in query if name == TOKEN]
        if len(brought) != 1 or not hmac.compare_digest(brought[0].encode(), token.encode()):
            return None
        rest = urlencode([(name, value) for name, value in query if name != TOKEN])
        return f"/?{rest}" if rest else "/"

    def _guarded(self, send: Send, headers: Headers) -> Send:
        """Return what sends an answer with the headers that every answer has."""
        origin = headers.get("origin")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    answer[name] = value
                answer.setdefault("Cache-Control", "no-store")
                if self._named:
                    answer.add_vary_header("Origin")
                if origin in self._named:
                    answer["Access-Control-Allow-Origin"] = origin
                    answer["Access-Control-Allow-Methods"] = METHODS
                    answer["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
                    answer["Access-Control-Expose-Headers"] = "Location"
                    answer["Cross-Origin-Resource-Policy"] = "cross-origin"
            await send(message)

        return sending


def _opens_page(scope: Scope, headers: Headers) -> bool:
    """Return whether a link on another page leads a person to this one."""
    is_navigation = headers.get("sec-fetch-mode") == "navigate"
    is_top = headers.get("sec-fetch-dest", "document") == "document"
    return bool(scope["method"] == "GET" and scope["path"] == "/" and is_navigation and is_top)


def _credential(text: str) -> str:
    """Return the token that a header brings, as a bearer's or as the password of any user."""
    kind, _, value = text.partition(" ")
    if kind.lower() == "basic":  # AUTOMATIC1111's clients know no other way
        with contextlib.suppress(ValueError):
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
    return value.strip() if kind.lower() == "bearer" else ""


def _cookies(headers: Headers) -> dict[str, list[str]]:
    """Return the values of each cookie."""
    values: dict[str, list[str]] = {}
    for line in headers.getlist("cookie"):
        for piece in line.split(";"):
            name, _, value = piece.strip().partition("=")
            values.setdefault(name, []).append(value)
    return values


async def _answer(
    send: Send, status: int, body: Any, headers: Mapping[str, str] | None = None
) -> None:
    data = b"" if body is None else json.dumps(body).encode()
    fields = dict(headers or {})
    if body is not None:
        fields["Content-Type"] = "application/json"
    if status != 204:
        fields["Content-Length"] = str(len(data))
    listed = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": data})
