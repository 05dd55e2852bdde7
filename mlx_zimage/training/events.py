"""The events of a training run, beside those of the generations that draw its samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class TrainingStarted:
    """A run is about to begin, before anything is computed."""

    pictures: int
    sizes: tuple[tuple[int, int, int], ...]  # width, height, and how many pictures have them
    layers: int  # that are trained
    parameters: int  # numbers that are trained
    peak: int  # bytes of memory, at most
    device_memory: int
    step: int  # the first is 0, or where a resumed run goes on
    steps: int
    epochs: float
    folder: Path  # of what the run keeps: its state, encoded pictures, samples and curve


@dataclass(frozen=True)
class Encoded:
    """`done` of the `total` pictures or captions that were not encoded yet are on disk."""

    what: Literal["pictures", "captions"]
    done: int
    total: int


@dataclass(frozen=True)
class TrainingStep:
    """A step is done. `saved` are the files that were written after it."""

    number: int
    total: int
    loss: float
    gradient: float  # its length before clipping
    learning_rate: float
    seconds: float
    saved: tuple[Path, ...] = ()
