"""Large images go through the autoencoder in strips: the same numbers, in less memory."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.models import autoencoder
from mlx_zimage.models.autoencoder import Autoencoder
from mlx_zimage.models.layers import linear as layers

WHOLE = 1 << 30


@pytest.fixture
def vae(checkpoint: Callable[[str], Path]) -> Autoencoder:
    return Checkpoint.open(checkpoint("demo"))["vae"].load(mx.float32)


def _latents(height: int, width: int, count: int = 1) -> mx.array:
    return mx.random.normal((count, 16, height, width), key=mx.random.key(0))


def _pixels(height: int, width: int) -> mx.array:
    return mx.random.uniform(-1, 1, (1, height, width, 3), key=mx.random.key(1))


@pytest.mark.parametrize("strip", [1, 3000, 8000, 20000])
def test_strips_change_nothing(
    vae: Autoencoder, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one latent row a strip to halves, of unequal heights too. Measured on a CPU: 0."""
    latents, pixels = _latents(23, 20, 2), _pixels(184, 96)
    monkeypatch.setattr(autoencoder, "STRIP", WHOLE)
    decoded, encoded = vae.decode(latents), vae.encode(pixels)
    mx.eval(decoded, encoded)
    monkeypatch.setattr(autoencoder, "STRIP", strip)
    monkeypatch.setattr(layers, "SCORES", 10_000)
    assert mx.abs(vae.decode(latents) - decoded).max().item() < 1e-5
    assert mx.abs(vae.encode(pixels) - encoded).max().item() < 1e-5


def _peak(made: Callable[[], mx.array]) -> int:
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(made())
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("way", ["decode", "encode"])
def test_strips_take_less_memory(
    vae: Autoencoder, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> mx.array:
        return vae.decode(_latents(48, 48)) if way == "decode" else vae.encode(_pixels(384, 384))

    monkeypatch.setattr(autoencoder, "STRIP", WHOLE)
    whole = _peak(made)
    monkeypatch.setattr(autoencoder, "STRIP", 384 * 32)
    strips = _peak(made)
    print(f"{way}, 384 x 384: {whole / 1e6:.0f} MB at once, {strips / 1e6:.0f} MB in strips")
    assert strips < 0.5 * whole
