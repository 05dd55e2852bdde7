"""ComfyUI's schedules: against its formulas written anew, and numbers that it gave."""

from itertools import pairwise

import numpy as np
import pytest

from mlx_zimage.sampling.comfy_schedules import COMFY, beta_quantile
from mlx_zimage.sampling.schedule import SchedulerConfig, make_schedule

TURBO = SchedulerConfig(shift=3.0)
RAN = {  # by ComfyUI, shift 3, 4 steps
    "simple": [1, 0.9, 0.75, 0.5, 0],
    "sgm_uniform": [1, 0.90036, 0.75112, 0.50299, 0],
    "normal": [1, 0.85769, 0.60215, 0.00893, 0],
    "beta": [1, 0.93353, 0.75075, 0.39217, 0],
}
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(100)
BETA_8 = [1, 0.98025, 0.93353, 0.85952, 0.75075, 0.59639, 0.39217, 0.15591, 0]


@pytest.mark.parametrize("name", COMFY)
def test_what_comfyui_gave(name: str) -> None:
    assert make_schedule(TURBO, 4, 256, name).sigmas == pytest.approx(RAN[name], abs=6e-6)


def test_beta_of_eight_steps() -> None:
    assert make_schedule(TURBO, 8, 256, "beta").sigmas == pytest.approx(BETA_8, abs=6e-6)


def _share(x: float) -> float:
    """Return a Beta(0.6, 0.6) distribution's share below x, by Gauss's rule.

    With u = y^0.6 the integrand loses its pole at 0; symmetry avoids the one at 1.
    """
    if x > 0.5:
        return 1 - _share(1 - x)
    return _integral(x) / (2 * _integral(0.5))


def _integral(end: float) -> float:
    top = end**0.6
    u = top * (POINTS + 1) / 2
    return float(top / 2 * WEIGHTS @ ((1 - u ** (1 / 0.6)) ** -0.4 / 0.6))


def test_quantiles_of_beta() -> None:
    for share in np.linspace(0, 1, 101)[1:-1]:
        assert _share(beta_quantile(float(share), 0.6)) == pytest.approx(share, abs=1e-11)
    assert [beta_quantile(share, 0.6) for share in (0.0, 0.5, 1.0)] == [0, 0.5, 1]
    # Known in closed form: the arcsine distribution, and the uniform one.
    for share in (0.1, 0.3, 0.77):
        assert beta_quantile(share, 0.5) == pytest.approx(np.sin(np.pi * share / 2) ** 2, 1e-12)
        assert beta_quantile(share, 1.0) == pytest.approx(share, 1e-12)


def _comfy(name: str, shift: float, steps: int) -> list[float]:
    """Write ComfyUI's rules out, one level at a time."""

    def sigma(t: float) -> float:
        return shift * t / (1 + (shift - 1) * t)

    low, high = sigma(1 / 1000), sigma(1.0)
    if name == "simple":
        return [sigma((1000 - int(x * 1000 / steps)) / 1000) for x in range(steps)]
    if name in ("sgm_uniform", "normal"):
        points = steps + 1 if name == "sgm_uniform" else steps
        gap = (high - low) / max(points - 1, 1)
        return [sigma(high - gap * i) for i in range(steps)]
    levels: list[float] = []
    for i in range(steps):
        wanted = 1 - i / steps
        left, right = 0.0, 1.0  # by halving, on the share that Gauss's rule gives
        for _ in range(40):
            middle = (left + right) / 2
            left, right = (middle, right) if _share(middle) < wanted else (left, middle)
        place = np.rint(np.round(right, 9) * 999)
        level = sigma((place + 1) / 1000)
        if level not in levels:
            levels.append(level)
    return levels


@pytest.mark.parametrize("name", COMFY)
@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 8, 50])
def test_formulas(name: str, shift: float, steps: int) -> None:
    levels = COMFY[name](shift, steps)
    assert levels.dtype == np.float64
    assert levels == pytest.approx(_comfy(name, shift, steps), abs=1e-12)


@pytest.mark.parametrize("name", COMFY)
@pytest.mark.parametrize("shift", [0.01, 1.0, 3.0, 100.0])
def test_levels_fall_from_one_to_above_zero(name: str, shift: float) -> None:
    for steps in (1, 3, 8, 300):
        levels = COMFY[name](shift, steps)
        assert np.float32(levels[0]) == 1 and levels[-1] > 0
        assert all(a > b for a, b in pairwise(levels))
        assert len(levels) == steps or name == "beta"


def test_beta_drops_steps_that_repeat() -> None:
    assert len(make_schedule(TURBO, 1000, 256, "beta")) == 847


def test_a_shift_by_size() -> None:
    config = SchedulerConfig(use_dynamic_shifting=True)
    sigmas = make_schedule(config, 2, 4096, "simple").sigmas
    assert sigmas[1] == pytest.approx(np.exp(1.15) / (np.exp(1.15) + 1), rel=1e-6)
