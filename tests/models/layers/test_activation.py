"""SwiGLU: the same bits in one pass."""

import mlx.core as mx
import pytest
from mlx import nn

from mlx_zimage.models.layers.activation import swiglu


@pytest.mark.parametrize(
    "dtype", [mx.float32, mx.bfloat16, pytest.param(mx.float16, marks=pytest.mark.slow)], ids=str
)
def test_to_the_bit(dtype: mx.Dtype) -> None:
    gate, up = (mx.random.normal((7, 40), key=mx.random.key(i)).astype(dtype) for i in range(2))
    out = swiglu(gate, up)
    assert out.dtype == dtype
    assert mx.array_equal(out, nn.silu(gate) * up)
    out = swiglu(gate, up, 2.0**-8)
    assert out.dtype == dtype
    assert mx.array_equal(out, nn.silu(gate) * (up * 2.0**-8))


def test_the_factor_comes_before_float16_ends() -> None:
    gate = up = mx.full((3,), 1000.0, mx.float16)  # a million is past 65504
    assert mx.isinf(swiglu(gate, up)).all()
    assert swiglu(gate, up, 2.0**-8).tolist() == [3906.0] * 3
