"""The counter of bytes: a kernel counts once, and views do not."""

import mlx.core as mx
import pytest
from mlx import nn

from benchmarks.bytes import block, count
from mlx_zimage.models.layers.activation import swiglu
from mlx_zimage.models.transformer_config import TransformerConfig
from tests.make_checkpoint import KINDS


def test_an_operation_reads_and_writes() -> None:
    launches, moved = count(lambda x: x + x[:, :1], mx.zeros((8, 4)))
    assert launches == {"Add": 1}
    assert moved == {"Add": 4 * (32 + 32)}  # the column is a view of what is read already


def test_a_fused_function_is_one_kernel() -> None:
    x = mx.zeros((8, 4), mx.bfloat16)
    launches, moved = count(lambda x: swiglu(x, nn.silu(x)), x)
    assert launches == {"swiglu": 1, "silu": 1}
    assert moved == {"swiglu": 2 * 32 * 3, "silu": 2 * 32 * 2}


def test_views_and_products_do_not_count() -> None:
    def run(x: mx.array) -> mx.array:
        heads = x.reshape(1, 8, 2, 4).swapaxes(1, 2)
        out = mx.fast.scaled_dot_product_attention(heads, heads, heads[..., ::-1], scale=1.0)
        return out.swapaxes(1, 2).reshape(8, 8) @ x.T

    launches, moved = count(run, mx.zeros((8, 8)))
    assert not launches and not moved


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_a_block(dtype: mx.Dtype) -> None:
    """It moves its stream 22 times, what is as wide as the feed-forward thrice, and the tables."""
    config = TransformerConfig.from_dict(KINDS["even"].transformer)
    run, x = block(config, 256, 40, dtype)
    length = x.shape[1]
    assert length == 256 + 64
    _, moved = count(run, x)
    stream, wide = length * config.dim, length * config.hidden_dim
    tables = 2 * 2 * 4 * length * config.head_dim  # cosines and sines, for queries and keys
    expected = (22 * stream + 3 * wide) * dtype.size + tables
    assert moved.total() == pytest.approx(expected, rel=0.01)  # and the norms' weights
