"""The transformer's blocks, its timestep embedder and its final layer.

Notable:
- scales and gates depend on the time alone, and stand beside the weight of a norm: `modulate`
  multiplies them into that weight, for all steps of a run at once, and a block is called with the
  norm weights of its step;
- float16 ends at 65504, and the real weights drive the attention's output past 1e5 and the
  feed-forward past 1e6. A norm follows both, and a norm cancels a constant factor: in float16 they
  run HEADROOM times as large, with an epsilon to match; so do captions, which begin with a norm.
"""

from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np
from mlx import nn

from .layers.activation import swiglu
from .layers.attention import attention
from .layers.linear import Linear
from .layers.nag import Negative
from .layers.positions import Rope, rotate, sinusoid
from .transformer_config import TransformerConfig

# Fixed in the reference class and absent from config.json.
TIMESTEP_HIDDEN = 1024
TIMESTEP_WIDTH = 256
QK_NORM_EPS = 1e-5
FINAL_NORM_EPS = 1e-6

MODULATED = ("adaLN_modulation", "attention_norm", "ffn_norm")
"""Beginnings of the keys that `modulate` reads of a block."""

SCALED = ("attention.to_out.0", "feed_forward.w2")
"""Ends of the paths of layers whose outputs are `headroom` times as large."""

HEADROOM = 2.0**-8  # a power of two costs no digits, but below 2^-6, where float16 thins out


@dataclass(frozen=True)
class Modulation:
    """The weights of a block's four norms, with the scales and gates of a time multiplied in.

    Each is (dim,), or (B, 1, dim) where each picture has a time of its own.
    """

    attention_norm1: mx.array
    attention_norm2: mx.array
    ffn_norm1: mx.array
    ffn_norm2: mx.array

    @property
    def arrays(self) -> list[mx.array]:
        return [*vars(self).values()]

    def at(self, step: int) -> "Modulation":
        """Return those of one step, where these are of all: (steps, B or 1, dim)."""
        rows = [array[step] for array in self.arrays]
        return Modulation(*(row[0] if len(row) == 1 else row[:, None] for row in rows))


def headroom(dtype: mx.Dtype) -> float:
    return HEADROOM if dtype == mx.float16 else 1.0


def norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """Normalize (B, L, dim) by its root mean square; the weight is (dim,) or (B, 1, dim)."""
    if weight.ndim == 1:
        return mx.fast.rms_norm(x, weight, eps)
    return mx.fast.rms_norm(x, None, eps) * weight


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.heads = config.n_heads
        self.scale = config.head_dim**-0.5
        self.to_q = Linear(config.dim, config.dim, bias=False)
        self.to_k = Linear(config.dim, config.dim, bias=False)
        self.to_v = Linear(config.dim, config.dim, bias=False)
        self.to_out = [Linear(config.dim, config.dim, bias=False)]
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            self.norm_q = nn.RMSNorm(config.head_dim, eps=QK_NORM_EPS)
            self.norm_k = nn.RMSNorm(config.head_dim, eps=QK_NORM_EPS)

    def __call__(
        self, x: mx.array, rope: Rope, mask: mx.array | None, negative: Negative | None = None
    ) -> mx.array:
        """Return `headroom` times the attention."""
        heads = (*x.shape[:2], self.heads, -1)
        q, k, v = (to(x).reshape(heads) for to in (self.to_q, self.to_k, self.to_v))
        if self.qk_norm:
            q, k = self.norm_q(q), self.norm_k(k)
        q, k = rotate(q, rope), rotate(k, rope)
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))  # (B, H, L, D)
        attend = partial(attention, scale=self.scale, mask=mask)
        out = attend(q, k, v) if negative is None else negative.attend(attend, q, k, v)
        if (factor := headroom(x.dtype)) != 1:
            out = out * factor
        return self.to_out[0](out.swapaxes(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.w1 = Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = Linear(config.dim, config.hidden_dim, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Return `headroom` times the feed-forward."""
        return self.w2(swiglu(self.w1(x), self.w3(x), headroom(x.dtype)))


class ScaledNorm(nn.RMSNorm):
    """An RMS norm of numbers that come `headroom` times as large as they are."""

    def __call__(self, x: mx.array) -> mx.array:
        return norm(x, self.weight, self.eps * headroom(x.dtype) ** 2)


class Block(nn.Module):
    """Attention and SwiGLU between sandwich norms."""

    def __init__(self, config: TransformerConfig, modulated: bool = True):
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm1 = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention_norm2 = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.ffn_norm1 = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.ffn_norm2 = nn.RMSNorm(config.dim, eps=config.norm_eps)
        if modulated:
            self.adaLN_modulation = [Linear(config.adaln_dim, 4 * config.dim)]

    def modulate(self, time: mx.array) -> Modulation:
        """Return the norms' weights for embedded times (..., width), each (..., dim)."""
        # In float32, so that a weight is rounded once.
        out = self.adaLN_modulation[0](time).astype(mx.float32)
        attention_scale, attention_gate, ffn_scale, ffn_gate = mx.split(out, 4, axis=-1)

        def fold(layer: nn.RMSNorm, factor: mx.array) -> mx.array:
            return (layer.weight * factor).astype(layer.weight.dtype)

        return Modulation(
            fold(self.attention_norm1, 1 + attention_scale),
            fold(self.attention_norm2, mx.tanh(attention_gate)),
            fold(self.ffn_norm1, 1 + ffn_scale),
            fold(self.ffn_norm2, mx.tanh(ffn_gate)),
        )

    def __call__(
        self,
        x: mx.array,
        rope: Rope,
        mask: mx.array | None = None,
        modulation: Modulation | None = None,
        negative: Negative | None = None,
    ) -> mx.array:
        weights = modulation or self._unmodulated
        eps = self.attention_norm1.eps
        scaled_eps = eps * headroom(x.dtype) ** 2
        out = self.attention(norm(x, weights.attention_norm1, eps), rope, mask, negative)
        x = x + norm(out, weights.attention_norm2, scaled_eps)
        out = self.feed_forward(norm(x, weights.ffn_norm1, eps))
        return x + norm(out, weights.ffn_norm2, scaled_eps)

    @property
    def _unmodulated(self) -> Modulation:
        norms = (self.attention_norm1, self.attention_norm2, self.ffn_norm1, self.ffn_norm2)
        return Modulation(*(layer.weight for layer in norms))


class FinalLayer(nn.Module):
    def __init__(self, config: TransformerConfig, out_dim: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(config.dim, eps=FINAL_NORM_EPS, affine=False)
        self.linear = Linear(config.dim, out_dim)
        self.adaLN_modulation = [nn.SiLU(), Linear(config.adaln_dim, config.dim)]

    def modulate(self, time: mx.array) -> mx.array:
        silu, linear = self.adaLN_modulation
        return 1 + linear(silu(time))[..., None, :]

    def __call__(self, x: mx.array, scale: mx.array) -> mx.array:
        return self.linear(self.norm_final(x) * scale)


class TimestepEmbedder(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.mlp = [
            Linear(TIMESTEP_WIDTH, TIMESTEP_HIDDEN),
            nn.SiLU(),
            Linear(TIMESTEP_HIDDEN, config.adaln_dim),
        ]

    def __call__(self, t: np.ndarray, dtype: mx.Dtype) -> mx.array:
        """Embed times of any shape: (...) to (..., width)."""
        return self.embed(mx.array(sinusoid(t, TIMESTEP_WIDTH)).astype(dtype))

    def embed(self, x: mx.array) -> mx.array:
        """Embed sinusoids of times."""
        for layer in self.mlp:
            x = layer(x)
        return x
