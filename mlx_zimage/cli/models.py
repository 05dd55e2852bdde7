"""Models that a command works on: located, downloaded after asking, loaded."""

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer

from .. import DownloadError, Request, RequestError, ZImage, download, locate, look_up
from .parsing import UsageError
from .progress import Reporter

Event = TypeVar("Event")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Choice:
    """The options that choose a model."""

    source: str
    revision: str | None
    download: bool
    offline: bool

    def __post_init__(self) -> None:
        if not self.source:
            raise UsageError("the model must be a name, a Hub repo id, a folder or a file, not ''")
        if self.download and self.offline:
            raise UsageError("--download and --offline exclude each other")


@contextmanager
def usage() -> Iterator[None]:
    """Turn what the library refuses of a request before the work into wrong usage."""
    try:
        yield
    except RequestError as error:
        raise UsageError(str(error)) from error


def find(choice: Choice, report: Reporter, *, ask: bool = True) -> Path:
    """Return the path of a model, downloaded where it is not on this machine."""
    if must_download(choice, report, ask=ask):
        returned(download(choice.source, choice.revision), report.event)
    return locate(choice.source, choice.revision)


def load(
    choice: Choice, report: Reporter, requests: Sequence[Request] = (), **options: Any
) -> ZImage:
    """Return a loaded model; `requests` are judged before anything is written."""
    with usage():
        allowed = must_download(choice, report) or choice.download
        events = ZImage.loading(
            choice.source,
            download=allowed,
            revision=choice.revision,
            requests=requests,
            **options,
        )
        return returned(events, report.event)


def must_download(choice: Choice, report: Reporter, *, ask: bool = True) -> bool:
    """Return whether a model has to be downloaded; raise where that is not allowed.

    Without --download a person at a terminal is asked, unless `ask` is false.
    """
    try:
        locate(choice.source, choice.revision)
    except DownloadError:
        if choice.offline:
            raise
    else:
        return False
    remote = look_up(choice.source, choice.revision)
    missing = remote.missing()
    what = f"{remote.repo}: {len(missing)} files, {sum(f.size for f in missing) / 1e9:.2f} GB"
    if ask and not choice.download and not _agreed(what, report):
        raise DownloadError(
            f"{what}, are not on this machine; give --download to fetch them "
            "(the model demo needs no download)"
        )
    report.note(f"downloading {what}")
    return True


def returned(events: Generator[Event, None, Value], show: Callable[[Event], None]) -> Value:
    """Show each event, and return what the generator returns."""
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                value: Value = end.value
                return value
            show(event)


def _agreed(what: str, report: Reporter) -> bool:
    if not (report.asks and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{what}, are not on this machine. Download them?", err=True)
