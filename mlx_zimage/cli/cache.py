"""`cache`: the quantized copies of large models."""

from typing import Annotated

import typer

from .. import list_copies, remove_copy
from . import options as o
from .parsing import UsageError
from .progress import reporter

Action = Annotated[str, typer.Argument(help="list or remove.", metavar="ACTION")]
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Copies to remove, by the names that list shows.", metavar="NAME"),
]


def cache(
    action: Action,
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove every copy.")] = False,
    json: o.Json = False,
) -> None:
    """List or remove kept quantized copies.

    `generate --q` keeps one of each large model that it quantizes.
    """
    if action not in ("list", "remove"):
        raise UsageError(f"ACTION must be list or remove, not {action!r}")
    if action == "list" and (names or everything):
        raise UsageError("cache list takes no names and no options but --json")
    if action == "remove" and bool(names) == everything:
        raise UsageError("cache remove takes the names of copies, or --all")
    report = reporter(json)
    if action == "remove":
        for name in [copy.name for copy in list_copies()] if everything else names or []:
            copy = remove_copy(name)
            report.result(f"removed {name}: {copy.size / 1e9:.2f} GB", "removed", name=name)
        return
    copies = list_copies()
    for copy in copies:
        text = f"{copy.name}  {copy.size / 1e9:.2f} GB  {copy.path}"
        report.result(text, "copy", name=copy.name, bytes=copy.size, path=str(copy.path))
    if not copies:
        report.note("no quantized copies are kept")
