"""Running a server: its socket, its signals, and its end."""

import contextlib
import errno
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import uvicorn

from .. import RequestError
from .app import make_app
from .history import History
from .owner import Cancelled, Opening
from .service import Service
from .settings import Settings

FILES = 8192
"""Open files that a server asks the system for: macOS gives 256, and each connection is one."""
GRACE_SECONDS = 5
WAITING = 1024
"""Connections that the system holds until they are accepted."""


@dataclass(frozen=True)
class Listening:
    """The address at which a server is reached."""

    url: str
    token: str | None


class Server(uvicorn.Server):
    """A bound server. It tells when it listens, and ends its event streams first when it stops."""

    def __init__(
        self,
        settings: Settings,
        sock: socket.socket,
        history: History,
        ready: Callable[[], None] = lambda: None,
        opening: Opening = lambda event: None,
    ):
        port: int = sock.getsockname()[1]
        self.settings, self._socket, self._ready = replace(settings, port=port), sock, ready
        self.service = Service(self.settings, history, opening)
        config = uvicorn.Config(
            make_app(self.service),
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self.service.owner.model.add_done_callback(lambda _: self._end_without_model())

    @property
    def listening(self) -> Listening:
        """The address, by the name under which it is asked for."""
        settings = self.settings
        is_any = settings.host in ("0.0.0.0", "::")
        name = settings.allow_hosts[0] if is_any and settings.allow_hosts else settings.host
        host = f"[{name}]" if ":" in name else name
        return Listening(f"http://{host}:{settings.port}", settings.token)

    def work(self) -> None:
        """Serve until it is told to stop. A model that cannot be opened is raised."""
        self.run(sockets=[self._socket])
        model = self.service.owner.model
        error = model.exception() if model.done() else None
        if error is not None and not isinstance(error, Cancelled):  # it was stopped meanwhile
            raise error

    def stop(self) -> None:
        """Stop soon; from any thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.leave()
        await super().shutdown(sockets)

    def _end_without_model(self) -> None:
        if self.service.owner.model.exception() is not None:
            self.stop()


def serve(
    settings: Settings,
    listening: Callable[[Listening], None],
    *,
    opening: Opening = lambda event: None,
    until_stdin_closes: bool = False,
) -> None:
    """Serve until a signal comes; `listening` is called once requests are taken.

    `opening` takes the events of a model that is downloaded or copied.

    What stands against it is raised: a port that is taken before anything else, a model that
    cannot be opened as soon as that is known.
    """
    with contextlib.closing(bind(settings)) as sock:
        history = History(settings.output_folder)
        history.open()
        with contextlib.closing(history):
            server = Server(settings, sock, history, lambda: listening(server.listening), opening)
            _raise_file_limit()
            if until_stdin_closes:
                threading.Thread(target=_stop_at_end, args=(server,), daemon=True).start()
            server.work()


def bind(settings: Settings) -> socket.socket:
    """Return the socket that listens at the settings' address."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=WAITING)
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        advice = "name another one, or 0 for any that is free" if taken else "correct the address"
        why = "the port is taken" if taken else str(getattr(error, "strerror", None) or error)
        raise RequestError(f"cannot listen at {host}:{port}: {why}; {advice}") from error
    # asyncio does this for sockets that it opens itself; without it, an answer on a connection that
    # is used again waits 40 ms for the client to acknowledge the headers.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _stop_at_end(server: Server) -> None:
    """Stop a server when standard input ends: the program that started it is gone."""
    with contextlib.suppress(OSError, ValueError):
        while sys.stdin.buffer.read(4096):
            pass
    server.stop()


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
