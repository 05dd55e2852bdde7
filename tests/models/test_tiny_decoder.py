"""TAEF1's decoder on random weights, against convolutions in NumPy and in strips."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_zimage.checkpoint.checkpoint import official_shapes
from mlx_zimage.models import tiny_decoder
from mlx_zimage.models.tiny_decoder import TinyDecoder
from tests.make_checkpoint import random_tensor

CHANNELS = 16


def _model(dtype: mx.Dtype = mx.float32) -> tuple[TinyDecoder, dict[str, np.ndarray]]:
    """Return a decoder and its weights as files have them."""
    model = TinyDecoder(CHANNELS)
    weights = {key: random_tensor(key, shape) for key, shape in official_shapes(model).items()}
    turned = [
        (k, mx.array(w.transpose(0, 2, 3, 1) if w.ndim == 4 else w).astype(dtype))
        for k, w in weights.items()
    ]
    model.load_weights(turned, strict=True)
    return model, weights


def _convolved(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A 3x3 convolution of (C, H, W) in float64."""
    weight = weights[f"{name}.weight"].astype(np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    bias = weights.get(f"{name}.bias", np.zeros(len(weight)))
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


def _expected(latents: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The published decoder, layer by layer as its numbers say, in float64: (H, W, 3)."""

    def block(x: np.ndarray, i: int) -> np.ndarray:
        h = np.maximum(_convolved(x, weights, f"layers.{i}.conv.0"), 0)
        h = np.maximum(_convolved(h, weights, f"layers.{i}.conv.2"), 0)
        return np.maximum(_convolved(h, weights, f"layers.{i}.conv.4") + x, 0)

    x = 3 * np.tanh(latents.astype(np.float64) / 3)
    x = np.maximum(_convolved(x, weights, "layers.0"), 0)
    for blocks, convolution in (((2, 3, 4), 6), ((7, 8, 9), 11), ((12, 13, 14), 16)):
        for i in blocks:
            x = block(x, i)
        x = _convolved(x.repeat(2, 1).repeat(2, 2), weights, f"layers.{convolution}")
    x = _convolved(block(x, 17), weights, "layers.18")
    return (x * 2 - 1).transpose(1, 2, 0)


def _latents(height: int, width: int, count: int = 1) -> np.ndarray:
    random = np.random.RandomState(0)
    return 2 * random.standard_normal((count, CHANNELS, height, width)).astype(np.float32)


def test_against_float64() -> None:
    model, weights = _model()
    latents = _latents(4, 6)
    pixels = np.array(model.decode(mx.array(latents)))
    expected = _expected(latents[0], weights)
    assert pixels.shape == (1, 32, 48, 3)
    assert np.linalg.norm(pixels[0] - expected) / np.linalg.norm(expected) < 1e-5


@pytest.mark.parametrize("strip", [1, 2000, 5000])
def test_strips_change_nothing(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = _model()
    latents = mx.array(_latents(11, 5, 2))
    monkeypatch.setattr(tiny_decoder, "strip_pixels", lambda: 1 << 30)
    expected = model.decode(latents)
    monkeypatch.setattr(tiny_decoder, "strip_pixels", lambda: strip)
    assert mx.abs(model.decode(latents) - expected).max().item() < 1e-5


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_types(dtype: mx.Dtype) -> None:
    model, _ = _model(dtype)
    assert model.dtype == dtype
    assert model.decode(mx.array(_latents(2, 2))).dtype == dtype


def test_extreme_latents_stay_finite() -> None:
    model, _ = _model()
    assert mx.isfinite(model.decode(mx.full((1, CHANNELS, 2, 2), 1e9))).all().item()


def test_size() -> None:
    """1.2 million numbers, as diffusers counts."""
    model = TinyDecoder(CHANNELS)
    assert sum(a.size for _, a in tree_flatten(model.parameters())) == 1_229_443
