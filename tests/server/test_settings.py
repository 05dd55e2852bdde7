"""Settings: what a server refuses before it begins."""

import plistlib
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage import RequestError
from mlx_zimage.server.launchd import LABEL, launch_agent
from mlx_zimage.server.settings import Settings

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "needs a token, and the name"),
        ({"host": "::"}, "needs a token"),
        ({"host": "192.168.1.5", "token": TOKEN}, "the name by which they reach"),
        ({"host": "192.168.1.5", "allow_hosts": ("mac.local",)}, "needs a token"),
        ({"token": "short"}, "at least 12"),
        ({"token": ""}, "at least 12"),
        ({"token": "with a space in it"}, "letters, digits"),
        ({"token": "line\nbreak-0123456789"}, "letters, digits"),
        ({"allow_hosts": ("mac.local:8765",)}, "without a port"),
        ({"allow_hosts": ("Mac.local",)}, "in lower case"),
        ({"allow_hosts": ("*",)}, "host name"),
        ({"allow_hosts": ("",)}, "host name"),
        ({"allow_origins": ("*",)}, "an origin such as"),
        ({"allow_origins": ("null",)}, "an origin such as"),
        ({"allow_origins": ("http://localhost:3000/",)}, "without a path"),
        ({"port": 65536}, "port must be 0 to 65535"),
        ({"port": -1}, "port must be"),
        ({"queue": 0}, "queue must be 1 to"),
        ({"idle_unload": -1}, "idle_unload must be"),
        ({"idle_unload": float("nan")}, "idle_unload must be"),
        ({"idle_unload": float("inf")}, "idle_unload must be"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Settings(**options)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert Settings(host=host).is_local


def test_others_reach_it_by_the_names_that_are_allowed() -> None:
    settings = Settings(host="0.0.0.0", token=TOKEN, allow_hosts=("mac.local",))
    assert "mac.local" in settings.hosts
    assert TOKEN not in repr(settings)


def test_the_agent_is_a_property_list() -> None:
    command = ["/opt/bin/mlx-zimage", "serve", "--q", "4"]
    agent = plistlib.loads(launch_agent(command, Path("/tmp/log")))
    assert agent["Label"] == LABEL
    assert agent["ProgramArguments"] == command
    assert agent["RunAtLoad"]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ProcessType"] == "Interactive"
    assert agent["StandardErrorPath"] == "/tmp/log"
