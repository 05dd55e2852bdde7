"""Large images go through the autoencoder in strips: the same numbers, in less memory."""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.models.autoencoder import Autoencoder, AutoencoderConfig
from mlx_zimage.models.layers import attention, strips
from tests.measures import pretend
from tests.parity.official import OFFICIAL

WHOLE = 1 << 30


@pytest.fixture
def vae(checkpoint: Callable[[str], Path]) -> Autoencoder:
    return Checkpoint.open(checkpoint("demo"))["vae"].load(mx.float32)


def _latents(height: int, width: int, count: int = 1) -> mx.array:
    return mx.random.normal((count, 16, height, width), key=mx.random.key(0))


def _pixels(height: int, width: int) -> mx.array:
    return mx.random.uniform(-1, 1, (1, height, width, 3), key=mx.random.key(1))


@pytest.mark.slow
@pytest.mark.parametrize("strip", [1, 3000, 8000, 20000])
def test_strips_change_nothing(
    vae: Autoencoder, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strips are from one row of latents to half an image high. Measured on a CPU: 0."""
    latents, pixels = _latents(23, 20, 2), _pixels(184, 96)
    monkeypatch.setattr(strips, "CPU_PIXELS", WHOLE)
    decoded, encoded = vae.decode(latents), vae.encode(pixels)
    mx.eval(decoded, encoded)
    monkeypatch.setattr(strips, "CPU_PIXELS", strip)
    monkeypatch.setattr(attention, "SCORES", 10_000)
    assert mx.abs(vae.decode(latents) - decoded).max().item() < 1e-5
    assert mx.abs(vae.encode(pixels) - encoded).max().item() < 1e-5


@pytest.mark.parametrize(
    ("architecture", "pixels"),
    [(None, 1 << 15), ("applegpu_g13g", 1 << 18), ("applegpu_g17s", 1 << 18), ("sm_90", 1 << 18)],
)
def test_strips_are_larger_on_a_gpu(
    architecture: str | None, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation costs a GPU 0.25 ms: the real decoder's 1024 x 1024 took 3858 of them."""
    config = json.loads((OFFICIAL / "vae.json").read_text("utf-8"))
    model = Autoencoder(AutoencoderConfig.from_dict(config))
    if architecture:
        pretend(monkeypatch, architecture)
    assert strips.strip_pixels() == pixels
    heights = [64 * strip.shape[1] for strip in model._strips(mx.zeros((1, 128, 128, 16)), 1)]
    assert heights == [8 * 8 * pixels // 8 // 1024] * (1024 * 1024 // pixels)
    count = [0]
    monkeypatch.setattr(mx, "eval", lambda *_: count.__setitem__(0, count[0] + 1))
    model.decode(mx.zeros((1, 16, 128, 128)))  # a graph: nothing is computed
    print(f"{architecture}: {count[0]} evaluations")
    assert count[0] < 600 if architecture else count[0] > 3000


def _peak(run: Callable[[], mx.array]) -> int:
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(run())
    return mx.get_peak_memory() - before


@pytest.mark.slow
@pytest.mark.parametrize("way", ["decode", "encode"])
def test_strips_take_less_memory(
    vae: Autoencoder, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> mx.array:
        return vae.decode(_latents(48, 48)) if way == "decode" else vae.encode(_pixels(384, 384))

    monkeypatch.setattr(strips, "CPU_PIXELS", WHOLE)
    at_once = _peak(run)
    monkeypatch.setattr(strips, "CPU_PIXELS", 384 * 32)
    in_strips = _peak(run)
    print(f"{way}, 384 x 384: {at_once / 1e6:.0f} MB at once, {in_strips / 1e6:.0f} MB in strips")
    assert in_strips < 0.5 * at_once
