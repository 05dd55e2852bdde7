"""`download` a model from the Hub."""

from contextlib import closing
from typing import Annotated

import typer

from . import options as o
from .models import Choice, find, usage
from .progress import reporter


def download(
    source: Annotated[
        str, typer.Argument(help="turbo, base or a Hub repo id (owner/name).", metavar="SOURCE")
    ],
    revision: o.Revision = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Download a model from the Hub.

    Only files that are needed and not on this machine yet are fetched. After an interruption the
    same command goes on where it stopped.
    """
    with closing(reporter(json, quiet)) as report, usage():
        folder = find(Choice(source, revision, download=True, offline=False), report)
        report.result(str(folder), "ready", folder=str(folder), revision=folder.name)
