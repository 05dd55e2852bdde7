"""Rotations of a layer's input that spread a few large numbers over many, before quantization.

A layer's matrix W is stored as W R, and x R is multiplied with it: (x R)(W R)^T = x W^T, because R
is orthonormal. R is symmetric as well, so that a second rotation undoes the first. It works on
blocks of neighbouring numbers:

- `hadamard-N`: Sylvester's Hadamard matrix of size N, a power of two, divided by sqrt(N);
- `regular-N`: the Kronecker power, N a power of four, of the matrix of size 4 whose rows are all
  1/2 but for -1/2 in the antidiagonal. ConvRot's files hold weights rotated so.
"""

import math

import mlx.core as mx

LARGEST = 1024  # numbers in a block


def check_rotation(rotation: str, width: int | None = None) -> None:
    """Raise ValueError for a rotation that is unknown, or does not fit layers of this width."""
    kind, _, text = rotation.partition("-")
    size = int(text) if text.isdecimal() and len(text) <= 4 else 0
    base = {"hadamard": 2, "regular": 4}.get(kind)
    if base is None or not base <= size <= LARGEST or base ** round(math.log(size, base)) != size:
        raise ValueError(f"rotation {rotation!r}")
    if width is not None and width % size:
        raise ValueError(f"rotation {rotation!r} of a layer {width} wide")


def rotate(x: mx.array, rotation: str) -> mx.array:
    """Rotate blocks of the last axis, or rotate them back; an empty rotation leaves all."""
    if not rotation:
        return x
    kind, _, text = rotation.partition("-")
    blocks = x.reshape(*x.shape[:-1], -1, int(text))
    if kind == "hadamard":
        return mx.hadamard_transform(blocks, scale=int(text) ** -0.5).reshape(x.shape)
    digits = round(math.log(int(text), 4))
    turned = x.reshape(-1, *[4] * digits)
    for axis in range(1, digits + 1):
        half = turned.sum(axis=axis, keepdims=True) * 0.5
        turned = half - mx.take(turned, mx.array([3, 2, 1, 0]), axis=axis)
    return turned.reshape(x.shape)
