"""A generation, measured by its own events: seconds and peak memory of each stage."""

import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..events import Event, Finished, Result, Started, Step
from ..request import Request
from ..zimage import ZImage
from . import work


@dataclass(frozen=True)
class Stage:
    """A phase (with the component that is loaded in it), or one step of the sampler."""

    name: str
    seconds: tuple[float, ...]  # one for each run; of steps, for each step of each run
    peak: int  # bytes in MLX's arrays, weights included, the most of all runs

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True)
class Measured:
    """The measurements of one request, run several times on a model that was unloaded before."""

    width: int
    height: int
    batch: int
    steps: int
    tokens: int  # of the prompt
    stages: tuple[Stage, ...]  # in their order
    step_flops: int  # the least that a step can do, for the whole batch
    peak_rss: int  # bytes of the whole process, since it began

    @property
    def peak(self) -> int:
        return max(stage.peak for stage in self.stages)

    @property
    def step(self) -> float:
        """The median seconds of a step."""
        return next(stage for stage in self.stages if stage.name == "step").median

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(model: ZImage, checkpoint: Checkpoint, request: Request, runs: int) -> Measured:
    """Run a request several times; its sides and steps must be set."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    tokens = 0
    for _ in range(runs):
        model.unload()
        for event in model.stream(request):
            if isinstance(event, Started):
                mx.reset_peak_memory()
            elif isinstance(event, Result):
                tokens = len(event.prompt_embeds)
            for name, taken in _ended(event):
                seconds.setdefault(name, []).append(taken)
                peaks[name] = max(peaks.get(name, 0), mx.get_peak_memory())
    assert request.width is not None and request.height is not None and request.steps is not None
    flops = request.count * work.forward(checkpoint, tokens, request.width, request.height)
    return Measured(
        width=request.width,
        height=request.height,
        batch=request.count,
        steps=request.steps,
        tokens=tokens,
        stages=tuple(Stage(name, tuple(seconds[name]), peaks[name]) for name in seconds),
        step_flops=flops,
        peak_rss=peak_rss(),
    )


def peak_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _ended(event: Event) -> Iterator[tuple[str, float]]:
    if isinstance(event, Step):
        yield "step", event.seconds
    elif isinstance(event, Finished):
        yield f"{event.phase} {event.component}" if event.component else event.phase, event.seconds
