"""What a picture takes in memory: the most bytes that each stage holds, weights included.

Weights are counted exactly. What a model makes on the way is counted in its widest arrays; how many
of them are there at once was measured on a CPU (`tests/memory/test_estimate.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.streaming import BLOCKS, EMBEDDING, MODULATION
from ..convert.write import outputs
from ..models import autoencoder
from ..models.autoencoder import AutoencoderConfig
from ..models.layers import linear as layers
from ..models.layers import quantized
from ..models.text_encoder import TextEncoderConfig
from ..models.transformer_config import SEQUENCE_MULTIPLE
from ..quantization.recipe import Packings
from ..weights.tensor import PARTS, Part

NEAR = 0.15  # the share that an estimate may be off by
STREAM = 16.0  # arrays of the transformer's stream in a block
ENCODER = 8.0  # arrays as wide as the text encoder's feed-forward
SCORES = 2.0  # of attention, where it keeps them: before and after the softmax
UNPACKED = 2.0  # of what a quantized layer unpacks at once
FULL = 1.0  # of the VAE's largest tensor
STRIP = 3.5  # of a strip of it
CONVOLVED = 9.0  # of a strip, that a CPU copies to convolve it


@dataclass(frozen=True)
class Picture:
    """What of a request decides its memory."""

    width: int
    height: int
    count: int = 1
    steps: int = 8
    tokens: int = 512  # of its longest prompt
    encodes: bool = True  # whether a prompt has to be encoded


@dataclass(frozen=True)
class Estimate:
    """The most bytes at once, by stage, of a model that was not loaded before."""

    memory: str
    encode: int
    denoise: int
    decode: int

    @property
    def peak(self) -> int:
        return max(self.encode, self.denoise, self.decode)


@dataclass(frozen=True)
class Weights:
    """Of one part, in bytes."""

    dtype: mx.Dtype
    whole: int
    modulation: int  # of that, what goes before the first step where a run has the part to itself
    streamed: int  # what memory="low" holds: all outside the blocks, and the largest block
    quantized: bool

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, part: Part, dtype: mx.Dtype, packings: Packings
    ) -> "Weights":
        whole = modulation = outside = 0
        blocks: dict[str, int] = {}
        for item in outputs(checkpoint.needed(part), packings, dtype):
            whole += item.size
            lists = [path for path in BLOCKS[part] if item.key.startswith(f"{path}.")]
            if not lists:
                outside += item.size if item.key != EMBEDDING else 0
            elif MODULATION in item.key:
                modulation += item.size
            else:
                number = item.key.removeprefix(f"{lists[0]}.").partition(".")[0]
                block = f"{lists[0]}.{number}"
                blocks[block] = blocks.get(block, 0) + item.size
        streamed = outside + max(blocks.values(), default=0)
        return cls(dtype, whole, modulation, streamed, bool(packings))


def estimate(
    checkpoint: Checkpoint, weights: Mapping[Part, Weights], memory: str, picture: Picture
) -> Estimate:
    made = {
        "text_encoder": _encoding(checkpoint.text_encoder, weights["text_encoder"], picture),
        "transformer": _denoising(checkpoint, weights["transformer"], picture),
        "vae": _decoding(checkpoint.vae, weights["vae"], picture),
    }
    peaks, before = [], 0
    for part in PARTS:
        if part == "text_encoder" and not picture.encodes:
            peaks.append(0)
            continue
        own = weights[part]
        held = own.streamed if memory == "low" else own.whole
        dropped = own.modulation if memory == "staged" else 0
        peaks.append(before + max(held, held - dropped + made[part]))
        before += held if memory == "resident" else 0
    return Estimate(memory, *peaks)


def _encoding(config: TextEncoderConfig, weights: Weights, picture: Picture) -> int:
    tokens = picture.tokens
    numbers = ENCODER * tokens * config.intermediate_size
    numbers += SCORES * config.num_attention_heads * tokens**2
    return int((numbers + _unpacked(weights)) * weights.dtype.size)


def _denoising(checkpoint: Checkpoint, weights: Weights, picture: Picture) -> int:
    config, multiple = checkpoint.transformer, checkpoint.image_multiple
    patches = (picture.width // multiple) * (picture.height // multiple)
    length = sum(-(-n // SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE for n in (patches, picture.tokens))
    numbers = STREAM * picture.count * length * config.dim
    numbers += picture.steps * 4 * config.dim * (config.n_layers + config.n_refiner_layers)
    if not layers.is_fused(config.head_dim, weights.dtype):
        scores = picture.count * config.n_heads * length**2
        numbers += SCORES * min(scores, layers.SCORES)
    return int((numbers + _unpacked(weights)) * weights.dtype.size)


def _decoding(config: AutoencoderConfig, weights: Weights, picture: Picture) -> int:
    """One picture at a time."""
    widest = max(config.block_out_channels[:2])  # at full size, before it narrows
    pixels = picture.width * picture.height
    row = config.scale_factor * picture.width  # of latents: the least that a strip has
    strip = min(max(autoencoder.STRIP, row), pixels)
    copies = STRIP + (CONVOLVED if _on_cpu() else 0)
    return int((FULL * pixels + copies * strip) * widest * weights.dtype.size)


def _unpacked(weights: Weights) -> float:
    """On a CPU alone unpacking is sure to be the faster way."""
    return UNPACKED * quantized.UNPACKED if weights.quantized and _on_cpu() else 0.0


def _on_cpu() -> bool:
    return mx.default_device().type == mx.DeviceType.cpu
