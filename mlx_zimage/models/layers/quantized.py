"""A linear layer whose weights are packed, and unpacked for a product where that is faster.

With few rows MLX's quantized kernel is the faster way on every device. With many, an ordinary
product of unpacked weights can be: on a CPU it is, up to 50 times. From how many rows on is a table
by device; `mlx-zimage bench --probe` measures whether it is right on a machine.
"""

import math

import mlx.core as mx
from mlx import nn

from ... import device
from .evaluation import evaluate_on_cpu
from .rotation import rotate
from .slot import Slot

UNPACKED = 1 << 22  # numbers that a CPU unpacks at once

# Rows from which on unpacking is faster, in float32 and in 16 bit. Measured by
# `mlx-zimage bench --probe` on two cores of an EPYC 7003, with OpenBLAS.
CPU_ROWS = {
    ("affine", 2): (16, 2),
    ("affine", 3): (8, 2),
    ("affine", 4): (2, 1),
    ("affine", 5): (16, 2),
    ("affine", 6): (16, 4),
    ("affine", 8): (2, 1),
    ("mxfp4", 4): (32, 4),
    ("mxfp8", 8): (2, 1),
    ("nvfp4", 4): (32, 4),
}
# By MLX's sources, not measured. On Apple's first generations its kernels are a third slower than
# a product, which is worth unpacking where there are many rows.
APPLE_ROWS, APPLE_BEFORE = 1024, 15
# CUDA has tuned kernels in 16 bit, for these bits and all but affine packings; else a plain one.
CUDA_ROWS, CUDA_TUNED = 64, (4, 8)


class QuantizedLinear(Slot, nn.QuantizedLinear):
    """A product with packed weights; `rotation` says how they were rotated before packing."""

    rotation = ""

    def __call__(self, x: mx.array) -> mx.array:
        adapter = self.adapter
        out = self.product(x) if adapter is None else adapter(x, self)
        return out + self.bias if "bias" in self else out

    def product(self, x: mx.array) -> mx.array:
        x = rotate(x, self.rotation)
        rows = x.size // max(x.shape[-1], 1)
        if rows < unpacks_from(self.mode, self.bits, x.dtype):
            packing = {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}
            biases = self.get("biases")
            return mx.quantized_matmul(x, self.weight, self.scales, biases, **packing)
        at_once = len(self.weight)
        if device.kind() == "cpu":
            at_once = max(UNPACKED // x.shape[-1], 1)
        parts = []
        for start in range(0, len(self.weight), at_once):
            parts.append(x @ self._unpacked(start, start + at_once, x.dtype).T)
            evaluate_on_cpu(parts[-1])  # else all that is unpacked is there at once
        return mx.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def rows(self, start: int, stop: int) -> mx.array:
        return rotate(self._unpacked(start, stop, mx.float32), self.rotation)

    def _unpacked(self, start: int, stop: int, dtype: mx.Dtype) -> mx.array:
        """Return some rows of the matrix as it is packed."""
        biases = self.get("biases")
        words, scales = self.weight[start:stop], self.scales[start:stop]
        biases = None if biases is None else biases[start:stop]
        return unpack(words, scales, biases, self.group_size, self.bits, self.mode, dtype)


def unpacks_from(mode: str, bits: int, dtype: mx.Dtype) -> float:
    """Return the rows from which on unpacking is faster than MLX's quantized kernel."""
    kind = device.kind()
    if kind == "cpu":
        return CPU_ROWS[mode, bits][0 if dtype == mx.float32 else 1]
    if kind == "cuda":
        is_tuned = dtype != mx.float32 and (mode != "affine" or bits in CUDA_TUNED)
        return math.inf if is_tuned else CUDA_ROWS
    generation = device.apple_generation()
    return APPLE_ROWS if generation is not None and generation < APPLE_BEFORE else math.inf


def unpack(
    words: mx.array,
    scales: mx.array,
    biases: mx.array | None,
    group_size: int,
    bits: int,
    mode: str,
    dtype: mx.Dtype,
) -> mx.array:
    """Return what `mx.dequantize` does, to the bit.

    For each number of 4 or 8 bits a CPU's `mx.dequantize` shifts and copies 32; here it takes them
    from bytes, in a third of the time.
    """
    if biases is None or bits not in (4, 8) or device.kind() != "cpu":
        return mx.dequantize(words, scales, biases, group_size, bits, mode=mode, dtype=dtype)
    values = words.view(mx.uint8)
    if bits == 4:
        values = values.astype(mx.uint16)
        values = ((values | values << 4) & 0x0F0F).view(mx.uint8)
    values = values.reshape(*scales.shape, group_size) * scales[..., None] + biases[..., None]
    return values.reshape(len(words), -1).astype(dtype)
