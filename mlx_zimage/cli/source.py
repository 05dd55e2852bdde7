"""What a command works on: found on this machine, or fetched after saying what and how large."""

import sys
from contextlib import closing
from pathlib import Path

import typer

from ..errors import DownloadError
from ..hub.download import fetch, look_up
from ..hub.locate import local, locate
from ..quantization.recipe import BITS
from .progress import ByteMeter

DOWNLOAD = "Fetch the model from the Hub, if it is not on this machine, without asking."
OFFLINE = "Do not ask the Hub anything, not even how large a model is."
REVISION = "A branch, tag or commit on the Hub."


def bits(q: str | None) -> int | str | None:
    """What --q says, as the library takes it."""
    return int(q) if q is not None and q in [str(number) for number in BITS] else q


def find(source: str, revision: str | None, download: bool, offline: bool, as_json: bool) -> Path:
    if download and (offline or local(source) is not None):
        why = "--offline forbids it" if offline else f"{source} is on this machine"
        raise typer.BadParameter(f"it cannot act: {why}", param_hint="--download")
    try:
        return locate(source, revision)
    except DownloadError:
        if offline:
            raise
    remote = look_up(source, revision)
    missing = remote.missing()
    size = sum(file.size for file in missing)
    what = f"{remote.repo}: {len(missing)} files, {size / 1e9:.2f} GB"
    if not download and not _agreed(what, as_json):
        raise DownloadError(
            f"{what}, are not on this machine, and nothing is downloaded unasked; give --download "
            "(the model named demo is here already)"
        )
    if not as_json:
        print(f"fetching {what}", file=sys.stderr, flush=True)
    with ByteMeter(as_json) as meter, closing(fetch(remote)) as events:
        for event in events:
            meter.show(event)
    return locate(source, revision)


def _agreed(what: str, as_json: bool) -> bool:
    """Asked of a person at a terminal."""
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{what}, are not on this machine. Fetch them?", err=True)
