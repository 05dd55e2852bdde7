"""Blocks that stay on disk: each is read when its turn comes, and dropped afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_map, tree_unflatten

from ..models.blocks import MODULATED, Modulation
from ..quantization.recipe import pack
from ..weights.packing import Packing
from ..weights.tensor import Tensor

Arrays = list[tuple[str, mx.array]]


class Streamed:
    """A block without weights, and a function that reads those whose keys it is told to.

    Keys that hold `modulation` are needed by `modulate` alone.
    """

    def __init__(
        self,
        block: nn.Module,
        read: Callable[..., Arrays],
        modulation: str | None = None,
    ):
        self.block, self._read, self._modulation = block, read, modulation
        self._empty = tree_map(lambda array: array, block.parameters())

    def __call__(self, *args: Any) -> mx.array:
        with self.loaded() as block:
            out: mx.array = block(*args)
            mx.eval(out)
        return out

    @contextmanager
    def loaded(self) -> Iterator[Any]:
        """Yield the block with its weights, to be called several times."""
        self._load(lambda key: not self._modulates(key))
        try:
            yield self.block
        finally:
            self.block.update(self._empty)

    def modulate(self, time: mx.array) -> Modulation:
        self._load(lambda key: any(name in key for name in MODULATED))
        out: Modulation = self.block.modulate(time)
        mx.eval(out.arrays)
        self.block.update(self._empty)
        return out

    def with_block(self, block: nn.Module, changed: Callable[[Arrays], Arrays]) -> "Streamed":
        """Return one that fills `block` with what `changed` makes of the arrays that are read."""

        def read(**how: Any) -> Arrays:
            return changed(self._read(**how))

        return Streamed(block, read, self._modulation)

    def _modulates(self, key: str) -> bool:
        return self._modulation is not None and self._modulation in key

    def _load(self, is_wanted: Callable[[str], bool]) -> None:
        self.block.update(tree_unflatten(self._read(is_wanted=is_wanted)))


class StreamedEmbedding:
    """An embedding table of which only the rows of the given tokens are read."""

    def __init__(self, tensor: Tensor, packing: Packing | None, dtype: mx.Dtype):
        self._tensor, self._packing, self._dtype = tensor, packing, dtype

    def __call__(self, ids: mx.array) -> mx.array:
        tokens, places = np.unique(np.array(ids), return_inverse=True)
        rows = mx.concatenate([self._row(int(token)) for token in tokens])
        return rows[mx.array(places.reshape(ids.shape))]

    def _row(self, token: int) -> mx.array:
        if self._packing is None:
            return self._tensor.rows(token, token + 1).astype(self._dtype)
        words, *scales = pack(self._tensor, self._packing, self._dtype, token, token + 1)
        cast = [s if s.dtype == mx.uint8 else s.astype(self._dtype) for s in scales]
        return self._packing.unpack([words, *cast], self._dtype)


def take_blocks(model: nn.Module, path: str) -> list[nn.Module]:
    """Take the blocks out of a list of a module, and leave it empty."""
    owner, name = _owner(model, path)
    blocks: list[nn.Module] = owner[name]
    owner[name] = []
    return blocks


def put(model: nn.Module, path: str, value: Any) -> None:
    owner, name = _owner(model, path)
    owner[name] = value


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds what lies at a path, and its name there."""
    *parents, name = path.split(".")
    for parent in parents:
        model = model[parent]
    return model, name
