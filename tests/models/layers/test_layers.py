"""Quantized layers and attention: two ways to the same numbers, and which is taken."""

from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mlx_zimage.models.layers import linear as layers
from mlx_zimage.models.layers import quantized
from mlx_zimage.models.layers.linear import Linear


def _layer(mode: str, bits: int, group: int, bias: bool = True) -> nn.Module:
    layer = Linear(256, 128, bias=bias)
    layer.weight = mx.random.normal((128, 256), key=mx.random.key(0)) * 0.1
    if bias:
        layer.bias = mx.random.normal((128,), key=mx.random.key(1))
    return layer.to_quantized(group_size=group, bits=bits, mode=mode)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("mode", "bits", "group"),
    [("affine", 3, 64), ("affine", 4, 32), ("affine", 8, 128), ("mxfp4", 4, 32), ("nvfp4", 4, 16)],
)
def test_unpacked_or_not(
    mode: str, bits: int, group: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relative error is at most 3.0e-7, in float32."""
    layer, x = _layer(mode, bits, group, bias), mx.random.normal((2, 9, 256), key=mx.random.key(2))
    found = []
    for least in (1, 1000):
        monkeypatch.setattr(quantized, "_unpacks_from", lambda *_, least=least: least)
        found.append(layer(x))
    assert found[0].shape == (2, 9, 128) and found[0].dtype == found[1].dtype
    error = mx.linalg.norm(found[0] - found[1]) / mx.linalg.norm(found[1])
    print(f"{mode} {bits}: {error.item():.1e}")
    assert error.item() < 1e-6


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize(
    ("mode", "bits", "group"),
    [("affine", 3, 64), ("affine", 4, 32), ("affine", 4, 128), ("affine", 8, 64), ("mxfp8", 8, 32)],
)
def test_unpacks_as_mlx_does(mode: str, bits: int, group: int, dtype: mx.Dtype) -> None:
    """To the bit."""
    matrix = mx.random.normal((12, 256), key=mx.random.key(0)).astype(dtype)
    words, scales, *bias = mx.quantize(matrix, group, bits, mode=mode)
    given = words, scales, bias[0] if bias else None, group, bits
    expected = mx.dequantize(*given, mode=mode, dtype=dtype)
    found = quantized.unpack(*given, mode, dtype)
    assert found.dtype == dtype and mx.array_equal(found, expected)


def test_measured_once_on_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    quantized._unpacks_from.cache_clear()
    kept, runs = quantized._seconds, []
    monkeypatch.setattr(quantized, "_seconds", lambda *given: runs.append(1) or kept(*given))
    layer = _layer("affine", 4, 64)
    for _ in range(3):
        layer(mx.ones((600, 256)))
    assert 2 <= len(runs) <= 6
    found = quantized._unpacks_from("affine", 4, 64, mx.float32, str(mx.default_device()))
    print(f"unpacks from {found} rows")
    if mx.default_device().type == mx.DeviceType.cpu:
        assert found <= 64  # measured: 8, and 50 times as fast at 1024


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_parts(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of unequal size too. Measured on a CPU: 0."""
    q, k, v = (mx.random.normal((2, 3, 50, 16), key=mx.random.key(i)) for i in range(3))
    mask = mx.arange(50) < mx.array([50, 41])[:, None, None, None] if masked else None
    whole = layers.attention(q, k, v, scale=0.25, mask=mask)
    mx.eval(whole)
    monkeypatch.setattr(layers, "SCORES", 2500)
    sizes: list[int] = []
    kept = mx.fast.scaled_dot_product_attention

    def watched(q: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        sizes.append(q.shape[2])
        return kept(q, *args, **kwargs)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", watched)
    parts = layers.attention(q, k, v, scale=0.25, mask=mask)
    assert sizes == [9, 9, 9, 9, 9, 5]
    error = mx.abs(parts - whole).max().item()
    print(f"{error:.1e}")
    assert error < 1e-6
