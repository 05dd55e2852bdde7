"""MLX's layers without initial weights.

Its own draw some from the global random generator. Here every weight comes from a checkpoint, so
these start from zeros that are never computed, and leave the generator alone.
"""

from typing import Any

import mlx.core as mx
from mlx import nn

from .quantized import QuantizedLinear


class Linear(nn.Linear):
    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        nn.Module.__init__(self)
        self.weight = mx.zeros((outputs, inputs))
        if bias:
            self.bias = mx.zeros((outputs,))

    def to_quantized(self, *args: Any, **kwargs: Any) -> nn.QuantizedLinear:
        return _quantized(QuantizedLinear, self, *args, **kwargs)


FUSED = (64, 80, 128)  # widths of a head that MLX's own kernels take
SCORES = 1 << 24  # attention scores that are made at once


def attention(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | None = None
) -> mx.array:
    """Over (B, H, L, D); where MLX would hold the scores of all queries, a part at a time."""
    length, per_query = q.shape[2], q.shape[0] * q.shape[1] * k.shape[2]
    parts = 1 if is_fused(q.shape[-1], q.dtype) else -(-length * per_query // SCORES)
    if parts == 1:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    size = -(-length // parts)
    made = []
    for start in range(0, length, size):
        some = q[:, :, start : start + size]
        made.append(mx.fast.scaled_dot_product_attention(some, k, v, scale=scale, mask=mask))
        mx.eval(made[-1])
    return mx.concatenate(made, axis=2)


def is_fused(width: int, dtype: mx.Dtype) -> bool:
    """Whether no scores are kept: on a GPU, for the usual widths of a head; CUDA's in 16 bit."""
    if mx.default_device().type != mx.DeviceType.gpu or width not in FUSED:
        return False
    return dtype != mx.float32 or mx.metal.is_available()


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
