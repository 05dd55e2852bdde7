"""The slot of a linear layer: an adapter that changes its product, as LoRA files do.

Notable:
- a plain object in the slot is no parameter: loading, streaming and quantizing do not see it;
- an `nn.Module` in the slot is part of the layer, so its parameters can be trained;
- an empty slot costs nothing and changes no bit.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import nn

LayerAdapter = Callable[[mx.array, Any], mx.array]
"""Called with a layer's input and the layer. It returns the changed product, without the layer's
own bias: `layer.product(x)` is the unchanged one."""


class Slot(nn.Module):
    """A layer with a slot."""

    def product(self, x: mx.array) -> mx.array:
        """Return the product with the weights, without the bias and without the adapter."""
        raise NotImplementedError

    def rows(self, start: int, stop: int) -> mx.array:
        """Return some rows of the matrix that `product` multiplies by, in float32."""
        raise NotImplementedError

    @property
    def adapter(self) -> LayerAdapter | None:
        """The change of the product, or None."""
        # An nn.Module holds its submodules as items, and everything else as attributes.
        place = self if "adapter" in self else self.__dict__
        adapter: LayerAdapter | None = place.get("adapter")
        return adapter

    @adapter.setter
    def adapter(self, adapter: LayerAdapter | None) -> None:
        self.__dict__["adapter"] = adapter

    @adapter.deleter
    def adapter(self) -> None:
        self.__dict__.pop("adapter", None)
