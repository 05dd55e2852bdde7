"""TAEF1's decoder: the Flux VAE's, distilled into 64 channels.

Notable:
- it takes latents in the sampler's scale, and makes pixels from 0 to 1, which are turned to the
  autoencoder's -1 to 1 here;
- its first layer bends latents into +-3, so that a step's unfinished ones do no harm;
- keys are diffusers' (`decoder.layers.N`), without their first word;
- like the autoencoder it works in strips of rows, so that memory is bounded.
"""

from collections.abc import Callable

import mlx.core as mx
from mlx import nn

from .layers.convolution import Conv2d
from .layers.strips import Strips, convolve, split, strip_pixels

WIDTH = 64
BLOCKS = (3, 3, 3, 1)  # at each resolution, the smallest first
FACTOR = 2 ** (len(BLOCKS) - 1)  # pixels a latent, along a side
LIMIT = 3.0  # of a latent


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second, third = (Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3))
        self.conv = [first, nn.ReLU(), second, nn.ReLU(), third]

    def __call__(self, strips: Strips) -> Strips:
        first, second, third = (layer for layer in self.conv if isinstance(layer, Conv2d))
        hidden = list(convolve(first, [*strips], _same))
        hidden = list(convolve(second, hidden, nn.relu))
        out = []
        for changed in convolve(third, hidden, nn.relu):
            out.append(nn.relu(changed + strips.pop(0)))
            mx.eval(out[-1])
        return out


class TinyDecoder(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = [Conv2d(channels, WIDTH, 3, padding=1), nn.ReLU()]
        for number, count in enumerate(BLOCKS):
            layers += [Block() for _ in range(count)]
            is_last = number == len(BLOCKS) - 1
            if not is_last:
                layers.append(nn.Upsample(scale_factor=2))  # done by the convolution after it
            outputs = 3 if is_last else WIDTH
            layers.append(Conv2d(WIDTH, outputs, 3, padding=1, bias=is_last))
        self.layers = layers

    @property
    def dtype(self) -> mx.Dtype:
        return self.layers[0].weight.dtype

    def decode(self, latents: mx.array) -> mx.array:
        """Latents (B, C, h, w) to pixels (B, H, W, 3), nominally in -1..1."""
        x = latents.astype(self.dtype).transpose(0, 2, 3, 1)  # (B, h, w, C)
        x = mx.tanh(x / LIMIT) * LIMIT
        before: Callable[[mx.array], mx.array] = _same
        strips = _strips(x)
        upsampled = 0
        for layer in self.layers:
            if isinstance(layer, Block):
                strips = layer(strips)
            elif isinstance(layer, Conv2d):
                strips = list(convolve(layer, strips, before, trim=upsampled))
                before, upsampled = _same, 0
            elif isinstance(layer, nn.Upsample):
                before, upsampled = _twice, 1
            else:
                strips = [nn.relu(strip) for strip in strips]
        return mx.concatenate(strips, axis=1) * 2 - 1


def _strips(x: mx.array) -> Strips:
    b, h, w, _ = x.shape
    rows = max(strip_pixels() // (b * w * FACTOR**2), 1)
    return split(x, [min(rows, h - start) for start in range(0, h, rows)])


def _same(x: mx.array) -> mx.array:
    return x


def _twice(x: mx.array) -> mx.array:
    b, h, w, c = x.shape
    twice = mx.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return twice.reshape(b, 2 * h, 2 * w, c)
