"""Normalized attention guidance (NAG): a negative caption's pull inside each attention.

The sequence carries both captions: [image, caption, negative caption]. The image attends once
beside either, and the difference of the two results, limited in length, is followed further. The
negative caption goes its own way through the blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

TINY = 1e-7  # keeps a division by a length from failing
UNDEFINED = 10.0  # the ratio to a length of 0

Attend = Callable[[mx.array, mx.array, mx.array], mx.array]


@dataclass(frozen=True)
class AttentionGuidance:
    """How strongly attention is led away from the negative caption."""

    scale: float
    tau: float  # the longest that the result may be, in lengths of the plain one
    alpha: float  # the share of the result; the rest is plain

    def guide(self, plain: mx.array, negative: mx.array) -> mx.array:
        """Lead one result (B, H, L, D) away from the other, in float32: sums leave float16."""
        a, b = plain.astype(mx.float32), negative.astype(mx.float32)
        guided = self.scale * a + (1 - self.scale) * b
        before, after = _length(a), _length(guided)
        ratio = mx.where((before == 0) & (after == 0), UNDEFINED, after / before)
        limited = guided * (before * self.tau / (after + TINY))
        guided = mx.where(ratio > self.tau, limited, guided)
        return (self.alpha * guided + (1 - self.alpha) * a).astype(plain.dtype)


@dataclass(frozen=True)
class Negative:
    """The negative captions of a batch, and how they act."""

    captions: mx.array  # (B, Lc, dim), refined, as long as the positive ones
    guidance: AttentionGuidance

    def attend(self, attend: Attend, *qkv: mx.array) -> mx.array:
        """Attend with queries, keys and values (B, H, Lx + 2 Lc, D), the negative's last."""
        length = self.captions.shape[1]
        plain = attend(*(a[:, :, :-length] for a in qkv))
        image_and_negative = (
            mx.concatenate([a[:, :, : -2 * length], a[:, :, -length:]], axis=2) for a in qkv
        )
        other = attend(*image_and_negative)
        guided = self.guidance.guide(plain, other)
        return mx.concatenate([guided, other[:, :, -length:]], axis=2)


def _length(x: mx.array) -> mx.array:
    """Return the sum of absolute values of each token, over all heads."""
    return mx.abs(x).sum(axis=(1, 3), keepdims=True)
