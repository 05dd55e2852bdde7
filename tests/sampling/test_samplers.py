"""Samplers against their formulas, written anew in float64."""

from collections.abc import Callable
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.generation.sampling import NOISY_SAMPLERS, SAMPLERS
from mlx_zimage.sampling.ancestral import ancestral_weights
from mlx_zimage.sampling.multistep import dpmpp_weights, res_weights
from mlx_zimage.sampling.noise import NoiseStream, torch_cpu
from mlx_zimage.sampling.samplers import Sampler
from mlx_zimage.sampling.schedule import SCHEDULES, Schedule, SchedulerConfig, make_schedule
from mlx_zimage.sampling.twinflow import twinflow_schedule

TURBO = SchedulerConfig(shift=3.0)
SHAPE = (2, 16, 4, 6)
START = np.random.RandomState(0).standard_normal(SHAPE)
SEED = 11
Model = Callable[[np.ndarray, float], np.ndarray]  # the clean picture, of latents at a level


def _sampler(name: str) -> Sampler:
    if name in SAMPLERS:
        return SAMPLERS[name]()
    return NOISY_SAMPLERS[name](NoiseStream("torch-cpu", SEED))


def _velocity(x: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(np.sin(2 * x) * (1 + sigma) - 0.3 * x)


def _ours(name: str, schedule: Schedule) -> np.ndarray:
    sampler = _sampler(name)
    x = mx.array(START.astype(np.float32))
    for step in sampler.steps(schedule):
        velocity = mx.sin(2 * x) * (1 + step.sigma) - 0.3 * x
        x = sampler.step(x, velocity, step)
    assert x.dtype == mx.float32
    return np.array(x)


def _clean(x: np.ndarray, sigma: float) -> np.ndarray:
    return x - sigma * _velocity(x, sigma)


def _noises() -> Callable[[], np.ndarray]:
    stream = NoiseStream("torch-cpu", SEED)
    return lambda: np.array(stream.draw(SHAPE), np.float64)


def euler(sigmas: list[float]) -> np.ndarray:
    x = START.copy()
    for s, t in pairwise(sigmas):
        d = (x - _clean(x, s)) / s
        x = x + d * (t - s)
    return x


def euler_ancestral(sigmas: list[float], eta: float = 1.0) -> np.ndarray:
    x, noise = START.copy(), _noises()
    for s, t in pairwise(sigmas):
        denoised = _clean(x, s)
        if t == 0:
            x = denoised
            continue
        down = t * (1 + (t / s - 1) * eta)
        alpha, alpha_down = 1 - t, 1 - down
        renoise = (t**2 - down**2 * alpha**2 / alpha_down**2) ** 0.5
        x = down / s * x + (1 - down / s) * denoised
        x = alpha / alpha_down * x + noise() * renoise
    return x


def res_multistep(sigmas: list[float]) -> np.ndarray:
    x = START.copy()
    old: np.ndarray | None = None
    for i, (s, t) in enumerate(pairwise(sigmas)):
        denoised = _clean(x, s)
        if t == 0 or old is None:
            x = x + (x - denoised) / s * (t - s)
        else:
            now, following, previous = -np.log(s), -np.log(t), -np.log(sigmas[i - 1])
            h = following - now
            c2 = (previous - now) / h
            phi1 = np.expm1(-h) / -h
            phi2 = (phi1 - 1) / -h
            b1, b2 = phi1 - phi2 / c2, phi2 / c2
            x = np.exp(-h) * x + h * (b1 * denoised + b2 * old)
        old = denoised
    return x


def dpmpp_2m(sigmas: list[float]) -> np.ndarray:
    x = START.copy()
    old: np.ndarray | None = None
    for i, (s, t) in enumerate(pairwise(sigmas)):
        denoised = _clean(x, s)
        if t == 0:
            x = denoised
        else:
            h = np.log(s) - np.log(t)
            mixed = denoised
            if old is not None:
                r = (np.log(sigmas[i - 1]) - np.log(s)) / h
                mixed = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old
            x = t / s * x - np.expm1(-h) * mixed
        old = denoised
    return x


def twinflow(sigmas: list[float]) -> np.ndarray:
    x, noise = START.copy(), _noises()
    for s, t in pairwise(sigmas):
        x = (1 - t) * _clean(x, s) + (t * noise() if t else 0)
    return x


FORMULAS = {f.__name__: f for f in (euler, euler_ancestral, res_multistep, dpmpp_2m)}


def _error(name: str, schedule: Schedule, formula: Callable[[list[float]], np.ndarray]) -> float:
    expected = formula([float(sigma) for sigma in schedule.sigmas])
    return float(np.linalg.norm(_ours(name, schedule) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("kind", [None, *SCHEDULES])
def test_formulas(
    name: str, kind: str | None, measure: Callable[[str, float, float], None]
) -> None:
    for steps in (2, 8):
        schedule = make_schedule(TURBO, steps, 256, kind)
        measure(f"sampler {name}", _error(name, schedule, FORMULAS[name]), 5e-6)


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_twinflow(steps: int, measure: Callable[[str, float, float], None]) -> None:
    schedule = twinflow_schedule(steps)
    measure("sampler twinflow", _error("twinflow", schedule, twinflow), 1e-6)


def test_levels_of_twinflow() -> None:
    assert twinflow_schedule(2).sigmas == pytest.approx([0.999, 0.6, 0], abs=1e-7)
    four = [0.999, 0.83267, 0.66633, 0.5, 0]
    assert twinflow_schedule(4).sigmas == pytest.approx(four, abs=6e-6)
    steps = _sampler("twinflow").steps(twinflow_schedule(4))
    assert [step.time for step in steps] == pytest.approx([1 - s for s in four[:-1]], abs=6e-6)
    assert {step.target for step in steps} == {0.0}


@pytest.mark.parametrize("name", FORMULAS)
def test_from_the_middle_of_a_schedule(name: str) -> None:
    """Several steps' memory begins anew: as if the levels before did not exist."""
    rest = make_schedule(TURBO, 8, 256).from_step(5)
    assert _error(name, rest, FORMULAS[name]) < 5e-6
    assert len(_sampler(name).steps(rest)) == 3
    last = make_schedule(TURBO, 8, 256).from_step(7)
    assert _error(name, last, FORMULAS[name]) < 5e-6


@pytest.mark.parametrize("name", FORMULAS)
def test_levels_that_are_equal_move_nothing(name: str) -> None:
    schedule = Schedule(np.array([1, 1, 1, 0.5, 0], np.float32))
    assert np.isfinite(_ours(name, schedule)).all()


@pytest.mark.parametrize("name", ["res_multistep", "dpmpp_2m"])
def test_second_order(name: str) -> None:
    """Halving the steps' length divides the error of a smooth run by about four."""

    def run(steps: int) -> float:
        sigmas = [float(s) for s in np.geomspace(0.9, 0.3, steps + 1)]
        weights = res_weights if name == "res_multistep" else dpmpp_weights
        x, old = 1.0, None
        for i, (s, t) in enumerate(pairwise(sigmas)):
            clean = float(np.cos(3 * s))
            if old is None:
                h = np.log(s / t)
                middle = np.cos(3 * np.sqrt(s * t))  # a start that is of second order as well
                x = t / s * x - np.expm1(-h) * middle
            else:
                a, b, c = weights(sigmas[i - 1], s, t)
                x = a * x + b * clean + c * old
            old = clean
        return float(x)

    exact = run(4096)
    errors = [abs(run(n) - exact) for n in (16, 32, 64)]
    assert errors[0] / errors[1] > 3.3 and errors[1] / errors[2] > 3.3


def test_ancestral_keeps_the_level() -> None:
    """A clean picture of 0 with unit noise: the latents' deviation is the next level."""
    for sigma, following in pairwise(make_schedule(TURBO, 8, 256).sigmas[:-1].tolist()):
        ratio, renewal, noise = ancestral_weights(sigma, following)
        deviation = np.hypot(renewal * ratio * sigma, noise)
        assert deviation == pytest.approx(following, rel=1e-6)
        assert renewal * 1.0 * (1 - ratio * sigma) == pytest.approx(1 - following, rel=1e-6)


def test_ancestral_noise_follows_the_seeds_of_each_row() -> None:
    step = _sampler("euler").steps(make_schedule(TURBO, 8, 256))[3]
    x = mx.array(START.astype(np.float32))
    both = NOISY_SAMPLERS["euler_ancestral"](NoiseStream("torch-cpu", (5, 9))).step(x, -x, step)
    for row, seed in enumerate((5, 9)):
        alone = NOISY_SAMPLERS["euler_ancestral"](NoiseStream("torch-cpu", seed))
        single = alone.step(x[row : row + 1], -x[row : row + 1], step)
        assert mx.array_equal(both[row : row + 1], single)
    noise = ancestral_weights(step.sigma, step.next_sigma)[2]
    still = NOISY_SAMPLERS["euler_ancestral"](NoiseStream("torch-cpu", 5)).step(
        mx.zeros(SHAPE), mx.zeros(SHAPE), step
    )
    drawn = torch_cpu(5, int(np.prod(SHAPE))).reshape(SHAPE)
    assert np.array(still) == pytest.approx(noise * drawn, abs=1e-6)
