"""S3-DiT, the single-stream diffusion transformer of Z-Image.

Notable:
- one stream: image and caption tokens share a sequence, ordered [image, caption];
- parameters carry the official checkpoint's names, so loading needs no table;
- refined captions, positions, rotary tables and masks do not depend on the step: `prepare` makes
  them once per request, and every forward takes them as a `Conditioning`;
- modulation depends on the step alone: `modulate` makes it for all steps of a run;
- sequences are padded to a multiple of 32 with learned tokens that *are* attended to, so a mask
  exists only in a batch of unequal captions;
- sinusoids and rotary angles are computed on the host, where cos and sin of large angles are exact
  on every backend.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx import nn

from .blocks import Block, FinalLayer, Modulation, ScaledNorm, TimestepEmbedder, headroom
from .layers.evaluation import run_blocks
from .layers.linear import Linear
from .layers.nag import AttentionGuidance, Negative
from .layers.positions import Rope, caption_positions, image_positions, tables
from .transformer_config import PATCH_SIZE, SEQUENCE_MULTIPLE, TransformerConfig

PATCH_KEY = f"{PATCH_SIZE}-1"


@dataclass(frozen=True)
class Conditioning:
    """The inputs that all forwards of a run share: nothing in it depends on the step."""

    captions: mx.array  # (B, Lc, dim), refined, zeros after the shorter ones
    image_rope: Rope
    joint_rope: Rope
    mask: mx.array | None  # (B, 1, 1, L), added to scores: 0, or -inf for keys that are padding
    grid: tuple[int, int]  # image tokens down and across
    negative: Negative | None = None  # its positions are the captions' again

    @property
    def arrays(self) -> list[mx.array]:
        arrays = [self.captions, *self.image_rope, *self.joint_rope]
        arrays += [] if self.mask is None else [self.mask]
        return arrays if self.negative is None else [*arrays, self.negative.captions]


@dataclass(frozen=True)
class StepModulation:
    """The inputs of a forward that depend on its time."""

    noise_refiner: list[Modulation]
    layers: list[Modulation]
    final: mx.array  # (B or 1, 1, dim)

    @property
    def arrays(self) -> list[mx.array]:
        blocks = [*self.noise_refiner, *self.layers]
        return [*(array for block in blocks for array in block.arrays), self.final]


class ZImageTransformer(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        widths = {f"{size}-1": size * size * config.in_channels for size in config.all_patch_size}
        self.all_x_embedder = {key: Linear(w, config.dim) for key, w in widths.items()}
        self.all_final_layer = {key: FinalLayer(config, w) for key, w in widths.items()}
        self.t_embedder = TimestepEmbedder(config)
        if config.has_target_time:
            self.t_embedder_2 = TimestepEmbedder(config)
        self.cap_embedder = [
            ScaledNorm(config.cap_feat_dim, eps=config.norm_eps),
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

    def prepare(
        self,
        captions: Sequence[mx.array],
        height: int,
        width: int,
        negatives: Sequence[mx.array] = (),
        guidance: AttentionGuidance | None = None,
    ) -> Conditioning:
        """Refine captions, each (length, cap_feat_dim), for latents of `height` x `width`.

        With a guidance, each caption's negative is cut or extended to its length.
        """
        grid = (height // self.config.patch_size, width // self.config.patch_size)
        self.config.check_size(height, width)
        for caption in [*captions, *negatives]:
            self.config.check_caption(caption.shape)
        refined = [self._refine(caption) for caption in captions]
        lengths = [caption.shape[1] for caption in refined]
        longest = max(lengths)
        image = {n: self.image_positions(n, grid) for n in set(lengths)}
        joint = {
            n: np.concatenate([image[n], caption_positions(n), np.zeros((longest - n, 3), int)])
            for n in image
        }
        valid = [len(image[n]) + n for n in lengths]
        mask = padding_mask(valid, len(joint[longest]), self.dtype) if len(image) > 1 else None
        one_or_all = lengths if len(image) > 1 else lengths[:1]
        negative = None
        if guidance is not None:
            others = map(self._refine, map(_as_long, negatives, map(len, captions)))
            negative = Negative(_padded_to(longest, [*others]), guidance)
            joint = {n: np.concatenate([p, p[-longest:]]) for n, p in joint.items()}
        return Conditioning(
            captions=_padded_to(longest, refined),
            image_rope=self.rope(np.stack([image[n] for n in one_or_all])),
            joint_rope=self.rope(np.stack([joint[n] for n in one_or_all])),
            mask=mask,
            grid=grid,
            negative=negative,
        )

    def modulate(
        self, times: Sequence[float] | np.ndarray, targets: Sequence[float] | None = None
    ) -> list[StepModulation]:
        """Return the modulation of each step of a run.

        `times`: 0 at noise, 1 at clean; one for each step, or for each step and picture.
        `targets`: the times that the steps aim at, where the model knows a second one.
        """
        time = self._embed_times(np.asarray(times, np.float32), targets)
        return self.modulations(time)

    def modulations(self, time: mx.array) -> list[StepModulation]:
        """Return the modulation of each step for its embedded times (steps, B or 1, width)."""
        refiner = [block.modulate(time) for block in self.noise_refiner]
        layers = [block.modulate(time) for block in self.layers]
        final = self.all_final_layer[PATCH_KEY].modulate(time)
        return [
            StepModulation([m.at(step) for m in refiner], [m.at(step) for m in layers], final[step])
            for step in range(len(time))
        ]

    def _embed_times(self, times: np.ndarray, targets: Sequence[float] | None = None) -> mx.array:
        """Embed times (steps,) or (steps, B), and the way to their targets, where there are some.

        The result is (steps, B or 1, width).
        """
        times = times.reshape(len(times), -1)
        scale = np.float32(self.config.t_scale)
        if targets is None:
            return self.t_embedder(times * scale, self.dtype)
        # In float32, as TwinFlow's authors do.
        way = np.asarray(targets, np.float32)[:, None] - times
        embedded = self.t_embedder(np.abs(times) * scale, mx.float32)
        embedded += mx.array(np.abs(way))[..., None] * self.t_embedder_2(way * scale, mx.float32)
        return embedded.astype(self.dtype)

    def drop_modulation(self) -> None:
        """Free the weights that only `modulate` needs, for good."""
        for block in [*self.noise_refiner, *self.layers]:
            block.adaLN_modulation = []

    def __call__(
        self, latents: mx.array, modulation: StepModulation, conditioning: Conditioning
    ) -> mx.array:
        """Predict the velocity of latents, both (B, C, H, W)."""
        x = self.embed_image(latents)
        refined = [(conditioning.image_rope, None, m) for m in modulation.noise_refiner]
        x = run_blocks(self.noise_refiner, x, refined, self._block_flops(x))
        negative = conditioning.negative
        captions = [conditioning.captions] + ([] if negative is None else [negative.captions])
        x = mx.concatenate([x, *captions], axis=1)  # (B, Lx + Lc or 2 Lc, dim)
        shared = (conditioning.joint_rope, conditioning.mask)
        joint = [(*shared, m, negative) for m in modulation.layers]
        x = run_blocks(self.layers, x, joint, self._block_flops(x))
        return self.finish(x, modulation, conditioning)

    def embed_image(self, latents: mx.array) -> mx.array:
        """Return the tokens of latents (B, C, H, W), padded: (B, Lx, dim)."""
        tokens = patchify(latents.astype(self.dtype), self.config.patch_size)
        return _pad(self.all_x_embedder[PATCH_KEY](tokens), self.x_pad_token)

    def embed_caption(self, caption: mx.array) -> tuple[mx.array, Rope]:
        """Return the tokens of a caption (length, cap_feat_dim), padded: (1, Lc, dim)."""
        norm, linear = self.cap_embedder
        if (factor := headroom(self.dtype)) != 1:
            caption = caption * factor
        x = _pad(linear(norm(caption[None].astype(self.dtype))), self.cap_pad_token)
        return x, self.rope(caption_positions(x.shape[1])[None])

    def finish(
        self, x: mx.array, modulation: StepModulation, conditioning: Conditioning
    ) -> mx.array:
        """Return the velocity (B, C, H, W) from what the last block makes of the joint stream."""
        rows, columns = conditioning.grid
        out = self.all_final_layer[PATCH_KEY](x[:, : rows * columns], modulation.final)
        return unpatchify(out, conditioning.grid, self.config.patch_size)

    def _refine(self, caption: mx.array) -> mx.array:
        x, rope = self.embed_caption(caption)
        arguments = [(rope,)] * len(self.context_refiner)
        return run_blocks(self.context_refiner, x, arguments, self._block_flops(x))  # (1, Lc, dim)

    def _block_flops(self, x: mx.array) -> int:
        return x.shape[0] * self.config.block_flops(x.shape[1])

    def image_positions(self, caption_length: int, grid: tuple[int, int]) -> np.ndarray:
        """Return the positions of a picture's tokens, after those of a caption of this length."""
        positions = image_positions(caption_length + 1, *grid)
        return np.pad(positions, [(0, -len(positions) % SEQUENCE_MULTIPLE), (0, 0)])

    def rope(self, positions: np.ndarray) -> Rope:
        """Return the rotary tables of positions (B, L, 3)."""
        return tables(positions, self.config.axes_dims, self.config.rope_theta)


def _as_long(caption: mx.array, length: int) -> mx.array:
    """Cut a caption (length, width), or repeat its last row."""
    missing = max(length - len(caption), 0)
    return mx.concatenate([caption[:length], *[caption[-1:]] * missing])


def _padded_to(length: int, captions: Sequence[mx.array]) -> mx.array:
    """Return captions, each (1, Lc, dim), as one array with zeros after the shorter ones."""
    pads = ([(0, 0), (0, length - caption.shape[1]), (0, 0)] for caption in captions)
    return mx.concatenate([mx.pad(c, pad) for c, pad in zip(captions, pads, strict=True)])


def _pad(x: mx.array, token: mx.array) -> mx.array:
    missing = -x.shape[1] % SEQUENCE_MULTIPLE
    if not missing:
        return x
    rows = mx.broadcast_to(token[None], (x.shape[0], missing, x.shape[2]))
    return mx.concatenate([x, rows], axis=1)


def padding_mask(valid: Sequence[int], length: int, dtype: mx.Dtype) -> mx.array:
    """Return (B, 1, 1, L): 0 for the first `valid` keys of each picture, -inf after them."""
    is_key = mx.array(np.arange(length) < np.array(valid)[:, None])
    return mx.where(is_key, 0.0, -mx.inf).astype(dtype)[:, None, None]


def patchify(latents: mx.array, size: int) -> mx.array:
    """Cut (B, C, H, W) into tokens in reading order: (B, H W / size^2, size^2 C).

    Channels vary fastest in a token.
    """
    b, c, h, w = latents.shape
    x = latents.reshape(b, c, h // size, size, w // size, size)
    return x.transpose(0, 2, 4, 3, 5, 1).reshape(b, -1, size * size * c)


def unpatchify(tokens: mx.array, grid: tuple[int, int], size: int) -> mx.array:
    """Join tokens (B, h w, size^2 C) to (B, C, h size, w size)."""
    h, w = grid
    x = tokens.reshape(tokens.shape[0], h, w, size, size, -1)
    return x.transpose(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, h * size, w * size)
