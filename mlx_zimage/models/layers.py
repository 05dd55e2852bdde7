"""MLX's layers without initial weights.

Its own draw some from the global random generator. Here every weight comes from a checkpoint, so
these start from zeros that are never computed, and leave the generator alone. Quantized ones unpack
their weights first where that is faster.
"""

import math
import time
from collections.abc import Callable
from functools import cache
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
        return _quantized(QuantizedLinear, self, *args, **kwargs)


class QuantizedLinear(nn.QuantizedLinear):
    """With many rows, unpacking the weights for an ordinary product can beat the quantized kernel:
    on a CPU by a factor of 50."""

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.size // max(x.shape[-1], 1)
        if rows < _unpacks_from(self.mode, self.bits, self.group_size, x.dtype, _device()):
            return super().__call__(x)
        at_once = max(UNPACKED // x.shape[-1], 1)
        made = []
        for start in range(0, len(self.weight), at_once):
            made.append(x @ self._unpacked(start, start + at_once, x.dtype).T)
            mx.eval(made[-1])  # else all that is unpacked is there at once
        out = mx.concatenate(made, axis=-1) if len(made) > 1 else made[0]
        return out + self.bias if "bias" in self else out

    def _unpacked(self, start: int, stop: int, dtype: mx.Dtype) -> mx.array:
        """Some rows of the matrix."""
        bias = self.get("biases")
        words, scales = self.weight[start:stop], self.scales[start:stop]
        bias = None if bias is None else bias[start:stop]
        return mx.dequantize(
            words, scales, bias, self.group_size, self.bits, mode=self.mode, dtype=dtype
        )


UNPACKED = 1 << 23  # numbers, at once
TRIED_ROWS, TRIED_SIDE = (8, 64, 512), 512
WORTH = 1.3  # times as fast


@cache
def _unpacks_from(mode: str, bits: int, group: int, dtype: mx.Dtype, device: str) -> float:
    """How many rows make it worth while: measured once, on the device that is used."""
    square = mx.ones((TRIED_SIDE, TRIED_SIDE), dtype)
    words, scales, *biases = mx.quantize(square, group, bits, mode=mode)
    bias = biases[0] if biases else None

    def kernel(x: mx.array) -> mx.array:
        return mx.quantized_matmul(
            x, words, scales, bias, transpose=True, group_size=group, bits=bits, mode=mode
        )

    def unpacked(x: mx.array) -> mx.array:
        return x @ mx.dequantize(words, scales, bias, group, bits, mode=mode, dtype=dtype).T

    mx.eval(words, scales, *biases)
    for rows in TRIED_ROWS:
        x = mx.ones((rows, TRIED_SIDE), dtype)
        mx.eval(x)
        if _seconds(kernel, x) > WORTH * _seconds(unpacked, x):
            return rows
    return math.inf


def _seconds(product: Callable[[mx.array], mx.array], x: mx.array) -> float:
    """The better of two, after one that warms up."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        mx.eval(product(x))
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def _device() -> str:
    return str(mx.default_device())


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
