"""Attention in one call or in several, by the device."""

from typing import Any

import mlx.core as mx
import pytest

from mlx_zimage.models.layers import attention as layers
from mlx_zimage.models.layers.attention import attention, is_fused
from tests.measures import pretend


def _arrays(length: int = 50, width: int = 16) -> list[mx.array]:
    return [mx.random.normal((2, 3, length, width), key=mx.random.key(i)) for i in range(3)]


def _calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many queries each call of MLX's attention takes."""
    sizes: list[int] = []
    function = mx.fast.scaled_dot_product_attention

    def watched(q: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        sizes.append(q.shape[2])
        return function(q, *args, **kwargs)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", watched)
    return sizes


def _no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arrays: Any) -> None:
        raise AssertionError("evaluated inside a layer")

    monkeypatch.setattr(mx, "eval", refuse)


@pytest.mark.parametrize("masked", [False, True])
def test_in_parts_where_scores_are_kept(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of unequal size too. Measured on a CPU: 0."""
    q, k, v = _arrays()
    keys = mx.arange(50) < mx.array([50, 41])[:, None, None, None]
    mask = mx.where(keys, 0.0, -mx.inf) if masked else None
    at_once = attention(q, k, v, scale=0.25, mask=mask)
    mx.eval(at_once)
    monkeypatch.setattr(layers, "SCORES", 2500)
    sizes = _calls(monkeypatch)
    parts = attention(q, k, v, scale=0.25, mask=mask)
    assert sizes == [9, 9, 9, 9, 9, 5]
    error = mx.abs(parts - at_once).max().item()
    print(f"{error:.1e}")
    assert error < 1e-6


@pytest.mark.parametrize("architecture", ["applegpu_g13s", "sm_90"])
def test_no_call_on_a_gpu_is_too_long(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers end what runs for seconds; layers evaluate nothing there."""
    q, k, v = (x.astype(mx.bfloat16) for x in _arrays(300, 64))
    at_once = attention(q, k, v, scale=0.125)
    mx.eval(at_once)
    pretend(monkeypatch, architecture)
    monkeypatch.setattr(layers, "CALL_FLOPS", 4 * 2 * 3 * 300 * 64 * 100)  # of 100 queries
    sizes = _calls(monkeypatch)
    with monkeypatch.context() as patch:
        _no_evaluation(patch)
        parts = attention(q, k, v, scale=0.125)
    assert sizes == [128, 128, 44]  # of as many queries as a kernel takes at once
    assert mx.allclose(parts, at_once, atol=1e-2)


@pytest.mark.parametrize(("side", "calls"), [(1024, 1), (2048, 5), (4096, 65)])
def test_calls_at_a_pictures_size(side: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "applegpu_g14g")
    sizes = _calls(monkeypatch)
    length = (side // 16) ** 2 + 32
    q = mx.zeros((1, 30, length, 128), mx.bfloat16)
    assert attention(q, q, q, scale=0.1).shape == q.shape  # a graph: nothing is computed
    assert len(sizes) == calls and sum(sizes) == length
    assert 4 * 30 * max(sizes) * length * 128 < 1.1e12


def test_wide_heads_keep_scores_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "applegpu_g16s")
    sizes = _calls(monkeypatch)
    _no_evaluation(monkeypatch)
    q = mx.zeros((1, 1, 128 * 128, 512), mx.bfloat16)  # the autoencoder's, at 1024 x 1024
    attention(q, q, q, scale=0.1)
    assert len(sizes) == 16


@pytest.mark.parametrize(
    ("architecture", "width", "dtype", "fused"),
    [
        ("applegpu_g13g", 128, mx.bfloat16, True),
        ("applegpu_g13g", 128, mx.float32, True),
        ("applegpu_g13g", 512, mx.bfloat16, False),
        ("sm_90", 128, mx.bfloat16, True),
        ("sm_80", 128, mx.float16, True),
        ("sm_75", 128, mx.float16, False),
        ("sm_90", 128, mx.float32, False),
        ("sm_100", 128, mx.bfloat16, True),
        ("sm_unknown", 128, mx.bfloat16, False),
        (None, 128, mx.bfloat16, False),
    ],
)
def test_what_is_fused(
    architecture: str | None,
    width: int,
    dtype: mx.Dtype,
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if architecture:
        pretend(monkeypatch, architecture)
    assert is_fused(width, dtype) is fused
