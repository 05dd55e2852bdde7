"""Qwen3, as the text encoder of Z-Image.

Notable:
- the conditioning is the output of the layer before the last, with no final norm, so an encoder is
  built without the last layer, the norm and the head, unless `with_head` asks for them: a model
  that writes text has them;
- one prompt at a time and no padding: under a causal mask, padding on the right changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from .. import configs
from ..errors import CheckpointError
from .layers.activation import swiglu
from .layers.evaluation import run_blocks
from .layers.linear import Embedding, Linear
from .layers.positions import Rope, rotate_halves, text_tables


@dataclass(frozen=True)
class TextEncoderConfig:
    """The fields of text_encoder/config.json that shape the model."""

    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    hidden_act: str = "silu"

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "text_encoder/config.json"
    ) -> "TextEncoderConfig":
        # transformers 5 moved the rotary base into a block of its own.
        blocks = configs.read(_RopeBlocks, data, where)
        rope = {**(blocks.rope_scaling or {}), **(blocks.rope_parameters or {})}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise CheckpointError(f"{where}: the rotary type must be 'default', not {kind!r}")
        if data.get("use_sliding_window"):
            raise CheckpointError(f"{where}: 'use_sliding_window' must be false")
        config = configs.read(cls, {**rope, **data}, where)
        configs.at_most(config, 256, where, "num_hidden_layers")
        if config.hidden_act != "silu":
            raise CheckpointError(
                f"{where}: 'hidden_act' must be 'silu', not {config.hidden_act!r}"
            )
        if config.rope_theta <= 0:
            raise CheckpointError(f"{where}: 'rope_theta' must be above 0, not {config.rope_theta}")
        if config.num_attention_heads % config.num_key_value_heads or config.head_dim % 2:
            raise CheckpointError(
                f"{where}: num_attention_heads must be a multiple of num_key_value_heads, "
                "and head_dim even"
            )
        if config.num_hidden_layers < 2:
            raise CheckpointError(f"{where}: 'num_hidden_layers' must be at least 2")
        return config

    def layer_flops(self, length: int) -> int:
        """Return the multiplications and additions of one layer over a sequence."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        matrices = self.hidden_size * (2 * queries + 2 * keys + 3 * self.intermediate_size)
        return 2 * length * matrices + 4 * length**2 * queries


@dataclass(frozen=True)
class _RopeBlocks:
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None


class Attention(nn.Module):
    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, queries, bias=config.attention_bias)
        self.k_proj = Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.v_proj = Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.o_proj = Linear(queries, config.hidden_size, bias=config.attention_bias)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array, rope: Rope) -> mx.array:
        b, length, _ = x.shape
        heads = (b, length, -1, self.head_dim)
        q, k, v = (to(x).reshape(heads) for to in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate_halves(self.q_norm(q), rope), rotate_halves(self.k_norm(k), rope)
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))  # (B, H, L, D)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask="causal")
        return self.o_proj(out.swapaxes(1, 2).reshape(b, length, -1))


class MLP(nn.Module):
    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class Layer(nn.Module):
    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array, rope: Rope) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x), rope)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3Model(nn.Module):
    def __init__(self, config: TextEncoderConfig, with_head: bool):
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        count = config.num_hidden_layers - (0 if with_head else 1)
        self.layers = [Layer(config) for _ in range(count)]
        if with_head:
            self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class TextEncoder(nn.Module):
    def __init__(self, config: TextEncoderConfig, with_head: bool = False):
        super().__init__()
        self.config = config
        self.model = Qwen3Model(config, with_head)
        if with_head and not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

    def __call__(self, ids: mx.array) -> mx.array:
        """Return the hidden states (B, L, width) that condition the transformer; `ids` (B, L)."""
        return self._run(ids, self.config.num_hidden_layers - 1)

    def logits(self, ids: mx.array) -> mx.array:
        """Return next-token scores (B, L, vocabulary), of a model built with `with_head=True`."""
        x = self.model.norm(self._run(ids, self.config.num_hidden_layers))
        if self.config.tie_word_embeddings:
            return self.model.embed_tokens.as_linear(x)
        return self.lm_head(x)

    def embed(self, ids: mx.array) -> tuple[mx.array, Rope]:
        """Return the first layer's input (B, L, width), and the positions of all layers."""
        rope = text_tables(ids.shape[1], self.config.head_dim, self.config.rope_theta)
        return self.model.embed_tokens(ids), rope

    def _run(self, ids: mx.array, layers: int) -> mx.array:
        x, rope = self.embed(ids)
        flops = len(ids) * self.config.layer_flops(ids.shape[1])
        return run_blocks(self.model.layers[:layers], x, [(rope,)] * layers, flops)


def needed_for_encoding(key: str, config: TextEncoderConfig) -> bool:
    """Tell whether an encoder built without its head has the tensor of this official key."""
    last = f"model.layers.{config.num_hidden_layers - 1}."
    return not key.startswith((last, "model.norm.", "lm_head."))
