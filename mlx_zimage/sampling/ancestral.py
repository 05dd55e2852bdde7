"""ComfyUI's euler_ancestral for flow models: steps that go too far down and are noised again."""

import math

import mlx.core as mx

from .noise import NoiseStream
from .samplers import Euler, SamplerStep


class EulerAncestral(Euler):
    """Euler to a lower level than the next, then fresh noise up to it; the last step adds none."""

    def __init__(self, noise: NoiseStream):
        self._noise = noise

    def step(self, latents: mx.array, velocity: mx.array, step: SamplerStep) -> mx.array:
        if step.next_sigma >= step.sigma:
            return latents
        ratio, renewal, noise = ancestral_weights(step.sigma, step.next_sigma)
        clean = latents - step.sigma * velocity
        lower = ratio * latents + (1 - ratio) * clean
        if not noise:
            return lower
        return renewal * lower + noise * self._noise.draw(latents.shape)


def ancestral_weights(sigma: float, next_sigma: float) -> tuple[float, float, float]:
    """Return the ratio to the lower level, and the weights of what is there and of the noise."""
    if next_sigma == 0:
        return 0.0, 1.0, 0.0
    lower = next_sigma**2 / sigma
    renewal = (1 - next_sigma) / (1 - lower)
    return lower / sigma, renewal, math.sqrt(max(next_sigma**2 - (lower * renewal) ** 2, 0.0))
