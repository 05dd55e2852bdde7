"""Models that a command works on: located, downloaded after asking, loaded."""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer

from .. import (
    AppliedLora,
    Downloaded,
    DownloadError,
    Lora,
    Replay,
    Request,
    RequestError,
    Written,
    ZImage,
    download,
    locate,
    look_up,
    replay,
)
from .parsing import UsageError
from .progress import Reporter
from .values import bits, shown

MOST = 6
"""Parts of a LoRA without effect that are listed by name."""
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


@dataclass(frozen=True)
class Models:
    """The options of `generate` about its model, with what a replayed picture says of its own."""

    choice: Choice
    settings: Mapping[str, Any]
    keep_copy: bool
    report: Reporter
    replayed: Replay | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any], file: Path | None, report: Reporter) -> "Models":
        """Read the options; a replayed picture's settings stand in for those left out."""
        found = None
        if file is not None:
            with usage():
                found = replay(file)
        about = {} if found is None else found.metadata
        source = options["model"] if options["model"] is not None else about.get("model", "turbo")
        choice = Choice(source, options["revision"], options["download"], options["offline"])
        settings = {
            "quantize": bits(options["q"]),
            "dtype": options["dtype"] if options["dtype"] is not None else about.get("dtype"),
            "memory": options["memory"],
        }
        loras = options["lora"]
        if loras is None and found is not None:
            loras = found.find_loras(options["lora_folder"])
        if loras:
            settings["loras"] = loras
        if options["lora_folder"] is not None:
            settings["lora_folder"] = options["lora_folder"]
        if options["preview_decoder"] is not None:
            settings["preview_decoder"] = options["preview_decoder"]
        models = cls(choice, settings, not options["no_cache"], report, found)
        bits_then = about.get("quantize")
        if settings["quantize"] is None and bits_then is not None:
            is_stored_so = models.peek().capabilities().quantize == bits_then
            settings["quantize"] = None if is_stored_so else bits_then
        return models

    def peek(self) -> ZImage:
        """Return the model as it is stored, to ask for its sizes; no weights are read."""
        return load(self.choice, self.report, keep_copy=False)

    def load(self, requests: Sequence[Request] = (), *, keep_copy: bool | None = None) -> ZImage:
        """Return the model, and tell what of it was chosen or differs from a replayed picture."""
        keep_copy = self.keep_copy if keep_copy is None else keep_copy
        zimage = load(self.choice, self.report, requests, keep_copy=keep_copy, **self.settings)
        chosen = zimage.capabilities().memory
        if self.settings["memory"] == "auto" and chosen != "resident":
            self.report.note(
                f"--memory {chosen} is used, because the model is large for this device"
            )
        for lora in zimage.loras:
            self.report.note(_applied(lora))
            for part in lora.skipped[:MOST]:
                self.report.warn(f"without effect in {lora.source}: {part}")
        if self.replayed is not None:
            for line in self.replayed.differences(zimage):
                self.report.warn(f"not the same as in the picture: {line}")
            for line in self.replayed.unread:
                self.report.warn(f"not read from the picture: {line}")
        if not zimage.loras:  # they may teach a model what it could not draw
            self.hint(zimage, requests)
        return zimage

    def hint(self, zimage: ZImage, requests: Sequence[Request]) -> None:
        """Tell what a small model draws, where a prompt names nothing of it."""
        known = zimage.capabilities().vocabulary
        prompts = [text for request in requests for text in _texts(request.prompt)]
        if known is not None and not all(map(known.knows, prompts)):
            self.report.tell(
                f'{self.choice.source} draws {known.draws}, like "{known.example}"',
                "hint",
                draws=known.draws,
                example=known.example,
            )


def _texts(prompt: str | Sequence[str] | None) -> Sequence[str]:
    return [prompt] if isinstance(prompt, str) else prompt or []


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
    loras = options.get("loras")
    with usage():
        if not loras:
            _refuse_needless_download(choice)
        try:  # options are judged before a person is asked about a download
            return returned(events(False), show)
        except DownloadError:
            if not _must_download(choice, report) and not (loras and choice.download):
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


def _applied(lora: AppliedLora) -> str:
    """Return what a LoRA changes, on one line."""
    hit, present = (sum(counts) for counts in zip(*lora.hit.values(), strict=True))
    ranks = " to ".join(str(rank) for rank in sorted({*lora.ranks[:1], *lora.ranks[-1:]}))
    kind = ", ".join(lora.kinds) + (f" of rank {ranks}" if ranks else "")
    words = f"; trigger words: {', '.join(lora.trigger_words)}" if lora.trigger_words else ""
    name = Lora(lora.source).name
    return f"LoRA {name} at {lora.scale:g}: {kind}, changes {hit} of {present} modules{words}"


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
    about = f"licence {remote.license or 'not named'}, revision {remote.commit[:8]}"
    size = f"{len(remote.missing())} files, {remote.left / 1e9:.2f} GB"
    what = f"{remote.repo} ({about}): {size}"
    question = f"{what}, are not on this machine. Download them?"
    if not choice.download and not agreed(question, report):
        raise DownloadError(
            f"{what}, are not on this machine; give --download to fetch them "
            "(the model demo needs no download)"
        )
    report.note(f"downloading {what}")
    return True


def agreed(question: str, report: Reporter) -> bool:
    """Return what a person at a terminal answers; elsewhere the answer is no."""
    if not (report.asks and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(question, err=True)


def _with_note_on_copies(report: Reporter) -> Callable[[Downloaded | Written], None]:
    """Return the report's function for events, which explains the first that writes a copy."""
    notes = ["quantizing once: the copy is kept, see mlx-zimage cache list"]

    def show(event: Downloaded | Written) -> None:
        if isinstance(event, Written) and notes:
            report.note(notes.pop())
        report.event(event)

    return show
