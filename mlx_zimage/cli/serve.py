"""`serve`: the local server."""

import secrets
import shutil
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import ZImageError
from . import options as o
from .models import Choice, find, usage
from .progress import Reporter, reporter
from .served import IdleUnload, OutputFolder, shared_settings, token_from

if TYPE_CHECKING:
    from ..server.run import Listening
    from ..server.settings import Settings

NEW = "new"
NOT_REPEATED = ("--print-launchd", "--json", "--open", "--until-stdin-closes")
Host = Annotated[
    str,
    o.option(
        "Network",
        "--host",
        help="Address to listen at. Any but this machine's own needs --token and --allow-host.",
        metavar="ADDRESS",
    ),
]
Port = Annotated[
    int, o.option("Network", "--port", help="Port; 0 takes any that is free.", metavar="N")
]
Token = Annotated[
    str | None,
    o.option(
        "Network",
        "--token",
        help="A secret that every request must bring; new makes one. MLX_ZIMAGE_TOKEN may hold it.",
        metavar="TEXT",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    o.option(
        "Network",
        "--allow-host",
        help="A name by which other machines reach this one, such as mac.local; repeatable.",
        metavar="NAME",
    ),
]
AllowOrigin = Annotated[
    list[str] | None,
    o.option(
        "Network",
        "--allow-origin",
        help="A web page's origin that may ask, such as http://localhost:3000; repeatable.",
        metavar="ORIGIN",
    ),
]
Queue = Annotated[int, o.option("Work", "--queue", help="Jobs that may wait.", metavar="N")]
AnyModel = Annotated[
    bool, o.option("Work", "--any-model", help="Answer clients whatever model they name.")
]
SdapiHonour = Annotated[
    bool,
    o.option(
        "Work",
        "--sdapi-honour",
        help="Take steps and cfg_scale from clients of AUTOMATIC1111's API, which send values "
        "for other models.",
    ),
]
Open = Annotated[bool, o.option("Output", "--open", help="Open the page in the browser.")]
PrintLaunchd = Annotated[
    bool,
    o.option(
        "Output",
        "--print-launchd",
        help="Print a launchd agent that serves with these options, and serve nothing.",
    ),
]
UntilStdinCloses = Annotated[
    bool,
    o.option(
        "Work",
        "--until-stdin-closes",
        help="Stop when standard input ends: for an app that starts the server as its helper.",
    ),
]


def serve(
    model: o.Model = None,
    q: o.Quantize = None,
    no_cache: o.NoCache = False,
    dtype: o.Dtype = None,
    lora_folder: o.LoraFolder = None,
    revision: o.Revision = None,
    download: o.Download = False,
    offline: o.Offline = False,
    preview_decoder: o.PreviewDecoder = None,
    memory: o.Memory = "auto",
    host: Host = "127.0.0.1",
    port: Port = 8765,
    token: Token = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    queue: Queue = 32,
    idle_unload: IdleUnload = 600,
    any_model: AnyModel = False,
    sdapi_honour: SdapiHonour = False,
    until_stdin_closes: UntilStdinCloses = False,
    output_folder: OutputFolder = None,
    open: Open = False,
    print_launchd: PrintLaunchd = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Serve a page to draw on, and APIs for programs.

    OpenAI's images API is at /v1, AUTOMATIC1111's at /sdapi/v1, MCP at /mcp, and an API of its own
    at /api, which /openapi.json describes.
    """
    options = dict(locals())
    run = _server()
    settings = _settings(options)
    if print_launchd:
        _print_agent(settings)
        return
    with closing(reporter(json, quiet)) as report:
        choice = Choice(settings.source, revision, download, offline)
        find(choice, report)

        def listening(address: "Listening") -> None:
            _tell(address, settings, report)
            if open:
                webbrowser.open(_page(address))

        run.serve(settings, listening, opening=report.event, until_stdin_closes=until_stdin_closes)


def _server() -> Any:
    """Return the server's module, if what it needs is installed."""
    try:
        from ..server import run
    except ModuleNotFoundError as error:
        raise ZImageError(
            f"the server needs {error.name}: pip install 'mlx-zimage[server]'"
        ) from error
    return run


def _settings(options: Mapping[str, Any]) -> "Settings":
    from ..server.settings import Settings

    token = token_from(options["token"])
    with usage():
        return Settings(
            **shared_settings(options),
            host=options["host"],
            port=options["port"],
            token=secrets.token_urlsafe(24) if token == NEW else token,
            allow_hosts=tuple(options["allow_host"] or ()),
            allow_origins=tuple(options["allow_origin"] or ()),
            queue=options["queue"],
            any_model=options["any_model"],
            sdapi_honour=options["sdapi_honour"],
        )


def _page(address: "Listening") -> str:
    return address.url if address.token is None else f"{address.url}/?token={address.token}"


def _tell(address: "Listening", settings: "Settings", report: Reporter) -> None:
    report.result(
        f"{_page(address)}\npictures are kept in {settings.output_folder}; Ctrl-C stops",
        "listening",
        url=address.url,
        token=address.token,
    )


def _print_agent(settings: "Settings") -> None:
    """Print the agent: this command again, by its whole path, as launchd has no PATH."""
    from ..server.launchd import LABEL, launch_agent

    program = shutil.which("mlx-zimage") or sys.argv[0]
    rest = [word for word in sys.argv[1:] if word not in NOT_REPEATED]
    log = Path.home() / "Library" / "Logs" / f"{LABEL}.log"
    command = [str(Path(program).resolve()), *_with_token(rest, settings.token)]
    typer.echo(launch_agent(command, log).decode(), nl=False)


def _with_token(words: list[str], token: str | None) -> list[str]:
    """Return the words with the token that was made, in place of `new`."""
    if token is None:
        return words
    return [
        token if word == NEW else word.replace("--token=new", f"--token={token}") for word in words
    ]
