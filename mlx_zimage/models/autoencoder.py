"""The Flux VAE: 16 latent channels, 8 pixels a latent.

Notable:
- pixels and activations are channels-last (B, H, W, C); latents are channels-first, as the sampler
  and diffusers keep them, and in the sampler's scale;
- group statistics are taken in float32, without the two transposes of a PyTorch-compatible norm;
- convolution weights are stored (out, in, h, w) in the checkpoint and (out, h, w, in) here; the
  loader turns them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
from mlx import nn

from .. import configs
from ..errors import CheckpointError
from .layers import Conv2d, Linear

NORM_EPS = 1e-6  # fixed in the reference class


@dataclass(frozen=True)
class AutoencoderConfig:
    """vae/config.json, the part that shapes the model."""

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
    sample_size: int | None = None  # the side it was trained at, taken as the default image side

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
        """Pixels a latent, along a side."""
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

    def __call__(self, x: mx.array) -> mx.array:
        mean = self._group_mean(x.astype(mx.float32))  # (B, 1, 1, C), as all that follow
        scale = mx.rsqrt(self._group_mean(_squared_distance(x, mean)) + NORM_EPS)
        return _affine(x, mean, scale * self.weight, self.bias.astype(mx.float32))

    def _group_mean(self, x: mx.array) -> mx.array:
        """The mean over space and group, for each channel: (B, 1, 1, C)."""
        # Rows first: one long running sum in float32 would lose digits.
        channels = x.mean(axis=2).mean(axis=1).reshape(x.shape[0], self.groups, -1)
        means = mx.broadcast_to(channels.mean(axis=-1, keepdims=True), channels.shape)
        return means.reshape(x.shape[0], 1, 1, -1)


class Resnet(nn.Module):
    def __init__(self, groups: int, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(groups, out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = Conv2d(in_channels, out_channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        out = self.conv1(nn.silu(self.norm1(x)))
        out = self.conv2(nn.silu(self.norm2(out)))
        return (self.conv_shortcut(x) if "conv_shortcut" in self else x) + out


class SpatialAttention(nn.Module):
    """One head over all pixels."""

    def __init__(self, groups: int, channels: int):
        super().__init__()
        self.group_norm = GroupNorm(groups, channels)
        self.to_q = Linear(channels, channels)
        self.to_k = Linear(channels, channels)
        self.to_v = Linear(channels, channels)
        self.to_out = [Linear(channels, channels)]

    def __call__(self, x: mx.array) -> mx.array:
        b, _, _, c = x.shape
        tokens = self.group_norm(x).reshape(b, 1, -1, c)  # (B, one head, H W, C)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=c**-0.5)
        return x + self.to_out[0](out).reshape(x.shape)


class MidBlock(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        groups, channels = config.norm_num_groups, config.block_out_channels[-1]
        self.resnets = [Resnet(groups, channels, channels) for _ in range(2)]
        if config.mid_block_add_attention:
            self.attentions = [SpatialAttention(groups, channels)]

    def __call__(self, x: mx.array) -> mx.array:
        x = self.resnets[0](x)
        if "attentions" in self:
            x = self.attentions[0](x)
        return self.resnets[1](x)


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv(mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)]))


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        b, h, w, c = x.shape
        twice = mx.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
        return self.conv(twice.reshape(b, 2 * h, 2 * w, c))


class Stage(nn.Module):
    """One resolution: some resnets, then a resampler unless it is the last."""

    def __init__(self, resnets: list[Resnet], name: str, sampler: nn.Module | None):
        super().__init__()
        self.resnets = resnets
        self.sampler = name
        if sampler is not None:
            self[name] = [sampler]

    def __call__(self, x: mx.array) -> mx.array:
        for resnet in self.resnets:
            x = resnet(x)
        return self[self.sampler][0](x) if self.sampler in self else x


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

    def __call__(self, x: mx.array) -> mx.array:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(nn.silu(self.conv_norm_out(self.mid_block(x))))


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

    def __call__(self, x: mx.array) -> mx.array:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nn.silu(self.conv_norm_out(x)))


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
        """Pixels (B, H, W, 3) in -1..1 to latents (B, C, h, w): the mean, or a sample by noise."""
        moments = self.encoder(pixels.astype(self.dtype))
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        latents, log_variance = mx.split(moments.transpose(0, 3, 1, 2), 2, axis=1)
        if noise is not None:
            deviation = mx.exp(0.5 * mx.clip(log_variance, -30.0, 20.0))
            latents = latents + deviation * noise.astype(latents.dtype)
        return (latents - self._shift) * self.config.scaling_factor

    def decode(self, latents: mx.array) -> mx.array:
        """Latents (B, C, h, w) to pixels (B, H, W, 3), nominally in -1..1."""
        z = latents.astype(self.dtype) / self.config.scaling_factor + self._shift
        z = z.transpose(0, 2, 3, 1)
        if self.config.use_post_quant_conv:
            z = self.post_quant_conv(z)
        return self.decoder(z)
