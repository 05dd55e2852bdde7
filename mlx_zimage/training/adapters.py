"""The trainable adapters: modules in the slots of a model's linear layers.

Their parameters are the only trainable ones of the model, so `model.trainable_parameters()` is what
a training run changes and saves. Both begin without effect.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from ..errors import RequestError
from ..models.layers.slot import LayerAdapter, Slot
from .options import TrainingOptions

BEGINNING = 2  # a stream of random numbers, beside those of `order`


class TrainedAdapter(nn.Module):
    """An adapter in training. `under` is a frozen one below it, or None."""

    def __init__(self, under: LayerAdapter | None):
        super().__init__()
        self.under = under

    def __call__(self, x: mx.array, layer: Slot) -> mx.array:
        product = layer.product(x) if self.under is None else self.under(x, layer)
        return product + self.added(x).reshape(product.shape)

    def added(self, x: mx.array) -> mx.array:
        """Return what the trained change alone makes of an input."""
        raise NotImplementedError


class TrainedLowRank(TrainedAdapter):
    """LoRA: W + up down, where `up` begins at zero."""

    def __init__(
        self,
        shape: tuple[int, int],
        rank: int,
        generator: np.random.Generator,
        under: LayerAdapter | None = None,
    ):
        super().__init__(under)
        self.down = _uniform(generator, (rank, shape[1]))
        self.up = mx.zeros((shape[0], rank))

    def added(self, x: mx.array) -> mx.array:
        return (x @ self.down.astype(x.dtype).T) @ self.up.astype(x.dtype).T


class TrainedKronecker(TrainedAdapter):
    """LoKr: W + kron(w1, w2), where `w2` begins at zero."""

    def __init__(
        self,
        shape: tuple[int, int],
        factor: int,
        generator: np.random.Generator,
        under: LayerAdapter | None = None,
    ):
        super().__init__(under)
        rows, columns = (factors(size, factor) for size in shape)
        self.w1 = _uniform(generator, (rows[0], columns[0]))
        self.w2 = mx.zeros((rows[1], columns[1]))

    def added(self, x: mx.array) -> mx.array:
        w1, w2 = self.w1.astype(x.dtype), self.w2.astype(x.dtype)
        columns = x.reshape(*x.shape[:-1], w1.shape[1], w2.shape[1])  # (..., m, n)
        return w1 @ (columns @ w2.T)  # (..., l, k)


def factors(size: int, factor: int) -> tuple[int, int]:
    """Return two factors of a size, the smaller first: at most `factor`, or nearest for -1."""
    most = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
    small = next(n for n in range(most, 0, -1) if size % n == 0)
    return small, size // small


def chosen(model: nn.Module, targets: tuple[str, ...]) -> dict[str, Slot]:
    """Return the linear layers that targets name, by path.

    A target is one or several parts of a path, such as "attention", "to_q" or "layers.*.w1"; each
    may hold * and ?.
    """
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, Slot)}
    hits = {
        target: [path for path in layers if fnmatchcase(f".{path}.", f"*.{target}.*")]
        for target in targets
    }
    for target, paths in hits.items():
        if not paths:
            parts = {part for path in layers for part in path.split(".") if not part.isdigit()}
            raise RequestError(
                f"targets must name linear layers of the model ({', '.join(sorted(parts))}), and "
                f"{target!r} names none"
            )
    wanted = {path for paths in hits.values() for path in paths}
    return {path: layers[path] for path in sorted(wanted)}


def count(shape: tuple[int, int], options: TrainingOptions) -> int:
    """Return how many numbers of a layer's adapter are trained."""
    if options.kind == "lora":
        return options.rank * sum(shape)
    rows, columns = (factors(size, options.factor) for size in shape)
    return rows[0] * columns[0] + rows[1] * columns[1]


def make(
    shapes: Mapping[str, tuple[int, int]],
    options: TrainingOptions,
    frozen: Mapping[str, LayerAdapter | None],
) -> dict[str, nn.Module]:
    """Return a new adapter for each layer; `frozen` are those below them."""
    adapters: dict[str, nn.Module] = {}
    for number, (path, shape) in enumerate(shapes.items()):
        generator = np.random.default_rng([options.seed, BEGINNING, number])
        if options.kind == "lora":
            adapters[path] = TrainedLowRank(shape, options.rank, generator, frozen.get(path))
        else:
            adapters[path] = TrainedKronecker(shape, options.factor, generator, frozen.get(path))
    return adapters


def shape_of(layer: Any) -> tuple[int, int]:
    """Return the rows and columns of a layer's matrix, packed or not."""
    outputs, columns = layer.weight.shape
    return outputs, columns * 32 // layer.bits if "scales" in layer else columns


def _uniform(generator: np.random.Generator, shape: tuple[int, int]) -> mx.array:
    """Return numbers as PyTorch and PEFT draw them for a matrix of this shape."""
    limit = 1 / math.sqrt(shape[1])
    return mx.array(generator.uniform(-limit, limit, shape).astype(np.float32))
