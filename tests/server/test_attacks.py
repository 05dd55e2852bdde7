"""Attacks on the whole server: by pages of others, by paths, by markup, by sheer number."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .conftest import SMALL, WAIT, Running, running

EVIL = "http://evil.example"
TOKEN = "a-secret-of-the-tests"
MARKUP = '<img src=x onerror=alert(1)></script><script>alert("x")</script>'


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a token, and a picture that somebody drew."""
    with running(tmp_path_factory.mktemp("guarded"), token=TOKEN) as server:
        yield server


def exchange(server: Running, head: str, body: bytes = b"") -> bytes:
    """Send a request byte by byte as written, and return all that comes back."""
    with closing(socket.create_connection(("127.0.0.1", server.port), WAIT)) as sock:
        sock.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_name_that_was_made_to_point_here(server: Running) -> None:
    """DNS rebinding: the browser believes that it talks to evil.example, and sends no Origin."""
    for path in ("/", "/api/jobs", "/api/history", "/v1/models", "/static/main.js", "/mcp/"):
        answer = server.ask("GET", path, headers={"Host": f"evil.example:{server.port}"})
        assert answer.status == 403, path
        assert b"host_not_allowed" in answer.body


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", "http://localhost"])
@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_forms_of_other_sites(server: Running, origin: str, kind: str) -> None:
    before = len(server.ask("GET", "/api/jobs").json["jobs"])
    headers = {"Origin": origin, "Content-Type": kind, "Sec-Fetch-Site": "cross-site"}
    for path in ("/api/jobs", "/v1/images/edits", "/sdapi/v1/txt2img", "/sdapi/v1/interrupt"):
        answer = server.ask("POST", path, json.dumps(SMALL).encode(), headers)
        assert (answer.status, answer.json["error"]["code"]) == (403, "origin_not_allowed")
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert len(server.ask("GET", "/api/jobs").json["jobs"]) == before


def test_forms_without_an_origin(server: Running) -> None:
    """Old browsers leave the origin out; the type of a form's content is refused as well."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = server.ask("POST", "/api/jobs", json.dumps(SMALL).encode(), {"Content-Type": kind})
        assert answer.status == 415
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert server.ask("GET", "/api/history", headers=embedded).status == 403


def test_two_hosts_and_other_shapes(server: Running) -> None:
    port = server.port
    shapes = [
        f"GET / HTTP/1.1\nHost: 127.0.0.1:{port}\nHost: evil.example",
        f"GET / HTTP/1.1\nHost: evil.example\nHost: 127.0.0.1:{port}",
        "GET / HTTP/1.1",
        f"GET http://evil.example/ HTTP/1.1\nHost: evil.example:{port}",
        "GET / HTTP/1.0",
        f"GET / HTTP/1.1\nHost: 127.0.0.1:{port}\nX-Y: a\n\tb: c\nHost: evil.example",
    ]
    for head in shapes:
        answer = exchange(server, f"{head}\nConnection: close")
        assert answer.split(b" ", 2)[1] in (b"400", b"403"), head


def test_a_request_hidden_in_another(server: Running) -> None:
    """Request smuggling: two lengths, of which two readers may each believe another."""
    inner = f"DELETE /api/jobs/0 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    head = f"POST /api/jobs HTTP/1.1\nHost: 127.0.0.1:{server.port}\nContent-Length: 4"
    for more in (
        "Transfer-Encoding: chunked",
        "Content-Length: 400",
        "Transfer-Encoding: xchunked",
    ):
        answer = exchange(server, f"{head}\n{more}\nConnection: close", b"0\r\n\r\n" + inner)
        assert answer.count(b"HTTP/1.1") == 1, more
        assert answer.split(b" ", 2)[1] in (b"400", b"415", b"501"), more


PATHS = [
    "/files/../../../etc/passwd",
    "/files/..%2f..%2f..%2fetc%2fpasswd",
    "/files/%2e%2e/%2e%2e/etc/passwd",
    "/files/..%5c..%5cetc%5cpasswd",
    "/files/....//etc/passwd.png",
    "/files/%00.png",
    "/files/0123456789abcdef%00.png",
    "/files/0123456789abcdef.png%00",
    "/files/0123456789ABCDEF.png",
    "/files/.lock",
    "/files/.png",
    "/files/.thumbnails/x.webp",
    "/static/../server/run.py",
    "/static/..%2frun.py",
    "/static/%2e%2e/run.py",
    "/static/i18n/..%2f..%2f..%2frun.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/C:%5cwindows",
    "//etc/passwd",
    "/api/history/..%2f..%2fetc%2fpasswd",
    "/api/jobs/..%2fevents",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere(server: Running, path: str) -> None:
    head = f"GET {path} HTTP/1.1\nHost: 127.0.0.1:{server.port}\nConnection: close"
    answer = exchange(server, head)
    assert answer.split(b" ", 2)[1] in (b"404", b"400"), answer[:200]
    assert b"root:" not in answer
    assert b"import" not in answer


def test_links_in_the_folder_are_no_pictures(server: Running) -> None:
    id = "feedfacefeedface"
    link = server.folder / f"20260101-000000-x-{id}.png"
    os.symlink("/etc/passwd", link)
    try:
        assert server.ask("GET", f"/files/{id}.png").status == 404
        assert server.ask("GET", f"/files/{id}.thumb.webp").status == 404
        listed = server.ask("GET", "/api/history?limit=500").json["images"]
        assert id not in [image["id"] for image in listed]
        assert server.ask("DELETE", f"/api/history/{id}").status == 404
        assert link.is_symlink()
    finally:
        link.unlink()


def test_a_picture_that_becomes_a_link_is_not_followed(serve: Callable[..., Any]) -> None:
    with serve() as own:
        (image,) = own.draw()["images"]
        (path,) = own.folder.glob("*.png")
        path.unlink()
        os.symlink("/etc/passwd", path)
        assert own.ask("GET", image["url"]).status == 404


def test_markup_stays_text(server: Running) -> None:
    job = server.draw(prompt=MARKUP)
    for path in ("/api/history", f"/api/jobs/{job['id']}", "/api/jobs"):
        answer = server.ask("GET", path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert MARKUP in json.dumps(answer.json).encode().decode("unicode_escape")
    named = server.ask("GET", f"{job['images'][0]['url']}?download=1")
    assert "<" not in named.headers["content-disposition"]
    assert named.headers["content-type"] == "image/png"
    refused = server.ask("POST", "/api/jobs", {**SMALL, MARKUP: 1})
    assert refused.headers["content-type"] == "application/json"


def test_a_prompt_cannot_write_headers(server: Running) -> None:
    job = server.draw(prompt='a"\r\nSet-Cookie: x=y\r\n\r\n; filename=evil.html')
    answer = server.ask("GET", f"{job['images'][0]['url']}?download=1")
    assert "set-cookie" not in answer.headers
    assert "\n" not in answer.headers["content-disposition"]


def test_the_token_is_never_told(guarded: Running, caplog: pytest.LogCaptureFixture) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    told = []
    for method, path, body in (
        ("GET", "/api/capabilities", None),
        ("GET", "/nothing", None),
        ("POST", "/api/jobs", {"prompt": 5}),
        ("POST", "/api/jobs", b"{"),
        ("GET", f"/?token={TOKEN}", None),
        ("GET", "/openapi.json", None),
        ("GET", "/", None),
    ):
        for headers in (bearer, {}):
            answer = guarded.ask(method, path, body, headers)
            kept = {n: v for n, v in answer.headers.items() if n != "set-cookie"}
            told.append(f"{kept}{answer.body!r}")
    assert guarded.ask("GET", "/api/capabilities", headers=bearer).status == 200
    assert guarded.ask("GET", "/api/capabilities").status == 401
    assert TOKEN not in "".join(told) + caplog.text + repr(guarded.server.settings)


def test_a_cookie_of_the_page_does_not_help_other_sites(guarded: Running) -> None:
    opened = guarded.ask("GET", f"/?token={TOKEN}")
    cookie = opened.headers["set-cookie"].split(";")[0]
    assert "SameSite=Strict" in opened.headers["set-cookie"]
    assert guarded.ask("GET", "/api/jobs", headers={"Cookie": cookie}).status == 200
    headers = {"Cookie": cookie, "Origin": EVIL}
    assert guarded.ask("GET", "/api/jobs", headers=headers).status == 403


@pytest.mark.slow
def test_ten_thousand_jobs(serve: Callable[..., Any]) -> None:
    with serve(queue=8) as own:
        first = own.ask("POST", "/api/jobs", {**SMALL, "steps": 1000}).json
        body, statuses = json.dumps(SMALL).encode(), []
        with closing(own.connect()) as connection:
            for _ in range(10_000):
                connection.request("POST", "/api/jobs", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        assert 8 <= statuses.count(202) <= 9  # one more may start in between
        assert statuses.count(429) == 10_000 - statuses.count(202)
        jobs = own.ask("GET", "/api/jobs").json["jobs"]
        assert len(jobs) <= 10
        for job in jobs:
            own.ask("DELETE", f"/api/jobs/{job['id']}")
        assert own.ask("GET", f"/api/jobs/{first['id']}").status == 200


@pytest.mark.slow
def test_a_reader_that_never_reads(serve: Callable[..., Any]) -> None:
    """What waits for it is bounded, and nobody else notices."""
    with serve() as own, closing(socket.create_connection(("127.0.0.1", own.port), WAIT)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        head = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{own.port}\r\n\r\n"
        sock.sendall(head.encode())
        sock.recv(100)
        job = own.draw(steps=400)
        assert job["state"] == "done"
        followers = own.server.service._feed._followers
        assert max(len(follower._waiting) for follower in followers) < 100


@pytest.mark.parametrize(
    "model", ["/etc/passwd", "../../x", "model.pkl", "http://evil.example/x", "a\0b", ["demo"], 5]
)
def test_a_model_is_never_opened_by_its_name(server: Running, model: Any) -> None:
    answer = server.ask("POST", "/v1/images/generations", {"prompt": "x", "model": model})
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    assert server.ask("POST", "/api/jobs", {**SMALL, "model": model}).status == 400
    options = {"sd_model_checkpoint": model}
    assert server.ask("POST", "/sdapi/v1/options", options).status == 200
    assert server.ask("GET", "/sdapi/v1/options").json["sd_model_checkpoint"] == "demo"


def test_other_machines_do_not_reach_it(server: Running) -> None:
    """It listens at this machine's own address alone."""
    name = server.server._socket.getsockname()[0]
    assert name == "127.0.0.1"


def test_websockets_are_refused(server: Running) -> None:
    head = (
        f"GET /api/events HTTP/1.1\nHost: 127.0.0.1:{server.port}\nConnection: Upgrade\n"
        "Upgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    )
    with closing(socket.create_connection(("127.0.0.1", server.port), WAIT)) as sock:
        sock.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        assert b" 101 " not in sock.recv(4096).split(b"\r\n", 1)[0]


def test_many_wrong_tokens_lock_nobody_out(guarded: Running) -> None:
    results: list[int] = []

    def guess(number: int) -> None:
        headers = {"Authorization": f"Bearer guess-{number}"}
        results.append(guarded.ask("GET", "/api/jobs", headers=headers).status)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [401] * 50
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.ask("GET", "/api/jobs", headers=right).status == 200


def test_long_heads_are_refused(server: Running) -> None:
    long = "x" * 1_000_000
    head = f"GET / HTTP/1.1\nHost: 127.0.0.1:{server.port}\nX: {long}\nConnection: close"
    try:
        status = exchange(server, head).split(b" ", 2)[1]
    except ConnectionError:  # it is closed while the head is still being sent
        status = b"400"
    assert status in (b"400", b"431")
    assert server.ask("GET", "/health").status == 200


def test_files_are_the_pictures_alone(server: Running, tmp_path: Path) -> None:
    (server.folder / "secret.png").write_bytes(b"secret")
    for name in ("secret", "secret.png", "..", "0" * 16):
        assert server.ask("GET", f"/files/{name}.png").status == 404
