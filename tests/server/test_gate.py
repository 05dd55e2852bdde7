"""The gate: requests that pages of others, and machines without the token, may not make."""

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from mlx_zimage.server.gate import SECURITY, Gate
from mlx_zimage.server.settings import Settings

TOKEN = "0123456789abcdef"
HOST = "127.0.0.1:8765"
NAMED = "http://app.example:3000"


async def _inside(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(
    method: str = "GET", path: str = "/api/jobs", query: str = "", **options: Any
) -> tuple[int, dict[str, str], bytes]:
    """Send a request to a gate; `headers` are pairs, `settings` the gate's."""
    headers = options.get("headers", [("host", HOST)])
    gate = Gate(_inside, Settings(**options.get("settings", {})))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(gate(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, sent[1]["body"]


def with_host(*more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("host", HOST), *more]


@pytest.mark.parametrize("host", [HOST, "localhost:8765", "LOCALHOST:8765", "[::1]:8765"])
def test_this_machines_names(host: str) -> None:
    assert ask(headers=[("host", host)])[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "")],
        [("host", "evil.example")],
        [("host", "evil.example:8765")],  # a name that was made to point here
        [("host", "127.0.0.1")],
        [("host", "127.0.0.1:8766")],
        [("host", "127.0.0.1:8765.")],
        [("host", "localhost.:8765")],
        [("host", "user@127.0.0.1:8765")],
        [("host", "127.0.0.1:8765@evil.example")],
        [("host", "127.0.0.1:8765, evil.example")],
        [("host", " 127.0.0.1:8765")],
        [("host", "0.0.0.0:8765")],
        [("host", "2130706433:8765")],
        [("host", HOST), ("host", HOST)],
        [("host", HOST), ("host", "evil.example")],
        [("x-forwarded-host", HOST)],
    ],
)
def test_other_hosts_are_refused(headers: list[tuple[str, str]]) -> None:
    for path in ("/", "/api/jobs", "/static/app.css", "/mcp", "/health"):
        status, _, body = ask(path=path, headers=headers)
        assert status == 403
        assert b"host_not_allowed" in body


def test_a_host_that_is_allowed() -> None:
    settings = {"allow_hosts": ("mac.local",)}
    assert ask(headers=[("host", "mac.local:8765")], settings=settings)[0] == 200
    assert ask(headers=[("host", "mac.local:80")], settings=settings)[0] == 403


@pytest.mark.parametrize(
    "more",
    [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("origin", "")],
        [("origin", "https://127.0.0.1:8765")],
        [("origin", "http://127.0.0.1")],
        [("origin", "http://127.0.0.1:8765.evil.example")],
        [("origin", "http://127.0.0.1:8765/")],
        [("origin", "http://127.0.0.1:8765"), ("origin", "http://evil.example")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],  # to an API
    ],
)
def test_other_origins_are_refused(more: list[tuple[str, str]]) -> None:
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        status, headers, _ = ask(method, headers=with_host(*more))
        assert status == 403
        assert not [name for name in headers if name.startswith("access-control")]


def test_a_link_may_open_the_page_but_not_a_frame() -> None:
    link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]
    assert ask(path="/", headers=with_host(*link, ("sec-fetch-dest", "document")))[0] == 200
    assert ask(path="/", headers=with_host(*link, ("sec-fetch-dest", "iframe")))[0] == 403
    assert ask("POST", "/", headers=with_host(*link))[0] == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8765", "http://localhost:8765"])
def test_the_page_itself_may_ask(origin: str) -> None:
    headers = with_host(("origin", origin), ("sec-fetch-site", "same-origin"))
    assert ask("POST", headers=headers)[0] == 200


def test_cors_is_for_named_origins_alone() -> None:
    settings = {"allow_origins": (NAMED,)}
    named = with_host(("origin", NAMED), ("sec-fetch-site", "cross-site"))
    status, headers, _ = ask(headers=named, settings=settings)
    assert (status, headers["access-control-allow-origin"]) == (200, NAMED)
    assert "access-control-allow-credentials" not in headers
    status, headers, _ = ask("OPTIONS", headers=named, settings=settings)
    assert (status, headers["access-control-allow-methods"]) == (204, "GET, POST, DELETE")
    own = with_host(("origin", "http://127.0.0.1:8765"))
    assert "access-control-allow-origin" not in ask(headers=own, settings=settings)[1]
    assert ask(headers=own, settings=settings)[1]["vary"] == "Origin"


@pytest.mark.parametrize(
    "more",
    [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer")],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", f"Basic {b64encode(f'{TOKEN}:'.encode()).decode()}")],
        [("authorization", f"Basic {b64encode(b'user:wrong').decode()}")],
        [("authorization", "Basic \xff")],
        [("authorization", TOKEN)],
        [("authorization", f"Bearer {TOKEN}x")],
        [("authorization", f"Bearer {TOKEN[:-1]}")],
        [("authorization", "Bearer \xff\xfe")],
        [("authorization", "Bearer wrong"), ("authorization", f"Bearer {TOKEN}")],
        [("cookie", f"mlx_zimage_8766={TOKEN}")],
        [("cookie", "mlx_zimage_8765=wrong")],
        [("x-api-key", TOKEN)],
    ],
)
def test_without_the_token(more: list[tuple[str, str]]) -> None:
    for path in ("/", "/api/jobs", "/static/app.css", "/mcp", "/v1/models", "/openapi.json"):
        status, headers, body = ask(path=path, headers=with_host(*more), settings={"token": TOKEN})
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN.encode() not in body


@pytest.mark.parametrize(
    "more",
    [
        ("authorization", f"bearer {TOKEN}"),
        ("authorization", f"Basic {b64encode(f'user:{TOKEN}'.encode()).decode()}"),
        ("cookie", f"a=b; mlx_zimage_8765={TOKEN}"),
    ],
)
def test_with_the_token(more: tuple[str, str]) -> None:
    assert ask(headers=with_host(more), settings={"token": TOKEN})[0] == 200


def test_health_needs_no_token() -> None:
    assert ask(path="/health", settings={"token": TOKEN})[0] == 200


def test_a_token_is_ignored_where_none_is_needed() -> None:
    assert ask(headers=with_host(("authorization", "Bearer anything")))[0] == 200


def test_the_address_brings_the_token_once() -> None:
    settings = {"token": TOKEN}
    status, headers, body = ask(path="/", query=f"token={TOKEN}&lang=zh", settings=settings)
    assert (status, headers["location"], body) == (303, "/?lang=zh", b"")
    cookie = headers["set-cookie"]
    assert cookie == f"mlx_zimage_8765={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    for query in ("token=wrong", f"token={TOKEN}&token=x", "token="):
        status, headers, _ = ask(path="/", query=query, settings=settings)
        assert (status, "set-cookie" in headers) == (401, False)
    assert ask(path="/api/jobs", query=f"token={TOKEN}", settings=settings)[0] == 401
    assert ask("POST", "/", query=f"token={TOKEN}", settings=settings)[0] == 401


@pytest.mark.parametrize(
    "options",
    [{}, {"headers": [("host", "evil.example")]}, {"settings": {"token": TOKEN}}],
)
def test_every_answer_has_the_security_headers(options: dict[str, Any]) -> None:
    headers = ask(**options)[1]
    assert {name: headers[name.lower()] for name in SECURITY} == SECURITY
    assert headers["cache-control"] == "no-store"


def test_the_policy_lets_nothing_in_from_outside() -> None:
    policy = SECURITY["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_websockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Gate(_inside, Settings())({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
