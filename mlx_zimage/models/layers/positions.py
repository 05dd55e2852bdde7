"""Positions in a sequence and in time: rotary tables on three axes, and the timestep's sinusoid.

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
    """Rotary tables in float32, laid out as the pairs they rotate, with the sine's sign.

    A pair (a, b) becomes (a, b) * (cos, cos) + (b, a) * (-sin, sin). Pairs are neighbours in
    (B or 1, L, 1, D/2, 2), and half a head apart in (1, L, 1, 2, D/2).
    """

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
    """Return tables for positions (B, L, 3); angles in float64, cut to float32 as published."""
    angles = []
    for axis, width in enumerate(widths):
        frequencies = 1.0 / theta ** (np.arange(0, width, 2, dtype=np.float64) / width)
        angles.append((positions[..., axis, None] * frequencies).astype(np.float32))
    return _rope(np.concatenate(angles, axis=-1)[:, :, None], axis=-1)  # (B, L, 1, D/2, 2)


def text_tables(length: int, width: int, theta: float) -> Rope:
    """Return tables on one axis, from 0; float32 throughout, as Qwen3 is published."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequencies = np.float32(1) / (np.float64(theta) ** exponents).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    return _rope(angles[None, :, None], axis=-2)  # (1, L, 1, 2, D/2)


def _rope(angles: np.ndarray, axis: int) -> Rope:
    """Both tables of (B, L, 1, D/2) angles; `axis`: where the two of a pair lie."""
    cos, sin = np.cos(angles), np.sin(angles)
    return Rope(mx.array(np.stack([cos, cos], axis)), mx.array(np.stack([-sin, sin], axis)))


def sinusoid(times: np.ndarray, width: int) -> np.ndarray:
    """Return (..., width) for times (...) in float32: cosines first, then sines."""
    half = width // 2
    exponents = np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)  # angles reach 1000
    angles = times.astype(np.float32)[..., None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


@partial(mx.compile, shapeless=True)
def _rotated(x: mx.array, swapped: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    # Fused, so that the float32 inside never becomes a tensor of a 16-bit stream.
    return (x.astype(mx.float32) * cos + swapped.astype(mx.float32) * sin).astype(x.dtype)


def rotate(x: mx.array, rope: Rope) -> mx.array:
    """Multiply neighbouring pairs of (B, L, H, D), as complex numbers, by the rotary table."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)  # (B, L, H, D/2, 2)
    return _rotated(pairs, pairs[..., ::-1], *rope).reshape(x.shape)


def rotate_halves(x: mx.array, rope: Rope) -> mx.array:
    """Multiply pairs that lie half a head apart, as Qwen3 has them."""
    halves = x.reshape(*x.shape[:-1], 2, -1)  # (B, L, H, 2, D/2)
    return _rotated(halves, halves[..., ::-1, :], *rope).reshape(x.shape)
