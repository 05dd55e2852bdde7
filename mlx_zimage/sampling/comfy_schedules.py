"""ComfyUI's schedules: the noise levels that each name picks, from 1 down, without the final 0.

All start from one table: 1000 levels evenly spaced in time, moved up by the shift. Levels are
float64; beta's quantiles are computed here, so that no statistics package is needed.
"""

import math
from collections.abc import Callable

import numpy as np

TABLE = 1000  # levels in the table
BETA = 0.6  # both parameters of the beta schedule's distribution
NEGLIGIBLE = 1e-5  # a level that counts as 0

Levels = Callable[[float, int], np.ndarray]  # of a shift and a number of steps


def shifted(levels: np.ndarray, shift: float) -> np.ndarray:
    """Move levels between 0 and 1 up (a shift above 1) or down (below 1)."""
    return np.asarray(shift * levels / (1 + (shift - 1) * levels))


def _table(shift: float) -> np.ndarray:
    return shifted(np.arange(1, TABLE + 1) / TABLE, shift)  # rising


def simple(shift: float, steps: int) -> np.ndarray:
    """Pick evenly from the table; nearly the published schedule."""
    places = [TABLE - 1 - int(step * (TABLE / steps)) for step in range(steps)]
    return _table(shift)[places]


def sgm_uniform(shift: float, steps: int) -> np.ndarray:
    """Space levels evenly over the table's range, then shift them once more."""
    return _evenly(shift, steps + 1)[:-1]


def normal(shift: float, steps: int) -> np.ndarray:
    """Space levels like sgm_uniform, down to the table's lowest."""
    if _evenly(shift, 2)[-1] < NEGLIGIBLE:  # the last step would do nothing
        return sgm_uniform(shift, steps)
    return _evenly(shift, steps)


def _evenly(shift: float, points: int) -> np.ndarray:
    table = _table(shift)
    return shifted(np.linspace(table[-1], table[0], points), shift)


def beta(shift: float, steps: int) -> np.ndarray:
    """Pick densely at both ends of the table. Steps that pick the same level become one."""
    shares = [1 - step / steps for step in range(steps)]
    places = [round(beta_quantile(share, BETA) * (TABLE - 1)) for share in shares]
    return _table(shift)[list(dict.fromkeys(places))]


def beta_quantile(share: float, parameter: float) -> float:
    """Return the number below which a symmetric beta distribution has this share."""
    if share > 0.5:
        return 1 - beta_quantile(1 - share, parameter)
    if share in (0, 0.5):  # exact, as rounding to a place in the table depends on it
        return share
    low, high = 0.0, 0.5
    while low < (middle := (low + high) / 2) < high:
        if _beta_share(middle, parameter) < share:
            low = middle
        else:
            high = middle
    return high


def _beta_share(x: float, parameter: float) -> float:
    """Return the share below x, at most 1/2, by the power series, which converges as 2^-n."""
    total, coefficient, term = 0.0, 1.0, 1.0
    n = 0
    while abs(term) > 1e-18:
        term = coefficient / (parameter + n)
        total += term
        n += 1
        coefficient *= (n - parameter) / n * x
    complete = math.gamma(parameter) ** 2 / math.gamma(2 * parameter)
    return float(x**parameter * total / complete)


COMFY: dict[str, Levels] = {
    "simple": simple,
    "sgm_uniform": sgm_uniform,
    "normal": normal,
    "beta": beta,
}
"""ComfyUI's schedules by name."""
