"""`download` a model, and the `cache` of quantized copies."""

import json as json_format
from typing import Annotated

import typer

from ..convert import copies
from .progress import JSON
from .source import REVISION, find

SOURCE = "A name (turbo, base) or a Hub repo id."
ACTION = "list, or remove."
NAMES = "What to remove, by the names that list shows."


def download(
    source: Annotated[str, typer.Argument(help=SOURCE)],
    revision: Annotated[str | None, typer.Option(help=REVISION)] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """Fetch a model from the Hub: the files that are needed, and of those the missing ones."""
    folder = find(source, revision, download=True, offline=False, as_json=json)
    print(json_format.dumps({"event": "here", "folder": str(folder)}) if json else folder)


def cache(
    action: Annotated[str, typer.Argument(help=ACTION)],
    names: Annotated[list[str] | None, typer.Argument(help=NAMES)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove every copy.")] = False,
) -> None:
    """List or remove the quantized copies that `generate --q` keeps of large models."""
    if action not in ("list", "remove"):
        raise typer.BadParameter(f"it must be list or remove, not {action!r}", param_hint="ACTION")
    if (action == "list") == bool(names or everything) or (names and everything):
        raise typer.BadParameter("remove takes names, or --all; list takes nothing")
    if action == "remove":
        for name in [copy.name for copy in copies.kept()] if everything else names or []:
            print(f"removed {name}: {copies.remove(name).size / 1e9:.2f} GB")
        return
    for copy in copies.kept():
        print(f"{copy.name}  {copy.size / 1e9:.2f} GB  {copy.path}")
