"""The Flux VAE: 16 latent channels, 8 pixels a latent.

Notable:
- pixels and activations are channels-last (B, H, W, C); latents are channels-first, as the sampler
  and diffusers keep them, and in the sampler's scale;
- group statistics are taken in float32, without the two transposes of a PyTorch-compatible norm;
- a large image goes through in strips of rows, so that memory is bounded. There are no seams: a
  convolution sees a row of the strips beside it, and a norm takes its statistics over all strips,
  in a first pass. A layer takes a list of strips and empties it while it fills another, and
  evaluates each strip before the next, so that at most one image is held at a time;
- convolution weights are stored (out, in, h, w) in the checkpoint and (out, h, w, in) here; the
  loader transposes them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
from mlx import nn

from .. import configs
from ..errors import CheckpointError
from .layers.attention import attention
from .layers.convolution import Conv2d
from .layers.linear import Linear
from .layers.strips import Strips, convolve, split, strip_pixels

NORM_EPS = 1e-6  # fixed in the reference class


@dataclass(frozen=True)
class AutoencoderConfig:
    """The fields of vae/config.json that shape the model."""

    latent_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    scaling_factor: float
    shift_factor: float | None = None
    norm_num_groups: int = 32
    in_channels: int = 3
    out_channels: int = 3
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    act_fn: str = "silu"
    down_block_types: tuple[str, ...] = ()
    up_block_types: tuple[str, ...] = ()
    sample_size: int | None = None  # the side it was trained at, which is the default image side

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "vae/config.json"
    ) -> "AutoencoderConfig":
        config = configs.read(cls, data, where)
        configs.at_most(config, 16, where, "layers_per_block")
        if config.act_fn not in ("silu", "swish"):
            raise CheckpointError(f"{where}: 'act_fn' must be 'silu', not {config.act_fn!r}")
        channels = config.block_out_channels
        if len(channels) > 8 or any(n % config.norm_num_groups for n in channels):
            raise CheckpointError(
                f"{where}: norm_num_groups must divide every entry of block_out_channels, at most "
                f"8 of them, not {config.norm_num_groups} and {channels}"
            )
        blocks = {*config.down_block_types, *config.up_block_types}
        if unknown := blocks - {"DownEncoderBlock2D", "UpDecoderBlock2D"}:
            raise CheckpointError(f"{where}: block types {sorted(unknown)} are not supported")
        return config

    @property
    def scale_factor(self) -> int:
        """Pixels along a side of a latent."""
        return int(2 ** (len(self.block_out_channels) - 1))


@partial(mx.compile, shapeless=True)
def _squared_distance(x: mx.array, mean: mx.array) -> mx.array:
    return mx.square(x.astype(mx.float32) - mean)


@partial(mx.compile, shapeless=True)
def _affine(x: mx.array, mean: mx.array, scale: mx.array, bias: mx.array) -> mx.array:
    return ((x.astype(mx.float32) - mean) * scale + bias).astype(x.dtype)


class GroupNorm(nn.Module):
    def __init__(self, groups: int, channels: int):
        super().__init__()
        self.groups = groups
        self.weight = mx.ones((channels,))
        self.bias = mx.zeros((channels,))

    def over(self, strips: Strips) -> Callable[[mx.array], mx.array]:
        """Return the norm with the statistics of these strips, for a strip or a window of them."""
        mean = self._group_mean(x.astype(mx.float32) for x in strips)  # (B, 1, 1, C), as all here
        distances = (_squared_distance(x, mean) for x in strips)
        scale = mx.rsqrt(self._group_mean(distances) + NORM_EPS) * self.weight
        bias = self.bias.astype(mx.float32)
        mx.eval(mean, scale, bias)
        return lambda x: _affine(x, mean, scale, bias)

    def _group_mean(self, strips: Iterator[mx.array]) -> mx.array:
        """Return each channel's mean over space and its group: (B, 1, 1, C)."""
        # Rows first: one long running sum in float32 would lose digits.
        rows = []
        for x in strips:
            rows.append(x.mean(axis=2))
            mx.eval(rows[-1])
        mean = mx.concatenate(rows, axis=1).mean(axis=1)
        channels = mean.reshape(len(mean), self.groups, -1)
        means = mx.broadcast_to(channels.mean(axis=-1, keepdims=True), channels.shape)
        return means.reshape(len(mean), 1, 1, -1)


class Resnet(nn.Module):
    def __init__(self, groups: int, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(groups, out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = Conv2d(in_channels, out_channels, 1)

    def __call__(self, strips: Strips) -> Strips:
        hidden, shortcut = [], []
        for strip in convolve(self.conv1, [*strips], _activated(self.norm1, strips)):
            hidden.append(strip)
            x = strips.pop(0)  # a wide strip goes as soon as its narrow shortcut is there
            shortcut.append(self.conv_shortcut(x) if "conv_shortcut" in self else x)
            mx.eval(shortcut[-1])
        out = []
        for strip in convolve(self.conv2, hidden, _activated(self.norm2, hidden)):
            out.append(shortcut.pop(0) + strip)
            mx.eval(out[-1])
        return out


def _activated(norm: GroupNorm, strips: Strips) -> Callable[[mx.array], mx.array]:
    normal = norm.over(strips)
    return lambda x: nn.silu(normal(x))


class SpatialAttention(nn.Module):
    """Attention with one head over all pixels."""

    def __init__(self, groups: int, channels: int):
        super().__init__()
        self.group_norm = GroupNorm(groups, channels)
        self.to_q = Linear(channels, channels)
        self.to_k = Linear(channels, channels)
        self.to_v = Linear(channels, channels)
        self.to_out = [Linear(channels, channels)]

    def __call__(self, strips: Strips) -> Strips:
        heights = [x.shape[1] for x in strips]
        x = mx.concatenate(strips, axis=1)
        b, _, _, c = x.shape
        tokens = self.group_norm.over([x])(x).reshape(b, 1, -1, c)  # (B, one head, H W, C)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        attended = attention(q, k, v, scale=c**-0.5)
        out = x + self.to_out[0](attended).reshape(x.shape)
        strips.clear()
        return split(out, heights)


class MidBlock(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        groups, channels = config.norm_num_groups, config.block_out_channels[-1]
        self.resnets = [Resnet(groups, channels, channels) for _ in range(2)]
        if config.mid_block_add_attention:
            self.attentions = [SpatialAttention(groups, channels)]

    def __call__(self, strips: Strips) -> Strips:
        strips = self.resnets[0](strips)
        if "attentions" in self:
            strips = self.attentions[0](strips)
        return self.resnets[1](strips)


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def __call__(self, strips: Strips) -> Strips:
        out = []
        while strips:  # each of an even height
            x = strips.pop(0)
            below = strips[0][:, :1] if strips else mx.zeros_like(x[:, :1])
            window = mx.concatenate([x, below], axis=1)
            out.append(self.conv(mx.pad(window, [(0, 0), (0, 0), (0, 1), (0, 0)])))
            mx.eval(out[-1])
        return out


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def __call__(self, strips: Strips) -> Strips:
        return list(convolve(self.conv, strips, _twice, trim=1))


def _twice(x: mx.array) -> mx.array:
    b, h, w, c = x.shape
    twice = mx.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return twice.reshape(b, 2 * h, 2 * w, c)


class Stage(nn.Module):
    """One resolution: resnets, then a resampler unless it is the last."""

    def __init__(self, resnets: list[Resnet], name: str, sampler: nn.Module | None):
        super().__init__()
        self.resnets = resnets
        self.sampler = name
        if sampler is not None:
            self[name] = [sampler]

    def __call__(self, strips: Strips) -> Strips:
        for resnet in self.resnets:
            strips = resnet(strips)
        sampled: Strips = self[self.sampler][0](strips) if self.sampler in self else strips
        return sampled


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        groups, channels = config.norm_num_groups, config.block_out_channels
        self.conv_in = Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = []
        for i, out in enumerate(channels):
            ins = [channels[max(i - 1, 0)], *[out] * (config.layers_per_block - 1)]
            sampler = Downsample(out) if i < len(channels) - 1 else None
            resnets = [Resnet(groups, n, out) for n in ins]
            self.down_blocks.append(Stage(resnets, "downsamplers", sampler))
        self.mid_block = MidBlock(config)
        self.conv_norm_out = GroupNorm(groups, channels[-1])
        self.conv_out = Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def __call__(self, strips: Strips) -> mx.array:
        strips = list(convolve(self.conv_in, strips, lambda x: x))
        for block in self.down_blocks:
            strips = block(strips)
        strips = self.mid_block(strips)
        activated = _activated(self.conv_norm_out, strips)
        return mx.concatenate(list(convolve(self.conv_out, strips, activated)), axis=1)


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        groups, channels = config.norm_num_groups, config.block_out_channels[::-1]
        self.conv_in = Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = MidBlock(config)
        self.up_blocks = []
        for i, out in enumerate(channels):
            ins = [channels[max(i - 1, 0)], *[out] * config.layers_per_block]
            sampler = Upsample(out) if i < len(channels) - 1 else None
            resnets = [Resnet(groups, n, out) for n in ins]
            self.up_blocks.append(Stage(resnets, "upsamplers", sampler))
        self.conv_norm_out = GroupNorm(groups, channels[-1])
        self.conv_out = Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def __call__(self, strips: Strips) -> mx.array:
        strips = self.mid_block(list(convolve(self.conv_in, strips, lambda x: x)))
        for block in self.up_blocks:
            strips = block(strips)
        activated = _activated(self.conv_norm_out, strips)
        return mx.concatenate(list(convolve(self.conv_out, strips, activated)), axis=1)


class Autoencoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        latent = config.latent_channels
        if config.use_quant_conv:
            self.quant_conv = Conv2d(2 * latent, 2 * latent, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = Conv2d(latent, latent, 1)

    @property
    def dtype(self) -> mx.Dtype:
        return self.decoder.conv_in.bias.dtype

    @property
    def _shift(self) -> float:
        return self.config.shift_factor or 0.0

    def encode(self, pixels: mx.array, noise: mx.array | None = None) -> mx.array:
        """Encode pixels (B, H, W, 3) in -1..1 to latents (B, C, h, w).

        They are the distribution's mean, or a sample where there is `noise` (B, C, h, w).
        """
        moments = self.encoder(self._strips(pixels.astype(self.dtype), self.config.scale_factor))
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        latents, log_variance = mx.split(moments.transpose(0, 3, 1, 2), 2, axis=1)
        if noise is not None:
            deviation = mx.exp(0.5 * mx.clip(log_variance, -30.0, 20.0))
            latents = latents + deviation * noise.astype(latents.dtype)
        return (latents - self._shift) * self.config.scaling_factor

    def decode(self, latents: mx.array) -> mx.array:
        """Decode latents (B, C, h, w) to pixels (B, H, W, 3), nominally in -1..1."""
        z = latents.astype(self.dtype) / self.config.scaling_factor + self._shift
        z = z.transpose(0, 2, 3, 1)
        if self.config.use_post_quant_conv:
            z = self.post_quant_conv(z)
        return self.decoder(self._strips(z, 1))

    def _strips(self, x: mx.array, unit: int) -> Strips:
        """Cut an image or its latents into strips of `strip_pixels`, and of `unit` rows at least.

        `unit`: rows of `x` for one of latents.
        """
        b, h, w, _ = x.shape
        factor = self.config.scale_factor // unit  # from here to the image
        rows = max(strip_pixels() // (b * w * factor**2 * unit), 1) * unit
        return split(x, [min(rows, h - start) for start in range(0, h, rows)])
