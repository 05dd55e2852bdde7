"""The linear map from latents to colours."""

import json

import numpy as np
import pytest

from mlx_zimage import CheckpointError
from mlx_zimage.images.preview import FLUX, ColourMap, fit

MATRIX = np.random.RandomState(3).standard_normal((16, 3)).astype(np.float32) * 0.05
BIAS = np.array([0.1, -0.2, 0.05], np.float32)


def _decode(latents: np.ndarray) -> np.ndarray:
    """A VAE that is linear, with 8 x 8 equal pixels for each latent."""
    pixels = np.einsum("bchw,cd->bhwd", latents, MATRIX) + BIAS
    return pixels.repeat(8, axis=1).repeat(8, axis=2)


def test_the_fit_finds_a_linear_vae() -> None:
    result = fit(_decode, 16)
    assert np.abs(result.matrix - MATRIX).max() < 1e-3  # the ridge's part: 1.5e-4
    assert np.abs(result.bias - BIAS).max() < 1e-3


def test_the_fit_is_always_the_same() -> None:
    first, second = fit(_decode, 16), fit(_decode, 16)
    assert np.array_equal(first.matrix, second.matrix)


def test_the_fit_survives_numbers_that_are_not_finite() -> None:
    result = fit(lambda z: np.full((len(z), 16, 16, 3), np.nan), 16)
    assert np.isfinite(result.matrix).all()


def test_flux_in_float64() -> None:
    """The published formula: clamp((rgb + 1) / 2) * 255, truncated."""
    latents = np.random.RandomState(0).standard_normal((16, 300, 280)).astype(np.float32)
    colours = np.einsum("chw,cd->hwd", latents, FLUX.matrix.astype(np.float64)) + FLUX.bias
    expected = np.floor(np.clip((colours + 1) / 2, 0, 1) * 255)
    picture = np.asarray(FLUX.picture(latents, 8)).astype(int)
    difference = np.abs(picture - expected)
    assert difference.max() <= 1 and difference.mean() < 1e-3  # float32 against float64


@pytest.mark.parametrize(
    ("height", "width", "factor", "size"),
    [
        (128, 128, 8, (256, 256)),  # 1024 x 1024
        (16, 16, 8, (128, 128)),  # the demo's, no larger than its picture
        (64, 96, 8, (384, 256)),
        (512, 512, 8, (512, 512)),
        (1, 1, 8, (8, 8)),
        (256, 300, 8, (300, 256)),
        (32, 32, 2, (64, 64)),
    ],
)
def test_sizes(height: int, width: int, factor: int, size: tuple[int, int]) -> None:
    assert FLUX.picture(np.zeros((16, height, width), np.float32), factor).size == size


def test_latents_that_are_not_finite_are_drawn() -> None:
    latents = np.full((16, 8, 8), np.nan, np.float32)
    assert FLUX.picture(latents, 1).getpixel((0, 0)) == (127, 127, 127)


def test_json_keeps_a_map() -> None:
    again = ColourMap.from_dict(json.loads(json.dumps(FLUX.to_dict())), 16, "x")
    assert np.array_equal(again.matrix, FLUX.matrix)
    assert np.array_equal(again.bias, FLUX.bias)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "preview.json must hold numbers as 'matrix' and 'bias'"),
        ({"matrix": [["a"]], "bias": [0, 0, 0]}, "must hold numbers"),
        ({"matrix": [[0, 0, 0]], "bias": [0, 0, 0]}, r"16 x 3 and a bias of 3, not \(1, 3\)"),
        ({"matrix": [[0, 0, float("nan")]] * 16, "bias": [0, 0, 0]}, "must hold finite numbers"),
    ],
)
def test_broken_maps(data: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ColourMap.from_dict(data, 16, "preview.json")
