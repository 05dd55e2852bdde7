"""AdamW and the learning rate against the published formulas, in float64."""

import mlx.core as mx
import numpy as np

from mlx_zimage.training.optimizer import adamw, clipped, learning_rate


def test_adamw() -> None:
    """Loshchilov and Hutter's algorithm 2, with the decay multiplied by the rate as in torch."""
    generator = np.random.RandomState(0)
    theta = generator.standard_normal((3, 4))
    values = {"a": mx.array(theta.astype(np.float32))}
    first = second = {"a": mx.zeros((3, 4))}
    m = v = np.zeros((3, 4))
    for step in range(1, 6):
        gradient = generator.standard_normal((3, 4))
        rate = 0.01 * step
        moved = adamw(
            values, {"a": mx.array(gradient.astype(np.float32))}, first, second,
            mx.array(rate), mx.array(float(step)), 0.1,
        )  # fmt: skip
        values, first, second = moved
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        theta = theta * (1 - rate * 0.1)
        theta = theta - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    # Measured 2.5e-6: 1 - 0.999 has three digits less in float32.
    np.testing.assert_allclose(np.array(values["a"]), theta, rtol=0, atol=1e-5)


def test_a_long_gradient_is_shortened_and_a_short_one_stays() -> None:
    gradients = {"a": mx.array([3.0, 0.0]), "b": mx.array([[4.0]])}
    short, length = clipped(gradients, 1.0)
    assert abs(length.item() - 5) < 1e-6
    np.testing.assert_allclose(np.array(short["b"]), [[0.8]], rtol=1e-6)
    same, _ = clipped(gradients, 6.0)
    assert same["a"].tolist() == [3.0, 0.0] and same["b"].tolist() == [[4.0]]


def test_the_rate_rises_and_falls_along_a_cosine() -> None:
    rates = [learning_rate(step, 110, 2.0, 10) for step in range(110)]
    np.testing.assert_allclose(rates[:11], [*np.arange(0.2, 2.01, 0.2), 2.0])
    assert abs(rates[60] - 1.0) < 1e-12  # half of the way
    assert 0 < rates[-1] < 0.001 and (np.diff(rates[10:]) < 0).all()
