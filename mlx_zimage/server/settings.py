"""Settings of a server: what `mlx-zimage serve` was asked for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import RequestError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""The host names by which a machine reaches itself."""
PORT = 8765
SHORTEST_TOKEN = 12  # characters
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
ORIGIN = re.compile(rf"https?://({HOST.pattern})(:[0-9]{{1,5}})?")
MOST_WAITING = 1000


@dataclass(frozen=True)
class Settings:
    """The model to serve, to whom, and the folder that keeps the pictures."""

    source: str = "turbo"  # the model, as `ZImage.load` takes it
    model: Mapping[str, Any] = field(default_factory=dict)  # the other options of `ZImage.load`
    lora_folder: Path | None = None
    output_folder: Path = Path("zimage-pictures")
    host: str = "127.0.0.1"
    port: int = PORT  # 0: any that is free
    token: str | None = field(default=None, repr=False)
    allow_hosts: tuple[str, ...] = ()  # names by which others reach this machine
    allow_origins: tuple[str, ...] = ()  # pages of other origins that may ask
    queue: int = 32  # jobs that may wait
    idle_unload: float = 600  # seconds without work after which the weights are freed; 0 keeps them
    any_model: bool = False  # answer for every model's name
    sdapi_honour: bool = False  # take steps and cfg_scale from clients of /sdapi

    def __post_init__(self) -> None:
        if not self.is_local and (self.token is None or not self.allow_hosts):
            raise RequestError(
                f"host={self.host!r} is open to other machines: it needs a token, and the name by "
                "which they reach this one (--token new --allow-host NAME)"
            )
        _check_token(self.token)
        for name in self.allow_hosts:
            if not HOST.fullmatch(name):
                raise RequestError(
                    f"allow_host must be a host name in lower case without a port, not {name!r}"
                )
        for origin in self.allow_origins:
            if not ORIGIN.fullmatch(origin):
                raise RequestError(
                    "allow_origin must be an origin such as http://localhost:3000, without a path, "
                    f"not {origin!r}"
                )
        for name, value, most in (("port", self.port, 65535), ("queue", self.queue, MOST_WAITING)):
            least = 0 if name == "port" else 1
            if not least <= value <= most:
                raise RequestError(f"{name} must be {least} to {most}, not {value}")
        if not 0 <= self.idle_unload < float("inf"):
            raise RequestError(f"idle_unload must be 0 or more seconds, not {self.idle_unload}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that a request may name as its host, without the port."""
        return (*LOOPBACK, *self.allow_hosts)

    @property
    def addresses(self) -> list[str]:
        """The hosts with the port, as a request must name one of them."""
        addresses = [f"{name}:{self.port}" for name in self.hosts]
        return [*addresses, *self.hosts] if self.port == 80 else addresses

    @property
    def origins(self) -> list[str]:
        """The origins of pages that may ask: this server's own, and those that are allowed."""
        return [*(f"http://{address}" for address in self.addresses), *self.allow_origins]


def _check_token(token: str | None) -> None:
    """Refuse a token that is short, or that a header or an address cannot hold."""
    if token is not None and not re.fullmatch(rf"[A-Za-z0-9._~-]{{{SHORTEST_TOKEN},}}", token):
        raise RequestError(
            f"the token must have at least {SHORTEST_TOKEN} letters, digits or ._~- (--token new "
            "makes one)"
        )
