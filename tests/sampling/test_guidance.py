"""Guidance by hand, on numbers small enough to follow."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.sampling.guidance import applies, guide

POSITIVE = mx.array([[3.0, 4.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)  # lengths 5 and 1
NEGATIVE = mx.array([[0.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)


def test_pushes_away_from_the_negative() -> None:
    guided = guide(POSITIVE, NEGATIVE, 2.0)
    assert guided.reshape(2, 2).tolist() == [[9.0, 12.0], [0.0, 1.0]]


def test_normalization_cuts_each_sample_to_its_own_length() -> None:
    guided = guide(POSITIVE, NEGATIVE, 2.0, normalization=1.0)
    assert np.allclose(guided.reshape(2, 2), [[3.0, 4.0], [0.0, 1.0]])
    guided = guide(POSITIVE, NEGATIVE, 2.0, normalization=2.0)
    assert np.allclose(guided.reshape(2, 2), [[6.0, 8.0], [0.0, 1.0]])
    guided = guide(POSITIVE, NEGATIVE, 2.0, normalization=5.0)
    assert np.allclose(guided.reshape(2, 2), [[9.0, 12.0], [0.0, 1.0]])


def test_is_float32() -> None:
    guided = guide(POSITIVE.astype(mx.bfloat16), NEGATIVE.astype(mx.bfloat16), 0.3, 1.0)
    assert guided.dtype == mx.float32


@pytest.mark.parametrize(
    ("guidance", "truncation", "time", "expected"),
    [
        (0.0, 1.0, 0.5, False),
        (4.0, 1.0, 0.5, True),
        (4.0, 0.5, 0.5, True),  # only past it
        (4.0, 0.5, 0.51, False),
        (4.0, 0.0, 0.0, True),
        (4.0, 2.0, 0.99, True),  # above 1: never
    ],
)
def test_where_it_acts(guidance: float, truncation: float, time: float, expected: bool) -> None:
    assert applies(guidance, truncation, time) is expected
