"""S3-DiT, the single-stream diffusion transformer of Z-Image.

Notable:
- one stream: image and caption tokens share a sequence, ordered [image, caption];
- parameters carry the official checkpoint's names, so loading needs no table;
- what does not depend on the step (refined captions, positions, rotary tables, masks) is made once
  per request by `prepare` and handed to every forward as a `Conditioning`;
- sequences are padded to a multiple of 32 with learned tokens that *are* attended to, so a mask
  exists only in a batch of unequal captions;
- sinusoids and rotary angles are computed on the host, where cos and sin of large angles are exact
  on every backend.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from .. import configs
from ..errors import CheckpointError, RequestError
from .layers import Linear
from .positions import Rope, caption_positions, image_positions, rotate, sinusoid, tables

# Fixed in the reference class and absent from config.json.
ADALN_WIDTH = 256  # the timestep embedding, where dim is not narrower
TIMESTEP_HIDDEN = 1024
TIMESTEP_WIDTH = 256
PATCH_SIZE = 2  # the pipeline's, of those a checkpoint may hold embedders for
PATCH_KEY = f"{PATCH_SIZE}-1"
SEQUENCE_MULTIPLE = 32  # sequences are padded to it
QK_NORM_EPS = 1e-5
FINAL_NORM_EPS = 1e-6


@dataclass(frozen=True)
class TransformerConfig:
    """transformer/config.json, the part that shapes the model."""

    in_channels: int  # of the latents
    dim: int
    n_layers: int  # of the joint stream
    n_refiner_layers: int  # each, for image and caption alone
    n_heads: int
    norm_eps: float
    qk_norm: bool
    cap_feat_dim: int  # width of the text encoder's hidden state
    rope_theta: float
    t_scale: float  # the model's time 0..1 is multiplied by it before the sinusoid
    axes_dims: tuple[int, ...]  # rotary widths for (caption, row, column)
    axes_lens: tuple[int, ...]  # how many positions each axis has
    all_patch_size: tuple[int, ...] = (2,)
    all_f_patch_size: tuple[int, ...] = (1,)
    siglip_feat_dim: int | None = None

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "transformer/config.json"
    ) -> "TransformerConfig":
        config = configs.read(cls, data, where)
        configs.at_most(config, 256, where, "n_layers", "n_refiner_layers")
        if config.siglip_feat_dim is not None:
            raise CheckpointError(
                f"{where}: 'siglip_feat_dim' must be null, not {config.siglip_feat_dim}; "
                "this is an Omni checkpoint, which cannot be run yet"
            )
        if config.rope_theta <= 0:
            raise CheckpointError(f"{where}: 'rope_theta' must be above 0, not {config.rope_theta}")
        if config.dim % config.n_heads or config.head_dim != sum(config.axes_dims):
            raise CheckpointError(
                f"{where}: dim / n_heads must equal the sum of axes_dims, not "
                f"{config.dim} / {config.n_heads} against {config.axes_dims}"
            )
        if len(config.axes_dims) != 3 or len(config.axes_lens) != 3:
            raise CheckpointError(f"{where}: axes_dims and axes_lens must each have three entries")
        if any(width % 2 for width in config.axes_dims):
            raise CheckpointError(f"{where}: axes_dims must be even, not {config.axes_dims}")
        frames = (1,) * len(config.all_patch_size)
        if PATCH_SIZE not in config.all_patch_size or config.all_f_patch_size != frames:
            raise CheckpointError(
                f"{where}: all_patch_size must hold {PATCH_SIZE}, and all_f_patch_size a 1 for "
                f"each, not {config.all_patch_size} and {config.all_f_patch_size}"
            )
        return config

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def hidden_dim(self) -> int:
        return int(self.dim / 3 * 8)  # as the reference rounds it

    @property
    def adaln_dim(self) -> int:
        return min(self.dim, ADALN_WIDTH)

    @property
    def patch_size(self) -> int:
        return PATCH_SIZE

    @property
    def max_caption_tokens(self) -> int:
        """The image sits at position padded length + 1, which the caption axis must still have."""
        return (self.axes_lens[0] - 2) // SEQUENCE_MULTIPLE * SEQUENCE_MULTIPLE

    def check_caption(self, shape: tuple[int, ...]) -> None:
        width, most = self.cap_feat_dim, self.max_caption_tokens
        if len(shape) != 2 or shape[1] != width or not 0 < shape[0] <= most:
            raise RequestError(
                f"a prompt embedding must have the shape (1 to {most}, {width}), not {shape}"
            )

    def check_size(self, height: int, width: int) -> None:
        """Of latents, against the positions the rotary axes have."""
        rows, columns = (lens * self.patch_size for lens in self.axes_lens[1:])
        if height > rows or width > columns:
            raise RequestError(
                f"an image may be at most {columns} latents wide and {rows} high, "
                f"not {width} x {height}; ask for a smaller one"
            )


@dataclass(frozen=True)
class Conditioning:
    """All that a run of forwards shares: nothing in it depends on the step."""

    captions: mx.array  # (B, Lc, dim), refined, zeros after the shorter ones
    image_rope: Rope
    joint_rope: Rope
    mask: mx.array | None  # (B, 1, 1, L), True where a key may be attended to
    grid: tuple[int, int]  # image tokens down and across

    @property
    def arrays(self) -> list[mx.array]:
        found = [self.captions, *self.image_rope, *self.joint_rope]
        return found if self.mask is None else [*found, self.mask]


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
        heads = (*x.shape[:2], self.heads, -1)
        q, k, v = (to(x).reshape(heads) for to in (self.to_q, self.to_k, self.to_v))
        if self.qk_norm:
            q, k = self.norm_q(q), self.norm_k(k)
        q, k = rotate(q, rope), rotate(k, rope)
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))  # (B, H, L, D)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)
        return self.to_out[0](out.swapaxes(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.w1 = Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = Linear(config.dim, config.hidden_dim, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.w2(nn.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention and SwiGLU between sandwich norms; `time` scales and gates, where modulated."""

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

    def __call__(
        self, x: mx.array, rope: Rope, mask: mx.array | None = None, time: mx.array | None = None
    ) -> mx.array:
        if time is None:
            x = x + self.attention_norm2(self.attention(self.attention_norm1(x), rope, mask))
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        modulation = self.adaLN_modulation[0](time)[:, None]  # (B, 1, 4 dim)
        scale_msa, gate_msa, scale_mlp, gate_mlp = mx.split(modulation, 4, axis=-1)
        out = self.attention(self.attention_norm1(x) * (1 + scale_msa), rope, mask)
        x = x + mx.tanh(gate_msa) * self.attention_norm2(out)
        out = self.feed_forward(self.ffn_norm1(x) * (1 + scale_mlp))
        return x + mx.tanh(gate_mlp) * self.ffn_norm2(out)


class FinalLayer(nn.Module):
    def __init__(self, config: TransformerConfig, out_dim: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(config.dim, eps=FINAL_NORM_EPS, affine=False)
        self.linear = Linear(config.dim, out_dim)
        self.adaLN_modulation = [nn.SiLU(), Linear(config.adaln_dim, config.dim)]

    def __call__(self, x: mx.array, time: mx.array) -> mx.array:
        silu, linear = self.adaLN_modulation
        return self.linear(self.norm_final(x) * (1 + linear(silu(time))[:, None]))


class TimestepEmbedder(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.mlp = [
            Linear(TIMESTEP_WIDTH, TIMESTEP_HIDDEN),
            nn.SiLU(),
            Linear(TIMESTEP_HIDDEN, config.adaln_dim),
        ]

    def __call__(self, t: np.ndarray, dtype: mx.Dtype) -> mx.array:
        x = mx.array(sinusoid(t, TIMESTEP_WIDTH)).astype(dtype)
        for layer in self.mlp:
            x = layer(x)
        return x


class ZImageTransformer(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        widths = {f"{size}-1": size * size * config.in_channels for size in config.all_patch_size}
        self.all_x_embedder = {key: Linear(w, config.dim) for key, w in widths.items()}
        self.all_final_layer = {key: FinalLayer(config, w) for key, w in widths.items()}
        self.t_embedder = TimestepEmbedder(config)
        self.cap_embedder = [
            nn.RMSNorm(config.cap_feat_dim, eps=config.norm_eps),
            Linear(config.cap_feat_dim, config.dim),
        ]
        self.x_pad_token = mx.zeros((1, config.dim))
        self.cap_pad_token = mx.zeros((1, config.dim))
        refiners = range(config.n_refiner_layers)
        self.noise_refiner = [Block(config) for _ in refiners]
        self.context_refiner = [Block(config, modulated=False) for _ in refiners]
        self.layers = [Block(config) for _ in range(config.n_layers)]

    @property
    def dtype(self) -> mx.Dtype:
        return self.x_pad_token.dtype

    def prepare(self, captions: Sequence[mx.array], height: int, width: int) -> Conditioning:
        """Refine captions, each (length, cap_feat_dim), for latents of `height` x `width`."""
        grid = (height // self.config.patch_size, width // self.config.patch_size)
        self.config.check_size(height, width)
        for caption in captions:
            self.config.check_caption(caption.shape)
        refined = [self._refine(caption) for caption in captions]
        lengths = [caption.shape[1] for caption in refined]
        longest = max(lengths)
        image = {n: self._image_positions(n, grid) for n in set(lengths)}
        joint = {
            n: np.concatenate([image[n], caption_positions(n), np.zeros((longest - n, 3), int)])
            for n in image
        }
        mask = None
        if len(image) > 1:
            keys = np.arange(len(joint[longest]))
            valid = np.array([len(image[n]) + n for n in lengths])
            mask = mx.array((keys[None] < valid[:, None])[:, None, None])
        one_or_all = lengths if len(image) > 1 else lengths[:1]
        padded = [mx.pad(c, [(0, 0), (0, longest - c.shape[1]), (0, 0)]) for c in refined]
        return Conditioning(
            captions=mx.concatenate(padded),
            image_rope=self._rope(np.stack([image[n] for n in one_or_all])),
            joint_rope=self._rope(np.stack([joint[n] for n in one_or_all])),
            mask=mask,
            grid=grid,
        )

    def __call__(
        self,
        latents: mx.array,
        t: np.ndarray | np.floating[Any] | float,
        conditioning: Conditioning,
    ) -> mx.array:
        """One forward. `latents` (B, C, H, W); `t` is the model's time, 0 at noise, 1 at clean."""
        batch = latents.shape[0]
        times = np.broadcast_to(np.asarray(t, np.float32), (batch,))
        time = self.t_embedder(times * np.float32(self.config.t_scale), self.dtype)
        size = self.config.patch_size
        tokens = self.all_x_embedder[PATCH_KEY](patchify(latents.astype(self.dtype), size))
        count = tokens.shape[1]
        x = _pad(tokens, self.x_pad_token)  # (B, Lx, dim)
        for block in self.noise_refiner:
            x = block(x, conditioning.image_rope, time=time)
        x = mx.concatenate([x, conditioning.captions], axis=1)  # (B, Lx + Lc, dim)
        for block in self.layers:
            x = block(x, conditioning.joint_rope, conditioning.mask, time)
        out = self.all_final_layer[PATCH_KEY](x[:, :count], time)
        return unpatchify(out, conditioning.grid, size)

    def _refine(self, caption: mx.array) -> mx.array:
        norm, linear = self.cap_embedder
        x = _pad(linear(norm(caption[None].astype(self.dtype))), self.cap_pad_token)
        rope = self._rope(caption_positions(x.shape[1])[None])
        for block in self.context_refiner:
            x = block(x, rope)
        return x  # (1, Lc, dim)

    def _image_positions(self, caption_length: int, grid: tuple[int, int]) -> np.ndarray:
        positions = image_positions(caption_length + 1, *grid)
        return np.pad(positions, [(0, -len(positions) % SEQUENCE_MULTIPLE), (0, 0)])

    def _rope(self, positions: np.ndarray) -> Rope:
        return tables(positions, self.config.axes_dims, self.config.rope_theta)


def _pad(x: mx.array, token: mx.array) -> mx.array:
    missing = -x.shape[1] % SEQUENCE_MULTIPLE
    if not missing:
        return x
    rows = mx.broadcast_to(token[None], (x.shape[0], missing, x.shape[2]))
    return mx.concatenate([x, rows], axis=1)


def patchify(latents: mx.array, size: int) -> mx.array:
    """(B, C, H, W) to tokens in reading order, channel fastest: (B, H W / size^2, size^2 C)."""
    b, c, h, w = latents.shape
    x = latents.reshape(b, c, h // size, size, w // size, size)
    return x.transpose(0, 2, 4, 3, 5, 1).reshape(b, -1, size * size * c)


def unpatchify(tokens: mx.array, grid: tuple[int, int], size: int) -> mx.array:
    """The way back: (B, h w, size^2 C) to (B, C, h size, w size)."""
    h, w = grid
    x = tokens.reshape(tokens.shape[0], h, w, size, size, -1)
    return x.transpose(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, h * size, w * size)
