"""Sizes from aspects."""

import pytest

from mlx_zimage import RequestError, size_for_aspect
from mlx_zimage.images.aspect import ASPECTS, MEGAPIXEL


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        ("1:1", (1024, 1024)),
        ("16:9", (1280, 720)),
        ("9:16", (720, 1280)),
        ("4:3", (1152, 864)),
        ("3:2", (1248, 832)),
        ("5:4", (1120, 896)),
        ("21:9", (1568, 672)),
        ("2.39:1", (1568, 656)),
    ],
)
def test_about_a_megapixel(aspect: str, size: tuple[int, int]) -> None:
    assert size_for_aspect(aspect) == size


@pytest.mark.parametrize("aspect", [*ASPECTS, "7:5", "16:1", "1:16"])
@pytest.mark.parametrize("area", [256**2, 512**2, MEGAPIXEL, 2048**2, 4096**2])
@pytest.mark.parametrize("multiple", [8, 16, 32])
def test_sides_are_multiples_near_the_aspect(aspect: str, area: int, multiple: int) -> None:
    width, height = size_for_aspect(aspect, area, multiple)
    across, down = (float(part) for part in aspect.split(":"))
    assert width % multiple == height % multiple == 0
    assert max(width, height) <= 4096
    rounding = multiple / min(width, height)
    assert abs(width / height / (across / down) - 1) <= max(0.01, 1.2 * rounding)
    if area <= MEGAPIXEL and max(across, down) < 4 * min(across, down):
        assert 0.7 * area <= width * height <= 1.2 * area


def test_portraits_are_landscapes_turned() -> None:
    for aspect in ASPECTS:
        across, down = aspect.split(":")
        assert size_for_aspect(f"{down}:{across}") == size_for_aspect(aspect)[::-1]


@pytest.mark.parametrize("aspect", ["", "16x9", "16:", ":9", "0:1", "1:0", "-1:1", "a:b", "1:1:1"])
def test_what_is_no_aspect(aspect: str) -> None:
    with pytest.raises(RequestError, match="aspect must be as 16:9"):
        size_for_aspect(aspect)


def test_too_steep() -> None:
    with pytest.raises(RequestError, match="from 1:16 to 16:1, not '17:1'"):
        size_for_aspect("17:1")
