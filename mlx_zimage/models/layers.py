"""MLX's layers without initial weights.

Its own draw some from the global random generator. Here every weight comes from a checkpoint, so
these start from zeros that are never computed, and leave the generator alone.
"""

from typing import Any

import mlx.core as mx
from mlx import nn


class Linear(nn.Linear):
    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        nn.Module.__init__(self)
        self.weight = mx.zeros((outputs, inputs))
        if bias:
            self.bias = mx.zeros((outputs,))

    def to_quantized(self, *args: Any, **kwargs: Any) -> nn.QuantizedLinear:
        return _quantized(nn.QuantizedLinear, self, *args, **kwargs)


class Embedding(nn.Embedding):
    def __init__(self, count: int, width: int):
        nn.Module.__init__(self)
        self.weight = mx.zeros((count, width))

    def to_quantized(self, *args: Any, **kwargs: Any) -> nn.QuantizedEmbedding:
        made = _quantized(nn.QuantizedEmbedding, self, *args, **kwargs)
        made.num_embeddings, made.dims = self.weight.shape
        return made


class Conv2d(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0):
        nn.Module.__init__(self)
        self.weight = mx.zeros((outputs, size, size, inputs))
        self.bias = mx.zeros((outputs,))
        self.stride, self.padding = (stride, stride), (padding, padding)
        self.dilation, self.groups = 1, 1


def _quantized(kind: Any, layer: nn.Module, group_size: int, bits: int, mode: str) -> Any:
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    made.group_size, made.bits, made.mode = group_size, bits, mode
    made.weight, made.scales, *biases = mx.quantize(layer.weight, group_size, bits, mode=mode)
    made.biases = biases[0] if biases else None
    if "bias" in layer:
        made.bias = layer.bias
    return made
