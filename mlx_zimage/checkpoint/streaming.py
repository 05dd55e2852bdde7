"""Models whose blocks stay on disk: each is read when its turn comes, and dropped after it."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_map, tree_unflatten

from ..models.blocks import Modulation
from ..quantization.recipe import pack
from ..weights.tensor import Packing, Part, Tensor

BLOCKS: dict[Part, tuple[str, ...]] = {
    "transformer": ("noise_refiner", "context_refiner", "layers"),
    "text_encoder": ("model.layers",),
    "vae": (),
}
"""Lists of blocks, by their path."""
EMBEDDING = "model.embed_tokens.weight"
MODULATION = "adaLN_modulation"

Weights = list[tuple[str, mx.array]]


class Streamed:
    """A block without weights, and what reads those whose keys pass."""

    def __init__(self, block: nn.Module, read: Callable[[Callable[[str], bool]], Weights]):
        self._block, self._read = block, read
        self._empty = tree_map(lambda array: array, block.parameters())

    def __call__(self, *args: Any) -> mx.array:
        self._load(lambda key: MODULATION not in key)
        out: mx.array = self._block(*args)
        mx.eval(out)
        self._block.update(self._empty)
        return out

    def modulate(self, time: mx.array) -> Modulation:
        self._load(lambda key: MODULATION in key)
        out: Modulation = self._block.modulate(time)
        mx.eval(out.arrays)
        self._block.update(self._empty)
        return out

    def _load(self, wanted: Callable[[str], bool]) -> None:
        self._block.update(tree_unflatten(self._read(wanted)))


class StreamedEmbedding:
    """The rows of the tokens at hand alone."""

    def __init__(self, tensor: Tensor, packing: Packing | None, dtype: mx.Dtype):
        self._tensor, self._packing, self._dtype = tensor, packing, dtype

    def __call__(self, ids: mx.array) -> mx.array:
        tokens, places = np.unique(np.array(ids), return_inverse=True)
        rows = mx.concatenate([self._row(int(token)) for token in tokens])
        return rows[mx.array(places.reshape(ids.shape))]

    def _row(self, token: int) -> mx.array:
        packing = self._packing
        if packing is None:
            return self._tensor.rows(token, token + 1).astype(self._dtype)
        words, *scales = pack(self._tensor, packing, self._dtype, token, token + 1)
        cast = [s if s.dtype == mx.uint8 else s.astype(self._dtype) for s in scales]
        bias = cast[1] if len(cast) > 1 else None
        size, bits = packing.group_size, packing.bits
        return mx.dequantize(words, cast[0], bias, size, bits, mode=packing.mode, dtype=self._dtype)


def take_blocks(model: nn.Module, path: str) -> list[nn.Module]:
    """The blocks of that list, which is empty afterwards."""
    owner, name = _owner(model, path)
    blocks: list[nn.Module] = owner[name]
    owner[name] = []
    return blocks


def put(model: nn.Module, path: str, value: Any) -> None:
    owner, name = _owner(model, path)
    owner[name] = value


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    *way, name = path.split(".")
    for step in way:
        model = model[step]
    return model, name
