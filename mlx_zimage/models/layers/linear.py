"""Linear and embedding layers without initial weights.

MLX's draw theirs from the global random generator. Here every weight comes from a checkpoint, so
these start from zeros that are never computed, and leave the generator alone.
"""

from typing import Any

import mlx.core as mx
from mlx import nn

from .corrected import CorrectedLinear
from .quantized import QuantizedLinear
from .slot import Slot


class Linear(Slot, nn.Linear):
    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        nn.Module.__init__(self)
        self.weight = mx.zeros((outputs, inputs))
        if bias:
            self.bias = mx.zeros((outputs,))

    def __call__(self, x: mx.array) -> mx.array:
        adapter = self.adapter
        if adapter is None:
            return nn.Linear.__call__(self, x)
        out = adapter(x, self)
        return out + self.bias if "bias" in self else out

    def product(self, x: mx.array) -> mx.array:
        return x @ self.weight.T

    def rows(self, start: int, stop: int) -> mx.array:
        return self.weight[start:stop].astype(mx.float32)

    def to_quantized(
        self,
        *args: Any,
        rank: int = 0,
        input_scale: bool = False,
        output_scale: bool = False,
        **kwargs: Any,
    ) -> nn.QuantizedLinear:
        if not (rank or input_scale or output_scale):
            return _quantize(QuantizedLinear, self, *args, **kwargs)
        layer = _quantize(CorrectedLinear, self, *args, **kwargs)
        layer.add_corrections(*self.weight.shape, rank, input_scale, output_scale)
        return layer


class Embedding(nn.Embedding):
    def __init__(self, count: int, width: int):
        nn.Module.__init__(self)
        self.weight = mx.zeros((count, width))

    def to_quantized(self, *args: Any, **kwargs: Any) -> nn.QuantizedEmbedding:
        layer = _quantize(nn.QuantizedEmbedding, self, *args, **kwargs)
        layer.num_embeddings, layer.dims = self.weight.shape
        return layer


def _quantize(
    cls: Any, layer: nn.Module, group_size: int, bits: int, mode: str, rotation: str = ""
) -> Any:
    """Build a `cls` from the layer's numbers. MLX's own constructors would draw random ones."""
    quantized = cls.__new__(cls)
    nn.Module.__init__(quantized)
    quantized.group_size, quantized.bits, quantized.mode = group_size, bits, mode
    if rotation:
        quantized.rotation = rotation
    words, scales, *biases = mx.quantize(layer.weight, group_size, bits, mode=mode)
    quantized.weight, quantized.scales = words, scales
    quantized.biases = biases[0] if biases else None
    if "bias" in layer:
        quantized.bias = layer.bias
    return quantized
