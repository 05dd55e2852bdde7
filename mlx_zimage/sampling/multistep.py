"""ComfyUI's samplers of second order: each step also uses the picture predicted one step before.

Both hold x as a mix of noise and the predicted clean picture and count time as -ln(sigma). Their
first and last steps are Euler's, so that a run may begin at any step of a schedule.
"""

import math
from typing import Protocol

import mlx.core as mx

from .samplers import Euler, SamplerStep

Weights = tuple[float, float, float]
"""The shares of the latents, of the clean picture predicted now, and of the one before."""


class Extrapolation(Protocol):
    """The weights of a step from `sigma` to `following`, after one from `previous`, all above 0."""

    def __call__(self, previous: float, sigma: float, following: float) -> Weights: ...


class Multistep(Euler):
    """A sampler that remembers the clean picture which the step before predicted."""

    def __init__(self, extrapolation: Extrapolation):
        self._extrapolation = extrapolation
        self._before: tuple[float, mx.array] | None = None  # the level, and the clean picture

    def step(self, latents: mx.array, velocity: mx.array, step: SamplerStep) -> mx.array:
        clean = latents - step.sigma * velocity
        before, self._before = self._before, (step.sigma, clean)
        ratio = step.next_sigma / step.sigma
        if before is None or not before[0] > step.sigma > step.next_sigma > 0:
            return ratio * latents + (1 - ratio) * clean
        now, new, old = self._extrapolation(before[0], step.sigma, step.next_sigma)
        return now * latents + new * clean + old * before[1]


class ResMultistep(Multistep):
    """res_multistep: an exponential integrator of second order."""

    def __init__(self) -> None:
        super().__init__(res_weights)


class Dpmpp2M(Multistep):
    """dpmpp_2m: DPM-Solver++(2M)."""

    def __init__(self) -> None:
        super().__init__(dpmpp_weights)


def res_weights(previous: float, sigma: float, following: float) -> Weights:
    h = math.log(sigma / following)
    back = math.log(sigma / previous) / h  # the place of the step before, in steps; below 0
    phi1 = math.expm1(-h) / -h
    phi2 = (phi1 - 1) / -h
    return following / sigma, h * (phi1 - phi2 / back), h * phi2 / back


def dpmpp_weights(previous: float, sigma: float, following: float) -> Weights:
    h = math.log(sigma / following)
    ratio = math.log(previous / sigma) / h  # of the step before to this one
    share = -math.expm1(-h)
    old = -share / (2 * ratio)
    return following / sigma, share - old, old
