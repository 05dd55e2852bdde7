"""Updates that a file holds twice under two names: told from two different ones.

Some programs write a fused matrix and its three parts, which say the same. Adding both would
double the LoRA.
"""

import mlx.core as mx
import numpy as np

from .forms import Change, Form, LowRank, Magnitude, VectorChange

ROUNDING = 0.02
"""The difference of two updates that is due to 16 bit, relative to them."""


def are_same(one: Change | VectorChange, other: Change | VectorChange) -> bool:
    """Return whether two changes of a module are equal but for their rounding."""
    if isinstance(one, Change) and isinstance(other, Change):
        return _equal(one.bias, other.bias) and _same_forms(one.form, other.form)
    return _equal(one, other)


def _same_forms(one: Form | None, other: Form | None) -> bool:
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        return _near(one, other)
    if isinstance(one, Magnitude) and isinstance(other, Magnitude):
        lengths = _equal(one.magnitude, other.magnitude) and one.axis == other.axis
        return lengths and _same_forms(one.inner, other.inner)
    return _equal(one, other)


def _near(one: LowRank, other: LowRank) -> bool:
    """Compare two products of low rank, by sums of products of their factors."""
    a, b = _factors(one), _factors(other)
    squares, crossed = _inner(a, a), _inner(a, b)
    difference = squares - 2 * crossed + _inner(b, b)
    return bool(difference <= ROUNDING**2 * squares)


def _factors(form: LowRank) -> tuple[np.ndarray, np.ndarray]:
    down, up = (np.array(a.astype(mx.float32), np.float64) for a in (form.down, form.up))
    return down, up * form.scale


def _inner(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the sum of the products of two updates' numbers."""
    return float(((a[0] @ b[0].T) * (a[1].T @ b[1])).sum())


def _equal(one: object, other: object) -> bool:
    """Compare two changes as they are stored."""
    if type(one) is not type(other):
        return False
    if isinstance(one, mx.array) and isinstance(other, mx.array):
        return one.shape == other.shape and bool(mx.array_equal(one, other))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return all(_equal(getattr(one, f), getattr(other, f)) for f in one.__dataclass_fields__)
    return one == other
