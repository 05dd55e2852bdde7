"""The denoising loop. It knows its slots, and no feature that sets them."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np
from PIL import Image

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
    draw: Callable[[np.ndarray], Image.Image] | None = None  # clean latents (C, h, w) of a preview


def denoise(schedule: Schedule, slots: Slots) -> Generator[Step, None, mx.array]:
    """Run every step of a schedule, and return the last latents."""
    latents = slots.latents
    steps = slots.sampler.steps(schedule)
    for number, step in enumerate(steps, 1):
        begun = time.perf_counter()
        before, velocity = latents, slots.predict(latents, step)
        latents = slots.sampler.step(latents, velocity, step)
        latents = slots.keep(latents, step)
        slots.check(latents, f"step {number}")
        seconds = time.perf_counter() - begun
        draw = slots.draw and partial(_drawn, slots.draw, before, velocity, step.sigma)
        sigma = float(step.next_sigma)
        yield Step(number, len(steps), sigma, seconds, copied(latents), draw=draw)
    return latents


def _drawn(
    draw: Callable[[np.ndarray], Image.Image],
    before: mx.array,
    velocity: mx.array,
    sigma: float,
    index: int,
) -> Image.Image:
    """Draw the clean latents that a step's velocity points at.

    NumPy computes them, in whichever thread asks: both arrays are already there.
    """
    return draw(np.array(before)[index] - np.float32(sigma) * np.array(velocity)[index])


def copied(array: mx.array) -> mx.array:
    """Return a copy in new memory: whoever writes into it changes no run."""
    copy = mx.multiply(array, mx.array(1, array.dtype))
    mx.eval(copy)
    return copy
