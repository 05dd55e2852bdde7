"""Bodies: what is too large, too slow, packed, truncated, or no strict JSON."""

import json
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from mlx_zimage.server import bodies
from mlx_zimage.server.failures import Refusal

from .conftest import SMALL, WAIT, Running

JSON = {"Content-Type": "application/json"}


def refused(data: bytes) -> str:
    with pytest.raises(Refusal) as error:
        bodies.parse_json(data)
    assert (error.value.status, error.value.code) == (400, "invalid_json")
    assert "\n" not in error.value.message
    return error.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": 1', "delimiter"),
        (b"[]", "must be a JSON object"),
        (b"5", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": Infinity}', "Infinity is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_what_is_no_strict_json(data: bytes, message: str) -> None:
    assert message in refused(data)


def raw(server: Running, head: str, body: bytes = b"", *, host: bool = True) -> bytes:
    """Send bytes as they are, and return all that comes back."""
    lines = f"{head}\r\n" + (f"Host: 127.0.0.1:{server.port}\r\n" if host else "")
    with closing(socket.create_connection(("127.0.0.1", server.port), WAIT)) as sock:
        sock.sendall((lines + "Connection: close\r\n\r\n").encode() + body)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_zimage.server import native

    monkeypatch.setattr(native, "BODY", 10_000)
    monkeypatch.setattr(bodies, "SECONDS", 0.3)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.usefixtures("small_limits")
def test_a_declared_length_over_the_limit(server: Running) -> None:
    head = (
        "POST /api/jobs HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 99999999999"
    )
    answer = raw(server, head)
    assert status(answer) == 413  # before any of it has come
    assert b"at most 10,000 bytes" in answer


@pytest.mark.usefixtures("small_limits")
def test_an_undeclared_length_over_the_limit(server: Running) -> None:
    head = "POST /api/jobs HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    assert status(raw(server, head, chunk * 3)) == 413


@pytest.mark.usefixtures("small_limits")
def test_a_slow_body(server: Running) -> None:
    head = "POST /api/jobs HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100"
    answer = raw(server, head, b'{"prompt": ')
    assert status(answer) == 408
    assert b"x-should-retry: false" in answer


def test_a_packed_body(server: Running) -> None:
    """A gzip bomb is refused before it is unpacked: packed bodies are not taken at all."""
    for encoding in ("gzip", "deflate", "br", "identity, gzip"):
        answer = server.ask("POST", "/api/jobs", b"x", {**JSON, "Content-Encoding": encoding})
        assert (answer.status, answer.json["error"]["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"],
)
def test_other_types_of_content(server: Running, kind: str) -> None:
    """A form of another site can send these three without asking; JSON it cannot."""
    body = json.dumps(SMALL).encode()
    answer = server.ask("POST", "/api/jobs", body, {"Content-Type": kind})
    assert (answer.status, answer.json["error"]["code"]) == (415, "unsupported_media_type")


def test_a_type_with_a_charset(server: Running) -> None:
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = server.ask("POST", "/api/estimate", json.dumps(SMALL).encode(), kind)
    assert answer.status == 200


def form(parts: list[tuple[str, bytes]], end: bytes = b"--x--\r\n") -> bytes:
    pieces = [
        b'--x\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + data
        for name, data in parts
    ]
    return b"\r\n".join([*pieces, end])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (form([("prompt", b"x")], end=b""), "multipart/form-data; boundary=x"),
        (form([("prompt", b"x")] * 100), "multipart/form-data; boundary=x"),
        (form([("prompt", b"x" * 300_000)]), "multipart/form-data; boundary=x"),
        (form([("prompt", b"x")]), "multipart/form-data; boundary=\xff"),
    ],
)
def test_forms_that_cannot_be_read(server: Running, body: bytes, kind: str) -> None:
    answer = server.ask("POST", "/v1/images/edits", body, {"Content-Type": kind})
    assert answer.status == 400
    assert answer.json["error"]["message"]
    assert server.ask("GET", "/health").status == 200


def test_a_client_that_leaves_in_the_middle(server: Running, caplog: Any) -> None:
    for path, kind in (
        ("/api/jobs", "application/json"),
        ("/api/metadata", "image/png"),
        ("/v1/images/edits", "multipart/form-data; boundary=x"),
    ):
        with closing(socket.create_connection(("127.0.0.1", server.port), WAIT)) as sock:
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            sock.sendall(f"{head}Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\n".encode())
            sock.sendall(b"--x\r\n")
    assert server.ask("GET", "/health").status == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_prompt_of_100_mb(serve: Callable[..., Any]) -> None:
    with serve() as own:
        with closing(own.connect()) as connection:
            connection.putrequest("POST", "/api/jobs")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(100 << 20))
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status == 413
        assert own.draw()["state"] == "done"
