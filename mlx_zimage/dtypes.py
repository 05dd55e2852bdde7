"""The types of numbers that a model computes in."""

from typing import Literal

import mlx.core as mx

from . import device

Dtype = Literal["bfloat16", "float16", "float32"]

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
BFLOAT16_FROM = 15
"""Apple's GPUs compute in bfloat16 natively from this generation on; before, float16 is faster."""


def default_dtype() -> str:
    """Return the device's fast type: 16 bit on a GPU, 32 on a CPU, which is slow in 16."""
    if device.kind() == "cpu":
        return "float32"
    generation = device.apple_generation()
    return "float16" if generation is not None and generation < BFLOAT16_FROM else "bfloat16"
