"""Events on a screen: a live line on a terminal, plain lines in a pipe, or JSON."""

import contextlib
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..convert.plan import Written
from ..hub.download import Downloaded
from ..request import Event, Finished, Result, Started, Step, Truncated

CLEAR = "\r\x1b[2K"
JSON = "Print one JSON object a line for each event, and nothing else."


class Reporter(Protocol):
    def __enter__(self) -> "Reporter": ...
    def __exit__(self, *error: object) -> None: ...
    def event(self, event: Event) -> None: ...
    def saved(self, result: Result, file: Path) -> None: ...


def reporter(as_json: bool) -> Reporter:
    if as_json:
        return JsonReporter(sys.stdout)
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return TextReporter(sys.stderr, sys.stdout, live=live)


class JsonReporter:
    """One object a line on standard output, and nothing else."""

    def __init__(self, out: TextIO):
        self._out = out

    def __enter__(self) -> "JsonReporter":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def event(self, event: Event) -> None:
        fields = {
            field.name: getattr(event, field.name)
            for field in dataclasses.fields(event)
            if field.name not in ("image", "latents")
        }
        self._write({"event": type(event).__name__.lower(), **fields})

    def saved(self, result: Result, file: Path) -> None:
        request = result.request.to_dict()
        self._write({"event": "result", "file": str(file), "request": request})

    def _write(self, data: dict[str, Any]) -> None:
        print(json.dumps(data), file=self._out, flush=True)


class TextReporter:
    """What goes on, for people: to standard error, and each file made to standard output."""

    def __init__(self, screen: TextIO, out: TextIO, *, live: bool):
        self._screen, self._out, self._live = screen, out, live
        self._begun = time.perf_counter()
        self._stepping = 0.0  # seconds spent in this run's steps

    def __enter__(self) -> "TextReporter":
        return self

    def __exit__(self, *error: object) -> None:
        self._write(CLEAR if self._live else "")

    def event(self, event: Event) -> None:
        if isinstance(event, Started):
            self._stepping = 0.0
            self._show(f"{event.phase} {event.part}".rstrip())
        elif isinstance(event, Finished) and not self._live:
            self._show(
                f"{event.phase} {event.part}".rstrip() + f" took {seconds_text(event.seconds)}"
            )
        elif isinstance(event, Step):
            self._show(self._step(event))
        elif isinstance(event, Truncated):
            text = f"warning: only {event.limit} tokens fit; lost: {event.lost!r}"
            self._write(f"{CLEAR if self._live else ''}{text}\n")

    def saved(self, result: Result, file: Path) -> None:
        self._write(CLEAR if self._live else "")
        request = result.request
        took = seconds_text(time.perf_counter() - self._begun)
        seed = "" if request.seed is None else f"seed {request.seed}, "
        made = f"{seed}{request.width}x{request.height}, {request.steps} steps, {took}"
        print(f"{file}  ({made})", file=self._out, flush=True)
        self._begun = time.perf_counter()

    def _step(self, step: Step) -> str:
        self._stepping += step.seconds
        each = self._stepping / step.number
        left = each * (step.total - step.number)
        text = f"step {step.number} of {step.total}, {seconds_text(each)} a step"
        return text if step.number == step.total else f"{text}, {seconds_text(left)} left"

    def _show(self, text: str) -> None:
        self._write(f"{CLEAR}{text}" if self._live else f"{text}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a screen that is gone is no reason to stop
            self._screen.write(text)
            self._screen.flush()


def seconds_text(seconds: float) -> str:
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


class ByteMeter:
    """A live line on a terminal, one line for each thing done in a pipe, or each event as JSON."""

    def __init__(self, as_json: bool):
        self._json = as_json
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._name, self._begun, self._first = "", 0.0, 0
        self._open = False  # a live line is on the screen

    def __enter__(self) -> "ByteMeter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._open:
            print(CLEAR, end="", file=sys.stderr, flush=True)

    def show(self, event: Written | Downloaded) -> None:
        name, over = self._named(event), event.done == event.total
        if name != self._name:
            self._name, self._begun, self._first = name, time.perf_counter(), event.done
        if self._json:
            kind = type(event).__name__.lower()
            print(json.dumps({"event": kind, **vars(event)}), flush=True)
        elif self._live:
            print(CLEAR + self._text(event), end="\n" if over else "", file=sys.stderr, flush=True)
            self._open = not over
        elif over:
            print(self._text(event), file=sys.stderr, flush=True)

    def _named(self, event: Written | Downloaded) -> str:
        return event.part if isinstance(event, Written) else "download"

    def _text(self, event: Written | Downloaded) -> str:
        spent, done = time.perf_counter() - self._begun, event.done - self._first
        text = f"{self._name}: {event.done / 1e6:,.1f} of {event.total / 1e6:,.1f} MB"
        if event.done == event.total:
            return f"{text} in {seconds_text(spent)}"
        left = f", {seconds_text(spent * (event.total - event.done) / done)} left" if done else ""
        return text + left
