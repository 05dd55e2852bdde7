"""Comparisons of two pictures, against their formulas written out."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Comparison, RequestError, compare_pictures
from mlx_zimage.images import compare


def _pair(height: int, width: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth picture and the same one under noise."""
    random = np.random.RandomState(0)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + k) * np.cos(y / (5 + k)) for k in range(3)]
    first = np.stack(waves, axis=-1) * 100 + 128
    second = first + random.standard_normal(first.shape) * noise
    return first.round().astype(np.uint8), np.clip(second, 0, 255).round().astype(np.uint8)


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The published definition, one window after the other, in two dimensions."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window = (window / window.sum())[..., None]
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = (m[y : y + 11, x : x + 11].astype(np.float64) for m in (a, b))
            mp, mq = (p * window).sum((0, 1)), (q * window).sum((0, 1))
            vp = (window * (p - mp) ** 2).sum((0, 1))
            vq = (window * (q - mq) ** 2).sum((0, 1))
            vpq = (window * (p - mp) * (q - mq)).sum((0, 1))
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mp * mq + c1) * (2 * vpq + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            )
    return float(np.mean(values))


@pytest.mark.parametrize(("height", "width", "noise"), [(24, 31, 4), (11, 40, 30), (40, 11, 90)])
def test_against_the_formulas(height: int, width: int, noise: float) -> None:
    a, b = _pair(height, width, noise)
    result = compare_pictures(a, b)
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    assert result.psnr == pytest.approx(10 * math.log10(255**2 / mse), rel=1e-12)
    assert result.ssim == pytest.approx(_ssim(a, b), abs=1e-9)
    assert result.largest == np.abs(a.astype(int) - b).max()
    assert result.differing == pytest.approx((a != b).any(axis=2).mean())
    assert not result.identical


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = _pair(50, 20, 9)
    expected = compare_pictures(a, b)
    monkeypatch.setattr(compare, "STRIP", 7)
    result = compare_pictures(a, b)
    assert result.ssim == pytest.approx(expected.ssim, rel=1e-12)
    assert (result.psnr, result.largest) == (expected.psnr, expected.largest)


def test_identical_pictures(tmp_path: Path) -> None:
    a, _ = _pair(16, 16, 0)
    Image.fromarray(a).save(tmp_path / "a.png")
    result = compare_pictures(tmp_path / "a.png", Image.fromarray(a))
    assert (result.psnr, result.largest, result.differing) == (math.inf, 0, 0)
    assert result.ssim == pytest.approx(1, abs=1e-12)
    assert result.identical
    assert result.summary == "the pictures are identical"


def test_transparency_counts() -> None:
    a, _ = _pair(16, 16, 0)
    clear = np.dstack([a, np.full((16, 16), 255, np.uint8)])
    clear[3, 4, 3] = 155
    result = compare_pictures(a, clear)
    assert (result.largest, result.differing) == (100, 1 / 256)
    assert result.picture().mode == "RGB"


def test_side_by_side() -> None:
    a, b = _pair(40, 120, 0)
    b = b.copy()
    b[10, 20] = np.clip(b[10, 20].astype(int) + 20, 0, 255)
    result = compare_pictures(a, b)
    assert (result.largest, result.magnification) == (20, 12)
    sheet = np.asarray(result.picture(("a.png", "b.png")))
    matches = [
        (y, x)
        for y in range(sheet.shape[0] - 39)
        for x in range(sheet.shape[1] - 119)
        if np.array_equal(sheet[y : y + 40, x : x + 120], a)
    ]
    ((top, left),) = matches
    right = left + 2 * (120 + 12)
    panel = sheet[top : top + 40, right : right + 120]
    assert panel[10, 20].max() == 240
    assert panel.sum() == panel[10, 20].sum()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((20, 30), (20, 31), "must be of one size, not 30 x 20 and 31 x 20"),
        ((10, 30), (10, 30), "at least 11 pixels wide and high, not 30 x 10"),
    ],
)
def test_refused(first: tuple[int, int], second: tuple[int, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        compare_pictures(np.zeros((*first, 3), np.uint8), np.zeros((*second, 3), np.uint8))


def test_an_unreadable_file_is_named() -> None:
    with pytest.raises(RequestError, match=r"the second picture nowhere\.png cannot be read"):
        compare_pictures(np.zeros((20, 20, 3), np.uint8), "nowhere.png")


def test_repr_is_short() -> None:
    a, b = _pair(16, 16, 5)
    result = compare_pictures(a, b)
    assert isinstance(result, Comparison)
    assert len(repr(result)) < 150
