"""Where and when a token is: rotary positions on three axes, and the timestep's sinusoid.

The axes are (caption position, row, column). Angles and their cosines are computed on the host:
they are few, and exact there whatever the backend does with large angles.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import mlx.core as mx
import numpy as np


class Rope(NamedTuple):
    """Rotary tables in float32, each (B or 1, L, 1, head_dim / 2)."""

    cos: mx.array
    sin: mx.array


def caption_positions(length: int) -> np.ndarray:
    positions = np.zeros((length, 3), np.int64)
    positions[:, 0] = np.arange(1, length + 1)
    return positions


def image_positions(first: int, rows: int, columns: int) -> np.ndarray:
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([np.full_like(row, first), row, column], axis=-1)


def tables(positions: np.ndarray, widths: Sequence[int], theta: float) -> Rope:
    """(B, L, 3) integer positions to tables; angles in float64, cut to float32 as published."""
    angles = []
    for axis, width in enumerate(widths):
        frequencies = 1.0 / theta ** (np.arange(0, width, 2, dtype=np.float64) / width)
        angles.append((positions[..., axis, None] * frequencies).astype(np.float32))
    table = np.concatenate(angles, axis=-1)[:, :, None]  # (B, L, 1, D/2)
    return Rope(mx.array(np.cos(table)), mx.array(np.sin(table)))


def text_tables(length: int, width: int, theta: float) -> Rope:
    """One axis, from 0; float32 throughout, as Qwen3 is published."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequencies = np.float32(1) / (np.float64(theta) ** exponents).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    table = angles[None, :, None]  # (1, L, 1, D/2)
    return Rope(mx.array(np.cos(table)), mx.array(np.sin(table)))


def sinusoid(times: np.ndarray, width: int) -> np.ndarray:
    """Float32 (...) to (..., width): cosines first, then sines."""
    half = width // 2
    exponents = np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)  # angles reach 1000
    angles = times.astype(np.float32)[..., None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


@partial(mx.compile, shapeless=True)
def _rotated(
    even: mx.array, odd: mx.array, cos: mx.array, sin: mx.array
) -> tuple[mx.array, mx.array]:
    # Fused, so that the float32 inside never becomes a tensor of a 16-bit stream.
    a, b = even.astype(mx.float32), odd.astype(mx.float32)
    return (a * cos - b * sin).astype(even.dtype), (a * sin + b * cos).astype(even.dtype)


def rotate(x: mx.array, rope: Rope) -> mx.array:
    """Multiply neighbouring pairs, taken as complex numbers, by the rotary table."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)  # (B, L, H, D/2, 2)
    even, odd = _rotated(pairs[..., 0], pairs[..., 1], rope.cos, rope.sin)
    return mx.stack([even, odd], axis=-1).reshape(x.shape)


def rotate_halves(x: mx.array, rope: Rope) -> mx.array:
    """The same for pairs that lie half the width apart, as Qwen3 has them."""
    first, second = mx.split(x, 2, axis=-1)  # (B, L, H, D/2)
    return mx.concatenate([*_rotated(first, second, rope.cos, rope.sin)], axis=-1)
