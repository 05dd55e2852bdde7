"""The bytes that each model's arrays take while it runs, weights not included.

They are counted in the model's widest arrays. How many of those exist at once was measured on a
CPU (tests/memory/test_estimate.py). Terms that hold for a GPU alone follow MLX's sources and are
not measured.
"""

from dataclasses import dataclass

import mlx.core as mx

from .. import device
from .autoencoder import AutoencoderConfig
from .layers import attention, quantized
from .layers.strips import strip_pixels
from .text_encoder import TextEncoderConfig
from .transformer_config import SEQUENCE_MULTIPLE, TransformerConfig

STREAM = 16.0  # arrays of the transformer's stream in a block
IN_FLIGHT = 12.0  # more of them in a GPU's command buffers that have not completed: not measured
ENCODER = 8.0  # arrays as wide as the text encoder's feed-forward
SCORES = 2.0  # arrays of attention scores, where they are kept: before and after the softmax
MATRICES = 3.0  # of a feed-forward that are unpacked at the same time: not measured
UNPACKED = 2.0  # arrays of the weights that a quantized layer unpacks at once
FULL = 1.0  # the VAE's largest tensor
STRIP = 3.5  # strips of it
CONVOLVED = 9.0  # strips of it that a CPU copies to convolve one


@dataclass(frozen=True)
class Workload:
    """The sizes of a generation that decide its memory."""

    width: int
    height: int
    multiple: int = 16  # pixels along the side of one image token
    count: int = 1  # pictures at once
    steps: int = 8
    tokens: int = 512  # of the longest prompt
    encodes: bool = True  # whether any prompt has to be encoded
    guides_attention: bool = False  # whether negative captions share the stream
    encodes_image: bool = False  # whether the VAE encodes a picture before the first step
    tile: tuple[int, int] | None = None  # the width and height that the transformer sees at once

    @property
    def image_tokens(self) -> int:
        """The tokens of one picture that the transformer sees at once."""
        width, height = self.tile or (self.width, self.height)
        return (width // self.multiple) * (height // self.multiple)


def text_encoder(
    config: TextEncoderConfig, workload: Workload, dtype: mx.Dtype, is_quantized: bool
) -> int:
    tokens = workload.tokens
    numbers = ENCODER * tokens * config.intermediate_size
    numbers += SCORES * config.num_attention_heads * tokens**2
    return int(
        (numbers + _unpacked(is_quantized, config.hidden_size * config.intermediate_size))
        * dtype.size
    )


def transformer(
    config: TransformerConfig, workload: Workload, dtype: mx.Dtype, is_quantized: bool
) -> int:
    captions = 2 if workload.guides_attention else 1
    length = _padded(workload.image_tokens) + captions * _padded(workload.tokens)
    arrays = STREAM + (0 if device.kind() == "cpu" else IN_FLIGHT)
    numbers = arrays * workload.count * length * config.dim
    numbers += workload.steps * 4 * config.dim * (config.n_layers + config.n_refiner_layers)
    if not attention.is_fused(config.head_dim, dtype):
        scores = workload.count * config.n_heads * length**2
        numbers += SCORES * min(scores, attention.SCORES)
    return int((numbers + _unpacked(is_quantized, config.dim * config.hidden_dim)) * dtype.size)


def decoder(
    config: AutoencoderConfig, workload: Workload, dtype: mx.Dtype, is_quantized: bool
) -> int:
    """Count one picture: they are decoded one after the other."""
    widest = max(config.block_out_channels[:2])  # at full size, before it narrows
    return _at_full_size(config, workload, FULL, widest, dtype)


def encoder(
    config: AutoencoderConfig, workload: Workload, dtype: mx.Dtype, is_quantized: bool
) -> int:
    """Count one picture before the first step: what enters a resnet, and what leaves it."""
    return _at_full_size(config, workload, 2 * FULL, config.block_out_channels[0], dtype)


def _at_full_size(
    config: AutoencoderConfig, workload: Workload, full: float, channels: int, dtype: mx.Dtype
) -> int:
    """Count tensors as large as the picture, and the strips in which they are convolved."""
    pixels = workload.width * workload.height
    row = config.scale_factor * workload.width  # a row of latents, the least that a strip has
    strip = min(max(strip_pixels(), row), pixels)
    copies = STRIP + (CONVOLVED if device.kind() == "cpu" else 0)
    return int((full * pixels + copies * strip) * channels * dtype.size)


def _padded(tokens: int) -> int:
    return -(-tokens // SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE


def _unpacked(is_quantized: bool, widest: int) -> float:
    """Count what quantized layers unpack; `widest` are the numbers of the largest matrix.

    A CPU unpacks a matrix in pieces. Apple's older GPUs unpack some at once: not measured.
    """
    if is_quantized and device.kind() == "cpu":
        return UNPACKED * quantized.UNPACKED
    generation = device.apple_generation()
    is_older = generation is not None and generation < quantized.APPLE_BEFORE
    return MATRICES * widest if is_quantized and is_older else 0.0
