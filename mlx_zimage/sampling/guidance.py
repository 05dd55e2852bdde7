"""Classifier-free guidance as diffusers' Z-Image pipeline does it.

A guidance of g here is ComfyUI's cfg of g + 1.
"""

import mlx.core as mx


def applies(guidance: float, truncation: float, time: float) -> bool:
    """Whether the step at the model's `time` (0 noise, 1 clean) is guided."""
    return guidance > 0 and not (truncation <= 1 and time > truncation)


def guide(
    positive: mx.array, negative: mx.array, guidance: float, normalization: float = 0.0
) -> mx.array:
    """Push away from the negative prediction, in float32; (B, C, H, W).

    With a normalization c > 0, a sample longer than c times its positive prediction is cut to that.
    """
    positive, negative = positive.astype(mx.float32), negative.astype(mx.float32)
    guided = positive + guidance * (positive - negative)
    if normalization > 0:
        longest = _norm(positive) * normalization
        norm = _norm(guided)
        guided = mx.where(norm > longest, guided * (longest / norm), guided)
    return guided


def _norm(x: mx.array) -> mx.array:
    return mx.sqrt(mx.square(x).sum(axis=(1, 2, 3), keepdims=True))
