"""TwinFlow's sampler: 2 to 4 jumps to a clean picture, each from fresh noise.

The model is told where it is and that it aims at its time 0, by a second timestep embedder which
only TwinFlow checkpoints have. The levels are its authors', for their recommended settings.
"""

import mlx.core as mx
import numpy as np

from .noise import NoiseStream
from .samplers import SamplerStep
from .schedule import Schedule

STEPS = (2, 3, 4)
FIRST = 0.999  # the level that pure noise is taken for
LAST, LAST_OF_TWO = 0.5, 0.6  # the level of the last step
TARGET = 0.0  # the model's time that every step aims at


def twinflow_schedule(steps: int) -> Schedule:
    """Return the levels of TwinFlow's steps: evenly spaced, then 0 at once. No shift moves them."""
    last = LAST_OF_TWO if steps == 2 else LAST
    return Schedule(np.append(np.linspace(FIRST, last, steps), 0).astype(np.float32))


class TwinFlow:
    """Predict the clean picture, mix it with fresh noise, and predict again."""

    def __init__(self, noise: NoiseStream):
        self._noise = noise

    def steps(self, schedule: Schedule) -> list[SamplerStep]:
        sigmas = schedule.sigmas
        times = np.float32(1) - sigmas[:-1]
        return [
            SamplerStep(i, float(time), float(sigmas[i]), float(sigmas[i + 1]), TARGET)
            for i, time in enumerate(times)
        ]

    def step(self, latents: mx.array, velocity: mx.array, step: SamplerStep) -> mx.array:
        clean = latents - step.sigma * velocity
        if step.next_sigma == 0:
            return clean
        noise = self._noise.draw(latents.shape)
        return (1 - step.next_sigma) * clean + step.next_sigma * noise
