"""Servers to test against: the demo behind a socket, in a thread of this process."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage.server.history import History
from mlx_zimage.server.run import Server, bind
from mlx_zimage.server.settings import Settings

collect_ignore = [] if find_spec("playwright") else ["browser"]  # CI looks that it is there
SMALL = {"prompt": "a red circle on a blue background", "width": 64, "height": 64, "steps": 1}
"""The fields of a picture that is drawn in a tenth of a second."""
WAIT = 120  # seconds after which a test has failed rather than waits on


@dataclass(frozen=True)
class Answer:
    """The answer to one HTTP request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread."""

    server: Server
    folder: Path

    @property
    def url(self) -> str:
        return self.server.listening.url

    @property
    def port(self) -> int:
        return self.server.settings.port

    def connect(self) -> HTTPConnection:
        """Return a new connection."""
        return HTTPConnection("127.0.0.1", self.port, timeout=WAIT)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; a body that is no bytes is sent as JSON."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        with closing(self.connect()) as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the data of a stream's events, until it ends or the caller stops."""
        with closing(self.connect()) as connection:
            connection.request("GET", path)
            yield from read_events(connection.getresponse())

    def draw(self, **fields: Any) -> dict[str, Any]:
        """Draw, and return the job when it has ended."""
        answer = self.ask("POST", "/api/jobs", {**SMALL, **fields})
        assert answer.status == 202, answer.body
        for event in self.events(answer.json["events"]):
            if event["type"] == "state" and event["state"] in ("done", "failed", "cancelled"):
                return event
        raise AssertionError("the stream ended before the job")


def read_events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the data of an event stream."""
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Running]:
    """Run a server with the demo at a free port, until the block ends."""
    chosen = Settings(**{"source": "demo", "port": 0, "output_folder": folder, **settings})
    ready = threading.Event()
    history = History(chosen.output_folder)
    history.open()
    with closing(history), closing(bind(chosen)) as sock:
        server = Server(chosen, sock, history, ready.set)
        thread = threading.Thread(target=server.work)
        thread.start()
        try:
            assert ready.wait(WAIT)
            yield Running(server, folder)
        finally:
            server.stop()
            thread.join(WAIT)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the demo that tests share; its history holds what they draw."""
    with running(tmp_path_factory.mktemp("served")) as shared:
        yield shared


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    """Return what runs a server of a test's own, with settings."""

    def run(**settings: Any) -> Any:
        return running(tmp_path / "pictures", **settings)

    return run
