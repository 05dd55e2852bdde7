"""Reporters: events as text for people, or as JSON for programs."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol, TextIO

from .. import (
    Calibrated,
    Downloaded,
    Encoded,
    Event,
    Finished,
    Result,
    Started,
    Step,
    TrainingStarted,
    TrainingStep,
    Truncated,
    Uploaded,
    Written,
)
from .parsing import UsageError
from .screen import Screen

BEAT = 10.0
"""Seconds between two lines of progress where the screen is not live."""
Happened = Downloaded | Uploaded | Written | Calibrated | Encoded | TrainingStarted | TrainingStep
"""Events that are no generation's."""
ARRAYS = ("image", "latents", "prompt_embeds", "metadata", "draw")
"""Fields that are not for JSON lines."""


class Reporter(Protocol):
    asks: bool
    """Whether a person may be asked a question."""
    live: bool
    """Whether a terminal shows what moves."""

    def event(self, event: Event | Happened) -> None:
        """Show what happens."""

    def note(self, text: str) -> None:
        """Tell a person something."""

    def expect(self, jobs: int) -> None:
        """Take the number of requests, where it is known later."""

    def tell(self, text: str, event: str, **fields: Any) -> None:
        """Tell a person something that is an event for programs."""

    def warn(self, text: str) -> None:
        """Tell a person something that is shown with --quiet as well."""

    def picture(self, escape: str, rows: int) -> None:
        """Show a picture on a terminal, by what makes it appear."""

    def saved(self, result: Result, file: Path) -> None:
        """Show a picture's file."""

    def kept(self, file: Path) -> None:
        """Show a picture's file that was there already."""

    def result(self, text: str, event: str, **fields: Any) -> None:
        """Show a result: `text` for people, the named event for programs."""

    def close(self) -> None:
        """Clear the screen."""


def reporter(as_json: bool, quiet: bool = False, jobs: int | None = 1) -> Reporter:
    """Return the reporter that the options ask for.

    `jobs` is the number of requests, None where it is not known.
    """
    if as_json and quiet:
        raise UsageError("--quiet has no effect with --json")
    if as_json:
        return JsonReporter(sys.stdout)
    return TextReporter(Screen(sys.stderr), sys.stdout, quiet=quiet, jobs=jobs)


class JsonReporter:
    """One object a line on standard output, and nothing else."""

    asks = live = False

    def __init__(self, out: TextIO):
        self._out = out

    def event(self, event: Event | Happened) -> None:
        fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        plain = {name: value for name, value in fields.items() if name not in ARRAYS}
        self.result("", type(event).__name__.lower(), **plain)

    def note(self, text: str) -> None:
        pass

    def expect(self, jobs: int) -> None:
        pass

    def tell(self, text: str, event: str, **fields: Any) -> None:
        self.result("", event, **fields)

    def warn(self, text: str) -> None:
        self.result("", "warning", message=text)

    def picture(self, escape: str, rows: int) -> None:
        pass

    def saved(self, result: Result, file: Path) -> None:
        request = result.request.to_dict()
        self.result("", "result", job=result.job, file=str(file), request=request)

    def kept(self, file: Path) -> None:
        self.result("", "kept", file=str(file))

    def result(self, text: str, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}, default=str)  # paths
        print(line, file=self._out, flush=True)

    def close(self) -> None:
        pass


class TextReporter:
    """Progress on the screen, results on standard output."""

    def __init__(self, screen: Screen, out: TextIO, *, quiet: bool = False, jobs: int | None = 1):
        self.asks = not quiet
        self.live = screen.live and not quiet
        self._screen, self._out, self._quiet, self._jobs = screen, out, quiet, jobs
        self._beat = time.perf_counter()  # when progress was last shown
        self._stepping: dict[int, float] = {}  # seconds in steps, by job
        self._spent: dict[int, float] = {}  # seconds in phases, by job
        self._meter = Meter()
        self._trained, self._training_steps = 0.0, 0  # seconds in steps of training, and how many
        self._lost: set[str] = set()

    def event(self, event: Event | Happened) -> None:
        if isinstance(event, Started):
            self._update(self._numbered(event.job, f"{event.phase} {event.component}".rstrip()))
        elif isinstance(event, Finished):
            self._spent[event.job] = self._spent.get(event.job, 0.0) + event.seconds
        elif isinstance(event, Step):
            self._progress(self._numbered(event.job, self._step(event)))
        elif isinstance(event, Truncated):
            if event.lost not in self._lost:  # several seeds have one prompt
                self.warn(event.message)
            self._lost.add(event.lost)
        elif isinstance(event, Downloaded | Uploaded | Written | Calibrated):
            text = self._meter.text(event)
            if event.done == event.total:
                self.note(text)
            else:
                self._progress(text)
        else:
            self._training(event)

    def note(self, text: str) -> None:
        if not self._quiet:
            self._screen.line(text)

    def expect(self, jobs: int) -> None:
        self._jobs = jobs

    def tell(self, text: str, event: str, **fields: Any) -> None:
        self.note(text)

    def warn(self, text: str) -> None:
        self._screen.line(f"warning: {text}")

    def picture(self, escape: str, rows: int) -> None:
        self._screen.picture(escape, rows)

    def saved(self, result: Result, file: Path) -> None:
        if self._quiet:
            self.result(str(file), "result")
            return
        request = result.request
        seed = "" if request.seed is None else f"seed {request.seed}, "
        took = seconds_text(self._spent.get(result.job, 0.0))
        width, height = result.image.size
        facts = f"{seed}{width}x{height}, {request.steps} steps, {took}"
        self.result(f"{file}  ({facts})", "result")

    def kept(self, file: Path) -> None:
        self.result(str(file) if self._quiet else f"{file}  (kept)", "kept")

    def result(self, text: str, event: str, **fields: Any) -> None:
        self._screen.clear()
        print(text, file=self._out, flush=True)

    def close(self) -> None:
        self._screen.clear()

    def _numbered(self, job: int, text: str) -> str:
        if self._jobs == 1:
            return text
        return f"[{job + 1}/{self._jobs}] {text}" if self._jobs else f"[{job + 1}] {text}"

    def _step(self, step: Step) -> str:
        self._stepping[step.job] = self._stepping.get(step.job, 0.0) + step.seconds
        each = self._stepping[step.job] / step.number
        steps_left = step.total - step.number
        if self._jobs is not None:
            steps_left += step.total * (self._jobs - 1 - step.job)
        text = f"step {step.number} of {step.total}, {seconds_text(each)} a step"
        return f"{text}, {seconds_text(each * steps_left)} left" if steps_left else text

    def _training(self, event: Event | Happened) -> None:
        if isinstance(event, Encoded):
            self._progress(f"encode {event.what}: {event.done} of {event.total}")
        elif isinstance(event, TrainingStep):
            self._trained += event.seconds
            self._training_steps += 1
            each = self._trained / self._training_steps
            left = seconds_text(each * (event.total - event.number))
            text = f"step {event.number} of {event.total}, loss {event.loss:.4f}"
            self._progress(f"{text}, {seconds_text(each)} a step, {left} left")

    def _update(self, text: str) -> None:
        if self._screen.live and not self._quiet:
            self._screen.update(text)

    def _progress(self, text: str) -> None:
        """Show on a live screen, and as a line now and then elsewhere."""
        self._update(text)
        if not self._screen.live and time.perf_counter() - self._beat >= BEAT:
            self.note(text)
            self._beat = time.perf_counter()


class Meter:
    """Progress in bytes or pieces of work, with the time that is left."""

    def __init__(self) -> None:
        self._name, self._begun, self._first = "", 0.0, 0

    def text(self, event: Written | Downloaded | Uploaded | Calibrated) -> str:
        """Return the line that shows an event."""
        if isinstance(event, Downloaded | Uploaded):
            name = "download" if isinstance(event, Downloaded) else "upload"
        else:
            name = event.component
        if isinstance(event, Calibrated):
            name = f"{event.task} {name}"
        if name != self._name:
            self._name, self._begun, self._first = name, time.perf_counter(), event.done
        spent, done = time.perf_counter() - self._begun, event.done - self._first
        text = f"{name}: {event.done / 1e6:,.1f} of {event.total / 1e6:,.1f} MB"
        if isinstance(event, Calibrated):
            text = f"{name}: {event.done} of {event.total}"
        if event.done == event.total:
            return f"{text} in {seconds_text(spent)}"
        left = spent * (event.total - event.done) / done if done else None
        return text if left is None else f"{text}, {seconds_text(left)} left"


def seconds_text(seconds: float) -> str:
    """Return a duration for people: 0.25 s, 12.3 s, 1.5 min."""
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
