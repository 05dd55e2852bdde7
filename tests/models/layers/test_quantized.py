"""Quantized layers: two ways to the same numbers, and which is taken."""

import math
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mlx_zimage.models.layers import quantized
from mlx_zimage.models.layers.linear import Linear
from mlx_zimage.models.layers.quantized import unpacks_from
from tests.measures import pretend, relative_error

PACKINGS = [
    *(("affine", bits, 64) for bits in (2, 3, 4, 5, 6, 8)),
    ("affine", 4, 32),
    ("affine", 8, 128),
    ("mxfp4", 4, 32),
    ("mxfp8", 8, 32),
    ("nvfp4", 4, 16),
]


def _layer(mode: str, bits: int, group_size: int, bias: bool = True) -> nn.Module:
    layer = Linear(256, 128, bias=bias)
    layer.weight = mx.random.normal((128, 256), key=mx.random.key(0)) * 0.1
    if bias:
        layer.bias = mx.random.normal((128,), key=mx.random.key(1))
    return layer.to_quantized(group_size=group_size, bits=bits, mode=mode)


def _unpacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many rows of a matrix are unpacked each time."""
    rows: list[int] = []
    function = quantized.unpack

    def watched(words: mx.array, *args: Any) -> mx.array:
        rows.append(len(words))
        return function(words, *args)

    monkeypatch.setattr(quantized, "unpack", watched)
    return rows


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("mode", "bits", "group_size"), PACKINGS)
def test_both_ways_give_the_same(
    mode: str, bits: int, group_size: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relative error is at most 3.0e-7, in float32."""
    layer = _layer(mode, bits, group_size, bias)
    x = mx.random.normal((2, 9, 256), key=mx.random.key(2))
    monkeypatch.setattr(quantized, "unpacks_from", lambda *_: math.inf)
    by_kernel = layer(x)
    monkeypatch.setattr(quantized, "unpacks_from", lambda *_: 1)
    monkeypatch.setattr(quantized, "UNPACKED", 50 * 256)
    rows = _unpacks(monkeypatch)
    unpacked = layer(x)
    assert rows == [50, 50, 28]
    assert unpacked.shape == (2, 9, 128) and unpacked.dtype == by_kernel.dtype
    error = relative_error(unpacked, by_kernel)
    print(f"{mode} {bits}: {error:.1e}")
    assert error < 1e-6


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize(("mode", "bits", "group_size"), PACKINGS)
def test_unpacks_as_mlx_does(mode: str, bits: int, group_size: int, dtype: mx.Dtype) -> None:
    """The numbers agree to the bit."""
    matrix = mx.random.normal((12, 256), key=mx.random.key(0)).astype(dtype)
    words, scales, *biases = mx.quantize(matrix, group_size, bits, mode=mode)
    packed = words, scales, biases[0] if biases else None, group_size, bits
    expected = mx.dequantize(*packed, mode=mode, dtype=dtype)
    unpacked = quantized.unpack(*packed, mode, dtype)
    assert unpacked.dtype == dtype and mx.array_equal(unpacked, expected)


def test_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> float:
        raise AssertionError("a layer looked at the clock")

    monkeypatch.setattr("time.perf_counter", refuse)
    monkeypatch.setattr(mx, "quantize", refuse)
    layer = Linear(256, 128)
    monkeypatch.undo()
    layer = _layer("affine", 4, 64)
    monkeypatch.setattr("time.perf_counter", refuse)
    monkeypatch.setattr(mx, "quantize", refuse)
    mx.eval(layer(mx.ones((600, 256))))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize(("mode", "bits", "group_size"), PACKINGS)
def test_a_cpu_unpacks_for_a_picture(
    mode: str, bits: int, group_size: int, dtype: mx.Dtype
) -> None:
    """A sequence has at least 32 rows, and the kernel is up to 50 times slower with many."""
    assert unpacks_from(mode, bits, dtype) <= 32


@pytest.mark.parametrize(
    ("architecture", "rows", "unpacks"),
    [
        ("applegpu_g13s", 1024, True),
        ("applegpu_g14g", 1024, True),
        ("applegpu_g14g", 1023, False),
        ("applegpu_g15s", 4096, False),
        ("applegpu_g17s", 4096, False),
        ("applegpu_vm", 4096, False),
    ],
)
def test_on_metal(
    architecture: str, rows: int, unpacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = _layer("affine", 4, 64), mx.random.normal((1, rows, 256), key=mx.random.key(2))
    expected = layer(x)
    mx.eval(expected)
    pretend(monkeypatch, architecture)
    monkeypatch.setattr(quantized, "UNPACKED", 256)
    unpacked = _unpacks(monkeypatch)
    with monkeypatch.context() as patch:
        patch.delattr(mx, "eval")  # nothing is evaluated in a layer on a GPU
        out = layer(x)
    assert unpacked == ([128] if unpacks else [])  # the whole matrix
    assert relative_error(out, expected) < 1e-6


@pytest.mark.parametrize(
    ("mode", "bits"), [("affine", 4), ("affine", 8), ("mxfp8", 8), ("nvfp4", 4)]
)
def test_tuned_kernels_on_cuda(mode: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "sm_90")
    assert unpacks_from(mode, bits, mx.bfloat16) == math.inf
    assert unpacks_from(mode, bits, mx.float16) == math.inf
    assert unpacks_from(mode, bits, mx.float32) == 64


@pytest.mark.parametrize("bits", [2, 3, 5, 6])
def test_plain_kernels_on_cuda(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "sm_90")
    assert unpacks_from("affine", bits, mx.bfloat16) == 64
