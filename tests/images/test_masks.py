"""Masks: which pixels and latents they paint, and their soft edges."""

import numpy as np
import pytest
from PIL import Image

from mlx_zimage.images import masks
from mlx_zimage.images.picture import Picture

SQUARE = np.zeros((40, 60), bool)
SQUARE[10:20, 30:50] = True


def hard(pixels: np.ndarray) -> np.ndarray:
    return masks.harden(masks.to_mask(Picture.read("mask", pixels)))


def test_half_white_counts_as_white() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(hard(levels), levels >= 128)
    assert hard(np.array([[[255, 255, 0], [255, 0, 0], [0, 255, 0]]], np.uint8)).tolist() == [
        [True, False, True]  # by luminance
    ]


def test_transparent_is_painted() -> None:
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, :, 3] = 0, 127, 128, 255
    pixels[..., :3] = [[255], [0], [255], [255]]
    assert hard(pixels).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize(
    ("mask", "image", "alike"),
    [
        ((64, 48), (64, 48), True),
        ((128, 96), (64, 48), True),
        ((500, 333), (1000, 667), True),
        ((64, 64), (64, 48), False),
        ((48, 64), (64, 48), False),
        ((64, 50), (640, 480), False),
    ],
)
def test_alike(mask: tuple[int, int], image: tuple[int, int], alike: bool) -> None:
    assert masks.is_alike(mask, image) is alike


def test_bounds() -> None:
    assert masks.bounds(SQUARE) == (30, 10, 50, 20)


@pytest.mark.parametrize("width", [1, 2.5, 8, 100])
def test_a_soft_edge_falls_with_the_distance(width: float) -> None:
    ramp = masks.feather(SQUARE, width)
    y, x = np.mgrid[:40, :60]
    distance = np.hypot(np.maximum(30 - x, x - 49).clip(0), np.maximum(10 - y, y - 19).clip(0))
    assert np.abs(ramp - np.clip(1 - distance / (width + 1), 0, 1)).max() < 1e-5
    assert ramp.dtype == np.float32 and (ramp[SQUARE] == 1).all()


def test_no_soft_edge() -> None:
    assert np.array_equal(masks.feather(SQUARE, 0), SQUARE)
    assert not masks.feather(np.zeros((4, 4), bool), 8).any()


def test_of_latents() -> None:
    mask = np.zeros((16, 24), bool)
    mask[1:9, 1:9] = True
    assert masks.corners(mask, 8).tolist() == [[False] * 3, [False, True, False]]
    assert masks.touched(mask, 8).tolist() == [[True, True, False]] * 2
    assert masks.averages(mask, 8)[0].tolist() == [49 / 64, 7 / 64, 0]


def test_composed_keeps_pixels_where_the_opacity_is_0_or_1() -> None:
    above, below = np.random.RandomState(0).randint(0, 256, (2, 8, 9, 3)).astype(np.uint8)
    opacity = np.random.RandomState(1).choice([0, 0.5, 1], (8, 9)).astype(np.float32)
    mixed = masks.composed(above, below, opacity)
    assert np.array_equal(mixed[opacity == 0], below[opacity == 0])
    assert np.array_equal(mixed[opacity == 1], above[opacity == 1])
    half = (above.astype(float) + below) / 2
    assert np.abs(mixed - half)[opacity == 0.5].max() <= 0.5


def test_one_bit_images() -> None:
    assert np.array_equal(masks.harden(Image.fromarray(SQUARE)), SQUARE)
