"""A checkpoint with random weights in the real model's shapes, made on the spot from a seed.

Each tensor repeats one tile of normal numbers, quantized beforehand where that is asked for: time
and memory are those of real weights, and nothing has to be downloaded. What it draws is noise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..checkpoint.checkpoint import Checkpoint, official_shape
from ..hub.locate import DEMO
from ..models.autoencoder import Autoencoder, AutoencoderConfig
from ..models.text_encoder import TextEncoder, TextEncoderConfig
from ..models.transformer import ZImageTransformer
from ..models.transformer_config import TransformerConfig
from ..quantization.recipe import Quantization
from ..weights.tensor import PARTS, Packing, Part, Tensor

REAL: dict[Part, dict[str, Any]] = {
    "text_encoder": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "transformer": {
        "in_channels": 16,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "norm_eps": 1e-5,
        "qk_norm": True,
        "cap_feat_dim": 2560,
        "rope_theta": 256.0,
        "t_scale": 1000.0,
        "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512],
    },
    "vae": {
        "latent_channels": 16,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "norm_num_groups": 32,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "sample_size": 1024,
    },
}
"""The official configs, the fields that shape the models."""
DEVIATION = 0.02  # of the weights
TILE = 1 << 22  # numbers
SEED = 0


def synthetic(quantize: int | str | None = None, layers: int | None = None) -> Checkpoint:
    """`layers`: of the transformer's joint stream and of the text encoder, where fewer will do."""
    configs = {part: dict(REAL[part]) for part in PARTS}
    if layers is not None:
        configs["transformer"]["n_layers"] = layers
        configs["text_encoder"]["num_hidden_layers"] = layers + 1  # the last one is not run
    text_encoder = TextEncoderConfig.from_dict(configs["text_encoder"])
    transformer = TransformerConfig.from_dict(configs["transformer"])
    vae = AutoencoderConfig.from_dict(configs["vae"])
    tile = random_tile()
    models: dict[Part, nn.Module] = {
        "text_encoder": TextEncoder(text_encoder, whole=True),
        "transformer": ZImageTransformer(transformer),
        "vae": Autoencoder(vae),
    }
    weights = {part: filled(shapes(model), tile) for part, model in models.items()}
    if quantize is not None:
        asked = Quantization.parse(quantize)
        for part, tensors in weights.items():
            packings = asked.choose(part, tensors)
            packed = _quantized(tile, asked.packing)
            for layer in packings:
                key = f"{layer}.weight"
                tensors[key] = _packed(tensors[key], asked.packing, packed)
    path = Path("random weights")
    return Checkpoint(path, DEMO, text_encoder, transformer, vae, weights)


def random_tile() -> mx.array:
    return mx.random.normal((TILE,), key=mx.random.key(SEED)) * DEVIATION


def shapes(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors under the official keys, without numbers."""
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    return {
        key: Tensor(key, official_shape(array.shape), "BF16", ("", number), _no_numbers)
        for number, (key, array) in enumerate(parameters)
    }


def _no_numbers(start: int, stop: int) -> mx.array:
    raise NotImplementedError


def filled(tensors: Mapping[str, Tensor], tile: mx.array) -> dict[str, Tensor]:
    """With a tile of numbers, over and over; norms with ones."""

    def rows(shape: tuple[int, ...]) -> Callable[[int, int], mx.array]:
        def read(start: int, stop: int) -> mx.array:
            piece = (stop - start, *shape[1:])
            return mx.ones(piece) if len(shape) == 1 else _repeated(tile, prod(piece), piece)

        return read

    return {key: replace(tensor, rows=rows(tensor.shape)) for key, tensor in tensors.items()}


def _quantized(tile: mx.array, packing: Packing) -> list[mx.array]:
    size, bits, mode = packing.group_size, packing.bits, packing.mode
    arrays = [
        array.reshape(-1)
        for array in mx.quantize(tile.reshape(-1, size * 4), size, bits, mode=mode)
    ]
    mx.eval(arrays)
    return arrays


def _packed(tensor: Tensor, packing: Packing, tiles: Sequence[mx.array]) -> Tensor:
    """`tiles`: words, scales and biases, as many groups of each."""
    width, groups = tensor.shape[1], tensor.shape[1] // packing.group_size
    widths = [width * packing.bits // 32, groups, groups]

    def read(start: int, stop: int) -> list[mx.array]:
        pieces = [(stop - start, width) for width in widths[: len(tiles)]]
        return [_repeated(t, prod(piece), piece) for t, piece in zip(tiles, pieces, strict=True)]

    return replace(tensor, packing=packing, packed_rows=read)


def _repeated(tile: mx.array, count: int, shape: tuple[int, ...]) -> mx.array:
    """In memory of its own: a part of the tile alone would share the tile's."""
    whole, rest = divmod(count, tile.size)
    pieces = [*[tile] * whole, tile[: rest // 2], tile[rest // 2 : rest]]
    return mx.concatenate(pieces).reshape(shape)
