"""Rotary tables, and the rotation of pairs that are neighbours or half a head apart."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.models.layers.positions import (
    caption_positions,
    image_positions,
    rotate,
    rotate_halves,
    sinusoid,
    tables,
    text_tables,
)


def _normal(*shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(0))


def _turned(a: np.ndarray, b: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angles.astype(np.float32)), np.sin(angles.astype(np.float32))
    return a * cos - b * sin, a * sin + b * cos


def test_neighbours_turn_as_complex_numbers_to_the_bit() -> None:
    x = _normal(1, 12, 3, 8)
    rope = tables(caption_positions(12)[None], [8, 0, 0], 256.0)
    angles = np.arange(1, 13)[:, None, None] / 256.0 ** (np.arange(0, 8, 2) / 8)
    even, odd = _turned(np.array(x[0, ..., ::2]), np.array(x[0, ..., 1::2]), angles)
    out = np.array(rotate(x, rope)[0])
    assert np.array_equal(out[..., ::2], even)
    assert np.array_equal(out[..., 1::2], odd)


def test_halves_turn_likewise() -> None:
    x = _normal(1, 12, 3, 8)
    angles = np.arange(12, dtype=np.float32)[:, None, None] / np.float32(1e6) ** np.float32(
        np.arange(0, 8, 2) / 8
    )
    first, second = _turned(np.array(x[0, ..., :4]), np.array(x[0, ..., 4:]), angles)
    out = np.array(rotate_halves(x, text_tables(12, 8, 1e6))[0])
    assert np.allclose(out[..., :4], first, atol=1e-6)
    assert np.allclose(out[..., 4:], second, atol=1e-6)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=str)
def test_rotation_is_computed_in_float32_and_returned_in_16_bit(dtype: mx.Dtype) -> None:
    rope = tables(image_positions(33, 4, 4)[None], [8, 12, 12], 256.0)
    x = _normal(1, 16, 3, 32).astype(dtype)
    out = rotate(x, rope)
    assert out.dtype == dtype
    assert mx.array_equal(out, rotate(x.astype(mx.float32), rope).astype(dtype))


def test_sinusoid_starts_with_cosines() -> None:
    out = sinusoid(np.array([0.0, 500.0], np.float32), 256)
    assert out.shape == (2, 256)
    assert out[0].tolist() == [1.0] * 128 + [0.0] * 128
    assert out[1, 0] == pytest.approx(np.cos(500.0), abs=1e-7)
