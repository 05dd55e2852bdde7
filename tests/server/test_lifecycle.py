"""Starting and stopping, as a person or an app does it; and what goes wrong meanwhile."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mlx_zimage import CheckpointError, RequestError
from mlx_zimage.hub.locate import DEMO
from mlx_zimage.server.run import bind
from mlx_zimage.server.settings import Settings

from .conftest import SMALL, WAIT, read_events

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "mlx_zimage_cli.py"), "serve"]
Started = Callable[..., "Program"]


class Program:
    """`mlx-zimage serve` as a process."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        self.told = json.loads(line)
        self.port = int(self.told["url"].rpartition(":")[2])

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=WAIT)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        with closing(self.connect()) as connection:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the status and what it printed of errors."""
        _, errors = self.process.communicate(timeout=WAIT)
        return self.process.returncode, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    """Return what starts the command, with the demo and --json."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: str) -> Program:
        folder = ["--output-folder", str(tmp_path / "pictures")]
        command = [*PROGRAM, "--model", "demo", "--port", "0", "--json", *folder, *options]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        running.append(process)
        return Program(process)

    yield run
    for process in running:
        process.kill()
        process.communicate()


def run_to_end(options: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, "stdin"])
def test_it_stops_while_it_draws_and_is_followed(start: Started, way: Any) -> None:
    program = start("--until-stdin-closes") if way == "stdin" else start()
    program.ask("POST", "/api/jobs", {**SMALL, "steps": 1000})
    with closing(program.connect()) as connection:
        connection.request("GET", "/api/events")
        events = read_events(connection.getresponse())
        next(event for event in events if event["type"] == "step")
        if way == "stdin":
            assert program.process.stdin is not None
            program.process.stdin.close()
            program.process.stdin = None
        else:
            program.process.send_signal(way)
        assert len([*events]) < 1000  # the stream ends
    status, errors = program.end()
    expected = {signal.SIGINT: (130, "interrupted\n"), signal.SIGTERM: (-15, ""), "stdin": (0, "")}
    assert (status, errors) == expected[way]


def test_the_address_is_told_in_one_line(start: Started) -> None:
    program = start("--token", "a-token-of-the-tests")
    assert program.told == {
        "event": "listening",
        "url": f"http://127.0.0.1:{program.port}",
        "token": "a-token-of-the-tests",
    }
    assert program.ask("GET", "/api/jobs")["error"]["code"] == "invalid_api_key"
    assert program.ask("GET", "/health")["status"] == "ok"


@pytest.mark.slow
def test_a_second_server_in_the_folder(start: Started, tmp_path: Path) -> None:
    start()
    folder = str(tmp_path / "pictures")
    done = run_to_end(["--model", "demo", "--port", "0", "--output-folder", folder])
    assert done.returncode == 1
    assert "another server keeps its pictures in" in done.stderr
    assert "--output-folder" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match="the port is taken; name another one, or 0"):
            bind(Settings(port=port, output_folder=tmp_path))


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "192.0.2.1"])
def test_an_address_that_is_not_this_machines(host: str) -> None:
    settings = Settings(host=host, token="0123456789abcdef", allow_hosts=("x.local",), port=0)
    with pytest.raises(RequestError, match=r"cannot listen at .*; correct the address"):
        bind(settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--model", "demo", "--host", "0.0.0.0"], 2, "it needs a token"),
        (["--model", "demo", "--token", "short"], 2, "at least 12"),
        (["--model", "demo", "--queue", "0"], 2, "--queue must be 1 to 1000"),
        (["--model", "no/such-folder/here"], 1, "no/such-folder/here"),
        (["--model", ""], 2, "the model must be a name"),
        (["--model", "demo", "--lora-folder", "no-such-folder"], 1, "no-such-folder is not there"),
    ],
)
def test_what_is_refused_at_the_start(
    tmp_path: Path, options: list[str], status: int, message: str
) -> None:
    folder = ["--output-folder", str(tmp_path / "pictures"), "--port", "0", "--offline"]
    done = run_to_end([*options, *folder], cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_cannot_be_opened_is_raised(tmp_path: Path) -> None:
    from mlx_zimage.server.history import History
    from mlx_zimage.server.run import Server

    broken = tmp_path / "broken"
    shutil.copytree(DEMO, broken)
    (broken / "transformer" / "config.json").write_text("{")
    settings = Settings(source=str(broken), port=0, output_folder=tmp_path / "pictures")
    history = History(settings.output_folder)
    history.open()
    with closing(history), closing(bind(settings)) as sock, pytest.raises(CheckpointError):
        Server(settings, sock, history).work()


def test_the_models_folder_is_removed_and_comes_back(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    model, away = tmp_path / "model", tmp_path / "away"
    shutil.copytree(DEMO, model)
    with serve(source=str(model), model={"memory": "low"}) as own:
        assert own.ask("GET", "/api/capabilities").json["source"] == "model"
        model.rename(away)
        failed = own.draw()
        assert failed["state"] == "failed"
        assert failed["error"]["code"] in ("model_failed", "system_error")
        assert failed["error"]["message"]
        away.rename(model)
        assert own.draw()["state"] == "done"


def test_a_full_disk(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = Image.Image.save

    def full(self: Any, file: Any, format: Any = None, **options: Any) -> None:
        if format == "PNG":
            raise OSError(28, "No space left on device")
        real(self, file, format, **options)

    with serve() as own:
        monkeypatch.setattr(Image.Image, "save", full)
        failed = own.draw()
        assert failed["state"] == "failed"
        assert failed["error"]["message"] == (
            "the picture cannot be saved: No space left on device"
        )
        answer = own.ask("POST", "/v1/images/generations", {"prompt": "x", "steps": 1})
        assert (answer.status, answer.headers["x-should-retry"]) == (507, "false")
        monkeypatch.undo()
        assert own.draw()["state"] == "done"
        assert own.ask("GET", "/api/history").json["total"] == 1


def test_weights_are_freed_when_nobody_draws(serve: Callable[..., Any]) -> None:
    with serve(idle_unload=0.05) as own:
        own.draw()
        while own.ask("GET", "/api/capabilities").json["loaded"]:
            pass
        assert own.draw()["state"] == "done"


def test_it_works_without_mcp(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_zimage.server.mounted.find_spec", lambda name: None)
    with serve() as own:
        answer = own.ask("POST", "/mcp/", {})
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_installed")
        assert "pip install 'mlx-zimage[mcp]'" in answer.json["error"]["message"]
        assert own.draw()["state"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    """A folder before the installed packages makes one of them impossible to import."""
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('x', name='{missing}')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_to_end(["--model", "demo"], env=environment)
    assert done.returncode == 1
    assert done.stderr == f"error: the server needs {missing}: pip install 'mlx-zimage[server]'\n"


def test_help_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError('x', name='starlette')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_to_end(["--help"], env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--until-stdin-closes" in done.stdout


@pytest.mark.slow
def test_the_agent_serves_with_the_same_options() -> None:
    import plistlib

    done = run_to_end(["--print-launchd", "--model", "demo", "--q", "4", "--token", "new"])
    agent = plistlib.loads(done.stdout.encode())
    words = agent["ProgramArguments"]
    assert Path(words[0]).is_absolute()
    assert words[1:-1] == ["serve", "--model", "demo", "--q", "4", "--token"]
    assert len(words[-1]) >= 24  # the token that was made, so that it stays the same


def test_a_broken_order_does_not_stop_the_owner(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody foresaw fails its job, is logged, and says nothing of the inside."""
    from mlx_zimage.server import owner

    with serve() as own:

        def broken(*_: Any) -> Any:
            raise ZeroDivisionError("secret details")

        monkeypatch.setattr(owner, "_webp", broken)
        failed = own.draw(steps=4)
        monkeypatch.undo()
        assert (failed["state"], failed["error"]["code"]) == ("failed", "internal_error")
        assert "secret" not in failed["error"]["message"]
        assert "ZeroDivisionError" in caplog.text
        assert own.draw()["state"] == "done"


def test_a_client_that_leaves_while_the_model_opens(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others still get the model."""
    import threading

    from mlx_zimage.server.owner import Owner

    real, may_open = Owner._open, threading.Event()

    def slow(self: Owner) -> Any:
        may_open.wait(WAIT)
        return real(self)

    monkeypatch.setattr(Owner, "_open", slow)
    with serve() as own:
        with closing(own.connect()) as connection:
            connection.request("GET", "/api/events")  # needs no model
            connection.getresponse()
        for path in ("/v1/images/generations", "/sdapi/v1/txt2img"):
            with closing(own.connect()) as connection:
                body = json.dumps({"prompt": "x"})
                connection.request("POST", path, body, {"Content-Type": "application/json"})
        assert own.ask("GET", "/health").status == 200
        may_open.set()
        assert own.draw()["state"] == "done"


def test_it_stops_while_the_model_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_zimage.server.history import History
    from mlx_zimage.server.owner import Cancelled, Owner
    from mlx_zimage.server.run import Server

    def never(self: Owner) -> Any:
        while not self._stopped:
            pass
        raise Cancelled

    monkeypatch.setattr(Owner, "_open", never)
    settings = Settings(source="demo", port=0, output_folder=tmp_path)
    history = History(tmp_path)
    history.open()
    with closing(history), closing(bind(settings)) as sock:
        servers: list[Server] = []

        def ready() -> None:
            servers[0].stop()

        server = Server(settings, sock, history, ready)
        servers.append(server)
        server.work()  # returns: to be stopped is no failure
