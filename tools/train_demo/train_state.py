"""Training that may be stopped or killed at any moment: its checkpoints, and when to end.

A checkpoint holds everything that the next step depends on, so that a run that was interrupted ends
in the figures of one that was not. Pictures, words and noise are functions of the step's number.
"""

import io
import os
import signal
import time
from pathlib import Path
from typing import Any, Protocol

import torch

CHECKPOINT_SECONDS = 300
STOPPED = 3  # the exit status of a run that was asked to end


class Training(Protocol):
    """What is trained: everything that its next step depends on."""

    step: int
    seconds: float  # that the steps have taken, those of earlier runs counted in

    def advance(self, steps: int) -> float:
        """Train one step of so many, and return its loss."""

    def save(self) -> None:
        """Write a checkpoint."""

    def look(self) -> str:
        """Return a line about what it can do by now, or nothing."""


def run(training: Training, steps: int, out: Path) -> bool:
    """Train until so many steps are done, those of earlier runs counted in; False if stopped."""
    stop = Stop(out)
    saved, recent = time.monotonic(), list[float]()
    while training.step < steps and not stop.asked():
        begun = time.monotonic()
        recent.append(training.advance(steps))
        training.seconds += time.monotonic() - begun
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            training.save()
            loss, seen = sum(recent) / len(recent), training.look()
            text = f"{training.seconds / 60:.1f} min, step {training.step}: loss {loss:.4f}"
            print(f"{text}; {seen}" if seen else text, flush=True)
            saved = time.monotonic()
            recent.clear()
    training.save()
    print(f"{training.step} steps in {training.seconds / 60:.1f} min", flush=True)
    return training.step >= steps


def save(file: Path, state: dict[str, Any], configuration: dict[str, Any]) -> bool:
    """Replace the checkpoint by a complete one; where there is no room, keep the one before."""
    buffer = io.BytesIO()
    torch.save({**state, "configuration": configuration}, buffer)
    temporary = file.with_suffix(".part")
    try:
        with temporary.open("wb") as opened:
            opened.write(buffer.getbuffer())
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        print(f"{file} could not be written, its last state stays: {error}", flush=True)
        return False
    return True


def load(file: Path, configuration: dict[str, Any]) -> dict[str, Any] | None:
    """Return what `save` was given, or None where there is no checkpoint yet."""
    if not file.is_file():
        return None
    state: dict[str, Any] = torch.load(file, weights_only=True)
    written = state.pop("configuration")
    for name in sorted({*written, *configuration}):
        before, now = written.get(name), configuration.get(name)
        if before != now:
            raise SystemExit(
                f"{file} was written with {name} {before}, and this run has {now}: "
                "use the same settings, or another folder"
            )
    return state


class Stop:
    """The wish that training end: SIGTERM, Ctrl-C or a file named stop in the folder."""

    def __init__(self, out: Path):
        self._file = out / "stop"
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def asked(self) -> bool:
        """Return whether to end; the file is removed, so that the next run goes on."""
        if self._file.exists():
            self._file.unlink()
            return True
        return self._signalled

    def _take(self, number: int, frame: object) -> None:
        self._signalled = True
