"""A checkpoint with random weights in the real model's shapes, made in memory from a seed.

Each tensor repeats one tile of normal numbers, quantized beforehand if asked for. Time and memory
are those of real weights, and nothing has to be downloaded. The pictures are noise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint, StoredComponent, official_shapes
from ..checkpoint.components import COMPONENTS
from ..checkpoint.published import CONFIGS
from ..hub.locate import DEMO
from ..models.text_encoder import TextEncoder
from ..quantization.recipe import Quantization
from ..weights.packing import Packing
from ..weights.tensor import Tensor, Tensors

DEVIATION = 0.02  # of the weights
TILE = 1 << 22  # numbers
SEED = 0


def synthetic(quantize: int | str | None = None, layers: int | None = None) -> Checkpoint:
    """Make the checkpoint, quantized if asked for.

    `layers` shortens the transformer's joint stream and the text encoder.
    """
    data = {name: dict(fields) for name, fields in CONFIGS.items()}
    if layers is not None:
        data["transformer"]["n_layers"] = layers
        data["text_encoder"]["num_hidden_layers"] = layers + 1  # the last one is not run
    tile = random_tile()
    quantization = None if quantize is None else Quantization.parse(quantize)
    path = Path("random weights")
    components = {}
    for name, fields in data.items():
        row = COMPONENTS[name]
        config = row.read_config(fields, f"{name}/config.json")
        tensors = filled(shapes(row.name, config), tile)
        if quantization is not None:
            packed = _quantized(tile, quantization.packing)
            for layer in quantization.choose(tensors, row.unquantized):
                key = f"{layer}.weight"
                tensors[key] = _packed(tensors[key], quantization.packing, packed)
        components[name] = StoredComponent(row, config, tensors, path, path)
    return Checkpoint(path, DEMO, components)


def random_tile() -> mx.array:
    return mx.random.normal((TILE,), key=mx.random.key(SEED)) * DEVIATION


def shapes(name: str, config: Any) -> Tensors:
    """Return a component's tensors under the official keys, without numbers."""
    build = COMPONENTS[name].build
    module = TextEncoder(config, with_head=True) if name == "text_encoder" else build(config)
    return {
        key: Tensor(key, shape, "BF16", ("", number), _no_numbers)
        for number, (key, shape) in enumerate(official_shapes(module).items())
    }


def _no_numbers(start: int, stop: int) -> mx.array:
    raise NotImplementedError


def filled(tensors: Mapping[str, Tensor], tile: mx.array) -> Tensors:
    """Fill tensors with a tile of numbers, over and over, and norms with ones."""

    def rows(shape: tuple[int, ...]) -> Callable[[int, int], mx.array]:
        def read(start: int, stop: int) -> mx.array:
            piece = (stop - start, *shape[1:])
            return mx.ones(piece) if len(shape) == 1 else _repeated(tile, prod(piece), piece)

        return read

    return {key: replace(tensor, rows=rows(tensor.shape)) for key, tensor in tensors.items()}


def _quantized(tile: mx.array, packing: Packing) -> list[mx.array]:
    groups = tile.reshape(-1, packing.group_size * 4)
    arrays = [array.reshape(-1) for array in packing.pack(groups)]
    mx.eval(arrays)
    return arrays


def _packed(tensor: Tensor, packing: Packing, tiles: Sequence[mx.array]) -> Tensor:
    """Return a packed tensor that repeats `tiles`: words, scales and biases of as many groups."""
    widths = packing.columns(tensor.shape[1])

    def read(start: int, stop: int) -> list[mx.array]:
        pieces = [(stop - start, width) for width in widths]
        return [_repeated(t, prod(piece), piece) for t, piece in zip(tiles, pieces, strict=True)]

    return replace(tensor, packing=packing, packed_rows=read)


def _repeated(tile: mx.array, count: int, shape: tuple[int, ...]) -> mx.array:
    """Repeat a tile in new memory; a slice of the tile would share the tile's."""
    times, remainder = divmod(count, tile.size)
    half = remainder // 2
    pieces = [*[tile] * times, tile[:half], tile[half:remainder]]
    return mx.concatenate(pieces).reshape(shape)
