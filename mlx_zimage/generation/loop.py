"""The denoising loop. It knows its slots, and no feature that sets them."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import mlx.core as mx

from ..events import Step
from ..sampling.samplers import Sampler, SamplerStep
from ..sampling.schedule import Schedule


@dataclass(frozen=True)
class Slots:
    """The slots of the loop, set by a run. Latents and velocities are (B, C, h, w) float32."""

    latents: mx.array  # the first ones
    predict: Callable[[mx.array, SamplerStep], mx.array]  # the velocity
    sampler: Sampler
    keep: Callable[[mx.array, SamplerStep], mx.array]
    check: Callable[[mx.array, str], None]  # raises on numbers that are not finite


def denoise(schedule: Schedule, slots: Slots) -> Generator[Step, None, mx.array]:
    """Run every step of a schedule, and return the last latents."""
    latents = slots.latents
    steps = slots.sampler.steps(schedule)
    for number, step in enumerate(steps, 1):
        begun = time.perf_counter()
        velocity = slots.predict(latents, step)
        latents = slots.sampler.step(latents, velocity, step)
        latents = slots.keep(latents, step)
        slots.check(latents, f"step {number}")
        seconds = time.perf_counter() - begun
        yield Step(number, len(steps), float(step.next_sigma), seconds, copied(latents))
    return latents


def copied(array: mx.array) -> mx.array:
    """Return a copy in new memory: whoever writes into it changes no run."""
    copy = mx.multiply(array, mx.array(1, array.dtype))
    mx.eval(copy)
    return copy
