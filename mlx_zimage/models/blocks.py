"""The transformer's blocks, its timestep embedder and its final layer.

Notable:
- scales and gates depend on the time alone: `modulate` makes them for all steps of a run at once,
  and a block is called with those of its step;
- float16 ends at 65504, and the real weights drive the attention's output past 1e5 and the
  feed-forward past 1e6. Both end in a norm, which does not see a factor: in float16 they run
  HEADROOM times as large, with an epsilon to match; and so do captions, which begin with one.
"""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx import nn

from .layers.attention import attention
from .layers.linear import Linear
from .layers.positions import Rope, rotate, sinusoid
from .transformer_config import TransformerConfig

# Fixed in the reference class and absent from config.json.
TIMESTEP_HIDDEN = 1024
TIMESTEP_WIDTH = 256
QK_NORM_EPS = 1e-5
FINAL_NORM_EPS = 1e-6

HEADROOM = 2.0**-8  # a power of two costs no digits, but below 2^-6, where float16 thins out


@dataclass(frozen=True)
class Modulation:
    """What a time does to a block, (B or 1, 1, dim) each: what comes in is scaled, what goes out
    is gated."""

    attention_scale: mx.array
    attention_gate: mx.array
    ffn_scale: mx.array
    ffn_gate: mx.array

    @property
    def arrays(self) -> list[mx.array]:
        return [*vars(self).values()]

    def at(self, step: int) -> "Modulation":
        """That of one step, where these are of all: (steps, B or 1, 1, dim)."""
        return Modulation(*(array[step] for array in self.arrays))


def headroom(dtype: mx.Dtype) -> float:
    return HEADROOM if dtype == mx.float16 else 1.0


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

    def __call__(self, x: mx.array, rope: Rope, mask: mx.array | None) -> mx.array:
        """`headroom` times the attention."""
        heads = (*x.shape[:2], self.heads, -1)
        q, k, v = (to(x).reshape(heads) for to in (self.to_q, self.to_k, self.to_v))
        if self.qk_norm:
            q, k = self.norm_q(q), self.norm_k(k)
        q, k = rotate(q, rope), rotate(k, rope)
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))  # (B, H, L, D)
        out = attention(q, k, v, scale=self.scale, mask=mask)
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
        """`headroom` times SwiGLU."""
        up = self.w3(x)
        if (factor := headroom(x.dtype)) != 1:
            up = up * factor
        return self.w2(nn.silu(self.w1(x)) * up)


class ScaledNorm(nn.RMSNorm):
    """Of what has been made `headroom` times as large."""

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, self.weight, self.eps * headroom(x.dtype) ** 2)


class Block(nn.Module):
    """Attention and SwiGLU between sandwich norms."""

    def __init__(self, config: TransformerConfig, modulated: bool = True):
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm1 = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention_norm2 = ScaledNorm(config.dim, eps=config.norm_eps)
        self.ffn_norm1 = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.ffn_norm2 = ScaledNorm(config.dim, eps=config.norm_eps)
        if modulated:
            self.adaLN_modulation = [Linear(config.adaln_dim, 4 * config.dim)]

    def modulate(self, time: mx.array) -> Modulation:
        """`time`: embedded, (..., width)."""
        parts = mx.split(self.adaLN_modulation[0](time)[..., None, :], 4, axis=-1)
        attention_scale, attention_gate, ffn_scale, ffn_gate = parts
        return Modulation(
            1 + attention_scale, mx.tanh(attention_gate), 1 + ffn_scale, mx.tanh(ffn_gate)
        )

    def __call__(
        self,
        x: mx.array,
        rope: Rope,
        mask: mx.array | None = None,
        modulation: Modulation | None = None,
    ) -> mx.array:
        if modulation is None:
            x = x + self.attention_norm2(self.attention(self.attention_norm1(x), rope, mask))
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        out = self.attention(self.attention_norm1(x) * modulation.attention_scale, rope, mask)
        x = x + modulation.attention_gate * self.attention_norm2(out)
        out = self.feed_forward(self.ffn_norm1(x) * modulation.ffn_scale)
        return x + modulation.ffn_gate * self.ffn_norm2(out)


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
        """Times of any shape to (..., width)."""
        x = mx.array(sinusoid(t, TIMESTEP_WIDTH)).astype(dtype)
        for layer in self.mlp:
            x = layer(x)
        return x
