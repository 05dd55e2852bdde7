"""`mcp`: tools for language models."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import ZImageError
from . import options as o
from .models import usage
from .parsing import UsageError
from .served import IdleUnload, OutputFolder, shared_settings, token_from

PRINT_CONFIG = "--print-config"
Server = Annotated[
    str | None,
    o.option(
        "Model",
        "--server",
        help="Draw with the model of a server that runs, such as http://127.0.0.1:8765.",
        metavar="URL",
    ),
]
Token = Annotated[
    str | None,
    o.option(
        "Model",
        "--token",
        help="That server's token. MLX_ZIMAGE_TOKEN may hold it.",
        metavar="TEXT",
    ),
]
AllowDir = Annotated[
    list[Path] | None,
    o.option(
        "Input",
        "--allow-dir",
        help="A folder whose pictures may be read to be changed; repeatable. Default: none.",
        metavar="FOLDER",
    ),
]
PrintConfig = Annotated[
    bool,
    o.option(
        "Output", PRINT_CONFIG, help="Print the JSON that an app is set up with, and serve nothing."
    ),
]


def mcp(
    model: o.Model = None,
    q: o.Quantize = None,
    no_cache: o.NoCache = False,
    dtype: o.Dtype = None,
    lora_folder: o.LoraFolder = None,
    revision: o.Revision = None,
    preview_decoder: o.PreviewDecoder = None,
    server: Server = None,
    token: Token = None,
    memory: o.Memory = "auto",
    idle_unload: IdleUnload = 600,
    allow_dir: AllowDir = None,
    output_folder: OutputFolder = None,
    print_config: PrintConfig = False,
) -> None:
    """Serve tools that draw to a language model, by MCP.

    An app starts this command and speaks with it over standard input and output. --print-config
    prints what Claude Desktop and others are to be told.
    """
    options = dict(locals())
    if print_config:
        _print_config()
        return
    if server is not None and model is not None:
        raise UsageError("--server and --model exclude each other: the server has the model")
    try:
        from ..server.mcp.run import serve_stdio
    except ModuleNotFoundError as error:
        raise ZImageError(f"MCP needs {error.name}: pip install 'mlx-zimage[mcp]'") from error
    from ..server.settings import Settings

    with usage():
        settings = Settings(**shared_settings(options))
    serve_stdio(settings, allow_dir or [], server, token_from(token))


def _print_config() -> None:
    """Print this command as an app's settings hold it: by its whole path, as apps have no PATH."""
    program = str(Path(shutil.which("mlx-zimage") or sys.argv[0]).resolve())
    words = [word for word in sys.argv[1:] if word != PRINT_CONFIG]
    entry = {"command": program, "args": words}
    typer.echo(json.dumps({"mcpServers": {"z-image": entry}}, indent=2, ensure_ascii=False))
