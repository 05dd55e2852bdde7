"""Scaled dot-product attention, in as many calls as memory and the GPU's driver ask for."""

from math import ceil

import mlx.core as mx

from ... import device
from .evaluation import evaluate_on_cpu

FUSED_WIDTHS = (64, 80, 128)  # of a head, that MLX's fused kernels take on every GPU
FUSED_FROM = (8, 0)  # compute capability, on CUDA
SCORES = 1 << 24  # that are held at once, where no fused kernel runs
CALL_FLOPS = 1e12  # of one call on a GPU: drivers end what runs for seconds
QUERY_BLOCK = 64  # queries that a fused kernel takes at once


def attention(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | None = None
) -> mx.array:
    """Return the attention of queries, keys and values, each (B, H, L, D).

    `mask` is added to the scores; it is over keys alone: (B, 1, 1, L).
    """
    length, at_once = q.shape[2], _queries_at_once(q, k)
    if at_once >= length:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    parts = []
    for start in range(0, length, at_once):
        queries = q[:, :, start : start + at_once]
        parts.append(mx.fast.scaled_dot_product_attention(queries, k, v, scale=scale, mask=mask))
        evaluate_on_cpu(parts[-1])
    return mx.concatenate(parts, axis=2)


def is_fused(width: int, dtype: mx.Dtype) -> bool:
    """Tell whether the device computes attention with heads of this width without keeping scores.

    CUDA's fused kernel is for 16 bit.
    """
    kind = device.kind()
    if kind == "cuda":
        capability = device.compute_capability() or (0, 0)
        return width in FUSED_WIDTHS and dtype != mx.float32 and capability >= FUSED_FROM
    return kind == "metal" and width in FUSED_WIDTHS


def _queries_at_once(q: mx.array, k: mx.array) -> int:
    b, heads, length, width = q.shape
    scores = b * heads * length * k.shape[2]
    fused = is_fused(width, q.dtype)
    parts = 1 if fused else ceil(scores / SCORES)
    if device.kind() != "cpu":
        parts = max(parts, ceil(4 * scores * width / CALL_FLOPS))
    at_once = ceil(length / parts)
    return ceil(at_once / QUERY_BLOCK) * QUERY_BLOCK if fused else at_once
