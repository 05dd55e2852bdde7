"""Convolutions on Metal: the same sum, flipped, so that MLX does not take Winograd's algorithm."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.models.layers import strips
from mlx_zimage.models.layers.convolution import Conv2d, store_flipped
from mlx_zimage.models.layers.strips import convolve
from tests.measures import pretend

METAL = "applegpu_g16s"


def _conv(
    inputs: int, outputs: int, size: int, stride: int = 1, dtype: mx.Dtype = mx.float32
) -> Conv2d:
    conv = Conv2d(inputs, outputs, size, stride, padding=size // 2)
    conv.weight = mx.random.normal(conv.weight.shape, key=mx.random.key(0)).astype(dtype)
    conv.bias = mx.random.normal((outputs,), key=mx.random.key(1)).astype(dtype)
    mx.eval(conv.parameters())
    return conv


def _image(channels: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal((2, 13, 10, channels), key=mx.random.key(2)).astype(dtype)


def _forms(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which of MLX's two functions each convolution calls, and whether it is flipped."""
    calls: list[str] = []
    plain, general = mx.conv2d, mx.conv_general

    def conv2d(*args: Any, **kwargs: Any) -> mx.array:
        calls.append("plain")
        return plain(*args, **kwargs)

    def conv_general(*args: Any, flip: bool = False, **kwargs: Any) -> mx.array:
        calls.append("flipped" if flip else "general")
        return general(*args, flip=flip, **kwargs)

    monkeypatch.setattr(mx, "conv2d", conv2d)
    monkeypatch.setattr(mx, "conv_general", conv_general)
    return calls


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize("channels", [(3, 8), (32, 16), (16, 3)])
def test_flipped_to_the_bit(
    channels: tuple[int, int], dtype: mx.Dtype, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, x = _conv(*channels, 3, dtype=dtype), _image(channels[0], dtype)
    expected = conv(x)
    mx.eval(expected)
    pretend(monkeypatch, METAL)
    calls = _forms(monkeypatch)
    if stored:
        store_flipped(conv)
    assert mx.array_equal(conv(x), expected)
    assert calls == ["flipped"]


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2)])
def test_other_convolutions_stay_as_they_are(
    size: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, METAL)
    calls = _forms(monkeypatch)
    conv = _conv(4, 4, size, stride)
    weight = conv.weight
    store_flipped(conv)
    conv(_image(4))
    assert calls == ["plain"] and conv.weight is weight


@pytest.mark.parametrize("architecture", [None, "sm_90"])
def test_other_devices_stay_as_they_are(
    architecture: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if architecture:
        pretend(monkeypatch, architecture)
    calls = _forms(monkeypatch)
    conv = _conv(4, 4, 3)
    weight = conv.weight
    store_flipped(conv)
    conv(_image(4))
    assert calls == ["plain"] and conv.weight is weight


def test_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = _conv(4, 4, 3), _image(4)
    expected = conv(x)
    mx.eval(expected)
    pretend(monkeypatch, METAL)
    store_flipped(conv)
    calls = _forms(monkeypatch)
    out = list(convolve(conv, strips.split(x, [5, 4, 4]), lambda strip: strip))
    assert calls == ["flipped"] * 3
    assert mx.array_equal(mx.concatenate(out, axis=1), expected)


def test_weights_are_stored_once_and_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, METAL)
    model = nn.Sequential(_conv(64, 64, 3), _conv(64, 64, 3))
    store_flipped(nn.Sequential(_conv(8, 8, 3)))  # what MLX itself keeps is there afterwards
    before = mx.array(model.layers[1].weight)
    mx.eval(before)
    gc.collect()
    held = mx.get_active_memory()
    store_flipped(model)
    assert mx.get_active_memory() <= held
    held = mx.get_active_memory()
    assert mx.array_equal(model.layers[1].weight, before)
    read = mx.contiguous(model.layers[1].weight[:, ::-1, ::-1])  # as a convolution reads it
    mx.eval(read)
    assert mx.get_active_memory() == held  # nothing was copied
    assert mx.array_equal(read, before[:, ::-1, ::-1])


def test_a_model_can_be_stored_cast_and_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = _conv(4, 8, 3), _image(4)
    expected = conv(x)
    weights = [(key, mx.array(value)) for key, value in tree_flatten(conv.parameters())]
    mx.eval(expected, weights)
    pretend(monkeypatch, METAL)
    for _ in range(2):
        store_flipped(conv)
        store_flipped(conv)
        assert mx.array_equal(conv(x), expected)
        assert all(mx.array_equal(conv[key], value) for key, value in weights)
        conv.load_weights(weights, strict=True)
        assert mx.array_equal(conv(x), expected)
    store_flipped(conv)
    conv.set_dtype(mx.bfloat16)
    assert mx.array_equal(conv.weight, weights[0][1].astype(mx.bfloat16))


def test_an_autoencoder_gives_the_same(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers agree to the bit, where strips are as many."""
    vae = Checkpoint.open(checkpoint("demo"))["vae"].load(mx.float32)
    latents = mx.random.normal((1, 16, 9, 8), key=mx.random.key(0))
    pixels = mx.random.uniform(-1, 1, (1, 72, 64, 3), key=mx.random.key(1))
    decoded, encoded = vae.decode(latents), vae.encode(pixels)
    mx.eval(decoded, encoded)
    pretend(monkeypatch, METAL)
    store_flipped(vae)
    calls = _forms(monkeypatch)
    assert mx.array_equal(vae.decode(latents), decoded)
    assert mx.array_equal(vae.encode(pixels), encoded)
    assert calls.count("flipped") > 20
