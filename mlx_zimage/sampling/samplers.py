"""Samplers: how a run gets from one noise level to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np

from .schedule import Schedule


@dataclass(frozen=True)
class SamplerStep:
    """One forward of the model: where it begins and where it leads."""

    index: int  # of the schedule's interval
    time: float  # the model's: 0 at pure noise, 1 at a clean image
    sigma: float  # the noise level that the latents have
    next_sigma: float  # the noise level that they reach
    target: float | None = None  # the time that a TwinFlow model is told to aim at


class Sampler(Protocol):
    """The steps of a schedule, and the move that each of them makes."""

    def steps(self, schedule: Schedule) -> Sequence[SamplerStep]:
        """Return the forwards that the schedule takes."""
        ...

    def step(self, latents: mx.array, velocity: mx.array, step: SamplerStep) -> mx.array:
        """Move latents along the predicted velocity, both (B, C, h, w) float32."""
        ...


class Euler:
    """The published sampler: straight along the velocity, one forward for each interval."""

    def steps(self, schedule: Schedule) -> list[SamplerStep]:
        times, sigmas = map(float, schedule.times), [float(sigma) for sigma in schedule.sigmas]
        return [SamplerStep(i, time, *sigmas[i : i + 2]) for i, time in enumerate(times)]

    def step(self, latents: mx.array, velocity: mx.array, step: SamplerStep) -> mx.array:
        distance = np.float32(step.next_sigma) - np.float32(step.sigma)
        return latents + mx.array(float(distance), mx.float32) * velocity
