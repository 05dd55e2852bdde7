"""Models that a command works on: located, downloaded after asking, loaded."""

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer

from .. import (
    Downloaded,
    DownloadError,
    Request,
    RequestError,
    Written,
    ZImage,
    download,
    locate,
    look_up,
)
from .parsing import UsageError
from .progress import Reporter
from .values import shown

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


def find(choice: Choice, report: Reporter) -> Path:
    """Return the path of a model, downloaded where it is not on this machine."""
    _refuse_needless_download(choice)
    try:
        return locate(choice.source, choice.revision)
    except DownloadError:
        if not _must_download(choice, report):
            raise
    returned(download(choice.source, choice.revision), report.event)
    return locate(choice.source, choice.revision)


def load(
    choice: Choice, report: Reporter, requests: Sequence[Request] = (), **options: Any
) -> ZImage:
    """Return a loaded model; `requests` are judged before anything is written."""

    def events(download: bool) -> Generator[Downloaded | Written, None, ZImage]:
        return ZImage.loading(
            choice.source,
            download=download,
            revision=choice.revision,
            requests=requests,
            **options,
        )

    show = _with_note_on_copies(report)
    with usage():
        _refuse_needless_download(choice)
        try:  # options are judged before a person is asked about a download
            return returned(events(False), show)
        except DownloadError:
            if not _must_download(choice, report):
                raise
        return returned(events(True), show)


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


def _refuse_needless_download(choice: Choice) -> None:
    """Raise where a download is requested of what is a path on this machine."""
    if not choice.download:
        return
    with suppress(DownloadError):
        path = locate(choice.source, choice.revision)
        if choice.source == "demo" or path == Path(choice.source).expanduser():
            raise UsageError(
                f"{shown(choice.source)} is on this machine; there is nothing to download"
            )


def _must_download(choice: Choice, report: Reporter) -> bool:
    """Return whether a model that is not on this machine may be downloaded.

    Without --download a person at a terminal is asked.
    """
    if choice.offline:
        return False
    with suppress(DownloadError):
        locate(choice.source, choice.revision)
        return False  # something else is missing, such as the base of a single file
    remote = look_up(choice.source, choice.revision)
    missing = remote.missing()
    what = f"{remote.repo}: {len(missing)} files, {sum(f.size for f in missing) / 1e9:.2f} GB"
    if not choice.download and not _agreed(what, report):
        raise DownloadError(
            f"{what}, are not on this machine; give --download to fetch them "
            "(the model demo needs no download)"
        )
    report.note(f"downloading {what}")
    return True


def _agreed(what: str, report: Reporter) -> bool:
    if not (report.asks and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{what}, are not on this machine. Download them?", err=True)


def _with_note_on_copies(report: Reporter) -> Callable[[Downloaded | Written], None]:
    """Return the report's function for events, which explains the first that writes a copy."""
    notes = ["quantizing once: the copy is kept, see mlx-zimage cache list"]

    def show(event: Downloaded | Written) -> None:
        if isinstance(event, Written) and notes:
            report.note(notes.pop())
        report.event(event)

    return show
