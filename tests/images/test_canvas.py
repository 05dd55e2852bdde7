"""Sizes, fits, borders and surroundings."""

import numpy as np
import pytest
from PIL import Image

from mlx_zimage.images import canvas
from mlx_zimage.images.canvas import LANCZOS, fitted

MOST = (8192, 8192)
MEGAPIXEL = 1024 * 1024
PIXELS = np.random.RandomState(0).randint(0, 256, (60, 90, 3)).astype(np.uint8)
IMAGE = Image.fromarray(PIXELS)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 1024), (1024, 1024)),
        ((640, 480), (640, 480)),
        ((1000, 750), (992, 736)),  # what is over a multiple is cropped
        ((40, 31), (32, 16)),
        ((5, 5), (16, 16)),
        ((4032, 3024), (1184, 880)),
        ((3024, 4032), (880, 1184)),
        ((1920, 1080), (1360, 768)),
        ((100_000, 10), (8192, 16)),
        ((10_000, 5_000), (1456, 720)),
    ],
)
def test_the_size_of_a_picture(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert canvas.near_size(size, 16, MEGAPIXEL, MOST) == expected
    assert expected[0] * expected[1] <= MEGAPIXEL


def test_a_small_part_is_enlarged() -> None:
    assert canvas.near_size((50, 50), 16, MEGAPIXEL, MOST, enlarge=True) == (1024, 1024)
    width, height = canvas.near_size((30, 60), 16, MEGAPIXEL, MOST, enlarge=True)
    assert 0.95 * MEGAPIXEL < width * height <= MEGAPIXEL and abs(height / width - 2) < 0.05


def test_the_other_side() -> None:
    assert canvas.other_side(512, 480 / 640, 16, 8192) == 384
    assert canvas.other_side(16, 1 / 100, 16, 8192) == 16
    assert canvas.other_side(512, 100, 16, 8192) == 8192


def test_stretch_is_the_published_resize() -> None:
    placement = fitted(IMAGE.size, (64, 32), "stretch", 16)
    assert np.array_equal(placement.apply(IMAGE), IMAGE.resize((64, 32), LANCZOS))


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_picture_of_the_size_is_not_touched(fit: str) -> None:
    placement = fitted(IMAGE.size, IMAGE.size, fit, 16)
    assert placement.is_complete and np.array_equal(placement.apply(IMAGE), PIXELS)


def test_crop_keeps_the_middle_and_the_aspect() -> None:
    placement = fitted((90, 60), (32, 32), "crop", 16)
    assert placement.box == (15, 0, 75, 60) and placement.is_complete
    placement = fitted((90, 60), (96, 16), "crop", 16)
    assert placement.box == (0, 22.5, 90, 37.5)


def test_crop_by_less_than_a_multiple_resamples_nothing() -> None:
    placement = fitted((90, 60), (80, 48), "crop", 16)
    assert np.array_equal(placement.apply(IMAGE), PIXELS[6:54, 5:85])


def test_pad_keeps_all_of_it() -> None:
    placement = fitted((90, 60), (64, 64), "pad", 16)
    assert placement.box == (0, 0, 90, 60) and placement.place == (0, 10, 64, 53)
    assert not placement.is_complete


def test_the_same_part_of_another_size() -> None:
    placement = fitted((90, 60), (32, 32), "crop", 16).scaled((90, 60), (180, 120))
    assert placement.box == (30, 0, 150, 120)


def test_a_border_continues_the_edges() -> None:
    image = Image.new("RGB", (40, 30), "blue")
    bordered = canvas.bordered(image, (8, 0, 24, 5))
    assert bordered.size == (72, 35)
    assert (np.asarray(bordered) == [0, 0, 255]).all()
    inside = np.asarray(canvas.bordered(IMAGE, (8, 4, 0, 5)))
    assert np.array_equal(inside[4:64, 8:], PIXELS)
    assert canvas.bordered(IMAGE, (0, 0, 0, 0)) is IMAGE


@pytest.mark.parametrize(
    ("border", "expected"),
    [
        ((10, 0, 0, 0), (22, 0, 0, 0)),  # 90 + 22 = 112
        ((0, 0, 10, 0), (0, 0, 22, 0)),
        ((6, 4, 0, 0), (6, 4, 0, 0)),
        ((0, 3, 0, 2), (0, 18, 0, 2)),
    ],
)
def test_borders_grow_to_multiples(
    border: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    assert canvas.grown((90, 60), border, 16) == expected


def test_surroundings() -> None:
    assert canvas.surroundings((20, 20, 30, 25), 5, (90, 60)) == (15, 15, 35, 30)
    assert canvas.surroundings((0, 50, 10, 60), 5, (90, 60)) == (0, 45, 15, 60)
    assert canvas.surroundings((20, 20, 30, 25), 5, (90, 60), 1.0) == (15, 13, 35, 33)
    assert canvas.surroundings((80, 20, 90, 50), 0, (90, 60), 1.0) == (60, 20, 90, 50)
    assert canvas.surroundings((0, 0, 90, 10), 0, (90, 60), 1.0) == (0, 0, 90, 60)
